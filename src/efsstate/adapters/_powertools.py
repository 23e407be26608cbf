"""Open the records of Powertools' layers, and remember the revision that each run began with."""

from __future__ import annotations

import threading

from efsstate import units
from efsstate.cache import io_threads
from efsstate.format import record_layout
from efsstate.mount.root import absolute, place, resolve
from efsstate.records.store import RecordStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import TypeVar

    from efsstate.records.revision import Revision
    from efsstate.units import Duration

    T = TypeVar("T")


_MOST = 1000  # runs that a thread remembers; only those of nested functions are under way at once


class Runs(threading.local):
    """The revision of a record that each run began with, by key and by thread.

    A call claims, runs and finishes on one thread, and a claim of another thread is not its own.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Revision] = {}

    def remember(self, key: str, revision: Revision) -> None:
        """Note that the run of `key` on this thread begins at `revision`."""
        seen = self._seen
        seen.pop(key, None)
        while len(seen) >= _MOST:
            del seen[next(iter(seen))]
        seen[key] = revision

    def knows(self, key: str) -> bool:
        """Return True if a run of `key` is under way on this thread."""
        return key in self._seen

    def forget(self, key: str) -> Revision | None:
        """Return the revision that the run of `key` began at, which ends now; None if unknown."""
        return self._seen.pop(key, None)


class RecordMount:
    """The records `name` at a root that is looked up by the first call.

    `window` and `io_timeout` are durations. Raise ValueError or TypeError for a bad option.
    """

    def __init__(
        self,
        name: str,
        window: Duration,
        root: str | os.PathLike[str] | None,
        io_timeout: Duration | None,
    ) -> None:
        self._width = round(units.seconds(window, "window"))
        if self._width < 1:
            raise ValueError(f"window: {window!r} is too short; give at least a second")
        record_layout.namespace(name, self._width)  # refuse a bad name at once
        self._timeout = None if io_timeout is None else units.seconds(io_timeout, "io_timeout")
        self._name, self._root = name, absolute(root)
        self._store: RecordStore | None = None

    def call(self, function: Callable[[RecordStore], T]) -> T:
        """Return `function(store)`. Raise `MountTimeout` if the mount does not answer in time."""

        def call() -> T:
            return function(self._open())

        if self._timeout is None:
            return call()
        result: T = io_threads.call(place(self._root), call, self._timeout)
        return result

    def _open(self) -> RecordStore:
        mount = resolve(self._root)
        store = self._store
        if store is None or store.mount is not mount:
            mount = resolve(self._root, durable=True)
            store = self._store = RecordStore(mount, self._name, self._width)
        return store
