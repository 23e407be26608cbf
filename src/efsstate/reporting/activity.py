"""Sum up recorded events or metrics for the page: hit rates, latencies, and the sweep's work.

The memory it takes depends on the number of caches, and not on that of the lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from efsstate.planning.measured import number, parse

ALL = "(all caches)"  # of metrics, which do not name the caches unless asked to
_STEP = math.log(1.05)  # a histogram's buckets are 5 % apart
_MOST_SWEEPS = 200
_MOST_CACHES = 1000
_PARTS = 48  # of the time, for the hit rate
_LEVELS = {"memory": "memory", "mount": "mount", "stale": "stale"}


class Latencies:
    """A histogram of seconds, exact to 5 %."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count one time."""
        if not 0 <= seconds < math.inf:
            return
        bucket = round(math.log(max(seconds, 1e-9)) / _STEP)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1

    def percentile(self, share: float) -> float | None:
        """Return the time within which this share of all was done, or None without any."""
        rest = math.ceil(share * self.count)
        for bucket in sorted(self._buckets):
            rest -= self._buckets[bucket]
            if rest <= 0:
                return math.exp(bucket * _STEP)
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return the count and the percentiles, in seconds."""
        shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
        return {"count": self.count} | {name: self.percentile(of) for name, of in shares.items()}


class CacheActivity:
    """The counts and times of one cache."""

    def __init__(self) -> None:
        self.memory = self.mount = self.stale = self.misses = self.puts = self.errors = 0
        self.bytes = 0
        self.read, self.compute, self.wait = Latencies(), Latencies(), Latencies()

    def as_dict(self) -> dict[str, Any]:
        """Return the row of the page."""
        hits = self.memory + self.mount + self.stale
        asked = hits + self.misses
        return {
            "memory": self.memory,
            "mount": self.mount,
            "stale": self.stale,
            "misses": self.misses,
            "puts": self.puts,
            "errors": self.errors,
            "bytes": self.bytes,
            "rate": hits / asked if asked else None,
            "read": self.read.as_dict(),
            "compute": self.compute.as_dict(),
            "wait": self.wait.as_dict(),
        }


class Activity:
    """All that a file of events or metrics tells."""

    def __init__(self) -> None:
        self.caches: dict[str, CacheActivity] = {}
        self.sweeps: list[dict[str, Any]] = []
        self.saves, self.loads = Latencies(), Latencies()
        self.lines = self.others = 0
        self._times: list[tuple[float, int, int]] = []  # (time, hits, misses), thinned out
        self._stride, self._skipped = 1, (0, 0)

    def add(self, record: dict[str, Any]) -> None:
        """Add one event or one line of metrics."""
        self.lines += 1
        if "_aws" in record:
            self._add_metrics(record)
        else:
            self._add_event(record)

    def _cache(self, name: object) -> CacheActivity:
        text = name if isinstance(name, str) else ALL
        if text not in self.caches and len(self.caches) >= _MOST_CACHES:
            text = ALL
        return self.caches.setdefault(text, CacheActivity())

    def _add_event(self, event: dict[str, Any]) -> None:
        seconds = event.get("seconds")
        seconds = float(seconds) if isinstance(seconds, (int, float)) else 0.0
        match event["kind"], event["event"]:
            case "cache", "hit":
                cache = self._cache(event.get("name"))
                level = _LEVELS.get(str(event.get("level")), "mount")
                setattr(cache, level, getattr(cache, level) + 1)
                if level == "mount":
                    cache.read.add(seconds)
                    cache.bytes += number(event, "bytes")
                self._note(event, 1, 0)
            case "cache", "miss":
                cache = self._cache(event.get("name"))
                cache.misses += 1
                cache.compute.add(seconds)
                self._note(event, 0, 1)
            case "cache", "put":
                self._cache(event.get("name")).puts += 1
            case "cache", "wait":
                self._cache(event.get("name")).wait.add(seconds)
            case "cache", "error":
                self._cache(event.get("name")).errors += 1
            case "checkpoint", "save":
                self.saves.add(seconds)
            case "model", "load":
                self.loads.add(seconds)
            case "sweep", _:
                self._add_sweep(event, number(event, "time") or None, seconds)

    def _add_sweep(self, event: dict[str, Any], time: int | None, seconds: float) -> None:
        reasons = event.get("reasons")
        self.sweeps.append(
            {
                "time": time,
                "seconds": seconds,
                "removed": number(event, "removed"),
                "removed_bytes": number(event, "removed_bytes"),
                "looked": number(event, "looked"),
                "errors": number(event, "errors"),
                "reasons": {str(k): v for k, v in reasons.items() if isinstance(v, int)}
                if isinstance(reasons, dict)
                else {},
            }
        )
        del self.sweeps[:-_MOST_SWEEPS]

    def _add_metrics(self, line: dict[str, Any]) -> None:
        cache = self._cache(line.get("Cache"))
        reads = _milliseconds(line, "MountRead")
        hits = number(line, "CacheHit")
        on_mount = min(len(reads), hits)
        cache.mount += on_mount
        cache.memory += hits - on_mount
        cache.stale += number(line, "CacheStale")
        cache.misses += number(line, "CacheMiss")
        cache.puts += number(line, "CachePut")
        cache.errors += number(line, "CacheError")
        for latencies, name in (
            (cache.read, "MountRead"),
            (cache.compute, "CacheCompute"),
            (cache.wait, "CacheWait"),
        ):
            for seconds in _milliseconds(line, name):
                latencies.add(seconds)
        if "Cache" in line:  # the counts of one cache are in the line of all too
            return
        for latencies, name in ((self.saves, "CheckpointSaveTime"), (self.loads, "ModelLoad")):
            for seconds in _milliseconds(line, name):
                latencies.add(seconds)
        time = number(line["_aws"], "Timestamp") / 1000
        self._note({"time": time}, hits, number(line, "CacheMiss"))
        if number(line, "SweepRemoved"):
            sums = {"removed": line["SweepRemoved"], "removed_bytes": line.get("SweepRemovedBytes")}
            self._add_sweep(sums, round(time), 0.0)

    def _note(self, record: dict[str, Any], hits: int, misses: int) -> None:
        """Note hits and misses of a moment; with many moments, several become one."""
        if not number(record, "time"):
            return
        hits, misses = self._skipped[0] + hits, self._skipped[1] + misses
        if hits + misses < self._stride:
            self._skipped = hits, misses
            return
        self._skipped = 0, 0
        self._times.append((float(record["time"]), hits, misses))
        if len(self._times) > 100 * _PARTS:
            pairs = zip(self._times[::2], self._times[1::2], strict=False)
            self._times = [(a[0], a[1] + b[1], a[2] + b[2]) for a, b in pairs]
            self._stride *= 2

    @property
    def kept(self) -> int:
        """The numbers that are kept, whatever the number of lines."""
        return len(self._times) + len(self.caches) + len(self.sweeps)

    def rates(self) -> list[tuple[float, float]]:
        """Return (time, hit rate) of the parts of the time in which anything was asked for."""
        if len(self._times) < 2:
            return []
        start, end = min(t for t, _, _ in self._times), max(t for t, _, _ in self._times)
        length = max(end - start, 1e-9) / _PARTS
        sums: dict[int, tuple[int, int]] = {}
        for time, hits, misses in self._times:
            part = min(_PARTS - 1, int((time - start) / length))
            before = sums.get(part, (0, 0))
            sums[part] = before[0] + hits, before[1] + misses
        return [
            (start + (part + 0.5) * length, hits / (hits + misses))
            for part, (hits, misses) in sorted(sums.items())
            if hits + misses
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the part of the page's document."""
        rows = [{"name": name, **cache.as_dict()} for name, cache in self.caches.items()]
        rows = [row for row in rows if row["rate"] is not None or row["puts"] or row["errors"]]
        rows.sort(key=lambda row: -(row["memory"] + row["mount"] + row["stale"] + row["misses"]))
        return {
            "lines": self.lines,
            "other_lines": self.others,
            "caches": rows,
            "rates": self.rates(),
            "sweeps": self.sweeps,
            "saves": self.saves.as_dict(),
            "loads": self.loads.as_dict(),
        }


def _milliseconds(line: dict[str, Any], name: str) -> list[float]:
    values = line.get(name)
    if not isinstance(values, list):
        return []
    return [value / 1000 for value in values if isinstance(value, (int, float))]


def read(lines: Iterable[str]) -> Activity:
    """Return the activity that the lines tell; other lines, such as a log's, are counted."""
    activity = Activity()
    for line in lines:
        record = parse(line)
        if record is not None:
            activity.add(record)
        elif line.strip():
            activity.others += 1
    return activity
