"""Files below one root: replaced in one step, created, renamed and removed.

- A name gets its content in one step (`replace`: a temporary, then a rename), or is created once
  and never changed (`create`, `symlink`). No reader meets half a file under a name that `replace`
  makes; a reader of a file that `create` makes must check it.
- Only this module, `reading`, `listing`, `folders`, `drafts` and `readdir` change the disk or open
  files on the mount.
"""

from __future__ import annotations

import errno
import os
import time
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import
from functools import partial
from operator import methodcaller

from efsstate import process
from efsstate.errors import CorruptEntryError
from efsstate.format import entry, layout
from efsstate.mount import clock
from efsstate.mount.folders import GONE, Descriptor, name_error
from efsstate.mount.reading import ReadableFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Buffer = bytes | bytearray | memoryview
    Parts = Sequence[Buffer]

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_BUFFERS = 1024  # IOV_MAX: of one writev
_as_bytes = methodcaller("cast", "B")


class Mount(ReadableFiles):
    """A root folder with its files: `Folders` resolves the folders, this reads and writes in them.

    `key` keys the checksum of all that is written and read here. A file is given by its folder
    below the root and its name in it, as `layout` builds them.
    """

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
            self.set_mode(fd, status)
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
            # MUT: an-interrupted-write-leaves-no-temporary
            if not process.is_of_system(error):  # a signal handler raised after the write
                self.remove(folder, temporary, quiet=True)
            raise

    def write_entry(
        self,
        folder: str,
        name: str,
        payload: Buffer | list[Buffer],
        *,
        codec: str,
        meta: bytes = b"",
        ttl: float | None = None,
        durable: bool = False,
        draft: PendingFile | None = None,
        unless: Callable[[], bool] = bool,
    ) -> bool:
        """Put an entry at `name` in one step, replacing any before it.

        With a `draft` in that folder, return False, and change nothing, if it was removed meanwhile
        or `unless` is true (see `PendingFile.commit`). Raise `OSError`; then the old entry stands.
        """
        build = partial(
            entry.encode, payload,
            place=f"{folder}/{name}", codec=codec, meta=meta, ttl=ttl, key=self.key,
        )  # fmt: skip
        if draft is not None:
            return draft.commit(folder, name, build, unless=unless)
        self.replace(folder, name, build, durable=durable)
        return True

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
                name_error(error, self.path_of(folder, name), self.path_of(to_folder, to_name))
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
        except OSError as error:
            process.raise_of_handler(error)
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
        try:
            self.symlink(folder, temporary, text, durable=False)
            inode = self.stat(folder, temporary).st_ino
            self.rename(folder, temporary, folder, name, inode=inode, durable=True)
        except BaseException:  # a signal handler's, too
            # MUT: an-interrupted-link-leaves-no-temporary
            self.remove(folder, temporary, quiet=True)
            raise

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
        except BaseException as error:
            # MUT: a-handlers-time-out-leaves-no-file
            if isinstance(error, CorruptEntryError) or process.is_of_system(error):
                return False
            # A signal handler raised before the file was removed.
            self.remove(folder, name, quiet=True)
            raise
        return True

    def remove(self, folder: str, name: str, *, quiet: bool = False) -> bool:
        """Remove the file or link `name`; return True if it was there.

        `quiet`: return False instead of raising an error of the mount.
        """
        try:
            self.call_at(os.unlink, folder, name)
        except OSError as error:
            if error.errno in GONE or (quiet and process.is_of_system(error)):
                return False
            raise
        return True


class PendingFile:
    """A temporary that gets its content later, and then another name, but only while it exists.

    So a process that removes the temporary keeps the content from ever being seen, whatever its
    owner does at that moment. `name` is the temporary's: `prefix`, and 16 random hex digits,
    because a rename must not take another's temporary. `is_over`: it was committed, or is gone.
    """

    def __init__(self, mount: Mount, folder: str, prefix: str) -> None:
        # MUT: a-drafts-name-is-never-used-again
        self.name = prefix + os.urandom(8).hex()
        self._mount, self._folder, self._file = mount, folder, Descriptor()
        self.is_over = self._is_gone = True
        _pending.add(self)
        try:
            status = mount.create_open(self._file, folder, self.name, os.O_EXCL)
            self.is_over = self._is_gone = False
        except BaseException:
            self._discard_if_created()
            raise
        self._inode, self._began = status.st_ino, time.monotonic()
        self._created = clock.creation_time(status.st_mtime)

    def _discard_if_created(self) -> None:
        if self._file.is_open:
            self._file.abandon()
            self._mount.remove(self._folder, self.name, quiet=True)

    def commit(
        self,
        to_folder: str,
        name: str,
        build: Callable[[float], Parts],
        *,
        unless: Callable[[], bool],
    ) -> bool:
        """Fill it and rename it to `name` in `to_folder`; return False if it was removed meanwhile.

        Return False, too, if `unless` is true right before the rename. `build` is as
        `Mount.replace` takes it. Raise `OSError` if it fails; then nothing has changed.
        """
        if self.is_over:
            return False
        mount, folder = self._mount, self._folder
        try:
            # The server's time now, as far as it is known: if a clock stood still it makes the
            # content older, never younger.
            parts = build(self._created + time.monotonic() - self._began)
            # Used from here on: building them may have forked, and in the child it is closed.
            with self._file as fd:
                write_all(fd, parts)
            self._file.close()  # an NFS client may report a full disk only here
            mount.refresh(to_folder)
            # `is_over`: another thread has discarded it during the write.
            if self.is_over or unless():
                self.discard()
                return False
            mount.rename_at(folder, self.name, to_folder, name)
        except FileNotFoundError:
            self.is_over = self._is_gone = True
            # A lost reply makes a rename look so.
            return mount.is_inode(to_folder, name, self._inode)
        except BaseException as error:
            if isinstance(error, OSError):
                is_rename = error.filename2 is not None
                mount.with_path(error, folder, self.name)
                if is_rename:
                    error.filename2 = mount.path_of(to_folder, name)
            self.discard()
            raise
        self.is_over = self._is_gone = True
        return True

    def discard(self) -> None:
        """Close and remove it, unless it is over. A write on another thread ends by itself."""
        # MUT: a-draft-is-gone-once-it-is-removed
        if self._is_gone:
            return
        self.is_over = True
        try:
            self._file.close()
        except OSError as error:
            process.raise_of_handler(error)
        # Removed after the close: of an open file an NFS client keeps a copy, `.nfs…`.
        self._mount.remove(self._folder, self.name, quiet=True)
        self._is_gone = True

    def leave_to_parent(self) -> None:
        """Close it in a forked child: both would write into one file.

        And a file that is open in the child can't be removed by the parent without a copy.
        """
        self.is_over = self._is_gone = True
        self._file.abandon()

    def __del__(self) -> None:
        try:
            if not self._is_gone:  # its owner had no stack left for it, or was interrupted
                self.discard()
        except Exception:
            pass


_pending: WeakSet[PendingFile] = WeakSet()


@process.after_fork
def _leave_the_parents() -> None:
    """In a forked child, close the parent's temporaries."""
    # MUT: a-forked-child-does-not-write-into-its
    for pending in list(_pending):
        pending.leave_to_parent()


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
