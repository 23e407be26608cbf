"""The versions of a model: published, activated, listed, verified, and removed when nobody can use them any more."""

from __future__ import annotations

from efsstate import events, units
from efsstate.errors import CorruptEntryError, EfsStateError, ModelNotFound
from efsstate.modelstore import manifest as manifests
from efsstate.mount import clock, layout, root as roots, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from efsstate.mount.files import Mount


class Version:
    """One version: `id`, `active`, `bytes`, `files` (how many), `changed` (published or last (de)activated, seconds since the epoch by the server's clock), `problem` (why it can't be used; None if it can)."""

    __slots__ = ("active", "bytes", "changed", "files", "id", "problem")

    def __init__(
        self,
        id: str,
        *,
        active: bool,
        bytes: int,
        files: int,
        changed: float,
        problem: str | None,  # noqa: A002
    ) -> None:
        self.id = id
        self.active = active
        self.bytes = bytes
        self.files = files
        self.changed = changed
        self.problem = problem

    def __repr__(self) -> str:
        fields = ", ".join(
            [f"{name}={getattr(self, name)!r}" for name in ("id", "active", "bytes", "files", "changed")]
        )
        return f"Version({fields})"


def publish(
    name: str,
    source: str | os.PathLike[str],
    *,
    version: str | None = None,
    activate: bool = True,
    root: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> str:
    """Make a version of the model `name` from the file or folder `source`, and activate it; the version's id.

    The id is `version`, else it follows from the content: the same content is one version, copied once. A publication
    that was killed goes on where it was when it is started again. `progress` is called with (bytes done, bytes in all);
    every byte counts twice, once when it is digested and once when it is copied.

    Raises `ValueError` (a name or id that can't be one), `RootError`, `EfsStateError` (what can't be published, an id
    that has other content), `ClaimedError` (somebody still publishes the same content), `OSError`.
    """
    from efsstate.modelstore import publishing

    model = layout.model_folder(name)
    if version is not None and (why := manifests.bad_version(version)):
        raise ValueError(f"version {version!r} can't be used: {why}")
    mount = roots.resolve(root, durable=True)
    made = publishing.run(mount, model, publishing.Source(source), version, progress)
    if activate:
        _activate(mount, name, model, made.version)
    if events.wanted():
        events.emit("publish", name, version=made.version, bytes=made.size)
    return made.version


def activate(name: str, version: str, *, root: str | os.PathLike[str] | None = None) -> None:
    """Make `version` the one that is served: how a new one goes live, and how it is rolled back.

    Raises `ModelNotFound` (no such version), `CorruptEntryError` (its manifest is damaged), `ValueError`, `OSError`.
    """
    model = layout.model_folder(name)
    if why := manifests.bad_version(version):
        raise ValueError(f"version {version!r} can't be used: {why}")
    _activate(roots.resolve(root, durable=True), name, model, version)


def _activate(mount: Mount, name: str, model: str, version: str) -> None:
    made = _found(mount, name, model, version)
    before = _active(mount, model)
    if before == version:
        return
    # Stamped before CURRENT names it, so that no prune that looks meanwhile finds it inactive for long.
    mount.stamp(layout.version_folder(model, version), layout.MANIFEST)
    if before is not None:
        _leave(mount, model, before)
    store.write(mount, model, layout.CURRENT, made.encode(), codec=manifests.CODEC, durable=True)
    _found(mount, name, model, version)  # a prune that took it before it saw CURRENT puts it back, or this says so


def _leave(mount: Mount, model: str, version: str) -> None:
    """From now on `version` is inactive."""
    try:
        mount.stamp(layout.version_folder(model, version), layout.MANIFEST)
    except OSError as error:
        events.log("warning", "%s", error)  # it is missing, or another user's: prune judges it by its older stamp


def _found(mount: Mount, name: str, model: str, version: str) -> manifests.Manifest:
    mount.refresh(layout.version_folder(model, ""))
    try:
        return manifests.read(mount, model, version)
    except FileNotFoundError:
        there = ", ".join([one.id for one in _versions(mount, model)]) or "none"
        raise ModelNotFound(
            f"{mount.where(layout.version_folder(model, version))}: model {name!r} has no such version; it has: {there}"
        ) from None


def _active(mount: Mount, model: str) -> str | None:
    """The id that CURRENT names, as the server has it now; None where it is missing or damaged."""
    mount.refresh(model)
    try:
        return manifests.current(mount, model).version
    except FileNotFoundError:
        return None
    except CorruptEntryError as error:
        events.log("warning", "%s; no version counts as active", error)
        return None


def versions(name: str, *, root: str | os.PathLike[str] | None = None) -> list[Version]:
    """The versions of the model `name`, last published or (de)activated first. Raises `ModelNotFound`, `OSError`."""
    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True)
    found = _versions(mount, model)
    if not found:
        raise ModelNotFound(f"{mount.where(model)}: no version of model {name!r} is here: publish one")
    return found


def _versions(mount: Mount, model: str) -> list[Version]:
    active = _active(mount, model)
    found = []
    for entry in mount.scan(layout.version_folder(model, "")):
        version = entry.name
        if layout.is_temporary(version) or manifests.bad_version(version):
            continue
        size = files = 0
        problem = None
        try:
            made = manifests.read(mount, model, version)
            size, files = made.size, len(made.files)
        except FileNotFoundError:
            problem = "it has no manifest"
        except EfsStateError as error:
            problem = str(error)
        try:
            changed = mount.stat(layout.version_folder(model, version), layout.MANIFEST).st_mtime
        except OSError:
            changed = entry.stat(follow_symlinks=False).st_mtime
        one = Version(version, active=version == active, bytes=size, files=files, changed=changed, problem=problem)
        found.append(one)
    return sorted(found, key=lambda one: (one.changed, one.id), reverse=True)


def models(*, root: str | os.PathLike[str] | None = None) -> list[str]:
    """The names of the models below the root, those that were put there by hand too."""
    names = roots.resolve(root, durable=True).names(layout.MODELS)
    return sorted([layout.model_name(name) for name in names if name[0] != "."])


def verify(name: str, *, root: str | os.PathLike[str] | None = None) -> list[str]:
    """What is wrong with the model `name`, a text each: every byte of every version is read; empty if all is well."""
    raise NotImplementedError


def prune(
    name: str, *, keep: int = 2, grace: units.Duration = "24h", root: str | os.PathLike[str] | None = None
) -> list[str]:
    """Remove versions of the model `name` that nobody can be using; their ids.

    The active one stays, and the `keep` newest; of the rest those that have been inactive for `grace`, by the server's
    clock, go.
    """
    raise NotImplementedError(clock)
