"""`efsstate plan`: throughput modes, the end of credits, herds of cold starts, and costs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.planning.plan import Plan

_BARS = "▁▂▃▄▅▆▇█"


def _fields(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each field of a workload."""
    helps = {
        "stored": ("SIZE", "What is stored in all, e.g. 100GiB."),
        "cold-storage": ("SIZE", "How much of it is in Infrequent Access."),
        "model": ("SIZE", "The size of the model that a cold start reads."),
        "environments": ("N", "The environments that run at once."),
        "cold-starts": ("COUNT", "Cold starts, e.g. 2000/day."),
        "herd": ("N", "Environments that start at one moment; by default all of them."),
        "hits": ("COUNT", "Results read from the mount, e.g. 5M/day."),
        "puts": ("COUNT", "Results stored, e.g. 100k/day."),
        "entry": ("SIZE", "The size of a result; 4KiB if it is not given."),
        "saves": ("COUNT", "Saves of checkpoints, e.g. 100/hour."),
        "state": ("SIZE", "The size of a checkpoint's state."),
        "timeout": ("DURATION", "The function's timeout, e.g. 60s."),
        "busy-hours": ("HOURS", "The hours of a day in which the traffic comes."),
    }
    for name, (metavar, text) in reversed(helps.items()):
        function = click.option(f"--{name}", metavar=metavar, help=text)(function)
    return function


@click.command()
@click.option("--file", "path", type=click.Path(exists=True), help="Read a workload from TOML.")
@click.option("--save", type=click.Path(), help="Write the workload to a TOML file.")
@click.option("--prices", type=click.Path(exists=True), help="Use the rates of this TOML file.")
@click.option("--provision", type=float, default=0.0, help="MiB/s to provision; else as needed.")
@_fields
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    as_json: bool,
    path: str | None,
    save: str | None,
    prices: str | None,
    provision: float,
    **fields: str | None,
) -> int:
    """Predict throughput, credits, cold starts and a month's cost of a workload.

    The rates are those that AWS published for us-east-1 at the date that the plan names; nothing is
    fetched. Give the workload by options, or by a file, or both.
    """
    from efsstate.planning import plan, rates, workload

    out = click.get_current_context().find_object(output.Output) or output.Output()
    out.json = out.json or as_json
    try:
        values = workload.load(path) if path else {}
        for name, text in fields.items():
            if text is not None:
                values[name] = _number(name, text)
        work = dataclasses.replace(workload.Workload(), **values)  # type: ignore[arg-type]
        answer = plan.make(work, rates.load(prices), provision=provision)
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    if save:
        with open(save, "w", encoding="utf-8") as file:
            file.write(workload.dump(work))
    _show(out, answer)
    out.document("plan", **answer.as_dict())
    return output.FINE


def _number(name: str, text: str) -> object:
    from efsstate.planning import workload

    value = workload.parse(name, text)
    if name in ("environments", "herd") and isinstance(value, float):
        return int(value)
    return value


def _show(out: output.Output, answer: Plan) -> None:
    """Print the plan for people."""
    from efsstate.planning.plan import duration

    rows = []
    for mode in answer.modes:
        last = duration(mode.herd.last) if answer.workload.model else "-"
        verdict = "; ".join(mode.problems) or "holds"
        rows.append([mode.name, f"${mode.cost.total:,.2f}", last, verdict])
    out.table(["mode", "a month>", "herd loaded after>", "verdict"], rows)
    others = [
        [service.name, f"${service.total:,.2f}" if service.items else "-", service.reason]
        for service in answer.others
    ]
    out.table(["the same work on", "a month>", "note"], others)
    days = answer.credits.balance[::24]
    if days:
        out.say(f"credits over a year, in bursting mode: {sparkline(days, width=52)}")
    for sentence in answer.advice:
        out.say(sentence)
    out.say(f"rates as read in {answer.read}; not checked against a bill")


def sparkline(values: list[float], *, width: int) -> str:
    """Return the values as a row of bars."""
    step = max(1, len(values) // width)
    picked, most = values[::step][:width], max(*values, 1.0)
    return "".join(_BARS[min(7, int(8 * value / most))] for value in picked)
