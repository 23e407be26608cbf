"""`efsstate gc`: a sweep by hand, which says first what it would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from efsstate.cleanup.sweep import SweepReport, run
from efsstate.cli import output
from efsstate.cli.output import Consent, Output
from efsstate.mount.root import resolve

if TYPE_CHECKING:
    from typing import Any


@click.command("gc")
@click.option("--older-than", metavar="TIME", help="Also all cache entries older than that: 30d.")
@click.option(
    "--unused-for", metavar="TIME", help="Also all cache entries that nobody used for that long."
)
@click.option(
    "--max-bytes",
    metavar="SIZE",
    help="Keep the cache below that, least recently used out first: 50GiB.",
)
@click.option(
    "--max-entries", type=click.IntRange(min=0), help="Keep no more cache entries than that."
)
@click.option("--budget", metavar="TIME", help="End after that; the next call goes on.")
@output.common
@output.deleting
def command(out: Output, root: str | None, consent: Consent, **asked: Any) -> int:
    """Remove what is expired, over its limit, or abandoned; never an unfinished checkpoint, or what is not ours."""
    try:
        report = _run(out, root, asked, consent)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    verb = "would remove" if report.dry_run else "removed"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(report.reasons.items()))
    out.say(
        f"{verb} {report.removed:,} files, {output.bytes_text(report.removed_bytes)}"
        + (f" ({reasons})" if reasons else "")
        + f"; kept {report.kept:,} entries, {output.bytes_text(report.kept_bytes)}; {report.seconds:.1f} s"
    )
    if not report.finished:
        out.say(
            f"not finished: {report.left} folders left, {report.elsewhere} with another sweeper; call again to go on"
        )
    for path in report.foreign_paths:
        out.say(f"left alone: {path}")
    out.problems(report.error_texts)
    out.document("gc", root=resolve(root).path, **report.as_dict())
    return output.COULD_NOT_CHECK if report.errors else output.FINE


def _run(out: Output, root: str | None, asked: dict[str, Any], consent: Consent) -> SweepReport:
    if not consent.yes:
        report = run(root=root, dry_run=True, **asked)
        what = f"{report.removed:,} files, {output.bytes_text(report.removed_bytes)}"
        if consent.dry_run or not report.removed or not consent(what):
            return report
    with out.progress("Sweeping") as advance:
        return run(root=root, progress=lambda _done, _all: advance(1), **asked)
