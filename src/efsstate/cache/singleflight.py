"""The way of a miss: one computation of a key among the threads and tasks of this process, and by a claim among all hosts.

It is written once, as a generator that says what is to be done next: `run` does it on the caller's thread, `tasks.run`
without ever blocking the event loop.
"""

from __future__ import annotations

import os
import time

from efsstate import deadline, events
from efsstate.cache import flight as flights
from efsstate.cache import io_threads
from efsstate.cache.tiers import FAILURES, MISSING
from efsstate.errors import EncodeError
from efsstate.format import layout
from efsstate.mount import byte_locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from efsstate.cache.disk import Snapshot
    from efsstate.cache.flight import Flight
    from efsstate.cache.memory import Item
    from efsstate.cache.tiers import TieredCache

    Step = tuple[str, Any, Any]
    Steps = Generator[Step, Any, Any]

_FIRST, _LONGEST = 0.004, 0.25  # seconds between two tries for a claim
# The kinds of steps: ask the mount (a function, and what is done with a result that comes too late); give back to it,
# even if it is left alone; sleep (seconds); wait for a flight (it, seconds); take the value of an item; compute (a
# function, our flight).
IO, GIVE, SLEEP, LANDING, TAKE, COMPUTE = "io", "give", "sleep", "landing", "take", "compute"


class Raised:
    """What the user's function raised: it goes around the generator, which would change a StopIteration."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class ComputeRequest:
    """What one call wants computed: see `cached`.

    Afterwards `kept` tells whether it was computed here and kept, and `refused` why it can't be.
    """

    __slots__ = (
        "adding",
        "cache_if",
        "compute",
        "forced",
        "kept",
        "key",
        "lock_timeout",
        "own_ttl",
        "refused",
        "ttl_of",
    )

    def __init__(
        self,
        compute: Callable[[], Any],
        *,
        key: bytes = b"",
        ttl_of: Callable[[Any], float | None],
        own_ttl: bool = False,
        cache_if: Callable[[Any], bool] | None = None,
        lock_timeout: float | None = None,
        forced: bool = False,
        adding: bool = False,
    ) -> None:
        self.compute, self.key, self.ttl_of, self.own_ttl, self.cache_if = (
            compute,
            key,
            ttl_of,
            own_ttl,
            cache_if,
        )
        self.lock_timeout = lock_timeout
        self.forced = forced  # compute in any case, and have it take the place of what there is
        self.adding = adding  # whoever asked is told whether it was kept
        self.kept = False
        self.refused: EncodeError | None = None


def steps(results: TieredCache, digest: str, order: ComputeRequest, old: Item | None) -> Steps:
    """The way of a miss; `old` is an expired result that may still be given. Returns the caller's value, or `Raised`."""
    mine = flights.Flight(flights.key_of(results, digest))
    try:  # from before it is known to others: what an interrupt leaves there is waited for by every later call
        return (yield from _way(results, digest, order, old, mine))
    finally:
        flights.leave(mine)


def _way(
    results: TieredCache, digest: str, order: ComputeRequest, old: Item | None, mine: Flight
) -> Steps:
    if (
        order.forced
        or flights.computes(mine.key)
        or (digest in results.unstorable and not order.adding)
    ):
        return (yield from _alone(results, digest, order, mine, old))
    began = time.monotonic()
    until = deadline.until(order.lock_timeout)
    while True:
        flight = flights.join(mine)
        if flight is mine:
            break
        if old is not None:
            value = yield from _serve(results, old, "stale", began)
            if value is not MISSING:
                return value
            old = None
        waiting = flights.begin_wait(flight)
        if waiting is None:
            return (yield from _alone(results, digest, order, mine, None))
        since = time.monotonic()
        try:
            landed = yield (LANDING, flight, until - since)
        finally:
            flights.end_wait(waiting, flight)
        _tell_wait(results, since)
        if landed and flight.item is not None and flight.item.codec == results.codec_name:
            value = yield from _serve(results, flight.item, "memory", began)
            if value is not MISSING:
                return value
        if not landed or flight.alone:
            return (yield from _alone(results, digest, order, mine, None))
    item = results.recall(digest)  # of a flight that landed since we looked
    if item is not None:
        value = yield from _serve(results, item, "memory", began)
        if value is not MISSING:
            return value
    return (yield from _fly(results, digest, order, old, mine, until))


def _alone(
    results: TieredCache, digest: str, order: ComputeRequest, mine: Flight, old: Item | None
) -> Steps:
    """Compute, whoever else does."""
    flights.go_alone(mine)
    return (yield from _compute(results, digest, order, mine, old, alone=True))


def _serve(results: TieredCache, item: Item, level: str, began: float) -> Steps:
    """The item's value, counted and told as a hit; MISSING where it can't be read any more."""
    value = yield from take(results, item)
    if value is not MISSING:
        results.served(item, level, began)
    return value


def take(results: TieredCache, item: Item) -> Steps:
    """The item's value, or MISSING."""
    try:
        return (yield (TAKE, item, None))
    except (ValueError, *FAILURES) as error:
        results.unreadable(item, error)
        return MISSING


def _tell_wait(results: TieredCache, began: float) -> None:
    results.counts.waits += 1
    results.tell("wait", began)


def _fly(
    results: TieredCache,
    digest: str,
    order: ComputeRequest,
    old: Item | None,
    mine: Flight,
    until: float,
) -> Steps:
    """Claim the key among all hosts, look again, compute, put, release."""
    held: list[byte_locks.ByteLock] = []
    began = time.monotonic()
    try:
        ours = yield from _claim(results, digest, until, held, wait=old is None)
        if ours is False and old is not None:
            value = yield from _serve(results, old, "stale", began)
            if value is not MISSING:
                return value
        # The look before the claim may be older than what the last holder of the claim put.
        # MUT: another-look-under-the-claim
        item = yield from _attempt(
            results, "read a result", lambda: results.fetch(digest, fresh=True, again=True)
        )
        if item is not None and results.left(item) > 0:
            value = yield from _serve(results, item, "mount", began)
            if value is not MISSING:
                mine.item = None if item.hollow else item
                return value
        return (yield from _compute(results, digest, order, mine, old, alone=not ours))
    finally:
        for claim in held:
            invocation = deadline.current()
            if invocation is not None:
                invocation.drop(claim)
            yield from _attempt(results, "give a claim back", claim.release, GIVE)


def _attempt(
    results: TieredCache,
    doing: str,
    function: Callable[[], Any],
    kind: str = IO,
    late: Callable[[Any], object] | None = None,
) -> Steps:
    """What the function returns; None where the mount fails. `late` gets what comes when nobody waits any more."""
    try:
        return (yield (kind, function, late))
    except FAILURES as error:
        results.failed(error, doing)
        return None


def _claim(
    results: TieredCache, digest: str, until: float, held: list[byte_locks.ByteLock], *, wait: bool
) -> Generator[Step, Any, bool | None]:
    """Whether the key is ours, in `held`; None where the mount gives no claims."""
    began, delay = time.monotonic(), _FIRST
    while True:
        try:
            claim = yield (IO, lambda: _try_claim(results, digest), _release)
        except FAILURES as error:
            results.failed(error, "claim a result")
            return None
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


def _try_claim(results: TieredCache, digest: str) -> byte_locks.ByteLock | None:
    mount, folder = results.shelf().mount, layout.entry_folder(results.component, digest)
    return byte_locks.acquire(mount, folder, digest, keep_open=results.io_timeout is None)


def _release(claim: byte_locks.ByteLock | None) -> None:
    if claim is not None:
        claim.release()


def _compute(
    results: TieredCache,
    digest: str,
    order: ComputeRequest,
    mine: Flight,
    old: Item | None,
    *,
    alone: bool,
) -> Steps:
    """The value, computed and kept; `old` instead if that fails. `alone`: whoever else computes it."""
    # Before: what is changed while it is being computed must not be undone by what it was computed from.
    begin = lambda: results.start(digest, mine, alone=alone, changing=order.forced)  # noqa: E731
    start = yield from _attempt(results, "begin a result", begin, late=_end)
    try:
        results.counts.computed += 1
        began = time.monotonic()
        value = yield (COMPUTE, order.compute, mine)
        if type(value) is Raised:
            results.tell("miss", began, key=digest, error=type(value.error).__name__)
            if old is not None and not order.forced and results.left(old) > -results.stale:
                results.failed(value.error, "compute a result anew")
                given = yield from _serve(results, old, "stale", began)
                return value if given is MISSING else given
            return value
        results.tell("miss", began, key=digest)
        if not mine.doomed:
            mine.alone = not (yield from _keep(results, digest, order, mine, value, start))
        if order.forced and not order.kept:
            # The old one must not be served after the new one was asked for, though another may be about to replace it.
            yield from _attempt(results, "remove a result", lambda: results.retract(digest, start))
        return value
    finally:
        if start is not None and start.draft is not None and not start.draft.is_over:
            yield from _attempt(results, "give a result up", start.end, GIVE)


def _end(start: Snapshot | None) -> None:
    if start is not None:
        start.end()


def _keep(
    results: TieredCache,
    digest: str,
    order: ComputeRequest,
    mine: Flight,
    value: Any,
    start: Snapshot | None,
) -> Steps:
    """Put it, if it is to be; whether others may share it, or look for it."""
    if start is None:
        return False
    began = time.monotonic()
    try:
        if order.cache_if is not None and not order.cache_if(value):
            return False
        ttl = order.ttl_of(value)
        if ttl is not None and ttl <= 0:
            return False
    except EncodeError as error:
        order.refused = error
    except Exception as error:
        results.counts.unstored += 1
        events.log(
            "warning", "cache %s: a result was not kept: ttl or cache_if raised %r", results.name, error,
            once=f"options {results.name}", cache=results.name, doing="keep a result", error=type(error).__name__,
        )  # fmt: skip
        return False
    else:
        put = lambda: results.keep(
            digest, value, ttl, key=order.key, own_ttl=order.own_ttl, start=start
        )
        try:
            item = yield (IO, put, None)
        except EncodeError as error:
            order.refused = error
        except FAILURES as error:
            results.failed(error, "keep a result")
            return True  # who waited finds it in memory, or computes in turn
        else:
            results.unstorable.discard(digest)
            if item is not None:  # else it was out of date: who waited looks again
                order.kept = True
                mine.item = None if item.hollow else item
                results.tell("put", began, bytes=item.cost, key=digest)
            return True
    results.counts.unstored += 1
    results.note_unstorable(digest)
    events.log(
        "warning", "cache %s: a result was not kept: %s", results.name, order.refused, once=f"encode {results.name}",
        cache=results.name, doing="keep a result", error="EncodeError",
    )  # fmt: skip
    return False


# Doing it


def run(results: TieredCache, way: Steps) -> Any:
    """Do the steps on this thread; the value.

    An exception that comes between two of them, as a signal's handler may raise, goes into the way as one of a step does:
    what the way holds must be given back, and the collector can't do that, for it does no steps.
    """
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            while True:  # in the `try`, for a signal's handler is run where a loop turns, too
                kind, what, more = way.send(answer) if error is None else way.throw(error)
                error = None
                answer = _do(results, kind, what, more)
        except BaseException as caught:
            if way.gi_frame is None:  # type: ignore[attr-defined]  # it is over
                if isinstance(caught, StopIteration):
                    return end(caught.value)
                error = None  # or what came last would be in a cycle with this frame, and what is in that would stay
                raise
            answer, error = None, caught


def end(value: Any) -> Any:
    """What the steps came to: returned, or raised."""
    if type(value) is Raised:
        raise value.error
    return value


def _do(results: TieredCache, kind: str, what: Any, more: Any) -> Any:
    if kind is COMPUTE:
        token = flights.computing.set((*flights.computing.get(), more))
        try:
            return what()
        except Exception as error:
            return Raised(error)
        finally:
            flights.computing.reset(token)
    if kind is IO or kind is GIVE:
        return io_threads.call(
            results.place, what, results.io_timeout, more or io_threads.drop, always=kind is GIVE
        )
    if kind is TAKE:
        return results.take(what)
    if kind is LANDING:
        return what.wait(max(0.0, more))
    return time.sleep(what)
