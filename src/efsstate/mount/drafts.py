"""Fill files before they are seen.

A `PendingFile` is renamed in one step when it is whole; a `PartialFile` is filled in ranges by
several threads.
"""

from __future__ import annotations

import os
import time
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import

from efsstate import process
from efsstate.mount import clock
from efsstate.mount.descriptor import Descriptor
from efsstate.mount.files import write_all
from efsstate.mount.folders import name_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.mount.files import Mount, Parts

_CHUNK = 8 << 20  # bytes


class PendingFile:
    """A temporary that gets its content later, and then another name, but only while it exists.

    So a process that removes the temporary keeps the content from ever being seen, whatever its
    owner does at that moment. Its name must never be used again. `is_over`: it was committed, or is
    gone.
    """

    def __init__(self, mount: Mount, folder: str, name: str) -> None:
        self._mount, self._folder, self._name, self._file = mount, folder, name, Descriptor()
        self.is_over = True
        _pending.add(self)
        try:
            status = mount.create_open(self._file, folder, name, os.O_EXCL)
            self.is_over = False
        except BaseException:
            self._discard_if_created()
            raise
        self._inode, self._began = status.st_ino, time.monotonic()
        self._created = clock.creation_time(status.st_mtime)

    def _discard_if_created(self) -> None:
        if self._file.is_open:
            self._file.abandon()
            self._mount.remove(self._folder, self._name, quiet=True)

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
            mount.rename_at(folder, self._name, to_folder, name)
        except FileNotFoundError:
            self.is_over = True
            # A lost reply makes a rename look so.
            return mount.is_inode(to_folder, name, self._inode)
        except BaseException as error:
            if isinstance(error, OSError):
                is_rename = error.filename2 is not None
                mount.with_path(error, folder, self._name)
                if is_rename:
                    error.filename2 = mount.path_of(to_folder, name)
            self.discard()
            raise
        self.is_over = True
        return True

    def discard(self) -> None:
        """Close and remove it, unless it is over. A write on another thread ends by itself."""
        if self.is_over:
            return
        self.is_over = True
        self.leave()
        # Removed after the close: of an open file an NFS client keeps a copy, `.nfs…`.
        self._mount.remove(self._folder, self._name, quiet=True)

    def leave(self) -> None:
        """Close it, and leave the file that has its name."""
        self.is_over = True
        try:
            self._file.close()
        except OSError:
            pass

    def leave_to_parent(self) -> None:
        """Close it in a forked child: both would write into one file.

        And a file that is open in the child can't be removed by the parent without a copy.
        """
        self.is_over = True
        self._file.abandon()

    def __del__(self) -> None:
        try:
            if not self.is_over:  # its owner had no stack left for it, or was interrupted
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


class PartialFile:
    """A large file that several threads fill in ranges; a part left by a killed process is kept.

    `present` is how many bytes of it were there before. `executable`: who may read it may run it.
    """

    def __init__(self, mount: Mount, folder: str, name: str, *, executable: bool = False) -> None:
        self.path, self._file = mount.path_of(folder, name), Descriptor()
        mount.open_into(self._file, folder, name, os.O_RDWR | os.O_CREAT)
        fd = self._file.fd
        self.present = os.fstat(fd).st_size
        if executable:
            try:
                os.fchmod(fd, mount.file_mode | (mount.file_mode & 0o444) >> 2)
            except OSError:
                pass  # another user's: its mode is theirs to choose

    def has(self, data: memoryview, offset: int) -> bool:
        """Return True if `data` is at `offset` already."""
        if offset + len(data) > self.present:
            return False
        with self._file as fd:
            return os.pread(fd, len(data), offset) == data

    def put(self, data: memoryview, offset: int) -> None:
        """Write `data` at `offset`."""
        try:
            with self._file as fd:
                while data:
                    done = os.pwrite(fd, data, offset)
                    data, offset = data[done:], offset + done
        except OSError as error:
            raise name_error(error, self.path) from None

    def finish(self, size: int) -> None:
        """Cut it to `size`, flush it to disk, and close it."""
        try:
            with self._file as fd:
                os.ftruncate(fd, size)
                os.fsync(fd)
        except OSError as error:
            raise name_error(error, self.path) from None
        finally:
            self.close()

    def close(self) -> None:
        """Close it, and leave it as it is."""
        try:
            self._file.close()
        except OSError as error:  # an NFS client may report a full disk only here
            raise name_error(error, self.path) from None


def read_back(mount: Mount, folder: str, name: str, take: Callable[[bytes], object]) -> None:
    """Flush to disk a file that another library wrote, and give its bytes to `take`, in order.

    Raise FileNotFoundError if it wrote none.
    """
    file = Descriptor()
    mount.open_into(file, folder, name)
    try:
        with file as fd:
            os.fsync(fd)
            while chunk := os.read(fd, _CHUNK):
                take(chunk)
    except OSError as error:
        raise name_error(error, mount.path_of(folder, name)) from None
    finally:
        file.close()
