"""The invocation's deadline reaches whatever runs below the handler, and its end gives back what is still held."""

import asyncio
import threading
import time

import pytest

from efsstate import deadline, events, invocation


class Context:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self):
        return int((self.end - time.monotonic()) * 1000)


def test_without_an_invocation_nothing_is_known_and_waits_end_after_a_minute():
    assert deadline.current() is None and deadline.remaining() is None
    assert 59 < deadline.until(None) - time.monotonic() <= 60
    assert 4.9 < deadline.until(5) - time.monotonic() <= 5


def test_a_decorated_handler_has_its_deadline_in_calls_threads_and_tasks():
    seen = []

    @invocation
    def handler(event, context):
        """What it does."""
        seen.append(deadline.remaining())
        thread = threading.Thread(target=lambda: seen.append(deadline.remaining()))
        thread.start()
        thread.join()
        seen.append(deadline.until(None) - time.monotonic())
        seen.append(deadline.until(1) - time.monotonic())
        return event

    assert handler({"a": 1}, Context(30)) == {"a": 1}
    assert all(29 < value <= 30 for value in seen[:3]) and 0.9 < seen[3] <= 1
    assert (
        handler.__name__ == "handler" and handler.__doc__ == "What it does." and handler.__wrapped__
    )
    assert deadline.current() is None


def test_async_handlers_and_their_tasks():
    @invocation
    async def handler(event, context):
        async def below():
            return deadline.remaining()

        return await asyncio.gather(below(), asyncio.to_thread(deadline.remaining))

    assert all(9 < value <= 10 for value in asyncio.run(handler(None, Context(10))))


def test_concurrent_tasks_keep_their_own():
    async def one(seconds):
        with invocation(Context(seconds)):
            await asyncio.sleep(0.01)
            return deadline.remaining()

    async def both():
        return await asyncio.gather(one(10), one(100))

    ten, hundred = asyncio.run(both())
    assert ten < 10 < 99 < hundred


def test_as_a_context_manager_and_without_a_deadline():
    with invocation(Context(5)) as here:
        assert deadline.current() is here
        with invocation(None):
            assert deadline.remaining() is None
        assert deadline.remaining() > 4
    with invocation(Context(-3)):
        assert deadline.remaining() == 0 and deadline.until(9) <= time.monotonic()


@pytest.mark.parametrize("given", [{"date": "2026-11-01"}, "context", 5, object()], ids=str)
def test_what_is_no_context_is_refused(given):
    """Such as the event: it would be no deadline."""
    with pytest.raises(
        TypeError,
        match=f"second argument of a handler.*not an object of type {type(given).__name__}",
    ):
        invocation(given)


def test_a_handler_that_is_tried_with_a_stand_in_runs_with_one_warning(caplog):
    events._said.clear()

    @invocation
    def handler(event, context):
        return event, deadline.remaining()

    @invocation
    async def later(event, context):
        return event, deadline.remaining()

    assert handler(1) == handler(1, None) == (1, None) and not caplog.records
    assert handler(1, {}) == handler(1, object()) == asyncio.run(later(1, {})) == (1, None)
    (record,) = caplog.records
    assert (
        record.name == "efsstate"
        and "without a deadline" in record.getMessage()
        and "type dict" in record.getMessage()
    )


def test_what_is_still_held_is_given_back_whatever_happens(caplog):
    back = []

    def handler(event, context):
        here = deadline.current()
        dropped, kept, broken = object(), object(), object()
        here.hold(dropped, lambda: back.append("dropped"))
        here.hold(broken, lambda: 1 / 0)
        here.hold(kept, lambda: back.append("kept"))
        here.drop(dropped)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        invocation(handler)(None, Context(5))
    assert back == ["kept"] and "could not give back" in caplog.text and not deadline._running


def test_a_handler_is_called_in_the_forms_that_handlers_have():
    assert invocation(lambda event, context: (event, context))(1, None) == (1, None)
    assert invocation(lambda event, context=None: event)(2) == 2
