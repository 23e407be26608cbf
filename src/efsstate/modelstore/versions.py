"""The versions of a model: published, activated, listed, verified, and removed when nobody can use them any more."""

from __future__ import annotations

import stat
import time

from efsstate import events, units
from efsstate.errors import CorruptEntryError, EfsStateError, ModelNotFound
from efsstate.modelstore import manifest as manifests
from efsstate.mount import clock, layout
from efsstate.mount import root as roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from efsstate.mount.files import Mount


_TRIES = 20  # looks for a version that was there and is not, 0.05 s apart


class Version:
    """One version: `id`, `active`, `bytes`, `files` (how many), `changed` (published or last (de)activated, seconds since the epoch by the server's clock), `problem` (why it can't be used; None if it can)."""

    __slots__ = ("active", "bytes", "changed", "files", "id", "problem")

    def __init__(
        self,
        id: str,  # noqa: A002
        *,
        active: bool,
        bytes: int,  # noqa: A002
        files: int,
        changed: float,
        problem: str | None,
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
    if events.listeners:
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
    now = _current(mount, model)
    if now is not None and now.encode() == made.encode():
        return
    before = now.version if now is not None else None
    # Stamped before CURRENT names it, so that no prune that looks meanwhile finds it inactive for long.
    try:
        mount.stamp(layout.version_folder(model, version), layout.MANIFEST)
    except FileNotFoundError:
        _found(mount, name, model, version)  # a prune took it this moment: says so
    if before is not None and before != version:
        _leave(mount, model, before)
    manifests.set_current(mount, model, made)
    # A prune that took it before it saw CURRENT puts it back now; one that looked before we wrote does not.
    for attempt in range(_TRIES):
        try:
            _found(mount, name, model, version)
        except ModelNotFound:
            if attempt + 1 == _TRIES:
                if before is not None and before != version:
                    _activate(mount, name, model, before)
                raise
            time.sleep(0.05)
        else:
            return


def _leave(mount: Mount, model: str, version: str) -> None:
    """From now on `version` is inactive."""
    try:
        mount.stamp(layout.version_folder(model, version), layout.MANIFEST)
    except (OSError, CorruptEntryError) as error:
        events.log("warning", "%s", error)  # it is missing, or another user's: prune judges it by its older stamp


def _found(mount: Mount, name: str, model: str, version: str) -> manifests.Manifest:
    try:
        return manifests.read(mount, model, version)
    except FileNotFoundError:
        there = ", ".join([one.id for one in _versions(mount, model)]) or "none"
        raise ModelNotFound(
            f"{mount.where(layout.version_folder(model, version))}: model {name!r} has no such version; it has: {there}"
        ) from None


def _active(mount: Mount, model: str) -> str | None:
    """The id that CURRENT names, as the server has it now; None where it is missing or damaged."""
    made = _current(mount, model)
    return None if made is None else made.version


def _current(mount: Mount, model: str) -> manifests.Manifest | None:
    mount.refresh(layout.version_folder(model, ""))
    try:
        return manifests.current(mount, model)
    except FileNotFoundError:
        return None
    except CorruptEntryError as error:
        events.log("warning", "%s; no version counts as active", error)
        return None


def versions(name: str, *, root: str | os.PathLike[str] | None = None) -> list[Version]:
    """The versions of the model `name`: the active one, then those last published or (de)activated. Raises `ModelNotFound`, `OSError`."""
    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True)
    found = _versions(mount, model)
    if not found:
        raise _no_version(mount, name, model)
    return found


def _no_version(mount: Mount, name: str, model: str) -> ModelNotFound:
    return ModelNotFound(f"{mount.where(model)}: no version of model {name!r} is here: publish one")


def _versions(mount: Mount, model: str) -> list[Version]:
    active = _active(mount, model)
    found = []
    for entry in mount.scan(layout.version_folder(model, "")):
        version = entry.name
        if manifests.bad_version(version):  # CURRENT, and what is being published
            continue
        size = files = 0
        problem = None
        try:
            made = manifests.read(mount, model, version)
            size, files = made.size, len(made.files)
        except FileNotFoundError:
            problem = (
                f"{mount.where(layout.version_folder(model, version), layout.MANIFEST)}: missing: it has no manifest"
            )
        except EfsStateError as error:
            problem = str(error)
        try:
            changed = mount.stat(layout.version_folder(model, version), layout.MANIFEST).st_mtime
        except (FileNotFoundError, CorruptEntryError):
            # Any other error is told: a version whose age is not known must not be taken for old.
            try:
                changed = entry.stat(follow_symlinks=False).st_mtime
            except FileNotFoundError:
                continue  # a prune took it meanwhile
        one = Version(version, active=version == active, bytes=size, files=files, changed=changed, problem=problem)
        found.append(one)
    return sorted(found, key=lambda one: (one.active, one.changed, one.id), reverse=True)


def models(*, root: str | os.PathLike[str] | None = None) -> list[str]:
    """The names of the models below the root, those that were put there by hand too."""
    names = roots.resolve(root, durable=True).names(layout.MODELS)
    return sorted([layout.model_name(name) for name in names if name[0] != "."])


def verify(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[str]:
    """What is wrong with the model `name`, a text each, every byte of every version read; empty if all is well.

    `progress` is called with (bytes done, bytes in all). Raises `ModelNotFound`, `OSError`.
    """
    from efsstate.modelstore import checking

    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True)
    return checking.check(mount, model, versions(name, root=root), progress)


def prune(
    name: str,
    *,
    keep: int = 2,
    grace: units.Duration = "24h",
    dry_run: bool = False,
    root: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Remove the versions of the model `name` that nobody can be using any more; their ids, newest first.

    The active one stays, and so do as many of the newest as make it `keep` in all; the others go once they have been
    inactive for `grace`, by the server's clock. Without an active version none goes. What killed publications left goes
    after `grace`, too. `dry_run` removes nothing. Raises `ModelNotFound`, `ValueError`, `OSError`.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: the active version always stays, so it is 1 at the least")
    left = units.seconds(grace, "grace")
    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True)
    found = _versions(mount, model)
    if not found and not _left(mount, model):
        raise _no_version(mount, name, model)
    mount.ask_time(model)
    now = clock.now()
    spare = [one for one in found if not one.active][keep - 1 :] if any(one.active for one in found) else []
    old = [one.id for one in spare if now - one.changed > left]
    gone = [version for version in old if dry_run or _take_away(mount, model, version)]
    if not dry_run:
        _clear(mount, model, now - left)
    return gone


def _take_away(mount: Mount, model: str, version: str) -> bool:
    """Remove the version, unless it is activated at this moment; whether it went."""
    from efsstate.modelstore import publishing

    above = layout.version_folder(model, "")
    gone = f"{layout.TEMPORARY}gone-{version}"
    mount.forget(f"{above}/{version}")
    mount.rename(above, version, above, gone)
    # Looked at after the rename, as `activate` looks for the version after it has written CURRENT: one of us sees it.
    if _active(mount, model) in (version, None):
        mount.rename(above, gone, above, version)
        return False
    publishing.remove(mount, above, gone)
    events.emit("prune", layout.model_name(model.rpartition("/")[2]), version=version)
    return True


def _clear(mount: Mount, model: str, before: float) -> None:
    """Remove what killed publications and prunes left before the server's time `before`."""
    from efsstate.modelstore import publishing

    above = layout.version_folder(model, "")
    for name in _left(mount, model):
        if _newest(mount, above, name) < before:
            publishing.clear(mount, above, name)
    if not mount.names(above) and mount.remove_folder(above):  # nothing was ever published
        mount.remove_folder(model)


def _left(mount: Mount, model: str) -> set[str]:
    """What killed publications, activations and prunes left, or running ones still need."""
    names = mount.names(layout.version_folder(model, ""))
    return {name.removesuffix(layout.LOCK_SUFFIX) for name in names if layout.is_temporary(name)}


def _newest(mount: Mount, above: str, name: str) -> float:
    """When something was last done in a staging folder."""
    times = []
    for one in (name, name + layout.LOCK_SUFFIX, f"{name}/parts"):
        folder, _, last = f"{above}/{one}".rpartition("/")
        try:
            found = mount.stat(folder, last)
        except (FileNotFoundError, CorruptEntryError):
            continue  # no such thing, or not in a folder: a link that an activation left
        times.append(found.st_mtime)
        if stat.S_ISDIR(found.st_mode):
            times += [entry.stat(follow_symlinks=False).st_mtime for entry in mount.scan(f"{above}/{one}")]
    return max(times, default=0.0)
