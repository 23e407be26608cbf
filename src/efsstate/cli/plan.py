"""`efsstate plan`: throughput modes, the end of credits, herds of cold starts, and costs."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from efsstate.cli import output
from efsstate.errors import EfsStateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.planning.history import History
    from efsstate.planning.measured import Measured
    from efsstate.planning.plan import Plan
    from efsstate.planning.rates import Rates
    from efsstate.planning.workload import Workload

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 52
_HELPS = {
    "stored": ("SIZE", "What is stored in all, e.g. 100GiB."),
    "cold-storage": ("SIZE", "How much of it is in Infrequent Access."),
    "archive-storage": ("SIZE", "How much of it is in Archive."),
    "model": ("SIZE", "The size of the model that a cold start reads."),
    "environments": ("N", "The environments that run at once."),
    "cold-starts": ("COUNT", "Cold starts, e.g. 2000/day."),
    "herd": ("N", "Environments that start at one moment; by default all of them."),
    "hits": ("COUNT", "Results read from the mount, e.g. 5M/day."),
    "cold-reads": ("COUNT", "How many of them read Infrequent Access."),
    "archive-reads": ("COUNT", "How many of them read Archive."),
    "puts": ("COUNT", "Results stored, e.g. 100k/day, but for those of misses."),
    "misses": ("COUNT", "Calls that compute a result and store it."),
    "entry": ("SIZE", "The size of a result; 4KiB if it is not given."),
    "saves": ("COUNT", "Saves of checkpoints, e.g. 100/hour."),
    "state": ("SIZE", "The size of a checkpoint's state."),
    "timeout": ("DURATION", "The function's timeout, e.g. 60s."),
    "busy-hours": ("HOURS", "The hours of a day in which the traffic comes."),
}


def workload_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each field of a workload."""
    for name, (metavar, text) in reversed(_HELPS.items()):
        function = click.option(f"--{name}", metavar=metavar, help=text)(function)
    return function


@click.command()
@click.option("--file", "path", type=click.Path(exists=True), help="Read a workload from TOML.")
@click.option("--save", type=click.Path(), help="Write the workload to a TOML file.")
@click.option(
    "--file-system", metavar="ID", help="Plan from its CloudWatch history (needs efsstate[aws])."
)
@click.option("--days", metavar="N", type=int, help="Days of the history, 14 if not given.")
@click.option(
    "--from-events",
    "events",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Plan from recorded events or metrics, JSON lines.",
)
@click.option(
    "--covering", metavar="DURATION", help="The time that the events cover, e.g. 1h, if unknown."
)
@workload_options
@click.option(
    "--mode",
    type=click.Choice(["elastic", "bursting", "provisioned"]),
    help="Exit with 1 if this mode does not hold.",
)
@click.option("--provision", type=float, default=0.0, help="MiB/s to provision; else as needed.")
@click.option("--region", metavar="REGION", help="For its limits and prices; else us-east-1.")
@click.option(
    "--prices", metavar="FILE", type=click.Path(), help="Rates that replace shipped ones."
)
@click.option(
    "--update-prices", is_flag=True, help="Write the region's prices to --prices, from AWS's API."
)
@click.option(
    "--svg", metavar="FILE", type=click.Path(), help="Write what is printed as a picture."
)
@click.option("--force", is_flag=True, help="Overwrite the files to write if they exist.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    as_json: bool,
    force: bool,
    path: str | None,
    save: str | None,
    file_system: str | None,
    days: int | None,
    events: str | None,
    covering: str | None,
    mode: str | None,
    provision: float,
    region: str | None,
    prices: str | None,
    update_prices: bool,
    svg: str | None,
    **fields: str | None,
) -> int:
    """Predict throughput, credits, cold starts and a month's cost of a workload.

    Give the workload by options, by a file (--file), by a file system's history (--file-system),
    or by the events of a test run (--from-events); options add to the others or take their place.
    Nothing is fetched but with --file-system and --update-prices.
    """
    from efsstate.planning import plan

    out = click.get_current_context().find_object(output.Output) or output.Output()
    out.json = out.json or as_json
    if sum(source is not None for source in (path, file_system, events)) > 1:
        raise click.UsageError("--file, --file-system and --from-events: give one of them")
    if days is not None and file_system is None:
        raise click.UsageError("--days: it needs --file-system")
    if covering is not None and events is None:
        raise click.UsageError("--covering: it needs --from-events")
    if update_prices and prices is None:
        raise click.UsageError("--update-prices: say where to write them, with --prices FILE")
    if not 0 <= provision < 1e6:
        raise click.UsageError(f"--provision {provision}: MiB/s from 0 are needed")
    for target in (save, svg, prices if update_prices else None):
        if target is not None:
            output.require_free(target, force=force)
    if svg is not None:
        _record(out)
    try:
        if update_prices and prices is not None:
            _update_prices(out, prices, region)
        rates = load_rates(prices, region)
        sources = (path, file_system, events, *fields.values())
        if not update_prices and all(source is None for source in sources):
            message = "nothing to plan; say what is stored and read, e.g. --stored 100GiB"
            raise click.UsageError(f"{message} --hits 1M/day")
        history, measured = None, None
        if file_system is not None:
            history = read_history(file_system, 14 if days is None else days, region)
        if events is not None:
            measured = _read_events(events, covering)
        source = history.workload() if history else measured.workload() if measured else None
        work = make_workload(path, fields, source)
        answer = plan.make(
            work,
            rates,
            provision=provision,
            profile=history.metered() if history else None,
            balance=history.balance if history else None,
        )
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    if save:
        from efsstate.planning import workload

        with open(save, "w", encoding="utf-8") as file:
            file.write(workload.dump(work))
    return _answer(out, answer, history, measured, mode, svg)


def _answer(
    out: output.Output,
    answer: Plan,
    history: History | None,
    measured: Measured | None,
    mode: str | None,
    svg: str | None,
) -> int:
    from efsstate.planning import advice

    sentences = advice.advise(answer)
    for source in (history, measured):
        for line in source.sentences() if source else ():
            out.say(line)
    if history:
        out.say(f"metered by minute: {sparkline(history.metered(), width=_WIDTH)}")
        for line in _check(history, answer.rates):
            out.say(line)
    _show(out, answer, sentences)
    chosen = [each for each in answer.modes if each.mode == mode and not each.is_one_zone]
    failing = [problem for each in chosen for problem in each.problems]
    for problem in failing:
        out.say(f"{mode} does not hold: {problem}")
    out.document(
        "plan",
        **answer.as_dict(),
        advice=sentences,
        history=history.as_dict() if history else None,
        measured=measured.as_dict() if measured else None,
    )
    if svg is not None:
        out.console.save_svg(svg, title="efsstate plan")
    return output.FINDINGS if failing else output.FINE


def _check(history: History, rates: Rates) -> list[str]:
    """Return how near the simulation comes to the balance of credits that was measured."""
    from efsstate.planning.text import size

    both = history.check(rates)
    if both is None:
        return []
    measured, simulated = size(both[0]), size(both[1])
    return [f"credits at the end of the history: {measured} measured, {simulated} simulated"]


def make_workload(
    path: str | None, fields: dict[str, str | None], source: Workload | None = None
) -> Workload:
    """Return the workload of a file, or the `source`, with the options' values in their place.

    Raise ValueError and TypeError for values that cannot be.
    """
    from efsstate.planning import workload

    values = workload.load(path) if path else {}
    for name, text in fields.items():
        if text is not None:
            values[name] = workload.parse(name, text)
    return dataclasses.replace(source or workload.Workload(), **values)  # type: ignore[arg-type]


def load_rates(prices: str | None, region: str | None) -> Rates:
    """Return the limits and prices. Raise ValueError, OSError and PricesMissingError."""
    from efsstate.planning import rates

    return rates.load(prices, region)


def _update_prices(out: output.Output, path: str, region: str | None) -> None:
    try:
        from efsstate.planning import price_list
    except ImportError as error:
        raise _no_boto3("--update-prices", error) from error
    from efsstate.planning import rates

    today = dt.datetime.now(dt.UTC).date()
    text, missing = price_list.as_toml(
        price_list.read(region or rates.HOME), region or rates.HOME, today
    )
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    out.say(f"wrote {path}")
    if missing:
        out.problems([f"not in the price list of {region or rates.HOME}: {', '.join(missing)}"])


def read_history(file_system: str, days: int, region: str | None) -> History:
    """Return a file system's history. Raise ValueError, and EfsStateError also without boto3."""
    try:
        from efsstate.planning import cloudwatch
    except ImportError as error:
        raise _no_boto3("--file-system", error) from error
    return cloudwatch.read(file_system, days=days, region=region)


def _no_boto3(option: str, error: ImportError) -> EfsStateError:
    return EfsStateError(
        f"{option} needs boto3, which is not installed: pip install 'efsstate[aws]' ({error})"
    )


def _read_events(path: str, covering: str | None) -> Measured:
    from efsstate import units
    from efsstate.planning import measured

    with open(path, encoding="utf-8", errors="replace") as file:
        seconds = None if covering is None else units.seconds(covering, "--covering")
        return measured.read(file, path, covering=seconds)


def _record(out: output.Output) -> None:
    """Keep a copy of all printed text, from which `--svg` makes its picture."""
    if out.json:
        raise click.UsageError("--svg and --json: give one of them")
    from rich.console import Console

    out.console = Console(record=True, width=120, highlight=False)


def _show(out: output.Output, answer: Plan, sentences: list[str]) -> None:
    """Print the plan for people."""
    from efsstate.planning import rates
    from efsstate.planning.text import dollars, duration

    most = max((m.cost.total for m in answer.modes if m.cost.total < float("inf")), default=0.0)
    rows = []
    for mode in answer.modes:
        last = duration(mode.herd.last) if answer.workload.model else "-"
        verdict = "; ".join(mode.problems) or "holds"
        cost = mode.cost.total
        rows.append([mode.name, dollars(cost), bar(cost, most), last, verdict])
    out.table(["mode", "a month>", "", "herd loaded after>", "verdict"], rows)
    others = [
        [service.name, dollars(service.total) if service.items else "-", service.reason]
        for service in answer.others
    ]
    out.table(["the same work on", "a month>", "note"], others)
    days = answer.credits.balance[::24]
    if days:
        out.say(f"credits over a year, in bursting mode: {sparkline(days, width=_WIDTH)}")
    for sentence in sentences:
        out.say(sentence)
    today = dt.datetime.now(dt.UTC).date()
    read = str(answer.rates["read"])
    when = f"{'on' if read.count('-') == 2 else 'in'} {read or 'an unnamed month'}"
    out.say(
        f"rates of {answer.rates['region']} as read {when}"
        f" ({rates.age(read, today)}; {answer.rates['source']}); not checked against a bill"
    )


def bar(value: float, most: float, *, width: int = 12) -> Text:
    """Return a bar as long as the share of the largest."""
    if not most or value == float("inf"):
        return Text("")
    eighths = round(8 * width * value / most)
    full, rest = divmod(eighths, 8)
    return Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style="cyan")


def sparkline(values: list[float], *, width: int) -> str:
    """Return the values as a row of at most `width` bars, the largest of each part."""
    if not values:
        return ""
    count = min(width, len(values))
    parts = [
        max(values[place * len(values) // count : (place + 1) * len(values) // count])
        for place in range(count)
    ]
    most = max(*parts, 1.0)
    return "".join(_BARS[min(7, int(8 * value / most))] for value in parts)
