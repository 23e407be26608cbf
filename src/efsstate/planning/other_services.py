"""Compute a month's cost of the same work on other services, as far as each can do it."""

from __future__ import annotations

import math
from collections.abc import Callable

from efsstate.planning import text
from efsstate.planning.cost import MONTH, Cost
from efsstate.planning.rates import GIB, Rates, known_prices
from efsstate.planning.workload import Workload

KIB = 1024
_NO_FENCING = "it has no fencing: checkpoints need a condition on every write"
_CACHE = "a cache may lose its values: no checkpoints"


def others(work: Workload, rates: Rates) -> list[Cost]:
    """Return the cost on each service; `reason` says which part of the work it cannot do."""
    services: list[tuple[str, str, Callable[[Workload, Rates], Cost]]] = [
        ("S3", "s3", _s3),
        ("S3 Files", "s3_files", _s3_files),
        ("DynamoDB", "dynamodb", _dynamodb),
        ("ElastiCache Serverless", "elasticache", _elasticache),
        ("container image", "ecr", _image),
    ]
    costs = []
    for name, table, function in services:
        try:
            costs.append(function(work, rates))
        except KeyError as error:  # not every region's prices have all of them
            missing = str(error.args[0])
            place = f"[{missing}]" if missing in known_prices() else f"[{table}] {missing}"
            reason = f"its prices are missing for {rates['region']} ({place})"
            costs.append(Cost(name, {}, reason))
    return costs


def _count(pairs: list[tuple[float, float]]) -> float:
    return sum(count for count, _ in pairs)


def _s3(work: Workload, rates: Rates) -> Cost:
    prices = rates["s3"]
    requests = _count(work.data_reads) * prices["get"] + _count(work.data_writes) * prices["put"]
    items = {"storage": work.stored / GIB * prices["gb"], "requests": MONTH * requests}
    return Cost("S3", items, _NO_FENCING if work.saves else "")


def _s3_files(work: Workload, rates: Rates) -> Cost:
    """Return the cost with everything in the active part, which is the most that it can be."""
    prices = rates["s3_files"]
    reads = sum(count * max(size, prices["least_data"]) for count, size in work.data_reads)
    writes = sum(count * max(size, prices["least_data"]) for count, size in work.data_writes)
    active = work.stored * max(1.0, prices["least_file"] / max(1, work.entry))
    items = {
        "bucket": work.stored / GIB * rates["s3"]["gb"],
        "active storage": active / GIB * prices["gb"],
        "reads": MONTH * reads / GIB * prices["read_gb"],
        "writes": MONTH * writes / GIB * prices["write_gb"],
    }
    reason = "a writer to the bucket wins over an acknowledged save" if work.saves else ""
    return Cost("S3 Files", items, reason)


def _dynamodb(work: Workload, rates: Rates) -> Cost:
    prices = rates["dynamodb"]
    largest = max(work.entry, work.state, work.read_size, work.write_size)
    if largest > prices["largest"] or work.model:
        return Cost("DynamoDB", {}, "an item is at most 400 KB")
    reads = sum(count * math.ceil(size / (4 * KIB)) for count, size in work.data_reads)
    writes = sum(count * math.ceil(size / KIB) for count, size in work.data_writes)
    items = {
        "storage": work.stored / GIB * prices["gb"],
        "reads": MONTH * reads * prices["read"],
        "writes": MONTH * writes * prices["write"],
    }
    return Cost("DynamoDB", items)


def _elasticache(work: Workload, rates: Rates) -> Cost:
    """Return the cost of Serverless: gigabyte-hours, and a unit for each KiB of a request."""
    prices = rates["elasticache"]
    if work.model:
        return Cost("ElastiCache Serverless", {}, "it holds values, and no files of a model")
    requests = [*work.data_reads, *work.data_writes]
    units = sum(count * max(1, math.ceil(size / KIB)) for count, size in requests)
    stored = max(prices["least_gb"], work.stored / GIB)
    items = {
        "memory": stored * prices["gb_hour"] * 24 * MONTH,
        "requests": MONTH * units * prices["unit"],
    }
    return Cost("ElastiCache Serverless", items, _CACHE if work.saves else "")


def _shared(work: Workload) -> list[tuple[float, float]]:
    """Return the reads and writes of results, without those of the model."""
    results = (work.hits, work.puts, work.misses, work.reads, work.writes)
    return [(count, 0.0) for count in results]


def _image(work: Workload, rates: Rates) -> Cost:
    prices = rates["ecr"]
    if not work.model or work.saves or any(count for count, _ in _shared(work)):
        return Cost("container image", {}, "it holds a model, and shares no results or state")
    if work.model > prices["largest"]:
        return Cost("container image", {}, "an image is at most 10 GB")
    rest = work.stored - work.model
    reason = f"it holds the model, and not the other {text.size(rest)}" if rest > 0 else ""
    return Cost("container image", {"registry": work.model / GIB * prices["gb"]}, reason)
