"""Lock a file by `flock`, across processes and hosts.

On NFS the server holds the lock: it excludes other hosts, and is free at once when its process
dies, or after the server's lease when its machine does. It does not fence: a holder that was cut
off loses its lock without notice. So correctness never rests on one; it spares duplicate work.
"""

from __future__ import annotations

import os
import sys
import time
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import

from efsstate import process, units
from efsstate.mount.folders import GONE, Descriptor, name_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.mount.files import Mount

_FIRST_PAUSE = 0.004  # seconds between tries, growing
_CHECK = 2.0  # seconds after which a waiter checks that its file still has its name


class Lock:
    """The lock file `name`, open, and locked once `take` has returned True.

    `waited` is True if another process held it first, `shared` if others may hold it too.
    """

    __slots__ = ("__weakref__", "_file", "_mount", "folder", "name", "shared", "waited")

    def __init__(self, mount: Mount, folder: str, name: str, *, shared: bool = False) -> None:
        self._mount, self._file = mount, Descriptor()
        self.folder, self.name = folder, name
        self.shared, self.waited = shared, False
        _locks.add(self)

    def take(self) -> bool:
        """Lock the file if no other process holds it; return True if it is locked."""
        if not self._file.is_open:
            with process.Opening():
                self._mount.open_into(self._file, self.folder, self.name, os.O_RDWR | os.O_CREAT)
        try:
            with self._file as fd:
                return _flock(fd, shared=True) if self.shared else _lock_alone(fd)
        except OSError as error:
            raise name_error(error, self._mount.path_of(self.folder, self.name)) from None

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; with `remove`, remove its file first.

        First, so that the next holder does not find the name of a file that is going. In a forked
        child nothing is open any more: the lock is the parent's. A shared lock is only closed: it
        counts until every process that inherited it has closed it.
        """
        if not self._file.is_open:
            return
        try:
            if not self.shared:
                # MUT: a-locks-file-goes-before-the-lock
                if remove:
                    self._mount.remove(self.folder, self.name, quiet=True)
                import fcntl

                # Unlock, because a child that another program forked may have the descriptor.
                with self._file as fd:
                    # MUT: unlock-though-a-child-lives-on
                    fcntl.flock(fd, fcntl.LOCK_UN)
        except OSError as error:
            raise name_error(error, self._mount.path_of(self.folder, self.name)) from None
        finally:
            self.close()

    def close(self) -> None:
        """Close the file, which gives the lock back unless another process has it open."""
        try:
            self._file.close()
        except OSError as error:
            raise name_error(error, self._mount.path_of(self.folder, self.name)) from None

    def leave_to_parent(self) -> None:
        """Close the file in a forked child: else the child would hold a dead parent's lock."""
        # MUT: a-forks-child-does-not-keep-the-lock
        if not self.shared:
            self._file.abandon()

    def reopen(self) -> None:
        """Give the lock back, and have `take` open the file that has the name now."""
        self.release()
        self._file = Descriptor()

    def is_current(self) -> bool:
        """Return True if the name still is the locked file; an earlier holder may have removed it.

        One or two requests. If the server does not answer that, raise `OSError`, after giving the
        lock back.
        """
        try:
            self._mount.refresh(self.folder)
            with self._file as fd:
                own = os.fstat(fd)
            named = self._mount.stat(self.folder, self.name)
        except OSError as error:
            # MUT: a-failed-look-at-a-lock-is-no-loss
            if error.errno in GONE:
                return False
            self.release()
            raise name_error(error, self._mount.path_of(self.folder, self.name)) from None
        # MUT: the-identity-of-a-locks-file
        return os.path.samestat(named, own)


_locks: WeakSet[Lock] = WeakSet()


@process.after_fork
def _leave_the_parents() -> None:
    """In a forked child, close the parent's lock files."""
    for lock in list(_locks):
        lock.leave_to_parent()


def _lock_alone(fd: int) -> bool:
    if sys.platform == "linux":
        return _flock(fd, shared=False)
    # Other systems have other locks. On Linux filelock would call `flock` as we do, after an import
    # of 62 modules, which a first claim would feel: 25 ms on the runtime client.
    from filelock import lock_descriptor

    return lock_descriptor(fd, blocking=False)


def _flock(fd: int, *, shared: bool) -> bool:
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # some file systems' way of saying that it is locked
        return False
    return True


def attempt(mount: Mount, folder: str, name: str, *, shared: bool = False) -> Lock | None:
    """Return the lock on `name`, or None if another process holds it.

    `shared`: only an exclusive holder excludes us.
    """
    lock = Lock(mount, folder, name, shared=shared)
    try:
        if lock.take():
            return lock
    except BaseException:
        lock.release()
        raise
    lock.close()
    return None


def acquire(
    mount: Mount, folder: str, name: str, *, until: float, shared: bool = False
) -> Lock | None:
    """Wait for the lock on `name` until the monotonic time `until`; None if it is still held then.

    It polls, with jitter: the kernel itself polls a blocking `flock`, with a back-off of up to 30 s
    if the server can't call back, as EFS can't.
    """
    lock, check = Lock(mount, folder, name, shared=shared), 0.0
    pauses = units.backoff(_FIRST_PAUSE)
    try:
        while True:
            is_taken = lock.take()
            # A lock file that was removed while we waited has no say any more: its name may be
            # another file's, with a holder of its own.
            # MUT: a-waiter-does-not-take-a-removed-lock
            if lock.waited and (is_taken or time.monotonic() > check):
                if not lock.is_current():
                    lock.reopen()
                    continue
                check = time.monotonic() + _CHECK
            if is_taken:
                return lock
            remaining = until - time.monotonic()
            if remaining <= 0 and lock.waited:
                break
            # A second try, even without a wait: `is_held` has it for a moment.
            remaining = max(remaining, _FIRST_PAUSE)
            if not lock.waited:
                lock.waited, check = True, time.monotonic() + _CHECK
            time.sleep(min(remaining, next(pauses)))
    except BaseException:
        lock.release()
        raise
    lock.close()
    return None


def is_held(mount: Mount, folder: str, name: str) -> bool:
    """Return True if a process holds the lock now: for showing, never for deciding.

    Nothing is written. Two to four requests.
    """
    import fcntl

    file = Descriptor()
    try:
        mount.open_into(file, folder, name)
    except FileNotFoundError:
        return False
    try:
        with file as fd:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a holder's is exclusive
    except BlockingIOError:
        return True
    except OSError as error:
        raise name_error(error, mount.path_of(folder, name)) from None
    finally:
        file.close()
    return False
