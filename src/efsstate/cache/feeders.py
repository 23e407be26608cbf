"""The keys of what is not built into Python: times, arrays, enums, dataclasses, namedtuples and paths."""

from __future__ import annotations

import sys

from efsstate.cache.keys import LARGE, feed, feed_class, feed_raw, feed_text, feed_tuple, mapping, new_sum, parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.cache.keys import Add, Feeder


def _time(tag: bytes) -> Feeder:
    """A time's zone counts by its name if it has one, else by what it is off by."""

    def run(value: Any, add: Add, depth: int) -> None:
        key = getattr(value.tzinfo, "key", None)
        add(tag)
        feed_text(value.replace(tzinfo=None).isoformat(), add, depth)
        feed_tuple((value.fold, key if isinstance(key, str) else value.utcoffset()), add, depth)

    return run


def _dtype(dtype: Any, add: Add, depth: int) -> None:
    if dtype.hasobject or dtype.kind == "T":
        raise TypeError(f"an array of dtype {dtype} can't be part of a key: its items are objects; pass plain values")
    feed_text(dtype.str if dtype.names is None else repr(dtype.descr), add, depth)


def _array(value: Any, add: Add, depth: int) -> None:
    import numpy as np

    add(b"A")
    _dtype(value.dtype, add, depth)
    feed_tuple(value.shape, add, depth)
    h = new_sum()
    if value.flags.c_contiguous:
        h.update(value.reshape(-1).view("u1").data if value.nbytes else b"")
    else:
        # Piece by piece in C order: how it lies in memory must not show, and a large array is not copied.
        pieces: Any = np.nditer(value, ["external_loop", "buffered", "zerosize_ok"], order="C", buffersize=LARGE)
        for piece in pieces:
            h.update(np.ascontiguousarray(piece).view("u1").data if piece.nbytes else b"")
    add(h.digest())


def _scalar(value: Any, add: Add, depth: int) -> None:
    add(b"n")
    _dtype(value.dtype, add, depth)
    feed_raw(b"-", value.tobytes(), add)


def _decimal(value: Any, add: Add, depth: int) -> None:
    add(b"m")
    feed_text(str(value), add, depth)


def _enum(value: Any, add: Add, depth: int) -> None:
    feed_class(b"E", type(value), add, depth)
    feed(value._value_ if value._name_ is None else value._name_, add, depth + 1)  # a flag may have no name


def _dataclass(value: Any, add: Add, depth: int) -> None:
    feed_class(b"D", type(value), add, depth)
    fields = type(value).__dataclass_fields__
    feed({name: getattr(value, name) for name in fields if hasattr(value, name)}, add, depth + 1)


def _namedtuple(value: Any, add: Add, depth: int) -> None:
    feed_class(b"M", type(value), add, depth)
    feed(dict(zip(value._fields, value, strict=True)), add, depth + 1)


def _path(value: Any, add: Add, depth: int) -> None:
    add(b"P" if type(value).__name__.endswith("PosixPath") else b"p")  # on every system the same for the same path
    feed_text(str(value), add, depth)


_LATER: tuple[tuple[str, str, Feeder], ...] = (
    ("collections", "OrderedDict", mapping(b"O", ordered=True)),
    ("decimal", "Decimal", _decimal),
    ("fractions", "Fraction", parts(b"q", "numerator", "denominator")),
    ("uuid", "UUID", lambda value, add, _: add(b"u" + value.bytes)),
    ("datetime", "date", parts(b"y", "year", "month", "day")),
    ("datetime", "time", _time(b"h")),
    ("datetime", "datetime", _time(b"w")),
    ("datetime", "timedelta", parts(b"e", "days", "seconds", "microseconds")),
    ("numpy", "ndarray", _array),
    ("numpy", "memmap", _array),
)


def find(value: Any, kind: type) -> Feeder | None:
    """The feeder of `kind`, of which `value` is one; None if it has no stable form. A value's module is imported by whoever made it."""
    for module, name, feeder in _LATER:
        if module in sys.modules and kind is getattr(sys.modules[module], name, None):
            return feeder
    enum, numpy, pathlib = sys.modules.get("enum"), sys.modules.get("numpy"), sys.modules.get("pathlib")
    if enum is not None and isinstance(value, enum.Enum):
        return _enum
    if numpy is not None and isinstance(value, numpy.generic):
        return _scalar
    if pathlib is not None and isinstance(value, pathlib.PurePath) and kind.__module__.startswith("pathlib"):
        return _path
    if "__dataclass_fields__" in vars(kind):
        return _dataclass
    if isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return _namedtuple
    return None
