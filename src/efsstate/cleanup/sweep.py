"""`sweep`: go through everything below a root, within its time, and remove the unwanted."""

from __future__ import annotations

import time

from efsstate import deadline, events, units
from efsstate.cleanup import jobs, rounds
from efsstate.cleanup.work import Work
from efsstate.eviction.report import SweepReport
from efsstate.eviction.scan import SweepOptions
from efsstate.mount import clock
from efsstate.mount.root import require_present, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from efsstate.units import Duration, Size

__all__ = ["SweepReport", "sweep"]

_NEVER = float("inf")
_MARGIN = 2.0  # seconds before the invocation's deadline at which it ends


def sweep(
    *,
    root: str | os.PathLike[str] | None = None,
    older_than: Duration | None = None,
    unused_for: Duration | None = None,
    max_bytes: Size | None = None,
    max_entries: int | None = None,
    budget: Duration | None = None,
    dry_run: bool = False,
) -> SweepReport:
    """Remove everything expired, over its limit, abandoned, or beyond its keep; return a report.

    Of cache entries: the expired; all older than `older_than`; all not used for `unused_for`; and,
    least recently used first, those beyond their namespace's limits, and beyond `max_bytes` and
    `max_entries` of the whole cache. Of the rest: finished checkpoints past their ttl, and saves
    beyond their keep; model versions beyond theirs, after their grace; temporaries, locks and
    staging that were not written for a day by the server's clock. Files of others stay,
    and are counted and named.

    It ends after `budget`, or 2 s before the invocation's deadline, and the next call goes on from
    there; without either it looks at everything. Several at once, anywhere, share the work.
    `dry_run` removes nothing. An error in one folder is in the report, and the others are swept.
    Raise RootError, ValueError or TypeError for a bad option, and OSError if the root itself fails.
    """
    return run(
        root=root,
        older_than=older_than,
        unused_for=unused_for,
        max_bytes=max_bytes,
        max_entries=max_entries,
        budget=budget,
        dry_run=dry_run,
    )


def run(
    *,
    root: str | os.PathLike[str] | None = None,
    older_than: Duration | None = None,
    unused_for: Duration | None = None,
    max_bytes: Size | None = None,
    max_entries: int | None = None,
    budget: Duration | None = None,
    dry_run: bool = False,
    shard: int = 0,
    of: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SweepReport:
    """Sweep as `sweep` does, but only the part `shard` of `of` of the folders.

    `progress` is called with how many folders are done, and how many there are.
    """
    began = time.monotonic()
    old = None if older_than is None else units.seconds(older_than, "older_than")
    idle = None if unused_for is None else units.seconds(unused_for, "unused_for")
    limit = None if max_bytes is None else units.size(max_bytes, "max_bytes")
    _require_counts(max_entries, shard, of)
    time_budget = None if budget is None else units.seconds(budget, "budget")
    latest = _latest()
    until = latest if time_budget is None else min(latest, began + time_budget)
    require_present(root)
    mount = resolve(root, durable=True, reading=dry_run)
    report = SweepReport(dry_run=dry_run)
    sweep_round = None
    if not dry_run:
        kind = f"{old} {idle} {limit} {max_entries} {shard}/{of}"
        sweep_round = rounds.begin(mount, kind, fresh=until == _NEVER)
    if sweep_round is None:
        mount.ask_time("")
    options = SweepOptions(
        clock.now(),
        until,
        older_than=old,
        unused_for=idle,
        dry_run=dry_run,
        device=mount.stat("", ".").st_dev,
        latest=latest,
    )
    note = progress or _ignore_progress
    work = Work(mount, options, sweep_round, report, shard, of, note, areas=jobs)
    work.run(limit, max_entries, time_budget or 0.0)
    report.seconds = time.monotonic() - began
    events.emit("sweep", "sweep", mount.path, **report.as_dict())
    return report


def _require_counts(max_entries: int | None, shard: int, of: int) -> None:
    """Raise ValueError unless these are numbers of entries, and of a shard."""
    is_count = isinstance(max_entries, int) and not isinstance(max_entries, bool)
    if max_entries is not None and (not is_count or max_entries < 0):
        raise ValueError(f"max_entries: {max_entries!r} is not a number of entries")
    if not (isinstance(shard, int) and isinstance(of, int) and 0 <= shard < of):
        raise ValueError(
            f"shard {shard!r} of {of!r}: shards are numbered from 0, below their number"
        )


def _latest() -> float:
    """Return the monotonic time at which to end because of the invocation's deadline."""
    remaining = deadline.remaining()
    if remaining is None:
        return _NEVER
    return time.monotonic() + remaining - min(_MARGIN, remaining / 2)


def _ignore_progress(_done: int, _total: int) -> None:
    pass
