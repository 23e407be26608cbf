"""Pruning: remove versions that no environment can be using any more, and abandoned temporaries."""

from __future__ import annotations

import os

from efsstate import events
from efsstate.errors import EfsStateError
from efsstate.format import layout
from efsstate.modelstore import catalog, disposal, users
from efsstate.modelstore import manifest as manifests
from efsstate.mount import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.catalog import Version
    from efsstate.mount.files import Mount


def run(
    mount: Mount, model: str, versions: list[Version], *, keep: int, grace: float, dry_run: bool
) -> tuple[list[str], list[str]]:
    """Remove expendable versions and old temporaries; return the ids, newest first.

    Also return the paths that keep a version, or a temporary, because they are not ours.
    """
    mount.ask_time(model)
    before = clock.now() - grace
    served = catalog.Served(mount, model)
    removed, foreign = list[str](), list[str]()
    for version in _choose(versions, served, keep, before):
        others = disposal.foreign_files(mount, model, version.id)
        foreign += others
        if not others and (dry_run or _remove_version(mount, model, version.id, before, foreign)):
            removed.append(version.id)
    if not dry_run:
        foreign += _remove_temporaries(mount, model, before)
        users.remove_old(mount, model, before)
        if served.is_removed:
            _remove_model(mount, model)
    return removed, foreign


def _choose(
    versions: list[Version],
    served: catalog.Served,
    keep: int,
    before: float,
) -> list[Version]:
    """Return the versions that no pointer names, that are beyond `keep`, and old enough."""
    has_active = served.is_removed or any(
        version.active and version.problem is None for version in versions
    )
    if served.named is None or not has_active:
        return []
    inactive = [v for v in versions if v.id not in served.named and v.problem is None]
    stay = 0 if served.is_removed else keep - 1  # the active one is among the `keep`
    return [version for version in inactive[stay:] if version.changed < before]


def choose_removed(mount: Mount, model: str, grace: float) -> list[str]:
    """Return the ids of the versions that would go at once if the model were removed."""
    mount.ask_time(model)
    served, before = catalog.Served(mount, model), clock.now() - grace
    in_use = served.named or set() if grace > 0 else set()
    versions = catalog.list_versions(mount, model)
    return [
        version.id
        for version in versions
        if version.id not in in_use and version.changed < before and version.problem is None
        if not disposal.foreign_files(mount, model, version.id)
    ]


def is_damaged(mount: Mount, model: str, version: Version) -> bool:
    """Return True if a version of ours has no readable manifest: nothing tells its files.

    A newer release's version, and a stranger's file or folder, are not damaged.
    """
    if version.problem is None:
        return False
    try:
        return manifests.read_or_none(mount, model, version.id) is None
    except (FileNotFoundError, EfsStateError):
        return False


def _remove_version(
    mount: Mount, model: str, version: str, before: float, foreign: list[str]
) -> bool:
    """Remove the version, unless it is or was active since `before`; return True if it went.

    Files of others that came meanwhile stay, and are added to `foreign`.
    """
    above = layout.version_folder(model, "")
    try:
        aside = disposal.put_aside(mount, model, version)
    except FileNotFoundError:
        return False  # another prune did
    # Race with `activation.activate`, which stamps the version, writes CURRENT, then checks that
    # the version exists. We have renamed it away, and now read CURRENT, then the stamp. Whichever
    # of us runs second sees the other's change. The stamp is read last: it outlives CURRENT if a
    # third version was activated since.
    must_stay = True
    try:
        named = catalog.Served(mount, model).named
        # MUT: prune-looks-again-after-its-rename
        must_stay = (
            named is None or version in named or not _is_old(mount, f"{above}/{aside}", before)
        )
    finally:
        if must_stay:
            mount.rename(above, aside, above, version)
    if must_stay:
        return False
    foreign += disposal.remove_version(mount, above, aside)
    events.emit("model", "prune", layout.model_name(model.rpartition("/")[2]), version=version)
    return True


def _is_old(mount: Mount, folder: str, before: float) -> bool:
    try:
        # Opened: that is when an NFS client asks the server for its time.
        _, status = mount.read_stat(folder, layout.MANIFEST, 0)
    except FileNotFoundError:
        return False
    return status.st_mtime < before


def _remove_temporaries(mount: Mount, model: str, before: float) -> list[str]:
    """Remove old temporaries, and the model's folder if nothing was published.

    Return the paths in them that are not ours.
    """
    foreign = []
    for name in filter(layout.is_temporary, mount.names(model)):
        disposal.remove_older(mount, model, name, before)  # an `ask_time` was killed
    above = layout.version_folder(model, "")
    for name in disposal.abandoned(mount, model, before):
        foreign += disposal.remove_staging(mount, above, name)
    if not mount.names(above) and mount.remove_folder(above):
        mount.remove_folder(model)
    return foreign


def _remove_model(mount: Mount, model: str) -> None:
    """Remove the folder of a removed model once nothing but its CURRENT is in it.

    Race with a publisher, which renames its version in, then writes CURRENT. We rename CURRENT
    away, and read the link we took: if it is a newer one, it gets its name again, unless that has
    been written once more.
    """
    above = layout.version_folder(model, "")
    if mount.names(above) != [layout.CURRENT]:
        return
    aside = layout.TEMPORARY + os.urandom(12).hex()
    tombstone = mount.readlink(above, layout.CURRENT)
    mount.rename(above, layout.CURRENT, above, aside)
    taken = mount.readlink(above, aside)
    # MUT: a-model-published-again-keeps-its-current
    if taken != tombstone:
        try:
            mount.symlink(above, layout.CURRENT, taken)
        except FileExistsError:
            pass
    mount.remove(above, aside)
    if mount.remove_folder(above):
        mount.remove_folder(model)
