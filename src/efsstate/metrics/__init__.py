"""Metrics of caches, checkpoints, models and sweeps: for CloudWatch, Powertools, OpenTelemetry.

    from efsstate import invocation, metrics

    metrics.emf(namespace="Shop")

    @invocation
    def handler(event, context): ...

Counts are kept in memory, and written at the end of each `@invocation` or by `flush()`.
docs/observability.md explains the metrics. Each function imports its own modules when it is called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TextIO


def emf(
    namespace: str = "efsstate",
    dimensions: Mapping[str, str] | None = None,
    *,
    cache_names: bool = False,
    stream: TextIO | None = None,
) -> Callable[[], None]:
    """Write a line of CloudWatch's embedded metric format at the end of each invocation.

    namespace: the namespace of the metrics in CloudWatch.
    dimensions: the dimensions of every metric; default: FunctionName, on Lambda. CloudWatch bills
        each combination of values as a metric.
    cache_names: write a further line for each cache, with its name as the dimension Cache,
        in which characters outside of ASCII are written as escapes.
    stream: where to write; default: standard output, which Lambda sends to CloudWatch Logs.

    Return a function that stops it. An invocation in which nothing happened writes no line. Raise
    ValueError for more than 30 dimensions, or one that CloudWatch would not take.
    """
    from efsstate.metrics.emf_lines import EmfLines

    return _start(EmfLines(namespace, dimensions, cache_names=cache_names, stream=stream))


def powertools(metrics: Any) -> Callable[[], None]:
    """Add the metrics to `metrics`, a `Metrics` of Powertools for AWS Lambda.

    Return a function that stops it. `@metrics.log_metrics` must be outside of `@invocation`, which
    adds the metrics at its end.
    """
    from efsstate.metrics.powertools_feed import PowertoolsFeed

    return _start(PowertoolsFeed(metrics))


def opentelemetry(meter_provider: Any = None, tracer_provider: Any = None) -> Callable[[], None]:
    """Record instruments and spans with OpenTelemetry.

    Return a function that stops it. Without providers the global ones are used. Spans are made when
    their operation has ended, with its times, as children of the span that is current then. Raise
    ImportError if the package `opentelemetry-api` is missing.
    """
    from efsstate.metrics.otel_feed import OpenTelemetryFeed

    return _start(OpenTelemetryFeed(meter_provider, tracer_provider))


def record(stream: TextIO) -> Callable[[], None]:
    """Write each event to `stream` as a line of JSON, with its `time`.

    Return a function that stops it. Use it in test runs: it costs every hit a call and a write.
    `efsstate plan --from-events` and `efsstate report --events` read such a file.
    """
    import json
    import time

    from efsstate import events

    def write(event: dict[str, Any]) -> None:
        # One write: lines of threads must not meet within each other.
        stream.write(json.dumps({"time": time.time(), **event}, default=str) + "\n")

    return events.on_event(write)


def flush() -> None:
    """Write all counts since the last line now, without waiting for the invocation's end."""
    from efsstate.metrics import collector

    collector.flush()


def _start(sink: Any) -> Callable[[], None]:
    from efsstate.metrics import collector

    return collector.start(sink)
