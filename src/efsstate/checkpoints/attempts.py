"""Count how often an item was begun, over crashes, timeouts and errors, and skip one that fails.

A healthy loop pays nothing: no item is noted before it is begun. A claim that finds that the one
before it did not end in order notes each item by a save before it begins it, as far as the other
one can have come. The item that is noted and not done when that claim ends is the one that fails.
"""

from __future__ import annotations

import time

from efsstate.checkpoints.saves import own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Loop(Protocol):
        """A loop, as its attempts need it."""

        pace: Any
        options: Any
        items: int
        next_position: Any

        def save_before_item(self) -> None:
            """Save with the note that the next item is begun."""

        def skip_item(self) -> None:
            """Count the next item as done, though it was not."""


_ERROR = 500  # characters of an error that are kept


class Attempts:
    """How often the next item was begun.

    `tries` is stored with a save: how often the item after its position was begun, as far as that
    was noted. `skipped` is the list of the items that failed `limit` times.
    """

    def __init__(
        self,
        limit: int,
        tries: int,
        crashes: int,
        skipped: list[dict[str, Any]],
        error: str,
        on_skip: Callable[[Any, str], object] | None,
    ) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"attempts: a whole number from 1 is needed, not {limit!r}")
        if on_skip is not None and not callable(on_skip):
            raise TypeError(f"on_skip: a function of an item and its error, not {on_skip!r}")
        self.tries = tries
        self.error = error
        self.skipped = skipped
        self._limit, self._on_skip = limit, on_skip
        self._is_certain = tries > 0  # it was noted which item failed
        self._failures = tries or crashes
        self._until: tuple[int, float] | None = None  # items and time up to which each is noted

    @property
    def is_noting(self) -> bool:
        """True if each item is noted before it is begun."""
        return self._failures > 0

    def begin(self, unit: Any, loop: Loop) -> bool:
        """Note that `unit` is begun next, if need be; return False if it was skipped."""
        if not self._failures:
            self.tries = 0
            return True
        if self._until is None:
            pace = loop.pace
            items = pace.items if pace.items != float("inf") else 10**18
            self._until = (loop.items + int(items), time.monotonic() + 2 * pace.seconds)
        # MUT: an-item-is-skipped-only-if-it-was-noted
        if self._is_certain and self._failures >= self._limit:
            self._skip(unit, loop)
            return False
        self.tries = self._failures + 1
        loop.save_before_item()
        return True

    def _skip(self, unit: Any, loop: Loop) -> None:
        error = self.error or "its process ended while it was being done"
        for item in unit if loop.options.batch is not None else [unit]:
            position = own(loop.next_position)
            self.skipped.append({"item": _storable(item), "position": position, "error": error})
            if self._on_skip is not None:
                self._on_skip(item, error)
        self.tries, self.error = 0, ""
        self._failures, self._is_certain = 0, False
        loop.skip_item()

    def finish(self, loop: Loop) -> None:
        """Note that the item which was begun is done."""
        self.tries, self.error = 0, ""
        if not self._failures:
            return
        items, moment = self._until or (0, 0.0)
        if self._is_certain or loop.items >= items or time.monotonic() >= moment:
            self._failures, self._is_certain = 0, False

    def fail(self, error: BaseException) -> None:
        """Note that the item which was begun raised `error`."""
        self.tries = self.tries or 1
        text = f"{type(error).__name__}: {_text(error, str)}"[:_ERROR]
        self.error = text.encode(errors="replace").decode()

    def leave(self) -> None:
        """Note that the item which was begun was left without an error: that is no failure."""
        self.tries = max(0, self.tries - 1)


def _storable(item: Any) -> Any:
    """Return a copy of the item, or its text if MessagePack cannot hold it.

    A source may give one object again and again, and change it in place.
    """
    from efsstate.errors import EncodeError
    from efsstate.format import codec

    try:
        encoded = codec.dumps(item)
    except EncodeError:
        return _text(item, repr)[:_ERROR]
    # MUT: a-skipped-item-is-a-copy
    return codec.loads(b"".join(encoded if isinstance(encoded, list) else [encoded]))


def _text(value: object, convert: Callable[[object], str]) -> str:
    """Return the text of `value`, though its own code may raise."""
    try:
        return convert(value)
    except Exception as error:
        return f"<{type(value).__name__} whose text raised {type(error).__name__}>"
