"""The scheduled Lambda function that sweeps: set its handler to `efsstate.janitor.handler`."""

from __future__ import annotations

from efsstate.cleanup.sweep import run
from efsstate.deadline import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNUSED_FOR = "30d"
_OPTIONS = (
    "older_than",
    "unused_for",
    "max_bytes",
    "max_entries",
    "budget",
    "dry_run",
    "root",
    "shard",
    "of",
)
# What EventBridge puts into the event of a schedule that has no input of its own.
_SCHEDULE = (
    "version",
    "id",
    "detail-type",
    "source",
    "account",
    "time",
    "region",
    "resources",
    "detail",
)


def handler(event: dict[str, Any] | None, context: object = None) -> dict[str, object]:
    """Sweep until shortly before the deadline; the next call goes on. Returns, and logs as a line of JSON, what it did.

    `event` may have the options of `efsstate.sweep` (`unused_for` is "30d" if it has none; null for never), and `shard` and
    `of`, so that many functions share a large file system: {"shard": 3, "of": 16}, numbered from 0. What comes back are
    the report's fields; `finished` is false where there is more to do: call again. Raises `ValueError` for an option that
    there is not, and what `sweep` raises.
    """
    asked = dict(event or {})
    if "detail-type" in asked:
        asked = {key: value for key, value in asked.items() if key not in _SCHEDULE}
    unknown = sorted(set(asked) - set(_OPTIONS))
    if unknown:
        raise ValueError(
            f"event: {', '.join(unknown)}: the janitor does not know that; it knows {', '.join(_OPTIONS)}"
        )
    options = {"unused_for": _UNUSED_FOR, **asked}
    with Invocation(context):
        report = run(**options)
    import json

    told = {
        "event": "sweep",
        "shard": options.get("shard", 0),
        "of": options.get("of", 1),
        **report.as_dict(),
    }
    print(json.dumps(told))  # noqa: T201 - a function's log is its standard output
    return told
