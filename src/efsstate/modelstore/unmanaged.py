"""Unmanaged models: files or folders that were copied to the mount without `publish`."""

from __future__ import annotations

import os
import stat
import time

from efsstate import deadline
from efsstate.errors import (
    CorruptEntryError,
    DeadlineExceeded,
    EfsStateError,
    ModelNotFound,
    SignatureError,
)
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.modelstore.manifest import Manifest
from efsstate.mount import clock
from efsstate.mount.files import Mount

_SETTLED = 60.0  # seconds without a change after which a copy counts as complete
_DAY = 86400.0  # seconds after which it counts as complete by our own clock, too
_PAUSE = 2.0  # seconds between the two looks at a younger one


class UnmanagedModel:
    """The model at `name` in `folder`, as it is now; `identity` differs once a file has changed.

    Nothing says when such a copy is complete: see `settle`.
    """

    def __init__(self, mount: Mount, folder: str, name: str) -> None:
        self.mount, self.folder, self.name = mount, folder, name
        self.path = mount.path_of(folder, name)
        if mount.key is not None:
            raise SignatureError(
                self.path, "unmanaged, so unsigned, and EFSSTATE_SIGNING_KEY is set; publish it"
            )
        mount.refresh(folder)
        status = mount.stat(folder, name)
        # The time of the change (ctime): `cp -p`, `rsync -a` and `tar` keep that of the data.
        # Folders count too: between two files of a copy no file is young.
        self._changed = status.st_ctime
        self.single = stat.S_ISREG(status.st_mode)
        self._files: dict[str, os.stat_result] = {}
        if self.single:
            self._add(folder, name, name)
        elif stat.S_ISDIR(status.st_mode):
            self._walk(f"{folder}/{name}".strip("/"), "")
            if not self._files:
                raise ModelNotFound(f"{self.path}: no model: the folder has no file")
        else:
            raise CorruptEntryError(self.path, "no model: neither a file nor a folder")
        moments = [(n, s.st_ino, s.st_size, s.st_mtime_ns) for n, s in self._files.items()]
        self.identity = repr(sorted(moments))

    def _walk(self, folder: str, below: str) -> None:
        for item in self.mount.scan(folder):
            name = f"{below}/{item.name}" if below else item.name
            if layout.is_foreign_nfs(item.name) or self._is_store(item, folder, name):
                continue
            if why := manifests.bad_name(name):
                raise EfsStateError(f"{self.path}/{name!r}: can't be used: {why}")
            if item.is_symlink():
                raise EfsStateError(
                    f"{self.path}/{name}: can't be used: a symbolic link; put the file itself there"
                )
            if item.is_dir(follow_symlinks=False):
                self._changed = max(self._changed, item.stat(follow_symlinks=False).st_ctime)
                self._walk(f"{folder}/{item.name}", name)
            else:
                self._add(folder, item.name, name)

    def _is_store(self, item: os.DirEntry[str], folder: str, name: str) -> bool:
        """Return True for our folder `versions`: the model is being published.

        Until a version is active, the unmanaged files beside it are served.
        """
        if name != layout.VERSIONS or not item.is_dir(follow_symlinks=False):
            return False
        return manifests.has_ours(self.mount, folder)

    def _add(self, folder: str, last: str, name: str) -> None:
        # Opened: that is when an NFS client asks the server for the file's length.
        self._files[name] = status = self.mount.read_stat(folder, last, 0)[1]
        self._changed = max(self._changed, status.st_ctime)

    def look_again(self) -> UnmanagedModel:
        """Return the model at the same place, as it is now."""
        return UnmanagedModel(self.mount, self.folder, self.name)

    def close_folders(self) -> None:
        """Close its folders: those of several models are more descriptors than a function has."""
        self.mount.forget(self.holder)

    @property
    def age(self) -> float:
        """Return the seconds since the last change, by the server's clock as far as it is known."""
        return clock.now() - self._changed

    def settle(self) -> UnmanagedModel:
        """Wait until it is not written to any more, but not past the deadline; return it."""
        # Our clock may be ahead, and a file that grows would look old by it: ask the server's.
        if self.age > _SETTLED:
            is_known = self.mount.ask_time(self.folder)
            # A read-only place does not tell the server's time. No clock is a day wrong: AWS
            # refuses requests that are signed five minutes off.
            if self.age > (_SETTLED if is_known else _DAY):
                return self
        until, before = deadline.until(None), self
        while True:
            if time.monotonic() + _PAUSE > until:
                raise DeadlineExceeded(
                    f"{self.path}: not loaded: it was changed {max(0.0, before.age):.0f} s ago, and"
                    " there was no time to see whether it is still being copied; call again, or"
                    " publish it"
                )
            time.sleep(_PAUSE)
            now = before.look_again()
            if now.identity == before.identity:
                return now
            before = now

    @property
    def manifest(self) -> Manifest:
        """Return its names and sizes as a manifest without digests."""
        from hashlib import blake2b

        version = blake2b(self.identity.encode(), digest_size=8).hexdigest()
        files = {name: (status.st_size, "") for name, status in self._files.items()}
        return Manifest(version, files, [], single=self.single)

    @property
    def holder(self) -> str:
        """Return the folder that the manifest's names are below."""
        return self.folder if self.single else f"{self.folder}/{self.name}".strip("/")
