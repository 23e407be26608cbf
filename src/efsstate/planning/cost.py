"""Compute a month's cost of a workload on EFS, item by item, in each throughput mode.

A month has 30 days here. Items that AWS does not bill are left out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from efsstate.planning.rates import GIB, MIB, Rates
from efsstate.planning.workload import Workload

MONTH = 30  # days


class Cost(NamedTuple):
    """The dollars of a month: `items` by name. `reason` says why a service cannot do the work."""

    name: str
    items: dict[str, float]
    reason: str = ""

    @property
    def total(self) -> float:
        """The sum of the items."""
        return sum(self.items.values())


def metered_elastic(size: float, rates: Rates) -> float:
    """Return the bytes that Elastic meters for a data operation: 32 KiB at least, by the KiB."""
    return max(float(rates["elastic"]["least_data"]), math.ceil(size / 1024) * 1024.0)


def elastic_traffic(work: Workload, rates: Rates) -> tuple[float, float]:
    """Return the bytes that Elastic meters in a day: read and written, metadata among them."""
    least = rates["elastic"]["least_metadata"]
    reads = sum(count * metered_elastic(size, rates) for count, size in work.data_reads)
    writes = sum(count * metered_elastic(size, rates) for count, size in work.data_writes)
    return reads + work.metadata_reads * least, writes + work.metadata_writes * least


def elastic(work: Workload, rates: Rates, *, zone: str = "standard") -> Cost:
    """Return the cost on Elastic throughput; `zone` is "standard" or "one_zone"."""
    reads, writes = elastic_traffic(work, rates)
    items = _storage(work, rates, zone, "ia_elastic" if zone == "standard" else "ia_one_zone")
    items["reads"] = MONTH * reads / GIB * rates["elastic"]["read_gb"]
    items["writes"] = MONTH * writes / GIB * rates["elastic"]["write_gb"]
    return Cost("elastic" if zone == "standard" else "elastic, one zone", items)


def bursting(work: Workload, rates: Rates, *, zone: str = "standard") -> Cost:
    """Return the cost on Bursting throughput: storage alone; `zone` as in `elastic`."""
    name = "bursting" if zone == "standard" else "bursting, one zone"
    return Cost(name, _storage(work, rates, zone, "ia" if zone == "standard" else "ia_one_zone"))


def provisioned(work: Workload, rates: Rates, mib: float) -> Cost:
    """Return the cost with `mib` MiB/s provisioned; the baseline is included in the storage."""
    included = rates["bursting"]["baseline_per_gib"] * work.standard / GIB
    items = _storage(work, rates, "standard", "ia")
    items["throughput"] = max(0.0, mib - included) * rates["provisioned"]["month_per_mib"]
    return Cost(f"provisioned {mib:g} MiB/s", items)


def _storage(work: Workload, rates: Rates, zone: str, cold: str) -> dict[str, float]:
    """Return the cost of storage by class. An item that has no price is infinite."""
    prices = rates["storage"]
    unknown = float("inf")
    items = {"storage": work.standard / GIB * prices.get(zone, unknown) if work.standard else 0.0}
    if work.cold_storage:
        overhead = work.cold_overhead or _overhead(work.cold_storage, work.entry, rates)
        billed = work.cold_storage + overhead
        items["infrequent access"] = billed / GIB * prices.get(cold, unknown)
    if work.cold_reads:
        read = MONTH * work.cold_reads * work.entry / GIB
        items["reads of infrequent access"] = read * prices.get("ia_access_gb", unknown)
    if work.archive_storage:
        overhead = work.archive_overhead or _overhead(work.archive_storage, work.entry, rates)
        billed = work.archive_storage + overhead
        items["archive"] = billed / GIB * prices.get("archive", unknown)
    if work.archive_reads:
        read = MONTH * work.archive_reads * work.entry / GIB
        items["reads of archive"] = read * prices.get("archive_access_gb", unknown)
    return items


def _overhead(stored: int, entry: int, rates: Rates) -> float:
    """Return the bytes that files of `entry` bytes are billed for besides their own."""
    least: float = rates["storage"]["cold_least"]
    return stored * max(0.0, least / max(1, entry) - 1)


def break_even(rates: Rates, kind: str) -> float:
    """Return the size in bytes below which a file costs more than in Standard storage.

    `kind` is the name of its price: "ia", "ia_elastic" or "archive".
    """
    prices = rates["storage"]
    return float(prices["cold_least"]) * float(prices[kind]) / float(prices["standard"])


def metered_bursting(work: Workload, rates: Rates) -> float:
    """Return the bytes that Bursting and Provisioned meter in a day; reads count a third."""
    table = rates["bursting"]
    least, third = table["least_metered"], table["metered_read"]
    reads = sum(count * max(size, least) for count, size in work.data_reads)
    writes = sum(count * max(size, least) for count, size in work.data_writes)
    reads += work.metadata_reads * least
    writes += work.metadata_writes * least
    return float(reads * third + writes)


def needed_mib(work: Workload, rates: Rates) -> float:
    """Return the MiB/s to provision for the busy hours, and for the herd to load in time."""
    third = rates["provisioned"]["metered_read"]
    steady = metered_bursting(work, rates) / work.busy_seconds
    herd = work.starts_at_once * work.model * third / work.timeout if work.timeout else 0.0
    return float(math.ceil(max(steady, herd) / MIB))
