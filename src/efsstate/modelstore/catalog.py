"""The inventory below `models/`: the models, and the versions of one."""

from __future__ import annotations

import stat

from efsstate import process
from efsstate.errors import CorruptEntryError, EfsStateError, ModelNotFound
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.modelstore import pointer, users
from efsstate.mount import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from efsstate.modelstore.manifest import Manifest
    from efsstate.modelstore.pointer import Pointer
    from efsstate.mount.files import Mount


class Version:
    """One version of a model.

    `id`; `active`: True if it is served by default; `labels` that name it; `share`: the part of the
    environments that it is served to, below 1 beside a canary; `bytes` of all files; `files`: how
    many; `changed`: when it was published, last (de)activated or noted as in use, in seconds since
    the epoch by the server's clock; `meta`: the publisher's own values; `users`: the functions that
    noted it as in use within two hours, because it is pinned or no longer active; `problem`: why
    its manifest cannot be used, None if it can. Its files are not looked at: see `verify`.
    """

    __slots__ = (
        "active",
        "bytes",
        "changed",
        "files",
        "id",
        "labels",
        "meta",
        "problem",
        "share",
        "users",
    )

    def __init__(
        self,
        id: str,  # noqa: A002 - the contract's name
        *,
        active: bool,
        bytes: int,  # noqa: A002 - the contract's name
        files: int,
        changed: float,
        problem: str | None,
        meta: dict[str, Any] | None = None,
        labels: list[str] | None = None,
        share: float = 0.0,
        users: list[str] | None = None,
    ) -> None:
        self.id = id
        self.active = active
        self.bytes = bytes
        self.files = files
        self.changed = changed
        self.problem = problem
        self.meta = meta or {}
        self.labels = labels or []
        self.share = share
        self.users = users or []

    def __repr__(self) -> str:
        shown = ("id", "active", "bytes", "files", "changed")
        fields = ", ".join([f"{name}={getattr(self, name)!r}" for name in shown])
        return f"Version({fields})"


def list_versions(mount: Mount, model: str) -> list[Version]:
    """Return the versions: the active one, then those last published or (de)activated."""
    served, notes = Served(mount, model), users.read(mount, model, clock.now())
    versions = []
    for item in mount.scan(layout.version_folder(model, "")):
        if manifests.bad_version(item.name):  # a pointer, or a publication under way
            continue
        manifest, problem = _read_manifest(mount, model, item.name)
        try:
            changed = mount.stat(layout.version_folder(model, item.name), layout.MANIFEST).st_mtime
        except (FileNotFoundError, CorruptEntryError):
            # Any other error is raised: a version of unknown age must not count as old.
            try:
                changed = item.stat(follow_symlinks=False).st_mtime
            except FileNotFoundError:
                continue  # a prune removed it meanwhile
        version = Version(
            item.name,
            active=item.name == served.active,
            labels=served.labels.get(item.name),
            share=served.shares.get(item.name, 0.0),
            users=notes.get(item.name),
            bytes=manifest.size if manifest else 0,
            files=len(manifest.files) if manifest else 0,
            changed=changed,
            problem=problem,
            meta=manifest.meta if manifest else None,
        )
        versions.append(version)
    return sorted(versions, key=lambda v: (v.active, v.changed, v.id), reverse=True)


class Served:
    """The pointers of a model, read: the `active` id, `labels` and `shares` by id.

    `is_removed`: the model was removed. `named`: every id that a pointer names; None if a pointer
    is missing or damaged, and any version may be in use.
    """

    def __init__(self, mount: Mount, model: str) -> None:
        self.active: str | None = None
        self.is_removed = False
        self.labels: dict[str, list[str]] = {}
        self.shares: dict[str, float] = {}
        self.named: set[str] | None = set()
        names = mount.names(layout.version_folder(model, ""))
        for label in (None, *layout.labels(names)):
            link = pointer.known_or_none(mount, model, label)
            if link is None:
                self.named = None
                continue
            canary = None
            if layout.canary_name(label) in names:
                canary = pointer.read_canary(mount, model, label, link.version)
            self._add(label, link, canary)

    def _add(self, label: str | None, link: Pointer, canary: Pointer | None) -> None:
        share = canary.share if canary else 0.0
        if self.named is not None:
            self.named |= {each.version for each in (link, canary) if each and each.version}
        if label is not None:
            self.labels.setdefault(link.version, []).append(label)
            if canary:
                self.labels.setdefault(canary.version, []).append(f"{label} ({share:.0%})")
            return
        self.is_removed = link.text == pointer.REMOVED
        self.active = link.version or None
        if link.version:
            self.shares[link.version] = 1 - share
        if canary:
            self.shares[canary.version] = share


def _read_manifest(mount: Mount, model: str, version: str) -> tuple[Manifest | None, str | None]:
    """Return the version's manifest, or its problem."""
    try:
        return manifests.read(mount, model, version), None
    except FileNotFoundError:
        path = mount.path_of(layout.version_folder(model, version), layout.MANIFEST)
        return None, f"{path}: missing: it has no manifest"
    except EfsStateError as error:
        return None, str(error)


def is_removed(mount: Mount, model: str) -> bool:
    """Return True if the model was removed, and waits for its versions' grace."""
    try:
        text = mount.readlink(layout.version_folder(model, ""), layout.CURRENT)
    except (OSError, CorruptEntryError) as error:
        process.raise_of_handler(error)
        return False
    return text[:1] == pointer.REMOVED


def find(mount: Mount, name: str, model: str, version: str) -> Manifest:
    """Return the manifest of `version`; raise ModelNotFound, naming those that exist."""
    try:
        return manifests.read(mount, model, version)
    except FileNotFoundError:
        raise no_such_version(mount, name, model, version) from None


def no_such_version(mount: Mount, name: str, model: str, version: str) -> ModelNotFound:
    """Return the error for a version that does not exist."""
    path = mount.path_of(layout.version_folder(model, version))
    known = ", ".join([v.id for v in list_versions(mount, model)]) or "none"
    return ModelNotFound(f"{path}: model {name!r} has no such version; it has: {known}")


def no_version(mount: Mount, name: str, model: str) -> ModelNotFound:
    """Return the error for a model without versions."""
    path = mount.path_of(model)
    return ModelNotFound(f"{path}: no version of model {name!r} exists; publish one")


def kind(mount: Mount, model: str) -> int:
    """Return the mode of the file or folder that has the model's name; 0 if none has."""
    above, _, last = model.rpartition("/")
    mount.refresh(above)
    try:
        return mount.stat(above, last).st_mode
    except FileNotFoundError:
        return 0


def has_unmanaged_files(mount: Mount, model: str) -> bool:
    """Return True if the model is a file, or a folder with more than a publication makes."""
    if stat.S_ISREG(kind(mount, model)):
        return True
    return not set(mount.names(model)) <= {layout.VERSIONS}


def require_published(mount: Mount, name: str, model: str) -> None:
    """Raise ModelNotFound if the model cannot have versions: it is unmanaged, or does not exist."""
    mode = kind(mount, model)
    if not mode:
        raise no_version(mount, name, model)
    path = mount.path_of(model)
    if stat.S_ISDIR(mode):
        names = set(mount.names(model))
        if names <= {layout.VERSIONS}:
            return
        if layout.VERSIONS in names and manifests.has_ours(mount, model):
            return
    elif not stat.S_ISREG(mode):
        raise ModelNotFound(f"{path}: no model: neither a file nor a folder")
    raise ModelNotFound(f"{path}: unmanaged: it was copied here, and has no versions")


def entries(mount: Mount) -> Iterator[tuple[str, bool]]:
    """Yield each name below `models/`, and True if it can be a model; hidden names are left out."""
    for item in mount.scan(layout.MODELS):
        if item.name[0] == ".":
            continue
        try:
            is_model = layout.model_component(layout.model_name(item.name)) == item.name
        except ValueError:
            is_model = False
        if is_model and not item.is_file(follow_symlinks=False):
            is_model = item.is_dir(follow_symlinks=False)
        yield item.name, is_model
