"""The only module that changes the disk: files and folders below one root, made, replaced, read and removed.

What it holds to, and why:

- Names are resolved from open folders, one component at a time, and no symbolic link is followed anywhere: whoever
  may write to the mount can't lead us out of the root.
- A name gets its content in one step (`replace`: a temporary, then rename), or is created once and never changed
  (`create`, `symlink`). Nobody meets half a file under a name that `replace` makes; who reads what `create` makes must
  check it.
- An NFS client remembers names, missing names and replaced files for up to a minute. Opening the folder is what makes
  it ask the server (measured; `stat` and locks are not): `refresh`, which costs one request, or `names`, which lists.
- Folders stay open, because a path's every component costs a fresh client two requests. One that was removed or
  replaced under us answers ENOENT or ESTALE: it is opened anew, once.
- Modes follow the root folder's own, whatever the umask, so that users who share a root by its group go on sharing.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import

from efsstate.errors import CorruptEntryError
from efsstate.format import layout
from efsstate.mount import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    T = TypeVar("T")
    Buffer = bytes | bytearray | memoryview
    Parts = Sequence[Buffer]
    Data = Any  # bytes or a bytearray; two of bytes where a judge said where to part them
    Judge = Callable[[bytes, int, str], int]

# MUT: no-link-is-followed-to-a-folder
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_THROUGH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# MUT: a-fifo-is-not-waited-for-o-nonblock
# MUT: no-link-is-followed-to-a-file
_READ = (
    os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
)  # NONBLOCK: a planted FIFO must not hang us
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FOLDERS = 256  # of the 1,024 descriptors that Lambda allows
_SMALL = 2**17  # bytes; what is smaller is read in one call, without asking how long it is
_LARGE = 2**20  # bytes; from here on a read goes into a buffer of our own
_HUGE = 2**24  # bytes; from here on a reader's judge is asked first
_MOST = 0x7FFFF000  # bytes that one read gives
_TRIES = 30  # of a look that another host's replacement made stale
_GONE = (errno.ENOENT, errno.ESTALE)
_NAME_IN_DIRENT = 19  # after d_ino, d_off, d_reclen and d_type, wherever Linux has 64 bits


def _read_whole(fd: int, length: int, begun: bytes | bytearray = b"") -> bytearray:
    data, filled = bytearray(length), len(begun)
    data[:filled] = begun
    # MUT: a-short-read-is-gone-on-with
    while filled < length:  # a read gives 2 GiB at the most
        with memoryview(data) as view, view[filled:] as rest:
            done = os.readv(fd, [rest])
        if not done:  # the file shrank
            del data[filled:]
            break
        filled += done
    return data


class _Folder:
    """An open directory; its descriptor closes with the last reference, so an eviction never pulls it from under a user.

    So whoever uses `fd` keeps the folder in a variable meanwhile: `self._folder(x).fd` alone may be closed, and its number
    another file's, before the call that gets it.
    """

    __slots__ = ("fd", "refreshed", "small")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.refreshed = time.time()
        self.small = (
            True  # whether the file that was read last was: large ones are read in one request, too
        )

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        try:
            _close(self.fd)
        except OSError:
            pass


def _anew(held: _Folder) -> int:
    """The folder, opened again, which asks the server: once, while by "." an NFS client asks twice after a minute without."""
    try:
        return os.open(f"/proc/self/fd/{held.fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # no /proc here
        return os.open(".", _DIRECTORY, dir_fd=held.fd)


def _moment(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


_libc: Any = None


def _directory_functions() -> Any:
    """`fdopendir`, `readdir`, `rewinddir` and `closedir` of the C library; None where a dirent has another form."""
    global _libc
    if _libc is None and sys.platform == "linux" and sys.maxsize > 2**32:
        import ctypes

        made = ctypes.CDLL(None, use_errno=True)
        made.fdopendir.restype = made.readdir.restype = ctypes.c_void_p
        made.rewinddir.argtypes = made.readdir.argtypes = made.closedir.argtypes = [ctypes.c_void_p]
        made.rewinddir.restype = None
        _libc = made
    return _libc


class FolderReader:
    """The names in a folder, listed again and again through one open directory.

    An NFS client drops what it remembers of a folder when it makes, renames or removes a name there itself. So a listing
    in which our own last change shows is later than that change; one in which it does not tells nothing, and
    `Mount.names` is to be asked. It costs one request where that takes two: `os.listdir` asks for the folder's times
    each time, which nobody needs, so the C library's directory functions are called as they are.
    """

    __slots__ = ("_directory", "_held", "_libc", "_path")

    def __init__(self, fd: int, path: str) -> None:
        self._held, self._path = _Folder(fd), path
        self._directory: int | None = None
        self._libc = _directory_functions()
        if self._libc is not None:
            copy = os.dup(fd)
            self._directory = self._libc.fdopendir(copy)
            if not self._directory:
                os.close(copy)

    def names(self) -> list[str]:
        """The names; none if the folder is gone."""
        if not self._directory:
            try:
                return os.listdir(self._held.fd)
            except OSError as error:
                if error.errno not in _GONE:
                    error.filename = self._path
                    raise
                return []
        import ctypes

        found = []
        ctypes.set_errno(0)
        self._libc.rewinddir(self._directory)
        while item := self._libc.readdir(self._directory):
            name = ctypes.string_at(item + _NAME_IN_DIRENT)
            if name not in (b".", b".."):
                found.append(os.fsdecode(name))
        number = ctypes.get_errno()
        if (
            number and number not in _GONE
        ):  # its end and an error look alike: a part must not pass for the whole
            raise OSError(number, os.strerror(number), self._path)
        return [] if number else found

    def __del__(self) -> None:
        if self._directory:
            self._libc.closedir(self._directory)


class Mount:
    """A root directory, its modes, its signing key, and the folders below it that are open.

    `key` keys the checksum of everything that is written and read here. Paths are given as a folder below the root
    (`"cache/thumbnails/a"`, made by `layout`) and a name in it.
    """

    def __init__(self, path: str, *, key: bytes | None = None, named: bool = True) -> None:
        self.path = path
        self.key = key
        self.named = named  # False for the folder that is only taken because nobody named one
        self._folders: dict[str, _Folder] = {}
        self._open_top()

    def path_of(self, folder: str, name: str = "") -> str:
        """The full path, for messages."""
        return "/".join([part for part in (self.path, folder, name) if part])

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self.path}: a mount can't be copied: the copy's end would close the folders that this one has open"
        )

    # Folders

    def _open_top(self) -> None:
        top = _Folder(
            os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        )  # the root itself may be a link
        try:
            mode = os.fstat(top.fd).st_mode
        except OSError as error:
            error.filename = self.path
            raise
        self._top, self.file_mode, self.folder_mode = top, mode & 0o666, mode & 0o2777

    def _reopen_top(self) -> bool:
        """Open the root again if it was removed under us, perhaps made anew since; whether it was. Never made by us."""
        try:
            if os.fstat(self._top.fd).st_nlink:
                return False
        except OSError as error:
            if error.errno not in _GONE:
                return False
        self._folders.clear()
        try:
            self._open_top()
        except OSError:
            return False
        return True

    def _folder(self, folder: str, *, make: bool = False) -> _Folder:
        found = self._folders.get(folder)
        if found is not None:
            return found
        if not folder:
            return self._top
        parent_name, _, name = folder.rpartition("/")
        parent = self._folder(parent_name, make=make)
        try:
            fd = self._open_folder(folder, parent, name)
        except FileNotFoundError:
            if not make:
                raise
            fd = self._make_folder(folder, parent_name, name)
        opened = _Folder(fd)
        # MUT: open-folders-are-bounded
        if len(self._folders) >= _OPEN_FOLDERS:
            for oldest in list(self._folders)[: _OPEN_FOLDERS // 4]:
                self._folders.pop(oldest, None)
        return self._folders.setdefault(
            folder, opened
        )  # of two threads that opened it, the first's stays

    def _through(self, folder: str) -> _Folder:
        """`folder`, only to open a file in it: not opened to be listed, it costs a request less."""
        found = self._folders.get(folder)
        if found is not None or not folder:
            return found or self._top
        above, _, name = folder.rpartition("/")
        return _Folder(self._open_folder(folder, self._through(above), name, _THROUGH))

    def _open_folder(self, folder: str, parent: _Folder, name: str, flags: int = _DIRECTORY) -> int:
        try:
            return os.open(name, flags, dir_fd=parent.fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise CorruptEntryError(
                    self.path_of(folder),
                    "a symbolic link or a file stands where a folder belongs; remove it",
                ) from None
            if error.errno in _GONE and parent is self._top and self._reopen_top():
                return self._open_folder(folder, self._top, name, flags)
            if error.errno == errno.ESTALE:
                self.forget(folder.rpartition("/")[0])
                raise FileNotFoundError(
                    errno.ENOENT, os.strerror(errno.ENOENT), self.path_of(folder)
                ) from None
            error.filename = self.path_of(folder)
            raise

    def _make_folder(self, folder: str, parent_name: str, name: str) -> int:
        for attempt in (0, 1):
            parent = self._folder(parent_name, make=True)
            try:
                os.mkdir(name, self.folder_mode, dir_fd=parent.fd)
            except FileExistsError:
                pass  # somebody else was first; their name is fresh to us, for mkdir asked the server
            except OSError as error:
                if (
                    error.errno in _GONE and not attempt
                ):  # the parent was removed while we held it open
                    self.forget(parent_name)
                    continue
                error.filename = self.path_of(folder)
                raise
            fd = self._open_folder(folder, parent, name)
            try:
                if stat.S_IMODE(os.fstat(fd).st_mode) & 0o777 != self.folder_mode & 0o777:
                    os.fchmod(fd, self.folder_mode)
            except OSError:
                pass  # another user made it: its mode is theirs to choose
            return fd
        raise AssertionError

    def forget(self, folder: str) -> None:
        """Close what is open of `folder`, below it and above it: it was removed or replaced, and so may these be."""
        if not folder:
            self._reopen_top()
        for known in list(self._folders):
            if known == folder or known.startswith(folder + "/") or folder.startswith(known + "/"):
                self._folders.pop(known, None)

    def make(self, folder: str) -> None:
        """Make `folder` and what is missing above it."""
        self._folder(folder, make=True)

    def refresh(self, folder: str, *, older_than: float = 0.0) -> os.stat_result | None:
        """Have this host's client ask the server about the names in `folder`: one request; the folder's stat.

        `older_than`: not if that was done within so many seconds; None then. A folder that does not exist is no error:
        None too.
        """
        held = self._folders.get(folder)
        if held is not None and 0 <= time.time() - held.refreshed < older_than:
            return None
        # Who need not be certain pays nothing more for a folder that is not there yet.
        seen = self._ask(folder, lambda _fd, _found: None, certain=not older_than)
        return None if seen is None else seen[0]

    def names(self, folder: str) -> list[str]:
        """The names in `folder` as the server has them now; none if there is no such folder."""
        seen = self.look(folder)
        return [] if seen is None else seen[1] or []

    def look(
        self, folder: str, before: os.stat_result | None = None
    ) -> tuple[os.stat_result, list[str] | None] | None:
        """The stat of `folder` as the server has it now, and its names; None if there is no such folder.

        No names, and no request for them, where nothing has changed since its stat was `before`. A listing brings this
        host's client up to date about everything in the folder in one request, where a look at a name that was replaced
        takes two and at a new folder one (measured).
        """
        known = None if before is None else _moment(before)
        return self._ask(
            folder, lambda fd, found: None if _moment(found) == known else os.listdir(fd)
        )

    def _ask(
        self, folder: str, take: Callable[[int, os.stat_result], T], *, certain: bool = True
    ) -> tuple[os.stat_result, T] | None:
        """The stat of `folder`, opened anew, and what `take` makes of its descriptor and that; None if there is none.

        `certain`: though this host's client may remember that it, or one above it, was missing.
        """
        for attempt in (0, 1):
            try:
                held = self._folder(folder)
                now = time.time()
                # MUT: the-fresh-open
                fd = _anew(held)
                try:
                    found = os.fstat(fd)
                    if found.st_nlink:  # else removed under us, perhaps made anew since
                        taken = take(fd, found)
                        held.refreshed = now
                        return found, taken
                finally:
                    os.close(fd)
            except OSError as error:
                if error.errno not in _GONE:
                    error.filename = self.path_of(folder)
                    raise
            self.forget(folder)
            if attempt or not certain:
                return None
            self._refresh_above(folder)
        raise AssertionError

    def _refresh_above(self, folder: str) -> None:
        """Have the client ask again about the folders on the way to `folder`: it may remember that one was missing."""
        parent = folder.rpartition("/")[0]
        if folder:
            self._refresh_above(parent)
            self.refresh(
                parent, older_than=1e-6
            )  # those above it have just been asked: not again for each below

    def watch(self, folder: str) -> FolderReader:
        """`folder`, made if need be, held open for listing it after changes of our own: see `FolderReader`. One request."""
        for attempt in (0, 1):
            try:
                held = self._folder(folder, make=True)
                return FolderReader(_anew(held), self.path_of(folder))
            except OSError as error:
                if error.errno not in _GONE or attempt:
                    error.filename = self.path_of(folder)
                    raise
                self.forget(folder)
        raise AssertionError

    def scan(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """The entries of `folder`, fresh and one by one, without a list of them; none if there is no such folder."""
        try:
            held = self._folder(folder)
            fd = _anew(held)
        except OSError as error:
            if error.errno not in _GONE:
                error.filename = self.path_of(folder)
                raise
            self.forget(folder)
            return
        try:
            try:
                with os.scandir(fd) as entries:
                    yield from entries
            finally:
                os.close(fd)
        except OSError as error:
            error.filename = (
                error.filename if isinstance(error.filename, str) else self.path_of(folder)
            )
            raise

    # Reading

    def _open(self, folder: str, name: str, flags: int) -> tuple[int, os.stat_result]:
        held = self._folder(folder, make=True) if flags & os.O_CREAT else self._through(folder)
        fd = os.open(name, flags, self.file_mode, dir_fd=held.fd)
        try:
            found = os.fstat(fd)
            self._demand_regular(found, folder, name)
        except BaseException:
            os.close(fd)
            raise
        return fd, found

    def _demand_regular(self, found: os.stat_result, folder: str, name: str) -> None:
        # MUT: only-regular-files-are-read-s-isreg
        if not stat.S_ISREG(found.st_mode):
            raise CorruptEntryError(self.path_of(folder, name), "not a regular file; remove it")

    def _again(self, error: OSError, folder: str, name: str, attempt: int) -> None:
        """Look afresh, for another try, where another host replaced or removed the file under us; else raise `error`."""
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise CorruptEntryError(
                self.path_of(folder, name),
                "a symbolic link or a socket stands where a file belongs; remove it",
            ) from None
        if error.errno in (errno.EISDIR, errno.EAGAIN):  # EAGAIN: a pipe that somebody holds open
            raise CorruptEntryError(
                self.path_of(folder, name), "not a regular file; remove it"
            ) from None
        # MUT: another-look-at-estale
        if error.errno != errno.ESTALE or attempt + 1 >= _TRIES:
            error.filename = self.path_of(folder, name)
            raise error
        self.refresh(folder)

    def open(self, folder: str, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of the regular file `name`; the caller closes it. With `O_CREAT` the folder is made if need be."""
        for attempt in range(_TRIES):
            try:
                fd, found = self._open(folder, name, flags | _READ)
            except OSError as error:
                if flags & os.O_CREAT and error.errno == errno.ENOENT and not attempt:
                    self.forget(folder)  # removed while we held it open
                else:
                    self._again(error, folder, name, attempt)
            else:
                if flags & os.O_CREAT:
                    self._own_mode(fd, found)
                return fd
        raise AssertionError

    def read(
        self, folder: str, name: str, judge: Judge | None = None, stale: float | None = None
    ) -> Data:
        """All bytes of the file `name`; of the folder as it was at most `stale` seconds ago (`refresh`), if given.

        Many come as a bytearray that is the caller's to change: an array can live in it, and need not be copied. Before
        very many are read, `judge(first bytes, size, path)` may raise, or say where they are to be parted (0: nowhere):
        those from there on are then a `bytes` that need not be copied either.
        """
        held = self._folders.get(folder)
        if stale is not None and (held is None or not 0 <= time.time() - held.refreshed < stale):
            self.refresh(folder, older_than=stale)
        for attempt in range(_TRIES):
            try:
                held = self._folders.get(folder) or self._folder(folder)
                fd = os.open(name, _READ, dir_fd=held.fd)
                try:
                    begun = os.read(fd, _SMALL) if held.small else b""
                    if 0 < len(begun) < _SMALL:
                        return begun
                    # Large; or empty, as what is no file may seem to be.
                    data = self._rest(fd, folder, name, begun, judge)
                    held.small = type(data) is bytes and len(data) < _SMALL
                finally:
                    os.close(fd)
            except OSError as error:
                self._again(error, folder, name, attempt)
            else:
                return data
        raise AssertionError

    def _rest(self, fd: int, folder: str, name: str, data: bytes, judge: Judge | None) -> Data:
        found = os.fstat(fd)
        self._demand_regular(found, folder, name)
        return self._whole(fd, found.st_size, data, folder, name, judge)

    def _whole(
        self, fd: int, size: int, data: bytes, folder: str, name: str, judge: Judge | None
    ) -> Data:
        """`size` bytes of an open file, of which `data` was read before."""
        # MUT: what-is-huge-is-judged-before-it-is-read
        if size >= _HUGE and judge is not None:
            head = data or os.pread(fd, _SMALL, 0)
            start = judge(head, size, self.path_of(folder, name))
            if start and size - start <= _MOST:
                rest = os.pread(fd, size - start, start)
                if len(rest) == size - start:
                    return head[:start], rest
                del rest  # cut short, as a call may be that a signal interrupts
        if not data and size < _LARGE:
            data = os.read(fd, size)
        # Large, or cut short, as a call may be that a signal interrupts.
        return data if len(data) >= size else _read_whole(fd, size, data)

    def read_stat(
        self, folder: str, name: str, limit: int | None = None, judge: Judge | None = None
    ) -> tuple[Data, os.stat_result]:
        """As `read`, all bytes or the first `limit`; and the file's stat, from before they were read."""
        for attempt in range(_TRIES):
            try:
                held = self._folder(folder)
                fd = os.open(name, _READ, dir_fd=held.fd)
                try:
                    found = os.fstat(fd)
                    self._demand_regular(found, folder, name)
                    wanted = found.st_size if limit is None else min(limit, found.st_size)
                    data = self._whole(fd, wanted, b"", folder, name, judge)
                finally:
                    os.close(fd)
            except OSError as error:
                self._again(error, folder, name, attempt)
            else:
                return data, found
        raise AssertionError

    def stat(self, folder: str, name: str) -> os.stat_result:
        """The stat of `name` itself, links not followed."""
        try:
            held = self._folder(folder)
            return os.stat(name, dir_fd=held.fd, follow_symlinks=False)
        except OSError as error:
            error.filename = self.path_of(folder, name)
            raise

    def readlink(self, folder: str, name: str) -> str:
        """What the symbolic link `name` holds: a note of ours, never a path to follow."""
        try:
            held = self._folder(folder)
            return os.readlink(name, dir_fd=held.fd)
        except OSError as error:
            error.filename = self.path_of(folder, name)
            raise

    # Writing

    def _own_mode(self, fd: int, found: os.stat_result) -> None:
        # MUT: modes-whatever-the-umask
        if stat.S_IMODE(found.st_mode) & 0o777 != self.file_mode and found.st_uid == os.geteuid():
            try:
                os.fchmod(
                    fd, self.file_mode
                )  # the umask took bits away that the owner of the root grants
            except OSError:
                pass

    def _fill(self, fd: int, build: Callable[[float], Parts], *, durable: bool) -> os.stat_result:
        found = self._adopt(fd)
        _put(fd, build(found.st_mtime))
        # MUT: a-file-is-synced-before-it-is-named
        if durable:
            os.fsync(fd)
        return found

    def _adopt(self, fd: int) -> os.stat_result:
        """Take in a file that was just made."""
        found = os.fstat(fd)
        clock.observe(found.st_mtime)  # just made, so this is the server's time now
        self._own_mode(fd, found)
        return found

    def _make(self, folder: str, name: str, flags: int) -> int:
        for attempt in (0, 1):
            held = self._folder(folder, make=True)
            try:
                return os.open(name, flags, self.file_mode, dir_fd=held.fd)
            except OSError as error:
                # MUT: a-folder-that-was-removed-is-made-anew
                if (
                    error.errno in _GONE and not attempt
                ):  # the folder was removed while we held it open
                    self.forget(folder)
                    continue
                error.filename = self.path_of(folder, name)
                raise
        raise AssertionError

    def _write(
        self, folder: str, name: str, build: Callable[[float], Parts], *, flags: int, durable: bool
    ) -> os.stat_result:
        """Create `name` and fill it; removes it again on an error, unless it was to be visible from its creation on."""
        fd = self._make(folder, name, flags)
        try:
            try:
                return self._fill(fd, build, durable=durable)
            finally:
                os.close(fd)  # an NFS client may report a full disk only here
        except BaseException as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = self.path_of(folder, name)
            # MUT: a-failed-write-takes-its-temporary-away
            if layout.is_temporary(name):
                self.remove(folder, name, quiet=True)
            raise

    def create_pending(self, folder: str, name: str) -> PendingFile:
        """A new temporary that is to get its content and its own name later; `FileExistsError` if the name is taken."""
        return PendingFile(self, folder, name, self._make(folder, name, _WRITE | os.O_EXCL))

    def replace(
        self, folder: str, name: str, build: Callable[[float], Parts], *, durable: bool = False
    ) -> None:
        """Give `name` a new content in one step: every reader gets the old or the new, whole.

        `build` gets the server's time (seconds since the epoch) and returns the buffers to write, in order. `durable`:
        it survives a power loss once this returns (on NFS it does anyway, at no cost; a local disk needs two fsyncs).
        """
        temporary = layout.TEMPORARY + os.urandom(12).hex()
        # MUT: a-temporary-and-a-rename-not-in-place
        made = self._write(folder, temporary, build, flags=_WRITE, durable=durable)
        self.rename(folder, temporary, folder, name, inode=made.st_ino, durable=durable)

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
        """Rename a file or folder. With its `inode`, a failure that a lost reply only makes look like one is told apart."""
        try:
            source, target = self._folder(folder), self._folder(to_folder, make=True)
            os.rename(name, to_name, src_dir_fd=source.fd, dst_dir_fd=target.fd)
        except OSError as error:
            # MUT: a-lost-reply-to-a-rename-is-told-from
            if not (
                inode
                and error.errno in (errno.ENOENT, errno.EEXIST)
                and self._is(to_folder, to_name, inode)
            ):
                self.remove(folder, name, quiet=True) if layout.is_temporary(name) else None
                error.filename, error.filename2 = (
                    self.path_of(folder, name),
                    self.path_of(to_folder, to_name),
                )
                raise
        if durable:
            self.sync(to_folder)

    def _is(self, folder: str, name: str, inode: int) -> bool:
        """Whether `name`, asked of the server, is the file `inode`: after a failover a replayed rename fails, though done."""
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
        """Make `name` with its content, under its final name: readers may meet it half written, and must check it.

        For files that are made once and never changed. `exclusive`: `FileExistsError` if the name is taken (a request
        more); without it an existing file of that name is overwritten.
        """
        self._write(
            folder, name, build, flags=_WRITE | (os.O_EXCL if exclusive else 0), durable=durable
        )
        if durable:
            self.sync(folder)

    def symlink(self, folder: str, name: str, note: str, *, durable: bool = True) -> None:
        """Make `name` a symbolic link that holds `note` (up to 4,080 bytes): exclusive and whole, in one request.

        `FileExistsError` if the name is taken, which after a lost reply it may be by ourselves: read it back.
        """
        for attempt in (0, 1):
            try:
                held = self._folder(folder, make=True)
                os.symlink(note, name, dir_fd=held.fd)
            except OSError as error:
                if error.errno in _GONE and not attempt:
                    self.forget(folder)
                    continue
                error.filename = self.path_of(folder, name)
                if error.filename2 is not None:
                    del (
                        error.filename2
                    )  # the text of the link is no path; None would be told as one
                raise
            break
        if durable:
            self.sync(folder)

    def relink(self, folder: str, name: str, note: str) -> None:
        """Give `name` a new note in one step, durably: every reader gets the old one or the new. Two requests."""
        temporary = layout.TEMPORARY + os.urandom(12).hex()
        self.symlink(folder, temporary, note, durable=False)
        try:
            inode = self.stat(folder, temporary).st_ino
        except BaseException:
            self.remove(folder, temporary, quiet=True)
            raise
        self.rename(folder, temporary, folder, name, inode=inode, durable=True)

    def sync(self, folder: str) -> None:
        """Have the folder's names on disk: on NFS they are already, and this costs nothing."""
        try:
            held = self._folder(folder)
            # MUT: a-name-is-synced
            os.fsync(held.fd)
        except OSError as error:
            error.filename = self.path_of(folder)
            raise

    def touch(self, folder: str, name: str, found: os.stat_result) -> None:
        """Note that `name` was used now: its atime; the mtime, by which its age is judged, stays. A refusal is ignored."""
        try:
            times = (int(clock.now() * 1e9), found.st_mtime_ns)
            held = self._folder(folder)
            os.utime(name, ns=times, dir_fd=held.fd, follow_symlinks=False)
        except OSError:
            pass  # another user's file, or gone meanwhile: use is a hint

    def touch_folder(self, folder: str) -> bool:
        """Give `folder` a new mtime, which a `refresh` elsewhere shows; whether it is there. One request."""
        try:
            held = self._folder(folder)
            os.utime(held.fd)
        except OSError as error:
            if error.errno not in _GONE:
                error.filename = self.path_of(folder)
                raise
            self.forget(folder)
            return False
        return True

    def remove(self, folder: str, name: str, *, quiet: bool = False) -> bool:
        """Remove the file or link `name`; whether it was there. `quiet`: no error is raised."""
        try:
            held = self._folder(folder)
            os.unlink(name, dir_fd=held.fd)
        except OSError as error:
            if not quiet and error.errno not in _GONE:
                error.filename = self.path_of(folder, name)
                raise
            return False
        return True

    def remove_folder(self, folder: str) -> bool:
        """Remove `folder` if it is empty; whether it went. Somebody who writes into it meanwhile keeps it."""
        parent, _, name = folder.rpartition("/")
        try:
            held = self._folder(parent)
            os.rmdir(name, dir_fd=held.fd)
        except OSError as error:
            if error.errno not in (*_GONE, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                error.filename = self.path_of(folder)
                raise
            return False
        self.forget(folder)
        return True

    # Big files and folders

    def open_partial(self, folder: str, name: str) -> PartialFile:
        """The file `name`, to be filled in ranges by several threads; what a killed one left of it is kept."""
        return PartialFile(
            self.path_of(folder, name), self.open(folder, name, os.O_RDWR | os.O_CREAT)
        )

    def ask_time(self, folder: str) -> bool:
        """Learn the server's time by a file that is made and removed; False where that is refused: the clock stays as it is."""
        name = layout.TEMPORARY + os.urandom(12).hex()
        try:
            self._write(folder, name, lambda _: (), flags=_WRITE, durable=False)
        except (OSError, CorruptEntryError):
            return False
        self.remove(folder, name, quiet=True)
        return True

    def stamp(self, folder: str, name: str) -> None:
        """Have the server put its time on `name`, as if it had just been written."""
        held = self._folder(folder)
        try:
            os.utime(name, dir_fd=held.fd, follow_symlinks=False)
        except OSError as error:
            error.filename = self.path_of(folder, name)
            raise


def _put(fd: int, parts: Parts) -> int:
    """Write all of it; how many bytes it was."""
    rest = [memoryview(part).cast("B") for part in parts]
    size = sum(map(len, rest))
    # MUT: a-short-write-is-gone-on-with
    while rest:
        done = os.writev(fd, rest)
        while rest and done >= len(rest[0]):
            done -= len(rest.pop(0))
        if rest:
            rest[0] = rest[0][done:]
    return size


class PendingFile:
    """A temporary whose content comes later. It becomes a file of another name in one step, but only while its name is there.

    So whoever removes that name keeps the file from ever being seen, whatever its maker does at that moment. `over`: it has
    become that file, or is gone.
    """

    def __init__(self, mount: Mount, folder: str, name: str, fd: int) -> None:
        self._mount, self._folder, self._name, self._fd = mount, folder, name, fd
        try:
            found = mount._adopt(fd)  # noqa: SLF001
        except BaseException as error:
            os.close(fd)
            if isinstance(error, OSError):
                error.filename = mount.path_of(folder, name)
            raise
        self._inode, self._made, self._began = found.st_ino, found.st_mtime, time.monotonic()
        self._size = 0
        self.over = False
        _drafts.add(self)

    def commit(
        self, name: str, build: Callable[[float], Parts], *, unless: Callable[[], bool]
    ) -> bool:
        """Fill it and give it `name`; False where it was removed meanwhile, or `unless` is true right before.

        `build` is as `Mount.replace` takes it. Raises `OSError`; then nothing has changed.
        """
        if self._fd < 0:
            return False
        mount, folder = self._mount, self._folder
        try:
            # The server's time now, as far as it is known: a clock that stood still makes it older, never younger.
            parts = build(self._made + time.monotonic() - self._began)
            # Looked up now: making them may have forked, and in the child the descriptor is closed.
            self._size = _put(self._fd, parts)
            self._close()  # an NFS client may report a full disk only here
            mount.refresh(folder)
            # MUT: a-draft-that-was-made-since-is-not-taken-for
            if not self._is_ours() or unless():
                self.drop()
                return False
            source = mount._folder(folder)  # noqa: SLF001
            os.rename(self._name, name, src_dir_fd=source.fd, dst_dir_fd=source.fd)
        except FileNotFoundError:
            self.over = True
            return mount._is(folder, name, self._inode)  # noqa: SLF001 - a lost reply makes a rename look so
        except BaseException as error:
            if isinstance(error, OSError):
                error.filename = mount.path_of(folder, self._name)
                if error.filename2 is not None:
                    error.filename2 = mount.path_of(folder, name)
            self.drop()
            raise
        self.over = True
        return True

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def _is_ours(self) -> bool:
        """Whether the name is this file's. One that was made since may have its inode, once it is closed, but is empty."""
        try:
            found = self._mount.stat(self._folder, self._name)
        except OSError:
            return False
        # While it is open nobody else has its inode; and who could not write all of it does not know its size.
        return found.st_ino == self._inode and (self._fd >= 0 or found.st_size == self._size)

    def drop(self) -> None:
        """Close and remove it, unless it is over."""
        if self.over:
            return
        self.over = True
        ours = self._is_ours()
        self.leave()
        if ours:  # removed when it is closed: of an open file an NFS client keeps a copy under another name
            self._mount.remove(self._folder, self._name, quiet=True)

    def leave(self) -> None:
        """Close it, and leave what has its name alone."""
        self.over = True
        if self._fd >= 0:
            try:
                self._close()
            except OSError:
                pass


_drafts: WeakSet[PendingFile] = WeakSet()


def _after_fork() -> None:
    """In a child: drafts are the parent's. Both would write into one file, and one that is open here can't be removed there."""
    # MUT: a-forked-child-does-not-write-into-its
    for draft in _drafts:
        draft.leave()


os.register_at_fork(after_in_child=_after_fork)


class PartialFile:
    """A big file that is being filled: `had` is how many bytes of it were there before."""

    def __init__(self, path: str, fd: int) -> None:
        self.path, self._fd = path, fd
        try:
            self.had = os.fstat(fd).st_size
        except OSError as error:
            self.close()
            error.filename = path
            raise

    def holds(self, data: memoryview, offset: int) -> bool:
        """Whether `data` is at `offset` already."""
        return offset + len(data) <= self.had and os.pread(self._fd, len(data), offset) == data

    def put(self, data: memoryview, offset: int) -> None:
        """Write `data` at `offset`."""
        try:
            while data:
                done = os.pwrite(self._fd, data, offset)
                data, offset = data[done:], offset + done
        except OSError as error:
            error.filename = self.path
            raise

    def end(self, size: int) -> None:
        """Cut it to `size`, and have it on disk."""
        try:
            os.ftruncate(self._fd, size)
            os.fsync(self._fd)
        except OSError as error:
            error.filename = self.path
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Leave it as it is."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:  # an NFS client may report a full disk only here
                error.filename = self.path
                raise
