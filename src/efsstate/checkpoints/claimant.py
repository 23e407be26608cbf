"""Record who claims a checkpoint, and show the record: information, never a base of decisions."""

from __future__ import annotations

import os
import time

from efsstate import deadline, process
from efsstate.errors import CorruptEntryError
from efsstate.format import layout
from efsstate.mount import clock
from efsstate.mount.environment import function_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypedDict

    from efsstate.checkpoints.protocol import CheckpointFolder

    class Status(TypedDict):
        """How far a checkpoint is, and who has it: plain values, read without a claim."""

        name: str
        path: str
        claimed: bool
        owner: dict[str, Any]
        epoch: int
        finished: bool
        position: str
        items: int
        saves: int
        saved: float | None
        bytes: int
        schema: int | None
        attempts: int
        skipped: int
        shards: ShardsStatus | None

    class ShardsStatus(TypedDict):
        """How far the shards of a job are: counts."""

        total: int
        done: int
        claimed: int


_LONGEST = 200  # characters of each value: all together fit into a symbolic link,
_LONGEST_NAME = 3000  # with so many characters of JSON for the name; S3's keys fit


def describe(name: str = "", **more: object) -> str:
    """Return the record of this claimant as JSON text.

    It has host, pid, function, request, since and deadline (both in seconds, UTC), and the
    checkpoint's `name` if its folder's cannot give it back.
    """
    import json

    invocation = deadline.current()
    context = invocation.context if invocation is not None else None
    remaining = deadline.remaining()
    now = clock.now()
    record = {
        "host": os.uname().nodename,  # as `socket` has it, without its import
        "pid": os.getpid(),
        "function": getattr(context, "function_name", None) or function_name(),
        "request": getattr(context, "aws_request_id", None),
        "since": round(now, 3),
        "deadline": None if remaining is None else round(now + remaining, 3),
        **more,
    }
    record = {k: v[:_LONGEST] if isinstance(v, str) else v for k, v in record.items()}
    if name and len(json.dumps(name)) <= _LONGEST_NAME:
        record["name"] = name
    return json.dumps(record, separators=(",", ":"), default=str)


def read(folder: CheckpointFolder, epoch: int) -> dict[str, Any]:
    """Return the record of the claimant of `epoch`; empty if it cannot be read."""
    import json

    try:
        record = json.loads(folder.read_link(layout.epoch_name(epoch)))
    except (OSError, ValueError, RecursionError, CorruptEntryError) as error:
        process.raise_of_handler(error)
        return {}
    return record if isinstance(record, dict) else {}


def sentence(record: dict[str, Any]) -> str:
    """Return a record as words for a message: who, since when, until when."""
    if not record:
        return "a claimant that left no readable record"
    who = f"{record.get('function') or 'a process'} on {record.get('host')}"
    who += f", pid {record.get('pid')}"
    if record.get("request"):
        who += f", request {record['request']}"
    if record.get("since"):
        who += f", since {_time_text(record['since'])}"
    if record.get("deadline"):
        who += f", which said it would end by {_time_text(record['deadline'])}"
    return who


def _time_text(seconds: object) -> str:
    try:
        moment = time.gmtime(float(seconds))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return "?"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)
