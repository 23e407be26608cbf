"""The public functions for a model's versions: publish, activate, list, verify, prune."""

from __future__ import annotations

from functools import partial

from efsstate import events, units
from efsstate.errors import CorruptEntryError, EfsStateError, ModelNotFound
from efsstate.format import layout
from efsstate.modelstore import catalog
from efsstate.modelstore import manifest as manifests
from efsstate.modelstore.catalog import Version
from efsstate.modelstore.patterns import DEFAULT_EXCLUDE, Patterns
from efsstate.mount import clock
from efsstate.mount import root as roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from typing import Any

    from efsstate.modelstore.checking import Finding
    from efsstate.modelstore.hub_source import HubSource
    from efsstate.mount.files import Mount

    Progress = Callable[[int, int], object]
    Root = str | os.PathLike[str] | None

__all__ = [
    "Version",
    "activate",
    "models",
    "prune",
    "publish",
    "remove",
    "rollback",
    "verify",
    "versions",
]


def publish(
    name: str,
    source: str | os.PathLike[str] | None = None,
    *,
    hub: str | None = None,
    version: str | None = None,
    activate: bool = True,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = DEFAULT_EXCLUDE,
    meta: dict[str, Any] | None = None,
    progress: Progress | None = None,
    root: Root = None,
) -> str:
    """Publish the file or folder `source` as a version of the model `name`; return its id.

    hub: publish a repository of the Hugging Face hub in place of a source: "org/name", or
        "org/name@revision" (a branch, tag or commit; by default "main"). The extra `hub` is needed.
        Files are compared with the digests that the hub names. `meta` gets "hub" and "revision",
        the commit.
    version: the id; by default it follows from the content, so that the same content is one
        version, copied once.
    activate: also make it the version that is served.
    include, exclude: patterns of files of a folder, as in `fnmatch`. By default all are published,
        without leftovers of tools: `.git`, `.cache/huggingface`, lock files,
        `__pycache__`. `exclude=()` leaves nothing out.
    meta: values of your own that travel with the version (JSON, up to 16 KiB).
    progress: called with (bytes done, bytes in all). Every byte counts twice: once when it is
        digested and once when it is copied.

    A publication that was killed continues where it was when it is started again. A version that
    lacks its manifest or a file, or has one of another size, is made again; bytes are not compared.

    Raises `ValueError` for a bad name or id, `RootError`, `EfsStateError` for a source that cannot
    be published, an id that has other content, or a hub that refuses or breaks off, `ClaimedError`
    if another process still publishes the same content, `OSError`.
    """
    from efsstate.modelstore import publication
    from efsstate.modelstore.source import Source

    if (source is None) == (hub is None):
        raise TypeError(f"model {name!r}: pass a source, or hub='org/name@revision'")
    patterns = Patterns(include, exclude)

    open_source: Callable[[Mount, str], Source | HubSource]
    if source is not None:
        open_source = partial(Source, source, patterns=patterns)
    else:
        from efsstate.modelstore import hub_source

        open_source = partial(hub_source.open_source, str(hub), patterns)

    return publication.publish(
        name,
        open_source,
        version=version,
        is_activated=activate,
        meta=meta,
        progress=progress,
        root=root,
    )


def activate(
    name: str,
    version: str,
    *,
    label: str | None = None,
    share: float = 1.0,
    root: Root = None,
) -> None:
    """Make `version` the one that is served: how a version goes live, and how it is rolled back.

    label: serve it under this label, to `model(…, label=…)`, instead of by default.
    share: serve it to this part of the environments, beside the active version. Another call with
        a share changes it, one without completes it, and one for the active version ends it. Each
        environment draws once whether it belongs to the share.

    Raises `ModelNotFound` if the version does not exist, `CorruptEntryError` if its manifest is
    damaged or a file is missing or has another size (bytes are not compared), `EfsStateError` for a
    share beside no version, `ValueError`, `OSError`.
    """
    from efsstate.modelstore import activation

    model = layout.model_folder(name)
    manifests.require_version(version)
    _require_label(label)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise ValueError(f"share={share!r}: a part of the environments, above 0 and at most 1")
    mount = roots.resolve(root, durable=True)
    catalog.require_published(mount, name, model)
    manifest = _require_whole(mount, name, model, version)
    activation.activate(mount, name, model, manifest, label, float(share))


def rollback(name: str, *, label: str | None = None, root: Root = None) -> str:
    """Activate the version that was active before; end a canary if there is one. Return the id.

    Raises `ModelNotFound` if there is none before, and as `activate`.
    """
    from efsstate.modelstore import pointer

    model = layout.model_folder(name)
    _require_label(label)
    mount = roots.resolve(root, durable=True)
    catalog.require_published(mount, name, model)
    names = mount.names(layout.version_folder(model, ""))
    link = pointer.known_or_none(mount, model, label)
    version = link.previous if link else ""
    if link is not None and link.version and layout.canary_name(label) in names:
        # MUT: a-canary-that-ended-is-not-rolled-back
        canary = pointer.read_canary(mount, model, label, link.version)
        version = link.version if canary is not None else version
    if not version:
        path = mount.path_of(layout.version_folder(model, ""), layout.pointer_name(label))
        raise ModelNotFound(f"{path}: no version was active before; activate one by its id")
    activate(name, version, label=label, root=root)
    return version


def _require_label(label: str | None) -> None:
    if label is not None and (why := manifests.bad_label(label)):
        raise ValueError(f"label {label!r} can't be used: {why}")


def _require_whole(mount: Mount, name: str, model: str, version: str) -> manifests.Manifest:
    """Return the version's manifest; raise CorruptEntryError if a file is missing or was cut."""
    from efsstate.modelstore import activation, checking

    folder = layout.version_folder(model, version)

    def late() -> str:
        path = mount.path_of(folder)
        return f"{path}: the deadline came before all files were looked at; activate it again"

    manifest = catalog.find(mount, name, model, version)
    damage = checking.find_damage(mount, folder, manifest, late)
    if damage is not None:  # or a prune has it in its hands
        activation.wait_for(mount, name, model, version)
        manifest = catalog.find(mount, name, model, version)
        damage = checking.find_damage(mount, folder, manifest, late)
    if damage is not None:
        raise CorruptEntryError(damage[0], f"{damage[1]}; publish it again, or activate another")
    return manifest


def versions(name: str, *, root: Root = None) -> list[Version]:
    """Return the versions of the model `name`.

    The active one comes first, then those last published or (de)activated. Raises `ModelNotFound`,
    `OSError`.
    """
    return _list(name, root)[2]


def _list(name: str, root: Root) -> tuple[Mount, str, list[Version]]:
    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True, reading=True)
    catalog.require_published(mount, name, model)
    listed = catalog.list_versions(mount, model)
    if not listed:
        raise catalog.no_version(mount, name, model)
    return mount, model, listed


def is_unmanaged(name: str, *, root: Root = None) -> bool:
    """Return True if the model is more than a publication makes: an unmanaged file or folder."""
    try:
        model = layout.model_folder(name)
    except ValueError:
        return True  # no publication makes such a name
    mount = roots.resolve(root, durable=True, reading=True)
    return catalog.has_unmanaged_files(mount, model)


def models(*, root: Root = None) -> list[str]:
    """Return the names of the models below the root, unmanaged ones included."""
    mount = roots.resolve(root, durable=True, reading=True)
    names = [name for name, is_model in catalog.entries(mount) if is_model]
    names = [name for name in names if not catalog.is_removed(mount, f"{layout.MODELS}/{name}")]
    return sorted([layout.model_name(name) for name in names])


def strangers(*, root: Root = None) -> list[str]:
    """Return the paths below `models/` that cannot be a model: links, and names that none has."""
    mount = roots.resolve(root, durable=True, reading=True)
    names = [name for name, is_model in catalog.entries(mount) if not is_model]
    return sorted([mount.path_of(layout.MODELS, name) for name in names])


def verify(name: str, *, root: Root = None, progress: Progress | None = None) -> list[str]:
    """Read every byte of every version of the model `name`, and return a text for each fault.

    The list is empty if all is well. `progress` is called with (bytes done, bytes in all). Raises
    `ModelNotFound`, `OSError`.
    """
    return [": ".join(finding) for finding in findings(name, root=root, progress=progress)]


def findings(name: str, *, root: Root = None, progress: Progress | None = None) -> list[Finding]:
    """Like `verify`, but return each fault as (path, fault, remedy)."""
    from efsstate.modelstore import checking

    mount, model, listed = _list(name, root)
    return checking.check(mount, model, listed, progress)


def prune(
    name: str,
    *,
    keep: int = 2,
    grace: units.Duration = "24h",
    dry_run: bool = False,
    root: Root = None,
) -> list[str]:
    """Remove the versions of the model `name` that no environment can be using any more.

    Return their ids, newest first. `dry_run` removes nothing.

    keep: how many versions stay: the active one, and the newest others.
    grace: how long a version must have been inactive, by the server's clock, to be removed.
        Temporaries of killed publications go after it too.

    If no version is active, none is removed. A version that a newer release published stays, and
    so does everything that has no readable manifest of ours, and a version with files in its folder
    that were not published with it, which are logged. Raises `ModelNotFound`, `ValueError`,
    `OSError`.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: the active version always stays; pass 1 or more")
    removed, foreign = prune_own(name, keep=keep, grace=grace, dry_run=dry_run, root=root)
    _warn(name, foreign)
    return removed


def _warn(name: str, foreign: list[str]) -> None:
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        events.log(
            "warning",
            "%s%s: not removed, because no publication of model %r made it; move it away",
            ", ".join(foreign[:3]),
            more,
            name,
            kind="model",
            event="foreign",
            path=foreign[0],
        )


def prune_own(
    name: str, *, keep: int, grace: units.Duration, dry_run: bool, root: Root
) -> tuple[list[str], list[str]]:
    """Prune as `prune` does; return the ids, and the paths that stay because they are foreign."""
    from efsstate.modelstore import disposal, pruning

    seconds = units.seconds(grace, "grace")
    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True, reading=dry_run)
    catalog.require_published(mount, name, model)
    listed = catalog.list_versions(mount, model)
    is_empty = not listed and not disposal.temporaries(mount, model)
    if is_empty and not catalog.is_removed(mount, model):
        raise catalog.no_version(mount, name, model)
    return pruning.run(mount, model, listed, keep=keep, grace=seconds, dry_run=dry_run)


def remove(
    name: str, *, grace: units.Duration = "24h", dry_run: bool = False, root: Root = None
) -> list[str]:
    """Remove the model `name`: it is hidden from now on, and its versions go after the grace.

    Return the ids of the versions that went at once (with `dry_run`, that would go): those that
    were inactive for `grace`. Environments that have loaded one keep it. The others go with a later
    `prune` or sweep. Until then `activate` brings the model back; `publish` does at any time.

    Raises `ModelNotFound`, `EfsStateError` if unmanaged files have the model's name too,
    `ValueError`, `OSError`.
    """
    from efsstate.modelstore import activation, pruning

    seconds = units.seconds(grace, "grace")
    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True, reading=dry_run)
    catalog.require_published(mount, name, model)
    names = [name for name in mount.names(model) if not layout.is_temporary(name)]
    if foreign := sorted(set(names) - {layout.VERSIONS}):
        raise EfsStateError(
            f"{mount.path_of(model, foreign[0])}: unmanaged: no publication made it; move it away,"
            " then remove the model"
        )
    # A version of this very moment is older than no grace, whatever the clocks' ticks.
    seconds = seconds or -clock.TICK
    if dry_run:
        return pruning.choose_removed(mount, model, seconds)
    activation.withdraw(mount, model, has_grace=seconds > 0)
    if events.listeners:
        events.emit("model", "remove", name)
    listed = catalog.list_versions(mount, model)
    removed, foreign = pruning.run(mount, model, listed, keep=1, grace=seconds, dry_run=False)
    _warn(name, foreign)
    return removed


def leftovers(name: str, *, grace: units.Duration = "24h", root: Root = None) -> list[str]:
    """Return the paths of old temporaries, which `prune` removes besides versions."""
    from efsstate.modelstore import disposal

    model = layout.model_folder(name)
    mount = roots.resolve(root, durable=True, reading=True)
    catalog.require_published(mount, name, model)
    mount.ask_time(model)
    names = disposal.abandoned(mount, model, clock.now() - units.seconds(grace, "grace"))
    return [mount.path_of(layout.version_folder(model, ""), each) for each in names]
