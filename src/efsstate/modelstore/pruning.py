"""Pruning: remove versions that no environment can be using any more, and abandoned temporaries."""

from __future__ import annotations

from efsstate import events
from efsstate.errors import EfsStateError
from efsstate.format import layout
from efsstate.modelstore import disposal, pointer
from efsstate.modelstore import manifest as manifests
from efsstate.mount import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.catalog import Version
    from efsstate.mount.files import Mount


def run(
    mount: Mount, model: str, versions: list[Version], *, keep: int, grace: float, dry_run: bool
) -> list[str]:
    """Remove what is to go of `versions` and of the temporaries; return the ids, newest first."""
    mount.ask_time(model)
    before = clock.now() - grace
    expendable: list[Version] = []
    if any(version.active for version in versions):
        inactive = [v for v in versions if not v.active and _is_known(mount, model, v)]
        expendable = [v for v in inactive[keep - 1 :] if v.changed < before]
    removed = [v.id for v in expendable if dry_run or _remove_version(mount, model, v.id, before)]
    if not dry_run:
        _remove_temporaries(mount, model, before)
    return removed


def _is_known(mount: Mount, model: str, version: Version) -> bool:
    """Return True if it is a version of ours, whole or damaged.

    A newer release's version, and a stranger's file or folder, are not.
    """
    if version.problem is None:
        return True
    try:
        manifests.read_or_none(mount, model, version.id)
    except (FileNotFoundError, EfsStateError):
        return False
    return True


def _remove_version(mount: Mount, model: str, version: str, before: float) -> bool:
    """Remove the version, unless it is or was active since `before`; return True if it went."""
    above = layout.version_folder(model, "")
    aside = disposal.put_aside(mount, model, version)
    # Race with `activation.activate`, which stamps the version, writes CURRENT, then checks that
    # the version exists. We have renamed it away, and now read CURRENT, then the stamp. Whichever
    # of us runs second sees the other's change. The stamp is read last: it outlives CURRENT if a
    # third version was activated since.
    must_stay = True
    try:
        active = pointer.read_or_none(mount, model)
        # MUT: prune-looks-again-after-its-rename
        must_stay = (
            active is None
            or active.version == version
            or not _is_old(mount, f"{above}/{aside}", before)
        )
    finally:
        if must_stay:
            mount.rename(above, aside, above, version)
    if must_stay:
        return False
    disposal.remove(mount, above, aside)
    events.emit("model", "prune", layout.model_name(model.rpartition("/")[2]), version=version)
    return True


def _is_old(mount: Mount, folder: str, before: float) -> bool:
    try:
        # Opened: that is when an NFS client asks the server for its time.
        _, status = mount.read_stat(folder, layout.MANIFEST, 0)
    except FileNotFoundError:
        return False
    return status.st_mtime < before


def _remove_temporaries(mount: Mount, model: str, before: float) -> None:
    """Remove what killed publications left, and the model's folder if nothing was published."""
    above = layout.version_folder(model, "")
    for name in disposal.abandoned(mount, model, before):
        disposal.remove_staging(mount, above, name)
    if not mount.names(above) and mount.remove_folder(above):
        mount.remove_folder(model)
