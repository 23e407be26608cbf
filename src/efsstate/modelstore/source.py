"""The source of a publication: a file or folder, walked and judged before anything is written."""

from __future__ import annotations

import os
import stat

from efsstate.errors import EfsStateError
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.modelstore.open_file import OpenFile, is_same
from efsstate.mount.files import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from efsstate.modelstore.patterns import Patterns


class Source:
    """A file or folder to be published: `sizes` maps its paths to their bytes.

    `folders` are the empty ones, `executables` files with an executable bit, `size` all bytes.

    It may be the folder of the model itself, if that was unmanaged until now: our own versions in
    it are left out. In a snapshot of the Hugging Face cache, the links to its blobs are followed.
    """

    digests: dict[str, str] = {}  # noqa: RUF012 - each file is read for its digest
    meta: dict[str, Any] = {}  # noqa: RUF012 - a folder has no values of its own
    in_flight: int | None = None  # a part that was copied before is compared, not trusted

    def __init__(
        self, path: str | os.PathLike[str], mount: Mount, model: str, patterns: Patterns
    ) -> None:
        self.path, self._patterns = os.path.abspath(os.fspath(path)), patterns
        is_model = os.path.realpath(self.path) == os.path.realpath(mount.path_of(model))
        self._is_store = is_model and manifests.has_ours(mount, model)
        if self._is_store:
            _require_only_ours(mount, model)
        status = os.stat(self.path)
        self.single = stat.S_ISREG(status.st_mode)
        self.sizes: dict[str, int] = {}
        self._stats: dict[str, os.stat_result] = {}
        self.folders: list[str] = []
        self.executables: set[str] = set()
        self.size = 0  # bytes of all files
        self._open: OpenFile | None = None  # a single file stays open: it is read twice
        # Where the target of a link is: of a file that is published by it, and of hub snapshots.
        self._targets: dict[str, tuple[Mount, str]] = {}
        if self.single:
            above, name = os.path.split(os.path.realpath(self.path))
            shown = os.path.basename(self.path)
            self.mount = Mount(above)
            self._targets[shown] = (self.mount, name)
            self._add(shown, status)
        elif stat.S_ISDIR(status.st_mode):
            self.mount, self._blobs = Mount(self.path), _hub_blobs(self.path)
            self._walk("")
            if not self.sizes:
                raise EfsStateError(f"{self.path}: can't be published: no file is in it")
        else:
            raise EfsStateError(f"{self.path}: can't be published: neither a file nor a folder")

    def _walk(self, folder: str) -> None:
        is_empty = True
        for item in self._list(folder):
            name = f"{folder}/{item.name}" if folder else item.name
            if name == layout.MANIFEST and item.is_file(follow_symlinks=False):
                continue  # of the version that this folder was copied from
            # MUT: a-published-folder-takes-nothing-of-the
            if self._is_store and name == layout.VERSIONS and item.is_dir(follow_symlinks=False):
                continue
            is_empty = False
            if self._patterns.excludes(name):
                continue
            if item.is_dir(follow_symlinks=False):
                if why := bad_name(name):
                    raise EfsStateError(f"{self.path}/{name!r}: can't be published: {why}")
                self._walk(name)
            elif self._patterns.includes(name):
                is_link = item.is_symlink()
                self._add(
                    name, self._follow(name) if is_link else self.mount.stat(folder, item.name)
                )
        if is_empty and folder and self._patterns.includes(folder):
            self.folders.append(folder)

    def _list(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """Yield the entries of `folder`; raise EfsStateError if missing, OSError if stale."""
        try:
            yield from self.mount.scan(folder, required=True)
        except FileNotFoundError:
            raise self.changed(f"{self.path}/{folder}".rstrip("/")) from None

    def require_empty(self, folder: str) -> None:
        """Raise EfsStateError if a folder that was listed as empty is gone, or is being filled."""
        self.mount.forget(folder)
        if any(True for _ in self._list(folder)):
            raise self.changed(f"{self.path}/{folder}")

    def _follow(self, name: str) -> os.stat_result:
        """Return the stat of the blob that a link of a hub snapshot leads to."""
        blobs, target = self._blobs, os.path.realpath(f"{self.path}/{name}")
        # MUT: only-a-snapshots-own-links-are-followed
        if blobs is None or os.path.dirname(target) != blobs.path:
            raise EfsStateError(
                f"{self.path}/{name}: can't be published: a symbolic link; copy its target in its"
                " place (cp -rL), so that the version has it"
            )
        last = os.path.basename(target)
        self._targets[name] = (blobs, last)
        return blobs.stat("", last)

    def _add(self, name: str, status: os.stat_result) -> None:
        if why := bad_name(name):
            raise EfsStateError(f"{self.path}: can't be published: its file name {name!r}: {why}")
        if not stat.S_ISREG(status.st_mode):
            raise EfsStateError(
                f"{self.path}/{name}: can't be published: a device, socket or pipe, not a regular"
                " file"
            )
        self._stats[name] = status
        self.sizes[name] = status.st_size
        self.size += status.st_size
        if status.st_mode & 0o111:
            self.executables.add(name)

    def open(self, name: str) -> OpenFile:
        """Return the open file; raise EfsStateError if it has changed since it was judged."""
        if self._open is not None:
            return self._open
        mount, path = self._targets.get(name) or (self.mount, name)
        folder, _, last = path.rpartition("/")
        opened = OpenFile(mount, folder, last)
        if not is_same(opened.stat, self._stats[name]):
            raise self.changed(opened.path)
        if self.single:
            self._open = opened
        return opened

    def changed(self, path: str) -> EfsStateError:
        """Return the error for a file that changes while it is published."""
        return EfsStateError(
            f"{path}: can't be published: it changes meanwhile; publish it again when it is still"
        )


def _hub_blobs(path: str) -> Mount | None:
    """Return the blobs of the Hugging Face cache if `path` is a snapshot in it."""
    snapshots, _, revision = os.path.realpath(path).rpartition("/")
    repository, _, last = snapshots.rpartition("/")
    blobs = f"{repository}/blobs"
    is_snapshot = bool(revision) and last == "snapshots" and os.path.isdir(blobs)
    return Mount(blobs) if is_snapshot and not os.path.islink(blobs) else None


def _require_only_ours(mount: Mount, model: str) -> None:
    """Raise EfsStateError if a foreign file lies among the versions: it would be left out."""
    above = layout.version_folder(model, "")
    for name in mount.names(above):
        if not (manifests.is_ours(mount, model, name) or layout.is_foreign_nfs(name)):
            raise EfsStateError(
                f"{mount.path_of(above, name)}: can't be published: it is among the versions of"
                " this model, and none of them; move it away, or publish a copy of the folder"
            )


def bad_name(name: str) -> str:
    """Return why `name` cannot be part of a version; "" if it can."""
    if name == layout.MANIFEST:
        return "a version's manifest has this name; rename it"
    return manifests.bad_name(name)
