"""Tell how far a checkpoint is, and who has it: read without a claim and without its state."""

from __future__ import annotations

from efsstate.checkpoints import claimant
from efsstate.checkpoints.protocol import CheckpointFolder, claims_between
from efsstate.checkpoints.shards import ShardFolder
from efsstate.errors import CorruptEntryError, ShardsError
from efsstate.format import layout
from efsstate.mount import lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.checkpoints.claimant import ShardsStatus, Status
    from efsstate.checkpoints.newest import Listing
    from efsstate.checkpoints.saves import Save


def read_status(folder: CheckpointFolder, name: str) -> Status:
    """Return the status of the checkpoint `name` in `folder`, without a claim or its state."""
    listing = folder.list()
    save = folder.read_header(listing)
    shards = _shards_status(folder) if layout.SHARDS in listing.names else None
    is_held = lock.is_held(folder.mount, folder.folder, layout.LOCK)
    all_done = shards is not None and shards["done"] == shards["total"]
    return {
        "name": name,
        "path": folder.path(save.key if save else None),
        "claimed": is_held or (shards is not None and shards["claimed"] > 0),
        "owner": claimant.read(folder, listing.top) if listing.top else {},
        "epoch": listing.top,
        "finished": all_done or (save is not None and save.finished),
        "position": save.shown if save else "",
        "items": save.items if save else 0,
        "saves": save.saves if save else 0,
        "saved": save.created if save else None,
        "bytes": save.size if save else 0,
        "schema": save.schema if save else None,
        "attempts": _attempts(listing, save),
        "skipped": save.skipped if save else 0,
        "shards": shards,
    }


def _attempts(listing: Listing, save: Save | None) -> int:
    """Return the count of claims since the position last moved, the one that moved it left out."""
    if not listing.top or (save is not None and save.finished):
        return 0
    moved = save.moved if save is not None else min(listing.epochs, default=listing.top) - 1
    return max(1, claims_between(moved, listing.top))


def _shards_status(folder: CheckpointFolder) -> ShardsStatus | None:
    try:
        shards = ShardFolder(folder, None, make=False)
    except (ShardsError, CorruptEntryError):
        return None
    open_shards = shards.begun() - shards.marked
    places = [f"{folder.folder}/s{index}" for index in sorted(open_shards)]
    claimed = [place for place in places if lock.is_held(folder.mount, place, layout.LOCK)]
    return {"total": shards.n, "done": len(shards.marked), "claimed": len(claimed)}
