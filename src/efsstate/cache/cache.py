"""`Cache`: a map that every host shares."""

from __future__ import annotations

import time
from functools import partial

from efsstate import units
from efsstate.cache import io_threads, puts
from efsstate.cache.keys import KeyBuilder
from efsstate.cache.namespace import FAILURES
from efsstate.cache.options import Options, tag_ids
from efsstate.cache.tiers import MISSING, TieredCache
from efsstate.errors import EncodeError
from efsstate.format import codec as codecs
from efsstate.format.entry import blake2b
from efsstate.generic import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, overload

    from efsstate.cache.info import CacheInfo
    from efsstate.cache.memory import Item
    from efsstate.cache.mutex import Mutex
    from efsstate.units import Duration, Size

    D = TypeVar("D")

K = TypeVar("K", default="Any")
V = TypeVar("V", default="Any")
_LOCK = "efsstate lock"  # before a key, for the digest of its mutex
_KEYS_AT_ONCE = 256  # entries that `keys()` reads together


class Cache(Generic[K, V]):
    """A map that every host shares.

    It forgets values that are expired, damaged or removed, and goes on without the mount if that
    fails: never keep the only copy of a value here. A key is anything that `cached` takes as an
    argument.

    - `name`: the namespace.
    - `ttl`: how long a value counts, in seconds or as "7d", unless `set` says so; else for ever.
    - `codec`: "msgpack", "pickle", or an object with `dumps` and `loads`.
    - `memory`: the most bytes, or "64MiB", that it takes of this process's pool; 0: none.
    - `max_bytes`, `max_entries`: beyond them, the least recently used values are removed from the
      mount.
    - `root`: the folder on the mount.
    - `io_timeout`: how long to wait for the mount, as `ttl`; else as long as the mount takes.
    """

    def __init__(
        self,
        name: str,
        *,
        ttl: Duration | None = None,
        codec: Any = "msgpack",
        memory: Size | None = None,
        max_bytes: Size | None = None,
        max_entries: int | None = None,
        root: str | os.PathLike[str] | None = None,
        io_timeout: Duration | None = None,
    ) -> None:
        options = Options(
            ttl=None if ttl is None else units.seconds(ttl, "ttl"),
            codec=codec,
            memory=memory,
            max_bytes=max_bytes,
            max_entries=max_entries,
            root=root,
            io_timeout=io_timeout,
        )
        blake2b()  # loaded now: a first call may have no descriptor left
        self._open(TieredCache(name, options), KeyBuilder(name, None))

    def _open(self, results: TieredCache, keys: KeyBuilder) -> None:
        self.name = results.name
        self._results, self._keys = results, keys

    def __repr__(self) -> str:
        return f"Cache({self.name!r})"

    def __copy__(self) -> Cache[K, V]:
        return self

    def __deepcopy__(self, _: object) -> Cache[K, V]:
        return self  # a second object would close the folders that this one has open

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} can't be pickled, it has folders open; create it there with the same options"
        )

    if TYPE_CHECKING:

        @overload
        def get(self, key: K, default: None = None, *, fresh: bool = False) -> V | None: ...
        @overload
        def get(self, key: K, default: D, *, fresh: bool = False) -> V | D: ...

    def get(self, key: Any, default: Any = None, *, fresh: bool = False) -> Any:
        """Return the value of `key`, a copy of the caller's own, or `default`.

        `fresh` asks the server for the value that every host has now. Raises `TypeError` for a key
        without a stable form.
        """
        item = self._find(self._keys.digest(key), fresh=fresh)
        return default if item is None else self._results.value(item, default)

    def set(
        self, key: K, value: V, ttl: Duration | None = None, *, tags: Iterable[str] = ()
    ) -> None:
        """Keep `value` under `key`, for `ttl` if given, with `tags` for `invalidate_tag`.

        Raises `EncodeError` for a value that would not come back as it is.
        """
        ids = tag_ids(tags) if tags else ()
        store_many(self._results, self._keys.digest, [(key, value)], ttl, ids)

    def invalidate_tag(self, tag: str) -> None:
        """Forget all values with this tag: here at once, elsewhere within 60 s.

        It takes as long among a million values as among ten.
        """
        (tag,) = tag_ids([tag])
        if self._results.enabled:
            self._results.begin_change(tag=tag)
            self._results.attempt("invalidate a tag", lambda: self._results.invalidate_tag(tag))

    def set_many(self, values: Mapping[K, V], ttl: Duration | None = None) -> None:
        """Keep all of `values`, several at once.

        If one of them raises `EncodeError`, the others are kept all the same.
        """
        if not hasattr(values, "items"):
            raise TypeError(f"set_many: a dict of keys and values is needed, not {values!r:.80}")
        store_many(self._results, self._keys.digest, values.items(), ttl)

    def add(self, key: K, value: V, ttl: Duration | None = None) -> bool:
        """Keep `value` under `key` unless a host has a value for it; return True if it was kept.

        One of the callers on all hosts gets True, or none if the mount fails. With a `ttl` of 0
        nothing is kept, and the answer is True if there is no value. Raises `EncodeError` as `set`
        does.
        """
        results, digest = self._results, self._keys.digest(key)
        seconds = self.life(ttl)
        if not results.enabled:
            return False
        item = self._find(digest, fresh=True, counts_miss=False)
        if item is not None:
            io_threads.discard_spare_copy(item)
            return False
        if seconds == 0:  # as of `set`
            return True
        from efsstate.cache import updates

        packed, own_ttl = puts.pack_key(key), ttl is not None
        try:
            # MUT: one-caller-adds
            with self.lock(key):
                return updates.add(results, digest, value, key=packed, ttl=seconds, own_ttl=own_ttl)
        except EncodeError:
            raise
        except (*FAILURES, ValueError) as error:
            results.report_failure(error, "keep a value")
            return False

    def delete(self, key: K) -> bool:
        """Remove `key`; return True if it had a value."""
        digest = self._keys.digest(key)
        return self._results.enabled and puts.remove(self._results, digest)

    if TYPE_CHECKING:

        @overload
        def pop(self, key: K) -> V: ...
        @overload
        def pop(self, key: K, default: D) -> V | D: ...

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Remove `key` and return its value; of callers on all hosts one gets it.

        If `key` has no value, return `default`, or raise `KeyError` if there is no default. Raises
        the mount's errors, as `lock` does, and `ValueError` for a value that can't be decoded.
        """
        with self.lock(key):
            value = self._pop(self._keys.digest(key))
            if value is not MISSING:
                return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def _pop(self, digest: str) -> Any:
        """Remove a value and return it; MISSING if there is none. Raise as `pop` does."""
        results, began = self._results, time.monotonic()
        if not results.enabled:
            return MISSING
        item = results.read_for_change(digest)
        if item is None:
            self._count_miss(digest, began)
            return MISSING
        value = results.take(item)
        results.count_hit(item, "mount", began)
        results.begin_change(digest)
        # MUT: pop-removes-the-value-that-it-returns
        io_threads.call(results.root_path, lambda: results.remove(digest), results.io_timeout)
        return value

    def touch(self, key: K, ttl: Duration | None = None) -> bool:
        """Have the value of `key` count from now on, for `ttl` if given; True if it has one."""
        from efsstate.cache.updates import Update

        results, seconds = self._results, self.life(ttl)
        if seconds == 0:  # as of `set`
            return self.delete(key)
        update = Update(results.take, key=puts.pack_key(key), ttl=seconds, own_ttl=ttl is not None)
        try:
            return update.run(results, self._keys.digest(key))
        except (*FAILURES, ValueError) as error:
            results.report_failure(error, "touch a value")
            return False

    def incr(self, key: K, delta: int = 1, ttl: Duration | None = None) -> int:
        """Add `delta` to the number that `key` has (0 if none), and return the sum.

        Calls of `incr` on all hosts together add up exactly. Raises `TypeError` if the value is not
        an int, `ValueError` if it can't be decoded, and the mount's errors, as `lock` does: unlike
        `get` and `set`, `incr` needs the mount.
        """
        from efsstate.cache import updates

        return updates.increment(self, key, delta, ttl)

    def lock(self, key: K, wait: Duration | None = None) -> Mutex:
        """Return a mutex for a `with`: one thread of one process of the fleet holds it at a time.

        It waits until `wait`, else the invocation's deadline, else 60 s, and raises `TimeoutError`.
        A thread may enter it again. Where the mount can't lock, it raises `OSError`. A frozen
        environment may lose it after the server's lease: where that matters, use a checkpoint.
        """
        from efsstate.cache.mutex import Mutex

        seconds = None if wait is None else units.seconds(wait, "wait")
        return Mutex(self._results, self._keys.digest((_LOCK, key)), seconds, f"{self!r}: {key!r}")

    def info(self) -> CacheInfo:
        """Return the counters of this process: gets by their outcome, and bytes in memory."""
        from efsstate.cache.info import info_of

        return info_of(self._results)

    def __contains__(self, key: object) -> bool:
        item = self._find(self._keys.digest(key))
        io_threads.discard_spare_copy(item)
        return item is not None

    def clear(self) -> None:
        """Forget all values: here at once, elsewhere within 60 s; a sweep removes the files."""
        if self._results.enabled:
            self._results.begin_change()
            self._results.attempt("clear", self._results.clear)

    def keys(self) -> Iterator[K]:
        """Yield the keys that have a value, in no order; it reads every entry.

        It leaves out keys beyond 16 KiB, those with numpy arrays and those that msgpack can't hold.
        A decorated function has none: its results are kept without their arguments.
        """
        from efsstate.cache import looking
        from efsstate.cache.fingerprint import MARK

        results = self._results
        if not results.enabled:
            return
        digests = results.attempt("list the values", lambda: list(results.disk().digests()), [])
        for start in range(0, len(digests), _KEYS_AT_ONCE):
            batch = digests[start : start + _KEYS_AT_ONCE]
            for packed in io_threads.spread(
                results.root_path, partial(looking.key_of, results), batch, results.io_timeout
            ):
                if packed and not packed.startswith(MARK):
                    try:
                        yield codecs.loads(packed)
                    except ValueError as error:
                        results.report_failure(error, "read a key")

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those of `keys` (hashable) that have one; the mount is read once.

        Raises `ValueError` for keys that are two here and one in a dict, such as 1 and True.
        """
        results, wanted = self._results, list(keys)
        digests, began = [self._keys.digest(key) for key in wanted], time.monotonic()
        _require_distinct(wanted, digests)
        values = fetch_many(results, digests)
        for digest, value in zip(digests, values, strict=True):
            if value is MISSING and results.enabled:
                self._count_miss(digest, began)
        return {
            key: value for key, value in zip(wanted, values, strict=True) if value is not MISSING
        }

    def get_or_compute(self, key: K, function: Callable[[], V]) -> V:
        """Return the value of `key`, or the result of `function()`, computed once and kept."""
        results = self._results
        if not callable(function):
            raise TypeError(f"get_or_compute: a function is needed, not {function!r:.80}")
        if not results.enabled:
            return function()
        digest = self._keys.digest(key)
        item = self._find(digest, counts_miss=False)
        value: V = MISSING if item is None else results.value(item, MISSING)
        if value is not MISSING:
            return value
        try:
            from efsstate.cache import singleflight
        except (ImportError, OSError) as error:
            results.report_failure(error, "load a module")
            singleflight = None  # type: ignore[assignment]
        if singleflight is None:
            return function()
        options = results.options
        request = singleflight.ComputeRequest(
            function, key=puts.pack_key(key), ttl=options.ttl, ttl_of=options.ttl_of
        )
        steps = singleflight.compute(results, digest, request, None)
        return singleflight.run(results, steps)  # type: ignore[no-any-return]

    def _find(self, digest: str, *, fresh: bool = False, counts_miss: bool = True) -> Item | None:
        """Return the item of `digest`, and count and report the hit, or the miss if asked to."""
        results = self._results
        if not results.enabled:
            return None
        began = time.monotonic()
        item: Item | None = None if fresh else results.get_from_memory(digest)
        if item is not None:
            results.count_hit(item, "memory", began)
            return item
        item = results.attempt("read a value", lambda: results.read(digest, exact=fresh))
        if item is not None and results.remaining(item) > 0:
            results.count_hit(item, "mount", began)
            return item
        if counts_miss:
            self._count_miss(digest, began)
        return None

    def _count_miss(self, digest: str, began: float) -> None:
        self._results.counts.computed += 1
        self._results.emit("miss", began, key=digest)

    @property
    def results(self) -> TieredCache:
        """The tiers below, for the package."""
        return self._results

    def digest(self, key: object) -> str:
        """Return the digest of `key`, 48 hex digits: the name of its file."""
        return self._keys.digest(key)

    def is_in_memory(self, key: object) -> bool:
        """Return True if `get` serves `key` without asking the mount."""
        results = self._results
        return results.enabled and results.get_from_memory(self._keys.digest(key)) is not None

    def life(self, ttl: Duration | None) -> float | None:
        """Return the life in seconds of a value that is set with `ttl`."""
        return life_of(self._results, ttl)


def _require_distinct(keys: list[Any], digests: list[str]) -> None:
    known: dict[Any, tuple[object, str]] = {}
    for key, digest in zip(keys, digests, strict=True):
        first, other = known.setdefault(key, (key, digest))
        if digest != other:
            raise ValueError(
                f"get_many: {first!r} and {key!r} are two keys, and one dict can't hold both;"
                " get them one by one"
            )


def plain_key(key: Any) -> Any:
    """Return a key of a subclass of `str`, such as a member of a `StrEnum`, as a `str`.

    In a framework whose keys are strings the two are one key. In a `Cache` the class of a key
    counts, so they would be two. A key that is no string is returned as it is.
    """
    # MUT: a-key-of-a-framework-is-its-text
    return str.__str__(key) if isinstance(key, str) else key


def life_of(results: TieredCache, ttl: Duration | None) -> float | None:
    """Return the life in seconds of a value that is set with `ttl`."""
    return results.ttl if ttl is None else units.seconds(ttl, "ttl")


def store_many(
    results: TieredCache,
    digest: Callable[[Any], str],
    pairs: Iterable[tuple[Any, Any]],
    ttl: Duration | None,
    tags: tuple[str, ...] = (),
) -> list[bool]:
    """Set the value of each (key, value); return for each, in order, if the mount took it.

    `tags` are ids. Raise the first `EncodeError` after storing the others.
    """
    seconds = life_of(results, ttl)
    entries = [(digest(key), value, puts.pack_key(key)) for key, value in pairs]
    if not results.enabled:
        return [True] * len(entries)
    return puts.put(results, entries, seconds, own_ttl=ttl is not None, tags=tags)


def fetch_many(results: TieredCache, digests: Sequence[str | None]) -> list[Any]:
    """Return the values that count, else MISSING: of memory, then of the mount, many at once.

    A digest that is None has no value.
    """
    if not results.enabled:
        return [MISSING] * len(digests)
    began = time.monotonic()
    recalled = [None if digest is None else results.get_from_memory(digest) for digest in digests]
    missing = [
        index for index, item in enumerate(recalled) if item is None and digests[index] is not None
    ]
    wanted = [digests[index] for index in missing]
    fetched = io_threads.spread(results.root_path, results.read, wanted, results.io_timeout)
    read = dict(zip(missing, fetched, strict=True))
    values = []
    for index, in_memory in enumerate(recalled):
        item = read.get(index) if in_memory is None else in_memory
        value = MISSING
        if item is not None and (in_memory is not None or results.remaining(item) > 0):
            value = results.value(item, MISSING)
            if value is not MISSING:
                results.count_hit(item, "mount" if in_memory is None else "memory", began)
        values.append(value)
    return values
