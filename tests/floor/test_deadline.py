"""The invocation's deadline reaches all code below the handler, and its end gives claims back."""

import asyncio
import contextvars
import functools
import threading
import time

import pytest
from tests.mount import alarms

from efsstate import current, deadline, events, invocation


class Context:
    """What Lambda gives a handler."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self):
        return int((self.end - time.monotonic()) * 1000)


def test_without_an_invocation_waits_end_after_a_minute():
    assert deadline.current() is None
    assert deadline.remaining() is None
    assert 50 < deadline.until(None) - time.monotonic() <= 60
    assert 3 < deadline.until(5) - time.monotonic() <= 5


def test_a_handlers_deadline_reaches_calls_and_threads():
    seen = []

    @invocation
    def handler(event, _context):
        """Document it."""
        seen.append(deadline.remaining())
        thread = threading.Thread(target=lambda: seen.append(deadline.remaining()))
        thread.start()
        thread.join()
        seen.append(deadline.until(None) - time.monotonic())
        seen.append(deadline.until(1) - time.monotonic())
        return event

    assert handler({"a": 1}, Context(30)) == {"a": 1}
    assert all(20 < value <= 30 for value in seen[:3])
    assert 0 < seen[3] <= 1
    assert (handler.__name__, handler.__doc__) == ("handler", "Document it.")
    assert handler.__wrapped__
    assert deadline.current() is None


def test_async_handlers_and_their_tasks():
    @invocation
    async def handler(_event, _context):
        async def below():
            return deadline.remaining()

        return await asyncio.gather(below(), asyncio.to_thread(deadline.remaining))

    assert all(5 < value <= 10 for value in asyncio.run(handler(None, Context(10))))


def test_concurrent_tasks_keep_their_own():
    async def run(seconds):
        with invocation(Context(seconds)):
            await asyncio.sleep(0.01)
            return deadline.remaining()

    async def both():
        return await asyncio.gather(run(10), run(100))

    ten, hundred = asyncio.run(both())
    assert ten < 10
    assert hundred > 50


def test_as_a_context_manager_and_without_a_deadline():
    with invocation(Context(5)) as here:
        assert deadline.current() is here
        with invocation(None):
            assert deadline.remaining() is None
        assert deadline.remaining() > 3
    with invocation(Context(-3)):
        assert deadline.remaining() == 0
        assert deadline.until(9) <= time.monotonic()


def test_seconds_are_a_deadline_outside_lambda():
    with invocation(seconds="30s"):
        assert 29 < deadline.remaining() <= 30
    with pytest.raises(TypeError, match="not both"):
        invocation(Context(3), seconds=3)
    with pytest.raises(ValueError, match="seconds"):
        invocation(seconds=-1)


def test_end_soon_only_ever_shortens():
    """A SIGTERM handler calls it; a later deadline than the known one changes nothing."""
    with invocation(seconds=30):
        current().end_soon(100)
        assert deadline.remaining() > 29
        current().end_soon("5s")
        assert deadline.remaining() <= 5
        current().end_soon()
        assert deadline.remaining() == 0
    with invocation():
        assert deadline.remaining() is None
        current().end_soon()
        assert deadline.remaining() == 0


def test_it_may_be_left_in_another_context():
    """Frameworks run the two halves of a generator in contexts of their own."""
    here = invocation(seconds=5)
    contextvars.copy_context().run(here.__enter__)
    contextvars.copy_context().run(here.__exit__, None, None, None)
    assert deadline.current() is None


@pytest.mark.parametrize("target", [{"date": "2026-11-01"}, "context", 5, object()], ids=str)
def test_an_object_that_is_no_context_is_refused(target):
    """An event in the context's place would be no deadline."""
    kind = type(target).__name__
    with pytest.raises(TypeError, match=f"second argument of a handler.*of type {kind}"):
        invocation(target)


def test_a_stand_in_for_the_context_is_warned_of_once(caplog):
    events._logged.clear()

    @invocation
    def handler(event, _context):
        return event, deadline.remaining()

    @invocation
    async def later(event, _context):
        return event, deadline.remaining()

    assert handler(1) == handler(1, None) == (1, None)
    assert not caplog.records
    assert handler(1, {}) == handler(1, object()) == asyncio.run(later(1, {})) == (1, None)
    (record,) = caplog.records
    assert record.name == "efsstate"
    assert "without a deadline" in record.getMessage()
    assert "type dict" in record.getMessage()


def test_claims_are_given_back_at_the_end(caplog):
    back = []

    def handler(_event, _context):
        here = deadline.current()
        dropped, kept, broken = object(), object(), object()
        here.hold(dropped, lambda: back.append("dropped"))
        here.hold(broken, lambda: 1 / 0)
        here.hold(kept, lambda: back.append("kept"))
        here.drop(dropped)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        invocation(handler)(None, Context(5))
    assert back == ["kept"]
    assert "could not give back" in caplog.text
    assert not deadline.running


def test_a_handler_is_called_in_the_forms_that_handlers_have():
    assert invocation(lambda event, context: (event, context))(1, None) == (1, None)
    assert invocation(lambda event, context=None: event)(2) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_invocation_that_an_alarm_interrupts_ends():
    """Its deadline, soon over, would count for every thread and loop that has no other."""

    def run():
        with invocation(seconds=60):
            pass

    moments = 0
    for moment in alarms.at_each_moment(run):
        moments += 1
        assert deadline.current() is None and deadline.remaining() is None, moment
    assert moments > 5


@pytest.mark.parametrize("form", ["function", "partial", "object"])
def test_what_calls_a_coroutine_function_is_an_async_handler(form):
    """The deadline holds until its coroutine has ended, and not only until there is one."""

    async def work(factor, event, context):
        await asyncio.sleep(0)
        return factor * event, deadline.remaining()

    class Handler:
        async def __call__(self, event, context):
            return await work(2, event, context)

    async def function(event, context):
        return await work(2, event, context)

    forms = {"function": function, "partial": functools.partial(work, 2), "object": Handler()}
    handler = invocation(forms[form])
    value, seconds = asyncio.run(handler(4, Context(5)))
    assert value == 8 and 0 < seconds <= 5
