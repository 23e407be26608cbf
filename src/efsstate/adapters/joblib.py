"""A store of joblib's results as entries on the mount.

joblib.register_store_backend("efsstate", EfsStoreBackend)
memory = joblib.Memory("/mnt/efs/app", backend="efsstate", verbose=0)
"""

from __future__ import annotations

import os
import warnings

from joblib.memory import CacheWarning, StoreBackendBase

from efsstate.cache.cache import Cache
from efsstate.errors import EfsStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MISSING: Any = object()


def _use_no_files(*_: Any) -> Any:
    raise NotImplementedError("efsstate: results are entries of a cache, and no files of joblib")


class EfsStoreBackend(StoreBackendBase):
    """Keep the results of `Memory.cache` in a `Cache` that every host shares.

    Memory's `location` is the root, and its `backend_options` are `name` (by default "joblib") and
    those of `Cache`. Values take efsstate's codec, and no pickle unless `codec="pickle"` asks for
    it. `compress` has no effect; `mmap_mode` and `Memory.reduce_size` raise errors.
    """

    _open_item = _item_exists = _move_item = create_location = clear_location = _use_no_files
    get_items = enforce_store_limits = _use_no_files

    def configure(
        self, location: str, verbose: int = 1, backend_options: dict[str, Any] | None = None
    ) -> None:
        """Open the cache; `Memory` calls it."""
        self.location, self.verbose = location, verbose
        self._options = backend_options or {}
        options = dict(self._options)
        if options.pop("mmap_mode", None) is not None:
            raise ValueError("efsstate: results can't be mapped; leave mmap_mode out")
        options.pop("compress", None)
        options.setdefault("root", location.removesuffix(f"{os.sep}joblib"))  # Memory appends it
        self._cache: Cache[Any, Any] = Cache(options.pop("name", "joblib"), **options)

    def __getstate__(self) -> Any:
        return self.location, self.verbose, self._options

    def __setstate__(self, state: Any) -> None:
        self.configure(*state)

    def load_item(self, call_id: list[str], *_: Any, **__: Any) -> Any:
        """Return a result; raise KeyError, as joblib's own store does, if there is none."""
        value = self._cache.get(("result", *call_id), _MISSING)
        if value is _MISSING:
            raise KeyError(f"no result {'/'.join(call_id)}; it may have been cleared")
        return value

    def dump_item(self, call_id: list[str], item: Any, **_: Any) -> None:
        """Keep a result; warn, as joblib's own store does, if it can't be kept."""
        try:
            self._cache.set(("result", *call_id), item, tags=call_id[:1])
        except EfsStateError as error:
            warnings.warn(f"Unable to cache to disk: {error}", CacheWarning, stacklevel=2)

    def contains_item(self, call_id: list[str]) -> bool:
        """Return True if there is a result."""
        return ("result", *call_id) in self._cache

    def clear_item(self, call_id: list[str]) -> None:
        """Remove a result."""
        self._cache.delete(("result", *call_id))

    def get_metadata(self, call_id: list[str]) -> Any:
        """Return joblib's metadata of a computation, or {}."""
        return self._cache.get(("metadata", *call_id), {})

    def store_metadata(self, call_id: list[str], metadata: Any) -> None:
        """Keep joblib's metadata of a computation: its duration, and the arguments as text."""
        self._cache.set(("metadata", *call_id), metadata, tags=call_id[:1])

    def get_cached_func_code(self, call_id: list[str]) -> Any:
        """Return a function's code; raise OSError if there is none, which joblib expects."""
        code = self._cache.get(("code", *call_id))
        if code is None:
            raise FileNotFoundError(f"no code of {'/'.join(call_id)}")
        return code

    def store_cached_func_code(self, call_id: list[str], func_code: str | None = None) -> None:
        """Keep a function's code, by which joblib sees that it was changed."""
        if func_code is not None:
            self._cache.set(("code", *call_id), func_code)

    def get_cached_func_info(self, _: list[str]) -> dict[str, str]:
        """Return where a function's results are."""
        return {"location": self.location}

    def clear_path(self, call_id: list[str]) -> None:
        """Remove a function's results, which joblib asks for when its code has changed."""
        self._cache.invalidate_tag(call_id[0])

    def clear(self) -> None:
        """Remove all results."""
        self._cache.clear()
