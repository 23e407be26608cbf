"""The computations that are under way in this process, who makes them, and who waits for which."""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.cache.memory import Item
    from efsstate.cache.results import Results


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
computing: ContextVar[tuple[Flight, ...]] = ContextVar("efsstate_flights", default=())  # that this context computes


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


def join(key: tuple[str, str, str], mine: Flight) -> Flight:
    """The flight of `key`: whose is there already, else `mine`."""
    with _guard:
        return _flights.setdefault(key, mine)


def leave(key: tuple[str, str, str], mine: Flight) -> None:
    """`mine` is over."""
    with _guard:
        if _flights.get(key) is mine:
            del _flights[key]
    mine.land()


def waits_for_us(flight: Flight | None) -> bool:
    """Whether `flight` waits, through others, for one that this context computes: then nobody would ever go on."""
    mine = computing.get()
    seen = 0
    while flight is not None and seen < 100:
        if flight in mine:
            return True
        flight, seen = flight.waits_for, seen + 1
    return False
