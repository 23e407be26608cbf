"""Open the folders of a dataset: when they are first needed, and again in another process."""

from __future__ import annotations

import os

from efsstate.datasets.part import Part
from efsstate.datasets.protocol import PartFolders
from efsstate.format import dataset_layout as names
from efsstate.mount import root as roots

TYPE_CHECKING = False


class DatasetBase:
    """A dataset's name and root, and the folders that they lead to."""

    def __init__(self, name: str, *, root: str | os.PathLike[str] | None = None) -> None:
        self.name = name
        self._folder = names.folder(name)
        self._root = None if root is None else os.path.abspath(root)

    @property
    def path(self) -> str:
        """The full path of the folder with all parts, for programs that read it as it is."""
        folders = self.folders()
        return folders.mount.path_of(folders.parts)

    def folders(self, *, reading: bool = True) -> PartFolders:
        """Return the folders on the mount; raise `RootError` if there is no root."""
        mount = roots.resolve(self._root, durable=True, reading=reading)
        return PartFolders(mount, self._folder)

    def parts(self) -> list[Part]:
        """Return the parts that are there now, sorted by name."""
        folders = self.folders()
        above = folders.mount.path_of(folders.parts)
        return [Part(name, above) for name in folders.listing()]
