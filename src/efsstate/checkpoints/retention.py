"""What the sweep may remove of checkpoints: saves that an owner left behind, and finished ones past their ttl."""

from __future__ import annotations

import os
import time

from efsstate.checkpoints import claimant
from efsstate.checkpoints.protocol import Folder, Superseded
from efsstate.eviction import removal
from efsstate.format import grammar, layout
from efsstate.mount import links, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from efsstate.checkpoints.saves import Save
    from efsstate.mount.files import Mount


def sweep(
    mount: Mount, folder: str, now: float, *, dry_run: bool = False
) -> Iterator[tuple[str, int]]:
    """("generation" or "checkpoint", bytes) of each save or checkpoint in `folder` that was removed, or would be.

    `now`: seconds since the epoch by the server's clock. An unfinished checkpoint never goes, nor does one without a ttl
    or one that somebody holds. Raises `OSError` and what reading a checkpoint raises.
    """
    names = mount.names(folder)
    shards = [
        index for kind, index, _ in filter(None, map(layout.parse_shard, names)) if kind == "s"
    ]
    if layout.SHARDS in names:
        if _all_past(mount, folder, names, shards, now):
            removal.require_ours(mount, folder, grammar.checkpoint)
            yield "checkpoint", 0
            if not dry_run:
                _remove(mount, folder)
            return
        for index in shards:
            yield from _sweep_saves(Folder(mount, f"{folder}/s{index}"), dry_run=dry_run)
    here = Folder(mount, folder)
    newest = here.glance(here.look())
    if newest is not None and _is_past(newest, now) and layout.SHARDS not in names:
        removal.require_ours(mount, folder, grammar.checkpoint)
        if dry_run or _remove_finished(here, now):
            yield "checkpoint", newest.size
    else:
        yield from _sweep_saves(here, dry_run=dry_run)


def _is_past(newest: Save, now: float) -> bool:
    return newest.finished and newest.ttl is not None and newest.created + newest.ttl < now


def _sweep_saves(here: Folder, *, dry_run: bool) -> Iterator[tuple[str, int]]:
    """Saves that are older than those that the newest one says are kept."""
    at = here.look()
    if len(at.generations) < 2:
        return
    found = here.find(at, at.top, 0)
    newest = found.generation
    if newest is None or not found.decided or found.lost is not None or here.look().top != at.top:
        return
    oldest = min([newest.key, *newest.behind])
    for key in reversed(at.generations):  # the oldest first: see Folder.prune
        if key >= oldest:
            return
        name = layout.generation_name(*key)
        size = here.mount.stat(here.folder, name).st_size
        if not dry_run:
            here.mount.remove(here.folder, name)
        yield "generation", size


def _remove_finished(here: Folder, now: float) -> bool:
    """Remove a finished checkpoint, with its lock held and whoever is frozen in it fenced first."""
    mount, folder = here.mount, here.folder
    held = lock.acquire(mount, folder, layout.LOCK, until=time.monotonic())
    if held is None:
        return False
    try:
        _, found = here.claim(claimant.describe(sweeps=True))
        if found.generation is None or not _is_past(found.generation, now):
            return False
        _remove(mount, folder)
    except Superseded:
        return False
    finally:
        here.release()
        held.release()
    return True


def _remove(mount: Mount, folder: str) -> None:
    """In one step out of the way, then piece by piece."""
    parent, _, _ = folder.rpartition("/")
    away = f"{layout.TEMPORARY}{os.urandom(12).hex()}"
    mount.rename(parent, folder.rpartition("/")[2], parent, away)
    removal.remove_tree(mount, f"{parent}/{away}", grammar.checkpoint)
    mount.forget(folder)


def _all_past(mount: Mount, folder: str, names: list[str], shards: list[int], now: float) -> bool:
    """Whether all shards are finished, each past its ttl."""
    count = Folder(mount, folder).read_note(layout.SHARDS)
    marks = set()
    for kind, index, signature in filter(None, map(layout.parse_shard, names)):
        if kind == "d" and f"{layout.shard_mark(index)}.{signature}" == links.mark(
            mount, folder, layout.shard_mark(index)
        ):
            marks.add(index)
    if not count.isdigit() or len(marks) < int(count):
        return False
    for index in shards:
        here = Folder(mount, f"{folder}/s{index}")
        newest = here.glance(here.look())
        if newest is None or not _is_past(newest, now):
            return False
    return bool(shards)
