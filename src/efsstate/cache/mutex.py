"""A mutex across threads, processes and hosts: a thread lock, and a byte lock on the mount."""

from __future__ import annotations

import time
from weakref import WeakValueDictionary

from efsstate import deadline, process
from efsstate.errors import MountTimeout
from efsstate.mount import byte_locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from efsstate.cache.tiers import TieredCache

_guard = process.lock()
_thread_locks: WeakValueDictionary[tuple[str, ...], Any] = WeakValueDictionary()


class Mutex:
    """Exclude all others who enter a mutex of the same digest; for one `with` at a time."""

    def __init__(
        self, results: TieredCache, digest: str, wait: float | None, description: str
    ) -> None:
        self._results, self._digest = results, digest
        self._wait, self._description = wait, description
        self._held: tuple[tuple[Any, byte_locks.ByteLock | None], ...] = ()

    def __repr__(self) -> str:
        return f"<mutex of {self._description}>"

    def __enter__(self) -> None:
        until = deadline.until(self._wait)
        # A byte-range lock belongs to the process, and excludes none of its own threads.
        # MUT: a-mutex-excludes-threads-too
        threads = self._thread_lock()
        acquired: list[bool] = []
        try:
            # In C, so that no signal handler comes between the acquisition and its record.
            acquired.extend(map(threads.acquire, (True,), (max(0.0, until - time.monotonic()),)))
            if acquired == [True]:
                lock = self._lock_on_mount(until) if self._results.enabled else None
                # No call: no handler runs between this and the return.
                self._held = (*self._held, (threads, lock))
                return
        except BaseException:  # a handler's, too; a lock on the mount goes with its last reference
            # MUT: an-interrupted-mutex-is-free
            if acquired == [True]:
                threads.release()
            raise
        raise self._timeout()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        threads, lock = self._held[-1]
        try:
            if lock is not None:
                lock.release()
                invocation = deadline.current()
                if invocation is not None:
                    invocation.drop(lock)
        finally:
            self._held = self._held[:-1]
            try:
                threads.release()
            except RuntimeError:  # a child that was forked inside the `with` does not hold it
                pass

    def __del__(self) -> None:
        # A signal handler may have raised as `__exit__` began.
        try:
            # MUT: a-mutex-is-left-with-its-last-reference
            while self._held:
                self._leave()
        except (AttributeError, OSError):
            pass  # it had not even begun, or the file system refuses

    def _thread_lock(self) -> Any:
        key = (self._results.root_path, self._results.component, self._digest)
        with _guard:
            lock = _thread_locks.get(key)
            if lock is None:
                lock = _thread_locks[key] = process.lock()
            return lock

    def _lock_on_mount(self, until: float) -> byte_locks.ByteLock:
        results, pauses = self._results, byte_locks.pauses()
        while True:
            lock = results.claim(self._digest)
            if lock is not None:
                invocation = deadline.current()
                if invocation is not None:
                    invocation.hold(lock, lock.release)
                return lock
            remaining = until - time.monotonic()
            if remaining <= 0:
                raise self._timeout()
            time.sleep(min(remaining, next(pauses)))

    def _timeout(self) -> MountTimeout:
        return MountTimeout(f"{self._description}: timed out waiting for the lock; pass wait=")
