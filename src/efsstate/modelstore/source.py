"""The source of a publication: a file or folder, walked and judged before anything is written."""

from __future__ import annotations

import os
import stat

from efsstate.errors import EfsStateError
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.modelstore.open_file import OpenFile
from efsstate.mount.files import Mount

_MOVING = "can't be published: it changes meanwhile; publish it again when it is still"


class Source:
    """A file or folder to be published: `files` maps its paths to their stats.

    `folders` are the empty ones. It may be the folder of the model itself, if that was unmanaged
    until now: our own versions in it are left out.
    """

    def __init__(self, path: str | os.PathLike[str], mount: Mount, model: str) -> None:
        self.path = os.path.abspath(os.fspath(path))
        is_model = os.path.realpath(self.path) == os.path.realpath(mount.path_of(model))
        self._is_store = is_model and manifests.has_ours(mount, model)
        if self._is_store:
            _require_only_ours(mount, model)
        status = os.stat(self.path)
        self.single = stat.S_ISREG(status.st_mode)
        self.files: dict[str, os.stat_result] = {}
        self.folders: list[str] = []
        if self.single:
            above, name = os.path.split(os.path.realpath(self.path))
            shown = os.path.basename(self.path)
            self.mount, self._real_names = Mount(above), {shown: name}
            self._add(shown, status)
        elif stat.S_ISDIR(status.st_mode):
            self.mount, self._real_names = Mount(self.path), {}
            self._walk("")
            if not self.files:
                raise EfsStateError(f"{self.path}: can't be published: no file is in it")
        else:
            raise EfsStateError(f"{self.path}: can't be published: neither a file nor a folder")

    def _walk(self, folder: str) -> None:
        is_empty = True
        for item in self.mount.scan(folder):
            name = f"{folder}/{item.name}" if folder else item.name
            if name == layout.MANIFEST and item.is_file(follow_symlinks=False):
                continue  # of the version that this folder was copied from
            # MUT: a-published-folder-takes-nothing-of-the
            if self._is_store and name == layout.VERSIONS and item.is_dir(follow_symlinks=False):
                continue
            is_empty = False
            if item.is_symlink():
                raise EfsStateError(
                    f"{self.path}/{name}: can't be published: a symbolic link; copy its target in"
                    " its place (cp -rL), so that the version has it"
                )
            if item.is_dir():
                if why := _bad_name(name):
                    raise EfsStateError(f"{self.path}/{name!r}: can't be published: {why}")
                self._walk(name)
            else:
                self._add(name, self.mount.stat(folder, item.name))
        if is_empty and folder:
            self.folders.append(folder)

    def _add(self, name: str, status: os.stat_result) -> None:
        if why := _bad_name(name):
            raise EfsStateError(f"{self.path}: can't be published: its file name {name!r}: {why}")
        if not stat.S_ISREG(status.st_mode):
            raise EfsStateError(
                f"{self.path}/{name}: can't be published: a device, socket or pipe, not a regular"
                " file"
            )
        self.files[name] = status

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum([status.st_size for status in self.files.values()])

    def open(self, name: str) -> OpenFile:
        """Return the open file; raise EfsStateError if it has changed since it was judged."""
        folder, _, last = self._real_names.get(name, name).rpartition("/")
        opened = OpenFile(self.mount, folder, last)
        if _moment(opened.stat) != _moment(self.files[name]):
            raise moving(opened.path)
        return opened


def moving(path: str) -> EfsStateError:
    """Return the error for a file that changes while it is published."""
    return EfsStateError(f"{path}: {_MOVING}")


def has_moved(opened: OpenFile) -> bool:
    """Return True if the open file has changed since it was opened."""
    return _moment(opened.stat_now()) != _moment(opened.stat)


def _moment(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _require_only_ours(mount: Mount, model: str) -> None:
    """Raise EfsStateError if a foreign file lies among the versions: it would be left out."""
    above = layout.version_folder(model, "")
    for name in mount.names(above):
        if not (manifests.is_ours(mount, model, name) or layout.is_foreign_nfs(name)):
            raise EfsStateError(
                f"{mount.path_of(above, name)}: can't be published: it is among the versions of"
                " this model, and none of them; move it away, or publish a copy of the folder"
            )


def _bad_name(name: str) -> str:
    """Return why `name` cannot be part of a version; "" if it can."""
    if name == layout.MANIFEST:
        return "a version's manifest has this name; rename it"
    return manifests.bad_name(name)
