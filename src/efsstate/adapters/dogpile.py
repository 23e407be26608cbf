"""Store a dogpile.cache region's values, and take its mutexes, for the whole fleet.

    region = make_region().configure("efsstate", arguments={"name": "catalogue"})

dogpile.cache finds it under that name by an entry point.
"""

from __future__ import annotations

import os
import threading
import time
from weakref import WeakValueDictionary

from dogpile.cache.api import NO_VALUE, CacheBackend, CacheMutex

from efsstate import deadline, process, units
from efsstate.cache.cache import Cache, plain_key
from efsstate.errors import EfsStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from efsstate.cache.mutex import Mutex
    from efsstate.units import Duration

_guard = process.lock()
# dogpile.cache passes over arguments that a backend does not know.
_OPTIONS = (
    "name", "lock_timeout", "ttl", "codec", "memory", "max_bytes", "max_entries", "root",
    "io_timeout",
)  # fmt: skip


class EfsBackend(CacheBackend):
    """The backend "efsstate".

    `arguments` are those of `Cache`, and:

    - `name`: the namespace; "dogpile" unless given. Regions with one name share their values.
    - `lock_timeout`: how long a call waits for another that computes the same value; if it takes
      longer, both compute it. By default as `Cache.lock`.

    dogpile.cache stores when each value was created, and lets it expire by that. After `ttl` the
    sweep removes it: give it more than the region's `expiration_time`.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        options = {name: arguments[name] for name in _OPTIONS if name in arguments}
        self._wait: Duration | None = options.pop("lock_timeout", None)
        self._cache: Cache = Cache(options.pop("name", "dogpile"), **options)
        self._threads: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<EfsBackend {self._cache.name!r}>"

    def get(self, key: str) -> Any:
        """Return the value of `key`, or NO_VALUE."""
        return self._cache.get(plain_key(key), NO_VALUE)

    def get_multi(self, keys: Sequence[str]) -> list[Any]:
        """Return the value of each of `keys`, or NO_VALUE; the mount is read once."""
        plain = [plain_key(key) for key in keys]
        values = self._cache.get_many(plain)
        return [values.get(key, NO_VALUE) for key in plain]

    def set(self, key: str, value: Any) -> None:
        """Keep `value` under `key`."""
        self._cache.set(plain_key(key), value)

    def set_multi(self, mapping: Mapping[str, Any]) -> None:
        """Keep all of `mapping`, several at once."""
        self._cache.set_many({plain_key(key): value for key, value in mapping.items()})

    def delete(self, key: str) -> None:
        """Remove `key`."""
        self._cache.delete(plain_key(key))

    def delete_multi(self, keys: Sequence[str]) -> None:
        """Remove each of `keys`."""
        for key in keys:
            self.delete(key)

    def get_mutex(self, key: str) -> CacheMutex:
        """Return the mutex under which one thread of the fleet computes the value of `key`."""
        key = plain_key(key)
        with _guard:
            threads = self._threads.get(key)
            if threads is None:
                threads = self._threads[key] = process.lock(reentrant=False)
        return _Mutex(self._cache, key, self._wait, threads)


class _Mutex(CacheMutex):
    """`Cache.lock` as dogpile.cache calls it: one object for all threads of a region.

    The thread that acquires it is the one that releases it, so a region must not have an
    `async_creation_runner`.
    """

    def __init__(self, cache: Cache, key: str, wait: Duration | None, threads: Any) -> None:
        self._cache, self._key, self._wait, self._threads = cache, key, wait, threads
        self._mutex: Mutex | None = None
        self._owner: tuple[int, int] | None = None  # process and thread

    def __repr__(self) -> str:
        return f"<mutex of {self._key!r} in {self._cache.name!r}>"

    def acquire(self, wait: bool = True) -> bool:
        """Return True once the caller may compute, False if another does and `wait` is false.

        If the mount can't lock, or the wait is over, the caller may: a value that is computed twice
        is better than none.
        """
        seconds = None if self._wait is None else units.seconds(self._wait, "lock_timeout")
        until, owner = deadline.until(seconds) if wait else 0.0, _caller()
        acquired: list[bool] = []
        try:
            # `Cache.lock` lets a thread enter again, and dogpile.cache must not.
            # In C, so that no signal handler comes between the acquisition and its record.
            acquired.extend(
                map(self._threads.acquire, (True,), (max(0.0, until - time.monotonic()),))
            )
            if acquired == [True]:
                mutex = self._lock_on_mount(max(0.0, until - time.monotonic()))
                self._mutex, self._owner = mutex, owner
        except BaseException as error:  # a handler's, too
            # MUT: an-alarm-leaves-no-mutex-of-dogpile
            if acquired == [True]:
                self._threads.release()
            if isinstance(error, TimeoutError) and process.is_of_system(error):
                return wait  # another caller computes the value
            raise
        return wait or acquired == [True]

    def release(self) -> None:
        """Let others compute; do nothing if the caller computed without the mutex."""
        if self._owner == _caller():
            self._leave()

    def _leave(self) -> None:
        try:
            if self._mutex is not None:
                self._mutex.__exit__(None, None, None)
        finally:
            self._mutex = self._owner = None
            self._threads.release()

    def __del__(self) -> None:
        # A signal handler may have raised before dogpile.cache could release it.
        try:
            # MUT: a-mutex-of-dogpile-goes-with-its-last-use
            if self._owner is not None and self._owner[0] == os.getpid():
                self._leave()
        except (AttributeError, OSError):
            pass  # `__init__` did not end, or the mount failed

    def _lock_on_mount(self, wait: float) -> Mutex | None:
        """Return the mutex, or None if the mount can't lock; wait for at most `wait` seconds.

        Raise TimeoutError if another caller of the fleet has it.
        """
        mutex = self._cache.lock(self._key, wait)
        try:
            mutex.__enter__()
        except TimeoutError:
            raise
        except (OSError, EfsStateError) as error:
            process.raise_of_handler(error)
            return None
        return mutex

    def locked(self) -> bool:
        """Return True if a thread of the fleet computes the value now."""
        acquired: list[bool] = []
        is_free = False
        try:
            acquired.extend(map(self._threads.acquire, (False,)))
            if acquired == [True]:
                mutex = self._lock_on_mount(0)
                if mutex is not None:
                    mutex.__exit__(None, None, None)
                is_free = True
        except TimeoutError as error:
            process.raise_of_handler(error)
        finally:
            if acquired == [True]:
                self._threads.release()
        return not is_free


def _caller() -> tuple[int, int]:
    """Return the ids of the process and of the thread that call this."""
    return os.getpid(), threading.get_ident()
