"""Remove checkpoints and saves that the sweep may remove.

That is: saves which an owner left behind, and finished checkpoints past their ttl.
"""

from __future__ import annotations

import os
import time

from efsstate.checkpoints import claimant
from efsstate.checkpoints.protocol import CheckpointFolder, Superseded
from efsstate.eviction import removal
from efsstate.format import grammar, layout
from efsstate.mount import links, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from efsstate.checkpoints.saves import Save
    from efsstate.mount.files import Mount


def shard_indexes(names: list[str]) -> list[int]:
    """Return the indexes of the shards among the `names` of a checkpoint's folder."""
    parsed = filter(None, map(layout.parse_shard, names))
    return [index for kind, index, _ in parsed if kind == "s"]


def sweep(
    mount: Mount,
    folder: str,
    now: float,
    *,
    dry_run: bool = False,
    names: list[str] | None = None,
) -> Iterator[tuple[str, int]]:
    """Remove what may go of the checkpoint in `folder`, but not the saves of its shards.

    Yield ("generation" or "checkpoint", bytes) for each that was removed, or would be. `names` are
    those in the folder, if they are known; `now` is the server's clock. An unfinished checkpoint
    never goes, nor does one without a ttl, or one that is held. Raise OSError, and the errors of
    reading a checkpoint.
    """
    names = mount.names(folder) if names is None else names
    shards = shard_indexes(names)
    if layout.SHARDS in names:
        if _are_all_past(mount, folder, names, shards, now):
            removal.require_ours(mount, folder, grammar.checkpoint)
            yield "checkpoint", 0
            if not dry_run:
                _remove(mount, folder)
            return
    here = CheckpointFolder(mount, folder)
    newest = here.read_header(here.list())
    if newest is not None and _is_past(newest, now) and layout.SHARDS not in names:
        removal.require_ours(mount, folder, grammar.checkpoint)
        if dry_run or _remove_finished(here, now):
            yield "checkpoint", newest.size
    else:
        yield from _sweep_saves(here, dry_run=dry_run)


def _is_past(newest: Save, now: float) -> bool:
    return newest.finished and newest.ttl is not None and newest.created + newest.ttl < now


def sweep_saves(mount: Mount, folder: str, *, dry_run: bool) -> Iterator[tuple[str, int]]:
    """Remove the saves in `folder`, a checkpoint's or shard's, that the newest one outdates."""
    yield from _sweep_saves(CheckpointFolder(mount, folder), dry_run=dry_run)


def _sweep_saves(here: CheckpointFolder, *, dry_run: bool) -> Iterator[tuple[str, int]]:
    """Remove saves that are older than those which the newest one keeps."""
    listing = here.list()
    if len(listing.saves) < 2:
        return
    newest = here.find(listing, listing.top, 0)
    save = newest.save
    if save is None or not newest.decided or newest.lost is not None:
        return
    if here.list().top != listing.top:
        return
    oldest = min([save.key, *save.behind])
    for key in reversed(listing.saves):  # the oldest first: see CheckpointFolder.prune
        if key >= oldest:
            return
        name = layout.generation_name(*key)
        size = here.mount.stat(here.folder, name).st_size
        if not dry_run:
            here.mount.remove(here.folder, name)
        yield "generation", size


def _remove_finished(here: CheckpointFolder, now: float) -> bool:
    """Remove a finished checkpoint, with its lock held and a frozen owner fenced first."""
    mount, folder = here.mount, here.folder
    held_lock = lock.acquire(mount, folder, layout.LOCK, until=time.monotonic())
    if held_lock is None:
        return False
    try:
        _, newest = here.claim(claimant.describe(sweeps=True))
        if newest.save is None or not _is_past(newest.save, now):
            return False
        _remove(mount, folder)
    except Superseded:
        return False
    finally:
        held_lock.release()
    return True


def _remove(mount: Mount, folder: str) -> None:
    """Rename the folder away in one step, then remove it piece by piece."""
    parent, _, _ = folder.rpartition("/")
    away = f"{layout.TEMPORARY}{os.urandom(12).hex()}"
    mount.rename(parent, folder.rpartition("/")[2], parent, away)
    removal.remove_tree(mount, f"{parent}/{away}", grammar.checkpoint)
    mount.forget(folder)


def _are_all_past(
    mount: Mount, folder: str, names: list[str], shards: list[int], now: float
) -> bool:
    """Return True if all shards are finished, each past its ttl."""
    count = CheckpointFolder(mount, folder).read_link(layout.SHARDS)
    marks = set()
    for kind, index, signature in filter(None, map(layout.parse_shard, names)):
        if kind == "d" and f"{layout.shard_mark(index)}.{signature}" == links.mark(
            mount, folder, layout.shard_mark(index)
        ):
            marks.add(index)
    if not count.isdigit() or len(marks) < int(count):
        return False
    for index in shards:
        here = CheckpointFolder(mount, f"{folder}/s{index}")
        newest = here.read_header(here.list())
        if newest is None or not _is_past(newest, now):
            return False
    return bool(shards)
