"""Describe the work of a fleet in numbers that people know."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass

from efsstate import units

DAY = 86_400.0
_SIZES = ("stored", "entry", "model", "state", "cold_storage")
_DURATIONS = ("timeout",)


@dataclass(frozen=True)
class Workload:
    """Sizes in bytes, counts per day, durations in seconds.

    `busy_hours` is the part of a day in which all of the day's traffic comes. `herd` environments
    start at one moment and read the model; it is `environments` unless given.
    """

    stored: int = 0
    entry: int = 4096
    hits: float = 0.0
    puts: float = 0.0
    saves: float = 0.0
    state: int = 4096
    model: int = 0
    environments: int = 0
    cold_starts: float = 0.0
    herd: int = 0
    timeout: float = 60.0
    busy_hours: float = 24.0
    cold_storage: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ValueError(f"{field.name}: {value!r} is not a number from 0")
        if not 0 < self.busy_hours <= 24:
            raise ValueError(f"busy_hours: {self.busy_hours!r} is not between 0 and 24")
        if self.cold_storage > self.stored:
            raise ValueError("cold_storage: it is more than what is stored in all")

    @property
    def starts_at_once(self) -> int:
        """The environments that read the model at one moment."""
        return self.herd or self.environments

    @property
    def busy_seconds(self) -> float:
        """The seconds of a day with traffic."""
        return self.busy_hours * 3600

    # Bytes and operations of a day, by kind. A hit is OPEN, READ, CLOSE; a put is OPEN, WRITE,
    # CLOSE, RENAME; a save lists once more (tests/nfs/test_budgets.py counts them).

    @property
    def data_reads(self) -> list[tuple[float, float]]:
        """Pairs (operations a day, bytes of one) that read data; a model is read by MiB."""
        pulls = self.cold_starts * max(1, self.model / 2**20)
        return [(self.hits, self.entry), (pulls if self.model else 0.0, min(self.model, 2**20))]

    @property
    def data_writes(self) -> list[tuple[float, float]]:
        """Pairs (operations a day, bytes of one) that write data."""
        return [(self.puts, self.entry), (self.saves, self.state)]

    @property
    def metadata_reads(self) -> float:
        """Operations a day that read metadata."""
        return 2 * self.hits + 6 * self.cold_starts + self.saves

    @property
    def metadata_writes(self) -> float:
        """Operations a day that write metadata."""
        return 3 * self.puts + 3 * self.saves

    @property
    def operations(self) -> tuple[float, float]:
        """Read and write operations a second, in the busy hours."""
        reads = self.metadata_reads + sum(count for count, _ in self.data_reads)
        writes = self.metadata_writes + sum(count for count, _ in self.data_writes)
        return reads / self.busy_seconds, writes / self.busy_seconds


def load(path: str) -> dict[str, object]:
    """Return the fields of a workload from a TOML file; sizes and durations may have units."""
    with open(path, "rb") as file:
        try:
            values = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: it is not TOML: {error}") from None
    known = {field.name for field in dataclasses.fields(Workload)}
    for name in values:
        if name not in known:
            raise ValueError(f"{path}: {name!r}: a workload has {', '.join(sorted(known))}")
    return {name: parse(name, value) for name, value in values.items()}


def parse(name: str, value: object) -> object:
    """Return the value of a field: a size such as "2GiB", a duration, or a number."""
    if name in _SIZES and isinstance(value, (str, int)):
        return units.size(value, name)
    if name in _DURATIONS and isinstance(value, (str, int, float)):
        return units.seconds(value, name)
    if isinstance(value, str):
        return rate(value, name)
    return value


def rate(text: str, name: str) -> float:
    """Return a count per day: "2000", "5M", "2000/day", "100/hour", "3/minute", "10/second"."""
    number, _, per = text.strip().lower().partition("/")
    scales = {"": 1.0, "day": 1.0, "hour": 24.0, "minute": 1440.0, "second": DAY}
    factors = {"k": 1e3, "m": 1e6, "g": 1e9}
    factor = factors.get(number[-1:], 1.0)
    try:
        return float(number[:-1] if factor > 1 else number) * factor * scales[per]
    except (ValueError, KeyError):
        raise ValueError(
            f"{name}: {text!r} is not a count: write 2000, 5M, 2000/day, 100/hour or 10/second"
        ) from None


def dump(workload: Workload) -> str:
    """Return the workload as TOML; sizes are bytes, durations seconds, counts per day."""
    return "".join(
        f"{field.name} = {getattr(workload, field.name)!r}\n"
        for field in dataclasses.fields(workload)
    )
