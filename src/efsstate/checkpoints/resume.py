"""The loop over what is not done yet: counts, saves now and then, and ends before the deadline."""

from __future__ import annotations

import time

from efsstate import deadline
from efsstate.errors import EncodeError
from efsstate.units import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from efsstate.checkpoints.checkpoint import Checkpoint

_MARGIN = 2.0  # seconds
_NEVER = float("inf")
_FIXED = frozenset(
    {type(None), bool, int, float, complex, str, bytes}
)  # states that nobody can change in place
_SHARE = 0.1  # of the loop's time that copies of a state that can change may take,
_FREE = 0.05  # beyond so many seconds
_LARGEST = 2**20  # bytes of a state that is copied at items' ends


class Loop:
    """One `resume`: `position` and `items` are of the last item that is done, `state` the state as it was then."""

    def __init__(
        self,
        job: Checkpoint,
        source: Iterable[Any] | Callable[[Any], Iterable[Any]],
        every: Any,
        position: Callable[[Any], Any] | None,
        margin: float | None,
    ) -> None:
        if isinstance(every, (bool, float)):
            raise TypeError(
                f"every: an int (items), or a time as '10s' or a timedelta, is needed, not {every!r}"
            )
        if isinstance(every, int) and every < 1:
            raise ValueError(f"every: at least 1 item is needed, not {every!r}")
        if position is not None and not callable(position):
            raise TypeError(f"position: a function of an item is needed, not {position!r}")
        if not callable(source):
            try:
                iter(source)
            except TypeError:
                raise TypeError(
                    f"source: an iterable, or a function of the last position, is needed, not {source!r}"
                ) from None
        self._every_items = every if isinstance(every, int) else _NEVER
        self._every_time = _NEVER if isinstance(every, int) else seconds(every, "every")
        self._job, self._source, self._cursor, self._margin = job, source, position, margin
        self._item: Any = None
        self._inside = False  # an item is out and not done
        self._saved_items = job.items
        self._copied = 0.0  # seconds spent on copies
        self._slowest_save = 0.0
        self._started = 0.0
        self.state: Any = job._state  # noqa: SLF001
        self.encoded: list[bytes] | None = None  # the same, where it can change in place
        self._large = False
        last = job._loop  # noqa: SLF001 - a loop before this one, in the same claim, may be ahead of the last save
        self.position: Any = last.position if last else job.position
        self.items: int = last.items if last else job.items
        self.exact = self._keep(
            time.monotonic()
        )  # what `state` or `encoded` belongs to: (position, items)
        self.running = False
        self.exhausted = False

    def run(self) -> Iterator[Any]:
        """The items, as `Checkpoint.resume` says."""
        job = self._job
        if job.finished:
            return
        self.running = True
        try:
            source = self._source
            if callable(source):
                items = iter(source(self.position))
            else:
                from itertools import islice

                items = islice(source, self.items, None)
            now = self._started = time.monotonic()
            save_at = now + self._every_time
            stop_at, slowest = self._stop(0.0), 0.0
            while now < stop_at:
                try:
                    self._item = next(items)
                except StopIteration:
                    self.exhausted = True
                    return
                self._inside = True
                yield self._item
                self._inside = False
                self.position, self.items = self._after(), self.items + 1
                before, now = now, time.monotonic()
                if type(job._state) in _FIXED:  # noqa: SLF001
                    self.state, self.encoded, self.exact = (
                        job._state,
                        None,
                        (self.position, self.items),
                    )
                else:
                    self.exact = self._keep(now)
                if now - before > slowest:
                    slowest = now - before
                    stop_at = self._stop(slowest)
                if now >= save_at or self.items - self._saved_items >= self._every_items:
                    job.save()
                    before, now = now, time.monotonic()
                    self._slowest_save = max(self._slowest_save, now - before)
                    save_at = now + self._every_time
                    stop_at = self._stop(slowest)
            if self.items > self._saved_items:
                job.save()
        finally:
            self.running = self._inside = False

    def _stop(self, slowest: float) -> float:
        """The monotonic time at which the loop ends."""
        left = deadline.remaining()
        if left is None:
            return _NEVER
        margin = self._margin
        if margin is None:
            margin = max(_MARGIN, 2 * (slowest + self._slowest_save))
        return time.monotonic() + left - margin

    def _after(self) -> Any:
        """The position once the current item is done."""
        return self.items + 1 if self._cursor is None else self._cursor(self._item)

    def _keep(self, started: float) -> tuple[Any, int]:
        """Hold on to the state at the end of an item, so that a half-done next item is not saved with it."""
        state = self._job._state  # noqa: SLF001
        if type(state) in _FIXED:
            self.state, self.encoded = state, None
            return self.position, self.items
        if self._large or self._copied > _FREE + _SHARE * (started - (self._started or started)):
            return self.exact
        try:
            self.encoded = self._job._states.encode(state)  # noqa: SLF001
        except EncodeError:
            return getattr(self, "exact", (self.position, self.items))  # the next save will say so
        self._large = sum(map(len, self.encoded)) > _LARGEST
        self._copied += time.monotonic() - started
        return self.position, self.items

    def current(self) -> Any:
        """The position of the item that is being done, else of the last one."""
        return self._after() if self._inside else self.position

    def count_current(self) -> tuple[Any, int]:
        """The position and the count of a save that counts the current item as done."""
        return (self._after(), self.items + 1) if self._inside else (self.position, self.items)

    def saved(self, items: int) -> None:
        """A save with so many items done was acknowledged."""
        self._saved_items = items

    def save_done(self) -> None:
        """Save what was done before the item that was not: the state and position at the last item's end."""
        position, items = self.exact
        if items > self._saved_items:
            job = self._job
            encoded = self.encoded if self.encoded is not None else job._states.encode(self.state)  # noqa: SLF001
            with job._guard:  # noqa: SLF001
                job._demand()  # noqa: SLF001
                job._write(encoded, position, items)  # noqa: SLF001
