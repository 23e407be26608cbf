"""Simulate the burst credits of a file system, minute by minute.

A file system earns credits at its baseline, and spends them at the rate of its metered traffic.
Reads are metered at a third. While there are credits, traffic may be as fast as the burst; without
them it is as fast as the baseline. (EFS guide, read in November 2026.)
"""

from __future__ import annotations

from typing import NamedTuple

from efsstate.planning.rates import GIB, MIB, TIB, Rates

MINUTE = 60.0


class Account(NamedTuple):
    """The credit account of a file system with a certain storage, in bytes and bytes a second."""

    baseline: float
    burst: float
    most: float

    def seconds_of_burst(self, balance: float, *, accruing: bool = True) -> float:
        """Return how long a `balance` lasts at the full burst; `accruing` counts new ones too."""
        drain = self.burst - (self.baseline if accruing else 0.0)
        return float("inf") if drain <= 0 else balance / drain

    def earned(self, seconds: float) -> float:
        """Return the credits that an idle file system earns."""
        return self.baseline * seconds


def of_storage(stored: float, rates: Rates) -> Account:
    """Return the credit account of a file system with `stored` bytes in Standard storage."""
    table = rates["bursting"]
    tebibytes = max(1.0, stored / TIB)
    return Account(
        max(table["baseline_least"], table["baseline_per_gib"] * stored / GIB) * MIB,
        max(table["burst_least"], table["burst_per_tib"] * stored / TIB) * MIB,
        table["credits_tib"] * TIB * tebibytes,
    )


class Simulation(NamedTuple):
    """The result of a series of minutes.

    `ends` is the first minute without credits, or None; `balance` the credits at the end of each
    hour; `starved` the minutes in which traffic had to wait; `unserved` the bytes at the end.
    """

    ends: int | None
    balance: list[float]
    starved: int
    unserved: float


def simulate(
    account: Account, demand: list[float], *, start: float | None = None, minutes: int | None = None
) -> Simulation:
    """Run `demand`, metered bytes of each minute, for so many minutes; unserved bytes wait.

    `start` is the balance at the beginning, else that of a new file system. The demand repeats
    until `minutes` have passed; without them it runs once.
    """
    balance = account.most if start is None else min(start, account.most)
    waiting, starved, ends = 0.0, 0, None
    hours: list[float] = []
    total = len(demand) if minutes is None else minutes
    minute = 0
    while minute < total and demand:
        before, known = (balance, waiting), (len(hours), starved)
        for wanted in demand[: total - minute]:
            waiting += wanted
            available = balance + account.baseline * MINUTE
            served = min(waiting, account.burst * MINUTE, available)
            waiting -= served
            balance = min(account.most, available - served)
            if waiting > 0.5:
                starved += 1
                if ends is None and balance < 1:
                    ends = minute
            minute += 1
            if minute % 60 == 0:
                hours.append(balance)
        # A round that ends as it began is repeated by all the rounds after it.
        rounds = (total - minute) // len(demand)
        if (balance, waiting) == before and len(demand) % 60 == 0 and rounds:
            hours += hours[known[0] :] * rounds
            starved += (starved - known[1]) * rounds
            minute += len(demand) * rounds
    return Simulation(ends, hours, starved, waiting)
