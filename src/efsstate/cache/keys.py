r"""What a call is known by: a digest of the namespace, the version and the bound arguments, the same on every host.

A value becomes bytes that begin with its type's letter and say their own length, so that no two different values give
the same bytes, one after another or nested. Sets and dicts go by the sorted digests of their members, large things by
their own digest, so that nothing large is copied. Nothing rests on `hash`, `repr` of an object, or `id`.

    None N;   True T;   False F;   7 i7;   1.5 f<8 bytes>   "ab" s2:ab   b"ab" b2:ab   [x] l1:<x>   (x,) t1:<x>
    {k: v} d1:<digest of k><v>   {x} S1:<digest of x>   a class's value <letter><len>:<module>:<name> and its parts
"""

from __future__ import annotations

import struct
import sys

from efsstate.mount import entry, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Add = Callable[[bytes], object]  # takes the next piece
    Feeder = Callable[[Any, Add, int], object]

SCHEME = b"efsstate key 1;"  # raised only if the same call were to get another digest
_DEEPEST = 100
_LARGE = 1 << 16  # bytes; from here on a digest stands for them
_FLOAT = struct.Struct("<d")


def _new_sum(start: bytes = b"") -> Any:
    return entry.blake2b()(start, digest_size=layout.DIGEST_BYTES)


def _sum(*parts: Any) -> bytes:
    h = _new_sum()
    for part in parts:
        h.update(part)
    return bytes(h.digest())


def _sum_of(value: Any, depth: int) -> bytes:
    pieces: list[bytes] = []
    feed(value, pieces.append, depth)
    return _sum(*pieces)


def _raw(tag: bytes, data: Any, add: Add) -> None:
    """Any number of bytes."""
    length = len(data)
    if length < _LARGE:
        add(b"%b%d:%b" % (tag, length, data))
    else:
        add(b"%b%d#%b" % (tag, length, _sum(data)))


def feed(value: Any, add: Add, depth: int = 0) -> None:
    """Give `value`'s pieces to `add`; `TypeError` for a type that has no stable form."""
    feeder = _feeders.get(type(value)) or _learn(value)
    if depth > _DEEPEST:
        raise TypeError(
            f"an argument is nested more than {_DEEPEST} deep, or contains itself: it can't be part of a key"
        )
    feeder(value, add, depth)


def _int(value: int, add: Add, _: int) -> None:
    if -(2**63) <= value < 2**64:
        add(b"i%d;" % value)
    else:  # decimal digits take quadratic time, and Python refuses many of them
        _raw(b"I", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True), add)


def _str(value: str, add: Add, _: int) -> None:
    try:
        data = value.encode()
    except UnicodeEncodeError:
        data = value.encode("utf-8", "surrogatepass")
    if len(data) < _LARGE:
        add(b"s%d:%b" % (len(data), data))
    else:
        _raw(b"s", data, add)


def _items(tag: bytes) -> Feeder:
    def run(value: Any, add: Add, depth: int) -> None:
        add(b"%b%d:" % (tag, len(value)))
        depth += 1
        for item in value:
            feed(item, add, depth)

    return run


_tuple = _items(b"t")


def _members(tag: bytes) -> Feeder:
    def run(value: Any, add: Add, depth: int) -> None:
        add(b"%b%d:" % (tag, len(value)))
        add(b"".join(sorted([_sum_of(item, depth + 1) for item in value])))

    return run


def _mapping(tag: bytes, *, ordered: bool = False) -> Feeder:
    def run(value: Any, add: Add, depth: int) -> None:
        add(b"%b%d:" % (tag, len(value)))
        pairs = [(_sum_of(key, depth + 1), item) for key, item in value.items()]
        if not ordered:
            pairs.sort(key=_first)
        for key, item in pairs:
            add(key)
            feed(item, add, depth + 1)

    return run


def _first(pair: tuple[bytes, object]) -> bytes:
    return pair[0]


def _view(value: Any, add: Add, depth: int) -> None:
    with memoryview(value) as view:
        add(b"v")
        _str(view.format, add, depth)
        _tuple(view.shape or (), add, depth)
        _raw(b"-", view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes(), add)


def _parts(tag: bytes, *names: str) -> Feeder:
    def run(value: Any, add: Add, depth: int) -> None:
        add(tag)
        _tuple([getattr(value, name) for name in names], add, depth)

    return run


def _class(tag: bytes, kind: type, add: Add, depth: int) -> None:
    module = kind.__module__
    add(tag)
    _str(f"{main_name() if module == '__main__' else module}:{kind.__qualname__}", add, depth)


def _time(tag: bytes) -> Feeder:
    """A time's zone counts by its name if it has one, else by what it is off by."""

    def run(value: Any, add: Add, depth: int) -> None:
        key = getattr(value.tzinfo, "key", None)
        add(tag)
        _str(value.replace(tzinfo=None).isoformat(), add, depth)
        _tuple((value.fold, key if isinstance(key, str) else value.utcoffset()), add, depth)

    return run


def _dtype(dtype: Any, add: Add, depth: int) -> None:
    if dtype.hasobject or dtype.kind == "T":
        raise TypeError(f"an array of dtype {dtype} can't be part of a key: its items are objects; pass plain values")
    _str(dtype.str if dtype.names is None else repr(dtype.descr), add, depth)


def _array(value: Any, add: Add, depth: int) -> None:
    import numpy as np

    add(b"A")
    _dtype(value.dtype, add, depth)
    _tuple(value.shape, add, depth)
    h = _new_sum()
    if value.flags.c_contiguous:
        h.update(value.reshape(-1).view("u1").data if value.nbytes else b"")
    else:
        # Piece by piece in C order: how it lies in memory must not show, and a large array is not copied.
        pieces: Any = np.nditer(value, ["external_loop", "buffered", "zerosize_ok"], order="C", buffersize=_LARGE)
        for piece in pieces:
            h.update(np.ascontiguousarray(piece).view("u1").data if piece.nbytes else b"")
    add(h.digest())


def _scalar(value: Any, add: Add, depth: int) -> None:
    add(b"n")
    _dtype(value.dtype, add, depth)
    _raw(b"-", value.tobytes(), add)


def _decimal(value: Any, add: Add, depth: int) -> None:
    add(b"m")
    _str(str(value), add, depth)


def _enum(value: Any, add: Add, depth: int) -> None:
    _class(b"E", type(value), add, depth)
    feed(value._value_ if value._name_ is None else value._name_, add, depth + 1)  # a flag may have no name


def _dataclass(value: Any, add: Add, depth: int) -> None:
    _class(b"D", type(value), add, depth)
    fields = type(value).__dataclass_fields__
    feed({name: getattr(value, name) for name in fields if hasattr(value, name)}, add, depth + 1)


def _namedtuple(value: Any, add: Add, depth: int) -> None:
    _class(b"M", type(value), add, depth)
    feed(dict(zip(value._fields, value, strict=True)), add, depth + 1)


def _path(value: Any, add: Add, depth: int) -> None:
    add(b"P" if type(value).__name__.endswith("PosixPath") else b"p")  # on every system the same for the same path
    _str(str(value), add, depth)


def _registered(to_parts: Callable[[Any], object]) -> Feeder:
    def run(value: Any, add: Add, depth: int) -> None:
        _class(b"R", type(value), add, depth)
        feed(to_parts(value), add, depth + 1)

    return run


_feeders: dict[type, Feeder] = {
    type(None): lambda _value, add, _depth: add(b"N;"),
    bool: lambda value, add, _: add(b"T;" if value else b"F;"),
    int: _int,
    float: lambda value, add, _: add(b"f" + _FLOAT.pack(value)),
    complex: lambda value, add, _: add(b"c" + _FLOAT.pack(value.real) + _FLOAT.pack(value.imag)),
    str: _str,
    bytes: lambda value, add, _: _raw(b"b", value, add),
    bytearray: lambda value, add, _: _raw(b"a", value, add),
    memoryview: _view,
    list: _items(b"l"),
    tuple: _tuple,
    set: _members(b"S"),
    frozenset: _members(b"Z"),
    dict: _mapping(b"d"),
    range: _parts(b"r", "start", "stop", "step"),
    slice: _parts(b"x", "start", "stop", "step"),
}
_LATER: tuple[tuple[str, str, Feeder], ...] = (  # a value's module is imported by whoever made the value
    ("collections", "OrderedDict", _mapping(b"O", ordered=True)),
    ("decimal", "Decimal", _decimal),
    ("fractions", "Fraction", _parts(b"q", "numerator", "denominator")),
    ("uuid", "UUID", lambda value, add, _: add(b"u" + value.bytes)),
    ("datetime", "date", _parts(b"y", "year", "month", "day")),
    ("datetime", "time", _time(b"h")),
    ("datetime", "datetime", _time(b"w")),
    ("datetime", "timedelta", _parts(b"e", "days", "seconds", "microseconds")),
    ("numpy", "ndarray", _array),
    ("numpy", "memmap", _array),
)
_taught: set[type] = set()


def register(kind: type, to_parts: Callable[[Any], object]) -> None:
    """Teach keys the type `kind` and its subclasses: `to_parts(value)` returns what tells one value from another.

    That is anything keys know already: a plain value, or a tuple of them. It must be the same on every host, and
    differ wherever a function's result may. Example: `register(Image, lambda image: (image.size, image.tobytes()))`.
    """
    if not isinstance(kind, type) or not callable(to_parts):
        raise TypeError("register(type, to_parts): a class and a function of one value are needed")
    for known in [known for known in _feeders if kind in known.__mro__]:
        if known is not kind and known not in _taught:
            del _feeders[known]  # learned by a rule that this one now goes before
    _feeders[kind] = _registered(to_parts)
    _taught.add(kind)


def _learn(value: Any) -> Feeder:
    kind = type(value)
    feeder = _rule(value, kind)
    if feeder is None:
        raise TypeError(
            f"an argument of type {kind.__module__}.{kind.__qualname__} can't be part of a key: it has no stable form;"
            " pass plain values, leave it out with ignore=, or teach it once with"
            f" efsstate.register({kind.__qualname__}, to_parts)"
        )
    _feeders[kind] = feeder
    return feeder


def _rule(value: Any, kind: type) -> Feeder | None:
    for base in kind.__mro__:
        if base in _taught:
            return _feeders[base]
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


def main_name() -> str:
    """What the program `__main__` is called: its module's or file's name, so that two programs are told apart."""
    import os

    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", "builtins"):
        return str(spec.name).removesuffix(".__main__")
    return os.path.basename(getattr(main, "__file__", None) or "__main__").removesuffix(".py")


class Keyer:
    """Makes the digests of one namespace and version."""

    __slots__ = ("_begun", "_start")

    def __init__(self, namespace: str, version: object) -> None:
        pieces: list[bytes] = [SCHEME]
        feed((namespace, version), pieces.append)
        self._start = b"".join(pieces)
        self._begun: Any = None  # a hash of that: to copy it is faster than to begin anew

    def digest(self, value: object) -> str:
        """The digest of a key, 48 hex digits; `TypeError` for what has no stable form."""
        pieces: list[bytes] = []
        feed(value, pieces.append)
        h = (self._begun or self._begin()).copy()
        h.update(b"".join(pieces))
        return h.hexdigest()  # type: ignore[no-any-return]

    def digest_call(self, bound: Iterable[tuple[bytes, Any]]) -> str:
        """The same of bound arguments, each with its name's bytes: see `Signature`."""
        pieces: list[bytes] = []
        add = pieces.append
        for name, value in bound:
            add(name)
            (_feeders.get(type(value)) or _learn(value))(value, add, 1)
        h = (self._begun or self._begin()).copy()
        h.update(b"".join(pieces))
        return h.hexdigest()  # type: ignore[no-any-return]

    def _begin(self) -> Any:
        self._begun = _new_sum(self._start)
        return self._begun
