"""`Cache`: a map that every host shares."""

from __future__ import annotations

import time

from efsstate import units
from efsstate.cache import flight, io_threads, keys
from efsstate.cache.tiers import FAILURES, MISSING, TieredCache
from efsstate.errors import EncodeError, MountTimeout
from efsstate.format import codec as codecs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from efsstate.cache.memory import Item
    from efsstate.units import Duration, Size

_LONGEST_KEY = 2**14  # bytes of a key that is kept for `keys()`


class Cache:
    """A map that every host shares. It forgets what is expired, damaged or removed, and fails open: never for good.

    `name`: the namespace. `ttl`: how long a value counts, unless `set` says so. `codec`: "msgpack", "pickle", or an
    object with `dumps` and `loads`. `memory`: the most bytes of this process's pool that it takes; 0: none.
    `max_bytes`: what is used least recently beyond it goes. `io_timeout`: the longest that the mount is waited for.
    Keys are anything that `cached` takes as an argument.
    """

    def __init__(
        self,
        name: str,
        *,
        ttl: Duration | None = None,
        codec: Any = "msgpack",
        memory: Size | None = None,
        max_bytes: Size | None = None,
        root: str | os.PathLike[str] | None = None,
        io_timeout: Duration | None = None,
    ) -> None:
        ttl = None if ttl is None else units.seconds(ttl, "ttl")
        self._results = make_results(name, ttl, 0.0, codec, memory, max_bytes, root, io_timeout)
        self._keyer = keys.KeyBuilder(name, None)
        self.name = name

    def __repr__(self) -> str:
        return f"Cache({self.name!r})"

    def __copy__(self) -> Cache:
        return self

    def __deepcopy__(self, _: object) -> Cache:
        return self  # another one would close the folders that this one has open

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} can't be pickled, it has folders open: make it there anew, with the same options"
        )

    def _find(self, digest: str, *, fresh: bool = False, last: bool = True) -> Item | None:
        """The item, counted and told; `last`: a miss too, for nobody asks further."""
        results = self._results
        if not results.enabled:
            return None
        began = time.monotonic()
        held = None if fresh else results.recall(digest)
        if held is not None:
            results.counts.memory += 1
            results.tell("hit", began, bytes=held.cost, level="memory")
            return held
        item: Item | None = results.guarded(
            "read a value", lambda: results.fetch(digest, exact=fresh)
        )
        if item is None or results.left(item) <= 0:
            if last:
                results.counts.computed += 1
                results.tell("miss", began, key=digest)
            return None
        results.counts.mount += 1
        results.tell("hit", began, bytes=item.cost, level="mount")
        return item

    def get(self, key: object, default: Any = None, *, fresh: bool = False) -> Any:
        """The value of `key`, the caller's own copy, or `default`.

        `fresh`: as every host has it now, asked of the server. Raises `TypeError` for a key without a stable form.
        """
        item = self._find(self._keyer.digest(key), fresh=fresh)
        return default if item is None else self._results.value(item, default)

    def set(self, key: object, value: Any, ttl: Duration | None = None) -> None:
        """Keep `value` under `key`, for `ttl` if given. Raises `EncodeError` for what would not come back as it is."""
        self._keep([(key, value)], ttl)

    def set_many(self, values: dict[Any, Any], ttl: Duration | None = None) -> None:
        """Keep all of `values`, several at once; the others, too, where one raises `EncodeError`."""
        if not hasattr(values, "items"):
            raise TypeError(f"set_many: a dict of keys and values is needed, not {values!r:.80}")
        self._keep(list(values.items()), ttl)

    def _keep(self, pairs: list[tuple[Any, Any]], ttl: Duration | None) -> None:
        results = self._results
        seconds = results.ttl if ttl is None else units.seconds(ttl, "ttl")
        wanted = [(self._keyer.digest(key), value, _pack_key(key)) for key, value in pairs]
        if not results.enabled:
            return
        if seconds == 0:
            for digest, _, _ in wanted:
                self._remove(digest)
            return
        computed = {digest for digest, _, _ in wanted if flight.doom(results, digest)}

        def keep(one: tuple[str, Any, bytes]) -> tuple[Item | None, Exception | None]:
            try:
                if one[0] in computed:  # by this process: here there is no last moment
                    results.shelf().end_draft(one[0])
                return results.keep(
                    one[0], one[1], seconds, key=one[2], own_ttl=ttl is not None
                ), None
            except (EncodeError, *FAILURES) as error:
                return None, error

        began, refused = time.monotonic(), None
        not_done = (
            None,
            MountTimeout(f"{results.place}: the mount did not answer in time, or is left alone"),
        )
        for done in io_threads.spread(results.place, keep, wanted, results.io_timeout):
            item, error = done or not_done
            if isinstance(error, EncodeError):
                refused = refused or error
            elif error is not None:
                results.failed(error, "keep a value")
            else:
                results.tell("put", began, bytes=0 if item is None else item.cost)
        if refused is not None:
            raise refused

    def add(self, key: object, value: Any, ttl: Duration | None = None) -> bool:
        """Keep `value` under `key` unless it has one on any host; whether it was kept."""
        results, digest = self._results, self._keyer.digest(key)
        seconds = results.ttl if ttl is None else units.seconds(ttl, "ttl")
        if not results.enabled:
            return False
        item = self._find(digest, fresh=True, last=False)
        if item is not None:
            io_threads.drop(item)
            return False
        results.share.drop(digest)
        from efsstate.cache import singleflight

        order = singleflight.ComputeRequest(
            lambda: value,
            key=_pack_key(key),
            ttl_of=lambda _: seconds,
            own_ttl=ttl is not None,
            adding=True,
        )
        singleflight.run(results, singleflight.steps(results, digest, order, None))
        if order.refused is not None:
            raise order.refused
        if not order.kept:
            results.share.drop(digest)  # where the mount fails, this process alone would have it
        return order.kept

    def delete(self, key: object) -> bool:
        """Remove `key`; whether it was there."""
        digest = self._keyer.digest(key)
        return self._results.enabled and self._remove(digest)

    def _remove(self, digest: str) -> bool:
        results = self._results
        flight.doom(results, digest)
        return bool(results.guarded("remove a value", lambda: results.remove(digest), False))

    def __contains__(self, key: object) -> bool:
        item = self._find(self._keyer.digest(key))
        io_threads.drop(item)
        return item is not None

    def clear(self) -> None:
        """Forget everything: here at once, elsewhere within 60 s. The files go with the sweep."""
        if self._results.enabled:
            flight.doom(self._results)
            self._results.guarded("clear", self._results.clear)

    def keys(self) -> Iterator[Any]:
        """The keys that have a value, in no order; it reads every entry.

        Left out are keys beyond 16 KiB, those with numpy arrays, and those that msgpack can't hold; and all that a
        decorated function has, for its results are kept without their arguments.
        """
        results = self._results
        if not results.enabled:
            return
        digests = results.guarded("list the values", lambda: list(results.shelf().digests()), [])
        for start in range(0, len(digests), 256):
            wanted = digests[start : start + 256]
            for packed in io_threads.spread(
                results.place, results.key_of, wanted, results.io_timeout
            ):
                if packed:
                    try:
                        yield codecs.loads(packed)
                    except ValueError as error:
                        results.failed(error, "read a key")

    def get_many(self, keys: Iterable[object]) -> dict[Any, Any]:
        """Those of `keys` (hashable) that have a value, with it; the mount is asked for them all at once.

        Raises `ValueError` for keys that are two here and one in a dict, such as 1 and True.
        """
        results, wanted = self._results, list(keys)
        digests, began = [self._keyer.digest(key) for key in wanted], time.monotonic()
        known: dict[Any, tuple[object, str]] = {}
        for key, digest in zip(wanted, digests, strict=True):
            first, other = known.setdefault(key, (key, digest))
            if digest != other:
                raise ValueError(
                    f"get_many: {first!r} and {key!r} are two keys, and one dict can't hold both: get them one by one"
                )
        values = fetch_all(results, digests)
        for digest, value in zip(digests, values, strict=True):
            if value is MISSING and results.enabled:
                results.counts.computed += 1
                results.tell("miss", began, key=digest)
        return {
            key: value for key, value in zip(wanted, values, strict=True) if value is not MISSING
        }

    def get_or_compute(self, key: object, function: Callable[[], Any]) -> Any:
        """The value of `key`; else what `function()` returns, worked out once for all hosts, and kept."""
        results = self._results
        if not callable(function):
            raise TypeError(f"get_or_compute: a function is needed, not {function!r:.80}")
        if not results.enabled:
            return function()
        digest = self._keyer.digest(key)
        item = self._find(digest, last=False)
        value = MISSING if item is None else results.value(item, MISSING)
        if value is not MISSING:
            return value
        from efsstate.cache import singleflight

        order = singleflight.ComputeRequest(
            function, key=_pack_key(key), ttl_of=lambda _: results.ttl
        )
        return singleflight.run(results, singleflight.steps(results, digest, order, None))


def make_results(
    name: str,
    ttl: Any,
    stale: float,
    codec: Any,
    memory_limit: Any,
    max_bytes: Any,
    root: Any,
    io_timeout: Any,
) -> TieredCache:
    """The results that these options, as users write them, ask for; `ValueError` or `TypeError` for a bad one."""
    timeout = None if io_timeout is None else units.seconds(io_timeout, "io_timeout")
    if timeout == 0:
        raise ValueError(
            "io_timeout: 0 leaves the mount no time: leave it out to wait as long as it takes"
        )
    codecs.require_codec(codec)
    if root is not None and not isinstance(root, str) and not hasattr(root, "__fspath__"):
        raise TypeError(f"root: a path is needed, not {root!r}")
    return TieredCache(
        name,
        ttl=None if ttl is None or callable(ttl) else units.seconds(ttl, "ttl"),
        stale=stale,
        varying=callable(ttl),
        codec=codec,
        memory_limit=None if memory_limit is None else units.size(memory_limit, "memory"),
        max_bytes=None if max_bytes is None else units.size(max_bytes, "max_bytes"),
        given_root=root,
        io_timeout=timeout,
    )


def _pack_key(key: object) -> bytes:
    try:
        packed = codecs.dumps(key)
    except EncodeError:
        return b""
    return bytes(packed) if not isinstance(packed, list) and len(packed) <= _LONGEST_KEY else b""


def fetch_all(results: TieredCache, digests: list[str]) -> list[Any]:
    """The values of those that count, else MISSING: memory first, then the mount, many reads in flight at once."""
    if not results.enabled:
        return [MISSING] * len(digests)
    began = time.monotonic()
    found: list[Item | None] = [results.recall(digest) for digest in digests]
    missing = [index for index, item in enumerate(found) if item is None]
    fetched = io_threads.spread(
        results.place, results.fetch, [digests[index] for index in missing], results.io_timeout
    )
    values = []
    read = dict(zip(missing, fetched, strict=True))
    for index, held in enumerate(found):
        item = read.get(index) if held is None else held
        value = MISSING
        if item is not None and (held is not None or results.left(item) > 0):
            value = results.value(item, MISSING)
            if value is not MISSING:
                results.served(item, "mount" if held is None else "memory", began)
        values.append(value)
    return values
