"""The versions of a model: published, activated, listed, verified, and removed when nobody can use them any more."""

from __future__ import annotations

import stat
import time

from efsstate import events, units
from efsstate.errors import CorruptEntryError, EfsStateError, ModelNotFound
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.mount import clock
from efsstate.mount import root as roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

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
            [
                f"{name}={getattr(self, name)!r}"
                for name in ("id", "active", "bytes", "files", "changed")
            ]
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

    The id is `version`, else it follows from the content: the same content is one version, copied once. One that lacks
    its manifest or a file, or has one of another size, is made anew; its bytes are not compared. A publication that was
    killed goes on where it was when it is started again. `progress` is called with (bytes done, bytes in all):
    every byte counts twice, once when it is digested and once when it is copied.

    Raises `ValueError` (a name or id that can't be one), `RootError`, `EfsStateError` (what can't be published, an id
    that has other content), `ClaimedError` (somebody still publishes the same content), `OSError`.
    """
    from efsstate.modelstore import publishing

    model = layout.model_folder(name)
    if version is not None and (why := manifests.bad_version(version)):
        raise ValueError(f"version {version!r} can't be used: {why}")
    mount = roots.resolve(root, durable=True)
    try:
        made = publishing.run(
            mount, model, publishing.Source(source, mount, model), version, progress
        )
    except CorruptEntryError:
        if (kind := _kind(mount, model)) and not stat.S_ISDIR(kind):
            raise EfsStateError(
                f"{mount.path_of(model)}: can't be published: a file or link that was put there by hand has this name: move"
                " it away, or publish under another name"
            ) from None
        raise
    if activate:
        _activate(mount, name, model, made.version)
    else:
        _stamp(mount, model, made.version)  # it may have been there for long: its grace begins anew
        _await(mount, name, model, made.version)
    if events.listeners:
        events.emit("publish", name, version=made.version, bytes=made.size)
    return made.version


def activate(name: str, version: str, *, root: str | os.PathLike[str] | None = None) -> None:
    """Make `version` the one that is served: how a new one goes live, and how it is rolled back.

    Raises `ModelNotFound` (no such version), `CorruptEntryError` (its manifest is damaged, or a file is missing or has
    another size; its bytes are not compared), `ValueError`, `OSError`.
    """
    model = layout.model_folder(name)
    if why := manifests.bad_version(version):
        raise ValueError(f"version {version!r} can't be used: {why}")
    mount = roots.resolve(root, durable=True)
    _demand_published(mount, name, model)
    _demand_whole(mount, name, model, version)
    _activate(mount, name, model, version)


def _demand_whole(mount: Mount, name: str, model: str, version: str) -> None:
    from efsstate.modelstore import checking

    folder = layout.version_folder(model, version)

    def late() -> str:
        return f"{mount.path_of(folder)}: not all of its files were looked at when the deadline came: activate it again"

    wrong = checking.lacking(mount, folder, _found(mount, name, model, version), late)
    if wrong is not None:  # or a prune has it in its hands
        _await(mount, name, model, version)
        wrong = checking.lacking(mount, folder, _found(mount, name, model, version), late)
    if wrong is not None:
        raise CorruptEntryError(wrong[0], f"{wrong[1]}: publish it again, or activate another")


def _activate(mount: Mount, name: str, model: str, version: str) -> None:
    made = _found(mount, name, model, version)
    now = manifests.active(mount, model)
    if now is not None and now.encode() == made.encode():
        return
    # Where it is not known what was active until now, it may have been any of them.
    before = [now.version] if now is not None else mount.names(layout.version_folder(model, ""))
    # Stamped before CURRENT names it, so that no prune that looks meanwhile finds it inactive for long.
    try:
        mount.stamp(layout.version_folder(model, version), layout.MANIFEST)
    except FileNotFoundError:
        _found(mount, name, model, version)  # a prune took it this moment: says so
    for other in before:
        if other != version and not manifests.bad_version(other):
            _stamp(mount, model, other)
    manifests.set_current(mount, model, made)
    # A prune that took it before it saw CURRENT puts it back now; one that looked before we wrote does not.
    try:
        _await(mount, name, model, version)
    except ModelNotFound:
        if now is not None and now.version != version:
            _activate(mount, name, model, now.version)
        raise


def _await(mount: Mount, name: str, model: str, version: str) -> None:
    """Look until `version` is there, for a prune may have it in its hands; `ModelNotFound` if it took it."""
    for attempt in range(_TRIES):
        try:
            _found(mount, name, model, version)
        except ModelNotFound:
            if attempt + 1 == _TRIES:
                raise
            time.sleep(0.05)
        else:
            return


def _stamp(mount: Mount, model: str, version: str) -> None:
    """Have its grace begin now."""
    try:
        mount.stamp(layout.version_folder(model, version), layout.MANIFEST)
    except (OSError, CorruptEntryError) as error:
        events.log(
            "warning", "%s", error
        )  # it is missing, or another user's: prune judges it by its older stamp


def _found(mount: Mount, name: str, model: str, version: str) -> manifests.Manifest:
    try:
        return manifests.read(mount, model, version)
    except FileNotFoundError:
        there = ", ".join([one.id for one in _versions(mount, model)]) or "none"
        raise ModelNotFound(
            f"{mount.path_of(layout.version_folder(model, version))}: model {name!r} has no such version; it has: {there}"
        ) from None


def versions(name: str, *, root: str | os.PathLike[str] | None = None) -> list[Version]:
    """The versions of the model `name`: the active one, then those last published or (de)activated. Raises `ModelNotFound`, `OSError`."""
    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True, reading=True)
    _demand_published(mount, name, model)
    found = _versions(mount, model)
    if not found:
        raise _no_version(mount, name, model)
    return found


def _no_version(mount: Mount, name: str, model: str) -> ModelNotFound:
    return ModelNotFound(
        f"{mount.path_of(model)}: no version of model {name!r} is here: publish one"
    )


def _kind(mount: Mount, model: str) -> int:
    """The mode of what has the model's name, 0 if nothing has."""
    above, _, last = model.rpartition("/")
    mount.refresh(above)
    try:
        return mount.stat(above, last).st_mode
    except FileNotFoundError:
        return 0


def by_hand(name: str, *, root: str | os.PathLike[str] | None = None) -> bool:
    """Whether what has the model's name is more than what a publication makes: put there by hand, it serves as it is."""
    try:
        model = layout.model_folder(name)
    except ValueError:
        return True  # no publication makes such a name
    mount = roots.resolve(root, durable=True, reading=True)
    return stat.S_ISREG(_kind(mount, model)) or not set(mount.names(model)) <= {layout.VERSIONS}


def _demand_published(mount: Mount, name: str, model: str) -> None:
    """`ModelNotFound` where what has the model's name can't have versions: put there by hand, or no model at all."""
    kind = _kind(mount, model)
    if not kind:
        raise _no_version(mount, name, model)
    if stat.S_ISDIR(kind):
        names = set(mount.names(model))
        if names <= {layout.VERSIONS} or (
            layout.VERSIONS in names and manifests.ours(mount, model)
        ):
            return
    elif not stat.S_ISREG(kind):
        raise ModelNotFound(f"{mount.path_of(model)}: no model: neither a file nor a folder")
    raise ModelNotFound(f"{mount.path_of(model)}: put there by hand: it has no versions")


def _versions(mount: Mount, model: str) -> list[Version]:
    made = manifests.active(mount, model)
    active = None if made is None else made.version
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
            problem = f"{mount.path_of(layout.version_folder(model, version), layout.MANIFEST)}: missing: it has no manifest"
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
        one = Version(
            version,
            active=version == active,
            bytes=size,
            files=files,
            changed=changed,
            problem=problem,
        )
        found.append(one)
    return sorted(found, key=lambda one: (one.active, one.changed, one.id), reverse=True)


def models(*, root: str | os.PathLike[str] | None = None) -> list[str]:
    """The names of the models below the root, those that were put there by hand too; nothing that can't be loaded by one."""
    return sorted([layout.model_name(name) for name, well in _entries(root) if well])


def strangers(*, root: str | os.PathLike[str] | None = None) -> list[str]:
    """The paths of what is among the models and can't be one: a link, or a name that no model can have."""
    where = roots.resolve(root, durable=True, reading=True).path_of
    return sorted([where(layout.MODELS, name) for name, well in _entries(root) if not well])


def _entries(root: str | os.PathLike[str] | None) -> Iterator[tuple[str, bool]]:
    """What is among the models, and whether it can be one; but for what is hidden."""
    for entry in roots.resolve(root, durable=True, reading=True).scan(layout.MODELS):
        if entry.name[0] != ".":
            try:
                named = layout.model_component(layout.model_name(entry.name)) == entry.name
            except ValueError:
                named = False
            yield (
                entry.name,
                named
                and (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)),
            )


def verify(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[str]:
    """What is wrong with the model `name` and what to do, a text each, every byte of every version read; empty if all is well.

    `progress` is called with (bytes done, bytes in all). Raises `ModelNotFound`, `OSError`.
    """
    return [": ".join(one) for one in findings(name, root=root, progress=progress)]


def findings(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[tuple[str, str, str]]:
    """The same, each as (path, what is wrong there, what to do)."""
    from efsstate.modelstore import checking

    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True, reading=True)
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
    inactive for `grace`, by the server's clock. Without an active version none goes; nor does one that a newer release
    published, or what has no manifest of ours. What killed publications left goes after `grace`, too. `dry_run` removes
    nothing. Raises `ModelNotFound`, `ValueError`, `OSError`.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: the active version always stays, so it is 1 at the least")
    from efsstate.modelstore import pruning

    seconds = units.seconds(grace, "grace")
    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True, reading=dry_run)
    _demand_published(mount, name, model)
    found = _versions(mount, model)
    if not found and not pruning.left(mount, model):
        raise _no_version(mount, name, model)
    return pruning.run(mount, model, found, keep=keep, grace=seconds, dry_run=dry_run)


def leftovers(
    name: str, *, grace: units.Duration = "24h", root: str | os.PathLike[str] | None = None
) -> list[str]:
    """The paths of what publications of the model `name` left, and `prune` removes besides versions."""
    from efsstate.modelstore import pruning

    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True, reading=True)
    _demand_published(mount, name, model)
    mount.ask_time(model)
    found = pruning.leftovers(mount, model, clock.now() - units.seconds(grace, "grace"))
    return [mount.path_of(layout.version_folder(model, ""), each) for each in found]
