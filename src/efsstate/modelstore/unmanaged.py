"""A file or folder that was put on the mount by hand: which one it is, and whether it is still being copied."""

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

_SETTLED = (
    60.0  # seconds after its last change at which it is taken as whole, by the server's clock
)
_TWICE = 2.0  # seconds between the two looks at a younger one


class UnmanagedModel:
    """What is at `name` in `folder` of `mount` now: `identity` differs once anything in it was changed or replaced."""

    def __init__(self, mount: Mount, folder: str, name: str) -> None:
        self.mount, self.folder, self.name = mount, folder, name
        self.path = mount.path_of(folder, name)
        if mount.key is not None:
            raise SignatureError(
                self.path,
                "put there by hand, so unsigned, and EFSSTATE_SIGNING_KEY is set: publish it",
            )
        mount.refresh(folder)
        found = mount.stat(folder, name)
        # What a copy keeps (`cp -p`, `rsync -a`, `tar`) is the time of the data; that of the change can't be kept. A folder's too:
        # between two files of a copy, no file is young.
        self._changed = found.st_ctime
        self.single = stat.S_ISREG(found.st_mode)
        self._files: dict[str, os.stat_result] = {}
        if self.single:
            self._take(folder, name, name)
        elif stat.S_ISDIR(found.st_mode):
            self._walk(f"{folder}/{name}".strip("/"), "")
            if not self._files:
                raise ModelNotFound(f"{self.path}: no model: the folder has no file")
        else:
            raise CorruptEntryError(
                self.path, "neither a file nor a folder: a model can't be loaded from it"
            )
        self.identity = repr(
            sorted((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in self._files.items())
        )

    def _walk(self, folder: str, below: str) -> None:
        for found in self.mount.scan(folder):
            name = f"{below}/{found.name}" if below else found.name
            if layout.is_foreign_nfs(found.name):
                continue  # removed, and still open somewhere
            if (
                name == layout.VERSIONS
                and found.is_dir(follow_symlinks=False)
                and manifests.ours(self.mount, folder)
            ):
                continue  # it is being published: until a version is active, what was put there by hand serves
            if why := manifests.bad_name(name):
                raise EfsStateError(f"{self.path}/{name!r}: can't be used: {why}")
            if found.is_symlink():
                raise EfsStateError(
                    f"{self.path}/{name}: can't be used: a symbolic link: put the file itself there"
                )
            if found.is_dir(follow_symlinks=False):
                self._changed = max(self._changed, found.stat(follow_symlinks=False).st_ctime)
                self._walk(f"{folder}/{found.name}", name)
            else:
                self._take(folder, found.name, name)

    def _take(self, folder: str, last: str, name: str) -> None:
        # Opened, because that is when an NFS client asks the server how long the file is now.
        self._files[name] = found = self.mount.read_stat(folder, last, 0)[1]
        self._changed = max(self._changed, found.st_ctime)

    def again(self) -> UnmanagedModel:
        """The same place, looked at now."""
        return UnmanagedModel(self.mount, self.folder, self.name)

    def let_go(self) -> None:
        """Close the folders: those of several models are more descriptors than a function may have."""
        self.mount.forget(self.holder)

    @property
    def age(self) -> float:
        """Seconds since the last change, by the server's clock as far as it is known."""
        return clock.now() - self._changed

    def settled(self) -> UnmanagedModel:
        """What is there once nobody writes to it any more; waits, until the deadline at the most, if it is young."""
        # Our own clock may be ahead, and a file that grows would look old by it: only the server's will do.
        if self.age > _SETTLED and self.mount.ask_time(self.folder) and self.age > _SETTLED:
            return self
        until, before = deadline.until(None), self
        while True:
            if time.monotonic() + _TWICE > until:
                raise DeadlineExceeded(
                    f"{self.path}: not loaded: it was changed {max(0.0, before.age):.0f} s ago, and there was no"
                    " time to see whether it is still being copied: call again, or publish it"
                )
            time.sleep(_TWICE)
            now = before.again()
            if now.identity == before.identity:
                return now
            before = now

    @property
    def manifest(self) -> Manifest:
        """Names and sizes as in a published version's; nobody knows the digests."""
        from hashlib import blake2b

        version = blake2b(self.identity.encode(), digest_size=8).hexdigest()
        files = {name: (found.st_size, "") for name, found in self._files.items()}
        return Manifest(version, files, [], single=self.single)

    @property
    def holder(self) -> str:
        """The folder that the manifest's names are below."""
        return self.folder if self.single else f"{self.folder}/{self.name}".strip("/")
