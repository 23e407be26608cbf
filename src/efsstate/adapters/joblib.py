"""A store of joblib's results as entries on the mount.

joblib.register_store_backend("efsstate", EfsStoreBackend)
memory = joblib.Memory("/mnt/efs/app", backend="efsstate", verbose=0)
"""

from __future__ import annotations

import hashlib
import os
import threading
import warnings

from joblib.memory import CacheWarning, StoreBackendBase

from efsstate.cache.cache import Cache
from efsstate.errors import EfsStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MISSING: Any = object()
# The digest of each function's code in this process, by the function's id in joblib. It holds for
# all stores: joblib compares the code of a function once in a process.
_codes: dict[str, str] = {}


class _ComparedCodes(threading.local):
    """The digests of the stored codes that joblib is comparing in this thread, by function."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}


_compared = _ComparedCodes()


def _digest(code: str) -> str:
    return hashlib.blake2b(code.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _use_no_files(*_: Any) -> Any:
    raise NotImplementedError("efsstate: results are entries of a cache, and no files of joblib")


class EfsStoreBackend(StoreBackendBase):
    """Keep the results of `Memory.cache` in a `Cache` that every host shares.

    Memory's `location` is the root, and its `backend_options` are `name` (by default "joblib") and
    those of `Cache`. Values take efsstate's codec, and no pickle unless `codec="pickle"` asks for
    it. A result is kept under the code that computed it: other code never gets it.
    `compress` has no effect; `mmap_mode` and `Memory.reduce_size` raise errors.
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
        value = self._cache.get(self._key("result", call_id), _MISSING)
        if value is _MISSING:
            raise KeyError(f"no result {'/'.join(call_id)}; it may have been cleared")
        return value

    def dump_item(self, call_id: list[str], item: Any, **_: Any) -> None:
        """Keep a result; warn, as joblib's own store does, if it can't be kept."""
        try:
            self._cache.set(self._key("result", call_id), item, tags=call_id[:1])
        except EfsStateError as error:
            warnings.warn(f"Unable to cache to disk: {error}", CacheWarning, stacklevel=2)

    def contains_item(self, call_id: list[str]) -> bool:
        """Return True if there is a result."""
        return self._key("result", call_id) in self._cache

    def clear_item(self, call_id: list[str]) -> None:
        """Remove a result."""
        self._cache.delete(self._key("result", call_id))

    def get_metadata(self, call_id: list[str]) -> Any:
        """Return joblib's metadata of a computation, or {}."""
        return self._cache.get(self._key("metadata", call_id), {})

    def store_metadata(self, call_id: list[str], metadata: Any) -> None:
        """Keep joblib's metadata of a computation: its duration, and the arguments as text."""
        self._cache.set(self._key("metadata", call_id), metadata, tags=call_id[:1])

    def get_cached_func_code(self, call_id: list[str]) -> Any:
        """Return a function's code; raise OSError if there is none, which joblib expects.

        joblib compares the code at once. If it matches, the thread goes on to `contains_item`, else
        to `clear_path` and `store_cached_func_code`.
        """
        code = self._cache.get(("code", *call_id))
        if code is None:
            raise FileNotFoundError(f"no code of {'/'.join(call_id)}")
        _compared.digests[call_id[0]] = _digest(code)
        return code

    def store_cached_func_code(self, call_id: list[str], func_code: str | None = None) -> None:
        """Keep a function's code, by which joblib sees that it was changed."""
        if func_code is not None:
            _compared.digests.pop(call_id[0], None)
            _codes[call_id[0]] = _digest(func_code)
            self._cache.set(("code", *call_id), func_code)

    def _key(self, kind: str, call_id: list[str]) -> tuple[str, ...]:
        """Return the cache's key of a result, or of its metadata, below the function's code.

        The code's entry can be lost or unreadable, results can outlive a failed clearing, and
        processes of both codes run beside each other while a function is deployed.
        """
        function = call_id[0]
        if function in _compared.digests:
            _codes[function] = _compared.digests.pop(function)
        digest = _codes.get(function)
        if digest is None:  # a shelved result, in a process that does not call the function
            code = self._cache.get(("code", function))
            digest = "" if code is None else _digest(code)
        # MUT: a-result-counts-for-the-code-that-made-it
        return (kind, digest, *call_id)

    def get_cached_func_info(self, _: list[str]) -> dict[str, str]:
        """Return where a function's results are."""
        return {"location": self.location}

    def clear_path(self, call_id: list[str]) -> None:
        """Remove a function's results, which joblib asks for when its code has changed."""
        self._cache.invalidate_tag(call_id[0])

    def clear(self) -> None:
        """Remove all results."""
        self._cache.clear()
