"""Sweep a dataset: abandoned staged files, expired snapshots, and lists without a snapshot.

Parts are never swept: one that is yet to be frozen looks the same as one that is not needed.
"""

from __future__ import annotations

import stat

from efsstate.datasets import freezing
from efsstate.datasets.protocol import PartFolders
from efsstate.errors import CorruptEntryError, ForeignFilesError, SnapshotNotFound
from efsstate.eviction import removal
from efsstate.format import dataset_layout as layout
from efsstate.format import grammar

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from efsstate.mount.files import Mount

ABANDONED = 86_400.0  # seconds; a function runs for at most half an hour


def sweep(mount: Mount, folder: str, now: float, *, dry_run: bool) -> Iterator[tuple[str, int]]:
    """Remove abandoned and expired files of the dataset at `folder`; yield (reason, bytes).

    Raise ForeignFilesError at the end for names that the format does not define, which stay.
    """
    folders = PartFolders(mount, folder)
    foreign: list[str] = []
    yield from _sweep_snapshots(folders, now, foreign, dry_run=dry_run)
    staging = f"{folder}/staging"
    for process_id, status in mount.statuses(staging):
        if stat.S_ISDIR(status.st_mode) and layout.is_process(process_id):
            yield from _sweep_staging(folders, process_id, now, foreign, dry_run=dry_run)
        else:
            foreign.append(mount.path_of(staging, process_id))
    if foreign:
        raise ForeignFilesError(mount.path_of(folder), foreign)


def _sweep_staging(
    folders: PartFolders, process_id: str, now: float, foreign: list[str], *, dry_run: bool
) -> Iterator[tuple[str, int]]:
    mount, staging = folders.mount, folders.staging(process_id)
    youngest = 0.0
    for name, status in mount.statuses(staging):
        if not (removal.is_kept_kind(status) and layout.is_of_staged(name)):
            foreign.append(mount.path_of(staging, name))
            continue
        youngest = max(youngest, status.st_mtime)
        # MUT: only-abandoned-staged-files-are-swept
        if now - status.st_mtime >= ABANDONED:
            if not dry_run:
                foreign += _remove_staged(mount, f"{staging}/{name}", status)
            yield "temporary", status.st_size
    if not dry_run and now - max(youngest, _age_of(mount, staging)) >= ABANDONED:
        mount.remove_folder(staging)  # it stays if its process has begun another part


def _remove_staged(mount: Mount, path: str, status: os.stat_result) -> list[str]:
    """Remove a staged file, or the folder that a library made of it; return what is not ours."""
    if stat.S_ISDIR(status.st_mode):
        return removal.remove_tree(mount, path, grammar.anything).foreign
    above, _, name = path.rpartition("/")
    mount.remove(above, name)
    return []


def _age_of(mount: Mount, folder: str) -> float:
    status = mount.refresh(folder)
    return 0.0 if status is None else status.st_mtime


def _sweep_snapshots(
    folders: PartFolders, now: float, foreign: list[str], *, dry_run: bool
) -> Iterator[tuple[str, int]]:
    mount = folders.mount
    lists, kept, are_all_read = {}, set(), True
    for name, status in mount.statuses(folders.snapshots):
        if layout.is_list(name):
            lists[name] = status
        elif not stat.S_ISLNK(status.st_mode):
            foreign.append(mount.path_of(folders.snapshots, name))
        else:
            frozen = _read_link(folders, name)
            if frozen is None:
                are_all_read = False
                continue
            if frozen.expires and frozen.expires <= now:
                if not dry_run:
                    freezing.forget(folders, frozen.name)
                yield "snapshot", 0
            kept.add(frozen.list)
    if not are_all_read:
        return  # the unreadable snapshot may be the one that needs a list
    for name, status in lists.items():
        # MUT: a-list-in-use-is-not-swept
        if name not in kept and now - status.st_mtime >= ABANDONED:
            if not dry_run:
                mount.remove(folders.snapshots, name)
            yield "temporary", status.st_size


def _read_link(folders: PartFolders, safe: str) -> freezing.Frozen | None:
    try:
        return freezing.read_head(folders, safe)
    except (CorruptEntryError, SnapshotNotFound):
        return None
