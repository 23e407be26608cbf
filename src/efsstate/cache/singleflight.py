"""Compute a key once: among the threads and tasks of this process, and among all hosts.

Waiting costs at most one computation of another. If it left no result, because it failed or may
not be stored, those who waited compute at once and together: waiting for each other in turn, the
last of n would wait for n computations.
"""

from __future__ import annotations

import time
from functools import partial

from efsstate import deadline, events, process
from efsstate.cache import flight as flights
from efsstate.cache import io_threads
from efsstate.cache.disk import Snapshot, tags_of
from efsstate.cache.flight import Flight
from efsstate.cache.steps import (
    Await,
    CallMount,
    Compute,
    Release,
    Sleep,
    StoreResult,
    TakeValue,
    run,
)
from efsstate.cache.tiers import MISSING
from efsstate.errors import EncodeError
from efsstate.mount import byte_locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from efsstate.cache.memory import Item
    from efsstate.cache.steps import Step, Steps
    from efsstate.cache.tiers import TieredCache
    from efsstate.deadline import Invocation

    # A lock, and the invocation that gives it back at its end.
    _Claim = tuple[byte_locks.ByteLock, Invocation | None]

__all__ = ["ComputeRequest", "compute", "run"]


class ComputeRequest:
    """The wish of one call, and after it, the fate of the result.

    `forced`: compute even if there is a result, and replace it. `adding`: the function raises if
    there is a result, so computations that began before may still store theirs. `keeps_old`: if the
    result cannot be stored, the old one that it was made from stays. The result counts for `ttl`
    seconds (None: for ever), or for as long as `ttl_of(result)` says; with `own_ttl` the cache's
    ttl does not shorten that. `refusal` is why the result cannot be stored. `replaced` is the item
    that the function made its result of: the result has its tags.
    """

    __slots__ = (
        "adding", "cache_if", "forced", "function", "keeps_old", "key", "lock_timeout", "own_ttl",
        "refusal", "replaced", "tags", "ttl", "ttl_of", "was_kept",
    )  # fmt: skip

    def __init__(
        self,
        function: Callable[[], Any],
        *,
        key: bytes = b"",
        ttl: float | None,
        ttl_of: Callable[[Any], float | None] | None = None,
        own_ttl: bool = False,
        cache_if: Callable[[Any], bool] | None = None,
        lock_timeout: float | None = None,
        forced: bool = False,
        keeps_old: bool = False,
        adding: bool = False,
        tags: tuple[str, ...] = (),
    ) -> None:
        self.function, self.key = function, key
        self.ttl, self.ttl_of, self.own_ttl = ttl, ttl_of, own_ttl
        self.cache_if, self.lock_timeout = cache_if, lock_timeout
        self.forced, self.keeps_old = forced, keeps_old
        self.adding, self.tags = adding, tags
        self.was_kept = False
        self.refusal: EncodeError | None = None
        self.replaced: Item | None = None


def compute(
    cache: TieredCache, digest: str, request: ComputeRequest, old: Item | None = None
) -> Steps:
    """Compute `request` once in this process and, while the mount grants claims, in the fleet.

    1. This context computes the key already, or its last result could not be stored, or the call
       is forced: compute, beside others if need be.
    2. Another flight of this process computes it: serve the `old` result, which is expired but may
       be served, or wait. Waiting would deadlock, or the flight leaves no result: compute alone.
    3. No flight here does: lead.

    The result is an Outcome, or a value from the cache.
    """
    mine, began = Flight(cache.flight_key(digest), request.tags), time.monotonic()
    try:  # from before others know the flight: they would wait for one that was interrupted
        is_alone = request.forced or flights.is_computing(mine.key) or digest in cache.unstorable
        flight = mine if is_alone else flights.join(mine)
        if flight is not mine:
            value = MISSING
            if old is not None:
                value = yield from _serve(cache, old, "stale", began)
            if value is MISSING:
                value = yield from _wait_for(cache, digest, flight, request, began)
            if value is not MISSING:
                return value
            is_alone, old = True, None
        if is_alone:
            flights.register(mine)
            start = yield CallMount(
                "begin a result",
                partial(cache.start, digest, mine, changing=request.forced and not request.adding),
                _discard_late_start,
            )
            return (yield from _compute(cache, digest, request, mine, old, start))
        return (yield from _lead(cache, digest, request, mine, old))
    finally:
        # First, an attribute and a call of C code: no signal handler runs before they are done.
        mine.finished = True
        # MUT: a-flight-that-is-over-is-not-kept
        flights.in_flight.discard(mine)
        flights.release_waiters(mine)


def _wait_for(
    cache: TieredCache, digest: str, flight: Flight, request: ComputeRequest, began: float
) -> Steps:
    """Wait for another flight of this process, and return its result; MISSING if there is none."""
    own = flights.begin_wait(flight)
    if own is None:
        return MISSING
    since = time.monotonic()
    try:
        is_finished = yield Await(flight, deadline.until(request.lock_timeout) - since)
    finally:
        flights.end_wait(own, flight)
    cache.count_wait(since)
    item, level = cache.get_from_memory(digest) or flight.item, "memory"
    if is_finished and item is None and flight.stored:
        item = yield CallMount("read a result", partial(cache.read, digest, fresh=True, again=True))
        level = "mount"
    if not is_finished or item is None or item.codec != cache.codec_name:
        return MISSING
    # MUT: a-flights-result-is-served-within-its-ttl
    if cache.remaining(item) <= 0:
        return MISSING
    return (yield from _serve(cache, item, level, began))


def _lead(
    cache: TieredCache,
    digest: str,
    request: ComputeRequest,
    mine: Flight,
    old: Item | None,
) -> Steps:
    """Claim the key among all hosts, look again, compute, and release it.

    1. The result of a flight that finished since the caller looked is in memory: serve it.
    2. Another host holds the claim: serve the `old` result, or wait until the claim is free.
    3. The last holder may have stored the result between the caller's look and the claim: read it.
    4. It did not, and we waited for it: release the claim and the waiters, who waited as long, and
       compute beside them.
    5. Else compute, and release the claim when the result is stored.
    """
    claims: list[_Claim] = []
    item, began = cache.get_from_memory(digest), time.monotonic()
    if item is not None:
        value = yield from _serve(cache, item, "memory", began)
        if value is not MISSING:
            return value
    try:
        has_waited = yield from _claim(cache, digest, request, claims, wait=old is None)
        if not claims and not has_waited and old is not None:
            value = yield from _serve(cache, old, "stale", began)
            if value is not MISSING:
                return value
        answer = yield CallMount(
            "begin a result", partial(cache.read_or_start, digest, mine), _discard_late_start
        )
        start = answer if type(answer) is Snapshot else None
        if answer is not None and start is None:
            value = yield from _serve(cache, answer, "mount", began)
            if value is not MISSING:
                mine.item, mine.stored = None if answer.not_cached else answer, True
                return value
        # MUT: waiters-without-a-result-go-on-together
        if has_waited:
            flights.release_waiters(mine)
            yield from _release(claims)
        return (yield from _compute(cache, digest, request, mine, old, start))
    except GeneratorExit:  # collected with its loop, where no step is performed any more
        claims.clear()  # they release themselves
        raise
    finally:
        yield from _release(claims)


def _serve(cache: TieredCache, item: Item, level: str, began: float) -> Steps:
    """Return the item's value, counted as a hit; MISSING if it cannot be read any more."""
    value = yield TakeValue(item)
    if value is not MISSING:
        cache.count_hit(item, level, began)
    return value


def _claim(
    cache: TieredCache, digest: str, request: ComputeRequest, claims: list[_Claim], *, wait: bool
) -> Generator[Step, Any, bool]:
    """Claim the key into `claims`, unless the mount grants no claims or the wait ends before.

    Return True if another host computed it meanwhile: the claim was not free at once.
    """
    began, pauses = time.monotonic(), None
    has_waited = False
    while True:
        answer = yield CallMount(
            "claim a result", partial(_try_claim, cache, digest), _release_late_claim
        )
        if answer is None:  # a failure: the mount grants none
            return has_waited
        if answer[0] is not None:
            invocation = deadline.current() if deadline.running else None
            claims.append((answer[0], invocation))
            if invocation is not None:
                invocation.hold(answer[0], answer[0].release)
        elif wait:
            if pauses is None:
                until, pauses = deadline.until(request.lock_timeout), byte_locks.pauses()
            remaining = until - time.monotonic()
            if remaining > 0:
                has_waited = True
                yield Sleep(min(remaining, next(pauses)))
                continue
        if has_waited:
            cache.count_wait(began)
        return has_waited


def _try_claim(cache: TieredCache, digest: str) -> tuple[byte_locks.ByteLock | None]:
    return (cache.claim(digest),)


def _release_late_claim(answer: tuple[byte_locks.ByteLock | None]) -> None:
    if answer[0] is not None:
        answer[0].release()


def _release(claims: list[_Claim]) -> Generator[Step, Any, None]:
    """Release the claim, if there is one."""
    while claims:
        claim, invocation = claims.pop()
        if invocation is not None:
            invocation.drop(claim)
        yield Release("give a claim back", claim.release)


def _compute(
    cache: TieredCache,
    digest: str,
    request: ComputeRequest,
    mine: Flight,
    old: Item | None,
    start: Snapshot | None,
) -> Steps:
    """Compute and store the result; if that fails, serve the `old` one while it may be served.

    `start` is the state before the computation, because the result must not undo a change during
    it; None if the mount failed.
    """
    try:
        cache.counts.computed += 1
        began = time.monotonic()
        end_span = events.begin_span(cache.name) if events.tracers else None
        try:
            outcome = yield Compute(request.function, mine)
        finally:
            if end_span is not None:
                end_span()
        if events.listeners:
            cache.emit_miss(digest, began, outcome.error)
        if outcome.error is None:
            yield from _store(cache, digest, request, mine, outcome.value, start)
            # MUT: a-sum-that-is-not-stored-leaves-the-number
            if request.forced and not request.was_kept and not request.keeps_old:
                # The old result must not be served after a new one was asked for, although
                # another computation may be about to replace it.
                yield CallMount("remove a result", partial(cache.retract, digest, start))
        elif old is not None and not request.forced and cache.may_serve_stale(old, outcome.error):
            value = yield from _serve(cache, old, "stale", began)
            if value is not MISSING:
                return value
        return outcome  # noqa: TRY300 - the exception below has nothing to do with it
    except GeneratorExit:
        start = None  # as in `_lead`: the draft removes itself
        raise
    finally:
        if start is not None and start.has_draft:
            yield Release("give a result up", start.discard)


def _discard_late_start(answer: Snapshot | Item | None) -> None:
    if type(answer) is Snapshot:
        answer.discard()
    else:
        io_threads.discard_spare_copy(answer)


def _store(
    cache: TieredCache,
    digest: str,
    request: ComputeRequest,
    mine: Flight,
    value: Any,
    start: Snapshot | None,
) -> Generator[Step, Any, None]:
    """Store the result if it may be, and tell the flight whether its waiters find it."""
    if start is None:
        return
    start.keeps_old = request.keeps_old
    if request.replaced is not None:
        # With the stamps of then: a tag that was invalidated meanwhile counts against the result.
        # MUT: a-replaced-value-keeps-its-tags
        start.tags = [(bytes.fromhex(tag), at) for tag, at in tags_of(request.replaced.meta)]
        mine.tags = tuple(tag.hex() for tag, _ in start.tags)
    began = time.monotonic()
    try:
        if request.cache_if is not None and not request.cache_if(value):
            return
        ttl = request.ttl if request.ttl_of is None else request.ttl_of(value)
        if ttl is not None and ttl <= 0:
            return
    except EncodeError as error:
        _refuse(cache, digest, request, error)
        return
    except Exception as error:
        # MUT: ttl-may-fail-and-a-time-limit-may-not
        if isinstance(error, TimeoutError):
            process.raise_of_handler(error)  # HTTP libraries raise others without an errno
        cache.counts.unstored += 1
        events.log(
            "warning", "cache %s: a result was not kept: ttl or cache_if raised %r", cache.name,
            error, once=f"options {cache.name}", kind="cache", event="not_kept", name=cache.name,
            error=type(error).__name__,
        )  # fmt: skip
        return
    answer = yield StoreResult(
        partial(cache.encode, digest, value, ttl, key=request.key, own_ttl=request.own_ttl),
        partial(cache.store, start=start),
    )
    if isinstance(answer, EncodeError):
        _refuse(cache, digest, request, answer)
        return
    item, request.was_kept = answer
    if item is None:
        return
    cache.unstorable.discard(digest)
    # Those who wait began before it was discarded, if it was, and may get it as its caller does.
    mine.item, mine.stored = None if item.not_cached else item, request.was_kept
    if request.was_kept and events.listeners:
        cache.emit("put", began, bytes=item.cost, key=digest)


def _refuse(cache: TieredCache, digest: str, request: ComputeRequest, error: EncodeError) -> None:
    """Report that the result cannot be stored, and have no call wait for the next one."""
    request.refusal = error
    cache.counts.unstored += 1
    cache.note_unstorable(digest)
    kind = str(error).partition(" can't")[0]  # the type, which begins an encoder's message
    events.log(
        "warning", "cache %s: a result was not kept: %s", cache.name, error,
        once=f"encode {cache.name} {kind}", kind="cache", event="not_kept", name=cache.name,
        error="EncodeError",
    )  # fmt: skip
