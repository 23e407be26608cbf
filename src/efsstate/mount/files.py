"""Files below one root: read whole, replaced in one step, created, renamed and removed.

- A name gets its content in one step (`replace`: a temporary, then a rename), or is created once
  and never changed (`create`, `symlink`). No reader meets half a file under a name that `replace`
  makes; a reader of a file that `create` makes must check it.
- A name that is a symbolic link, a FIFO or a socket is refused, never followed or waited for.

Only this module, `folders`, `drafts`, `readdir` and `descriptor` change the disk or open files on
the mount.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from operator import methodcaller

from efsstate.errors import CorruptEntryError
from efsstate.format import layout
from efsstate.mount import clock
from efsstate.mount.descriptor import Descriptor
from efsstate.mount.folders import GONE, Folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from efsstate.mount.folders import FolderHandle

    Buffer = bytes | bytearray | memoryview
    Parts = Sequence[Buffer]
    Data = Any  # bytes or a bytearray; a pair of bytes if a judge said where to part them
    Judge = Callable[[bytes, int, str], int]

# MUT: a-fifo-is-not-waited-for-o-nonblock
# MUT: no-link-is-followed-to-a-file
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_SMALL = 2**17  # bytes; a smaller file is read in one call, without asking for its size
_LARGE = 2**20  # bytes; from here on a read goes into a buffer of our own
_HUGE = 2**24  # bytes; from here on a reader's judge is asked first
_MAX_READ = 0x7FFFF000  # bytes that one read gives
_MAX_BUFFERS = 1024  # IOV_MAX: of one writev
_as_bytes = methodcaller("cast", "B")
_TRIES = 30  # of a look that another host's replacement made stale


class Mount(Folders):
    """A root folder with its files: `Folders` resolves the folders, this reads and writes in them.

    `key` keys the checksum of all that is written and read here. A file is given by its folder
    below the root and its name in it, as `layout` builds them.
    """

    # Reading

    def open_into(self, file: Descriptor, folder: str, name: str, flags: int = 0) -> None:
        """Have `file` open the regular file `name`; with `O_CREAT`, create it and the folder."""
        creates = flags & os.O_CREAT
        for attempt in range(_TRIES):
            try:
                handle = self.handle(folder, make=True) if creates else self._pass_through(folder)
                self.open_at(handle, file, folder, name, flags)
            except OSError as error:
                if creates and error.errno == errno.ENOENT and not attempt:
                    self.forget(folder)  # it was removed while it was open here
                else:
                    self._prepare_retry(error, folder, name, attempt)
            else:
                return
        raise AssertionError

    def open_at(
        self, handle: FolderHandle, file: Descriptor, folder: str, name: str, flags: int
    ) -> None:
        """Have `file` open the regular file `name` in the open folder `handle`."""
        file.open(name, flags | _READ, mode=self.file_mode, dir_fd=handle.fd)
        try:
            with file as fd:
                status = os.fstat(fd)
                self._require_regular(status, folder, name)
                if flags & os.O_CREAT:
                    self._set_mode(fd, status)
        except BaseException:
            file.abandon()
            raise

    def _require_regular(self, status: os.stat_result, folder: str, name: str) -> None:
        # MUT: only-regular-files-are-read-s-isreg
        if not stat.S_ISREG(status.st_mode):
            raise CorruptEntryError(self.path_of(folder, name), "not a regular file; remove it")

    def _prepare_retry(self, error: OSError, folder: str, name: str, attempt: int) -> None:
        """Refresh for another try if another host replaced or removed the file; else raise."""
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise CorruptEntryError(
                self.path_of(folder, name),
                "a symbolic link or a socket stands where a file belongs; remove it",
            ) from None
        if error.errno in (errno.EISDIR, errno.EAGAIN):  # EAGAIN: a pipe that a process holds open
            raise CorruptEntryError(
                self.path_of(folder, name), "not a regular file; remove it"
            ) from None
        # MUT: another-look-at-estale
        if error.errno != errno.ESTALE or attempt + 1 >= _TRIES:
            try:
                raise self.with_path(error, folder, name)
            finally:
                # Else it would be in a cycle with this frame, and so would the callers' frames.
                del error
        self.refresh(folder)

    def open(
        self,
        folder: str,
        name: str,
        flags: int = os.O_RDONLY,
    ) -> int:
        """Return a descriptor of the regular file `name`, which the caller closes.

        With `O_CREAT`, the folder is created if need be.
        """
        file = Descriptor()
        self.open_into(file, folder, name, flags)
        return file.detach()

    def read(
        self, folder: str, name: str, judge: Judge | None = None, stale: float | None = None
    ) -> Data:
        """Return all bytes of the file `name`; with `stale`, `refresh` the folder if older.

        A large file comes as a bytearray that is the caller's to change: an array can live in it
        without a copy. Before a huge one is read, `judge(first bytes, size, path)` may raise, or
        return where to part them (0: nowhere): the rest is then a `bytes` that needs no copy.
        """
        handle = self._folders.get(folder)
        if stale is not None and (
            handle is None or not 0 <= time.time() - handle.refreshed < stale
        ):
            self.refresh(folder, older_than=stale)
        for attempt in range(_TRIES):
            try:
                handle = self._folders.get(folder) or self.handle(folder)
                fd = os.open(name, _READ, dir_fd=handle.fd)
                try:
                    start = os.read(fd, _SMALL) if handle.reads_small else b""
                    if 0 < len(start) < _SMALL:
                        return start
                    # Large; or empty, as a name that is no regular file may seem to be.
                    status = os.fstat(fd)
                    self._require_regular(status, folder, name)
                    data = self._read_rest(fd, status.st_size, start, folder, name, judge)
                    handle.reads_small = type(data) is bytes and len(data) < _SMALL
                finally:
                    os.close(fd)
            except OSError as error:
                self._prepare_retry(error, folder, name, attempt)
            else:
                return data
        raise AssertionError

    def _read_rest(
        self, fd: int, size: int, data: bytes, folder: str, name: str, judge: Judge | None
    ) -> Data:
        """Return the first `size` bytes of an open file, of which `data` was read before."""
        # MUT: what-is-huge-is-judged-before-it-is-read
        if size >= _HUGE and judge is not None:
            head = data or os.pread(fd, _SMALL, 0)
            start = judge(head, size, self.path_of(folder, name))
            if start and size - start <= _MAX_READ:
                rest = os.pread(fd, size - start, start)
                if len(rest) == size - start:
                    return head[:start], rest
                del rest  # cut short, as a call may be that a signal interrupts
        if not data and size < _LARGE:
            data = os.read(fd, size)
        # Large, or cut short, as a call may be that a signal interrupts.
        return data if len(data) >= size else _fill_buffer(fd, size, data)

    def read_stat(
        self, folder: str, name: str, limit: int | None = None, judge: Judge | None = None
    ) -> tuple[Data, os.stat_result]:
        """Return all bytes, or the first `limit`, and the file's stat from before the read."""
        for attempt in range(_TRIES):
            try:
                handle = self._folders.get(folder) or self.handle(folder)
                fd = os.open(name, _READ, dir_fd=handle.fd)
                try:
                    status = os.fstat(fd)
                    self._require_regular(status, folder, name)
                    size = status.st_size if limit is None else min(limit, status.st_size)
                    data = self._read_rest(fd, size, b"", folder, name, judge)
                finally:
                    os.close(fd)
            except OSError as error:
                self._prepare_retry(error, folder, name, attempt)
            else:
                return data, status
        raise AssertionError

    def find(self, folder: str, name: str) -> os.stat_result | None:
        """Return the stat of `name` itself, links not followed; None if it does not exist."""
        try:
            handle = self.handle(folder)
            return os.stat(name, dir_fd=handle.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def stat(self, folder: str, name: str) -> os.stat_result:
        """Return the stat of `name` itself: a symbolic link is not followed."""
        return self.call_at(os.stat, folder, name, follow_symlinks=False)

    def readlink(self, folder: str, name: str) -> str:
        """Return the text that the symbolic link `name` holds: never a path to follow."""
        text: str = self.call_at(os.readlink, folder, name)
        return text

    # Writing

    def _set_mode(self, fd: int, status: os.stat_result) -> None:
        try:
            self.give_to_owner(fd, status)
        except OSError:
            pass
        # MUT: modes-whatever-the-umask
        if stat.S_IMODE(status.st_mode) & 0o777 != self.file_mode and (
            status.st_uid == os.geteuid()
        ):
            try:
                # The umask took bits away that the owner of the root grants.
                os.fchmod(fd, self.file_mode)
            except OSError:
                pass

    def create_open(
        self, file: Descriptor, folder: str, name: str, flags: int = 0
    ) -> os.stat_result:
        """Have `file` create `name`, empty, for writing; return its stat, with the server's time.

        The folder is created if need be.
        """
        if self._top is None:
            self.make("")  # which has the mode to follow
        wall, steady = time.time(), time.monotonic()
        flags |= _WRITE
        fd = self.call_at(file.open, folder, name, make=True, flags=flags, mode=self.file_mode)
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise self.with_path(error, folder, name) from None
        clock.observe(status.st_mtime, wall, steady)
        # Compared with the root's mode now: the call may have opened another root.
        if status.st_mode & 0o777 != self.file_mode or self.owner is not None:
            self._set_mode(fd, status)
        return status

    def _write(
        self, folder: str, name: str, build: Callable[[float], Parts], *, flags: int, durable: bool
    ) -> os.stat_result:
        """Create `name` and fill it; after an error, remove it again if it is a temporary."""
        file = Descriptor()
        try:
            try:
                status = self.create_open(file, folder, name, flags)
                parts = build(clock.creation_time(status.st_mtime))
                write_all(file.fd, parts)
                # MUT: a-file-is-synced-before-it-is-named
                if durable:
                    os.fsync(file.fd)
                return status
            finally:
                file.close()  # an NFS client may report a full disk only here
        except BaseException as error:
            if isinstance(error, OSError) and error.filename is None:
                self.with_path(error, folder, name)
            # MUT: a-failed-write-takes-its-temporary-away
            if layout.is_temporary(name):
                self.remove(folder, name, quiet=True)
            raise

    def replace(
        self, folder: str, name: str, build: Callable[[float], Parts], *, durable: bool = False
    ) -> None:
        """Give `name` a new content in one step: every reader gets the old or the new, whole.

        `build` gets the server's time (seconds since the epoch) and returns the buffers to write,
        in order. `durable`: it survives a power loss once this returns (on NFS it does anyway, at
        no cost; a local disk needs two fsyncs).
        """
        temporary = layout.TEMPORARY + os.urandom(12).hex()
        try:
            # MUT: a-temporary-and-a-rename-not-in-place
            status = self._write(folder, temporary, build, flags=0, durable=durable)
            self.rename(folder, temporary, folder, name, inode=status.st_ino, durable=durable)
        except BaseException as error:
            if not isinstance(error, OSError):  # a signal handler's, between the two
                # MUT: an-interrupted-write-leaves-no-temporary
                self.remove(folder, temporary, quiet=True)
            raise

    def rename(
        self,
        folder: str,
        name: str,
        to_folder: str,
        to_name: str,
        *,
        inode: int | None = None,
        durable: bool = False,
    ) -> None:
        """Rename a file or folder.

        With its `inode`, a rename that was done, and only seems to have failed because the server's
        reply was lost, is no failure.
        """
        try:
            self.rename_at(folder, name, to_folder, to_name)
        except OSError as error:
            # MUT: a-lost-reply-to-a-rename-is-told-from
            if not (
                inode
                and error.errno in (errno.ENOENT, errno.EEXIST)
                and self.is_inode(to_folder, to_name, inode)
            ):
                if layout.is_temporary(name):
                    self.remove(folder, name, quiet=True)
                self.with_path(error, folder, name).filename2 = self.path_of(to_folder, to_name)
                raise
        if durable:
            self.sync(to_folder)

    def is_inode(self, folder: str, name: str, inode: int) -> bool:
        """Return True if `name`, asked of the server, is the file `inode`.

        After a failover, a rename that is sent again fails although it was done.
        """
        self.refresh(folder)
        try:
            return self.stat(folder, name).st_ino == inode
        except OSError:
            return False

    def create(
        self,
        folder: str,
        name: str,
        build: Callable[[float], Parts],
        *,
        exclusive: bool = False,
        durable: bool = True,
    ) -> None:
        """Create `name` with its content, under its final name, for a file that never changes.

        Readers may meet it half written, and must check it. `exclusive`: `FileExistsError` if the
        name is taken, for one request more; without it, an existing file is overwritten.
        """
        flags = os.O_EXCL if exclusive else 0
        self._write(folder, name, build, flags=flags, durable=durable)
        if durable:
            self.sync(folder)

    def symlink(self, folder: str, name: str, text: str, *, durable: bool = True) -> None:
        """Create the symbolic link `name`, which holds `text` (up to 4,080 bytes), in one request.

        It is exclusive and whole. `FileExistsError` if the name is taken, perhaps by ourselves if
        the server's reply was lost: then read it back.
        """

        def link(name: str, *, dir_fd: int) -> None:
            os.symlink(text, name, dir_fd=dir_fd)
            if self.owner is not None:
                os.chown(name, *self.owner, dir_fd=dir_fd, follow_symlinks=False)

        self.call_at(link, folder, name, make=True)
        if durable:
            self.sync(folder)

    def relink(self, folder: str, name: str, text: str) -> None:
        """Give the link `name` a new text in one step, durably; two requests.

        Every reader gets the old text or the new.
        """
        temporary = layout.TEMPORARY + os.urandom(12).hex()
        self.symlink(folder, temporary, text, durable=False)
        try:
            inode = self.stat(folder, temporary).st_ino
        except BaseException:
            self.remove(folder, temporary, quiet=True)
            raise
        self.rename(folder, temporary, folder, name, inode=inode, durable=True)

    def restore_use(self, folder: str, name: str, status: os.stat_result) -> None:
        """Give `name` back the atime of `status`, if reading it has changed that.

        A local disk notes each read; an operator's look at a file is no use of it.
        """
        try:
            now = self.stat(folder, name)
            if now.st_atime_ns != status.st_atime_ns and now.st_mtime_ns == status.st_mtime_ns:
                times = (status.st_atime_ns, status.st_mtime_ns)
                self.call_at(os.utime, folder, name, ns=times, follow_symlinks=False)
        except OSError:
            pass  # another user's file, or removed meanwhile: the use is only a hint

    def touch(self, folder: str, name: str, status: os.stat_result) -> None:
        """Record the use of `name` in its atime; its mtime, which tells its age, stays.

        A refusal is ignored: another user's file, or removed meanwhile. The use is only a hint.
        """
        times = (int(clock.now() * 1e9), status.st_mtime_ns)
        try:
            self.call_at(os.utime, folder, name, ns=times, follow_symlinks=False)
        except OSError:
            pass

    def stamp(self, folder: str, name: str) -> None:
        """Have the server put its time on `name`, as if it had just been written."""
        self.call_at(os.utime, folder, name, follow_symlinks=False)

    def ask_time(self, folder: str) -> bool:
        """Learn the server's time from a file that is created and removed.

        Return False if that is refused: then the clock stays as it is.
        """
        name = layout.TEMPORARY + os.urandom(12).hex()
        try:
            self._write(folder, name, lambda _: (), flags=0, durable=False)
            self.remove(folder, name, quiet=True)
        except (OSError, CorruptEntryError):
            return False
        except BaseException:  # a signal handler's, before the removal
            self.remove(folder, name, quiet=True)
            raise
        return True

    def remove(self, folder: str, name: str, *, quiet: bool = False) -> bool:
        """Remove the file or link `name`; return True if it was there.

        `quiet`: return False instead of raising an error.
        """
        try:
            self.call_at(os.unlink, folder, name)
        except OSError as error:
            if quiet or error.errno in GONE:
                return False
            raise
        return True


def _fill_buffer(fd: int, length: int, start: bytes | bytearray = b"") -> bytearray:
    data, filled = bytearray(length), len(start)
    data[:filled] = start
    # MUT: a-short-read-is-gone-on-with
    while filled < length:  # a read gives 2 GiB at the most
        with memoryview(data) as view, view[filled:] as rest:
            done = os.readv(fd, [rest])
        if not done:  # the file shrank
            del data[filled:]
            break
        filled += done
    return data


def write_all(fd: int, parts: Parts) -> int:
    """Write all of `parts`, in order; return the number of bytes."""
    views: list[memoryview] = list(map(_as_bytes, map(memoryview, parts)))  # type: ignore[arg-type]
    first, size = 0, sum(map(len, views))
    # MUT: a-short-write-is-gone-on-with
    while first < len(views):
        # MUT: no-more-buffers-than-a-call-takes
        done = os.writev(fd, views[first : first + _MAX_BUFFERS])
        while first < len(views) and done >= len(views[first]):
            done -= len(views[first])
            first += 1
        if done:
            views[first] = views[first][done:]
    return size
