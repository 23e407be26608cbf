"""Write CloudWatch's embedded metric format: one line of JSON an invocation."""

from __future__ import annotations

import json
import sys
import time

from efsstate.metrics.collector import UNITS, merge
from efsstate.mount.environment import function_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from efsstate.events import Event

    Values = dict[str, int | list[float]]

_MOST_DIMENSIONS = 30  # of CloudWatch
_MOST_VALUES = 20  # of one metric in a line: CloudWatch takes 100, and bills the line's bytes
_LONGEST = 1024  # characters of a dimension's value, of CloudWatch


class EmfLines:
    """The lines of one process."""

    begin = None  # it makes no spans

    def __init__(
        self,
        namespace: str,
        dimensions: Mapping[str, str] | None,
        *,
        cache_names: bool,
        stream: TextIO | None,
    ) -> None:
        self._namespace, self._stream, self._cache_names = namespace, stream, cache_names
        if dimensions is None:
            name = function_name()
            dimensions = {} if name is None else {"FunctionName": name}
        self._dimensions = {key: str(value) for key, value in dimensions.items()}
        self._require_dimensions()
        self._total: Values = {}
        self._named: list[tuple[str, Values]] = []

    def _require_dimensions(self) -> None:
        taken = {"Cache"} if self._cache_names else set()
        if not self._namespace or len(self._dimensions) + len(taken) > _MOST_DIMENSIONS:
            raise ValueError(
                f"emf: a namespace and at most {_MOST_DIMENSIONS} dimensions are needed, not"
                f" {self._namespace!r} and {len(self._dimensions)}"
            )
        for key, value in self._dimensions.items():
            if not key or not value or key in UNITS or key in taken or key == "_aws":
                raise ValueError(
                    f"emf: the dimension {key!r}={value!r} is empty or a metric's name"
                )
            if len(value) > _LONGEST:
                raise ValueError(f"emf: the dimension {key!r} is over {_LONGEST} characters")

    def see(self, event: Event) -> None:
        """Do nothing: only sums are written."""

    def take(self, name: str, values: Values) -> None:
        """Take the metrics of one cache, or of everything else."""
        merge(self._total, values)
        if self._cache_names and name:
            self._named.append((name, values))

    def flush(self) -> None:
        """Write a line with all that was taken, and one for each cache if asked for.

        If a line cannot be made, because a signal handler raises, the next flush writes them all.
        """
        total, self._total = self._total, {}
        named, self._named = self._named, []
        try:
            lines = [self._line(total, self._dimensions)] if total else []
            for name, values in named:
                lines.append(self._line(values, {**self._dimensions, "Cache": name[:_LONGEST]}))
        except BaseException:
            merge(self._total, total)
            self._named += named
            raise
        stream = self._stream or sys.stdout
        for line in lines:
            # One write: lines of threads must not meet within each other.
            stream.write(line)
            stream.flush()

    def _line(self, values: Values, dimensions: dict[str, str]) -> str:
        metrics = [{"Name": name, "Unit": UNITS[name]} for name in values]
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [list(dimensions)],
            "Metrics": metrics,
        }
        line = {
            "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
            **dimensions,
            **{name: _shorten(value) for name, value in values.items()},
        }
        return json.dumps(line, separators=(",", ":")) + "\n"


def _shorten(value: int | list[float]) -> int | list[float]:
    """Return a count as it is, and of many values an even choice, with the least and the most."""
    if not isinstance(value, list):
        return value
    values = sorted(round(each, 3) for each in value)
    if len(values) <= _MOST_VALUES:
        return values
    last = len(values) - 1
    return [values[round(place * last / (_MOST_VALUES - 1))] for place in range(_MOST_VALUES)]
