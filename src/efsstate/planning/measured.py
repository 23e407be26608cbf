"""Read what a test run recorded, events or metrics, as a workload.

A line of the file is a JSON object: an event as `efsstate.on_event` gives it, with a `time` if the
recorder added one (`efsstate.metrics.record` does), or a line of CloudWatch's embedded metric
format, as `efsstate.metrics.emf` writes it. Other lines, such as a function's log, are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from efsstate.errors import EfsStateError
from efsstate.planning.text import duration, size
from efsstate.planning.workload import DAY, Workload

# Requests of each operation, as the tests of the NFS lab count them (tests/nfs/test_budgets.py).
REQUESTS = {"hits": 3, "puts": 4, "misses": 11, "saves": 6}


@dataclass
class Measured:
    """The counts and bytes of a run of `seconds`.

    `memory_hits` cost nothing on the mount. `cover` is the time that the counts stand for.
    """

    source: str
    seconds: float = 0.0
    hits: int = 0
    memory_hits: int = 0
    hit_bytes: int = 0
    puts: int = 0
    put_bytes: int = 0
    misses: int = 0
    saves: int = 0
    save_bytes: int = 0
    loads: int = 0
    load_bytes: int = 0
    removed: int = 0
    lines: int = 0
    unknown: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain values, with the requests and bytes that they predict."""
        return asdict(self) | {"requests": self.requests(), "bytes": self.bytes()}

    def requests(self) -> int:
        """Return the requests to the server that these operations cost in warm folders."""
        puts, misses = self._stored()
        counts = {"hits": self.hits, "puts": puts, "misses": misses, "saves": self.saves}
        return sum(REQUESTS[name] * count for name, count in counts.items())

    def _stored(self) -> tuple[int, int]:
        """Return the puts without a computation, and the misses whose result was stored."""
        misses = min(self.misses, self.puts)
        return self.puts - misses, misses

    def bytes(self) -> int:
        """Return the bytes of data that were read and written."""
        return self.hit_bytes + self.put_bytes + self.save_bytes + self.load_bytes

    def workload(self) -> Workload:
        """Return the workload of a day of such runs, one after the other."""
        per_day = DAY / self.seconds
        entries = self.hits + self.puts
        puts, misses = self._stored()
        entry = (self.hit_bytes + self.put_bytes) // entries if entries else 0
        return Workload(
            hits=self.hits * per_day,
            puts=puts * per_day,
            misses=misses * per_day,
            entry=entry or 4096,
            saves=self.saves * per_day,
            state=self.save_bytes // self.saves if self.saves and self.save_bytes else 4096,
            cold_starts=self.loads * per_day if self.load_bytes else 0.0,
            model=self.load_bytes // self.loads if self.loads else 0,
        )

    def sentences(self) -> list[str]:
        """Return the measured figures, in sentences."""
        parts = [
            f"{self.hits:,} hits on the mount",
            f"{self.memory_hits:,} in memory",
            f"{self.puts:,} puts",
            f"{self.saves:,} saves",
            f"{self.loads:,} loads",
        ]
        counts = f"{', '.join(parts)} in {duration(self.seconds)}"
        cost = f"{self.requests():,} requests and {size(self.bytes())} of data"
        return [f"{self.source}: {counts}; they cost {cost}"]


def read(lines: Iterable[str], source: str, *, covering: float | None = None) -> Measured:
    """Return what the lines of `source` recorded; they cover `covering` seconds.

    Without `covering` it is the time from the first to the last line that has one. Raise
    EfsStateError if no line is an event or a metric, or if there is no time to divide by.
    """
    measured = Measured(source)
    times: list[float] = []
    for line in lines:
        record = parse(line)
        if record is None:
            measured.unknown += bool(line.strip())
            continue
        measured.lines += 1
        if "_aws" in record:
            _add_metrics(measured, record, times)
        else:
            _add_event(measured, record, times)
    if not measured.lines:
        raise EfsStateError(
            f"{source}: no line of it is an event or a metric of efsstate; record them with"
            " efsstate.metrics.record(file) or efsstate.metrics.emf()"
        )
    measured.seconds = covering or (max(times) - min(times) if times else 0.0)
    if measured.seconds <= 0:
        raise EfsStateError(
            f"{source}: its lines do not say over which time they were recorded; give --covering,"
            " e.g. --covering 1h"
        )
    return measured


def parse(line: str) -> dict[str, Any] | None:
    """Return the event or the metrics of a line, or None if it is something else."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_known = isinstance(record, dict) and (
        {"kind", "event"} <= set(record) or isinstance(record.get("_aws"), dict)
    )
    return record if is_known else None


def number(record: dict[str, Any], name: str) -> int:
    """Return a count of the record, or 0 if it has none, or something else in its place."""
    value = record.get(name, 0)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return max(0, int(value)) if is_number and abs(value) < 1e18 else 0


def _add_event(measured: Measured, event: dict[str, Any], times: list[float]) -> None:
    if number(event, "time"):
        times.append(float(event["time"]))
    count = number(event, "bytes")
    match event["kind"], event["event"]:
        case "cache", "hit":
            if event.get("level") == "memory":
                measured.memory_hits += 1
            else:
                measured.hits += 1
                measured.hit_bytes += count
        case "cache", "put":
            measured.puts += 1
            measured.put_bytes += count
        case "cache", "miss":
            measured.misses += 1
        case "checkpoint", "save":
            measured.saves += 1
            measured.save_bytes += count
        case "model", "load":
            measured.loads += 1
            measured.load_bytes += count
        case "sweep", _:
            measured.removed += number(event, "removed")


def _add_metrics(measured: Measured, line: dict[str, Any], times: list[float]) -> None:
    """Add the metrics of one invocation; they do not have the bytes of entries and saves."""
    if "Cache" in line:  # the line of one cache, whose counts are in the sum of all too
        return
    if number(line["_aws"], "Timestamp"):
        times.append(line["_aws"]["Timestamp"] / 1000)
    reads = line.get("MountRead")
    hits = number(line, "CacheHit")
    # A line has at most 20 values of MountRead: with as many, any number of the hits may be reads.
    on_mount = len(reads) if isinstance(reads, list) and len(reads) < 20 else hits
    on_mount = min(on_mount, hits) if isinstance(reads, list) else 0
    measured.hits += on_mount
    measured.memory_hits += hits - on_mount
    measured.misses += number(line, "CacheMiss")
    measured.puts += number(line, "CachePut")
    measured.saves += number(line, "CheckpointSave")
    measured.removed += number(line, "SweepRemoved")
    sizes = line.get("ModelBytes")
    if isinstance(sizes, list):
        measured.loads += len(sizes)
        measured.load_bytes += int(sum(value for value in sizes if isinstance(value, (int, float))))
