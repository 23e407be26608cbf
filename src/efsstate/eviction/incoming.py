"""Copies from S3 under way below `shared-data/`: which of them are abandoned, and their removal."""

from __future__ import annotations

from efsstate import process
from efsstate.errors import CorruptEntryError
from efsstate.eviction import removal
from efsstate.format import grammar, layout
from efsstate.mount import clock, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from efsstate.mount.files import Mount

ABANDONED = 86400.0  # seconds without progress, by the server's clock


def abandoned(mount: Mount) -> Iterator[str]:
    """Yield the folder of each copy that no call has continued for a day."""
    names = sorted(filter(layout.is_incoming, mount.names(layout.SHARED)))
    if not names:
        return
    mount.ask_time(layout.SHARED)
    for name in names:
        folder = f"{layout.SHARED}/{name}"
        try:
            if _last_progress(mount, folder) < clock.now() - ABANDONED:
                yield folder
        except (OSError, CorruptEntryError) as error:
            process.raise_of_handler(error)
            continue  # removed meanwhile; or a file or a link, which no copy makes


def _last_progress(mount: Mount, folder: str) -> float:
    """Return when a call last noted its progress; before the first note, when the copy began.

    A call that was killed as it began, or as it cleaned up, leaves neither a note nor a lock file:
    then return when the copy's folder or its `files` last changed.
    """
    for name in ("PROGRESS", layout.LOCK):
        try:
            return mount.stat(folder, name).st_mtime
        except FileNotFoundError:
            continue
    above, _, last = folder.rpartition("/")
    changed = mount.stat(above, last).st_mtime
    try:
        # MUT: a-copy-that-changes-is-not-abandoned
        return max(changed, mount.stat(folder, "files").st_mtime)
    except FileNotFoundError:
        return changed


def remove_abandoned(mount: Mount, *, keep: str = "") -> int:
    """Remove the abandoned copies, except the folder `keep`; return the bytes that were freed."""
    return sum([remove_unused(mount, folder) for folder in abandoned(mount) if folder != keep])


def remove_unused(mount: Mount, folder: str) -> int:
    """Remove a copy unless a call holds its lock; return the bytes that were freed."""
    attempt = lock.attempt(mount, folder, layout.LOCK)
    if attempt is None:
        return 0
    try:
        return remove(mount, folder)
    finally:
        attempt.release()
        mount.remove_folder(folder)  # if empty: an NFS client cannot while the lock's file is open


def remove(mount: Mount, folder: str) -> int:
    """Remove a copy while the caller holds its lock; return the bytes that were freed."""
    # First: if this call is killed, the next one must not continue the copy after the files that
    # are gone.
    # MUT: progress-is-removed-before-the-files
    mount.remove(folder, "PROGRESS")
    return removal.remove_tree(mount, folder, grammar.incoming).size
