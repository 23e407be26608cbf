"""Record metrics and spans with OpenTelemetry."""

from __future__ import annotations

import time

from efsstate.metrics.collector import UNITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.events import Event

_SCOPE, _NAME = "efsstate", "efsstate.name"
_OTEL_UNITS = {"Count": "1", "Milliseconds": "ms", "Bytes": "By"}
# Event of which a span is made: its name, the operation on the mount that it is, if it is one.
_SPANS = {
    ("cache", "wait"): ("efsstate.cache.wait", ""),
    ("cache", "hit"): ("efsstate.cache.read", "read"),
    ("cache", "put"): ("efsstate.cache.put", "write"),
    ("checkpoint", "claim"): ("efsstate.checkpoint.claim", "claim"),
    ("checkpoint", "save"): ("efsstate.checkpoint.save", "write"),
    ("checkpoint", "load"): ("efsstate.checkpoint.load", "read"),
    ("model", "load"): ("efsstate.model.load", "read"),
    ("dataset", "add"): ("efsstate.dataset.add", "write"),
    ("dataset", "freeze"): ("efsstate.dataset.freeze", "write"),
    ("dataset", "read"): ("efsstate.dataset.read", "read"),
    ("sweep", "sweep"): ("efsstate.sweep", "sweep"),
}


def instrument_name(metric: str) -> str:
    """Return OpenTelemetry's name of a metric: `efsstate.checkpoint.claim_lost`."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in metric).split()
    return f"{_SCOPE}.{words[0]}.{'_'.join(words[1:])}"


class OpenTelemetryFeed:
    """The instruments and the tracer."""

    def __init__(self, meter_provider: Any, tracer_provider: Any) -> None:
        from opentelemetry import context, metrics, trace

        self._context, self._trace = context, trace
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._instruments = {
            name: self._instrument(meter, name, unit) for name, unit in UNITS.items()
        }
        self._operations = meter.create_histogram("db.client.operation.duration", unit="s")

    @staticmethod
    def _instrument(meter: Any, metric: str, unit: str) -> Any:
        name = instrument_name(metric)
        if unit == "Milliseconds" or metric == "ModelBytes":
            return meter.create_histogram(name, unit=_OTEL_UNITS[unit])
        return meter.create_counter(name, unit=_OTEL_UNITS[unit])

    def begin(self, name: str) -> Callable[[], None]:
        """Begin the span of a computation, in which the function's own spans are children."""
        span = self._tracer.start_span("efsstate.cache.compute", attributes={_NAME: name})
        token = self._context.attach(self._trace.set_span_in_context(span))

        def end() -> None:
            self._context.detach(token)
            span.end()

        return end

    def take(self, name: str, values: dict[str, int | list[float]]) -> None:
        """Record the metrics of one cache, with its name, or of everything else."""
        attributes = {_NAME: name} if name else {}
        for metric, value in values.items():
            instrument = self._instruments[metric]
            if isinstance(value, list):
                for each in value:
                    instrument.record(each, attributes)
            else:
                instrument.add(value, attributes)

    def see(self, event: Event) -> None:
        """Make a span of an operation that has just ended."""
        name, operation = _SPANS.get((event["kind"], event["event"]), ("", ""))
        seconds = event.get("seconds")
        if not name or not isinstance(seconds, (int, float)):
            return
        attributes: dict[str, Any] = {_NAME: event["name"]}
        for field in ("bytes", "level", "version", "epoch", "error"):
            if isinstance(event.get(field), (str, int, float)):
                attributes[f"efsstate.{field}"] = event[field]
        end = time.time_ns()
        span = self._tracer.start_span(
            name, start_time=end - int(seconds * 1e9), attributes=attributes
        )
        span.end(end_time=end)
        if operation:
            self._operations.record(
                seconds,
                {"db.system.name": _SCOPE, "db.operation.name": operation},
            )

    def flush(self) -> None:
        """Do nothing: OpenTelemetry's own readers and exporters give out."""
