"""The computations that are under way in this process, who makes them, and who waits for which."""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.cache.memory import Item
    from efsstate.cache.tiers import TieredCache

    Key = tuple[str, str, str]  # the root, the namespace, the digest


class Flight:
    """A computation under way in this process."""

    __slots__ = ("_tell", "alone", "doomed", "item", "key", "landed", "waits_for")

    def __init__(self, key: Key) -> None:
        self.landed = False
        self._tell: list[Callable[[], object]] = []
        self.key = key
        self.item: Item | None = None  # what came of it, for those who waited
        self.alone = False  # its result can't be shared: everybody computes
        self.doomed = False  # what it makes is out of date already: it is not kept
        self.waits_for: list[Flight] = []  # several where it has several tasks

    def land(self) -> None:
        """It is over: whoever waits goes on."""
        with _guard:
            self.landed = True
            tell, self._tell = self._tell, []
        for function in tell:
            function()

    def when_landed(self, function: Callable[[], object]) -> None:
        """Have `function` called, on any thread, when it is over: at once if it is."""
        with _guard:
            if not self.landed:
                self._tell.append(function)
                return
        function()

    def wait(self, timeout: float) -> bool:
        """Whether it was over within `timeout` seconds."""
        event = threading.Event()
        self.when_landed(event.set)
        return event.wait(timeout)


_joinable: dict[Key, Flight] = {}  # at most one for a key
_under_way: set[Flight] = set()  # those, and who computes without waiting for them
_guard = (
    threading.RLock()
)  # a signal's handler, or a collected coroutine, may come here while its thread holds it
computing: ContextVar[tuple[Flight, ...]] = ContextVar(
    "efsstate_flights", default=()
)  # that this context computes


def _after_fork() -> None:
    """In a child: the threads that were computing are not there."""
    global _guard
    _guard = threading.RLock()
    _joinable.clear()
    _under_way.clear()


os.register_at_fork(after_in_child=_after_fork)


def key_of(results: TieredCache, digest: str) -> Key:
    """What tells a computation from others in this process."""
    return results.place, results.component, digest


def doom(results: TieredCache, digest: str | None = None) -> bool:
    """What is being computed now for `digest`, or for all of the cache, is not to be kept: it began too early.

    Whether anything was, by this process.
    """
    found = False
    wanted = key_of(results, digest or "")
    with _guard:
        for flight in list(_under_way):
            if flight.key == wanted or (digest is None and flight.key[:2] == wanted[:2]):
                # MUT: what-was-invalidated-meanwhile-is-not-kept
                flight.doomed = found = True
                if _joinable.get(flight.key) is flight:
                    del _joinable[flight.key]
    results.forget(digest)  # before the mount is asked, which may hang
    return found


def join(mine: Flight) -> Flight:
    """The flight that may be waited for, of this key: whose is there already, else `mine`."""
    with _guard:
        flight = _joinable.setdefault(mine.key, mine)
        if flight is mine:
            _under_way.add(mine)
        return flight


def go_alone(mine: Flight) -> None:
    """`mine` begins, whoever else computes the same."""
    with _guard:
        _under_way.add(mine)


def leave(mine: Flight) -> None:
    """`mine` is over."""
    try:
        with _guard:
            _under_way.discard(mine)
            if _joinable.get(mine.key) is mine:
                del _joinable[mine.key]
    finally:
        mine.land()


def computes(key: Key) -> bool:
    """Whether this context is computing it: in a forked child, too, where nobody else knows of that."""
    return any(
        own.key == key and not own.landed for own in computing.get()
    )  # a task may outlive the one that began it


def begin_wait(flight: Flight) -> tuple[Flight, ...] | None:
    """Let this context wait for `flight`: its own flights, for `end_wait`. None where it must not.

    That is where `flight` waits for one of them, if through others: nobody would ever go on. It is decided and noted at
    once, so that of two that are to wait for each other only one does.
    """
    mine = computing.get()
    with _guard:
        seen, ahead = set(), [flight]
        while ahead:
            other = ahead.pop()
            if other in mine:
                return None
            if other not in seen:
                seen.add(other)
                # MUT: nobody-waits-for-who-waits-for-him
                ahead += other.waits_for
        for own in mine:
            own.waits_for.append(flight)
    return mine


def end_wait(mine: tuple[Flight, ...], flight: Flight) -> None:
    """They do not wait for `flight` any more."""
    with _guard:
        for own in mine:
            own.waits_for.remove(flight)
