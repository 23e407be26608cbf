"""`cached` and `Cache`: results kept on the mount for every host, worked out once."""

from __future__ import annotations

import os
import threading
import time

from efsstate import deadline, events, units
from efsstate.cache import keys
from efsstate.cache.shelf import Found, Shelf
from efsstate.errors import EfsStateError, EncodeError, RootError, UnknownFormatError
from efsstate.mount import clock, codec as codecs, layout, lock, root as roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from efsstate.units import Duration, Size

_COROUTINE = 0x80
_MISS: Any = object()
_FAILURES = (OSError, EfsStateError, ValueError)


def _names(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", None) or "__main__"
    if module == "__main__":
        module = keys.main_name()
    return f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"


class Cache:
    """A map on the mount that every host shares; it forgets what is expired, removed or damaged, and fails open."""

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
        self.name = name
        self._component = layout.component(name)
        self._ttl = None if ttl is None or callable(ttl) else units.seconds(ttl, "ttl")
        self._codec = codec
        self._memory_limit = None if memory is None else units.size(memory, "memory")
        self._max_bytes = None if max_bytes is None else units.size(max_bytes, "max_bytes")
        self._root = root
        self._io_timeout = None if io_timeout is None else units.seconds(io_timeout, "io_timeout")
        self._keyer = keys.Keyer(name, None)
        self._shelf: Shelf | None = None
        self._flights: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self.counts = {"hits": 0, "misses": 0, "puts": 0, "waits": 0, "errors": 0, "stale": 0}

    # What it rests on

    def _open(self) -> Shelf:
        if self._shelf is None:
            mount = roots.resolve(self._root)
            self._codec_name, self._dumps, self._loads = codecs.resolve_codec(self._codec, signed=mount.key is not None)
            self._shelf = Shelf(mount, self._component)
        return self._shelf

    def _failed(self, error: BaseException) -> None:
        self.counts["errors"] += 1
        events.emit("error", self.name, error=repr(error))
        kind = "root" if isinstance(error, RootError) else type(error).__name__
        events.log("warning", "cache %s: %s", self.name, error, once=f"{self.name} {kind}")

    def _find(self, digest: str, *, fresh: bool = False) -> tuple[Any, Found] | None:
        try:
            shelf = self._open()
            found = shelf.read(digest, self._codec_name, fresh=fresh)
            return None if found is None else (self._loads(found.entry.payload), found)
        except _FAILURES as error:
            self._failed(error)
            return None

    def _age_left(self, found: Found) -> float:
        limits = [limit for limit in (found.ttl, self._ttl) if limit is not None]
        return min(limits) - max(0.0, clock.now() - found.created) if limits else float("inf")

    def _store(
        self, digest: str, value: Any, ttl: float | None, generation: int | None = None, key: bytes = b""
    ) -> None:
        shelf = self._open()
        payload = self._dumps(value)
        if generation is None:
            generation = shelf.generation()
        shelf.write(digest, payload, codec_name=self._codec_name, ttl=ttl, generation=generation, key=key)
        self.counts["puts"] += 1

    # The map

    def _key(self, key: object) -> bytes:
        try:
            made = codecs.dumps(key)
        except EncodeError:
            return b""  # it has a digest all the same, but `keys` can't show it
        return bytes(made) if not isinstance(made, list) and len(made) < 2**15 else b""

    def get(self, key: object, default: Any = None, *, fresh: bool = False) -> Any:
        """The value of `key`, or `default`; `fresh`: as every host has it now, for a request more."""
        found = self._find(self._keyer.digest(key), fresh=fresh)
        if found is None or self._age_left(found[1]) <= 0:
            self.counts["misses"] += 1
            return default
        self.counts["hits"] += 1
        return found[0]

    def set(self, key: object, value: Any, ttl: Duration | None = None) -> None:
        """Keep `value` under `key`, for `ttl` if given. `EncodeError` if it can't be stored as it is."""
        seconds = self._ttl if ttl is None else units.seconds(ttl, "ttl")
        try:
            self._store(self._keyer.digest(key), value, seconds, key=self._key(key))
        except EncodeError:
            raise
        except _FAILURES as error:
            self._failed(error)

    def add(self, key: object, value: Any, ttl: Duration | None = None) -> bool:
        """Keep `value` under `key` unless there is one; whether it was kept."""
        if self.get(key, _MISS, fresh=True) is not _MISS:
            return False
        self.set(key, value, ttl)
        return True

    def delete(self, key: object) -> bool:
        """Remove `key`; whether it was there."""
        found = self.get(key, _MISS, fresh=True) is not _MISS
        try:
            return self._open().remove(self._keyer.digest(key)) and found
        except _FAILURES as error:
            self._failed(error)
            return False

    def __contains__(self, key: object) -> bool:
        return self.get(key, _MISS) is not _MISS

    def clear(self) -> None:
        """Forget everything, here at once and elsewhere within 60 s."""
        try:
            self._open().clear()
        except _FAILURES as error:
            self._failed(error)

    def keys(self) -> Iterator[Any]:
        """The keys that have a value, in no order."""
        from efsstate.cache.shelf import unpack_meta

        try:
            digests = list(self._open().digests())
        except _FAILURES as error:
            self._failed(error)
            return
        for digest in digests:
            found = self._find(digest)
            if found is not None and self._age_left(found[1]) > 0:
                _, key = unpack_meta(found[1].entry.meta)
                if key:
                    yield codecs.loads(key)

    def get_many(self, wanted: Iterable[object]) -> dict[Any, Any]:
        """The values of those keys that have one."""
        found = ((key, self.get(key, _MISS)) for key in wanted)
        return {key: value for key, value in found if value is not _MISS}

    def set_many(self, values: dict[Any, Any], ttl: Duration | None = None) -> None:
        """Keep all of `values`."""
        for key, value in values.items():
            self.set(key, value, ttl)

    def get_or_compute(self, key: object, function: Callable[[], Any]) -> Any:
        """The value of `key`; if there is none, what `function()` returns, worked out once for all hosts and kept."""
        return self._through(self._keyer.digest(key), function, key=self._key(key))

    # One computation

    def _through(
        self,
        digest: str,
        compute: Callable[[], Any],
        *,
        key: bytes = b"",
        ttl: Any = None,
        cache_if: Callable[[Any], bool] | None = None,
        lock_timeout: float | None = None,
    ) -> Any:
        found = self._find(digest)
        if found is not None and self._age_left(found[1]) > 0:
            self.counts["hits"] += 1
            return found[0]
        until = deadline.until(lock_timeout)
        with self._guard:
            here = self._flights.setdefault(digest, threading.RLock())  # type: ignore[arg-type]
        mine = here.acquire(timeout=max(0.0, until - time.monotonic()))
        held = None
        try:
            try:
                shelf = self._open()
                folder = layout.entry_folder(self._component, digest)
                held = lock.acquire(shelf.mount, folder, digest + layout.LOCK_SUFFIX, until=until)
                generation = shelf.generation()
            except _FAILURES as error:
                self._failed(error)
                generation = 0
            found = self._find(digest, fresh=True)
            if found is not None and self._age_left(found[1]) > 0:
                self.counts["hits"] += 1
                return found[0]
            self.counts["misses"] += 1
            value = compute()
            try:
                if cache_if is None or cache_if(value):
                    lives = units.seconds(ttl(value), "ttl") if callable(ttl) else self._ttl
                    self._store(digest, value, lives, generation, key)
            except _FAILURES as error:
                self._failed(error)
            return value
        finally:
            if held is not None:
                held.release(remove=True)
            if mine:
                here.release()


def cached(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: object = None,
    ttl: Any = None,
    stale: Duration | None = None,
    key: Callable[..., object] | None = None,
    ignore: Iterable[str] = (),
    cache_if: Callable[[Any], bool] | None = None,
    codec: Any = "msgpack",
    memory: Size | None = None,
    max_bytes: Size | None = None,
    root: str | os.PathLike[str] | None = None,
    lock_timeout: Duration | None = None,
    io_timeout: Duration | None = None,
) -> Any:
    """Keep what the function returns on the mount, so that it is worked out once for all hosts."""
    options = {
        "name": name, "version": version, "ttl": ttl, "stale": stale, "key": key, "ignore": ignore, "cache_if": cache_if,
        "codec": codec, "memory": memory, "max_bytes": max_bytes, "root": root, "lock_timeout": lock_timeout,
        "io_timeout": io_timeout,
    }  # fmt: skip
    if function is None:
        return lambda wrapped: _decorate(wrapped, **options)
    return _decorate(function, **options)


def _decorate(function: Callable[..., Any], **options: Any) -> Any:
    signature = keys.Signature(function, options["ignore"])
    namespace = options["name"]
    if namespace is None:
        namespace = _names(function)
        if roots.function_name():
            namespace = f"{roots.function_name()}/{namespace}"
    ttl = options["ttl"]
    cache = Cache(
        namespace,
        ttl=ttl,
        codec=options["codec"],
        memory=options["memory"],
        max_bytes=options["max_bytes"],
        root=options["root"],
        io_timeout=options["io_timeout"],
    )
    keyer = keys.Keyer(namespace, options["version"])
    lock_timeout = None if options["lock_timeout"] is None else units.seconds(options["lock_timeout"], "lock_timeout")
    make_key, cache_if = options["key"], options["cache_if"]

    def digest_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        if make_key is not None:
            return keyer.digest(("key", make_key(*args, **kwargs)))
        bound = signature.bind(args, kwargs)
        return None if bound is None else keyer.digest(bound)

    def through(args: tuple[Any, ...], kwargs: dict[str, Any], compute: Callable[[], Any]) -> Any:
        digest = digest_of(args, kwargs)
        if digest is None or roots.disabled():
            return compute()
        return cache._through(digest, compute, ttl=ttl, cache_if=cache_if, lock_timeout=lock_timeout)  # noqa: SLF001

    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & _COROUTINE:

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            import asyncio

            loop = asyncio.get_running_loop()

            def compute() -> Any:
                return asyncio.run_coroutine_threadsafe(function(*args, **kwargs), loop).result()

            return await asyncio.to_thread(through, args, kwargs, compute)
    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
            return through(args, kwargs, lambda: function(*args, **kwargs))

    def need(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        digest = digest_of(args, kwargs)
        if digest is None:
            raise TypeError(f"{namespace}: these arguments do not fit the function")
        return digest

    def peek(*args: Any, **kwargs: Any) -> Any:
        found = cache._find(need(args, kwargs))  # noqa: SLF001
        if found is None or cache._age_left(found[1]) <= 0:  # noqa: SLF001
            raise KeyError(f"{namespace}: no result for these arguments")
        return found[0]

    def invalidate(*args: Any, **kwargs: Any) -> None:
        try:
            cache._open().remove(need(args, kwargs))  # noqa: SLF001
        except _FAILURES as error:
            cache._failed(error)  # noqa: SLF001

    def refresh(*args: Any, **kwargs: Any) -> Any:
        invalidate(*args, **kwargs)
        return wrapper(*args, **kwargs)

    def explain(*args: Any, **kwargs: Any) -> str:
        found = cache._find(need(args, kwargs), fresh=True)  # noqa: SLF001
        if found is None:
            return "miss: no result for these arguments"
        left = cache._age_left(found[1])  # noqa: SLF001
        return f"hit: {left:.0f} s left" if left > 0 else "miss: expired"

    def cache_info() -> Any:
        from collections import namedtuple

        return namedtuple("CacheInfo", "hits misses maxsize currsize")(  # noqa: PYI024
            cache.counts["hits"], cache.counts["misses"], None, 0
        )

    wrapper.cache, wrapper.cache_info, wrapper.cache_clear = cache, cache_info, cache.clear  # type: ignore[attr-defined]
    wrapper.cache_key = lambda *args, **kwargs: need(args, kwargs)  # type: ignore[attr-defined]
    wrapper.invalidate, wrapper.refresh, wrapper.peek = invalidate, refresh, peek  # type: ignore[attr-defined]
    wrapper.explain = explain  # type: ignore[attr-defined]
    wrapper.map = lambda iterable: [wrapper(item) for item in iterable]  # type: ignore[attr-defined]
    return deadline._named_like(wrapper, function)  # noqa: SLF001
