"""Fill files before they are seen.

A `PendingFile` is renamed in one step when it is whole; a `PartialFile` is filled in ranges by
several threads.
"""

from __future__ import annotations

import os
import time
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import

from efsstate import process
from efsstate.mount.files import write_all
from efsstate.mount.folders import name_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.mount.files import Mount, Parts

_CHUNK = 8 << 20  # bytes


class PendingFile:
    """A temporary that gets its content later, and then another name, but only while it exists.

    Its name is never used again, or a rename might take the temporary of another owner. So a
    process that removes the temporary keeps the content from ever being seen, whatever its
    owner does at that moment. `is_over`: it was committed, or is gone.
    """

    def __init__(self, mount: Mount, folder: str, name: str) -> None:
        self._mount, self._folder, self._name = mount, folder, name
        self._fd = mount.create_open(folder, name, os.O_EXCL)
        try:
            status = mount.adopt(self._fd)
        except BaseException as error:
            os.close(self._fd)
            if isinstance(error, OSError):
                name_error(error, mount.path_of(folder, name))
            raise
        self._inode, self._created, self._began = status.st_ino, status.st_mtime, time.monotonic()
        self.is_over = False
        _pending.add(self)

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
        if self._fd < 0:
            return False
        mount, folder = self._mount, self._folder
        try:
            # The server's time now, as far as it is known: if a clock stood still it makes the
            # content older, never younger.
            parts = build(self._created + time.monotonic() - self._began)
            # Read now: building them may have forked, and in the child the descriptor is closed.
            write_all(self._fd, parts)
            self._close()  # an NFS client may report a full disk only here
            mount.refresh(to_folder)
            if unless():
                self.discard()
                return False
            source, target = mount.handle(folder), mount.handle(to_folder, make=True)
            os.rename(self._name, name, src_dir_fd=source.fd, dst_dir_fd=target.fd)
        except FileNotFoundError:
            self.is_over = True
            # A lost reply makes a rename look so.
            return mount.is_inode(to_folder, name, self._inode)
        except BaseException as error:
            if isinstance(error, OSError):
                second = None if error.filename2 is None else mount.path_of(to_folder, name)
                name_error(error, mount.path_of(folder, self._name), second)
            self.discard()
            raise
        self.is_over = True
        return True

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def discard(self) -> None:
        """Close and remove it, unless it is over."""
        if self.is_over:
            return
        self.is_over = True
        self.leave()
        # Removed after the close: of an open file an NFS client keeps a copy, `.nfs…`.
        self._mount.remove(self._folder, self._name, quiet=True)

    def leave(self) -> None:
        """Close it, and leave the file that has its name."""
        self.is_over = True
        if self._fd >= 0:
            try:
                self._close()
            except OSError:
                pass


_pending: WeakSet[PendingFile] = WeakSet()


@process.after_fork
def _leave_the_parents() -> None:
    """In a forked child, close the parent's temporaries.

    Both would write into one file, and a file that is open here can't be removed there.
    """
    # MUT: a-forked-child-does-not-write-into-its
    for pending in _pending:
        pending.leave()


class PartialFile:
    """A large file that several threads fill in ranges; a part left by a killed process is kept.

    `present` is how many bytes of it were there before. `executable`: who may read it may run it.
    """

    def __init__(self, mount: Mount, folder: str, name: str, *, executable: bool = False) -> None:
        self.path = mount.path_of(folder, name)
        self._fd = mount.open(folder, name, os.O_RDWR | os.O_CREAT)
        try:
            self.present = os.fstat(self._fd).st_size
        except OSError as error:
            self.close()
            raise name_error(error, self.path) from None
        if executable:
            try:
                os.fchmod(self._fd, mount.file_mode | (mount.file_mode & 0o444) >> 2)
            except OSError:
                pass  # another user's: its mode is theirs to choose

    def has(self, data: memoryview, offset: int) -> bool:
        """Return True if `data` is at `offset` already."""
        end = offset + len(data)
        return end <= self.present and os.pread(self._fd, len(data), offset) == data

    def put(self, data: memoryview, offset: int) -> None:
        """Write `data` at `offset`."""
        try:
            while data:
                done = os.pwrite(self._fd, data, offset)
                data, offset = data[done:], offset + done
        except OSError as error:
            raise name_error(error, self.path) from None

    def finish(self, size: int) -> None:
        """Cut it to `size`, flush it to disk, and close it."""
        try:
            os.ftruncate(self._fd, size)
            os.fsync(self._fd)
        except OSError as error:
            raise name_error(error, self.path) from None
        finally:
            self.close()

    def close(self) -> None:
        """Close it, and leave it as it is."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:  # an NFS client may report a full disk only here
                raise name_error(error, self.path) from None


def read_back(mount: Mount, folder: str, name: str, take: Callable[[bytes], object]) -> None:
    """Flush to disk a file that another library wrote, and give its bytes to `take`, in order.

    Raise FileNotFoundError if it wrote none.
    """
    fd = mount.open(folder, name)
    try:
        os.fsync(fd)
        while chunk := os.read(fd, _CHUNK):
            take(chunk)
    except OSError as error:
        raise name_error(error, mount.path_of(folder, name)) from None
    finally:
        os.close(fd)
