"""Removal of versions and staging folders: no reader ever takes a half for the whole."""

from __future__ import annotations

import errno
import os
import stat

from efsstate import events, process
from efsstate.errors import CorruptEntryError, EfsStateError, ForeignFilesError
from efsstate.eviction import removal
from efsstate.format import grammar, layout
from efsstate.modelstore import manifest as manifests
from efsstate.mount import lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.format.grammar import Level
    from efsstate.mount.files import Mount

PARTS, FILES = "parts", "files"  # in a staging folder: files half copied, and whole ones
_GONE = f"{layout.TEMPORARY}gone-"
_GONE_FILES = f"{_GONE}-"  # of a publication: no id begins with "-"
_RANDOM = 8  # hexadecimal digits at the end of a name that was put aside


def put_aside(mount: Mount, model: str, version: str) -> str:
    """Rename the version to a temporary, and return its name."""
    above = layout.version_folder(model, "")
    aside = f"{_GONE}{version}-{os.urandom(4).hex()}"
    mount.forget(f"{above}/{version}", above=False)
    mount.rename(above, version, above, aside)
    return aside


def put_back(mount: Mount, model: str, aside: str, version: str) -> None:
    """Give a version that was put aside its name again, unless the name is taken by now."""
    above = layout.version_folder(model, "")
    try:
        mount.rename(above, aside, above, version, durable=True)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        mount.stamp(above, aside)


def remove_version(mount: Mount, above: str, aside: str) -> list[str]:
    """Remove a version that was put aside; return the paths in it that stay: not its own files.

    If no manifest tells which files are its own, all of them stay.
    """
    folder = f"{above}/{aside}"
    mount.refresh(above)
    level = own_files(mount, above, aside)
    if level is None:
        is_rest = mount.remove_folder(folder) or not _is_folder(mount, above, aside)
        return [] if is_rest else [mount.path_of(folder)]
    return removal.remove_tree(mount, folder, level).foreign


def own_files(mount: Mount, above: str, name: str) -> Level | None:
    """Return the level of the version `name`, which may be put aside; None if nothing tells it.

    For a damaged version that was put aside, the manifest of the one in its place tells it.
    """
    version = name.removeprefix(_GONE)[: -_RANDOM - 1] if name.startswith(_GONE) else name
    for folder in dict.fromkeys((name, version)):
        try:
            manifest = manifests.read_moved(mount, f"{above}/{folder}", f"{above}/{version}")
        except (FileNotFoundError, EfsStateError):
            continue
        folders = [f"{empty}/" for empty in manifest.folders]
        return grammar.listed([*manifest.files, *folders, layout.MANIFEST])
    return None


def foreign_files(mount: Mount, model: str, version: str) -> list[str]:
    """Return the paths in a version's folder that were not published with it."""
    above = layout.version_folder(model, "")
    # MUT: a-version-goes-without-the-files-of-others
    level = own_files(mount, above, version)
    if level is None:
        return [mount.path_of(above, version)] if _is_folder(mount, above, version) else []
    try:
        removal.require_ours(mount, f"{above}/{version}", level)
    except ForeignFilesError as error:
        return error.paths
    return []


def remove_older(mount: Mount, folder: str, name: str, before: float) -> None:
    """Remove the file `name` if it is older than the server's time `before`."""
    try:
        status = mount.stat(folder, name)
    except FileNotFoundError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_mtime < before:
        mount.remove(folder, name)


def staging_lock(staging: str) -> tuple[str, str]:
    """Return the folder and name of the lock of a staging folder.

    It lies beside it: an NFS client cannot remove a folder that has an open file in it.
    """
    above, _, name = staging.rpartition("/")
    return above, name + layout.LOCK_SUFFIX


def remove_staging(mount: Mount, above: str, name: str) -> list[str]:
    """Remove a staging folder, or the link of a killed activation, unless its lock is held.

    Return the paths that stay because they are not ours.
    """
    staging, foreign = f"{above}/{name}", list[str]()
    attempt = lock.attempt(mount, *staging_lock(staging))
    if attempt is not None:
        is_current = False
        try:
            if not _is_folder(mount, above, name):
                mount.remove(above, name)
            elif name.startswith(_GONE_FILES):
                removal.remove_tree(mount, staging, grammar.anything)
            elif name.startswith(_GONE):
                foreign = remove_version(mount, above, name)
            elif not remove_rest(mount, staging):
                foreign = [mount.path_of(staging, other) for other in mount.names(staging)]
            # MUT: a-removal-leaves-the-lock-of-another
            is_current = attempt.is_current()
        except OSError as error:
            log_remains(mount, staging, error)
        attempt.release(remove=is_current)
    return foreign


def remove_rest(mount: Mount, staging: str) -> bool:
    """Remove the files in a staging folder, and then the folder; return True if that went.

    Race with the next publisher of that content, if we are frozen for longer than a lease:

    1. We remove the files, one by one.
    2. It works in the same folder, and renames `files` to its version.

    Our open folders would follow that rename, and we would remove the version's files. So we first
    rename `files` to a name that no publisher uses: the other one then finds nothing to rename, and
    copies again.
    """
    above, _, name = staging.rpartition("/")
    mount.forget(staging, above=False)
    # The parts first: on a full disk, a new name may need the room.
    removal.remove_tree(mount, f"{staging}/{PARTS}", grammar.anything)
    aside = f"{_GONE_FILES}{name.removeprefix(layout.TEMPORARY)}-{os.urandom(4).hex()}"
    try:
        # MUT: files-are-put-aside-before-they-are-removed
        mount.rename(staging, FILES, above, aside)
    except FileNotFoundError:
        pass  # another publisher made its version of them; or it has none
    else:
        removal.remove_tree(mount, f"{above}/{aside}", grammar.anything)
    return mount.remove_folder(staging)


def _is_folder(mount: Mount, above: str, name: str) -> bool:
    mount.refresh(above)
    try:
        return stat.S_ISDIR(mount.stat(above, name).st_mode)
    except FileNotFoundError:
        return False


def log_remains(mount: Mount, staging: str, error: OSError) -> None:
    """Log that a staging folder could not be removed; raise what a signal handler raised."""
    process.raise_of_handler(error)
    path = mount.path_of(staging)
    events.log(
        "warning",
        "%s: the rest of a publication could not be removed: %s",
        path,
        error,
        kind="model",
        event="not_removed",
        path=path,
        error=type(error).__name__,
    )


def abandoned(mount: Mount, model: str, before: float) -> list[str]:
    """Return the temporaries that have not changed since the server's time `before`."""
    above = layout.version_folder(model, "")
    names = temporaries(mount, model)
    return sorted([name for name in names if _last_change(mount, above, name) < before])


def temporaries(mount: Mount, model: str) -> set[str]:
    """Return the temporaries of publications, activations and prunes, running or killed."""
    names = mount.names(layout.version_folder(model, ""))
    return {
        name.removesuffix(layout.LOCK_SUFFIX) for name in names if layout.is_being_published(name)
    }


def _last_change(mount: Mount, above: str, name: str) -> float:
    """Return when a staging folder was last changed, by the server's clock; 0 if it is gone."""
    times = []
    for path in (name, name + layout.LOCK_SUFFIX, f"{name}/parts"):
        folder, _, last = f"{above}/{path}".rpartition("/")
        try:
            status = mount.stat(folder, last)
        except (FileNotFoundError, CorruptEntryError):
            continue  # missing; or below a link that an activation left
        times.append(status.st_mtime)
        if stat.S_ISDIR(status.st_mode):
            times += [status.st_mtime for _, status in mount.statuses(f"{above}/{path}")]
    return max(times, default=0.0)
