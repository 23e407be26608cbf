"""Lock a file by `flock` (through filelock), across processes and hosts.

On NFS the server holds the lock: it excludes other hosts, and is free at once when its process
dies, or after the server's lease when its machine does. It does not fence: a holder that was cut
off loses its lock without notice. So correctness never rests on one; it spares duplicate work.
"""

from __future__ import annotations

import os
import time

from efsstate import units
from efsstate.mount.descriptor import Descriptor
from efsstate.mount.folders import name_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.mount.files import Mount

_FIRST_PAUSE = 0.004  # seconds between tries, growing
_lock_descriptor: Callable[..., bool] | None = None


class Lock:
    """The lock on one file, from `take` to `release`, or until its last reference goes.

    `waited` is True if another process held it first, `shared` if others may hold it too.
    """

    __slots__ = ("_file", "_mount", "_pid", "folder", "name", "shared", "waited")

    def __init__(self, mount: Mount, folder: str, name: str, *, shared: bool = False) -> None:
        self._mount, self._file, self._pid = mount, Descriptor(), os.getpid()
        self.folder, self.name = folder, name
        self.shared, self.waited = shared, False

    def take(self) -> bool:
        """Try to take it, and return True if that succeeded. The file stays open for another try.

        A shared lock excludes exclusive holders alone.
        """
        try:
            fd = self._file.fileno()
            if fd < 0:
                flags = os.O_RDWR | os.O_CREAT
                fd = self._mount.open(self.folder, self.name, flags, owner=self._file)
            return _lock_shared(fd) if self.shared else _lock_alone(fd)
        except OSError as error:
            self._file.close()
            raise name_error(error, self._mount.path_of(self.folder, self.name)) from None

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; with `remove`, remove its file first.

        First, so that the next holder does not find the name of a file that is going. In a forked
        child only close the descriptor: the lock is the parent's. A shared lock is only closed
        anywhere: it counts until every process that inherited it has closed it.
        """
        fd = self._file.fileno()
        if fd < 0:
            return
        try:
            try:
                # MUT: a-forks-child-gives-nothing-back
                if os.getpid() == self._pid and not self.shared:
                    # MUT: a-locks-file-goes-before-the-lock
                    if remove:
                        self._mount.remove(self.folder, self.name, quiet=True)
                    import fcntl

                    # Unlock, because a forked child may still have the descriptor.
                    # MUT: unlock-though-a-child-lives-on
                    fcntl.flock(fd, fcntl.LOCK_UN)
            finally:
                self._file.close()
        except OSError as error:
            raise name_error(error, self._mount.path_of(self.folder, self.name)) from None

    def is_current(self) -> bool:
        """Return True if the name still is the locked file; an earlier holder may have removed it.

        One or two requests. If the server does not answer that, raise `OSError`, after giving the
        lock back.
        """
        try:
            self._mount.refresh(self.folder)
            own = os.fstat(self._file.fileno())
        except OSError as error:
            self.release()
            raise name_error(error, self._mount.path_of(self.folder, self.name)) from None
        try:
            named = self._mount.stat(self.folder, self.name)
        except OSError:
            return False
        # MUT: the-identity-of-a-locks-file
        return os.path.samestat(named, own)


def attempt(mount: Mount, folder: str, name: str, *, shared: bool = False) -> Lock | None:
    """Return the lock if no other process holds it, else None."""
    lock = Lock(mount, folder, name, shared=shared)
    return lock if lock.take() else None


def _lock_alone(fd: int) -> bool:
    global _lock_descriptor
    if _lock_descriptor is None:
        from filelock import lock_descriptor

        _lock_descriptor = lock_descriptor
    return _lock_descriptor(fd, blocking=False)


def _lock_shared(fd: int) -> bool:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def acquire(
    mount: Mount, folder: str, name: str, *, until: float, shared: bool = False
) -> Lock | None:
    """Wait for the lock on `name` until the monotonic time `until`; None if it is still held then.

    It polls, with jitter: the kernel itself polls a blocking `flock`, with a back-off of up to 30 s
    if the server can't call back, as EFS can't.
    """
    lock, pauses = Lock(mount, folder, name, shared=shared), units.backoff(_FIRST_PAUSE)
    while not lock.take():
        remaining = until - time.monotonic()
        if remaining <= 0 and lock.waited:
            return None
        # A second try, even without a wait: `is_held` has it for a moment.
        remaining = max(remaining, _FIRST_PAUSE)
        lock.waited = True
        time.sleep(min(remaining, next(pauses)))
    return lock


def is_held(mount: Mount, folder: str, name: str) -> bool:
    """Return True if a process holds the lock now: for showing, never for deciding.

    Nothing is written. Two to four requests.
    """
    import fcntl

    try:
        fd = mount.open(folder, name)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a holder's is exclusive
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
