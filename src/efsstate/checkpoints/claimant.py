"""What a claimant says of itself, for the people who find its claim: information, never what anything is decided by."""

from __future__ import annotations

import os
import time

from efsstate import deadline
from efsstate.errors import CorruptEntryError
from efsstate.format import layout
from efsstate.mount import clock
from efsstate.mount.environment import function_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.checkpoints.protocol import Folder

_LONGEST = 200  # characters of each value: all together fit into a symbolic link


def describe(**more: object) -> str:
    """This claimant, as the text of a note: JSON with host, pid, function, request, since and deadline (UTC seconds)."""
    import json
    import socket

    run = deadline.current()
    context = run.context if run is not None else None
    left = deadline.remaining()
    now = clock.now()
    told = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "function": getattr(context, "function_name", None) or function_name(),
        "request": getattr(context, "aws_request_id", None),
        "since": round(now, 3),
        "deadline": None if left is None else round(now + left, 3),
        **more,
    }
    return json.dumps(
        {k: v[:_LONGEST] if isinstance(v, str) else v for k, v in told.items()},
        separators=(",", ":"),
        default=str,
    )


def of(folder: Folder, epoch: int) -> dict[str, object]:
    """What the claimant of `epoch` said; empty where that can't be read."""
    import json

    try:
        told = json.loads(folder.read_note(layout.epoch_name(epoch)))
    except (OSError, ValueError, RecursionError, CorruptEntryError):
        return {}
    return told if isinstance(told, dict) else {}


def sentence(told: dict[str, object]) -> str:
    """`who, since when, until when` for a message."""
    if not told:
        return "somebody who left no readable note"
    who = f"{told.get('function') or 'a process'} on {told.get('host')}, pid {told.get('pid')}"
    if told.get("request"):
        who += f", request {told['request']}"
    if told.get("since"):
        who += f", since {_when(told['since'])}"
    if told.get("deadline"):
        who += f", which said it would end by {_when(told['deadline'])}"
    return who


def _when(seconds: object) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(seconds)))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return "?"
