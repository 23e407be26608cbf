"""Loop over the items that are not done yet: count them, save now and then, end in time."""

from __future__ import annotations

import time

from efsstate import deadline
from efsstate.errors import EncodeError
from efsstate.units import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from efsstate.mount.files import Buffer

_MARGIN = 2.0  # seconds
_NEVER = float("inf")
# Types of states that no code can change in place.
_FIXED = frozenset({type(None), bool, int, float, complex, str, bytes})
_SHARE = 0.1  # of the loop's time that copies of a state that can change may take,
_FREE = 0.05  # beyond so many seconds
_LARGEST = 2**20  # bytes of a state that is copied at items' ends


class Job:
    """A loop's access to its checkpoint: how to read, encode and save the state."""

    __slots__ = ("encode", "save", "save_kept", "state")

    def __init__(
        self,
        state: Callable[[], Any],
        encode: Callable[[Any], list[Buffer]],
        save: Callable[[], None],
        save_kept: Callable[[list[Buffer], Any, int], None],
    ) -> None:
        self.state = state  # returns the state as it is now
        self.encode = encode  # raises EncodeError
        self.save = save  # saves it, with the loop's position
        self.save_kept = save_kept  # saves an encoded state with its own position and items


class Pace:
    """When a loop saves, and when it ends before the deadline."""

    def __init__(self, every: Any, margin: float | None) -> None:
        if isinstance(every, (bool, float)):
            raise TypeError(
                "every: an int (items), or a time as '10s' or a timedelta, is needed, not"
                f" {every!r}"
            )
        if isinstance(every, int) and every < 1:
            raise ValueError(f"every: at least 1 item is needed, not {every!r}")
        self.items = every if isinstance(every, int) else _NEVER
        self.seconds = _NEVER if isinstance(every, int) else seconds(every, "every")
        self._margin = margin
        self.slowest_item = self.slowest_save = 0.0

    def stop_time(self) -> float:
        """Return the monotonic time at which the loop ends."""
        remaining = deadline.remaining()
        if remaining is None:
            return _NEVER
        margin = self._margin
        if margin is None:
            margin = max(_MARGIN, 2 * (self.slowest_item + self.slowest_save))
        return time.monotonic() + remaining - margin


class Kept:
    """The state at the last item's end, so that a half-done next item is not saved with it.

    `position` and `items` are those of the state, which lag behind the loop's if it is too large to
    be copied after each item.
    """

    def __init__(self, job: Job, position: Any, items: int) -> None:
        self._job = job
        self._state: Any = None
        self._encoded: list[Buffer] | None = None  # instead of a state that can change in place
        self._is_large = False
        self._copying = 0.0  # seconds
        self.position, self.items = position, items

    def keep(self, position: Any, items: int, now: float, elapsed: float) -> None:
        """Keep the state as it is `now`, `elapsed` seconds after the loop began."""
        state = self._job.state()
        if type(state) in _FIXED:
            self._state, self._encoded = state, None
        elif self._is_large or self._copying > _FREE + _SHARE * elapsed:
            return
        else:
            try:
                self._encoded = self._job.encode(state)
            except EncodeError:
                return  # the next save will say so
            self._is_large = sum(map(len, self._encoded)) > _LARGEST
            self._copying += time.monotonic() - now
        self.position, self.items = position, items

    def encoded(self) -> list[Buffer]:
        """Return the kept state, encoded."""
        return self._job.encode(self._state) if self._encoded is None else self._encoded


class Loop:
    """One `resume`: `position` and `items` are those of the last item that is done."""

    def __init__(
        self,
        job: Job,
        source: Iterable[Any] | Callable[[Any], Iterable[Any]],
        pace: Pace,
        cursor: Callable[[Any], Any] | None,
    ) -> None:
        if cursor is not None and not callable(cursor):
            raise TypeError(f"position: a function of an item is needed, not {cursor!r}")
        if not callable(source):
            try:
                iter(source)
            except TypeError:
                raise TypeError(
                    "source: an iterable, or a function of the last position, is needed, not"
                    f" {source!r}"
                ) from None
        self._job, self._source, self._pace, self._cursor = job, source, pace, cursor
        self._item: Any = None
        self._is_inside = False  # an item is handed out and not done
        self.position: Any = None
        self.items = self.saved_items = 0
        self._kept = Kept(job, None, 0)
        self.running = False
        self.exhausted = False

    def begin(self, position: Any, items: int, saved_items: int) -> None:
        """Start after `items` items, of which the last save counts `saved_items`."""
        self.position, self.items, self.saved_items = position, items, saved_items
        self._kept = Kept(self._job, position, items)
        self._kept.keep(position, items, time.monotonic(), 0.0)

    def run(self) -> Iterator[Any]:
        """Yield the items, as `Checkpoint.resume` says."""
        job, pace, kept = self._job, self._pace, self._kept
        self.running = True
        try:
            items = self._remaining_items()
            now = started = time.monotonic()
            save_at, stop_at = now + pace.seconds, pace.stop_time()
            while now < stop_at:
                try:
                    self._item = next(items)
                except StopIteration:
                    self.exhausted = True
                    return
                self._is_inside = True
                yield self._item
                self._is_inside = False
                self.position, self.items = self._position_after(), self.items + 1
                before, now = now, time.monotonic()
                kept.keep(self.position, self.items, now, now - started)
                if now - before > pace.slowest_item:
                    pace.slowest_item = now - before
                    stop_at = pace.stop_time()
                if now >= save_at or self.items - self.saved_items >= pace.items:
                    now = self._save_in_time()
                    save_at, stop_at = now + pace.seconds, pace.stop_time()
            if self.items > self.saved_items:
                job.save()
        finally:
            self.running = self._is_inside = False

    def _remaining_items(self) -> Iterator[Any]:
        if callable(self._source):
            return iter(self._source(self.position))
        from itertools import islice

        return islice(self._source, self.items, None)

    def _save_in_time(self) -> float:
        """Save, note how long it took, and return the time."""
        started = time.monotonic()
        self._job.save()
        now = time.monotonic()
        self._pace.slowest_save = max(self._pace.slowest_save, now - started)
        return now

    def _position_after(self) -> Any:
        """Return the position once the current item is done."""
        return self.items + 1 if self._cursor is None else self._cursor(self._item)

    def current(self) -> Any:
        """Return the position of the item that is being done, else of the last one."""
        return self._position_after() if self._is_inside else self.position

    def count_current(self) -> tuple[Any, int]:
        """Return the position and the count of a save that counts the current item as done."""
        if self._is_inside:
            return self._position_after(), self.items + 1
        return self.position, self.items

    def save_done(self) -> None:
        """Save what was done before an item that was not, with the state as it was then."""
        kept = self._kept
        if kept.items > self.saved_items:
            self._job.save_kept(kept.encoded(), kept.position, kept.items)
