"""Put a plan together: throughput, credits, cold starts and cost of one workload in each mode."""

from __future__ import annotations

from typing import Any, NamedTuple

from efsstate.planning import bursting, cost, herd
from efsstate.planning.bursting import Simulation
from efsstate.planning.cost import Cost
from efsstate.planning.herd import Herd
from efsstate.planning.rates import GIB, MIB, Rates
from efsstate.planning.workload import DAY, Workload

MODES = ("elastic", "bursting", "provisioned")
_YEAR = 365


class Mode(NamedTuple):
    """One throughput mode: its cost, the fate of its herd, and the reasons why it does not hold."""

    name: str
    cost: Cost
    herd: Herd
    problems: list[str]


class Plan(NamedTuple):
    """The answer to a workload. `credits` is the simulation of bursting, over a year of days."""

    workload: Workload
    modes: list[Mode]
    others: list[Cost]
    credits: Simulation
    largest_herd: dict[str, int]
    advice: list[str]
    read: str

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "workload": dict(vars(self.workload)),
            "modes": [
                {
                    "mode": mode.name,
                    "month": round(mode.cost.total, 2),
                    "items": {name: round(value, 2) for name, value in mode.cost.items.items()},
                    "herd": dict(mode.herd._asdict()),
                    "problems": mode.problems,
                }
                for mode in self.modes
            ],
            "others": [
                {"service": o.name, "month": round(o.total, 2), "reason": o.reason}
                for o in self.others
            ],
            "credits_end_minute": self.credits.ends,
            "credits_by_hour": [round(value) for value in self.credits.balance[:: 24 * 7]],
            "largest_herd": self.largest_herd,
            "advice": self.advice,
            "rates_read": self.read,
        }


def make(work: Workload, rates: Rates, *, provision: float = 0.0) -> Plan:
    """Return the plan of a workload; `provision` MiB/s, or as many as it needs."""
    simulation = simulate_credits(work, rates)
    mib = provision or max(1.0, cost.needed_mib(work, rates))
    costs = {
        "elastic": cost.elastic(work, rates),
        "bursting": cost.bursting(work, rates),
        "provisioned": cost.provisioned(work, rates, mib),
    }
    modes = []
    for name in MODES:
        fate = simulate_herd(work, rates, name, mib, work.starts_at_once)
        problems = _problems(work, rates, name, fate, simulation)
        modes.append(Mode(costs[name].name, costs[name], fate, problems))
    largest = {name: _largest_herd(work, rates, name, mib) for name in MODES if work.model}
    others = cost.others(work, rates)
    advice = _advise(work, rates, modes, simulation, largest)
    return Plan(work, modes, others, simulation, largest, advice, str(rates["read"]))


def metered_per_minute(work: Workload, rates: Rates) -> float:
    """Return the bytes that bursting meters in a busy minute."""
    table = rates["bursting"]
    least, third = table["least_metered"], table["metered_read"]
    reads = sum(count * max(size, least) for count, size in work.data_reads)
    writes = sum(count * max(size, least) for count, size in work.data_writes)
    reads += work.metadata_reads * least
    writes += work.metadata_writes * least
    return float((reads * third + writes) / work.busy_seconds * bursting.MINUTE)


def simulate_credits(work: Workload, rates: Rates, *, days: int = _YEAR) -> Simulation:
    """Return the simulation of a new file system in bursting mode, over so many equal days."""
    busy = round(work.busy_hours * 60)
    demand = [metered_per_minute(work, rates)] * busy + [0.0] * (1440 - busy)
    account = bursting.of_storage(work.stored - work.cold_storage, rates)
    return bursting.simulate(account, demand, repeat=days)


def simulate_herd(work: Workload, rates: Rates, mode: str, mib: float, count: int) -> Herd:
    """Return how `count` environments fare that start at once; bursting has no credits left."""
    table = rates[mode]
    shared = float(table["read"])
    if mode == "provisioned":
        shared = min(shared, mib / table["metered_read"])
    if mode == "bursting":
        baseline = bursting.of_storage(work.stored - work.cold_storage, rates).baseline / MIB
        shared = min(shared, baseline / table["metered_read"])
    return herd.simulate(
        count,
        work.model,
        throughput=shared * MIB,
        network=rates["lambda"]["network"] * MIB,
        starts=rates["lambda"]["starts"],
        timeout=work.timeout,
    )


def _largest_herd(work: Workload, rates: Rates, mode: str, mib: float) -> int:
    """Return the most environments that can start at once and load in time; at most 10,000."""
    low, high = 0, 10_000
    while low < high:
        middle = (low + high + 1) // 2
        if simulate_herd(work, rates, mode, mib, middle).late:
            high = middle - 1
        else:
            low = middle
    return low


def _problems(
    work: Workload, rates: Rates, mode: str, fate: Herd, simulation: Simulation
) -> list[str]:
    """Return why a mode does not hold, in sentences."""
    problems = []
    reads, writes = work.operations
    for kind, number in (("read", reads), ("write", writes)):
        most = rates[mode][f"{kind}_operations"]
        if number > most:
            problems.append(f"{number:,.0f} {kind} operations a second; the limit is {most:,}")
    if fate.late:
        problems.append(
            f"{fate.late} of {work.starts_at_once} cold starts at once need longer than"
            f" {work.timeout:g} s; the last one has its model after {duration(fate.last)}"
        )
    if mode == "bursting" and simulation.ends is not None:
        problems.append(f"the credits of a new file system end after {_when(simulation.ends)}")
    return problems


def _advise(
    work: Workload,
    rates: Rates,
    modes: list[Mode],
    simulation: Simulation,
    largest: dict[str, int],
) -> list[str]:
    """Return the advice, in sentences."""
    advice = []
    holding = sorted((m for m in modes if not m.problems), key=lambda mode: mode.cost.total)
    if holding:
        best = holding[0]
        advice.append(
            f"{best.name} is the cheapest mode that holds: ${best.cost.total:,.2f} a month."
        )
    else:
        advice.append("No mode holds: raise the timeout, or let fewer environments start at once.")
    if simulation.ends is not None:
        advice.append(f"In bursting mode, credits end after {_when(simulation.ends)}.")
    advice += [
        f"In {mode} mode, at most {count:,} environments can start at once and load in time."
        for mode, count in largest.items()
    ]
    if work.model and rates["lambda"]["network"] * MIB * work.timeout < work.model:
        advice.append("The model does not fit into the timeout by an environment's own network.")
    cheap = cost.break_even(rates, elastic=True)
    if work.entry < cheap and (work.hits or work.puts):
        advice.append(
            f"Entries of {size(work.entry)} cost more in Infrequent Access than in Standard"
            f" (files below {size(cheap)} do, on Elastic); do not move them there."
        )
    return advice


def _when(minute: int) -> str:
    return duration(minute * bursting.MINUTE)


def duration(seconds: float) -> str:
    """Return a duration as people say it."""
    for unit, length in (("days", DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(value: float) -> str:
    """Return a size as people say it."""
    for unit, length in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if value >= length:
            return f"{value / length:.1f} {unit}"
    return f"{value:.0f} bytes"
