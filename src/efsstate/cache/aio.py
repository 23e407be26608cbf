"""What `async def` needs: the steps of a miss, and calls on the mount, without ever blocking the event loop."""

from __future__ import annotations

import asyncio
import time

from efsstate.cache import flight as flights
from efsstate.cache import io_threads
from efsstate.cache.memory import PACKED
from efsstate.cache.singleflight import COMPUTE, GIVE, IO, LANDING, TAKE, Raised, end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from efsstate.cache.flight import Flight
    from efsstate.cache.memory import Item
    from efsstate.cache.singleflight import Steps
    from efsstate.cache.tiers import TieredCache

_HEAVY = (
    2**20
)  # bytes: to decode or digest as many takes longer than a hand-over to a thread, and holds up the loop
_PIECE = 256  # bytes that an object counts for: it takes as long to digest as so many
_HOLDING = frozenset({tuple, list, set, frozenset, dict})


async def run(results: TieredCache, way: Steps) -> Any:
    """`miss.run` in a task; a computation is awaited."""
    action: Callable[[], Any] = lambda: next(way)  # noqa: E731
    closing = False
    while True:
        try:
            kind, what, more = action()
        except StopIteration as stop:
            return end(stop.value)
        answer: Any
        try:
            if closing:  # the task is cancelled: what is to be given back is, but nothing is awaited any more
                answer = None
                if kind is IO or kind is GIVE:
                    io_threads.submit(what)
            elif kind is COMPUTE:
                answer = await _compute_async(what, more)
            elif kind is IO or kind is GIVE:
                answer = await call(results, what, more or io_threads.drop, always=kind is GIVE)
            elif kind is TAKE:
                answer = await take(results, what)
            elif kind is LANDING:
                answer = await _landing(what, more)
            else:
                await asyncio.sleep(what)
                answer = None
        except BaseException as error:
            closing = closing or isinstance(error, (asyncio.CancelledError, GeneratorExit))
            action = lambda error=error: way.throw(error)  # type: ignore[misc]  # noqa: E731
        else:
            action = lambda answer=answer: way.send(answer)  # type: ignore[misc]  # noqa: E731


async def _compute_async(compute: Callable[[], Awaitable[Any]], mine: Flight) -> Any:
    token = flights.computing.set((*flights.computing.get(), mine))
    try:
        return await compute()
    except Exception as error:
        return Raised(error)
    finally:
        flights.computing.reset(token)


async def _told(
    start: Callable[[Callable[[], object]], object], left: Callable[[], float | None]
) -> bool:
    """Whether the function that `start` is given was called, on whatever thread, before no seconds were `left`."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def set_done() -> None:
        if not future.done():
            future.set_result(None)

    def done() -> None:
        try:
            loop.call_soon_threadsafe(set_done)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    start(done)
    while not future.done():
        within = left()
        if within is not None and within <= 0:
            return False
        await asyncio.wait([future], timeout=within)
    return True


async def _landing(flight: Flight, within: float) -> bool:
    until = time.monotonic() + within
    return await _told(flight.when_landed, lambda: until - time.monotonic())


async def call(
    results: TieredCache,
    function: Callable[[], Any],
    late: Callable[[Any], object] = io_threads.drop,
    *,
    always: bool = False,
) -> Any:
    """`threads.call`, awaited."""
    timeout = results.io_timeout
    job = (
        io_threads.submit(function)
        if timeout is None
        else io_threads.begin(results.place, function, always=always)
    )
    try:
        done = await _told(job.tell, lambda: job.left(timeout))
    except BaseException:
        if not job.abandon(late) and job.error is None:
            late(job.result)
        raise
    return (
        job.outcome()
        if done or timeout is None
        else io_threads.give_up(results.place, job, timeout, late)
    )


async def take(results: TieredCache, item: Item) -> Any:
    """`results.take`; where much is to be decoded, on a thread: not one of the mount's, which may all hang."""
    if item.value is PACKED and not item.first and item.cost >= _HEAVY:
        return await asyncio.to_thread(results.take, item)
    return results.take(item)


async def digest(function: Callable[[Any], str], parts: Any) -> str:
    """`function(parts)`, on a thread where there is much to digest."""
    return await asyncio.to_thread(function, parts) if _is_heavy(parts) else function(parts)


def _is_heavy(parts: Any) -> bool:
    """Whether there is about a mebibyte of it; what is larger is not looked through to its end."""
    left, rest = _HEAVY, [parts]
    while rest and left > 0:
        part = rest.pop()
        kind = type(part)
        if kind is str or kind is bytes or kind is bytearray:
            left -= len(part)
        elif kind in _HOLDING:
            left -= _PIECE * len(part)
            if left > 0:  # else it may be too long to be taken apart
                rest += part
                rest += part.values() if kind is dict else ()
        elif hasattr(kind, "nbytes"):  # an array, or a memoryview
            left -= part.nbytes
        elif kind.__dictoffset__:
            rest.append(
                object.__getattribute__(part, "__dict__")
            )  # without what its class does when it is asked
    return left <= 0
