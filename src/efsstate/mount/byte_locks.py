"""Lock one byte of a file that many processes share, across hosts: a `lockf` lock for each digest.

On NFS that is three requests, to take it and give it back, where a lock file for each digest is six
or more, changes the folder for every other client, and has to be removed without leaving another
process with the lock of a removed file. As with `lock`, correctness never rests on it.
"""

from __future__ import annotations

import errno
import os
import time

from efsstate import process
from efsstate.format import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.mount.files import Mount

_MAX_OPEN = 64  # lock files of a root
_CHECK = 20.0  # seconds after which an open lock file is checked to still have its name


class _SharedLockFile:
    """An open lock file, shared by this process's byte locks.

    POSIX drops all of a process's locks on a file when any descriptor of it is closed, so it is
    closed only while no byte is locked. `opening` guards that. A close is a request, and hangs
    while the client is cut off: `_guard` is never held meanwhile, and no lock closes another root's
    file.
    """

    __slots__ = ("checked", "counts", "fd", "is_usable", "opening", "users")

    def __init__(self) -> None:
        self.fd = -1
        self.is_usable = False  # becomes False only while there are no users
        self.users = 0
        self.counts: dict[int, int] = {}  # byte -> how many locks of this process share it
        self.checked = 0.0
        self.opening = process.lock()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


_shared_files: dict[tuple[str, str], _SharedLockFile] = {}
_guard = process.lock()


@process.after_fork
def _close_the_parents() -> None:
    """In a forked child, close the parent's lock files: byte locks stay with the parent."""
    for file in _shared_files.values():
        file.close()
    _shared_files.clear()


@process.at_reset
def _close_idle() -> None:
    """Close the lock files that have no users."""
    for key in list(_shared_files):
        _close_unused(key)


class ByteLock:
    """A locked byte of a folder's lock file."""

    __slots__ = ("_closes", "_file", "_offset", "_pid")

    def __init__(
        self, file: _SharedLockFile, offset: int, closes: tuple[str, str] | None = None
    ) -> None:
        self._file: _SharedLockFile | None = file
        self._offset, self._pid = offset, os.getpid()
        self._closes = closes  # the lock file to close afterwards, if it has no other users

    def release(self) -> None:
        """Give it back; a second time, or in a forked child, do nothing."""
        file, self._file = self._file, None
        if file is None or self._pid != os.getpid():
            return
        import fcntl

        try:
            with file.opening:  # else a thread that locks the byte at this moment would lose it
                file.counts[self._offset] -= 1
                # MUT: a-claim-that-is-shared-outlives-the-first
                if not file.counts[self._offset]:
                    del file.counts[self._offset]
                    fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, self._offset)
        except OSError:
            pass  # it was lost already: cut off for longer than the server's lease
        finally:
            with _guard:
                file.users -= 1
            if self._closes is not None:
                _close_unused(self._closes)

    def __del__(self) -> None:
        self.release()  # a signal handler may have raised before the lock reached its owner


def acquire(mount: Mount, folder: str, digest: str, *, keep_open: bool = True) -> ByteLock | None:
    """Lock the byte of `digest` (hex); None if another process, of any host, has it.

    It may exclude two digests that begin alike: they wait for each other. Within this process it
    excludes nothing: locks of one byte share it. A forked child has no part in it. Raise `OSError`
    if the mount can't lock.

    `keep_open`: keep the lock file open for the next lock. Without it, each takes two requests
    more, but the process can end while the client is cut off: with a file open there, the kernel
    waits for the server to close it (measured).
    """
    offset, key = int(digest[:15], 16), (mount.path, folder)
    closes = None if keep_open else key
    for attempt in (0, 1):
        file = _take_file(key)
        try:
            _open_file(file, mount, folder)
            _lock_byte(file, offset)
        except BaseException as error:  # a signal handler's, too, or it is locked for ever
            is_refused = isinstance(error, BlockingIOError)
            with _guard:
                file.users -= 1
                # A descriptor whose lock was lost, or whose file is gone, may answer so for ever:
                # open it again, once.
                file.is_usable = file.is_usable and (is_refused or file.users > 0)
            if closes is not None:
                _close_unused(closes)
            if is_refused:
                return None
            if attempt or not isinstance(error, OSError):
                raise
        else:
            return ByteLock(file, offset, closes)
    raise AssertionError


def _lock_byte(file: _SharedLockFile, offset: int) -> None:
    import fcntl

    try:
        with file.opening:
            try:
                fcntl.lockf(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
            except OSError:
                raise
            except BaseException:  # a signal handler raised right after it was taken
                if offset not in file.counts:
                    fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, offset)
                raise
            # The kernel has one lock for the whole process: the first release would free them all.
            file.counts[offset] = file.counts.get(offset, 0) + 1
    except PermissionError as error:  # some systems' way of saying that it is locked
        raise BlockingIOError(errno.EAGAIN, error.strerror) from None


def _take_file(key: tuple[str, str]) -> _SharedLockFile:
    """Return the folder's lock file, with one user more."""
    with _guard:
        file = _shared_files.get(key)
        if file is None:
            file = _shared_files[key] = _SharedLockFile()
        elif not file.users and not 0 <= time.time() - file.checked < _CHECK:
            file.is_usable = False  # the folder may have been removed and created again
        file.users += 1
        idle = _idle_files(key[0]) if len(_shared_files) > _MAX_OPEN else []
    for other in idle:
        _close_unused(other)
    return file


def _idle_files(root: str) -> list[tuple[str, str]]:
    """Return the root's files without users that are beyond the bound, the oldest first."""
    of_root = [key for key in _shared_files if key[0] == root]
    idle = [key for key in of_root if not _shared_files[key].users]
    return idle[: max(0, len(of_root) - _MAX_OPEN)]


def _close_unused(key: tuple[str, str]) -> None:
    """Close a lock file if it has no users."""
    file = _shared_files.get(key)
    if file is None or not file.opening.acquire(blocking=False):  # another thread is using it
        return
    try:
        with _guard:
            if file.users:
                return
            file.is_usable = False
        try:
            file.close()
        except OSError:
            pass  # it is closed all the same
        with _guard:
            if not file.users and _shared_files.get(key) is file:
                del _shared_files[key]
    finally:
        file.opening.release()


def _open_file(file: _SharedLockFile, mount: Mount, folder: str) -> None:
    if file.is_usable:
        return
    # A second descriptor would, when it is closed, give back every byte locked by the first.
    with file.opening:
        if not file.is_usable:
            file.close()
            file.fd = mount.open(folder, layout.LOCK, os.O_RDWR | os.O_CREAT)
            file.checked = time.time()
            file.is_usable = True
