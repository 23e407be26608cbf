"""What people see of a checkpoint, read without a claim and without the state."""

from __future__ import annotations

from efsstate.checkpoints import claimant, protocol
from efsstate.format import layout
from efsstate.mount import lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def status(folder: protocol.Folder, name: str) -> dict[str, Any]:
    """See `Checkpoint.status`."""
    at = folder.look()
    found = folder.glance(at)
    return {
        "name": name,
        "path": folder.path(found.key if found else protocol.NOTHING),
        "claimed": lock.is_held(folder.mount, folder.folder, layout.LOCK),
        "owner": claimant.of(folder, at.top) if at.top else {},
        "epoch": at.top,
        "finished": found.finished if found else False,
        "position": found.shown if found else "",
        "items": found.items if found else 0,
        "saves": found.saves if found else 0,
        "saved": found.created if found else None,
        "bytes": found.size if found else 0,
        "schema": found.schema if found else None,
    }
