"""`efsstate report`: one page to look at, of a root, its activity and its cost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import output, report_content
from efsstate.cli.inventory import count_folders
from efsstate.cli.output import Output
from efsstate.cli.places import open_root

if TYPE_CHECKING:
    from efsstate.planning.history import History


@click.command("report")
@click.option(
    "-o", "--output", "target", metavar="FILE", default="report.html", show_default=True,
    help="Write the page to FILE.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@click.option("--title", metavar="TEXT", help="The page's title; else the name of the root.")
@click.option(
    "--events",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Recorded events or metrics, JSON lines: hit rates, latencies, sweeps.",
)
@click.option(
    "--plan",
    "workload",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="A workload, as `efsstate plan --save` writes it: credits and cost.",
)
@click.option(
    "--file-system", metavar="ID", help="Its CloudWatch history (needs efsstate[aws]), as for plan."
)
@click.option("--days", metavar="N", type=int, help="Days of the history, 14 if not given.")
@click.option("--region", metavar="REGION", help="For limits and prices; else us-east-1.")
@click.option("--prices", metavar="FILE", type=click.Path(exists=True), help="Rates, as for plan.")
@output.common
def command(
    target: str,
    force: bool,
    title: str | None,
    events: str | None,
    workload: str | None,
    file_system: str | None,
    days: int | None,
    region: str | None,
    prices: str | None,
    out: Output,
    root: str | None,
) -> int:
    """Write a page of HTML: space, hit rates, checkpoints, models, sweeps, credits and cost.

    The page needs no network, and nothing beside it. It has the names of caches, checkpoints and
    models, and no values.
    """
    from efsstate.reporting import page

    output.require_free(target, force=force)
    if days is not None and file_system is None:
        raise click.UsageError("--days: it needs --file-system")
    mount = open_root(root)
    with out.progress("Reading", count_folders(mount)) as advance:
        document: dict[str, Any] = report_content.of_root(mount, advance)
    document |= {
        "title": title or os.path.basename(mount.path.rstrip("/")) or mount.path,
        "activity": _activity(events) if events is not None else None,
        "plan": None,
        "history": None,
    }
    if workload is not None or file_system is not None:
        document |= _plan(workload, file_system, 14 if days is None else days, region, prices)
    with open(target, "w", encoding="utf-8") as file:
        file.write(page.render(document))
    content = f"{output.bytes_text(document['size'])} in {document['entries']:,} entries"
    out.say(f"wrote {target}: {content}")
    out.problems(document["problems"])
    out.document("report", file=target, **document)
    return output.COULD_NOT_CHECK if document["problems"] else output.FINE


def _activity(path: str) -> dict[str, Any]:
    from efsstate.reporting import activity

    with open(path, encoding="utf-8", errors="replace") as file:
        recorded = activity.read(file)
    if not recorded.lines:
        raise click.UsageError(
            f"--events {path}: no line of it is an event or a metric of efsstate; record them with"
            " `efsstate.metrics.emf()` or a listener"
        )
    return recorded.as_dict()


def _plan(
    workload: str | None, file_system: str | None, days: int, region: str | None, prices: str | None
) -> dict[str, Any]:
    """Return the parts about cost: of a workload's file, of a history, or of both together."""
    from efsstate.cli import plan as plan_command
    from efsstate.planning import plan

    try:
        history: History | None = None
        if file_system is not None:
            history = plan_command.read_history(file_system, days, region)
        source = history.workload() if history else None
        answer = plan.make(
            plan_command.make_workload(workload, {}, source),
            plan_command.load_rates(prices, region),
            profile=history.metered() if history else None,
            balance=history.balance if history else None,
        )
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    parts = {"plan": report_content.of_plan(answer), "history": None}
    if history is not None:
        parts["history"] = report_content.of_history(history, answer)
    return parts
