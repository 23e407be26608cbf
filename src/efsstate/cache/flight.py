"""One computation of a key: across the threads and tasks of this process, and by a claim across all hosts.

The way of a miss is written once, as a generator that says what is to be done next: `run` does it on the caller's
thread, `run_async` without ever blocking the event loop.
"""

from __future__ import annotations

import os
import threading
import time
from contextvars import ContextVar

from efsstate import deadline, events
from efsstate.cache import threads
from efsstate.cache.results import FAILURES
from efsstate.errors import EncodeError
from efsstate.mount import layout, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import Any

    from efsstate.cache.memory import Item
    from efsstate.cache.results import Results

    Step = tuple[str, Any, Any]
    Steps = Generator[Step, Any, Any]

_FIRST, _LONGEST = 0.004, 0.25  # seconds between two tries for a claim
# The kinds of steps: ask the mount (a function, and what is done with a result that comes too late); give back to it,
# even if it is left alone; sleep (seconds); wait for a flight (it, seconds); compute (a function, our flight).
_IO, _GIVE, _SLEEP, _LANDING, _COMPUTE = "io", "give", "sleep", "landing", "compute"


class Flight:
    """A computation under way in this process."""

    __slots__ = ("_landed", "_lock", "_tell", "alone", "doomed", "item", "waits_for")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._landed = False
        self._tell: list[Callable[[], object]] = []
        self.item: Item | None = None  # what came of it, for those who waited
        self.alone = False  # its result can't be shared: everybody computes
        self.doomed = False  # what it makes is out of date already: it is not kept
        self.waits_for: Flight | None = None

    def land(self) -> None:
        """It is over: whoever waits goes on."""
        with self._lock:
            self._landed = True
            tell, self._tell = self._tell, []
        for function in tell:
            function()

    def when_landed(self, function: Callable[[], object]) -> None:
        """Have `function` called, on any thread, when it is over: at once if it is."""
        with self._lock:
            if not self._landed:
                self._tell.append(function)
                return
        function()

    def wait(self, timeout: float) -> bool:
        """Whether it was over within `timeout` seconds."""
        event = threading.Event()
        self.when_landed(event.set)
        return event.wait(timeout)


_flights: dict[tuple[str, str, str], Flight] = {}
_guard = threading.Lock()
_mine: ContextVar[tuple[Flight, ...]] = ContextVar("efsstate_flights", default=())  # that this context computes


def _after_fork() -> None:
    """In a child: the threads that were computing are not there."""
    global _guard
    _guard = threading.Lock()
    _flights.clear()


os.register_at_fork(after_in_child=_after_fork)


def doom(results: Results, digest: str | None = None) -> None:
    """What is being computed now for `digest`, or for all of the cache, is not to be kept: it began too early."""
    with _guard:
        for key, flight in list(_flights.items()):
            if key[:2] == (results.place, results.component) and digest in (None, key[2]):
                flight.doomed = True
                del _flights[key]


def _join(key: tuple[str, str, str], mine: Flight) -> Flight:
    with _guard:
        return _flights.setdefault(key, mine)


def _leave(key: tuple[str, str, str], mine: Flight) -> None:
    with _guard:
        if _flights.get(key) is mine:
            del _flights[key]
    mine.land()


def _waits_for_us(flight: Flight | None) -> bool:
    """Whether `flight` waits, through others, for one that this context computes: then nobody would ever go on."""
    mine = _mine.get()
    seen = 0
    while flight is not None and seen < 100:
        if flight in mine:
            return True
        flight, seen = flight.waits_for, seen + 1
    return False


class Raised:
    """What the user's function raised: it goes around the generator, which would change a StopIteration."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class Order:
    """What one call wants computed: see `cached`. `kept` tells afterwards whether it was computed here and kept."""

    __slots__ = ("cache_if", "compute", "forced", "kept", "key", "lock_timeout", "ttl_of")

    def __init__(
        self,
        compute: Callable[[], Any],
        *,
        key: bytes = b"",
        ttl_of: Callable[[Any], float | None],
        cache_if: Callable[[Any], bool] | None = None,
        lock_timeout: float | None = None,
        forced: bool = False,
    ) -> None:
        self.compute, self.key, self.ttl_of, self.cache_if = compute, key, ttl_of, cache_if
        self.lock_timeout = lock_timeout
        self.forced = forced  # compute in any case, and keep it
        self.kept = False


def steps(results: Results, digest: str, order: Order, old: Item | None) -> Steps:
    """The way of a miss; `old` is an expired result that may still be given. Returns the caller's value, or `Raised`."""
    if order.forced or not results.storable:
        return (yield from _compute(results, digest, order, None, old))
    key, mine = (results.place, results.component, digest), Flight()
    until = deadline.until(order.lock_timeout)
    while True:
        flight = _join(key, mine)
        item = results.recall(digest)  # of a flight that landed since we looked
        if item is not None:
            if flight is mine:
                _leave(key, mine)
            results.counts.memory += 1
            return results.take(item)
        if flight is mine:
            break
        if old is not None:
            results.counts.stale += 1
            return results.take(old)
        if _waits_for_us(flight):
            return (yield from _compute(results, digest, order, None, None))
        began = time.monotonic()
        for own in _mine.get():
            own.waits_for = flight
        landed = yield (_LANDING, flight, until - began)
        for own in _mine.get():
            own.waits_for = None
        _tell_wait(results, began)
        if landed and flight.item is not None:
            results.counts.memory += 1
            return results.take(flight.item)
        if not landed or flight.alone:
            return (yield from _compute(results, digest, order, None, None))
    try:
        return (yield from _fly(results, digest, order, old, mine, until))
    finally:
        _leave(key, mine)


def _tell_wait(results: Results, began: float) -> None:
    results.counts.waits += 1
    results.tell("wait", began)


def _fly(results: Results, digest: str, order: Order, old: Item | None, mine: Flight, until: float) -> Steps:
    """Claim the key among all hosts, look again, compute, put, release."""
    held: list[lock.Claim] = []
    try:
        if not (yield from _claim(results, digest, until, held, wait=old is None)) and old is not None:
            results.counts.stale += 1
            return results.take(old)
        # The look before the claim may be older than what the last holder of the claim put.
        item = yield from _attempt(results, "read a result", lambda: results.fetch(digest, fresh=True, again=True))
        if item is not None and results.left(item) > 0:
            mine.item = item
            results.counts.mount += 1
            return results.take(item)
        return (yield from _compute(results, digest, order, mine, old))
    finally:
        for claim in held:
            invocation = deadline.current()
            if invocation is not None:
                invocation.drop(claim)
            yield from _attempt(results, "give a claim back", claim.release, _GIVE)


def _attempt(results: Results, doing: str, function: Callable[[], Any], kind: str = _IO) -> Steps:
    """What the function returns; None where the mount fails."""
    try:
        return (yield (kind, function, None))
    except FAILURES as error:
        results.failed(error, doing)
        return None


def _claim(
    results: Results, digest: str, until: float, held: list[lock.Claim], *, wait: bool
) -> Generator[Step, Any, bool]:
    """Whether the key is ours, in `held`; without claims, where the mount gives none, too."""
    began, delay = time.monotonic(), _FIRST
    while True:
        try:
            claim = yield (_IO, lambda: _try_claim(results, digest), _release)
        except FAILURES as error:
            results.failed(error, "claim a result")
            return True
        if claim is not None:
            held.append(claim)
            invocation = deadline.current()
            if invocation is not None:
                invocation.hold(claim, claim.release)
        left = until - time.monotonic()
        if claim is not None or not wait or left <= 0:
            if delay > _FIRST:
                _tell_wait(results, began)
            return claim is not None
        yield (_SLEEP, min(left, delay * (0.5 + os.urandom(1)[0] / 256)), None)
        delay = min(delay * 1.6, _LONGEST)


def _try_claim(results: Results, digest: str) -> lock.Claim | None:
    mount, folder = results.shelf().mount, layout.entry_folder(results.component, digest)
    return lock.claim(mount, folder, digest, keep_open=results.io_timeout is None)


def _release(claim: lock.Claim | None) -> None:
    if claim is not None:
        claim.release()


def _compute(results: Results, digest: str, order: Order, mine: Flight | None, old: Item | None) -> Steps:
    """The value, computed and kept; `old` instead if that fails."""
    # Read before: what was being computed while the cache was cleared belongs to what was cleared.
    generation = yield from _attempt(results, "read the generation", lambda: results.shelf().generation())
    results.counts.computed += 1
    began = time.monotonic()
    value = yield (_COMPUTE, order.compute, mine)
    if type(value) is Raised:
        if old is None or order.forced:
            return value
        results.failed(value.error, "compute a result anew")
        results.counts.stale += 1
        return results.take(old)
    results.tell("miss", began, key=digest)
    if generation is not None and not (mine is not None and mine.doomed):
        yield from _keep(results, digest, order, mine, value, generation)
    elif mine is not None and not mine.doomed:
        mine.alone = True
    return value


def _keep(results: Results, digest: str, order: Order, mine: Flight | None, value: Any, generation: int) -> Steps:
    began = time.monotonic()
    shared = False
    try:
        if order.cache_if is None or order.cache_if(value):
            ttl = order.ttl_of(value)
            if ttl is None or ttl > 0:
                item = yield (_IO, lambda: results.keep(digest, value, ttl, generation, order.key), None)
                shared = order.kept = results.storable = True
                if mine is not None:
                    mine.item = item
                results.tell("put", began, bytes=0 if item is None else item.cost, key=digest)
    except EncodeError as error:
        results.counts.unstored += 1
        results.storable = False
        events.log("warning", "cache %s: a result was not kept: %s", results.name, error, once=f"encode {results.name}")
    except FAILURES as error:
        shared = True  # who waited finds it in memory, or computes in turn
        results.failed(error, "keep a result")
    except Exception as error:
        results.counts.unstored += 1
        events.log(
            "warning", "cache %s: a result was not kept: ttl or cache_if raised %r", results.name, error,
            once=f"options {results.name}",
        )  # fmt: skip
    if mine is not None and not shared:
        mine.alone = True


# Doing it


def run(results: Results, way: Steps) -> Any:
    """Do the steps on this thread; the value."""
    action: Callable[[], Any] = lambda: next(way)  # noqa: E731
    while True:
        try:
            kind, what, more = action()
        except StopIteration as end:
            return _end(end.value)
        try:
            answer = _do(results, kind, what, more)
        except BaseException as error:
            action = lambda error=error: way.throw(error)  # type: ignore[misc]  # noqa: E731
        else:
            action = lambda answer=answer: way.send(answer)  # type: ignore[misc]  # noqa: E731


def _end(value: Any) -> Any:
    if type(value) is Raised:
        raise value.error
    return value


def _do(results: Results, kind: str, what: Any, more: Any) -> Any:
    if kind is _COMPUTE:
        token = _mine.set(_mine.get() if more is None else (*_mine.get(), more))
        try:
            return what()
        except Exception as error:
            return Raised(error)
        finally:
            _mine.reset(token)
    if kind is _IO or kind is _GIVE:
        return threads.call(results.place, what, results.io_timeout, more or repr, always=kind is _GIVE)
    if kind is _LANDING:
        return what.wait(max(0.0, more))
    return time.sleep(what)


async def run_async(results: Results, way: Steps) -> Any:
    """The same in a task; a computation is awaited."""
    import asyncio

    action: Callable[[], Any] = lambda: next(way)  # noqa: E731
    closing = False
    while True:
        try:
            kind, what, more = action()
        except StopIteration as end:
            return _end(end.value)
        answer: Any
        try:
            if closing:  # the task is cancelled: what is to be given back is, but nothing is awaited any more
                answer = None
                if kind is _IO or kind is _GIVE:
                    threads.submit(what)
            elif kind is _COMPUTE:
                answer = await _compute_async(what, more)
            elif kind is _IO or kind is _GIVE:
                answer = await call_async(results, what, more or repr, always=kind is _GIVE)
            elif kind is _LANDING:
                answer = await _landing(what, more)
            else:
                await asyncio.sleep(what)
                answer = None
        except BaseException as error:
            closing = closing or isinstance(error, (asyncio.CancelledError, GeneratorExit))
            action = lambda error=error: way.throw(error)  # type: ignore[misc]  # noqa: E731
        else:
            action = lambda answer=answer: way.send(answer)  # type: ignore[misc]  # noqa: E731


async def _compute_async(compute: Callable[[], Awaitable[Any]], mine: Flight | None) -> Any:
    token = _mine.set(_mine.get() if mine is None else (*_mine.get(), mine))
    try:
        return await compute()
    except Exception as error:
        return Raised(error)
    finally:
        _mine.reset(token)


async def _told(start: Callable[[Callable[[], object]], object], within: float | None) -> bool:
    """Whether the function that `start` is given was called, on whatever thread, within so many seconds."""
    import asyncio

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
    try:
        await asyncio.wait_for(future, within)
    except TimeoutError:
        return False
    return True


async def _landing(flight: Flight, within: float) -> bool:
    return await _told(flight.when_landed, max(0.0, within))


async def call_async(
    results: Results, function: Callable[[], Any], late: Callable[[Any], object] = repr, *, always: bool = False
) -> Any:
    """`threads.call`, awaited."""
    timeout = results.io_timeout
    job = threads.submit(function) if timeout is None else threads.begin(results.place, function, always=always)
    try:
        done = await _told(job.tell, timeout)
    except BaseException:
        if not job.abandon(late) and job.error is None:
            late(job.result)
        raise
    return job.outcome() if done or timeout is None else threads.give_up(results.place, job, timeout, late)


async def in_thread(function: Callable[[], Any]) -> Any:
    """`function()` on a thread, awaited."""
    job = threads.submit(function)
    await _told(job.tell, None)
    return job.outcome()
