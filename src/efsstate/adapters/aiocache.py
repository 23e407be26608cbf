"""aiocache's interface on an `AsyncCache`.

cache = aiocache.Cache(EfsCache, name="shop", namespace="prices:")
"""

from __future__ import annotations

import asyncio
from functools import partial
from weakref import WeakKeyDictionary

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

from efsstate.cache.async_cache import AsyncCache
from efsstate.cache.cache import plain_key
from efsstate.cache.tiers import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
_OPTIONS = ("codec", "memory", "max_bytes", "max_entries", "root", "io_timeout")


class EfsCache(BaseCache):
    """An aiocache cache that every host shares, for `cached`, `RedLock` and `OptimisticLock` too.

    `name` is that of the `Cache`, which has the options `codec`, `memory`, `max_bytes`,
    `max_entries`, `root` and `io_timeout`. Other options are aiocache's. Unless `serializer` is
    given, values keep their types by efsstate's codec.
    """

    NAME = "efsstate"

    def __init__(self, name: str = "aiocache", *, serializer: Any = None, **options: Any) -> None:
        ours = {option: options.pop(option) for option in _OPTIONS if option in options}
        build_key = options.pop("key_builder", None) or self._build_key
        super().__init__(
            serializer=serializer or NullSerializer(),
            key_builder=lambda *key, **namespace: plain_key(build_key(*key, **namespace)),
            **options,
        )
        self._cache: AsyncCache[str, Any] = AsyncCache(name, **ours)

    def __repr__(self) -> str:
        return f"EfsCache({self._cache.name!r})"

    @classmethod
    def parse_uri_path(cls, path: str) -> dict[str, str]:
        """Return the options in the path of a URL: the name."""
        return {"name": path.strip("/")} if path.strip("/") else {}

    async def _get(self, key: str, **_: Any) -> Any:
        return await self._cache.get(key)

    async def _gets(self, key: str, **_: Any) -> Any:
        return await self._cache.get(key, fresh=True)

    async def _multi_get(self, keys: list[str], **_: Any) -> list[Any]:
        values = await self._cache.get_many(keys)
        return [values.get(key) for key in keys]

    async def _set(
        self, key: str, value: Any, ttl: float | None = None, _cas_token: Any = None, **_: Any
    ) -> int:
        if _cas_token is None:
            await self._cache.set(key, value, _seconds(ttl))
            return True
        async with self._cache.lock(key):
            if await self._gets(key) != _cas_token:
                return 0
            await self._cache.set(key, value, _seconds(ttl))
        return True

    async def _multi_set(
        self, pairs: Iterable[tuple[str, Any]], ttl: float | None = None, **_: Any
    ) -> bool:
        await self._cache.set_many(dict(pairs), _seconds(ttl))
        return True

    async def _add(self, key: str, value: Any, ttl: float | None = None, **_: Any) -> bool:
        async with _in_turn():
            is_kept = await self._cache.add(key, value, _seconds(ttl))
        if not is_kept:
            raise ValueError(f"Key {key} already exists, use .set to update the value")
        return True

    async def _exists(self, key: str, **_: Any) -> bool:
        return await self._cache.contains(key)

    async def _increment(self, key: str, delta: int, **_: Any) -> int:
        from efsstate.cache import updates

        def add_delta(value: Any) -> int:
            try:
                return delta if value is MISSING else int(value) + delta
            except ValueError:
                raise TypeError("Value is not an integer") from None

        change = partial(updates.change, keeps_expiry=True)
        result: int = await asyncio.to_thread(change, self._cache.cache, key, add_delta)
        return result

    async def _expire(self, key: str, ttl: float, **_: Any) -> bool:
        return await self._cache.touch(key, _seconds(ttl))

    async def _delete(self, key: str, **_: Any) -> int:
        return int(await self._cache.delete(key))

    async def _clear(self, namespace: str | None = None, **_: Any) -> bool:
        if not namespace:
            await self._cache.clear()
            return True
        async for key in self._cache.keys():
            if key.startswith(namespace):
                await self._cache.delete(key)
        return True

    async def _redlock_release(self, key: str, value: Any) -> int:
        async with _in_turn(), self._cache.lock(key):
            return await self._delete(key) if await self._gets(key) == value else 0


def _seconds(ttl: float | None) -> float | None:
    """Return a ttl as `Cache` has it: None for ever, and 0 for a value that is gone."""
    return max(0.0, ttl) if ttl else None


def _in_turn() -> asyncio.Lock:
    """Return a lock under which one task of this loop adds or releases at a time.

    `RedLock` makes its event once `_add` has returned, and removes it once `_redlock_release` has.
    Between the two another task must not see the key taken, or free: it would wait for no event.
    """
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
