"""Own open files, and open, create and refresh the folders below one root.

- Names are resolved from open folders, one component at a time, and no symbolic link is followed:
  an attacker who may write to the mount cannot lead us out of the root.
- An NFS client remembers names, missing names and replaced files for up to a minute. Opening the
  folder makes it ask the server (measured; `stat` and locks do not): `refresh`, which costs one
  request, or `names`, which lists.
- Folders stay open, because each component of a path costs a fresh client two requests. A folder
  that was removed or replaced answers ENOENT or ESTALE, and is opened again, once.
- Modes follow the root folder's own, whatever the umask, so that users who share a root by its
  group go on sharing.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from functools import partial

from efsstate import process
from efsstate.errors import CorruptEntryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

GONE = (errno.ENOENT, errno.ESTALE)
# MUT: no-link-is-followed-to-a-folder
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FILES, AGAIN = "/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_OPEN = 256  # folders, of the 1,024 descriptors that Lambda allows


def name_error(error: OSError, path: str, second: str | None = None) -> OSError:
    """Return `error` with the full path: system calls get names within an open folder.

    `second` is the other path of a rename; the text of a symbolic link is none. What a signal
    handler raised is returned as it is.
    """
    if process.is_of_handler(error):
        return error
    error.filename = path
    if second is not None:
        error.filename2 = second
    elif error.filename2 is not None:
        del error.filename2  # None would be printed as a path
    return error


class Descriptor:
    """One open file: `open` it, use it by `with`, from any thread, and `close` it.

    A descriptor is a number. If one thread closes it while another still writes by it, the number
    may be another file's by then, and the bytes go there. So it has one owner, which closes it
    once, after its last use; and no signal, thread or fork leaks one.

    A close during a use takes effect after it. Nothing here takes a lock: a list's `append` and
    `pop` are atomic, and a use is registered before it checks for a close. `fd` is the number, for
    a thread that alone knows this object, or that excludes a close by a lock.
    """

    __slots__ = ("__weakref__", "_fds", "_is_closed", "_uses", "fd")

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._uses: list[None] = []
        self._is_closed = False
        self.fd = -1

    def open(self, name: str, flags: int, *, mode: int = 0o777, dir_fd: int | None = None) -> int:
        """Open `name` in the folder `dir_fd`, as `os.open` does; nothing may be open here yet."""
        self._is_closed = False
        # A signal handler may raise as soon as `os.open` returns to Python code, and its number is
        # lost. `extend` and `map` are C code: the number is in the list by then.
        # MUT: a-descriptor-is-owned-at-once
        self._fds.extend(map(partial(os.open, flags=flags, mode=mode, dir_fd=dir_fd), (name,)))
        self.fd = self._fds[0]
        return self.fd

    @property
    def is_open(self) -> bool:
        """Return True unless it is closed, or not open yet."""
        return bool(self._fds) and not self._is_closed

    def __enter__(self) -> int:
        self._uses.append(None)
        # MUT: a-closed-number-is-not-used
        if not self._fds or self._is_closed:
            self.__exit__()
            raise OSError(errno.EBADF, "closed by another thread, or in a forked child")
        return self._fds[0]

    def __exit__(self, *_error: object) -> None:
        self._uses.pop()
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """Close it, now or after its last use. An NFS client may report a full disk only here."""
        self._is_closed = True
        # MUT: a-descriptor-in-use-stays-open
        if self._uses:
            return
        closed: list[None] = []
        try:
            # In C again, until the list is empty: no handler comes between the pop and the close.
            closed.extend(map(os.close, iter(self._fds.pop, None)))
        except IndexError:
            pass

    def abandon(self) -> None:
        """Close it at once: in a forked child no other thread is left to use it."""
        self._uses.clear()
        self.close()

    def detach(self) -> int:
        """Return the number, which is the caller's to close."""
        self._is_closed = True
        return self._fds.pop()

    def __del__(self) -> None:
        try:
            if self._fds:
                self.abandon()
        except (AttributeError, OSError):
            pass  # it had not even begun, or the file system refuses


class FolderHandle(Descriptor):
    """An open folder, closed with the last reference, so that an eviction never closes it in use.

    So keep the handle in a variable while its `fd` is used: `handle(x).fd` alone may be closed, and
    its number become another file's, before the call that gets it.
    """

    __slots__ = ("identity", "reads_small", "refreshed")

    def __init__(self, name: str, flags: int, *, dir_fd: int | None = None) -> None:
        super().__init__()
        self.open(name, flags, dir_fd=dir_fd)
        self.refreshed = time.time()
        # True if the file that was read last was small. The first one's size is asked for, which is
        # no request after an open: a large file that is read in two parts takes several more.
        self.reads_small = False
        self.identity: tuple[int, int] | None = None  # once it was asked for: see `identify`


class Folders:
    """A root folder, its modes, its signing key, and the open folders below it.

    A folder is given by its path below the root, as `layout` builds it: `"cache/thumbnails/a"`.
    """

    def __init__(
        self,
        path: str,
        *,
        key: bytes | None = None,
        named: bool = True,
        create_root: Callable[[], None] | None = None,
    ) -> None:
        self.path = path
        self.key = key
        self.named = named  # False for the default folder, taken because no root was named
        self._folders: dict[str, FolderHandle] = {}
        self._top: FolderHandle | None = None
        self.file_mode, self.folder_mode = 0o600, 0o700  # until the root is open
        self.owner: tuple[int, int] | None = None
        self._create_root = create_root  # called at the first write if the root is missing
        try:
            self.open_top()
        except FileNotFoundError:
            if create_root is None:
                raise

    def path_of(self, folder: str, name: str = "") -> str:
        """Return the full path, for messages."""
        return "/".join(filter(None, (self.path, folder, name)))

    def with_path(self, error: OSError, folder: str, name: str = "") -> OSError:
        """Return `error` with the full path of `name` in `folder`: see `name_error`."""
        return name_error(error, self.path_of(folder, name))

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self.path}: a mount can't be copied, because the copy would close this one's"
            " folders; create another from its path"
        )

    # The root

    @property
    def is_present(self) -> bool:
        """Return True if the root existed when it was last opened."""
        return self._top is not None

    def open_top(self, *, make: bool = False) -> FolderHandle:
        """Open the root folder, and take its modes and, for uid 0, its owner.

        With `make`, create it first, but only if it has never been open: a root that was removed
        is not created again.
        """
        if make and self._top is None and self._create_root is not None:
            self._create_root()
        try:
            # The root itself may be a link.
            top = FolderHandle(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            status = os.fstat(top.fd)
        except OSError as error:
            raise name_error(error, self.path) from None
        self.file_mode, self.folder_mode = status.st_mode & 0o666, status.st_mode & 0o2777
        owner = status.st_uid, status.st_gid
        # Only uid 0 can give files away. Without that, files that it creates lock the others out.
        self.owner = owner if os.geteuid() == 0 and owner != (0, 0) else None
        self._top = top
        return top

    def _reopen_top(self) -> bool:
        """Open the root again if it was removed, perhaps created again since; never create it.

        Return True if another folder is the root now.
        """
        try:
            if self._top is not None and os.fstat(self._top.fd).st_nlink:
                return False
        except OSError as error:
            process.raise_of_handler(error)
            if error.errno not in GONE:
                return False
        self._folders.clear()
        try:
            self.open_top()
        except OSError as error:
            process.raise_of_handler(error)
            return False
        return True

    # Opening

    def handle(self, folder: str, *, make: bool = False) -> FolderHandle:
        """Return `folder`, open; with `make`, create it and all above it that is missing."""
        known = self._folders.get(folder)
        if known is not None:
            return known
        if not folder:
            return self._top or self.open_top(make=make)
        parent_name, _, name = folder.rpartition("/")
        parent = self.handle(parent_name, make=make)
        if make:
            try:
                opened = FolderHandle(name, DIRECTORY, dir_fd=parent.fd)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    process.raise_of_handler(error)
                # The folder is missing. If a file is there, this raises.
                opened = self._make_folder(folder, parent_name, name)
        else:
            opened = self._open_folder(folder, parent, name)
        # MUT: open-folders-are-bounded
        if len(self._folders) >= _MAX_OPEN:
            for oldest in list(self._folders)[: _MAX_OPEN // 4]:
                self._folders.pop(oldest, None)
        # If two threads opened it, the first one's handle stays.
        return self._folders.setdefault(folder, opened)

    def _open_folder(
        self,
        folder: str,
        parent: FolderHandle,
        name: str,
        flags: int = DIRECTORY,
        *,
        is_last: bool = False,
    ) -> FolderHandle:
        try:
            return FolderHandle(name, flags, dir_fd=parent.fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise CorruptEntryError(
                    self.path_of(folder),
                    "a symbolic link or a file stands where a folder belongs; remove it",
                ) from None
            if error.errno in GONE and parent is self._top and self._reopen_top():
                return self._open_folder(folder, self.handle(""), name, flags)
            if error.errno == errno.ESTALE:
                above = folder.rpartition("/")[0]
                self.forget(above)
                # This host's client may remember a folder that was replaced, or one above it.
                # MUT: a-stale-folder-is-opened-again
                if not is_last:
                    return self._open_folder(folder, self.handle(above), name, flags, is_last=True)
                missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                raise self.with_path(missing, folder) from None
            raise self.with_path(error, folder) from None

    def _make_folder(self, folder: str, parent_name: str, name: str) -> FolderHandle:
        try:
            self.call_at(os.mkdir, parent_name, name, make=True, mode=self.folder_mode)
        except FileExistsError:
            pass  # another process was first; mkdir has asked the server, so we see its folder
        parent = self._folders.get(parent_name) or self.handle(parent_name, make=True)
        opened = self._open_folder(folder, parent, name)
        try:
            status = os.fstat(opened.fd)
            self.give_to_owner(opened.fd, status)
            if stat.S_IMODE(status.st_mode) & 0o777 != self.folder_mode & 0o777:
                os.fchmod(opened.fd, self.folder_mode)
        except OSError as error:
            process.raise_of_handler(error)  # else another user's, who chooses its mode
        return opened

    def give_to_owner(self, fd: int, status: os.stat_result) -> None:
        """Give a file or folder that uid 0 has created to the root's owner and group."""
        # MUT: files-of-uid-0-are-the-roots-owners
        if self.owner is not None and status.st_uid == 0:
            os.fchown(fd, *self.owner)

    def call_at(
        self, call: Callable[..., T], folder: str, name: str, *, make: bool = False, **options: Any
    ) -> T:
        """Return `call(name, dir_fd=…, **options)` for the name in `folder`, errors with its path.

        With `make`, create `folder` if it is missing, and again if it was removed while open.
        """
        for attempt in (0, 1):
            handle = self._folders.get(folder)
            try:
                handle = handle or self.handle(folder, make=make)
                return call(name, dir_fd=handle.fd, **options)
            except OSError as error:
                # MUT: a-folder-that-was-removed-is-made-anew
                if make and error.errno in GONE and handle is not None and not attempt:
                    self.forget(folder)
                    continue
                raise self.with_path(error, folder, name) from None
        raise AssertionError

    def identify(self, handle: FolderHandle, folder: str) -> tuple[int, int]:
        """Return the device and inode of the open `folder`, the same by every path to it."""
        if handle.identity is None:
            try:
                status = os.fstat(handle.fd)
            except OSError as error:
                raise self.with_path(error, folder) from None
            handle.identity = status.st_dev, status.st_ino
        return handle.identity

    def forget(self, folder: str, *, above: bool = True) -> None:
        """Close `folder`, all below it and all above it: any may have been removed or replaced.

        `above=False` leaves the folders above it open: it alone was renamed or removed.
        """
        if not folder:
            self._reopen_top()
        for known in list(self._folders):
            is_above = above and folder.startswith(known + "/")
            if known == folder or known.startswith(folder + "/") or is_above:
                self._folders.pop(known, None)

    def rename_at(self, folder: str, name: str, to_folder: str, to_name: str) -> None:
        """Rename `name` to `to_name` in `to_folder`, again after errors that pass.

        An NFS client answers ETXTBSY while a process that has the target open renames it away.
        """
        source = self._folders.get(folder) or self.handle(folder)
        target = self._folders.get(to_folder) or self.handle(to_folder, make=True)
        for pause in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, None):
            try:
                os.rename(name, to_name, src_dir_fd=source.fd, dst_dir_fd=target.fd)
            except OSError as error:
                # MUT: an-error-that-passes-is-tried-again
                if error.errno != errno.ETXTBSY or pause is None:
                    raise
                time.sleep(pause)
            else:
                return

    # Asking the server

    def refresh(self, folder: str, *, older_than: float = 0.0) -> os.stat_result | None:
        """Make this host's client ask the server about the names in `folder`; return its stat.

        One request. Return None without one if that was done within `older_than` seconds, and None
        for a folder that does not exist.
        """
        known = self._folders.get(folder)
        if known is not None and 0 <= time.time() - known.refreshed < older_than:
            return None
        # A caller that need not be certain pays nothing more for a folder that is missing.
        seen = self.look(folder, listing=False, certain=not older_than)
        return None if seen is None else seen[0]

    def look(
        self,
        folder: str,
        before: os.stat_result | None = None,
        *,
        listing: bool = True,
        certain: bool = True,
    ) -> tuple[os.stat_result, list[str] | None] | None:
        """Return the stat of `folder` as the server has it now, and its names; None if missing.

        The names are None, and not requested, if nothing has changed since its stat was `before`,
        or without `listing`. A listing brings this host's client up to date about all of the folder
        in one request, where a look at a name that was replaced takes two and at a new folder one
        (measured). `certain`: ask even if this host's client remembers that the folder, or one
        above it, was missing.
        """
        for attempt in (0, 1):
            opened: list[int] = []
            try:
                handle = self._folders.get(folder) or self.handle(folder)
                now = time.time()
                try:
                    # In C, as in `Descriptor`: a signal handler that raises loses no descriptor.
                    # MUT: the-fresh-open
                    try:
                        path = f"{OPEN_FILES}/{handle.fd}"
                        opened.extend(map(partial(os.open, flags=AGAIN), (path,)))
                    except FileNotFoundError:  # no /proc here
                        again = partial(os.open, flags=DIRECTORY, dir_fd=handle.fd)
                        opened.extend(map(again, (".",)))
                    fd = opened[0]
                    status = os.fstat(fd)
                    if status.st_nlink:  # else it was removed, perhaps created again since
                        unchanged = before is not None and _moment(status) == _moment(before)
                        names = os.listdir(fd) if listing and not unchanged else None
                        handle.refreshed = now
                        return status, names
                finally:
                    list(map(os.close, opened))
            except OSError as error:
                if error.errno not in GONE:
                    raise self.with_path(error, folder) from None
            self.forget(folder)
            if attempt or not certain:
                return None
            self._refresh_above(folder)
        raise AssertionError

    def _refresh_above(self, folder: str) -> None:
        """Make the client ask again for each folder on the way: it may remember one as missing."""
        parent = folder.rpartition("/")[0]
        if folder:
            self._refresh_above(parent)
            # Those above it have just been asked: not again for each folder below.
            self.refresh(parent, older_than=1e-6)


def _moment(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns
