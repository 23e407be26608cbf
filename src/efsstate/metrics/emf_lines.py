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
_LONGEST_NAME = 255  # characters of a namespace, and of a dimension's name


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
        if len(self._dimensions) + len(taken) > _MOST_DIMENSIONS:
            count = len(self._dimensions)
            raise ValueError(f"emf: at most {_MOST_DIMENSIONS} dimensions are taken, not {count}")
        _require_name(self._namespace, "the namespace")
        for key, value in self._dimensions.items():
            if key in UNITS or key in taken or key == "_aws":
                raise ValueError(
                    f"emf: the dimension {key!r} is a name of the line's own; rename it"
                )
            _require_name(key, "a dimension's name")
            _require(value, f"the dimension {key!r}", _LONGEST)

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
                spelled = name.encode("unicode_escape").decode()[:_LONGEST]
                lines.append(self._line(values, {**self._dimensions, "Cache": spelled}))
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


def _require_name(text: str, what: str) -> None:
    """Raise ValueError unless CloudWatch takes a namespace, or a dimension's name."""
    _require(text, what, _LONGEST_NAME)
    if text[0] == ":":
        raise ValueError(f"emf: {what} is {text!r:.80}; CloudWatch takes no colon at its beginning")


def _require(text: str, what: str, longest: int) -> None:
    """Raise ValueError for text that CloudWatch refuses: it drops such a line without a word."""
    is_plain = isinstance(text, str) and text.isascii() and text.isprintable()
    if not is_plain or not text.strip() or len(text) > longest:
        raise ValueError(
            f"emf: {what} is {text!r:.80}; CloudWatch takes up to {longest:,} printable ASCII"
            " characters that are not all blanks"
        )


def _shorten(value: int | list[float]) -> int | list[float]:
    """Return a count as it is, and of many values an even choice, with the least and the most."""
    if not isinstance(value, list):
        return value
    values = sorted(round(each, 3) for each in value)
    if len(values) <= _MOST_VALUES:
        return values
    last = len(values) - 1
    return [values[round(place * last / (_MOST_VALUES - 1))] for place in range(_MOST_VALUES)]
