"""An open file of a model that several threads read, through or past the page cache."""

from __future__ import annotations

import errno
import os

from efsstate import process
from efsstate.errors import CorruptEntryError, EfsStateError
from efsstate.mount import free_memory
from efsstate.mount.folders import name_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.mount.files import Mount

_DIRECT = getattr(os, "O_DIRECT", 0)
_network: dict[str, bool] = {}  # root -> True if it is on NFS
process.at_reset(_network.clear)


class OpenFile:
    """A file that several threads read by one descriptor; `stat` is from when it was opened.

    The descriptor is closed with the last reference, so no thread ever reads another file by its
    number.
    """

    def __init__(self, mount: Mount, folder: str, name: str, *, direct: bool = True) -> None:
        self._mount, self._folder, self._name = mount, folder, name
        self.path = mount.path_of(folder, name)
        self.network = is_on_network(mount)
        self.direct = bool(_DIRECT) and direct and self.network
        self._fds = [mount.open(folder, name, os.O_RDONLY | (_DIRECT if self.direct else 0))]
        self.stat = self.stat_now()
        self.size = self.stat.st_size

    def stat_now(self) -> os.stat_result:
        """Return its stat as it is now."""
        try:
            return os.fstat(self._fds[0])
        except OSError as error:
            name_error(error, self.path)
            raise

    def has_moved(self) -> bool:
        """Return True if the file has changed since it was opened."""
        return not is_same(self.stat_now(), self.stat)

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        for fd in getattr(self, "_fds", ()):
            _close(fd)

    def reopen(self) -> OpenFile:
        """Return the same file with a descriptor of its own.

        Raise CorruptEntryError if another file has its name now.
        """
        other = OpenFile(self._mount, self._folder, self._name, direct=self.direct)
        if not os.path.samestat(other.stat, self.stat):
            raise CorruptEntryError(self.path, "it was replaced while it was read")
        return other

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._fds[-1]

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the file's bytes from `offset` on.

        Raise CorruptEntryError if the file ends before.
        """
        done, length = 0, len(view)
        while done < length:
            try:
                count = os.preadv(self._fds[-1], [view[done:]], offset + done)
            except OSError as error:
                if error.errno == errno.EINVAL and self.direct:
                    # The file system wants another alignment. The old descriptor stays open: other
                    # threads may be reading by it.
                    self._fds.append(self._mount.open(self._folder, self._name))
                    self.direct = False
                    continue
                name_error(error, self.path)
                raise
            if not count:
                end = offset + done
                why = f"it ended at {end} of {self.size} bytes: cut while it was read"
                raise CorruptEntryError(self.path, why)
            done += count


def is_same(now: os.stat_result, before: os.stat_result) -> bool:
    """Return True if it is the same file, unchanged."""
    if now.st_ino != before.st_ino:
        return False
    return now.st_size == before.st_size and now.st_mtime_ns == before.st_mtime_ns


def is_on_network(mount: Mount) -> bool:
    """Return True if the mount is NFS, for which O_DIRECT pays.

    A local disk is fastest through the page cache.
    """
    known = _network.get(mount.path)
    if known is None:
        known = _network[mount.path] = _is_nfs(mount.path)
    return known


def _is_nfs(path: str) -> bool:
    try:
        device = os.stat(path).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        lines = free_memory.read_text(f"/proc/{os.getpid()}/mountinfo").splitlines()
        kinds = [line.partition(" - ")[2] for line in lines if line.split(" ", 3)[2] == wanted]
    except (OSError, EfsStateError, IndexError) as error:
        process.raise_of_handler(error)
        return False
    return any(kind.startswith(("nfs ", "nfs4 ")) for kind in kinds)
