"""The only module that locks: one exclusive lock on one file, across threads, processes and hosts.

It is `flock` (through filelock), which on NFS the server holds: it excludes other hosts and frees at once when the
process dies, or after the server's lease when its machine does. It does not fence: a holder that was cut off loses it
without notice. So nothing here rests on it for correctness; it spares duplicate work.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.mount.files import Mount

_FIRST, _LONGEST = 0.004, 0.25  # seconds between tries
_lock_descriptor: Callable[..., bool] | None = None


class Lock:
    """A lock that is held; `waited` tells whether somebody else had it first."""

    __slots__ = ("_fd", "_mount", "_pid", "folder", "name", "waited")

    def __init__(self, mount: Mount, folder: str, name: str, fd: int) -> None:
        self._mount, self._fd, self._pid = mount, fd, os.getpid()
        self.folder, self.name = folder, name
        self.waited = False

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; `remove`: its file too, before, so that no one who gets it next finds the name of ours.

        In a forked child it only closes the descriptor: the lock is the parent's.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if remove and os.getpid() == self._pid:
                self._mount.remove(self.folder, self.name, quiet=True)
        finally:
            os.close(fd)  # the last descriptor of an open file: its lock goes with it

    def is_current(self) -> bool:
        """Whether the name still is the file that is locked: a holder before us may have removed it (one or two requests)."""
        self._mount.refresh(self.folder)
        try:
            named = self._mount.stat(self.folder, self.name)
        except OSError:
            return False
        return os.path.samestat(named, os.fstat(self._fd))


def attempt(mount: Mount, folder: str, name: str, fd: int | None = None) -> Lock | int:
    """The lock, or the open descriptor to try again with (or to close) if somebody holds it."""
    global _lock_descriptor
    if _lock_descriptor is None:
        from filelock import lock_descriptor

        _lock_descriptor = lock_descriptor
    if fd is None:
        fd = mount.open(folder, name, os.O_RDWR | os.O_CREAT)
    try:
        taken = _lock_descriptor(fd, blocking=False)
    except BaseException:
        os.close(fd)
        raise
    return Lock(mount, folder, name, fd) if taken else fd


def acquire(mount: Mount, folder: str, name: str, *, until: float) -> Lock | None:
    """The lock on `name`, waiting until the monotonic time `until`; None if somebody still holds it then.

    It polls, with jitter: a blocking `flock` is polled by the kernel with a back-off of up to 30 s where the server
    can't call back, as EFS can't.
    """
    got, delay, waited = attempt(mount, folder, name), _FIRST, False
    while not isinstance(got, Lock):
        left = until - time.monotonic()
        if left <= 0:
            os.close(got)
            return None
        waited = True
        # Jitter from the random bytes of the kernel: `random` would be an import on the first lock.
        time.sleep(min(left, delay * (0.5 + os.urandom(1)[0] / 512)))
        delay = min(delay * 1.5, _LONGEST)
        got = attempt(mount, folder, name, got)
    got.waited = waited
    return got


def held(mount: Mount, folder: str, name: str) -> bool:
    """Whether somebody holds the lock now: for showing, never for deciding. Nothing is written (two to four requests)."""
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
