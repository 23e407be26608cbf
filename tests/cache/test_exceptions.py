"""A cached function raises as the function itself does: same exception, context, cause, frames."""

import asyncio
import contextlib
import dataclasses
import errno
import gc
import os
import traceback
import weakref

import pytest
from tests.mount import alarms

from efsstate import Cache, cached, process
from efsstate.cache import disk, io_threads
from efsstate.mount.files import Mount


def raises_in_handler():
    try:
        {}["missing"]
    except KeyError:
        raise ValueError("second")  # noqa: B904 - the context is what is tested


def raises_from():
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("second") from error


def raises_from_none():
    try:
        {}["missing"]
    except KeyError:
        raise ValueError("second") from None


def raises_plainly():
    raise ValueError("only")


def raises_stop_iteration():
    raise StopIteration("end")


def raises_generator_exit():
    raise GeneratorExit


def raises_keyboard_interrupt():
    raise KeyboardInterrupt


def raises_system_exit():
    raise SystemExit(3)


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int


def raises_frozen():
    raise FrozenError(4)


class LockedError(Exception):
    def __setattr__(self, name, value):
        raise AttributeError(name)

    def __bool__(self):
        return False


def raises_locked():
    raise LockedError("it refuses all attributes, and is false")


RAISING = [
    raises_in_handler, raises_from, raises_from_none, raises_plainly, raises_stop_iteration,
    raises_generator_exit, raises_keyboard_interrupt, raises_system_exit,
    raises_frozen, raises_locked,
]  # fmt: skip


def caught(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


def chain(error):
    """What can be seen of an exception and of those behind it."""
    seen = []
    while error is not None:
        seen.append((
            type(error), error.args, error.__suppress_context__,
            type(error.__cause__), type(error.__context__),
        ))  # fmt: skip
        error = error.__cause__ or error.__context__
    return seen


def within_a_handler(function):
    """The exception that `function` raises while its caller handles another."""
    try:
        raise LookupError("the caller's")  # noqa: TRY301 - it is to be handled here
    except LookupError:
        return caught(function)


def as_coroutine(function):
    async def work():
        return function()

    work.__qualname__ = f"async_{function.__name__}"
    return work


@pytest.mark.parametrize("function", RAISING)
@pytest.mark.parametrize("catch", [caught, within_a_handler])
@pytest.mark.parametrize("options", [{}, {"io_timeout": 5}, {"stale": "1h", "ttl": "1h"}])
def test_the_exception_is_the_functions_own(function, catch, options):
    cached_one = cached(name=function.__name__, **options)(function)
    assert chain(catch(cached_one)) == chain(catch(function))
    assert chain(catch(cached_one.refresh)) == chain(catch(function))


@pytest.mark.parametrize(
    "function", [f for f in RAISING if not f.__name__.endswith(("exit", "interrupt"))]
)
@pytest.mark.parametrize("catch", [caught, within_a_handler])
def test_the_exception_of_a_coroutine_is_its_own(function, catch):
    if function is raises_stop_iteration:
        pytest.skip("Python itself turns it into a RuntimeError")
    plain = as_coroutine(function)
    cached_one = cached(name=plain.__qualname__)(plain)
    assert chain(catch(lambda: asyncio.run(cached_one()))) == chain(
        catch(lambda: asyncio.run(plain()))
    )


def work(key):
    return key


OPERATIONS = {
    "get": lambda box, function: box.get(1),
    "get without memory": lambda box, function: Cache("flat", memory=0).get(1),
    "set": lambda box, function: box.set(1, 1),
    "add": lambda box, function: box.add(2, 1),
    "delete": lambda box, function: box.delete(1),
    "touch": lambda box, function: box.touch(1),
    "pop": lambda box, function: box.pop(1, None),
    "incr": lambda box, function: box.incr(3),
    "clear": lambda box, function: box.clear(),
    "invalidate_tag": lambda box, function: box.invalidate_tag("tag"),
    "get_or_compute": lambda box, function: box.get_or_compute(4, lambda: 4),
    "a call": lambda box, function: function(5),
    "invalidate": lambda box, function: function.invalidate(6),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_time_limit_is_no_failure_of_the_mount(name, monkeypatch):
    """A signal handler's TimeoutError is an OSError, and must reach the caller all the same."""
    box, function = Cache("box"), cached(name="work")(work)
    box.set(1, 1)
    Cache("flat", memory=0).set(1, 1)
    function(1)
    process.reset()
    rings = [TimeoutError("the time limit of the caller")]

    def ring(real):
        def call(*arguments, **options):
            if rings:
                raise rings.pop()
            return real(*arguments, **options)

        return call

    box, function = Cache("box"), cached(name="work")(work)
    for call in ("open", "stat", "symlink"):
        monkeypatch.setattr(os, call, ring(getattr(os, call)))
    with pytest.raises(TimeoutError, match="the time limit of the caller"):
        OPERATIONS[name](box, function)
    OPERATIONS[name](box, function)


def test_a_task_in_a_handler_keeps_its_context():
    @cached(name="inner")
    async def fail():
        await asyncio.sleep(0)
        raise KeyError("inner")

    async def main():
        try:
            raise LookupError("outer")  # noqa: TRY301 - it is to be handled here
        except LookupError:
            try:
                await fail()
            except KeyError as error:
                return error.__context__

    assert isinstance(asyncio.run(main()), LookupError)


def test_the_traceback_goes_from_the_caller_to_the_function():
    error = caught(cached(name="traced")(raises_plainly))
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-1] == "raises_plainly" and "StopIteration" not in "".join(
        traceback.format_exception(error)
    )


class Large:
    """Something that a frame refers to."""


@pytest.mark.parametrize("kind", ["plain", "refresh", "io_timeout", "async", "stale"])
def test_a_failed_call_leaves_no_cycle_that_keeps_its_frame(kind):
    alive = []

    def fail(x):
        large = Large()
        alive.append(weakref.ref(large))
        raise ValueError(x)

    async def fail_async(x):
        fail(x)

    options = {"io_timeout": 5} if kind == "io_timeout" else {}
    if kind == "stale":
        options = {"ttl": "1h", "stale": "1h"}
    f = cached(name=f"cycle {kind}", **options)(fail_async if kind == "async" else fail)
    call = f.refresh if kind == "refresh" else f

    async def call_in_one_loop():  # `asyncio.run` itself makes a cycle
        for number in range(5):
            with contextlib.suppress(ValueError):
                await call(number)

    gc.collect()
    gc.disable()
    try:
        if kind == "async":
            asyncio.run(call_in_one_loop())
        for number in range(5 if kind != "async" else 0):
            with contextlib.suppress(ValueError):
                call(number)
        assert [ref() for ref in alive] == [None] * 5
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "operation", ["miss", "hit", "hit in memory", "timed", "invalidate", "set", "get"]
)
def test_an_operation_leaves_no_cycle(operation):
    """What its caller and its arguments hold would stay until the collector comes."""
    f = cached(name="cycles", memory=None if "memory" in operation else 0)(lambda x: [x])
    cache = Cache("cycles too")
    calls = {
        "miss": lambda x: f(x + 1000),
        "hit": f,
        "timed": cached(name="timed", io_timeout=5, memory=0)(lambda x: [x]),
        "hit in memory": f,
        "invalidate": f.invalidate,
        "set": lambda x: cache.set(x, [x]),
        "get": cache.get,
    }
    for number in range(30):
        f(number), calls[operation](number)
    gc.collect()
    gc.disable()
    try:
        for number in range(10):
            calls[operation](number + (100 if operation == "miss" else 0))
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_time_limit_ends_a_put_of_many(monkeypatch):
    """No other value is stored first."""
    box, stored = Cache("box", memory=0), []
    box.set(0, 0)

    def late(_mount, _folder, name, *_, **__):
        stored.append(name)
        raise TimeoutError("the time limit of the caller")

    monkeypatch.setattr(Mount, "write_entry", late)
    with pytest.raises(TimeoutError, match="the time limit of the caller"):
        box.set_many({1: 1})
    monkeypatch.setattr(io_threads, "submit", refuse_a_thread)
    with pytest.raises(TimeoutError, match="the time limit of the caller"):
        box.set_many({number: number for number in range(9)})
    assert len(stored) == 2


def refuse_a_thread(*_):
    raise OSError(errno.EAGAIN, "no thread")


def test_a_time_limit_ends_a_call_before_its_work(monkeypatch):
    called = []
    function = cached(name="called")(called.append)
    function(1)

    def late(*_):
        raise TimeoutError("the time limit of the caller")

    monkeypatch.setattr(disk, "PendingFile", late)
    with pytest.raises(TimeoutError, match="the time limit of the caller"):
        function(2)
    assert called == [1]


@pytest.mark.parametrize("rule", ["ttl", "cache_if"])
def test_a_time_limit_in_a_rule_ends_the_call(rule):
    def ask(value):
        raise alarms.Late

    work = cached(name=f"late {rule}", **{rule: ask})(lambda: 7)
    with pytest.raises(alarms.Late):
        work()


@pytest.mark.parametrize("rule", ["ttl", "cache_if"])
def test_a_rule_that_fails_loses_no_result(rule, caplog):
    """The errors of some HTTP libraries are `OSError`s without a number."""

    def ask(value):
        raise ConnectionError("the service of limits is away")

    work = cached(name=f"failing {rule}", **{rule: ask})(lambda: 7)
    assert work() == 7
    assert "ttl or cache_if raised ConnectionError" in caplog.text
