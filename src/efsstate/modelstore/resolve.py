"""Which version of a model is to be served now: the one that CURRENT names, or what was put there by hand."""

from __future__ import annotations

import os
import stat

from efsstate.errors import CorruptEntryError, ModelNotFound
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.mount import clock, environment
from efsstate.mount import root as roots
from efsstate.mount.files import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.manifest import Manifest
    from efsstate.modelstore.model_files import ModelFiles
    from efsstate.modelstore.unmanaged import UnmanagedModel


class Found:
    """What is to be served: `identity` differs once it is something else; `plain` if it was put there by hand."""

    __slots__ = ("_folder", "_manifest", "_mount", "identity", "plain")

    def __init__(
        self, mount: Mount, folder: str, manifest: Manifest | None, plain: UnmanagedModel | None
    ) -> None:
        self._mount, self._folder, self._manifest, self.plain = mount, folder, manifest, plain
        # Not by its id: once it was pruned, another content may be published under that.
        self.identity = plain.identity if plain else manifest.encode().decode() if manifest else ""

    def holds(self, path: object) -> bool:
        """Whether `path` is one of the model's, and may be there after all: the server is asked."""
        if not isinstance(path, str) or not path.startswith(self._mount.path_of(self._folder)):
            return False
        self._mount.refresh(self._folder.rpartition("/")[0])
        self._mount.refresh(self._folder)
        return True

    def files(self, *, verify: str | None, stage: bool) -> ModelFiles:
        """The files, for `load`."""
        from efsstate.modelstore.model_files import ModelFiles

        manifest, folder = self._manifest, self._folder
        if self.plain is not None:
            manifest, folder = self.plain.manifest, self.plain.holder
        assert manifest is not None
        return ModelFiles(self._mount, folder, manifest, verify=verify, stage=stage)


class Resolver:
    """Looks for the model `name`: one request where nothing has changed since the look before."""

    def __init__(self, name: str, root: str | os.PathLike[str] | None) -> None:
        self._name, self._root = name, root
        self._absolute = isinstance(name, str) and name.startswith("/")
        if self._absolute and (why := _bad_path(name)):
            raise ValueError(f"model {name!r} can't be used: {why}")
        self._component = "" if self._absolute else layout.model_component(name)
        self._last: tuple[Mount, os.stat_result, Found] | None = None

    def look(self) -> Found:
        """What is to be served now, as the server has it.

        Raises `ModelNotFound`, `CorruptEntryError` (CURRENT is damaged), `RootError`, `OSError`.
        """
        if self._absolute:
            return self._by_hand(*_absolute(self._name))
        mount = roots.resolve(self._root, durable=True, reading=True)
        model = f"{layout.MODELS}/{self._component}"
        versions = layout.version_folder(model, "")
        last = self._last if self._last is not None and self._last[0] is mount else None
        try:
            seen = mount.look(versions, last[1] if last else None)
        except CorruptEntryError:
            if stat.S_ISDIR(mount.stat(layout.MODELS, self._component).st_mode):
                raise  # what stands where its versions belong is no model that somebody put there by hand
            return self._by_hand(mount, layout.MODELS, self._component)
        if seen is None:
            return self._unpublished(mount, model)
        moment, names = seen
        if last is not None and names is None:
            return last[2]
        try:
            made = manifests.current(mount, model)
        except FileNotFoundError:
            if set(mount.names(model)) <= {layout.VERSIONS}:
                raise ModelNotFound(
                    f"{mount.path_of(versions, layout.CURRENT)}: missing: no version of model {self._name!r} is active:"
                    " activate one"
                ) from None
            return self._by_hand(mount, layout.MODELS, self._component)
        found = Found(mount, layout.version_folder(model, made.version), made, None)
        # A change right after this look may leave the folder's time as it is; then the next look must read again.
        self._last = (mount, moment, found) if clock.tells(moment.st_mtime) else None
        return found

    def _unpublished(self, mount: Mount, model: str) -> Found:
        mount.refresh(layout.MODELS)
        try:
            mount.stat(layout.MODELS, self._component)
        except FileNotFoundError:
            raise ModelNotFound(
                f"{mount.path_of(model)}: no model {self._name!r}: publish it, or check EFSSTATE_ROOT and the name"
            ) from None
        return self._by_hand(mount, layout.MODELS, self._component)

    @staticmethod
    def _by_hand(mount: Mount, folder: str, name: str) -> Found:
        from efsstate.modelstore.unmanaged import UnmanagedModel

        plain = UnmanagedModel(mount, folder, name)
        return Found(mount, folder, None, plain)


def _bad_path(name: str) -> str:
    try:
        if b"\0" in os.fsencode(name):
            return "it has a NUL character"
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    return "" if os.path.normpath(name).strip("/") else "it names no file or folder"


def _absolute(name: str) -> tuple[Mount, str, str]:
    path = os.path.realpath(name)
    above, last = os.path.split(path)
    try:
        os.stat(path)
        if last:  # else it is a link to the root of all
            return Mount(above, key=environment.signing_key()), "", last
    except (FileNotFoundError, NotADirectoryError):
        pass
    raise ModelNotFound(f"{name}: no model: there is no such file or folder") from None
