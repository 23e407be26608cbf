"""Resolution: which version of a model is to be served now, or which unmanaged file or folder."""

from __future__ import annotations

import os
import stat
import time

from efsstate import process
from efsstate.errors import CorruptEntryError, ModelNotFound
from efsstate.format import layout
from efsstate.modelstore import pointer
from efsstate.mount import clock, environment
from efsstate.mount import root as roots
from efsstate.mount.files import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.manifest import Manifest
    from efsstate.modelstore.model_files import ModelFiles
    from efsstate.modelstore.unmanaged import UnmanagedModel


_NOTE_EVERY = 3600.0  # seconds: far below a usual grace


class ResolvedModel:
    """The answer to a look: a published version, or an `unmanaged` model.

    `identity` differs once it is something else. It is no version's id, because an id may be
    published again with other content once its version was pruned.
    """

    __slots__ = (
        "_folder",
        "_manifest",
        "_mount",
        "_next_note",
        "identity",
        "is_pinned",
        "unmanaged",
    )

    def __init__(
        self,
        mount: Mount,
        folder: str,
        manifest: Manifest | None = None,
        unmanaged: UnmanagedModel | None = None,
        *,
        is_pinned: bool = False,
    ) -> None:
        self.is_pinned, self._next_note = is_pinned, 0.0
        self._mount, self._folder, self._manifest = mount, folder, manifest
        self.unmanaged = unmanaged
        self.identity = ""
        if unmanaged is not None:
            self.identity = unmanaged.identity
        elif manifest is not None:
            self.identity = manifest.encoded.decode()

    def is_below(self, path: object) -> bool:
        """Return True if `path` is one of the model's, and ask the server about its folder.

        This host's NFS client may remember that it was missing.
        """
        if not isinstance(path, str) or not path.startswith(self._mount.path_of(self._folder)):
            return False
        self._mount.refresh(self._folder.rpartition("/")[0])
        self._mount.refresh(self._folder)
        return True

    def replace_unmanaged(self, unmanaged: UnmanagedModel) -> None:
        """Take the unmanaged model as it was seen later."""
        self.unmanaged, self.identity = unmanaged, unmanaged.identity

    def note_use(self) -> None:
        """Begin the version's grace again, at most once an hour: it is in use, though not active.

        A function without the right to write cannot. Keep a version that it pins by a label.
        """
        now = time.monotonic()
        if self.unmanaged is not None or now < self._next_note:
            return
        self._next_note = now + _NOTE_EVERY
        assert self._manifest is not None
        try:
            self._mount.stamp(self._folder, layout.MANIFEST)
            from efsstate.modelstore import users

            users.note(self._mount, self._folder.rsplit("/", 2)[0], self._manifest.version)
        except (OSError, CorruptEntryError) as error:
            process.raise_of_handler(error)

    def files(self, *, verify: str | None, stage: bool) -> ModelFiles:
        """Return the files, for `load`."""
        from efsstate.modelstore.model_files import ModelFiles

        manifest, folder = self._manifest, self._folder
        if self.unmanaged is not None:
            manifest, folder = self.unmanaged.manifest, self.unmanaged.holder
        assert manifest is not None
        return ModelFiles(self._mount, folder, manifest, verify=verify, stage=stage)


class Resolver:
    """Looks for the model `name`: in one request if nothing has changed since the look before."""

    def __init__(
        self,
        name: str,
        root: str | os.PathLike[str] | None,
        *,
        label: str | None = None,
        version: str | None = None,
    ) -> None:
        # A relative root is below the working directory of now, whatever `chdir` comes later.
        self._name, self._root = name, roots.absolute(root)
        self._label, self._version = label, version
        self._is_absolute = isinstance(name, str) and name.startswith("/")
        if self._is_absolute and (why := _bad_path(name)):
            raise ValueError(f"model {name!r} can't be used: {why}")
        if self._is_absolute and (label or version):
            raise ValueError(
                f"model {name!r}: a path has no versions; leave out label= and version="
            )
        self._component = "" if self._is_absolute else layout.model_component(name)
        self._last: tuple[Mount, os.stat_result, ResolvedModel] | None = None

    def resolve(self) -> ResolvedModel:
        """Return the version or file that is to be served now, as the server has it.

        Raises `ModelNotFound`, `CorruptEntryError` if CURRENT is damaged, `RootError`, `OSError`.
        """
        if self._is_absolute:
            return self._resolve_unmanaged(*_split_absolute(self._name))
        mount = roots.resolve(self._root, durable=True, reading=True)
        model = f"{layout.MODELS}/{self._component}"
        versions = layout.version_folder(model, "")
        last = self._last if self._last is not None and self._last[0] is mount else None
        try:
            seen = mount.look(versions, last[1] if last else None)
        except CorruptEntryError:
            if stat.S_ISDIR(mount.stat(layout.MODELS, self._component).st_mode):
                raise  # a file or link stands where the folder `versions` belongs
            return self._resolve_unmanaged(mount, layout.MODELS, self._component)
        if seen is None:
            return self._resolve_without_versions(mount, model)
        status, names = seen
        if last is not None and names is None:
            return last[2]
        try:
            manifest = self._read_manifest(mount, model, names or [])
        except FileNotFoundError:
            return self._resolve_inactive(mount, model)
        folder, is_pinned = layout.version_folder(model, manifest.version), bool(self._version)
        resolved = ResolvedModel(mount, folder, manifest, is_pinned=is_pinned)
        # A change right after this look may leave the folder's time as it is; then read again.
        self._last = (mount, status, resolved) if clock.tells(status.st_mtime) else None
        return resolved

    def _read_manifest(self, mount: Mount, model: str, names: list[str]) -> Manifest:
        """Return the pinned version, or the one that this environment is to serve."""
        if self._version is not None:
            if self._version not in names:
                raise FileNotFoundError
            from efsstate.modelstore import manifest as manifests

            return manifests.read(mount, model, self._version)
        draw = None
        if layout.canary_name(self._label) in names:
            from efsstate.modelstore.draws import draw as draw_version

            def draw(version: str) -> float:
                return draw_version(model, version)

        return pointer.read(mount, model, self._label, names, draw)

    def _resolve_inactive(self, mount: Mount, model: str) -> ResolvedModel:
        """Return the unmanaged files beside our folder `versions`, if it has none to serve."""
        versions = layout.version_folder(model, "")
        if self._version is not None:
            from efsstate.modelstore import catalog

            raise catalog.no_such_version(mount, self._name, model, self._version)
        if self._label is not None:
            raise ModelNotFound(
                f"{mount.path_of(versions, layout.pointer_name(self._label))}: missing: no version"
                f" of model {self._name!r} has the label {self._label!r}; activate one under it"
            )
        if not set(mount.names(model)) <= {layout.VERSIONS}:
            return self._resolve_unmanaged(mount, layout.MODELS, self._component)
        raise ModelNotFound(
            f"{mount.path_of(versions, layout.CURRENT)}: missing: no version of model"
            f" {self._name!r} is active; activate one"
        )

    def _resolve_without_versions(self, mount: Mount, model: str) -> ResolvedModel:
        mount.refresh(layout.MODELS)
        try:
            mount.stat(layout.MODELS, self._component)
        except FileNotFoundError:
            raise ModelNotFound(
                f"{mount.path_of(model)}: no model {self._name!r}; publish it, or check"
                " EFSSTATE_ROOT and the name"
            ) from None
        if self._label or self._version:
            raise ModelNotFound(
                f"{mount.path_of(model)}: unmanaged: it was copied here, and has no versions; leave"
                " out label= and version="
            )
        return self._resolve_unmanaged(mount, layout.MODELS, self._component)

    @staticmethod
    def _resolve_unmanaged(mount: Mount, folder: str, name: str) -> ResolvedModel:
        from efsstate.modelstore.unmanaged import UnmanagedModel

        return ResolvedModel(mount, folder, unmanaged=UnmanagedModel(mount, folder, name))


def _bad_path(name: str) -> str:
    """Return why an absolute path cannot be a model; "" if it can."""
    try:
        if b"\0" in os.fsencode(name):
            return "it has a NUL character"
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    return "" if os.path.normpath(name).strip("/") else "it names no file or folder"


def _split_absolute(name: str) -> tuple[Mount, str, str]:
    """Return the mount, folder and name of an absolute path."""
    path = os.path.realpath(name)
    above, last = os.path.split(path)
    try:
        os.stat(path)
        if last:  # else it is a link to "/"
            return Mount(above, key=environment.signing_key()), "", last
    except (FileNotFoundError, NotADirectoryError):
        pass
    raise ModelNotFound(f"{name}: no model: there is no such file or folder") from None
