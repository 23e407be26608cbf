"""Put a plan together: throughput, credits, cold starts and cost of one workload in each mode."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from efsstate.planning import bursting, cost, herd
from efsstate.planning.bursting import Account, Simulation
from efsstate.planning.cost import Cost
from efsstate.planning.herd import Herd
from efsstate.planning.other_services import others
from efsstate.planning.rates import MIB, Rates
from efsstate.planning.text import duration
from efsstate.planning.workload import Workload

MODES = ("elastic", "bursting", "provisioned")
WITH_CREDITS = "bursting, with credits"
_YEAR = 365
MOST_ENVIRONMENTS = 10_000


class Mode(NamedTuple):
    """One throughput mode: its cost, the fate of its herd, and the reasons why it does not hold."""

    mode: str
    cost: Cost
    herd: Herd
    problems: list[str]

    @property
    def name(self) -> str:
        """The mode with its zone or its throughput, for people."""
        return self.cost.name

    @property
    def is_one_zone(self) -> bool:
        """True if its storage is in a single zone."""
        return self.name.endswith("one zone")

    @property
    def is_unpriced(self) -> bool:
        """True if it would hold, and one of its prices is missing."""
        return self.cost.total == float("inf") and len(self.problems) == 1


class Plan(NamedTuple):
    """The answer to a workload. `credits` is the simulation of bursting, over a year of days.

    `largest_herd` is the most environments that load in time, by mode. `balance` is the balance of
    credits with which the simulation begins.
    """

    workload: Workload
    rates: Rates
    modes: list[Mode]
    others: list[Cost]
    credits: Simulation
    balance: float
    largest_herd: dict[str, int]

    @property
    def best(self) -> Mode | None:
        """The cheapest regional mode that holds: One Zone storage is lost with its zone."""
        holding = [mode for mode in self.modes if not mode.problems and not mode.is_one_zone]
        return min(holding, key=lambda mode: mode.cost.total, default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "workload": dataclasses.asdict(self.workload),
            "region": self.rates["region"],
            "modes": [
                {
                    "mode": mode.name,
                    "month": _cents(mode.cost.total),
                    "items": {name: _cents(value) for name, value in mode.cost.items.items()},
                    "herd": dict(mode.herd._asdict()),
                    "problems": mode.problems,
                }
                for mode in self.modes
            ],
            "others": [
                {
                    "service": service.name,
                    "month": _cents(service.total) if service.items else None,
                    "items": {name: _cents(value) for name, value in service.items.items()},
                    "reason": service.reason,
                }
                for service in self.others
            ],
            "credits_end_minute": self.credits.ends,
            "credits_by_week": [round(value) for value in self.credits.balance[:: 24 * 7]],
            "largest_herd": self.largest_herd,
            "rates_read": self.rates["read"],
            "rates_source": self.rates["source"],
        }


def _cents(value: float) -> float | None:
    return None if value == float("inf") else round(value, 2)


def make(
    work: Workload,
    rates: Rates,
    *,
    provision: float = 0.0,
    profile: list[float] | None = None,
    balance: float | None = None,
) -> Plan:
    """Return the plan of a workload; `provision` MiB/s, or as many as it needs.

    `profile` is the metered bytes of each minute of a history, whose sums the workload has too; it
    repeats. `balance` is the credits at the beginning, else those of a new file system.
    """
    account = bursting.of_storage(work.standard, rates)
    start = account.most if balance is None else min(balance, account.most)
    simulation = simulate_credits(work, rates, account, profile=profile, start=start)
    steady = cost.metered_bursting(work, rates) / work.busy_seconds / MIB
    needed = max(steady, max(profile or [0.0]) / bursting.MINUTE / MIB)
    mib = provision or math.ceil(max(1.0, needed, cost.needed_mib(work, rates)))
    costs = [
        ("elastic", cost.elastic(work, rates)),
        ("bursting", cost.bursting(work, rates)),
        ("provisioned", cost.provisioned(work, rates, mib)),
        ("elastic", cost.elastic(work, rates, zone="one_zone")),
        ("bursting", cost.bursting(work, rates, zone="one_zone")),
    ]
    modes = []
    for name, price in costs:
        limits = _limits(rates, name, one_zone=price.name.endswith("one zone"))
        fate = simulate_herd(work, rates, name, mib, work.starts_at_once, limits=limits)
        problems = _problems(work, name, limits, fate, simulation, price, mib, needed)
        modes.append(Mode(name, price, fate, problems))
    largest = {name: _largest_herd(work, rates, name, mib) for name in MODES if work.model}
    if work.model:
        largest[WITH_CREDITS] = _largest_herd(work, rates, "bursting", mib, credit=start)
    return Plan(work, rates, modes, others(work, rates), simulation, start, largest)


def _limits(rates: Rates, mode: str, *, one_zone: bool) -> Rates:
    """Return the limits of a mode, which One Zone storage lowers."""
    limits: Rates = rates[mode]
    if one_zone:
        limits = limits | {key: min(limits[key], most) for key, most in rates["one_zone"].items()}
    return limits


def simulate_credits(
    work: Workload,
    rates: Rates,
    account: Account | None = None,
    *,
    days: int = _YEAR,
    profile: list[float] | None = None,
    start: float | None = None,
) -> Simulation:
    """Return the simulation of bursting mode, over so many days that are all alike.

    With a `profile`, its minutes repeat, and traffic of the workload that it does not have is added
    to each.
    """
    account = account or bursting.of_storage(work.standard, rates)
    if profile:
        planned = dataclasses.replace(work, reads=0, writes=0, other_reads=0, other_writes=0)
        more = cost.metered_bursting(planned, rates) / 1440
        demand = [value + more for value in profile]
    else:
        busy = round(work.busy_hours * 60)
        minute = cost.metered_bursting(work, rates) / busy
        demand = [minute] * busy + [0.0] * (1440 - busy)
    minutes = 1440 * days
    return bursting.simulate(account, demand, start=start, minutes=minutes)


def simulate_herd(
    work: Workload,
    rates: Rates,
    mode: str,
    mib: float,
    count: int,
    *,
    limits: Rates | None = None,
    credit: float = 0.0,
) -> Herd:
    """Return how `count` environments fare that start at once.

    `credit` is the balance in bursting mode, metered bytes; without it credits are used up.
    """
    table = limits or rates[mode]
    shared = float(table["read"])
    if mode == "provisioned":
        shared = min(shared, mib / table["metered_read"])
    burst = baseline = 0.0
    if mode == "bursting":
        account = bursting.of_storage(work.standard, rates)
        baseline = account.baseline
        burst = min(shared * MIB, account.burst / table["metered_read"]) if credit else 0.0
        shared = min(shared, baseline / MIB / table["metered_read"])
    return herd.simulate(
        count,
        work.model,
        throughput=shared * MIB,
        network=rates["lambda"]["network"] * MIB,
        starts=rates["lambda"]["starts"],
        timeout=work.timeout,
        balance=credit,
        burst=burst,
        baseline=baseline,
    )


def _largest_herd(
    work: Workload, rates: Rates, mode: str, mib: float, *, credit: float = 0.0
) -> int:
    """Return the most environments that can start at once and load in time; at most 10,000."""
    low, high = 0, MOST_ENVIRONMENTS
    while low < high:
        middle = (low + high + 1) // 2
        if simulate_herd(work, rates, mode, mib, middle, credit=credit).late:
            high = middle - 1
        else:
            low = middle
    return low


def _problems(
    work: Workload,
    mode: str,
    limits: Rates,
    fate: Herd,
    simulation: Simulation,
    price: Cost,
    mib: float,
    needed: float,
) -> list[str]:
    """Return why a mode does not hold, in sentences."""
    problems = []
    reads, writes = work.operations
    for kind, number in (("read", reads), ("write", writes)):
        most = limits[f"{kind}_operations"]
        if number > most:
            problems.append(f"{number:,.0f} {kind} operations a second; the limit is {most:,}")
    cold = (work.cold_reads + work.archive_reads) / work.busy_seconds
    if mode == "elastic" and cold > limits["cold_operations"]:
        most = limits["cold_operations"]
        problems.append(f"{cold:,.0f} reads of cold data a second; the limit is {most:,}")
    for kind, rate in zip(("read", "write"), work.bytes_per_second, strict=True):
        if rate > limits[kind] * MIB:
            problems.append(
                f"{rate / MIB:,.0f} MiB/s to {kind}; the limit of the mode is {limits[kind]:,}"
            )
    if mode == "provisioned" and needed > mib:
        problems.append(f"the traffic needs {needed:,.1f} MiB/s, and {mib:g} are provisioned")
    if fate.late:
        problems.append(
            f"{fate.late} of {work.starts_at_once} cold starts at once need longer than"
            f" {work.timeout:g} s; the last one has its model after {duration(fate.last)}"
        )
    if mode == "bursting" and simulation.ends is not None:
        when = duration(simulation.ends * bursting.MINUTE)
        problems.append(f"the credits end after {when}")
    if mode != "elastic" and (work.archive_storage or work.archive_reads):
        problems.append("Archive storage needs Elastic throughput")
    if price.total == float("inf"):
        missing = [name for name, value in price.items.items() if value == float("inf")]
        problems.append(f"there is no price for its {', '.join(missing)}")
    return problems
