"""Compute a month's cost of a workload, item by item: EFS in each mode, and other services.

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


def elastic(work: Workload, rates: Rates, *, zone: str = "standard") -> Cost:
    """Return the cost on Elastic throughput."""
    table = rates["elastic"]
    reads = sum(count * metered_elastic(size, rates) for count, size in work.data_reads)
    writes = sum(count * metered_elastic(size, rates) for count, size in work.data_writes)
    reads += work.metadata_reads * table["least_metadata"]
    writes += work.metadata_writes * table["least_metadata"]
    items = _storage(work, rates, zone, "ia_elastic")
    items["reads"] = MONTH * reads / GIB * table["read_gb"]
    items["writes"] = MONTH * writes / GIB * table["write_gb"]
    return Cost("elastic" if zone == "standard" else "elastic, one zone", items)


def bursting(work: Workload, rates: Rates, *, zone: str = "standard") -> Cost:
    """Return the cost on Bursting throughput: storage alone."""
    name = "bursting" if zone == "standard" else "bursting, one zone"
    return Cost(name, _storage(work, rates, zone, "ia"))


def provisioned(work: Workload, rates: Rates, mib: float) -> Cost:
    """Return the cost with `mib` MiB/s provisioned; the baseline is included in the storage."""
    included = rates["bursting"]["baseline_per_gib"] * (work.stored - work.cold_storage) / GIB
    items = _storage(work, rates, "standard", "ia")
    items["throughput"] = max(0.0, mib - included) * rates["provisioned"]["month_per_mib"]
    return Cost(f"provisioned {mib:g} MiB/s", items)


def _storage(work: Workload, rates: Rates, zone: str, cold: str) -> dict[str, float]:
    prices = rates["storage"]
    items = {"storage": (work.stored - work.cold_storage) / GIB * prices[zone]}
    if work.cold_storage:
        billed = work.cold_storage * max(1.0, prices["ia_least"] / max(1, work.entry))
        items["infrequent access"] = billed / GIB * prices[cold]
    return items


def break_even(rates: Rates, *, elastic: bool) -> float:
    """Return the size in bytes below which a file costs more in Infrequent Access."""
    prices = rates["storage"]
    cold: float = prices["ia_elastic" if elastic else "ia"]
    return float(prices["ia_least"]) * cold / float(prices["standard"])


def others(work: Workload, rates: Rates) -> list[Cost]:
    """Return the cost of the same work on other services, or why they cannot do it."""
    reads = sum(count for count, _ in work.data_reads)
    writes = sum(count for count, _ in work.data_writes)
    s3 = {
        "storage": work.stored / GIB * rates["s3"]["gb"],
        "requests": MONTH * (reads * rates["s3"]["get"] + writes * rates["s3"]["put"]),
    }
    files, least = rates["s3_files"], rates["s3_files"]["least_data"]
    metered = {
        kind: sum(count * max(size, least) for count, size in pairs)
        for kind, pairs in (("reads", work.data_reads), ("writes", work.data_writes))
    }
    s3_files = {
        "bucket": s3["storage"],
        "active storage": work.stored / GIB * files["gb"],
        "reads": MONTH * metered["reads"] / GIB * files["read_gb"],
        "writes": MONTH * metered["writes"] / GIB * files["write_gb"],
    }
    return [
        Cost("S3", s3, "" if not work.saves else "it has no fencing: no checkpoints as here"),
        Cost("S3 Files", s3_files),
        _dynamodb(work, rates),
        _image(work, rates),
    ]


def _dynamodb(work: Workload, rates: Rates) -> Cost:
    table = rates["dynamodb"]
    if max(work.entry, work.state) > table["largest"] or work.model:
        return Cost("DynamoDB", {}, "an item is at most 400 KB")
    units = {
        "reads": work.hits * math.ceil(work.entry / 4096) * table["read"],
        "writes": sum(c * math.ceil(size / 1024) for c, size in work.data_writes) * table["write"],
    }
    items = {"storage": work.stored / GIB * table["gb"]}
    return Cost("DynamoDB", items | {name: MONTH * value for name, value in units.items()})


def _image(work: Workload, rates: Rates) -> Cost:
    if not work.model or work.hits or work.puts or work.saves:
        return Cost("container image", {}, "it holds a model, and shares no results or state")
    if work.model > rates["ecr"]["largest"]:
        return Cost("container image", {}, "an image is at most 10 GB")
    return Cost("container image", {"registry": work.model / GIB * rates["ecr"]["gb"]})


def needed_mib(work: Workload, rates: Rates) -> float:
    """Return the MiB/s to provision for the busy hours, and for the herd to load in time."""
    table = rates["provisioned"]
    third = table["metered_read"]
    reads = sum(c * max(size, table["least_metered"]) for c, size in work.data_reads)
    writes = sum(c * max(size, table["least_metered"]) for c, size in work.data_writes)
    reads += work.metadata_reads * table["least_metered"]
    writes += work.metadata_writes * table["least_metered"]
    steady = (reads * third + writes) / work.busy_seconds
    herd: float = work.starts_at_once * work.model * third / work.timeout if work.timeout else 0.0
    return float(math.ceil(max(steady, herd) / MIB))
