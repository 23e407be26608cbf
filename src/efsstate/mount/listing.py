"""List folders, and create, touch and remove them."""

from __future__ import annotations

import errno
import os

from efsstate import process
from efsstate.mount.folders import AGAIN, DIRECTORY, GONE, OPEN_FILES, FolderHandle, Folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from efsstate.mount.readdir import FolderReader


class ListedFolders(Folders):
    """The folders below a root as a whole: `Folders` opens them."""

    def make(self, folder: str) -> None:
        """Create `folder` and all above it that is missing."""
        self.handle(folder, make=True)

    def sync(self, folder: str) -> None:
        """Flush the folder's names to disk: on NFS they are there already, at no cost."""
        try:
            handle = self._folders.get(folder) or self.handle(folder)
            # MUT: a-name-is-synced
            os.fsync(handle.fd)
        except OSError as error:
            raise self.with_path(error, folder) from None

    def touch_folder(self, folder: str) -> bool:
        """Give `folder` a new mtime, which a `refresh` on other hosts shows. One request.

        Return False if it does not exist.
        """
        try:
            handle = self.handle(folder)
            os.utime(handle.fd)
        except OSError as error:
            if error.errno not in GONE:
                raise self.with_path(error, folder) from None
            self.forget(folder)
            return False
        return True

    def remove_folder(self, folder: str) -> bool:
        """Remove `folder` if it is empty; return True if it was removed."""
        parent, _, name = folder.rpartition("/")
        try:
            self.call_at(os.rmdir, parent, name)
        except OSError as error:
            if error.errno in (*GONE, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                return False
            raise
        self.forget(folder, above=False)
        return True

    def names(self, folder: str) -> list[str]:
        """Return the names in `folder` as the server has them now; none if it does not exist."""
        seen = self.look(folder)
        return [] if seen is None else seen[1] or []

    def names_of_some_time_ago(self, folder: str) -> list[str] | None:
        """Return the names in `folder` as this host's client has them, or None.

        They may be old. It costs no request if the client looked at the folder in the last seconds.
        """
        try:
            handle = self._folders.get(folder) or self.handle(folder)
            return os.listdir(handle.fd)
        except OSError as error:
            process.raise_of_handler(error)
            return None

    def reopen(self, folder: str, *, make: bool = False) -> FolderHandle:
        """Open `folder` again, which makes the NFS client revalidate it. One request.

        Through /proc/self/fd that is one request; opening "." costs two once the client's
        attributes have expired.
        """
        for attempt in (0, 1):
            try:
                handle = self._folders.get(folder) or self.handle(folder, make=make)
                try:
                    return FolderHandle(f"{OPEN_FILES}/{handle.fd}", AGAIN)
                except FileNotFoundError:  # no /proc here
                    return FolderHandle(".", DIRECTORY, dir_fd=handle.fd)
            except OSError as error:
                if error.errno in GONE:
                    self.forget(folder)
                is_retried = error.errno == errno.ESTALE or (make and error.errno in GONE)
                if attempt or not is_retried:
                    raise self.with_path(error, folder) from None
        raise AssertionError

    def watch(self, folder: str) -> FolderReader:
        """Return a reader that lists `folder`, created if need be, after changes of our own.

        One request, and one for each listing: see `FolderReader`.
        """
        from efsstate.mount.readdir import FolderReader

        handle = self.reopen(folder, make=True)
        return FolderReader(handle.fd, self.path_of(folder))

    def scan(self, folder: str, *, required: bool = False) -> Iterator[os.DirEntry[str]]:
        """Yield the entries of `folder`, fresh, without a list of them; none if it is missing.

        `required`: raise FileNotFoundError, or OSError (ESTALE), if it is missing.
        """
        try:
            handle = self.reopen(folder)
        except OSError as error:
            # MUT: a-missing-folder-is-not-an-empty-one
            if required or error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            return
        try:
            with os.scandir(handle.fd) as entries:
                yield from entries
        except OSError as error:
            if not isinstance(error.filename, str):
                self.with_path(error, folder)
            raise

    def statuses(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield each name in `folder` with its stat, fresh, but for those that go meanwhile."""
        for item in self.scan(folder):
            try:
                yield item.name, item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # another process removed it since it was listed
