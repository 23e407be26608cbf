"""Turn a plan into advice, in sentences."""

from __future__ import annotations

from efsstate.planning import bursting, cost
from efsstate.planning.plan import MOST_ENVIRONMENTS, WITH_CREDITS, Plan
from efsstate.planning.rates import MIB
from efsstate.planning.text import dollars, duration, size
from efsstate.planning.workload import DAY


def advise(plan: Plan) -> list[str]:
    """Return the sentences: the mode, the credits, the herd, the cold storage classes."""
    return [*_mode(plan), *_credits(plan), *_herd(plan), *_cold(plan), *_elsewhere(plan)]


def _mode(plan: Plan) -> list[str]:
    best = plan.best
    if best is None:
        return [_no_mode(plan)]
    sentences = [
        f"{best.name} is the cheapest mode that holds: {dollars(best.cost.total)} a month."
    ]
    item, largest = max(best.cost.items.items(), key=lambda pair: pair[1])
    if best.cost.total > 0 and largest >= best.cost.total / 2:
        share = largest / best.cost.total
        sentences.append(f"Its largest item is {item}: {dollars(largest)}, {share:.0%} of it.")
    zonal = [m for m in plan.modes if m.is_one_zone and not m.problems]
    cheapest = min(zonal, key=lambda mode: mode.cost.total, default=None)
    if cheapest is not None and cheapest.cost.total < best.cost.total:
        sentences.append(
            f"{cheapest.name} would cost {dollars(cheapest.cost.total)}, and is lost with its zone."
        )
    return sentences


def _no_mode(plan: Plan) -> str:
    """Say why there is no mode to name: prices that are missing, herds, or limits."""
    regional = [mode for mode in plan.modes if not mode.is_one_zone]
    unpriced = [mode for mode in regional if mode.is_unpriced]
    if unpriced:
        names = ", ".join(mode.name for mode in unpriced)
        return (
            f"No mode that holds has all its prices for {plan.rates['region']} ({names}): give the"
            " missing ones with --prices FILE, or read them with --prices FILE --update-prices."
        )
    if all(mode.herd.late for mode in regional):
        return "No mode holds: raise the timeout, or let fewer environments start at once."
    return "No mode holds: each has a limit that this traffic exceeds; split it over file systems."


def _credits(plan: Plan) -> list[str]:
    return [*_earned(plan), *_spent(plan)]


def _earned(plan: Plan) -> list[str]:
    """Say how many credits an idle day earns in bursting mode, as AWS's guide does for 100 GiB."""
    if not plan.workload.stored:
        return []
    account = bursting.of_storage(plan.workload.standard, plan.rates)
    earned = account.earned(DAY)
    alone, beside = (
        account.seconds_of_burst(earned, accruing=accruing) / 60 for accruing in (False, True)
    )
    return [
        (
            f"In bursting mode an idle day earns {earned / MIB:,.0f} MiB of credits: {alone:,.0f}"
            f" minutes of full burst, {beside:,.0f} with those that accrue meanwhile."
        )
    ]


def _spent(plan: Plan) -> list[str]:
    simulation, start = plan.credits, size(plan.balance)
    if simulation.ends is None:
        if cost.metered_bursting(plan.workload, plan.rates) == 0:
            return []
        least = size(min(simulation.balance, default=plan.balance))
        begin = f"In bursting mode, credits that begin at {start} last for a year"
        return [f"{begin}; they fall to {least} at the lowest."]
    when = duration(simulation.ends * bursting.MINUTE)
    begin = f"In bursting mode, credits that begin at {start} end after {when}"
    return [f"{begin}; traffic waits in {simulation.starved:,} minutes of the year."]


def _herd(plan: Plan) -> list[str]:
    work = plan.workload
    if not work.model:
        return []
    sentences = []
    for mode, count in plan.largest_herd.items():
        if mode == WITH_CREDITS:
            place = f"In bursting mode with credits of {size(plan.balance)}"
        else:
            place = f"In {mode} mode" + " without credits" * (mode == "bursting")
        most = f"{count:,} or more" if count >= MOST_ENVIRONMENTS else f"at most {count:,}"
        sentences.append(f"{place}, {most} environments can start at once and load in time.")
    network = plan.rates["lambda"]["network"]
    if network * MIB * work.timeout < work.model:
        sentences.append(
            f"The model needs {duration(work.model / network / MIB)} by an environment's own"
            f" network of {network:g} MiB/s: longer than the timeout, in every mode."
        )
    return sentences


def _cold(plan: Plan) -> list[str]:
    work, prices = plan.workload, plan.rates["storage"]
    if not (work.hits or work.puts or work.misses or work.cold_storage or work.archive_storage):
        return []
    sentences = []
    elastic = plan.best is None or plan.best.mode == "elastic"
    kinds = [("Infrequent Access", "ia_elastic" if elastic else "ia")]
    kinds += [("Archive", "archive")] if elastic else []
    for name, kind in kinds:
        if kind not in prices:
            continue
        least = cost.break_even(plan.rates, kind)
        verdict = "loses" if work.entry < least else "pays"
        sentences.append(
            f"{name} {verdict} for entries of {size(work.entry)}: a file below {size(least)} costs"
            " more there than in Standard, because it is billed as 128 KiB."
        )
    if work.archive_storage:
        sentences.append("A file in Archive is billed for 90 days at least.")
    return sentences


def _elsewhere(plan: Plan) -> list[str]:
    """Name a service that does all of the work for less."""
    best = plan.best
    able = [each for each in plan.others if each.items and not each.reason]
    cheapest = min(able, key=lambda each: each.total, default=None)
    if best is None or cheapest is None or cheapest.total >= best.cost.total:
        return []
    return [f"{cheapest.name} would cost {dollars(cheapest.total)} for requests and storage."]
