"""Fill large files in ranges, by several threads; read back what other libraries wrote."""

from __future__ import annotations

import os

from efsstate import process
from efsstate.mount.folders import Descriptor, name_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.mount.files import Mount

_CHUNK = 8 << 20  # bytes


class PartialFile:
    """A large file that several threads fill in ranges; a part left by a killed process is kept.

    `present` is how many bytes of it were there before. `executable`: who may read it may run it.
    """

    def __init__(self, mount: Mount, folder: str, name: str, *, executable: bool = False) -> None:
        self.path, self._file = mount.path_of(folder, name), Descriptor()
        mount.open_into(self._file, folder, name, os.O_RDWR | os.O_CREAT)
        fd = self._file.fd
        try:
            self.present = os.fstat(fd).st_size
        except OSError as error:
            self._file.close()
            raise name_error(error, self.path) from None
        if executable:
            try:
                os.fchmod(fd, mount.file_mode | (mount.file_mode & 0o444) >> 2)
            except OSError as error:
                process.raise_of_handler(error)  # else it is another user's, who chooses its mode

    def has(self, data: memoryview, offset: int) -> bool:
        """Return True if `data` is at `offset` already."""
        if offset + len(data) > self.present:
            return False
        try:
            with self._file as fd:
                return os.pread(fd, len(data), offset) == data
        except OSError as error:
            raise name_error(error, self.path) from None

    def put(self, data: memoryview, offset: int) -> None:
        """Write `data` at `offset`."""
        try:
            with self._file as fd:
                while data:
                    done = os.pwrite(fd, data, offset)
                    data, offset = data[done:], offset + done
        except OSError as error:
            raise name_error(error, self.path) from None

    def finish(self, size: int | None) -> None:
        """Cut it to `size`, unless that is None, flush it to disk, and close it."""
        try:
            with self._file as fd:
                if size is not None:
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

    It gets the mode and owner that our own files have. Raise FileNotFoundError if it wrote none.
    """
    file = Descriptor()
    mount.open_into(file, folder, name)
    try:
        with file as fd:
            # The library's own mode, or its umask, may keep other users of the root from reading.
            mount.set_mode(fd, os.fstat(fd))
            os.fsync(fd)
            while chunk := os.read(fd, _CHUNK):
                take(chunk)
    except OSError as error:
        raise name_error(error, mount.path_of(folder, name)) from None
    finally:
        file.close()
