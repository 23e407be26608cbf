"""The keys of what is not built into Python: times, arrays, enums, dataclasses, namedtuples and paths."""

from __future__ import annotations

import sys
from functools import cached_property

from efsstate.cache.keys import (
    LARGE,
    feed,
    feed_class,
    feed_raw,
    feed_text,
    feed_tuple,
    mapping,
    new_sum,
    parts,
    unstable,
)
from efsstate.errors import UnstableError
from efsstate.format.codec import classes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from efsstate.cache.keys import Add, Feeder


def _time(tag: bytes) -> Feeder:
    """A time's zone counts as a value of its own: one that has no stable form is refused, for its offset is not all it tells."""

    def run(value: Any, add: Add, depth: int) -> None:
        add(tag)
        feed_text(value.replace(tzinfo=None).isoformat(), add, depth)
        feed_tuple((value.fold, value.tzinfo), add, depth)

    return run


def _fixed_zone(value: Any, add: Add, depth: int) -> None:
    add(b"z")
    feed_tuple(value.__getinitargs__(), add, depth)


def _zone(value: Any, add: Add, depth: int) -> None:
    if value.key is None:
        raise unstable(value, "it is read from a file and has no name")
    add(b"k")
    feed_text(value.key, add, depth)


def _dtype(dtype: Any) -> object:
    """What tells one dtype from another; `dtype.descr` raises where fields overlap or are out of order."""
    if dtype.subdtype is not None:
        return _dtype(dtype.subdtype[0]), dtype.subdtype[1]
    if dtype.names is None:
        return dtype.str
    fields = [(name, *dtype.fields[name]) for name in dtype.names]
    return dtype.itemsize, [(name, _dtype(inner), *place) for name, inner, *place in fields]


def _array(value: Any, add: Add, depth: int) -> None:
    add(b"A")
    _content(value, add, depth)


def _content(value: Any, add: Add, depth: int) -> None:
    dtype = value.dtype
    if dtype.hasobject or dtype.kind == "T":
        raise UnstableError(f"an array of dtype {dtype}", "its items are objects", "")
    feed(_dtype(dtype), add, depth)
    feed_tuple(value.shape, add, depth)
    if dtype.names is None:
        add(_bytes_of(value))
    for name in dtype.names or ():  # one by one: what lies between them is not the value's
        _content(value[name], add, depth)


def _bytes_of(value: Any) -> bytes:
    import numpy as np

    h = new_sum()
    if value.flags.c_contiguous:
        h.update(value.reshape(-1).view("u1").data if value.nbytes else b"")
    else:
        # Piece by piece in C order: how it lies in memory must not show, and a large array is not copied.
        pieces: Any = np.nditer(
            value, ["external_loop", "buffered", "zerosize_ok"], order="C", buffersize=LARGE
        )
        for piece in pieces:
            h.update(np.ascontiguousarray(piece).view("u1").data if piece.nbytes else b"")
    return bytes(h.digest())


def _scalar(value: Any, add: Add, depth: int) -> None:
    import numpy as np

    add(b"n")
    if isinstance(value, str):  # numpy would drop the zeros at its end
        feed_text(str.__str__(value), add, depth)
    elif isinstance(value, bytes):
        feed_raw(b"b", bytes(value), add)
    else:
        _content(np.asarray(value), add, depth)


def _decimal(value: Any, add: Add, depth: int) -> None:
    add(b"m")
    feed_text(str(value).replace("e", "E"), add, depth)  # which of them it is, the context says


def _enum(value: Any, add: Add, depth: int) -> None:
    feed_class(b"E", type(value), add, depth)
    feed_tuple((value._name_, value._value_), add, depth)  # a flag may have no name


def _dataclass(value: Any, add: Add, depth: int) -> None:
    kind = type(value)
    base = classes.hidden(kind)
    if base is not None:
        raise unstable(value, f"it is a {base.__qualname__}, which holds more than its fields")
    names = classes.field_names(kind) or []
    _attributes(b"D", value, [name for name in names if hasattr(value, name)], add, depth)


def _namedtuple(value: Any, add: Add, depth: int) -> None:
    if len(value._fields) != len(value):
        raise unstable(value, "it holds more than its fields")
    _attributes(b"M", value, value._fields, add, depth)


def _attributes(tag: bytes, value: Any, names: Sequence[str], add: Add, depth: int) -> None:
    """The fields in their order, and what else the value holds."""
    kind = type(value)
    more = [
        name
        for name in sorted(classes.attribute_names(value))
        if name not in names and not _aside(kind, name)
    ]
    feed_class(tag, kind, add, depth)
    for some in (names, more):
        _ordered({name: getattr(value, name) for name in some}, add, depth)


def _aside(kind: type, name: str) -> bool:
    """What a value worked out of itself, or typing noted on it (`__orig_class__`): there after some uses, and not before."""
    return isinstance(getattr(kind, name, None), cached_property) or (
        name.startswith("__") and name.endswith("__")
    )


_ordered = mapping(b"O", ordered=True)


def _class(value: Any, add: Add, depth: int) -> None:
    """By its place: another class at the same place would get its results."""
    if classes.find(value.__module__, value.__qualname__) is not value:
        raise UnstableError(
            f"the class {value.__module__}.{value.__qualname__}",
            "it is not to be found under that name (is it made inside a function?)",
            "",
        )
    feed_class(b"C", value, add, depth)


def _path(tag: bytes) -> Feeder:
    def run(value: Any, add: Add, depth: int) -> None:
        add(tag)
        feed_text(str(value), add, depth)

    return run


_LATER: tuple[tuple[str, str, Feeder], ...] = (
    ("collections", "OrderedDict", _ordered),
    ("decimal", "Decimal", _decimal),
    ("fractions", "Fraction", parts(b"q", "numerator", "denominator")),
    ("uuid", "UUID", lambda value, add, _: add(b"u" + value.bytes)),
    ("datetime", "date", parts(b"y", "year", "month", "day")),
    ("datetime", "time", _time(b"h")),
    ("datetime", "datetime", _time(b"w")),
    ("datetime", "timedelta", parts(b"e", "days", "seconds", "microseconds")),
    ("datetime", "timezone", _fixed_zone),
    ("zoneinfo", "ZoneInfo", _zone),
    ("pathlib", "PurePosixPath", _path(b"P")),
    ("pathlib", "PosixPath", _path(b"H")),
    ("pathlib", "PureWindowsPath", _path(b"p")),
    ("pathlib", "WindowsPath", _path(b"j")),
    ("numpy", "ndarray", _array),
    ("numpy", "memmap", _array),
)


def find(value: Any, kind: type) -> Feeder | None:
    """The feeder of `kind`, of which `value` is one; None if it has no stable form. A value's module is imported by whoever made it."""
    for module, name, feeder in _LATER:
        if module in sys.modules and kind is getattr(sys.modules[module], name, None):
            return feeder
    if issubclass(kind, type):
        return _class
    enum, numpy = sys.modules.get("enum"), sys.modules.get("numpy")
    if enum is not None and isinstance(value, enum.Enum):
        return _enum
    if numpy is not None and isinstance(value, numpy.generic):
        return _scalar
    if classes.field_names(kind) is not None:
        return _dataclass
    if isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return _namedtuple
    return None
