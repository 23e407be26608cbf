"""Serve `async def`: perform the steps of a computation, and calls of the mount, in a task.

The event loop is never blocked by the mount, nor by a large value that is decoded or digested.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import copy_context
from functools import partial

from efsstate.cache import flight as flights
from efsstate.cache import io_threads
from efsstate.cache.memory import PACKED
from efsstate.cache.namespace import FAILURES
from efsstate.cache.steps import (
    Await,
    CallMount,
    Compute,
    Interrupted,
    Outcome,
    Release,
    Sleep,
    StoreResult,
    TakeValue,
    conclude,
)
from efsstate.cache.tiers import MISSING
from efsstate.errors import EncodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from efsstate.cache.memory import Item
    from efsstate.cache.steps import Step, Steps
    from efsstate.cache.tiers import TieredCache

# Bytes that take longer to decode or digest than a hand-over to a thread, and would hold up the
# loop.
_HEAVY = 2**20
_PIECE = 256  # bytes that an object counts for, because it takes as long to digest
_CONTAINERS = frozenset({tuple, list, set, frozenset, dict})
_POLL = 1.0  # seconds between two looks of a waiter, if its wake-up call was cut off by a signal


async def run(cache: TieredCache, steps: Steps) -> Any:
    """Perform `steps` in a task, and return or raise their outcome: see `steps.run`.

    Once the task is cancelled, or its coroutine closed, nothing is awaited: releases run on a
    thread.
    """
    answer: Any = None
    interruption: BaseException | None = None
    is_interrupted = is_closing = False
    while True:
        try:
            if is_interrupted:
                is_interrupted = False
                step = steps.throw(Interrupted)
            else:
                step = steps.send(answer)
            answer = None
            if is_closing:
                _perform_without_waiting(step)
            else:
                answer = await _performers[type(step)](cache, step)
        except BaseException as error:
            if steps.gi_frame is None:  # type: ignore[attr-defined]
                end = error
                break
            answer, is_interrupted = None, True
            is_closing = is_closing or isinstance(error, (asyncio.CancelledError, GeneratorExit))
            interruption = interruption or error
    outcome = conclude(end, interruption)
    # Or they would be in a cycle with this frame, which is in their tracebacks.
    del end, interruption
    return outcome.unwrap() if type(outcome) is Outcome else outcome


async def _call_mount(cache: TieredCache, step: CallMount) -> Any:
    try:
        return await call(cache, step.function, step.on_late_result)
    except FAILURES as error:
        cache.report_failure(error, step.doing)
        return None


async def _release(cache: TieredCache, step: Release) -> None:
    try:
        await call(cache, step.function, always=True)
    except FAILURES as error:
        cache.report_failure(error, step.doing)


async def _store(cache: TieredCache, step: StoreResult) -> Any:
    try:
        encoded = step.encode(
            detach=True
        )  # on the loop: another task may have the value, and change it
    except EncodeError as error:
        return error
    except FAILURES as error:
        cache.report_failure(error, "keep a result")
        return None, False
    store = CallMount("keep a result", lambda: step.store(encoded))
    return encoded.item, bool(await _call_mount(cache, store))


async def _sleep(_: TieredCache, step: Sleep) -> None:
    await asyncio.sleep(step.seconds)


async def _await_flight(_: TieredCache, step: Await) -> bool:
    flight, until = step.flight, time.monotonic() + step.timeout
    done = _Signal()
    flight.call_when_finished(done.set)
    while not flight.finished and (remaining := until - time.monotonic()) > 0:
        await done.wait(min(remaining, _POLL))
    return flight.finished


async def _take_value(cache: TieredCache, step: TakeValue) -> Any:
    try:
        return await take(cache, step.item)
    except (ValueError, *FAILURES) as error:
        cache.report_unreadable(step.item, error)
        return MISSING


async def _compute(_: TieredCache, step: Compute) -> Outcome:
    token = flights.start_computing(step.flight)
    try:
        return Outcome(await step.function())
    except (asyncio.CancelledError, GeneratorExit):
        raise  # the task's own end, which the runner has to know of
    except BaseException as error:
        return Outcome(error=error)
    finally:
        flights.stop_computing(token)


_performers: dict[type[Step], Callable[[TieredCache, Any], Awaitable[Any]]] = {
    CallMount: _call_mount,
    Release: _release,
    StoreResult: _store,
    Sleep: _sleep,
    Await: _await_flight,
    TakeValue: _take_value,
    Compute: _compute,
}


def _perform_without_waiting(step: Step) -> None:
    """Start a release, or any call of the mount, on a thread; there is no answer."""
    if isinstance(step, (CallMount, Release)):
        io_threads.submit(step.function)


class _Signal:
    """An event that any thread may set, and that the task of the current loop waits for."""

    def __init__(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "efsstate: an `async def` was called outside an asyncio event loop; run it with"
                " asyncio (trio has no such loop, anyio has one with its asyncio backend)"
            ) from None
        self._future: asyncio.Future[None] = self._loop.create_future()

    def set(self) -> None:
        """Wake the task up; from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            pass  # the loop is closed: no task waits any more

    def _resolve(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, limit: float | None) -> bool:
        """Wait for at most `limit` seconds; return True if it is set."""
        if not self._future.done():
            await asyncio.wait([self._future], timeout=limit)
        return self._future.done()


async def call(
    cache: TieredCache,
    function: Callable[[], Any],
    on_late_result: Callable[[Any], object] = io_threads.discard_spare_copy,
    *,
    always: bool = False,
) -> Any:
    """Return `function()`, called on a thread: see `io_threads.call`."""
    timeout = cache.io_timeout
    if timeout is None:
        job = io_threads.submit(function)
    else:
        job = io_threads.begin(cache.root_path, function, always=always)
    try:
        is_done = await _is_done_in_time(job, timeout)
    except BaseException:
        io_threads.leave(job, on_late_result)
        raise
    if is_done or timeout is None:
        return job.outcome()
    return io_threads.give_up(cache.root_path, job, timeout, on_late_result)


async def _is_done_in_time(job: io_threads.Job, limit: float | None) -> bool:
    """Wait for `job` for at most `limit` seconds; return True if it is done."""
    done = _Signal()
    job.call_when_done(done.set)
    while not await done.wait(remaining := job.remaining(limit)):
        if remaining is not None and remaining <= 0:
            return False
    return True


async def take(cache: TieredCache, item: Item) -> Any:
    """Return the item's value; a large one is decoded on a thread.

    Not on a thread of the mount: all of those may hang. Raise ValueError if it cannot be read.
    """
    if item.value is PACKED and not item.spare_copy and item.cost >= _HEAVY:
        return await on_thread(cache.take, item)
    return cache.take(item)


async def digest(function: Callable[[Any], str], parts: Any) -> str:
    """Return `function(parts)`, called on a thread if there is much to digest."""
    return await on_thread(function, parts) if _is_heavy(parts) else function(parts)


async def on_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(*args)`, called on a thread of the loop, or here if that has no thread.

    So it is for reads alone: a function that was refused a thread may be called twice.
    """
    work = partial(copy_context().run, function, *args)
    try:
        future = asyncio.get_running_loop().run_in_executor(None, work)
    except RuntimeError:  # no more threads, or the interpreter is ending
        return function(*args)
    return await future


def _is_heavy(parts: Any) -> bool:
    """Return True if `parts` are about a mebibyte; no more of them is looked at."""
    remaining, rest = _HEAVY, [parts]
    while rest and remaining > 0:
        part = rest.pop()
        kind = type(part)
        if kind is str or kind is bytes or kind is bytearray:
            remaining -= len(part)
        elif kind in _CONTAINERS:
            remaining -= _PIECE * len(part)
            if remaining > 0:  # else it may be too long to be taken apart
                rest += part
                rest += part.values() if kind is dict else ()
        elif hasattr(kind, "nbytes"):  # an array, or a memoryview
            remaining -= part.nbytes
        elif kind.__dictoffset__:
            # Without the class's own code for attributes.
            rest.append(object.__getattribute__(part, "__dict__"))
    return remaining <= 0
