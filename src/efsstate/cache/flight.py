"""Track the computations in flight in this process: who computes a key, and who waits for which.

It knows keys as tuples, and nothing else of the cache. A flight is joinable from `join` until its
waiters are released. A signal handler may raise at any point, and cut the clean-up of a frame
short. So `Flight.finished` is a plain attribute, which the owner sets first of all, and a finished
flight that is still joinable is replaced, never waited for.
"""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

from efsstate import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from typing import Any

    Key = tuple[str, str, str]  # the root, the namespace, the digest

_POLL = 1.0  # seconds between two looks of a waiter, if its wake-up call was cut off by a signal


class Flight:
    """One computation in this process, and its result for those who wait for it.

    `item` is the result if waiters may share it, and `stored` says that they find it on the mount.
    With neither, they compute. `discarded`: its key was changed since it began, so its result must
    not be stored; `draft` is the file of the result, which the change removes.
    """

    __slots__ = (
        "callbacks", "discarded", "draft", "finished", "item", "key", "stored", "tags", "thread",
        "waits_for",
    )  # fmt: skip

    def __init__(self, key: Key, tags: tuple[str, ...] = ()) -> None:
        self.key, self.tags, self.thread = key, tags, threading.get_ident()
        self.finished = False
        self.discarded = self.stored = False
        self.item: Any = None
        self.draft: Any = None
        self.waits_for: list[Flight] = []  # several, if the computation runs several tasks
        self.callbacks: list[Callable[[], object]] = []

    def call_when_finished(self, function: Callable[[], object]) -> None:
        """Call `function` once waiters are released, on any thread; at once if they are."""
        with _lock:
            if not self.finished:
                self.callbacks.append(function)
                return
        function()

    def wait(self, timeout: float) -> bool:
        """Wait for at most `timeout` seconds; return True if the flight finished.

        A flight of this very thread is a task of its event loop, or is interrupted by the signal
        handler that asks: it could not go on meanwhile, so return False at once.
        """
        # MUT: no-thread-waits-for-itself
        if self.thread == threading.get_ident():
            return self.finished
        # MUT: a-waiter-leaves-no-lock-taken
        latch, until = process.Latch(), time.monotonic() + timeout
        self.call_when_finished(latch.set)
        while not self.finished and (remaining := until - time.monotonic()) > 0:
            latch.wait(min(remaining, _POLL))
        return self.finished


_lock = process.lock()
in_flight: set[Flight] = set()  # all flights; the owner removes one that is over
_joinable: dict[Key, Flight] = {}  # those that a call may wait for: at most one for a key
computing: ContextVar[tuple[Flight, ...]] = ContextVar("efsstate_flights", default=())


@process.after_fork
@process.at_reset
def forget_all() -> None:
    """Forget every flight: in a forked child, the threads that were computing do not exist."""
    _joinable.clear()
    in_flight.clear()


def join(flight: Flight) -> Flight:
    """Return the flight to wait for, or `flight` itself, registered, if there is none."""
    with _lock:
        current = _joinable.get(flight.key)
        # MUT: a-finished-flight-is-replaced
        if current is None or current.finished:
            _joinable[flight.key] = current = flight
            in_flight.add(flight)
        return current


def register(flight: Flight) -> None:
    """Register `flight`, for which no call waits."""
    with _lock:
        in_flight.add(flight)


def release_waiters(flight: Flight) -> None:
    """Let the waiters of `flight` go on, and no other join; it may go on computing."""
    flight.finished = True
    with _lock:
        if _joinable.get(flight.key) is flight:
            del _joinable[flight.key]
        callbacks, flight.callbacks = flight.callbacks, []
    for function in callbacks:
        function()


def discard_in_flight(*key: str, tag: str | None = None) -> list[Flight]:
    """Mark flights that began too early as stale, so that their results are not stored.

    `key` is a whole key, or a root and a namespace; `tag`: only flights with it. No call joins
    these flights any more. Return them.
    """
    stale = []
    with _lock:
        for flight in list(in_flight):
            if flight.key[: len(key)] == key and (tag is None or tag in flight.tags):
                # MUT: what-was-invalidated-meanwhile-is-not-kept
                flight.discarded = True
                stale.append(flight)
                if _joinable.get(flight.key) is flight:
                    del _joinable[flight.key]
    return stale


def start_computing(flight: Flight) -> Token[tuple[Flight, ...]]:
    """Have the current context compute `flight`; return a token for `stop_computing`."""
    outer = computing.get()
    if outer and (over := [own for own in outer if own.finished]):
        # They are still there because a signal handler raised before `stop_computing`.
        # MUT: a-context-forgets-flights-that-are-over
        computing.set(tuple([own for own in outer if own not in over]))
    return computing.set((*computing.get(), flight))


def stop_computing(token: Token[tuple[Flight, ...]]) -> None:
    """Have the context compute the flights that it did before."""
    try:
        computing.reset(token)
    except ValueError:
        pass  # a coroutine that is closed in another context, as after its loop: this one is over


def is_computing(key: Key) -> bool:
    """Return True if the current context computes `key`, also in a child that it forked."""
    flights = computing.get()  # a task may outlive the flight that began it
    return bool(flights) and any(own.key == key and not own.finished for own in flights)


def begin_wait(flight: Flight) -> tuple[Flight, ...] | None:
    """Register that the current context waits for `flight`.

    Return the context's own flights, to be passed to `end_wait`, or None if waiting would deadlock,
    i.e. if `flight` waits, directly or not, for one of them. Check and registration are atomic, so
    two flights can never wait for each other.
    """
    own = computing.get()
    with _lock:
        seen, ahead = set(), [flight]
        while ahead:
            other = ahead.pop()
            if other in own:
                return None
            if other not in seen:
                seen.add(other)
                # MUT: nobody-waits-for-who-waits-for-him
                ahead += other.waits_for
        for mine in own:
            mine.waits_for.append(flight)
    return own


def end_wait(own: tuple[Flight, ...], flight: Flight) -> None:
    """Register that the flights in `own` wait for `flight` no more."""
    with _lock:
        for mine in own:
            if flight in mine.waits_for:
                mine.waits_for.remove(flight)
