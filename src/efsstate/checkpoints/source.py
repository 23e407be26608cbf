"""Give the items of a source that are not done yet, and verify that the done ones are its first."""

from __future__ import annotations

import time

from efsstate.errors import DeadlineExceeded, SourceChanged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Cursor = Callable[[Any], Any]

_STEP = 1000  # items that are passed over between two looks at the time
_ADVICE = "pass a function of the last position, which goes on after it, or start over with reset()"


def check(source: Any, cursor: Cursor | None) -> None:
    """Raise `TypeError` for a source or a `position=` that cannot be one."""
    if cursor is not None and not callable(cursor):
        raise TypeError(f"position: a function of an item is needed, not {cursor!r}")
    if isinstance(source, (set, frozenset)) and cursor is None:
        raise TypeError(
            "source: a set has another order in each process; pass sorted(...), or give position="
        )
    if not callable(source) and not hasattr(source, "__aiter__"):
        try:
            iter(source)
        except TypeError:
            raise TypeError(
                "source: an iterable, or a function of the last position, is needed, not"
                f" {source!r}"
            ) from None


def is_async(source: Any) -> bool:
    """Return True if `source` is read by `async for`, as far as that can be told uncalled."""
    flags = getattr(getattr(source, "__code__", None), "co_flags", 0)
    return hasattr(source, "__aiter__") or bool(flags & 0x200)  # inspect.CO_ASYNC_GENERATOR


class Skipping:
    """The items before the ones that are to be done, while they pass.

    `name` is the checkpoint's, `position` and `items` how far it is, `stop_at` the monotonic time
    at which the loop must end.
    """

    def __init__(
        self, name: str, position: Any, items: int, cursor: Cursor | None, stop_at: float
    ) -> None:
        self._name, self._position, self._items = name, position, items
        self._cursor, self._stop_at = cursor, stop_at
        self._passed = 0
        self.is_over = items == 0

    def passes(self, item: Any) -> None:
        """Note that `item` is one of those that are done.

        Raises `SourceChanged` if that is not so, and `DeadlineExceeded` if no time remains.
        """
        self._passed += 1
        if self._cursor is None:
            self.is_over = self._passed == self._items
        else:
            self.is_over = self._cursor(item) == self._position
            # MUT: new-items-before-the-position-are-seen
            if self._passed >= self._items and not self.is_over:
                raise SourceChanged(
                    f"{self._name}: the position {self._position!r:.200} did not come after"
                    f" {self._items:,} items, which were done before it, so the source has other"
                    f" items now; {_ADVICE}"
                )
        self._require_time()

    def _require_time(self) -> None:
        # MUT: the-deadline-holds-while-skipping
        if not self.is_over and time.monotonic() >= self._stop_at:
            raise DeadlineExceeded(
                f"{self._name}: skipping the items that are done took the whole invocation:"
                f" {self._passed:,} of {self._items:,} were passed; pass a function of the last"
                " position, which goes on after it"
            )

    def rest(self, source: Iterable[Any]) -> Iterator[Any]:
        """Skip as many items as are done, and return an iterator over the rest.

        The items are counted one by one. `len(source)` may count something else: a DataFrame's
        counts rows, and its iterator gives columns.
        """
        from itertools import islice

        items = iter(source)
        while not self.is_over:
            step = min(_STEP, self._items - self._passed)
            passed = len(list(islice(items, step)))
            # MUT: len-says-nothing-of-the-items
            self._passed += passed
            self.is_over = self._passed == self._items
            if passed < step:
                break
            self._require_time()
        self.end()
        return items

    def end(self) -> None:
        """Raise `SourceChanged` if the source ended before all done items had come."""
        # MUT: a-shorter-source-is-not-finished
        if not self.is_over:
            place = (
                "" if self._cursor is None else f", without the position {self._position!r:.200}"
            )
            raise SourceChanged(
                f"{self._name}: the source ended after {self._passed:,} items, but {self._items:,}"
                f" were done before{place}; {_ADVICE}"
            )


def remaining(
    source: Any, position: Any, skipping: Skipping, cursor: Cursor | None
) -> Iterator[Any]:
    """Return an iterator over the items that are not done yet."""
    if callable(source):
        return _called(source, position)
    if isinstance(source, (set, frozenset)):
        source = sorted(source, key=cursor)
    if skipping.is_over:
        return iter(source)
    if cursor is None and hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return skipping.rest(source)
    return _skip(source, skipping)


def _called(source: Callable[[Any], Any], position: Any) -> Iterator[Any]:
    items = source(position)
    if not hasattr(items, "__iter__") and not hasattr(items, "__getitem__"):
        name = getattr(source, "__qualname__", None) or type(source).__qualname__
        raise TypeError(
            f"source: {name} returned {items!r:.80} for the position {position!r:.80}; it has to"
            " return the items after that position, or yield them, and an empty list if there are"
            " none"
        )
    return iter(items)


def _skip(source: Iterable[Any], skipping: Skipping) -> Iterator[Any]:
    items = iter(source)
    for item in items:
        skipping.passes(item)
        if skipping.is_over:
            break
    skipping.end()
    yield from items


def batches(items: Iterator[Any], size: int, has_time: Callable[[], bool]) -> Iterator[list[Any]]:
    """Yield lists of `size` items, the last one shorter; end early once there is no time."""
    while True:
        batch: list[Any] = []
        for item in items:
            batch.append(item)
            if len(batch) == size or not has_time():
                break
        if not batch:
            return
        yield batch
