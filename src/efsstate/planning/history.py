"""A file system's history by minute, as a workload: gaps, means, and a check of the simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from efsstate.planning import bursting
from efsstate.planning.rates import Rates
from efsstate.planning.text import size
from efsstate.planning.workload import Workload

_MINUTES = 1440
TRAFFIC = ("DataReadIOBytes", "DataWriteIOBytes", "MetadataReadIOBytes", "MetadataWriteIOBytes")
CLASSES = ("Total", "Standard", "IA", "IASizeOverhead", "Archive", "ArchiveSizeOverhead")


@dataclass
class History:
    """The metrics of a file system, by name and by minute since `start` (seconds, epoch).

    `sums` and `counts` are the bytes and the operations of a minute; a minute without data is not
    in them. `stored` is the newest bytes of each storage class. `mode` is the present throughput
    mode, or "" if it could not be read.
    """

    file_system: str
    region: str
    start: float
    minutes: int
    sums: dict[str, dict[int, float]] = field(default_factory=dict)
    counts: dict[str, dict[int, float]] = field(default_factory=dict)
    stored: dict[str, float] = field(default_factory=dict)
    mode: str = ""

    @property
    def days(self) -> float:
        """The length of the history."""
        return self.minutes / _MINUTES

    @property
    def gaps(self) -> int:
        """The minutes in which no metric of traffic has a value."""
        known: set[int] = set()
        for name in ("MeteredIOBytes", *TRAFFIC):
            known |= self.sums.get(name, {}).keys()
        return self.minutes - len(known)

    @property
    def balance(self) -> float | None:
        """The newest balance of credits, or None if there was none (in Elastic mode)."""
        values = self.sums.get("BurstCreditBalance", {})
        return values[max(values)] if values else None

    def metered(self) -> list[float]:
        """Return the metered bytes of each minute; a minute without data is idle."""
        values = self.sums.get("MeteredIOBytes", {})
        return [values.get(minute, 0.0) for minute in range(self.minutes)]

    def workload(self) -> Workload:
        """Return the mean day, with what is stored now."""
        reads, read_size = self._mean("DataReadIOBytes")
        writes, write_size = self._mean("DataWriteIOBytes")
        cold, archive = self.stored.get("IA", 0.0), self.stored.get("Archive", 0.0)
        total = self.stored.get("Total", self.stored.get("Standard", 0.0) + cold + archive)
        return Workload(
            stored=round(max(total, cold + archive)),
            cold_storage=int(cold),
            archive_storage=int(archive),
            cold_overhead=round(self.stored.get("IASizeOverhead", 0.0)),
            archive_overhead=round(self.stored.get("ArchiveSizeOverhead", 0.0)),
            reads=reads,
            read_size=read_size,
            writes=writes,
            write_size=write_size,
            other_reads=self._mean("MetadataReadIOBytes")[0],
            other_writes=self._mean("MetadataWriteIOBytes")[0],
        )

    def _mean(self, name: str) -> tuple[float, int]:
        """Return the operations of a mean day, and the mean bytes of one."""
        count = sum(self.counts.get(name, {}).values())
        total = sum(self.sums.get(name, {}).values())
        return count / self.days, round(total / count) if count else 0

    def check(self, rates: Rates) -> tuple[float, float] | None:
        """Return the measured and the simulated balance at the end, from the first that is known.

        It tells how true the simulation is to this file system. None without two balances.
        """
        balances = self.sums.get("BurstCreditBalance", {})
        if len(balances) < 2:
            return None
        first, last = min(balances), max(balances)
        account = bursting.of_storage(self.stored.get("Standard", 0.0), rates)
        demand = self.metered()[first + 1 : last + 1]
        balance = balances[first]
        for wanted in demand:
            balance = min(account.most, max(0.0, balance + account.baseline * 60 - wanted))
        return balances[last], balance

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        return {
            "file_system": self.file_system,
            "region": self.region,
            "start": self.start,
            "minutes": self.minutes,
            "gaps": self.gaps,
            "mode": self.mode,
            "stored": self.stored,
            "balance": self.balance,
        }

    def sentences(self) -> list[str]:
        """Return where the figures come from, and what is missing of them."""
        total = sum(self.sums.get("MeteredIOBytes", {}).values())
        mode = f", in {self.mode} mode" if self.mode else ""
        metered, stored = size(total), size(self.workload().stored)
        place = f"{self.file_system} in {self.region}{mode}"
        lines = [f"{place}: {self.days:g} days by minute, {metered} metered, {stored} stored"]
        if self.gaps:
            lines.append(
                f"{self.gaps:,} of {self.minutes:,} minutes have no data; they count as idle"
            )
        if not self.stored:
            lines.append("StorageBytes has no data: give --stored, or the cost of storage is 0")
        return lines
