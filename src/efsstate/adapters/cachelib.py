"""cachelib's interface, and so Flask-Caching's and Flask-Session's, on a `Cache`.

kind = "efsstate.adapters.cachelib.EfsCache"
options = {"name": "shop", "codec": "pickle"}  # of responses, and of fragments of templates
cache = flask_caching.Cache(config={"CACHE_TYPE": kind, "CACHE_OPTIONS": options})
"""

from __future__ import annotations

from cachelib import BaseCache

from efsstate import process
from efsstate.cache.cache import Cache, plain_key, store_many
from efsstate.cache.tiers import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from typing import Any


class EfsCache(BaseCache):
    """A cachelib cache that every host shares.

    - `name`: the namespace.
    - `default_timeout`: seconds for which a value counts unless `set` says so; 0: for ever.
    - `ignore_delete_many_errors`: as cachelib has it.
    - other options: those of `Cache`.
    """

    def __init__(
        self,
        name: str = "cachelib",
        default_timeout: int = 300,
        *,
        ignore_delete_many_errors: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(default_timeout, ignore_delete_many_errors)
        self._cache: Cache = Cache(name, **options)

    def __repr__(self) -> str:
        return f"EfsCache({self._cache.name!r})"

    def get(self, key: str) -> Any:
        """Return the value of `key`, or None."""
        return self._cache.get(plain_key(key))

    def get_many(self, *keys: str) -> list[Any]:
        """Return the value of each of `keys`, or None; the mount is read once."""
        plain = [plain_key(key) for key in keys]
        values = self._cache.get_many(plain)
        return [values.get(key) for key in plain]

    def set(self, key: str, value: Any, timeout: int | dt.timedelta | None = None) -> bool:
        """Keep `value` under `key`; return False if the mount fails."""
        return bool(self.set_many({key: value}, timeout))

    def set_many(
        self, mapping: Mapping[str, Any], timeout: int | dt.timedelta | None = None
    ) -> list[Any]:
        """Keep all of `mapping`; return the keys of the values that the mount took."""
        cache, seconds = self._cache, self._seconds(timeout)
        pairs = [(plain_key(key), value) for key, value in mapping.items()]
        taken = store_many(cache.results, cache.digest, pairs, seconds)
        return [key for key, is_taken in zip(mapping, taken, strict=True) if is_taken]

    def add(self, key: str, value: Any, timeout: int | dt.timedelta | None = None) -> bool:
        """Keep `value` unless a host has a value for `key`; return True if it was kept."""
        return self._cache.add(plain_key(key), value, self._seconds(timeout))

    def delete(self, key: str) -> bool:
        """Remove `key`; return True if it had a value."""
        return self._cache.delete(plain_key(key))

    def has(self, key: str) -> bool:
        """Return True if `key` has a value."""
        return plain_key(key) in self._cache

    def clear(self) -> bool:
        """Forget all values; return True."""
        self._cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        """Add `delta` to the number of `key`; the calls of all hosts add up exactly.

        The sum counts for the default timeout, as cachelib has it. Return None if the mount fails.
        """
        from efsstate.cache import updates

        def add_delta(value: Any) -> Any:
            return ((None if value is MISSING else value) or 0) + delta

        try:
            result = updates.change(self._cache, plain_key(key), add_delta, self._seconds(None))
        except OSError as error:
            process.raise_of_handler(error)
            result = None
        return result  # type: ignore[no-any-return]

    def dec(self, key: str, delta: int = 1) -> int | None:
        """Subtract `delta`, as `inc` adds it."""
        return self.inc(key, -delta)

    def _seconds(self, timeout: int | dt.timedelta | None) -> float | None:
        """Return a timeout as `Cache` has it: None for ever, and 0 for a value that is gone."""
        seconds = self._normalize_timeout(timeout)
        return None if seconds == 0 else max(0, seconds)
