"""Count events and hits, and give the counts to a sink at the end of each invocation.

Hits are counted where they happen, by the caches themselves: the collector takes the difference of
their sums, so that a hit in memory costs the same with metrics as without. Everything else comes by
events, of which each is a request to the server at least.
"""

from __future__ import annotations

from efsstate import deadline, events, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from efsstate.events import Event

    class Sink(Protocol):
        """An object that takes metrics; `begin`, if not None, begins a computation's span."""

        def take(self, name: str, values: dict[str, int | list[float]]) -> None:
            """Take the metrics of one cache, or of everything (`name` is "")."""

        def see(self, event: Event) -> None:
            """See one event when it happens."""

        def flush(self) -> None:
            """Give out everything that was taken."""

        begin: Callable[[str], Callable[[], object]] | None


# Metric: unit. A metric in milliseconds, and ModelBytes, has a value for each time it happened.
UNITS = {
    "CacheHit": "Count",
    "CacheMiss": "Count",
    "CacheStale": "Count",
    "CachePut": "Count",
    "CacheError": "Count",
    "CacheDamaged": "Count",
    "CacheWait": "Milliseconds",
    "CacheCompute": "Milliseconds",
    "MountRead": "Milliseconds",
    "CheckpointSave": "Count",
    "CheckpointClaimLost": "Count",
    "CheckpointSaveTime": "Milliseconds",
    "ModelLoad": "Milliseconds",
    "ModelBytes": "Bytes",
    "ModelSwap": "Count",
    "ModelLoadFailed": "Count",
    "SweepRemoved": "Count",
    "SweepRemovedBytes": "Bytes",
}
_COUNTERS = {
    "memory": "CacheHit",
    "mount": "CacheHit",
    "stale": "CacheStale",
    "computed": "CacheMiss",
    "puts": "CachePut",
    "errors": "CacheError",
    "damaged": "CacheDamaged",
}
_MOST_VALUES = 1000  # of one metric between two flushes; a loop of a million misses holds no more
_collectors: list[Collector] = []


class Collector:
    """The counts since the last flush, for one sink."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._lock = process.lock()
        self.begin_again()
        self._versions: dict[str, object] = {}
        self.stops: list[Callable[[], None]] = []

    def begin_again(self) -> None:
        """Count from nothing."""
        self._seen = events.totals()
        self._values: dict[str, dict[str, int | list[float]]] = {}  # by cache; "": of no cache

    def stop(self) -> None:
        """Collect no more; counts that were not given out are lost."""
        if self in _collectors:
            _collectors.remove(self)
        while self.stops:
            self.stops.pop()()

    def on_event(self, event: Event) -> None:
        """Count one event."""
        with self._lock:
            self._count(event)
        self.sink.see(event)

    def _count(self, event: Event) -> None:
        kind, what, name = event["kind"], event["event"], event["name"]
        if kind == "cache":
            metric = {"wait": "CacheWait", "miss": "CacheCompute", "hit": "MountRead"}.get(what)
            if metric is not None and event.get("level") != "stale":
                self._add_value(name, metric, event["seconds"] * 1000)
        elif kind == "checkpoint" and what == "save":
            self._add("CheckpointSave", 1)
            self._add_value("", "CheckpointSaveTime", event["seconds"] * 1000)
        elif kind == "checkpoint" and what == "lost":
            self._add("CheckpointClaimLost", 1)
        elif kind == "model" and what == "load":
            self._count_load(event)
        elif kind == "model" and what == "error":
            self._add("ModelLoadFailed", 1)
        elif kind == "sweep":
            self._add("SweepRemoved", event["removed"])
            self._add("SweepRemovedBytes", event["removed_bytes"])

    def _count_load(self, event: Event) -> None:
        name, version = event["name"], event.get("version")
        self._add_value("", "ModelLoad", event["seconds"] * 1000)
        self._add_value("", "ModelBytes", float(event["bytes"]))
        if self._versions.get(name, version) != version:
            self._add("ModelSwap", 1)
        self._versions[name] = version

    def _add(self, metric: str, count: int) -> None:
        values = self._values.setdefault("", {})
        values[metric] = values.get(metric, 0) + count  # type: ignore[operator]

    def _add_value(self, name: str, metric: str, value: float) -> None:
        values = self._values.setdefault(name, {}).setdefault(metric, [])
        if len(values) < _MOST_VALUES:  # type: ignore[arg-type]
            values.append(value)  # type: ignore[union-attr]

    def flush(self) -> None:
        """Give the counts to the sink, and begin again; errors of the sink are logged."""
        with self._lock:
            values, self._values = self._values, {}
            self._take_counters(values)
        try:
            for name, metrics in sorted(values.items()):
                if metrics:
                    self.sink.take(name, metrics)
            self.sink.flush()
        except Exception as error:
            events.log(
                "warning",
                "metrics could not be given out: %r",
                error,
                kind="metrics",
                event="failed",
                error=type(error).__name__,
                once="metrics",
            )

    def _take_counters(self, values: dict[str, dict[str, int | list[float]]]) -> None:
        """Add the counts of the caches since the last time."""
        sums, before = events.totals(), self._seen
        self._seen = sums
        none: dict[str, int] = {}
        for field, metric in _COUNTERS.items():
            counts = {
                name: sums.get(name, none).get(field, 0) - before.get(name, none).get(field, 0)
                for name in {**before, **sums}
            }
            # Counters never fall. If the sum of a name did, its counts moved to the name OTHERS,
            # and they were given out already.
            # MUT: counts-that-move-are-given-out-once
            if events.OTHERS in counts:
                counts[events.OTHERS] += sum(min(0, count) for count in counts.values())
            for name, count in counts.items():
                if count > 0:
                    metrics = values.setdefault(name, {})
                    metrics[metric] = metrics.get(metric, 0) + count  # type: ignore[operator]


@process.after_fork
def _leave_counts_to_parent() -> None:
    """In a forked child, forget what the parent will give out."""
    for collector in _collectors:
        collector.begin_again()


@process.at_reset
def _stop_all() -> None:
    for collector in _collectors.copy():
        collector.stop()


def start(sink: Sink) -> Callable[[], None]:
    """Collect for `sink` from now on; return how to stop."""
    collector = Collector(sink)
    collector.stops += [events.collect(collector.on_event), deadline.at_end(collector.flush)]
    if sink.begin is not None:
        collector.stops.append(events.trace(sink.begin))
    _collectors.append(collector)
    return collector.stop


def flush() -> None:
    """Have every collector give out its counts."""
    for collector in _collectors:
        collector.flush()


def merge(
    total: dict[str, int | list[float]], values: dict[str, int | list[float]]
) -> dict[str, int | list[float]]:
    """Add the metrics of one cache to those of all."""
    for metric, value in values.items():
        if isinstance(value, list):
            total[metric] = [*total.get(metric, ()), *value]  # type: ignore[misc]
        else:
            total[metric] = total.get(metric, 0) + value  # type: ignore[operator]
    return total
