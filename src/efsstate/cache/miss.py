"""The way of a miss: one computation of a key among the threads and tasks of this process, and by a claim among all hosts.

It is written once, as a generator that says what is to be done next: `run` does it on the caller's thread, `tasks.run`
without ever blocking the event loop.
"""

from __future__ import annotations

import os
import time

from efsstate import deadline, events
from efsstate.cache import flight as flights
from efsstate.cache import memory, threads
from efsstate.cache.results import FAILURES
from efsstate.errors import EncodeError
from efsstate.mount import layout, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from efsstate.cache.flight import Flight
    from efsstate.cache.memory import Item
    from efsstate.cache.results import Results

    Step = tuple[str, Any, Any]
    Steps = Generator[Step, Any, Any]

_FIRST, _LONGEST = 0.004, 0.25  # seconds between two tries for a claim
# The kinds of steps: ask the mount (a function, and what is done with a result that comes too late); give back to it,
# even if it is left alone; sleep (seconds); wait for a flight (it, seconds); compute (a function, our flight).
IO, GIVE, SLEEP, LANDING, COMPUTE = "io", "give", "sleep", "landing", "compute"


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
    """The way of a miss; `old` is an expired result that may still be given.

    Returns the caller's value, the item that it is to be taken from, or `Raised`.
    """
    if order.forced or not results.storable:
        return (yield from _compute(results, digest, order, None, old))
    key, mine = (results.place, results.component, digest), flights.Flight()
    until = deadline.until(order.lock_timeout)
    while True:
        flight = flights.join(key, mine)
        item = results.recall(digest)  # of a flight that landed since we looked
        if item is not None:
            if flight is mine:
                flights.leave(key, mine)
            results.counts.memory += 1
            return item
        if flight is mine:
            break
        if old is not None:
            results.counts.stale += 1
            return old
        if flights.waits_for_us(flight):
            return (yield from _compute(results, digest, order, None, None))
        began = time.monotonic()
        for own in flights.computing.get():
            own.waits_for = flight
        landed = yield (LANDING, flight, until - began)
        for own in flights.computing.get():
            own.waits_for = None
        _tell_wait(results, began)
        if landed and flight.item is not None:
            results.counts.memory += 1
            return flight.item
        if not landed or flight.alone:
            return (yield from _compute(results, digest, order, None, None))
    try:
        return (yield from _fly(results, digest, order, old, mine, until))
    finally:
        flights.leave(key, mine)


def _tell_wait(results: Results, began: float) -> None:
    results.counts.waits += 1
    results.tell("wait", began)


def _fly(results: Results, digest: str, order: Order, old: Item | None, mine: Flight, until: float) -> Steps:
    """Claim the key among all hosts, look again, compute, put, release."""
    held: list[lock.Claim] = []
    try:
        if not (yield from _claim(results, digest, until, held, wait=old is None)) and old is not None:
            results.counts.stale += 1
            return old
        # The look before the claim may be older than what the last holder of the claim put.
        item = yield from _attempt(results, "read a result", lambda: results.fetch(digest, fresh=True, again=True))
        if item is not None and results.left(item) > 0:
            mine.item = item
            results.counts.mount += 1
            return item
        return (yield from _compute(results, digest, order, mine, old))
    finally:
        for claim in held:
            invocation = deadline.current()
            if invocation is not None:
                invocation.drop(claim)
            yield from _attempt(results, "give a claim back", claim.release, GIVE)


def _attempt(results: Results, doing: str, function: Callable[[], Any], kind: str = IO) -> Steps:
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
            claim = yield (IO, lambda: _try_claim(results, digest), _release)
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
        yield (SLEEP, min(left, delay * (0.5 + os.urandom(1)[0] / 256)), None)
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
    value = yield (COMPUTE, order.compute, mine)
    if type(value) is Raised:
        if old is None or order.forced:
            return value
        results.failed(value.error, "compute a result anew")
        results.counts.stale += 1
        return old
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
                item = yield (IO, lambda: results.keep(digest, value, ttl, generation, order.key), None)
                shared = order.kept = results.storable = True
                if mine is not None:
                    mine.item = item
                results.tell("put", began, bytes=0 if item is None else item.cost, key=digest)
    except EncodeError as error:
        results.counts.unstored += 1
        results.storable = False
        events.log(
            "warning", "cache %s: a result was not kept: %s", results.name, error, once=f"encode {results.name}",
            cache=results.name, doing="keep a result", error=type(error).__name__,
        )  # fmt: skip
    except FAILURES as error:
        shared = True  # who waited finds it in memory, or computes in turn
        results.failed(error, "keep a result")
    except Exception as error:
        results.counts.unstored += 1
        events.log(
            "warning", "cache %s: a result was not kept: ttl or cache_if raised %r", results.name, error,
            once=f"options {results.name}", cache=results.name, doing="keep a result", error=type(error).__name__,
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
        except StopIteration as stop:
            return end(results, stop.value)
        try:
            answer = _do(results, kind, what, more)
        except BaseException as error:
            action = lambda error=error: way.throw(error)  # type: ignore[misc]  # noqa: E731
        else:
            action = lambda answer=answer: way.send(answer)  # type: ignore[misc]  # noqa: E731


def end(results: Results, value: Any) -> Any:
    """What the steps came to: returned, or raised."""
    if type(value) is Raised:
        raise value.error
    return results.take(value) if type(value) is memory.Item else value


def _do(results: Results, kind: str, what: Any, more: Any) -> Any:
    if kind is COMPUTE:
        token = flights.computing.set(flights.computing.get() if more is None else (*flights.computing.get(), more))
        try:
            return what()
        except Exception as error:
            return Raised(error)
        finally:
            flights.computing.reset(token)
    if kind is IO or kind is GIVE:
        return threads.call(results.place, what, results.io_timeout, more or threads.drop, always=kind is GIVE)
    if kind is LANDING:
        return what.wait(max(0.0, more))
    return time.sleep(what)
