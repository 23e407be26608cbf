"""Remove checkpoints and saves that the sweep may remove.

That is: saves which an owner left behind, and finished checkpoints past their ttl.
"""

from __future__ import annotations

from efsstate.checkpoints import fenced_removal
from efsstate.checkpoints.protocol import CheckpointFolder
from efsstate.errors import ClaimedError
from efsstate.eviction import removal
from efsstate.format import grammar, layout
from efsstate.mount import links

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
        size, is_past = 0, _are_all_past(mount, folder, names, shards, now)
    else:
        here = CheckpointFolder(mount, folder)
        newest = here.read_header(here.list())
        size = newest.size if newest is not None else 0
        is_past = newest is not None and _is_past(newest, now)
    if not is_past:
        yield from sweep_saves(mount, folder, dry_run=dry_run)
        return
    removal.require_ours(mount, folder, grammar.checkpoint)
    if dry_run or _remove_past(mount, folder, now):
        yield "checkpoint", size


def _remove_past(mount: Mount, folder: str, now: float) -> bool:
    """Remove a checkpoint past its ttl; return False if it is held, or not past it any more."""
    try:
        removed = fenced_removal.remove(
            mount, folder, lambda save: save is not None and _is_past(save, now)
        )
    except ClaimedError:
        return False
    return removed is not None


def _is_past(newest: Save, now: float) -> bool:
    """Return True if it may go: a finished one past `ttl`, or one left for `abandon_after`."""
    return newest.ttl is not None and newest.created + newest.ttl < now


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
