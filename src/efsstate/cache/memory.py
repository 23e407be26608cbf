"""What this process has read or made lately, kept in memory: one pool for all caches, bounded by bytes."""

from __future__ import annotations

import sys
import threading
from _weakrefset import WeakSet
from os import register_at_fork

from efsstate.format.entry import Entry
from efsstate.mount import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ELSEWHERE = 64 * 2**20  # bytes, where the function's memory is not known
_OVERHEAD = 1200  # bytes that an item that was read takes besides its value, measured
_MOST_FORMS = 4  # in which one call's arguments are remembered
_LARGEST_FORM = 1024  # bytes of the arguments of one call
_FORM_OVERHEAD = 150  # bytes that a remembered form takes besides
PACKED: Any = object()

_PLAIN = frozenset(
    {type(None), bool, int, str, bytes}
)  # arguments that are the same if they are equal, type and all
_SHARED = frozenset({type(None), bool, int, float, complex, str, bytes})
_SHARED_LATER = (
    ("decimal", ("Decimal",)),
    ("datetime", ("date", "time", "datetime", "timedelta", "timezone")),
    ("uuid", ("UUID",)),
)


class Item(Entry):
    """One result: an entry, and `value`, to be handed out as it is, or PACKED: then each caller's copy is made from `payload`.

    `first` holds the copy that was made to see whether one can be, until somebody takes it.
    `since` and `until` are the wall clock's times between which it is taken without asking the mount; the clock may jump.
    """

    # Defaults of the class, so that a hit that is not kept in memory pays for few of them.
    value: Any = PACKED
    digest = ""
    cost = generation = 0
    forms: list[Any] | tuple[()] = ()
    used = own_ttl = hollow = False
    since = until = 0.0
    identity: tuple[int, int, int] | None = None
    first: Any = None
    owner: MemoryTier


def shared_size(value: Any, depth: int = 0) -> int | None:
    """Bytes of a value that nobody can change, so that all callers may have the same one; None for any other."""
    kind = type(value)
    if kind in _SHARED:
        return sys.getsizeof(value)
    if kind is tuple or kind is frozenset:
        total = sys.getsizeof(value)
        for item in value:
            size = shared_size(item, depth + 1) if depth < 50 else None
            if size is None:
                return None
            total += size
        return total
    for module, names in _SHARED_LATER:
        if module in sys.modules and any(
            kind is getattr(sys.modules[module], name, None) for name in names
        ):
            return sys.getsizeof(value)
    return None


class MemoryTier:
    """One cache's part of the pool. `forms` maps the plain arguments of a call to the item that is its result."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit  # bytes; None: the whole pool, 0: nothing
        self.forms: dict[Any, Item] = {}
        self.size = 0
        self._items: dict[str, Item] = {}
        self._most = 0  # what `limits` found
        with _lock:
            _shares.add(self)

    def limits(self) -> int:
        """The most bytes that it may take."""
        if not self._most:
            whole = pool_size()
            self._most = whole if self.limit is None else min(self.limit, whole)
        return self._most

    def fits(self, size: int) -> bool:
        """Whether a value of `size` bytes is kept: at most a quarter of the share."""
        return self.limit != 0 and (size + _OVERHEAD) * 4 <= (self._most or self.limits())

    def get(self, digest: str) -> Item | None:
        """The item, fresh or not."""
        item = self._items.get(digest)
        if item is not None:
            item.used = True
        return item

    def put(self, item: Item) -> None:
        """Keep `item`, if it fits, in place of any before it."""
        if not self.fits(item.cost):
            self.drop(item.digest)
            return
        item.cost += _OVERHEAD + len(item.meta)
        item.owner = self
        _change(self._put, item)

    def _put(self, item: Item) -> None:
        _get_pool()[id(self), item.digest] = item
        self._items[item.digest] = item
        self._shrink(item)

    def _shrink(self, kept: Item) -> None:
        while self.size > self.limits():
            oldest = next((other for other in self._items.values() if other is not kept), None)
            if oldest is None:
                break
            if oldest.used:  # a second chance, at the end of the row
                oldest.used = False
                self._items[oldest.digest] = self._items.pop(oldest.digest)
            else:
                del _get_pool()[id(self), oldest.digest]

    def remember(self, args: tuple[Any, ...], item: Item) -> None:
        """Have arguments that equal `args`, type and all, find `item` without a digest, where both are plain and small.

        A value that each caller needs a copy of is not worth it. What it takes counts as the item's.
        """
        if item.value is PACKED or len(item.forms) >= _MOST_FORMS:
            return
        kinds = (*map(type, args),)
        size = sum(map(sys.getsizeof, args)) if _PLAIN.issuperset(kinds) else _LARGEST_FORM
        if size >= _LARGEST_FORM:
            return
        form, size = (*kinds, *args), size + sys.getsizeof(kinds) * 2 + _FORM_OVERHEAD
        _change(self._remember, form, size, item)

    def _remember(self, form: tuple[Any, ...], size: int, item: Item) -> None:
        # It may have gone meanwhile; and another thread may have been here.
        if (
            self._items.get(item.digest) is item
            and form not in self.forms
            and self.fits(item.cost + size)
        ):
            _get_pool().grow((id(self), item.digest), size)
            item.forms = [*item.forms, form]
            self.forms[form] = item
            self._shrink(item)

    def drop(self, digest: str) -> None:
        """Forget one item."""
        item = self._items.get(digest)
        if item is not None:
            item.until = -1.0  # from now on, also where it can't go yet
            _change(self._drop, digest)

    def _drop(self, digest: str) -> None:
        if digest in self._items:
            del _get_pool()[id(self), digest]

    def clear(self) -> None:
        """Forget all of this cache's."""
        for digest in list(self._items):
            self.drop(digest)

    def reset(self) -> None:
        """Forget all of it, in whatever state it is."""
        self._items.clear()
        self.forms.clear()
        self.size = 0

    def _left(self, item: Item) -> None:
        """`item` is out of the pool: take it out here, whoever still holds it."""
        self.size -= item.cost
        item.until = -1.0
        if self._items.get(item.digest) is item:
            del self._items[item.digest]
        for form in item.forms:
            if self.forms.get(form) is item:
                del self.forms[form]


_pool: Any = None
_pool_size: int | None = None
_lock = threading.RLock()
_shares: WeakSet[MemoryTier] = WeakSet()
_changing = False  # by the thread that holds the lock
_later: list[tuple[Callable[..., None], tuple[Any, ...]]] = []


def _change(function: Callable[..., None], *given: Any) -> None:
    """Change the pool, one at a time.

    A signal's handler, or what the collector ends, may come here while its own thread is in the middle of a change: that one
    is done first. Where such a handler raises, the pool is half changed, and begins anew.
    """
    global _changing
    with _lock:
        _later.append((function, given))
        if _changing:
            return
        try:
            _changing = True
            while _later:
                function, given = _later.pop(0)
                function(*given)
        except BaseException:
            _reset()
            raise
        finally:
            _changing = False


def _reset() -> None:
    global _pool
    _pool = None
    _later.clear()
    for share in list(_shares):
        share.reset()


def guard() -> Any:
    """The lock under which memory changes."""
    return _lock


def pool_size() -> int:
    """Bytes that all caches of this process may take: a sixteenth of the function's memory, 64 MiB elsewhere."""
    global _pool_size
    if _pool_size is None:
        _pool_size = (environment.function_memory() or _ELSEWHERE * 16) // 16
    return _pool_size


def _cost(item: Item) -> int:
    return item.cost


def _get_pool() -> Any:
    global _pool
    if _pool is None:
        from cachetools import Cache

        class MemoryPool(Cache):  # type: ignore[type-arg]  # the stub is generic, the class is not
            """The least recently used go first: a hit only sets a mark, which counts when the item's turn comes."""

            def __setitem__(self, key: Any, item: Item) -> None:
                if key in self:
                    del self[key]
                super().__setitem__(key, item)
                item.owner.size += item.cost

            def __delitem__(self, key: Any) -> None:
                item = self[key]
                super().__delitem__(key)
                item.owner._left(item)  # noqa: SLF001

            def grow(self, key: Any, size: int) -> None:
                """Count `size` bytes more for an item, which stays, whoever has to go for it."""
                item = self[key]
                super().__delitem__(key)
                item.owner.size -= item.cost
                item.cost += size
                self[key] = item

            def popitem(self) -> tuple[Any, Item]:
                while True:
                    key = next(iter(self))
                    item = self[key]
                    if not item.used:
                        del self[key]
                        return key, item
                    item.used = False
                    super().__delitem__(key)
                    super().__setitem__(key, item)  # a second chance, at the end of the row

        _pool = MemoryPool(pool_size(), getsizeof=_cost)
    return _pool


# A fork waits until no thread is changing the pool: the child would have it half changed.
register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
