"""Describe the work of a fleet in numbers that people know."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from efsstate import units
from efsstate.planning import rates

DAY = 86_400.0
SIZES = {"stored", "entry", "model", "state", "cold_storage", "archive_storage", "cold_overhead"}
SIZES |= {"archive_overhead", "read_size", "write_size"}
DURATIONS = ("timeout",)
WHOLE = ("environments", "herd")
_MOST = 1e18


@dataclass(frozen=True)
class Workload:
    """Sizes in bytes, counts per day, durations in seconds.

    `busy_hours` is the part of a day in which all of the day's traffic comes. `herd` environments
    start at one moment and read the model; it is `environments` unless given. `misses` are calls
    that compute a result and store it, with their claim; they come beside the `puts`. `cold_reads`
    and
    `archive_reads` are the hits among `hits` whose entry is in Infrequent Access or Archive.

    The last fields are traffic that was counted by another program, such as CloudWatch, and that
    comes on top of what the hits, puts, saves and cold starts cause.
    """

    stored: int = 0
    entry: int = 4096
    hits: float = 0.0
    puts: float = 0.0
    misses: float = 0.0
    saves: float = 0.0
    state: int = 4096
    model: int = 0
    environments: int = 0
    cold_starts: float = 0.0
    herd: int = 0
    timeout: float = 60.0
    busy_hours: float = 24.0
    cold_storage: int = 0
    archive_storage: int = 0
    cold_reads: float = 0.0
    archive_reads: float = 0.0
    cold_overhead: int = 0  # bytes that small files are billed for besides their own, if known
    archive_overhead: int = 0
    reads: float = 0.0
    read_size: int = 0  # the mean
    writes: float = 0.0
    write_size: int = 0
    other_reads: float = 0.0  # of metadata
    other_writes: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{field.name}: {value!r} is not a number")
            if not 0 <= value < _MOST:
                raise ValueError(f"{field.name}: {value!r} is not a number from 0 to {_MOST:g}")
        for name in WHOLE:
            if not float(getattr(self, name)).is_integer():
                raise ValueError(f"{name}: {getattr(self, name)!r} is not a whole number")
        if not 0 < self.busy_hours <= 24:
            raise ValueError(f"busy_hours: {self.busy_hours!r} is not between 0 and 24")
        if self.cold_storage + self.archive_storage > self.stored:
            raise ValueError(
                "cold_storage, archive_storage: they are more than what is stored in all"
            )
        if self.cold_reads + self.archive_reads > self.hits:
            raise ValueError("cold_reads, archive_reads: they are more than the hits in all")
        if self.herd and not self.model:
            raise ValueError("herd: environments that start at once need a model to read")
        if self.cold_starts and not self.model:
            raise ValueError("cold_starts: they need a model to read")

    @property
    def standard(self) -> int:
        """The bytes in Standard storage, which the baseline of a file system follows."""
        return self.stored - self.cold_storage - self.archive_storage

    @property
    def starts_at_once(self) -> int:
        """The environments that read the model at one moment."""
        return self.herd or self.environments

    @property
    def busy_seconds(self) -> float:
        """The seconds of a day with traffic."""
        return self.busy_hours * 3600

    # Bytes and operations of a day, by kind; `python -m benchmarks.plan_against_reality` compares
    # them with those that were counted. A hit is OPEN, READ, CLOSE; a put is OPEN, WRITE, CLOSE,
    # RENAME; a miss looks and claims before its put; a save lists before, and removes the oldest. A
    # young environment looks up the folders of a model, finds its version, and opens it.

    @property
    def data_reads(self) -> list[tuple[float, float]]:
        """Pairs (operations a day, bytes of one) that read data; a model is read by MiB."""
        pulls = self.cold_starts * max(1, self.model / 2**20)
        return [
            (self.hits, self.entry),
            (pulls if self.model else 0.0, min(self.model, 2**20)),
            (self.reads, self.read_size),
        ]

    @property
    def data_writes(self) -> list[tuple[float, float]]:
        """Pairs (operations a day, bytes of one) that write data."""
        return [
            (self.puts + self.misses, self.entry),
            (self.saves, self.state),
            (self.writes, self.write_size),
        ]

    @property
    def metadata_reads(self) -> float:
        """Operations a day that read metadata."""
        reads = 2 * self.hits + 3 * self.misses + self.saves
        return reads + 12 * self.cold_starts + self.other_reads

    @property
    def metadata_writes(self) -> float:
        """Operations a day that write metadata."""
        writes = 3 * self.puts + 7 * self.misses + 4 * self.saves
        return writes + self.other_writes

    @property
    def operations(self) -> tuple[float, float]:
        """Read and write operations a second, in the busy hours."""
        reads = self.metadata_reads + sum(count for count, _ in self.data_reads)
        writes = self.metadata_writes + sum(count for count, _ in self.data_writes)
        return reads / self.busy_seconds, writes / self.busy_seconds

    @property
    def bytes_per_second(self) -> tuple[float, float]:
        """Bytes of data read and written a second, in the busy hours."""
        reads = sum(count * size for count, size in self.data_reads)
        writes = sum(count * size for count, size in self.data_writes)
        return reads / self.busy_seconds, writes / self.busy_seconds


def load(path: str) -> dict[str, object]:
    """Return the fields of a workload from a TOML file.

    A text has a unit; a bare number is bytes, seconds, or a count per day.
    """
    values = rates.read_file(path)
    known = {field.name for field in dataclasses.fields(Workload)}
    for name in values:
        if name not in known:
            raise ValueError(f"{path}: {name!r}: a workload has {', '.join(sorted(known))}")
    return {name: parse(name, value) for name, value in values.items()}


def parse(name: str, value: object) -> object:
    """Return the value of a field: a size such as "2GiB", a duration, or a number.

    Raise ValueError for a text without its unit: 100 may be meant as bytes, or as GiB.
    """
    if name in SIZES and isinstance(value, (str, int)):
        _require_unit(name, value, "100GiB")
        return units.size(value, name)
    if name in DURATIONS and isinstance(value, (str, int, float)):
        _require_unit(name, value, "60s")
        return units.seconds(value, name)
    if isinstance(value, str):
        number = rate(value, name)
        if name in WHOLE and not number.is_integer():
            raise ValueError(f"{name}: {value!r} is not a whole number")
        return int(number) if name in WHOLE else number
    return value


def _require_unit(name: str, value: object, example: str) -> None:
    if isinstance(value, str) and value.strip()[-1:].isdigit() and value.strip().strip("0."):
        raise ValueError(f"{name}: {value!r} has no unit; write {example}")


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
    return "# efsstate plan --file FILE; bytes, seconds, counts per day\n" + "".join(
        f"{field.name} = {getattr(workload, field.name)!r}\n"
        for field in dataclasses.fields(workload)
        if getattr(workload, field.name) != field.default
    )
