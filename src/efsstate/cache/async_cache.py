"""`AsyncCache`: a `Cache` with coroutine methods, which never block the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

from efsstate import process
from efsstate.cache import aio, puts, singleflight
from efsstate.cache.cache import Cache
from efsstate.cache.namespace import FAILURES
from efsstate.cache.options import tag_ids
from efsstate.cache.tiers import MISSING
from efsstate.generic import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, overload

    from efsstate.cache.info import CacheInfo
    from efsstate.cache.mutex import Mutex
    from efsstate.units import Duration

    D = TypeVar("D")

K = TypeVar("K", default="Any")
V = TypeVar("V", default="Any")


class AsyncCache(Generic[K, V]):
    """A map that every host shares, for asyncio: see `Cache`, which has the options.

    A value in memory is served at once; the mount is asked on threads. A value that is set is
    encoded before the call returns its awaitable, so it may be changed afterwards.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self._cache: Cache[K, V] = Cache(name, **options)
        self.name = name

    def __repr__(self) -> str:
        return f"AsyncCache({self.name!r})"

    if TYPE_CHECKING:

        @overload
        async def get(self, key: K, default: None = None, *, fresh: bool = False) -> V | None: ...
        @overload
        async def get(self, key: K, default: D, *, fresh: bool = False) -> V | D: ...

    async def get(self, key: Any, default: Any = None, *, fresh: bool = False) -> Any:
        """Return the value of `key`, a copy of the caller's own, or `default`."""
        if not fresh and self._cache.is_in_memory(key):
            return self._cache.get(key, default)
        return await aio.on_thread(partial(self._cache.get, key, default, fresh=fresh))

    def set(
        self, key: K, value: V, ttl: Duration | None = None, *, tags: Iterable[str] = ()
    ) -> Awaitable[None]:
        """Keep `value` under `key`, for `ttl` if given, with `tags` for `invalidate_tag`."""
        return self._put([(key, value)], ttl, tag_ids(tags) if tags else ())

    def set_many(self, values: Mapping[K, V], ttl: Duration | None = None) -> Awaitable[None]:
        """Keep all of `values`; if one raises `EncodeError`, the others are kept all the same."""
        return self._put(list(values.items()), ttl)

    def _put(
        self, pairs: list[tuple[Any, Any]], ttl: Duration | None, tags: tuple[str, ...] = ()
    ) -> Awaitable[None]:
        results, seconds = self._cache.results, self._cache.life(ttl)
        digests = [self._cache.digest(key) for key, _ in pairs]
        if not results.enabled or seconds == 0:
            return self._remove(digests if results.enabled else [])
        # Now, and not in the coroutine: the caller may change the value after this call.
        writes = [
            puts.encode(
                results,
                (digest, value, puts.pack_key(key)),
                seconds,
                own_ttl=ttl is not None,
                detach=True,
                tags=tags,
            )
            for digest, (key, value) in zip(digests, pairs, strict=True)
        ]
        return self._store(writes)

    async def _remove(self, digests: list[str]) -> None:
        for digest in digests:
            await asyncio.to_thread(puts.remove, self._cache.results, digest)

    async def _store(self, writes: list[puts.Write]) -> None:
        results, began = self._cache.results, time.monotonic()
        outcomes: list[puts.Outcome | None] = []
        for write in writes:
            try:
                outcomes.append(await aio.call(results, partial(puts.store, results, write)))
            except FAILURES as error:
                outcomes.append((None, error))
        puts.report(results, outcomes, began)

    async def add(self, key: K, value: V, ttl: Duration | None = None) -> bool:
        """Keep `value` under `key` unless a host has a value for it; return True if it was kept."""
        return await asyncio.to_thread(self._cache.add, key, value, ttl)

    async def delete(self, key: K) -> bool:
        """Remove `key`; return True if it had a value."""
        return await asyncio.to_thread(self._cache.delete, key)

    async def contains(self, key: object) -> bool:
        """Return True if `key` has a value."""
        return bool(await aio.on_thread(self._cache.__contains__, key))

    async def clear(self) -> None:
        """Forget all values: here at once, elsewhere within 60 s."""
        await asyncio.to_thread(self._cache.clear)

    async def invalidate_tag(self, tag: str) -> None:
        """Forget all values with this tag: here at once, elsewhere within 60 s."""
        await asyncio.to_thread(self._cache.invalidate_tag, tag)

    async def keys(self) -> AsyncIterator[K]:
        """Yield the keys that have a value, in no order; it reads every entry."""
        for key in await asyncio.to_thread(lambda: list(self._cache.keys())):
            yield key

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those of `keys` (hashable) that have one; the mount is read once."""
        values: dict[K, V] = await aio.on_thread(self._cache.get_many, list(keys))
        return values

    async def get_or_compute(self, key: K, function: Callable[[], Awaitable[V]]) -> V:
        """Return the value of `key`, or the awaited result of `function()`, computed once."""
        if not callable(function):
            raise TypeError(f"get_or_compute: a function is needed, not {function!r:.80}")
        results = self._cache.results
        if not results.enabled:
            return await function()
        value: V = await self.get(key, MISSING)
        if value is not MISSING:
            return value
        options = results.options
        request = singleflight.ComputeRequest(
            function, key=puts.pack_key(key), ttl=options.ttl, ttl_of=options.ttl_of
        )
        steps = singleflight.compute(results, self._cache.digest(key), request, None)
        return await aio.run(results, steps)  # type: ignore[no-any-return]

    if TYPE_CHECKING:

        @overload
        async def pop(self, key: K) -> V: ...
        @overload
        async def pop(self, key: K, default: D) -> V | D: ...

    async def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Remove `key` and return its value; of callers on all hosts one gets it."""
        if default is MISSING:
            return await asyncio.to_thread(self._cache.pop, key)
        return await asyncio.to_thread(self._cache.pop, key, default)

    async def touch(self, key: K, ttl: Duration | None = None) -> bool:
        """Have the value of `key` count from now on; return True if it has one."""
        return await asyncio.to_thread(self._cache.touch, key, ttl)

    async def incr(self, key: K, delta: int = 1, ttl: Duration | None = None) -> int:
        """Add `delta` to the number that `key` has, and return the sum; exact across hosts."""
        return await asyncio.to_thread(self._cache.incr, key, delta, ttl)

    def lock(self, key: K, wait: Duration | None = None) -> AsyncMutex:
        """Return a mutex for an `async with`: one task or thread of the fleet holds it at a time.

        Unlike `Cache.lock`, a task can't enter it again.
        """
        return AsyncMutex(self._cache.lock(key, wait))

    def info(self) -> CacheInfo:
        """Return the counters of this process."""
        return self._cache.info()

    @property
    def cache(self) -> Cache[K, V]:
        """The `Cache` below, for the package."""
        return self._cache


class AsyncMutex:
    """A mutex that a thread of its own holds, because a thread lock belongs to a thread."""

    def __init__(self, mutex: Mutex) -> None:
        self._mutex = mutex
        self._entered: tuple[process.Latch, asyncio.Future[None]] | None = None

    def __repr__(self) -> str:
        return repr(self._mutex)

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        entered: asyncio.Future[None] = loop.create_future()
        released: asyncio.Future[None] = loop.create_future()
        leave = process.Latch()  # of this thread alone: one that timed out may still wait

        def resolve(future: asyncio.Future[None], error: BaseException | None) -> None:
            if not future.done():
                future.set_result(None) if error is None else future.set_exception(error)

        def tell(future: asyncio.Future[None], error: BaseException | None = None) -> None:
            try:
                loop.call_soon_threadsafe(resolve, future, error)
            except RuntimeError:
                leave.set()  # the loop is closed: no task is there to leave

        def hold() -> None:
            try:
                with self._mutex:
                    tell(entered)
                    leave.wait()
            except BaseException as error:
                tell(entered, error)
            finally:
                tell(released)

        try:
            process.start(threading.Thread(target=hold, name="efsstate-lock", daemon=True))
            await entered
            self._entered = leave, released
        except BaseException:  # cancelled, or an alarm's: the thread lets go once it has entered
            # MUT: an-interrupted-task-leaves-its-mutex
            leave.set()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._entered is not None:
            leave, released = self._entered
            leave.set()
            await asyncio.shield(released)
