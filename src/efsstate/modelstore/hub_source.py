"""A repository of the Hugging Face hub as the source of a publication, without a copy in between.

The hub names the SHA-256 of each large file, so the manifest is known before any of them is read.
Their bytes go from the hub to the version's staging folder, and are compared on the way.
"""

from __future__ import annotations

import threading

from efsstate.errors import EfsStateError
from efsstate.modelstore import reader
from efsstate.modelstore.hub import HubFile, Repository
from efsstate.modelstore.source import bad_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.modelstore.patterns import Patterns
    from efsstate.mount.files import Mount

_KEPT = 64 << 20  # bytes of small files that are kept from the first read to the second


class RemoteFile:
    """A file of a repository, read in ranges; `data` are its bytes if they were read before."""

    direct = False

    def __init__(self, source: HubSource, file: HubFile, data: bytes | None = None) -> None:
        self.path, self.size = f"{source.path}/{file.name}", file.size
        self._source, self._file, self._data = source, file, data

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the file's bytes from `offset` on; raise EfsStateError."""
        if self._data is None:
            self._source.receive(self._file, view, offset)
        else:
            view[:] = self._data[offset : offset + len(view)]

    def has_moved(self) -> bool:
        """Return False: a commit never changes."""
        return False


class HubSource:
    """The files of a repository to be published, as `modelstore.source.Source` has them.

    `digests` are those that the hub knows, and `meta` pins the commit. `received` counts the bytes
    that came from the hub.
    """

    single = False

    def __init__(self, repository: Repository, patterns: Patterns) -> None:
        self._repository, self.path = repository, repository.path
        self._files = {file.name: file for file in repository.files if patterns.takes(file.name)}
        self.sizes = {name: file.size for name, file in self._files.items()}
        self.digests = {name: file.sha256 for name, file in self._files.items() if file.sha256}
        self.size = sum(self.sizes.values())
        self.folders: list[str] = []
        self.executables: set[str] = set()  # the hub does not tell
        self.meta: dict[str, Any] = {"hub": repository.name, "revision": repository.commit}
        self.in_flight: int | None = reader.in_flight()
        self.received = 0
        self._kept: dict[str, bytes] = {}
        self._room, self._lock = _KEPT, threading.Lock()
        for name in self._files:
            if why := bad_name(name):
                raise EfsStateError(f"{self.path}/{name!r}: can't be published: {why}")
        if not self._files:
            raise EfsStateError(f"{self.path}: can't be published: no file is in it")

    def open(self, name: str) -> RemoteFile:
        """Return the file; if the hub knows no SHA-256 of it, it is read here, and compared."""
        file = self._files[name]
        if file.sha256:
            return RemoteFile(self, file)
        with self._lock:
            data = self._kept.get(name)
        if data is None:
            data = self._read_whole(file)
            with self._lock:
                if len(data) <= self._room:
                    self._kept[name] = data
                    self._room -= len(data)
        return RemoteFile(self, file, data)

    def require_empty(self, _folder: str) -> None:
        """Do nothing: a commit has no empty folders, and never changes."""

    def receive(self, file: HubFile, view: memoryview, offset: int) -> None:
        """Fill `view` with the file's bytes from `offset` on, from the hub."""
        self._repository.read_into(file, view, offset)
        with self._lock:
            self.received += len(view)

    def _read_whole(self, file: HubFile) -> bytes:
        from hashlib import sha1

        data = bytearray(file.size)
        self.receive(file, memoryview(data), 0)
        # A file without LFS is a blob of git, which is named by its SHA-1.
        blob = sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        blob.update(data)
        # MUT: a-blob-of-the-hub-is-compared
        if blob.hexdigest() != file.sha1:
            raise self.changed(f"{self.path}/{file.name}")
        return bytes(data)

    def changed(self, path: str) -> EfsStateError:
        """Return the error for bytes that are not those that the hub names."""
        return EfsStateError(
            f"{path}: its digest is not the one that the hub names; publish it again"
        )


def open_source(
    address: str,
    patterns: Patterns,
    _mount: Mount,
    _model: str,
    *,
    token: str | None = None,
) -> HubSource:
    """Return the repository that `address` names ("org/name@revision") as a source."""
    return HubSource(Repository(address, token), patterns)
