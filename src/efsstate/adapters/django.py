"""A Django cache backend.

CACHES = {
    "default": {"BACKEND": "efsstate.adapters.django.EfsCache", "LOCATION": "/mnt/efs/app"},
}
"""

from __future__ import annotations

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from efsstate.cache.cache import Cache, plain_key, store_many
from efsstate.cache.tiers import MISSING
from efsstate.errors import EncodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


class EfsCache(BaseCache):
    """Django's cache on a root that every host shares.

    LOCATION is the root, or "" for the one that efsstate finds by itself. OPTIONS are those of
    `Cache`, NAME (the namespace, by default "django") and MAX_ENTRIES. Values are pickled, as in
    Django's own backends: set EFSSTATE_SIGNING_KEY if others can write to the mount.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = dict(params.get("OPTIONS", {}))
        options.pop("CULL_FREQUENCY", None)
        if options.pop("MAX_ENTRIES", None) is not None or "max_entries" in params:
            options["max_entries"] = self._max_entries
        options = {"codec": "pickle", "root": location or None, **options}
        self._cache: Cache = Cache(options.pop("NAME", "django"), **options)

    def __repr__(self) -> str:
        return f"EfsCache({self._cache.name!r})"

    def make_and_validate_key(self, key: Any, version: int | None = None) -> Any:
        """Return the name of `key`: text, whatever subclass of str a KEY_FUNCTION returns."""
        return plain_key(super().make_and_validate_key(key, version))

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Keep `value` unless a host has one for `key`; return True if it had none."""
        key, seconds = self.make_and_validate_key(key, version), self._seconds(timeout)
        with _PickleErrors():
            return self._cache.add(key, value, seconds)

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the value of `key`, or `default`."""
        return self._cache.get(self.make_and_validate_key(key, version), default)

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return the values of those of `keys` that have one; the mount is read once."""
        pairs = [(key, self.make_and_validate_key(key, version)) for key in keys]
        values = self._cache.get_many({name for _, name in pairs})
        return {key: values[name] for key, name in pairs if name in values}

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Keep `value` under `key`."""
        key = self.make_and_validate_key(key, version)
        with _PickleErrors():
            self._cache.set(key, value, self._seconds(timeout))

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        """Keep all of `data`; return the keys of the values that the mount did not take."""
        names = {self.make_and_validate_key(key, version): key for key in data}
        pairs, cache = [(name, data[key]) for name, key in names.items()], self._cache
        with _PickleErrors():
            taken = store_many(cache.results, cache.digest, pairs, self._seconds(timeout))
        return [key for key, is_taken in zip(names.values(), taken, strict=True) if not is_taken]

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Have the value of `key` count from now on; return True if it has one."""
        key, seconds = self.make_and_validate_key(key, version), self._seconds(timeout)
        return self._cache.delete(key) if seconds == 0 else self._cache.touch(key, seconds)

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Remove `key`; return True if it had a value."""
        return self._cache.delete(self.make_and_validate_key(key, version))

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Return True if `key` has a value."""
        return self.make_and_validate_key(key, version) in self._cache

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add `delta` to the number of `key`, which expires when it would have.

        The calls of all hosts add up exactly. Raise ValueError if there is none, TypeError if it is
        no number, and OSError if the mount fails.
        """
        from efsstate.cache import updates

        def add_delta(value: Any) -> Any:
            if value is MISSING:
                raise ValueError(f"Key '{key}' not found")
            return value + delta

        name = self.make_and_validate_key(key, version)
        total: int = updates.change(self._cache, name, add_delta, keeps_expiry=True)
        return total

    def clear(self) -> None:
        """Forget all values of the namespace."""
        self._cache.clear()

    def _seconds(self, timeout: Any) -> float | None:
        """Return a timeout as `Cache` has it: None for ever, 0 for a value that is gone."""
        seconds = self.default_timeout if timeout == DEFAULT_TIMEOUT else timeout
        return None if seconds is None else max(0.0, float(seconds))


class _PickleErrors:
    """Raise pickle's own error in place of the EncodeError that it caused, as Django's do."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        cause = error.__cause__ if isinstance(error, EncodeError) else None
        if cause is not None:
            raise cause
