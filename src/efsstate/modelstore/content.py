"""What a `load` function gets: the files of one version, as a path, as bytes, as pages, or as a local copy."""

from __future__ import annotations

from efsstate.errors import CorruptEntryError, EfsStateError
from efsstate.modelstore import reading
from efsstate.mount import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.manifest import Manifest
    from efsstate.mount.files import Mount


class Files:
    """The files of the version `version`: `path`, `read(name)`, `mmap(name)`, `stage()`."""

    def __init__(self, mount: Mount, folder: str, manifest: Manifest, verify: str | None) -> None:
        self._mount, self._folder, self._manifest, self._verify = mount, folder, manifest, verify
        self.version = manifest.version

    @property
    def names(self) -> list[str]:
        """The paths of the files, below the version's folder."""
        return sorted(self._manifest.files)

    @property
    def path(self) -> str:
        """A path for any library: of the file where a single one was published, else of the folder."""
        if self._manifest.single:
            return self._mount.where(self._folder, next(iter(self._manifest.files)))
        return self._mount.where(self._folder)

    def read(self, name: str | None = None) -> memoryview:
        """All bytes of the file `name` (needless where there is only one), in one writable buffer of their own.

        Raises `KeyError` (no such file), `CorruptEntryError`, `OSError`.
        """
        opened, digest = self._open(name)
        return reading.whole(opened, digest=digest if self._verify == "digest" else None)

    def _open(self, name: str | None) -> tuple[reading.Opened, str]:
        files = self._manifest.files
        if name is None:
            if len(files) != 1:
                raise EfsStateError(
                    f"{self.path}: {len(files)} files are in it: say which: {', '.join(self.names[:10])}"
                )
            name = next(iter(files))
        if name not in files:
            raise KeyError(f"{self.path}: no file {name!r} is in it: {', '.join(self.names[:10])}")
        size, digest = files[name]
        folder, _, last = f"{self._folder}/{name}".rpartition("/")
        opened = reading.Opened(self._mount, folder, last)
        if self._verify is not None and opened.size != size:
            raise CorruptEntryError(opened.path, f"{opened.size} bytes, and its manifest says {size}: publish it again")
        return opened, digest
