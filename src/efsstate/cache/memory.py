"""Keep recent results in memory: one pool for all caches of the process, bounded in bytes.

A hit takes no lock. It only marks its item, and the mark counts when the item's turn to go comes.
"""

from __future__ import annotations

import sys
from _weakref import ref
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import

from efsstate import process
from efsstate.format.entry import Entry
from efsstate.mount import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_DEFAULT_SIZE = 64 * 2**20  # bytes of the pool, if the function's memory is not known
_OVERHEAD = 700  # bytes that an item takes besides its value, measured
_MOST_CALLS = 4  # calls that one item is found by without a digest
_LARGEST_CALL = 1024  # bytes of the arguments of one such call
_CALL_OVERHEAD = 250  # bytes that remembering a call takes besides its arguments
PACKED: Any = object()

# Arguments of these types are the same if they are equal and of one type; but 0.0 equals -0.0.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_PLAIN_OR_TUPLE = _PLAIN | {tuple}
_IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes})
_IMMUTABLE_IF_IMPORTED = {
    "decimal": ("Decimal",),
    "datetime": ("date", "time", "datetime", "timedelta", "timezone"),
    "uuid": ("UUID",),
}


class Item(Entry):
    """One result: an entry of the mount, and the value for the callers.

    Its fields come in these combinations:

        value    payload  spare_copy  not_cached  meaning
        -------  -------  ----------  ----------  ----------------------------------------------
        object   None     None        False       immutable: every caller gets this object
        PACKED   bytes    [copy]      False       each caller decodes a copy of its own; the
                                                  first takes the spare, made when it was checked
        PACKED   bytes    None        False       the same, after the spare was taken
        PACKED   view     [copy]      True        read for one caller alone, who may change it
        PACKED   b""      None        True        stored just now, and too large for memory

    `raw_args` is the form of the call that finds it without a digest, or a list of several. It is
    used without asking the mount for `span` seconds from `since`, a time of the wall clock, which
    may jump either way.
    """

    __slots__ = (
        "clear_stamp", "cost", "digest", "identity", "not_cached", "own_ttl", "raw_args", "since",
        "span", "spare_copy", "tier", "used", "value",
    )  # fmt: skip

    tier: MemoryTier  # once it is there

    def __init__(
        self, payload: Any, codec: str, meta: bytes, created: float, ttl: float | None
    ) -> None:
        # Not by a call of `Entry.__init__`: every hit on the mount comes here.
        self.payload, self.codec, self.meta = payload, codec, meta
        self.created, self.ttl = created, ttl
        self.stat: Any = None
        self.spare_copy: list[Any] | None = None
        self.identity: bytes | None = None
        self.not_cached = self.used = self.own_ttl = False
        self.cost = self.clear_stamp = 0
        self.since = self.span = 0.0
        self.value, self.digest = PACKED, ""
        self.raw_args: Any = None


def nested_form(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the form of a call with tuples among its arguments: the types in them count too."""
    inner = [(*map(type, value),) for value in args if type(value) is tuple]
    return (*map(type, args), *args, *inner)


def immutable_size(value: Any, depth: int = 0) -> int | None:
    """Return the size in bytes of a value that no caller can change; None for any other value."""
    kind = type(value)
    if kind in _IMMUTABLE:
        return sys.getsizeof(value)
    if kind is tuple or kind is frozenset:
        total = sys.getsizeof(value)
        for item in value:
            size = immutable_size(item, depth + 1) if depth < 50 else None
            if size is None:
                return None
            total += size
        return total
    module, name = kind.__module__, kind.__name__
    if name not in _IMMUTABLE_IF_IMPORTED.get(module, ()):
        return None
    # Another class may say that it has this name.
    return sys.getsizeof(value) if kind is getattr(sys.modules.get(module), name, None) else None


class MemoryPool:
    """The items of all caches, in one `cachetools.LRUCache`, which is changed under one lock.

    `size` is the bytes that they take, counted here: the LRUCache would keep a dict of sizes more.
    An item that was used since its last turn gets a second chance. A change is whole or not at all:
    a signal handler that raises in the middle of one empties the pool. A handler, or code that the
    garbage collector runs, may also enter while its own thread is in the middle of a change. Then
    nothing is added or removed, and the item in question is not served any more.
    """

    def __init__(self) -> None:
        self.lock = process.lock()
        self._size: int | None = None
        self.recent: Any = None  # all items, the least recently used first; once there is one
        self.size = 0
        self._tiers: WeakSet[MemoryTier] = WeakSet()
        self._is_changing = False

    @property
    def maxsize(self) -> int:
        """The bytes that all caches may take: a sixteenth of the function's memory, or 64 MiB."""
        if self._size is None:
            self._size = (environment.function_memory() or _DEFAULT_SIZE * 16) // 16
        return self._size

    def add_tier(self, tier: MemoryTier) -> None:
        """Have `tier` emptied with the pool."""
        with self.lock:
            self._tiers.add(tier)

    def change(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function`, which changes the pool or a tier, unless this thread is in a change."""
        with self.lock:
            if self._is_changing:
                return
            try:
                self._is_changing = True
                function(*args)
            except BaseException:
                self.empty()
                raise
            finally:
                self._is_changing = False

    def empty(self) -> None:
        """Forget every item, in whatever state the pool is."""
        self.recent, self.size = None, 0
        for tier in list(self._tiers):
            tier.empty()

    def forget_size(self) -> None:
        """Empty the pool, and ask for the function's memory at the next use."""
        self._size = None
        self.empty()

    def mend_in_child(self) -> None:
        """Empty the pool of a forked child if another thread of its parent was changing it."""
        if self._is_changing:
            self._is_changing = False
            self.empty()


pool = MemoryPool()
process.after_fork(pool.mend_in_child)
process.at_reset(pool.forget_size)


def make_room(owner: MemoryPool | MemoryTier, size: int) -> None:
    """Evict items of `owner` until `size` more bytes fit in."""
    if owner.recent is None:
        from cachetools import LRUCache

        owner.recent = LRUCache(sys.maxsize)  # it keeps the order alone: bytes are counted here
    recent = owner.recent
    chances = len(recent)  # other threads may set marks as fast as they are taken away here
    while recent and owner.size + size > owner.maxsize:
        _, item = recent.popitem()
        if item.used and chances > 0:
            chances -= 1
            item.used = False
            recent[item] = item  # a second chance, as the most recently used
        else:
            item.tier.forget(item)


class MemoryTier:
    """One cache's part of the pool, of at most `limit` bytes (None: the whole pool; 0: nothing).

    `by_digest` has its items, and `by_args` those that the plain arguments of a call, after their
    types, lead to.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.by_args: dict[Any, Item] = {}
        self.size = 0
        self.by_digest: dict[str, Item] = {}
        self._maxsize = 0
        self.recent: Any = None  # only if there is a limit of its own
        pool.add_tier(self)

    @property
    def maxsize(self) -> int:
        """The most bytes that it may take."""
        if not self._maxsize:
            self._maxsize = pool.maxsize if self.limit is None else min(self.limit, pool.maxsize)
        return self._maxsize

    def fits(self, size: int) -> bool:
        """Return True if a value of `size` bytes is kept: at most a quarter of the tier."""
        return self.limit != 0 and (size + _OVERHEAD) * 4 <= (self._maxsize or self.maxsize)

    def get(self, digest: str) -> Item | None:
        """Return the item, fresh or not."""
        item = self.by_digest.get(digest)
        if item is not None:
            item.used = True
        return item

    def put(self, item: Item, changes: Changes, change: int) -> None:
        """Keep `item`, if it fits, and if `change` is still the last change of its entry."""
        if self.fits(item.cost):
            item.cost += _OVERHEAD + len(item.meta)
            item.tier = self
            pool.change(self._put, item, changes, change)
        else:
            self.drop(item.digest)

    def _put(self, item: Item, changes: Changes, change: int) -> None:
        # Asked under the lock: a change that comes later finds the item, and drops it.
        if changes.last_change(item.digest) == change:
            before = self.by_digest.get(item.digest)
            if before is not None:
                self.forget(before)
            self._add(item)
            self.by_digest[item.digest] = item
            # A signal handler of this thread may have changed the entry meanwhile.
            if changes.last_change(item.digest) != change:
                self.forget(item)

    def _make_room(self, size: int) -> None:
        if self.limit is not None:
            make_room(self, size)
        make_room(pool, size)

    def _add(self, item: Item) -> None:
        self._make_room(item.cost)
        if self.limit is not None:
            self.recent[item] = item
        pool.recent[item] = item
        self.size += item.cost
        pool.size += item.cost

    def _take_out(self, item: Item) -> None:
        if pool.recent is not None:
            pool.recent.pop(item, None)
        if self.recent is not None:
            self.recent.pop(item, None)
        self.size -= item.cost
        pool.size -= item.cost

    def remember_call(self, args: tuple[Any, ...], kwargs: dict[str, Any], item: Item) -> None:
        """Have calls with these arguments find `item` without a digest, if all of them are plain.

        The calls' types have to be the same too; see `FunctionCache.wrapper` for the form in which
        a call is looked up. No two kinds of calls share one: as many types come first as there are
        positional arguments, then come values, and none of these is a type. A text alone is its own
        form, which takes no memory.

        Each caller gets a copy of its own, decoded from the payload, of a value that may change.
        The arguments count as part of the item.
        """
        if type(item.raw_args) is list and len(item.raw_args) >= _MOST_CALLS:
            return
        values = (*args, *kwargs.values())
        kinds = (*map(type, values),)
        if kwargs:
            form = (*map(type, args), *args, *kwargs, *map(type, kwargs.values()), *kwargs.values())
        else:
            form = args[0] if kinds == (str,) else (*kinds, *args)
        if not _PLAIN.issuperset(kinds):
            if kwargs or not _PLAIN_OR_TUPLE.issuperset(kinds):
                return
            form = nested_form(args)
            values = (*values, *[part for value in args if type(value) is tuple for part in value])
            if not _PLAIN.issuperset(map(type, values[len(args) :])):
                return
        # MUT: zeros-of-two-signs-are-two-calls
        if any(type(value) is float and not value for value in values):
            return
        size = sum(map(sys.getsizeof, values))
        if size < _LARGEST_CALL:
            size += sys.getsizeof(form) + sys.getsizeof(kinds) + _CALL_OVERHEAD
            pool.change(self._remember_call, form, size, item)

    def _remember_call(self, call: Any, size: int, item: Item) -> None:
        # Another thread may have dropped the item, or remembered the call.
        if (
            self.by_digest.get(item.digest) is item
            and call not in self.by_args
            and self.fits(item.cost + size)
        ):
            self._make_room(size)
            if self.by_digest.get(item.digest) is item:  # else it was evicted itself
                item.cost += size
                self.size += size
                pool.size += size
                forms = item.raw_args
                if forms is None:
                    item.raw_args = call
                else:
                    item.raw_args = [*(forms if type(forms) is list else [forms]), call]
                self.by_args[call] = item

    def drop(self, digest: str) -> None:
        """Forget one item."""
        item = self.by_digest.get(digest)
        if item is not None:
            # At once: a change that this one interrupts leaves the item where it is.
            item.span, item.identity = -1.0, None
            pool.change(self.forget, item)

    def forget(self, item: Item) -> None:
        """Take `item` out of the tier and the pool, if it is there; for the pool, within a change.

        No caller gets it from memory from now on, although callers refer to it.
        """
        item.span, item.identity = -1.0, None
        if self.by_digest.get(item.digest) is not item:
            return
        self._take_out(item)
        del self.by_digest[item.digest]
        forms = item.raw_args
        for call in forms if type(forms) is list else [forms]:
            if self.by_args.get(call) is item:
                del self.by_args[call]

    def clear(self) -> None:
        """Forget all items of this cache."""
        for digest in list(self.by_digest):
            self.drop(digest)

    def empty(self) -> None:
        """Forget all items, in whatever state the tier is; the pool is emptied too."""
        self.by_digest.clear()
        self.by_args.clear()
        self.size, self.recent, self._maxsize = 0, None, 0


class Changes:
    """The changes that this process makes to a namespace, for all caches of that name.

    A thread that reads an entry takes `last_change` before, and remembers the result only if that
    is still the last change: else it would bring back an entry that was changed since.
    """

    def __init__(self) -> None:
        self._tiers: list[ref[MemoryTier]] = []  # a WeakSet takes longer to go through
        self._count = self._last_clear = 0
        self._last: dict[str, int] = {}  # by how a digest begins

    def attach(self, tier: MemoryTier) -> None:
        """Have `tier` forget entries as they are changed."""
        if tier.limit != 0:
            with pool.lock:
                if tier not in [known() for known in self._tiers]:
                    self._tiers.append(ref(tier, self._tiers.remove))

    def last_change(self, digest: str) -> int:
        """Return the number of the last change of `digest`; it grows, and may do so without one."""
        return max(self._last_clear, self._last.get(digest[:2], 0))

    def record(self, digest: str | None = None, since: int | None = None) -> int | None:
        """Record a change of `digest` (default: of all entries), and forget it in memory.

        Return its number, or None if there was another change after the one numbered `since`.
        """
        with pool.lock:
            # MUT: memory-keeps-nothing-that-changed-since
            is_last = since is None or digest is None or self.last_change(digest) == since
            self._count += 1
            number = self._count
            if digest is None:
                self._last_clear = number
            else:
                self._last[digest[:2]] = number
            tiers = tuple(self._tiers)
        for known in tiers:
            tier = known()
            if tier is None:
                continue
            if digest is None:
                tier.clear()
            elif digest in tier.by_digest:
                tier.drop(digest)
        return number if is_last else None
