"""The removal of versions that nobody can be using any more, and of what killed publications left."""

from __future__ import annotations

import stat

from efsstate import events
from efsstate.errors import CorruptEntryError, EfsStateError
from efsstate.format import layout
from efsstate.modelstore import manifest as manifests
from efsstate.modelstore import publishing
from efsstate.mount import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.versions import Version
    from efsstate.mount.files import Mount


def run(
    mount: Mount, model: str, found: list[Version], *, keep: int, grace: float, dry_run: bool
) -> list[str]:
    """Remove those of the versions `found` that are to go; their ids, newest first."""
    mount.ask_time(model)
    before = clock.now() - grace
    there = any(one.active for one in found)
    spare = (
        [one for one in found if not one.active and _is_known(mount, model, one)][keep - 1 :]
        if there
        else []
    )
    old = [one.id for one in spare if one.changed < before]
    gone = [version for version in old if dry_run or _take_away(mount, model, version, before)]
    if not dry_run:
        _clear(mount, model, before)
    return gone


def _is_known(mount: Mount, model: str, one: Version) -> bool:
    """Whether it is a version of ours, whole or damaged, and not a newer release's, or a stranger's file or folder."""
    if one.problem is None:
        return True
    try:
        manifests.look(mount, model, one.id)
    except (FileNotFoundError, EfsStateError):
        return False
    return True


def _take_away(mount: Mount, model: str, version: str, before: float) -> bool:
    """Remove the version, unless it was active since the server's time `before`, or is at this moment; whether it went."""
    above = layout.version_folder(model, "")
    gone = publishing.put_aside(mount, model, version)
    # Looked at after the rename, as `activate` looks for the version after it has written CURRENT: one of us sees it. Its
    # stamp last, which comes before CURRENT, and stays when another one was activated since.
    stays = True
    try:
        served = manifests.active(mount, model)
        # MUT: prune-looks-again-after-its-rename
        stays = (
            served is None
            or served.version == version
            or not _is_old(mount, f"{above}/{gone}", before)
        )
    finally:
        if stays:
            mount.rename(above, gone, above, version)
    if stays:
        return False
    publishing.remove(mount, above, gone)
    events.emit("prune", layout.model_name(model.rpartition("/")[2]), version=version)
    return True


def _is_old(mount: Mount, folder: str, before: float) -> bool:
    try:
        _, found = mount.read_stat(
            folder, layout.MANIFEST, 0
        )  # opened: that is when an NFS client asks for its time
    except FileNotFoundError:
        return False
    return found.st_mtime < before


def _clear(mount: Mount, model: str, before: float) -> None:
    """Remove it, unless somebody works in it."""
    above = layout.version_folder(model, "")
    for name in leftovers(mount, model, before):
        publishing.clear(mount, above, name)
    if not mount.names(above) and mount.remove_folder(above):  # nothing was ever published
        mount.remove_folder(model)


def leftovers(mount: Mount, model: str, before: float) -> list[str]:
    """The names of what killed publications and prunes left before the server's time `before`."""
    above = layout.version_folder(model, "")
    return sorted([name for name in left(mount, model) if _newest(mount, above, name) < before])


def left(mount: Mount, model: str) -> set[str]:
    """What killed publications, activations and prunes left, or running ones still need."""
    names = mount.names(layout.version_folder(model, ""))
    return {
        name.removesuffix(layout.LOCK_SUFFIX) for name in names if layout.is_being_published(name)
    }


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
            times += [
                entry.stat(follow_symlinks=False).st_mtime for entry in mount.scan(f"{above}/{one}")
            ]
    return max(times, default=0.0)
