"""Decide when a loop saves and when it ends, and keep the state of its last item's end."""

from __future__ import annotations

import time

from efsstate import deadline
from efsstate.checkpoints.saves import FIXED
from efsstate.errors import EncodeError
from efsstate.units import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.mount.files import Buffer

_MARGIN = 2.0  # seconds
_NEVER = float("inf")
_SHARE = 0.1  # of the loop's time that copies of a state that can change may take,
_FREE = 0.05  # beyond so many seconds
_LARGEST = 2**20  # bytes of a state that is copied at items' ends


class Job:
    """A loop's access to its checkpoint: its name, and how to read, encode and save the state."""

    __slots__ = ("encode", "name", "save", "save_kept", "state")

    def __init__(
        self,
        name: str,
        state: Callable[[], Any],
        encode: Callable[[Any], list[Buffer]],
        save: Callable[[bool], None],
        save_kept: Callable[[list[Buffer], Any, int], None],
    ) -> None:
        self.name = name
        self.state = state  # returns the state as it is now
        self.encode = encode  # raises EncodeError
        # Saves it with the loop's position; True says that no item after that was begun.
        self.save = save
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
        self.invocation = deadline.current()
        self.deadline: float | None = None
        self.slowest_item = self.slowest_save = 0.0
        self.stop_at = self.save_at = _NEVER

    def start(self, now: float) -> None:
        """Begin the loop at the monotonic time `now`."""
        self.invocation = deadline.current()
        self.save_at = now + self.seconds
        self.plan_stop()

    def plan_stop(self) -> None:
        """Work out the monotonic time at which the loop ends, `stop_at`."""
        remaining = deadline.remaining()
        if self.invocation is not None:
            self.deadline = self.invocation.deadline
        margin = self._margin
        if margin is None:
            margin = max(_MARGIN, 2 * (self.slowest_item + self.slowest_save))
        self.stop_at = _NEVER if remaining is None else time.monotonic() + remaining - margin

    def is_over(self, now: float) -> bool:
        """Return True if no further item may be begun."""
        if self.invocation is not None and self.invocation.deadline != self.deadline:
            self.plan_stop()  # end_soon() moved it
        return now >= self.stop_at

    def note_item(self, elapsed: float) -> None:
        """Note how long an item took."""
        if elapsed > self.slowest_item:
            self.slowest_item = elapsed
            self.plan_stop()


class Kept:
    """The state at the last item's end, so that a half-done next item is not saved with it.

    `position` and `items` are those of the state, which lag behind the loop's if it is too large to
    be copied after each item.
    """

    def __init__(self, job: Job, position: Any, items: int) -> None:
        self._job = job
        # The state, or its bytes if it can change in place, with its position and items. All are
        # replaced in one step: an alarm in between would give the state another item's position.
        self._kept: tuple[Any, list[Buffer] | None, Any, int] = (None, None, position, items)
        self._is_large = False
        self._copying = 0.0  # seconds

    @property
    def position(self) -> Any:
        """Return the position of the state."""
        return self._kept[2]

    @property
    def items(self) -> int:
        """Return the count of items that the state has."""
        return self._kept[3]

    def keep(self, position: Any, items: int, now: float, elapsed: float) -> None:
        """Keep the state as it is `now`, `elapsed` seconds after the loop began."""
        state = self._job.state()
        if type(state) in FIXED:
            self._kept = (state, None, position, items)
        elif self._is_large or self._copying > _FREE + _SHARE * elapsed:
            return
        else:
            try:
                encoded = self._job.encode(state)
            except EncodeError:
                return  # the next save will say so
            self._kept = (None, encoded, position, items)
            self._is_large = sum(map(len, encoded)) > _LARGEST
            self._copying += time.monotonic() - now

    def encoded(self) -> list[Buffer]:
        """Return the kept state, encoded."""
        state, encoded = self._kept[:2]
        return self._job.encode(state) if encoded is None else encoded
