"""Add the metrics to those of Powertools for AWS Lambda, which writes them with its own."""

from __future__ import annotations

from efsstate.metrics.collector import UNITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.events import Event


class PowertoolsFeed:
    """The way to one `Metrics` object."""

    begin = None  # it makes no spans

    def __init__(self, metrics: Any) -> None:
        if not callable(getattr(metrics, "add_metric", None)):
            raise TypeError(f"powertools: a Metrics with add_metric() is needed, not {metrics!r}")
        self._metrics = metrics

    def see(self, event: Event) -> None:
        """Do nothing: only sums are added."""

    def take(self, _name: str, values: dict[str, int | list[float]]) -> None:
        """Add the metrics of one cache, or of everything else."""
        for metric, value in values.items():
            for each in value if isinstance(value, list) else [value]:
                self._metrics.add_metric(name=metric, unit=UNITS[metric], value=each)

    def flush(self) -> None:
        """Do nothing: Powertools writes at the end of its own decorator."""
