"""`efsstate gc`: sweep by hand, after showing how much would be removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from efsstate.cleanup.sweep import SweepReport, run
from efsstate.cli import output
from efsstate.cli.output import Consent, Output, count_text
from efsstate.cli.places import open_root

if TYPE_CHECKING:
    from typing import Any


@click.command("gc")
@click.option(
    "--older-than",
    type=output.DURATION,
    metavar="TIME",
    help="Also remove cache entries older than this, e.g. 30d.",
)
@click.option(
    "--unused-for",
    type=output.DURATION,
    metavar="TIME",
    help="Also remove cache entries not used for this long, e.g. 30d.",
)
@click.option(
    "--max-bytes",
    metavar="SIZE",
    help="Keep the cache below this, least recently used out first, e.g. 50GiB.",
)
@click.option(
    "--max-entries",
    type=click.IntRange(min=0),
    metavar="N",
    help="Keep at most N cache entries.",
)
@click.option(
    "--budget",
    type=output.DURATION,
    metavar="TIME",
    help="Stop after this long; the next run resumes.",
)
@output.common
@output.deleting
def command(out: Output, root: str | None, consent: Consent, **options: Any) -> int:
    """Remove everything that is expired, over its limit, or abandoned.

    Unfinished checkpoints stay, and so does everything that efsstate did not make.
    """
    path = open_root(root).path
    try:
        report = _sweep(out, path, options, consent)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    verb = "would remove" if report.dry_run else "removed"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(report.reasons.items()))
    out.say(
        f"{verb} {_files(report)}"
        + (f" ({reasons})" if reasons else "")
        + f"; kept {count_text(report.kept, 'entry', 'entries')},"
        + f" {output.bytes_text(report.kept_bytes)}; {report.seconds:.1f} s"
    )
    if not report.finished:
        out.say(
            f"not finished: {count_text(report.left, 'folder')} left, {report.elsewhere} with"
            " another sweeper; run it again to go on"
        )
    for foreign in report.foreign_paths:
        out.say(f"not removed, because it is not efsstate's, or cannot be read: {foreign}")
    out.problems(report.error_texts)
    out.document("gc", root=path, **report.as_dict())
    return output.COULD_NOT_CHECK if report.errors else output.FINE


def _sweep(out: Output, root: str, options: dict[str, Any], consent: Consent) -> SweepReport:
    if not consent.yes:
        report = run(root=root, dry_run=True, **options)
        if consent.dry_run or not report.removed or not consent(_files(report)):
            return report
    with out.progress("Sweeping") as advance:
        return run(root=root, progress=lambda _done, _total: advance(1), **options)


def _files(report: SweepReport) -> str:
    return f"{count_text(report.removed, 'file')}, {output.bytes_text(report.removed_bytes)}"
