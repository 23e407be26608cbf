"""Lock one byte of a file that many processes share, across hosts: a `lockf` lock for each digest.

On NFS that is three requests, to take it and give it back, where a lock file for each digest is six
or more, changes the folder for every other client, and has to be removed without leaving another
process with the lock of a removed file. As with `lock`, correctness never rests on it.
"""

from __future__ import annotations

import errno
import os
import time

from efsstate import process, units
from efsstate.format import layout
from efsstate.mount.folders import Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from efsstate.mount.files import Mount
    from efsstate.mount.folders import FolderHandle

_MAX_OPEN = 64  # lock files of a root
_NOBODY: dict[int, str] = {}
_CHECK = 20.0  # seconds after which an open lock file is checked to still have its name


class _SharedLockFile:
    """An open lock file, shared by this process's byte locks.

    POSIX drops all of a process's locks on a file when any descriptor of it is closed, so it is
    closed only while no byte is locked. `opening` guards that. A close is a request, and hangs
    while the client is cut off: `_guard` is never held meanwhile, and no lock closes another root's
    file.
    """

    __slots__ = ("checked", "file", "holders", "is_usable", "opening", "root", "users")

    def __init__(self, root: str) -> None:
        self.root = root  # the path of the mount that it was opened through
        self.file = Descriptor()
        self.is_usable = False  # becomes False only while there are no users
        # By the locks' ids, and not counts: an interrupted change is made again without harm.
        self.users: set[int] = set()
        # byte -> the locks of this process that share it, with their roots' paths
        self.holders: dict[int, dict[int, str]] = {}
        self.checked = 0.0
        self.opening = process.lock()

    def close(self) -> None:
        self.file.close()


# By the folder's device and inode: two paths to one root share its lock files.
_shared_files: dict[tuple[int, int], _SharedLockFile] = {}
_guard = process.lock()


@process.after_fork
def _close_the_parents() -> None:
    """In a forked child, close the parent's lock files: byte locks stay with the parent."""
    for shared in _shared_files.values():
        shared.file.abandon()
    _shared_files.clear()


@process.at_reset
def _close_idle() -> None:
    """Close the lock files that have no users."""
    for key in list(_shared_files):
        _close_unused(key)


class ByteLock:
    """A byte of a folder's lock file, locked once `take` has returned."""

    __slots__ = ("_closes", "_file", "_offset", "_pid", "_root")

    def __init__(self, offset: int, root: str, closes: tuple[int, int] | None) -> None:
        self._file: _SharedLockFile | None = None
        self._offset, self._root, self._pid = offset, root, os.getpid()
        self._closes = closes  # the lock file to close afterwards, if it has no other users

    def join(self, key: tuple[int, int]) -> _SharedLockFile:
        """Return the folder's lock file, and use it."""
        with _guard:
            file = _shared_files.get(key)
            if file is None:
                file = _shared_files[key] = _SharedLockFile(self._root)
            elif not file.users and not 0 <= time.time() - file.checked < _CHECK:
                file.is_usable = False  # the folder may have been removed and created again
            self._file = file
            file.users.add(id(self))
            idle = _idle_files(file.root) if len(_shared_files) > _MAX_OPEN else []
        for other in idle:
            _close_unused(other)
        return file

    def take(self) -> None:
        """Lock the byte. Raise `BlockingIOError` if another process has it, `OSError`.

        Raise it, too, if this process has it by another path of the root: the threads and caches of
        that path know nothing of ours.
        """
        import fcntl

        file, offset = self._file, self._offset
        assert file is not None
        try:
            with file.opening:  # or it might be closed meanwhile
                fd = file.file.fd
                roots = {*file.holders.get(offset, _NOBODY).values()}
                # MUT: another-path-to-the-root-is-another-process
                if roots and roots != {self._root}:
                    raise BlockingIOError(errno.EAGAIN, "locked by another path of the root")
                try:
                    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
                    # The kernel has one lock for the whole process: without this set, the first
                    # release would free them all.
                    file.holders.setdefault(offset, {})[id(self)] = self._root
                except BaseException as error:
                    # A signal handler may have raised right after the lock was taken.
                    if not process.is_of_system(error) and not file.holders.get(offset):
                        fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)
                    raise
        except PermissionError as error:  # some systems' way of saying that it is locked
            raise BlockingIOError(errno.EAGAIN, error.strerror) from None

    def release(self) -> None:
        """Give it back; a second time, or in a forked child, do nothing."""
        file = self._file
        if file is None or self._pid != os.getpid():
            return
        import fcntl

        # A signal handler may raise anywhere here. Then `__del__` does it all again: so the byte is
        # unlocked before anything that says that we hold it is forgotten.
        try:
            with file.opening:  # else a thread that locks the byte at this moment would lose it
                holders = file.holders.get(self._offset, _NOBODY)
                # MUT: a-claim-that-is-shared-outlives-the-first
                if holders.keys() <= {id(self)} and self._offset in file.holders:
                    fcntl.lockf(file.file.fd, fcntl.LOCK_UN, 1, self._offset)
                    file.holders.pop(self._offset, None)
                holders.pop(id(self), None)
        except OSError as error:
            # MUT: a-handlers-time-out-loses-no-lock
            process.raise_of_handler(error)
            # It was lost already: cut off for longer than the server's lease.
            file.holders.get(self._offset, _NOBODY).pop(id(self), None)
        with _guard:
            file.users.discard(id(self))
        self._file = None
        if self._closes is not None:
            _close_unused(self._closes)

    def __del__(self) -> None:
        # A signal handler may have raised before the lock reached its owner.
        try:
            if self._file is not None:
                self.release()
        except AttributeError:
            pass  # it had not even begun


def acquire(mount: Mount, folder: str, digest: str, *, keep_open: bool = True) -> ByteLock | None:
    """Lock the byte of `digest` (hex); None if another process, of any host, has it.

    It may exclude two digests that begin alike: they wait for each other. Within this process it
    excludes nothing, unless it was taken by another path of the root: locks of one byte share it. A
    forked child has no part in it. Raise `OSError` if the mount can't lock.

    `keep_open`: keep the lock file open for the next lock. Without it, each takes two requests
    more, but the process can end while the client is cut off: with a file open there, the kernel
    waits for the server to close it (measured).
    """
    for attempt in (0, 1):
        # MUT: two-paths-to-one-root-share-its-byte-locks
        handle = mount.handle(folder, make=True)
        key, file = handle.identity or mount.identify(handle, folder), None
        lock = ByteLock(int(digest[:15], 16), mount.path, None if keep_open else key)
        try:
            file = lock.join(key)
            if not file.is_usable:
                _open_file(file, mount, handle, folder)
            lock.take()
        except BaseException as error:  # a signal handler's, too, or it is locked for ever
            is_refused = isinstance(error, BlockingIOError)
            if file is not None and not is_refused:
                _distrust(file, lock)
            lock.release()
            if is_refused:
                return None
            # MUT: a-time-limit-ends-a-wait-for-a-byte
            if attempt or not process.is_of_system(error):
                if isinstance(error, OSError) and error.filename is None:
                    mount.with_path(error, folder, layout.LOCK)
                raise
            mount.forget(folder)
        else:
            return lock
    raise AssertionError


def pauses() -> Iterator[float]:
    """Yield the seconds between two tries of `acquire`: from 4 ms on average, growing to 250 ms."""
    return units.backoff(0.005, 1 / 3)


def _distrust(file: _SharedLockFile, lock: ByteLock) -> None:
    """Have the next user open the file again: a lost lock or a removed file fails for ever."""
    with _guard:
        file.is_usable = file.is_usable and file.users != {id(lock)}


def _idle_files(root: str) -> list[tuple[int, int]]:
    """Return the root's files without users that are beyond the bound, the oldest first."""
    of_root = [key for key, file in _shared_files.items() if file.root == root]
    idle = [key for key in of_root if not _shared_files[key].users]
    return idle[: max(0, len(of_root) - _MAX_OPEN)]


def _close_unused(key: tuple[int, int]) -> None:
    """Close a lock file if it has no users."""
    file = _shared_files.get(key)
    if file is None:
        return
    acquired: list[bool] = []
    try:
        # In C, so that no signal handler comes between the acquisition and its record.
        acquired.extend(map(file.opening.acquire, (False,)))
        if acquired[0]:  # else another thread is using it
            _close_guarded(key, file)
    finally:
        if acquired == [True]:
            file.opening.release()


def _close_guarded(key: tuple[int, int], file: _SharedLockFile) -> None:
    with _guard:
        if file.users:
            return
        file.is_usable = False
    try:
        file.close()
    except OSError as error:
        process.raise_of_handler(error)  # after any other, it is closed all the same
    with _guard:
        if not file.users and _shared_files.get(key) is file:
            del _shared_files[key]


def _open_file(file: _SharedLockFile, mount: Mount, handle: FolderHandle, folder: str) -> None:
    # A second descriptor would, when it is closed, give back every byte locked by the first.
    with file.opening:
        if not file.is_usable:
            file.close()
            file.file = Descriptor()
            with process.Opening():
                mount.open_at(handle, file.file, folder, layout.LOCK, os.O_RDWR | os.O_CREAT)
            file.checked = time.time()
            file.is_usable = True
