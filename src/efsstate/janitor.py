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
# The fields that EventBridge sends for a schedule without an input of its own.
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
    """Sweep until shortly before the deadline; return its report, and log that as a line of JSON.

    `event` may have the options of `efsstate.sweep` (`unused_for` is "30d" without it, null for
    never), and `shard` and `of`, so that several functions share a large file system: {"shard": 3,
    "of": 16}, numbered from 0. The reply has the report's fields; if `finished` is false there is
    more to do, so call again. Raise ValueError for an unknown option, and the errors of `sweep`.
    """
    options = dict(event or {})
    if "detail-type" in options:
        options = {key: value for key, value in options.items() if key not in _SCHEDULE}
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ValueError(
            f"event: {', '.join(unknown)}: unknown option; the janitor takes {', '.join(_OPTIONS)}"
        )
    options = {"unused_for": _UNUSED_FOR, **options}
    with Invocation(context):
        report = run(**options)
    import json

    reply = {
        "event": "sweep",
        "shard": options.get("shard", 0),
        "of": options.get("of", 1),
        **report.as_dict(),
    }
    print(json.dumps(reply))  # noqa: T201 - a function's log is its standard output
    return reply
