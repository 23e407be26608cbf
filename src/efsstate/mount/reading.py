"""Open and read files below one root: as they are, or as entries, checked byte by byte.

A link, a FIFO or a socket in a file's place is refused. Large files go into a buffer of the
caller's own, and huge ones are judged by their first bytes.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from efsstate import process
from efsstate.errors import CorruptEntryError
from efsstate.format import entry
from efsstate.format.entry import Entry, decode, fields
from efsstate.mount import clock
from efsstate.mount.folders import Descriptor
from efsstate.mount.listing import ListedFolders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.entry import E
    from efsstate.mount.folders import FolderHandle

    # Bytes, or a view of memory. If a judge was asked: these; the bytes behind where it said to
    # part them; and the hash of all, if it was made during the read.
    Data = Any
    Judge = Callable[[bytes, int, str], int]

# MUT: a-fifo-is-not-waited-for-o-nonblock
# MUT: no-link-is-followed-to-a-file
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_THROUGH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Bytes; a smaller file is read in one call, without asking for its size. From 128 KiB on the C
# library maps each buffer of its own, and a hit pays for a mmap, a munmap and two page faults.
_SMALL = 2**16
_LARGE = 2**20  # bytes; from here on a read goes into a buffer of our own
_HUGE = 2**24  # bytes; from here on a reader's judge is asked first
_MAX_READ = 0x7FFFF000  # bytes that one read gives
_MISSING: tuple[Any, Any] = (None, None)
_TRIES = 30  # of a look that another host's replacement made stale


class ReadableFiles(ListedFolders):
    """The files below a root, to be opened and read. `Mount` writes them, too."""

    def open_into(self, file: Descriptor, folder: str, name: str, flags: int = 0) -> None:
        """Have `file` open the regular file `name`; with `O_CREAT`, create it and the folder."""
        creates = flags & os.O_CREAT
        for attempt in range(_TRIES):
            try:
                handle = self._folders.get(folder)
                if handle is None:
                    handle = (
                        self.handle(folder, make=True) if creates else self._pass_through(folder)
                    )
                self.open_at(handle, file, folder, name, flags)
            except OSError as error:
                if creates and error.errno == errno.ENOENT and not attempt:
                    self.forget(folder)  # it was removed while it was open here
                else:
                    self._prepare_retry(error, folder, name, attempt)
            else:
                return
        raise AssertionError

    def _pass_through(self, folder: str) -> FolderHandle:
        """Return `folder`, open only to reach a file in it: that costs one request less."""
        known = self._folders.get(folder)
        if known is not None or not folder:
            return known or self._top or self.open_top()
        above, _, name = folder.rpartition("/")
        return self._open_folder(folder, self._pass_through(above), name, _THROUGH)

    def open_at(
        self, handle: FolderHandle, file: Descriptor, folder: str, name: str, flags: int
    ) -> None:
        """Have `file` open the regular file `name` in the open folder `handle`."""
        fd = file.open(name, flags | _READ, mode=self.file_mode, dir_fd=handle.fd)
        try:
            status = os.fstat(fd)
            self._require_regular(status, folder, name)
            if flags & os.O_CREAT:
                self.set_mode(fd, status)
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
        self,
        folder: str,
        name: str,
        judge: Judge | None = None,
        stale: float | None = None,
        optional: bool = False,
    ) -> Data:
        """Return all bytes of the file `name`; with `stale`, `refresh` the folder if older.

        None for an `optional` file that is missing.

        A large file comes as memory that is the caller's to change: an array can live in it without
        a copy. Before a huge one is read, `judge(first bytes, size, path)` may raise, or return
        where to part them (0: nowhere). It then comes as three: the bytes, or those before the
        part; the rest, a `bytes` that needs no copy; and the hash of an entry, if it was not
        parted, so that the checksum is made while the server is waited for.
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
            except FileNotFoundError as error:
                if optional:
                    return None
                raise self.with_path(error, folder, name) from None
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
                    return head[:start], rest, None
                del rest  # cut short, as a call may be that a signal interrupts
            from efsstate.mount import large

            hashed = entry.new_hash(self.key)
            return large.fill(fd, size, data, hashed, entry.UNSEALED), b"", hashed
        if not data and size < _LARGE:
            data = os.read(fd, size)
        if len(data) >= size:
            return data
        from efsstate.mount import large

        # Large, or cut short, as a call may be that a signal interrupts.
        return large.fill(fd, size, data)

    def read_stat(
        self,
        folder: str,
        name: str,
        limit: int | None = None,
        judge: Judge | None = None,
        optional: bool = False,
    ) -> tuple[Data, os.stat_result]:
        """Return all bytes, or the first `limit`, and the file's stat from before the read.

        Two times None for an `optional` file that is missing.
        """
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
            except FileNotFoundError as error:
                if optional:
                    return _MISSING
                raise self.with_path(error, folder, name) from None
            except OSError as error:
                self._prepare_retry(error, folder, name, attempt)
            else:
                return data, status
        raise AssertionError

    def read_entry(
        self,
        folder: str,
        name: str,
        stale: float | None = None,
        parted: bool = False,
        kind: type[E] = Entry,  # type: ignore[assignment]  # E's default, unknown to mypy
        with_stat: bool = False,
    ) -> E:
        """Return the entry at `name`, as `find_entry` does.

        Raise `FileNotFoundError` if it is missing, and the errors of `find_entry`.
        """
        item = self.find_entry(folder, name, stale, parted, kind, with_stat)
        if item is None:
            missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            raise self.with_path(missing, folder, name)
        return item

    def find_entry(
        self,
        folder: str,
        name: str,
        stale: float | None = None,
        parted: bool = False,
        kind: type[E] = Entry,  # type: ignore[assignment]  # as above
        with_stat: bool = False,
    ) -> E | None:
        """Return the entry at `name`, every byte checked; None if it is missing.

        stale      the longest, in seconds, that this host's NFS client may have remembered the
                   folder (0: ask now, one request more); None leaves it to the client: up to 60 s
        parted     the payload of a very large `bytes` value may come as `codec.loads` takes it
                   without a copy
        kind       the class to build: `Entry` or one derived from it
        with_stat  put the file's stat, from before it was read, on the entry

        An entry that is being replaced may be missing for a request's time: a client that replaces
        a file which one of its processes has open first renames the old one away (`.nfs…`,
        measured).

        Raise `CorruptEntryError` (`SignatureError` if there is a key), `UnknownFormatError`,
        `OSError`, and `EfsStateError` for one larger than the free memory.
        """
        judge, status = _find_bytes if parted else _check_size, None
        if with_stat:
            if stale is not None:
                self.refresh(folder, older_than=stale)
            data, status = self.read_stat(folder, name, judge=judge, optional=True)
        else:
            data = self.read(folder, name, judge, stale, optional=True)
        return None if data is None else self._build(data, folder, name, parted, kind, status)

    def find_fields(
        self, folder: str, name: str, stale: float, kind: type[E]
    ) -> tuple[bytes, tuple[int, int, int, int]] | E | None:
        """Return the bytes of the entry at `name` and its `entry.fields`, every byte checked.

        An entry that is large, or not sound at the first look, is returned as `find_entry` does.
        Nothing is built for one that is read for a single caller.
        """
        data = self.read(folder, name, _find_bytes, stale, True)
        if type(data) is bytes:
            checked = fields(data, f"{folder}/{name}", self.key)
            if checked is not None:
                return data, checked
        return None if data is None else self._build(data, folder, name, True, kind)

    def _build(
        self,
        data: Data,
        folder: str,
        name: str,
        parted: bool,
        kind: type[E],
        status: os.stat_result | None = None,
    ) -> E | None:
        """Return the entry in the bytes that were read, with the file's `status` if it is known."""
        rest, hashed = b"", None
        if type(data) is tuple:
            data, rest, hashed = data
        try:
            item = decode(data, f"{folder}/{name}", self.path, self.key, rest, kind, hashed)
        except CorruptEntryError:
            if status is not None:
                raise
            # A signal may have cut the read of a small file short: with its size known, that shows.
            return self.find_entry(folder, name, None, parted, kind, with_stat=True)
        item.stat = status
        return item

    def find(self, folder: str, name: str) -> os.stat_result | None:
        """Return the stat of `name` itself, links not followed; None if it does not exist."""
        try:
            handle = self._folders.get(folder) or self.handle(folder)
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

    def restore_use(self, folder: str, name: str, status: os.stat_result) -> None:
        """Give `name` back the atime of `status`, if reading it has changed that.

        A local disk notes each read; an operator's look at a file is no use of it.
        """
        try:
            now = self.stat(folder, name)
            if now.st_atime_ns != status.st_atime_ns and now.st_mtime_ns == status.st_mtime_ns:
                times = (status.st_atime_ns, status.st_mtime_ns)
                self.call_at(os.utime, folder, name, ns=times, follow_symlinks=False)
        except OSError as error:
            # Another user's file, or removed meanwhile: the use is only a hint.
            process.raise_of_handler(error)

    def touch(self, folder: str, name: str, status: os.stat_result) -> None:
        """Record the use of `name` in its atime; its mtime, which tells its age, stays.

        A refusal is ignored: another user's file, or removed meanwhile. The use is only a hint.
        """
        times = (int(clock.now() * 1e9), status.st_mtime_ns)
        try:
            self.call_at(os.utime, folder, name, ns=times, follow_symlinks=False)
        except OSError as error:
            process.raise_of_handler(error)

    def set_mode(self, fd: int, status: os.stat_result) -> None:
        """Give a file that was just created the root's mode and, for uid 0, its owner."""
        try:
            self.give_to_owner(fd, status)
        except OSError as error:
            process.raise_of_handler(error)
        # MUT: modes-whatever-the-umask
        if stat.S_IMODE(status.st_mode) & 0o777 != self.file_mode and (
            status.st_uid == os.geteuid()
        ):
            try:
                # The umask took bits away that the owner of the root grants.
                os.fchmod(fd, self.file_mode)
            except OSError as error:
                process.raise_of_handler(error)


def _check_size(head: bytes, size: int, path: str) -> int:
    """Refuse a file that can't be an entry, or does not fit in memory, before it is read."""
    entry.peek(head, size, path)
    from efsstate.mount import free_memory

    # MUT: what-does-not-fit-in-memory-is-not-read
    free_memory.require(size, path, "remove the file, if nothing of yours is that large")
    return 0


def _find_bytes(head: bytes, size: int, path: str) -> int:
    """Check as `_check_size`; return where the bytes of a value that is all bytes begin."""
    _check_size(head, size, path)
    from efsstate.format.codec import msgpack

    name, meta, _ = entry.labels(head, path)
    start = entry.HEADER + len(name) + len(meta)
    return msgpack.bytes_start(name, head, start, size)
