"""The only module that locks: a file, or one byte of a file that many share, across processes and hosts.

A file is locked by `flock` (through filelock), a byte by `lockf`. On NFS the server holds both: they exclude other hosts
and are free at once when the process dies, or after the server's lease when its machine does. They do not fence: a
holder that was cut off loses its lock without notice. So nothing here rests on one for correctness; it spares duplicate
work.
"""

from __future__ import annotations

import errno
import os
import threading
import time

from efsstate.format import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.mount.files import Mount

_FIRST, _LONGEST = 0.004, 0.25  # seconds between tries
_lock_descriptor: Callable[..., bool] | None = None


class Lock:
    """A lock that is held; `waited` tells whether somebody else had it first, `shared` whether others may share it."""

    __slots__ = ("_fd", "_mount", "_pid", "folder", "name", "shared", "waited")

    def __init__(
        self, mount: Mount, folder: str, name: str, fd: int, *, shared: bool = False
    ) -> None:
        self._mount, self._fd, self._pid = mount, fd, os.getpid()
        self.folder, self.name = folder, name
        self.shared, self.waited = shared, False

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; `remove`: its file too, before, so that no one who gets it next finds the name of ours.

        In a forked child it only closes the descriptor: the lock is the parent's. A shared one is only closed anywhere: it
        counts until every process that inherited it has let go.
        """
        fd, self._fd = self._fd, -1
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

                    # MUT: unlock-though-a-child-lives-on
                    fcntl.flock(
                        fd, fcntl.LOCK_UN
                    )  # a forked child may have the descriptor still, and would keep it
            finally:
                os.close(fd)
        except OSError as error:
            error.filename = self._mount.path_of(self.folder, self.name)
            raise

    def is_current(self) -> bool:
        """Whether the name still is the file that is locked: a holder before us may have removed it (one or two requests).

        Where that can't be told it raises `OSError`, and the lock is given back.
        """
        try:
            self._mount.refresh(self.folder)
            own = os.fstat(self._fd)
        except OSError as error:
            error.filename = self._mount.path_of(self.folder, self.name)
            self.release()
            raise
        try:
            named = self._mount.stat(self.folder, self.name)
        except OSError:
            return False
        # MUT: the-identity-of-a-locks-file
        return os.path.samestat(named, own)


def attempt(
    mount: Mount, folder: str, name: str, fd: int | None = None, *, shared: bool = False
) -> Lock | int:
    """The lock, or the open descriptor to try again with (or to close) if somebody holds it (`shared`: alone)."""
    if fd is None:
        fd = mount.open(folder, name, os.O_RDWR | os.O_CREAT)
    try:
        taken = _share(fd) if shared else _lock(fd)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError):
            error.filename = mount.path_of(folder, name)
        raise
    return Lock(mount, folder, name, fd, shared=shared) if taken else fd


def _lock(fd: int) -> bool:
    global _lock_descriptor
    if _lock_descriptor is None:
        from filelock import lock_descriptor

        _lock_descriptor = lock_descriptor
    return _lock_descriptor(fd, blocking=False)


def _share(fd: int) -> bool:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def acquire(
    mount: Mount, folder: str, name: str, *, until: float, shared: bool = False
) -> Lock | None:
    """The lock on `name`, waiting until the monotonic time `until`; None if somebody still holds it then.

    It polls, with jitter: a blocking `flock` is polled by the kernel with a back-off of up to 30 s where the server
    can't call back, as EFS can't.
    """
    got, delay, waited = attempt(mount, folder, name, shared=shared), _FIRST, False
    while not isinstance(got, Lock):
        left = until - time.monotonic()
        if left <= 0 and waited:
            os.close(got)
            return None
        left = max(
            left, _FIRST
        )  # a second try, even without a wait: an onlooker (`held`) has it for a moment
        waited = True
        # Jitter from the random bytes of the kernel: `random` would be an import on the first lock.
        time.sleep(min(left, delay * (0.5 + os.urandom(1)[0] / 512)))
        delay = min(delay * 1.5, _LONGEST)
        got = attempt(mount, folder, name, got, shared=shared)
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


# One byte of a file that all share


class _Bytes:
    """The lock file of one folder, open: closing it would give back every byte that this process holds of it.

    So it is closed while nobody holds a byte, under `opening`, and opened anew after. A close is a request, and hangs
    where the client is cut off: `_files_lock` is never held meanwhile, and a claim never closes another root's file.
    """

    __slots__ = ("bytes", "checked", "fd", "fit", "held", "opening")

    def __init__(self) -> None:
        self.fd = -1
        self.fit = False  # whether `fd` may be used; it becomes unfit only while nobody holds it
        self.held = 0
        self.bytes: dict[int, int] = {}  # how many claims of this process share each byte
        self.checked = 0.0
        self.opening = threading.RLock()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


_MOST_OPEN = 64  # lock files of a root
_CHECK = 20.0  # seconds after which an open lock file is asked whether it still has its name
_files: dict[tuple[str, str], _Bytes] = {}
_files_lock = threading.RLock()


def _after_fork() -> None:
    """In a child: locks of bytes stay with the parent, and so do its threads; the descriptors are shared, and let go."""
    global _files_lock
    _files_lock = threading.RLock()
    for file in _files.values():
        file.close()
    _files.clear()


os.register_at_fork(after_in_child=_after_fork)


class Claim:
    """One byte of a folder's lock file, held."""

    __slots__ = ("_closed", "_file", "_offset", "_pid")

    def __init__(self, file: _Bytes, offset: int, closed: tuple[str, str] | None) -> None:
        self._file: _Bytes | None = file
        self._offset, self._pid = offset, os.getpid()
        self._closed = (
            closed  # the lock file that is closed after, if nobody holds another byte of it
        )

    def release(self) -> None:
        """Give it back; more than once, or in a forked child, does nothing."""
        file, self._file = self._file, None
        if file is None or self._pid != os.getpid():
            return
        import fcntl

        try:
            with file.opening:  # else one that claims the byte at this moment would lose it
                file.bytes[self._offset] -= 1
                # MUT: a-claim-that-is-shared-outlives-the-first
                if not file.bytes[self._offset]:
                    del file.bytes[self._offset]
                    fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, self._offset)
        except OSError:
            pass  # it was lost already: cut off for longer than the server's lease
        finally:
            with _files_lock:
                file.held -= 1
            if self._closed is not None:
                _let_go(self._closed)

    def __del__(self) -> None:
        self.release()  # what a signal's handler raised may have come before anybody had it


def claim(mount: Mount, folder: str, digest: str, *, keep_open: bool = True) -> Claim | None:
    """Claim `digest` (hex) among the processes of all hosts; None if one of them has it. Raises `OSError`.

    It is a byte of the folder's lock file, at a place that the digest gives. On NFS that is 3 requests, taking and giving
    back, where a lock file each is 6 or more, changes the folder for every other client, and has to be removed in a way
    that nobody gets the lock of a file that is going. A forked child does not share it. Within one process it excludes
    nobody, who claims it there shares it: the caller sees to that. It may exclude two digests that begin alike: they wait for each other.

    `keep_open`: the lock file stays open for the next claim. Without, it takes 2 requests more, and a process can end
    while the client is cut off: with a file open there, the kernel waits for the server to close it (measured).
    """
    offset, closed = int(digest[:15], 16), None if keep_open else (mount.path, folder)
    for attempt in (0, 1):
        file = _take(mount.path, folder)
        try:
            _open(file, mount, folder)
            _lock_byte(file, offset)
        except (
            BaseException
        ) as error:  # one that a signal's handler raised, too, or it is held for ever
            refused = isinstance(error, BlockingIOError)
            with _files_lock:
                file.held -= 1
                # A descriptor whose lock was lost, or whose file is gone, may answer so for ever: open it anew, once.
                file.fit = file.fit and (refused or file.held > 0)
            if closed is not None:
                _let_go(closed)
            if refused:
                return None
            if attempt or not isinstance(error, OSError):
                raise
        else:
            return Claim(file, offset, closed)
    raise AssertionError


def _lock_byte(file: _Bytes, offset: int) -> None:
    import fcntl

    try:
        with file.opening:
            try:
                fcntl.lockf(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
            except OSError:
                raise
            except BaseException:  # a signal's handler raised right after it was taken
                if offset not in file.bytes:
                    fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, offset)
                raise
            # The kernel has one lock for all of a process: the first to give it back would free the others' too.
            file.bytes[offset] = file.bytes.get(offset, 0) + 1
    except PermissionError as error:  # what some systems say for "somebody has it"
        raise BlockingIOError(errno.EAGAIN, error.strerror) from None


def _take(root: str, folder: str) -> _Bytes:
    """The folder's lock file, counted as held once more."""
    key = root, folder
    with _files_lock:
        file = _files.get(key)
        if file is None:
            file = _files[key] = _Bytes()
        elif not file.held and not 0 <= time.time() - file.checked < _CHECK:
            file.fit = False  # the folder may have been removed and made anew
        file.held += 1
        idle = []
        if len(_files) > _MOST_OPEN:
            ours = [other for other in _files if other[0] == root]
            idle = [other for other in ours if not _files[other].held][
                : max(0, len(ours) - _MOST_OPEN)
            ]
    for other in idle:
        _let_go(other)
    return file


def _let_go(key: tuple[str, str]) -> None:
    """Close a lock file that nobody holds."""
    file = _files.get(key)
    if file is None or not file.opening.acquire(blocking=False):  # somebody is at it
        return
    try:
        with _files_lock:
            if file.held:
                return
            file.fit = False
        try:
            file.close()
        except OSError:
            pass  # it is closed all the same
        with _files_lock:
            if not file.held and _files.get(key) is file:
                del _files[key]
    finally:
        file.opening.release()


def _open(file: _Bytes, mount: Mount, folder: str) -> None:
    if not file.fit:
        with (
            file.opening
        ):  # a second descriptor would, when closed, give back what is held by the first
            if not file.fit:
                file.close()
                file.fd = mount.open(folder, layout.LOCK, os.O_RDWR | os.O_CREAT)
                file.checked = time.time()
                file.fit = True
