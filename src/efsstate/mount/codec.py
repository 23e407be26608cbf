r"""Values to bytes and back, exactly, without running anything that the bytes name.

The codec "msgpack" is MessagePack. What that can't hold is an extension: some carry their bytes,

    2 int beyond 64 bits   5 complex   6 bytearray   7 Decimal   8 UUID

the others are empty and mark the array whose first item they are as

    1 tuple   3 set   4 frozenset   9 date   10 time   11 datetime   12 timedelta   13 numpy array   14 numpy scalar
    15 dataclass   16 namedtuple   17 enum member   18 path   19 dict with keys that MessagePack can't hold

(nothing is a message within a message: reading one would take as much of the C stack as a thread may have). A payload
with such an array, or with numpy arrays, which lie outside of the message so that they are never copied into it, says so:

    payload = message | "\xc1" length message padding (array padding)*
    length  = u32, little endian, the message's; every array begins at a multiple of 64 bytes from the payload's start

What can't be kept exactly (a subclass of int, an object, a cycle, an array of objects, ...) is an `EncodeError`, never
changed silently. What can't be read is a `ValueError`, whatever the bytes are.
"""

from __future__ import annotations

import sys

from efsstate.errors import EncodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Buffer = bytes | bytearray | memoryview
    Dumps = Callable[[Any], Buffer | list[Buffer]]
    Loads = Callable[[Buffer], Any]

_TUPLE, _INT, _SET, _FROZENSET, _COMPLEX, _BYTEARRAY, _DECIMAL, _UUID = 1, 2, 3, 4, 5, 6, 7, 8
_DATE, _TIME, _DATETIME, _TIMEDELTA, _ARRAY, _SCALAR, _DATACLASS, _NAMEDTUPLE, _ENUM, _PATH = (
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
)
_DICT = 19
_APART = b"\xc1"  # the one first byte that MessagePack never uses
_ALIGN = 64
_DEEPEST = 100  # levels; each takes two of Python's
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})  # MessagePack keeps these as they are
_PATHS = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement

_pack: Callable[..., bytes] = None  # type: ignore[assignment]  # msgpack is imported with the first value
_unpack: Callable[..., Any] = None  # type: ignore[assignment]
_Ext: Callable[[int, bytes], object] = None  # type: ignore[assignment]


def _load_msgpack() -> None:
    global _pack, _unpack, _Ext
    import msgpack  # type: ignore[import-untyped]

    _unpack, _Ext = msgpack.unpackb, msgpack.ExtType
    _pack = msgpack.packb


# Encoding


class _Out:
    """The arrays of one value, in the order in which the message names them, whether it has marks, and how deep we are."""

    __slots__ = ("arrays", "depth", "marked")

    def __init__(self) -> None:
        self.arrays: list[Buffer] = []
        self.depth = 0
        self.marked = False

    def mark(self, code: int, *items: Any) -> list[Any]:
        """The array that stands for a value."""
        self.marked = True
        return [_Ext(code, b""), *items]


def _big(value: object) -> object:
    if type(value) is int:  # all that reaches this is beyond 64 bits
        return _Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
    raise _refusal(value)


def _message(value: object) -> bytes:
    return _pack(value, default=_big, strict_types=True)


def _refusal(value: object, why: str = "it would not come back as it is") -> EncodeError:
    kind = type(value)
    return EncodeError(
        f"a {kind.__module__}.{kind.__qualname__} can't be stored as msgpack: {why}; return plain values, or use"
        " codec='pickle' or a codec of your own"
    )


def _prepare(value: Any, out: _Out) -> Any:
    """`value` as what MessagePack keeps exactly."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    encoder = _encoders.get(kind) or _learn(value)
    if out.depth >= _DEEPEST:
        raise _refusal(value, f"it is nested more than {_DEEPEST} deep, or contains itself")
    out.depth += 1
    try:
        return encoder(value, out)
    finally:
        out.depth -= 1


def _list(value: Any, out: _Out) -> Any:
    if _PLAIN.issuperset(map(type, value)):
        return value
    return [_prepare(item, out) for item in value]


def _dict(value: Any, out: _Out) -> Any:
    if _PLAIN.issuperset(map(type, value)) and _PLAIN.issuperset(map(type, value.values())):
        return value
    if _PLAIN.issuperset(map(type, value)):
        return {key: _prepare(item, out) for key, item in value.items()}
    return out.mark(_DICT, *[_prepare(part, out) for pair in value.items() for part in pair])


def _sequence(code: int) -> Callable[[Any, _Out], object]:
    def encode(value: Any, out: _Out) -> object:
        return out.mark(code, *_list(value, out))

    return encode


def _complex(value: Any, _: _Out) -> object:
    import struct

    return _Ext(_COMPLEX, struct.pack("<dd", value.real, value.imag))


def _bytearray(value: Any, _: _Out) -> object:
    return _Ext(_BYTEARRAY, bytes(value))


def _decimal(value: Any, _: _Out) -> object:
    return _Ext(_DECIMAL, str(value).encode())


def _uuid(value: Any, _: _Out) -> object:
    safety = value.is_safe.value  # None where it is not known, as nearly always
    return _Ext(_UUID, value.bytes if safety is None else value.bytes + bytes([safety & 255]))


def _date(value: Any, out: _Out) -> object:
    return out.mark(_DATE, value.year, value.month, value.day)


def _zone(value: Any, zone: Any) -> Any:
    """None, [seconds, microseconds, name or None] of a fixed offset, or the name of a zone."""
    import datetime as dt

    if zone is None:
        return None
    if type(zone) is dt.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [offset.days * 86400 + offset.seconds, offset.microseconds, *name]
    module = sys.modules.get("zoneinfo")
    if module is not None and type(zone) is module.ZoneInfo and zone.key is not None:
        return zone.key
    raise _refusal(value, f"its time zone is a {type(zone).__qualname__}; use datetime.timezone or zoneinfo.ZoneInfo")


def _time(value: Any, out: _Out) -> object:
    zone = _zone(value, value.tzinfo)
    return out.mark(_TIME, value.hour, value.minute, value.second, value.microsecond, value.fold, zone)


def _datetime(value: Any, out: _Out) -> object:
    zone = _zone(value, value.tzinfo)
    day = value.year, value.month, value.day
    return out.mark(_DATETIME, *day, value.hour, value.minute, value.second, value.microsecond, value.fold, zone)


def _timedelta(value: Any, out: _Out) -> object:
    return out.mark(_TIMEDELTA, value.days, value.seconds, value.microseconds)


def _dtype(value: Any) -> Any:
    """What `numpy.dtype` makes the same type of again."""
    dtype = value.dtype
    if not dtype.hasobject and dtype.kind != "T":
        spec = dtype.str if dtype.names is None else _listed(dtype.descr)
        if _to_dtype(spec) == dtype and dtype.metadata is None:
            return spec
    raise _refusal(value, f"its dtype {dtype} does not survive on its own")


def _listed(part: Any) -> Any:
    """The description of a structured dtype, all in lists."""
    return [_listed(inner) for inner in part] if isinstance(part, (list, tuple)) else part


def _described(fields: Any) -> Any:
    """The same as the list of tuples that `numpy.dtype` takes."""
    return [
        (name, _described(kind) if isinstance(kind, list) else kind, *(tuple(size) for size in shape))
        for name, kind, *shape in fields
    ]


def _array(value: Any, out: _Out) -> object:
    dtype = _dtype(value)
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    import numpy as np

    flat = np.ascontiguousarray(value.T if fortran else value).reshape(-1)
    if flat.nbytes:
        out.arrays.append(flat.view(np.uint8).data)
    return out.mark(_ARRAY, dtype, list(value.shape), fortran)


def _scalar(value: Any, out: _Out) -> object:
    return out.mark(_SCALAR, _dtype(value), value.tobytes())


def _path(value: Any, out: _Out) -> object:
    import os

    return out.mark(_PATH, _PATHS.index(type(value).__name__), os.fsencode(str(value)))


def _named(kind: Any) -> tuple[str, str]:
    """Where the class is; `EncodeError` if it is not found there again."""
    if _find(kind.__module__, kind.__qualname__) is not kind:
        raise EncodeError(
            f"a {kind.__module__}.{kind.__qualname__} can't be stored as msgpack: the class is not to be found under that"
            " name (is it made inside a function?); move it to the top of its module"
        )
    return kind.__module__, kind.__qualname__


def _find(module: str, qualname: str) -> Any:
    """The class, if it is imported already: nothing is imported and no attribute hook runs."""
    from types import ModuleType

    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if not isinstance(found, (type, ModuleType)):
            return None
        found = vars(found).get(part)
    return found if isinstance(found, type) else None


def _field_names(kind: Any) -> list[str] | None:
    """The fields of a dataclass whose instances hold nothing else, else None."""
    fields = vars(kind).get("__dataclass_fields__")
    if not isinstance(fields, dict):
        return None
    # ClassVar and InitVar are in the table too; the mark is what `dataclasses.fields` goes by.
    return [name for name, field in fields.items() if getattr(field._field_type, "name", "") == "_FIELD"]  # noqa: SLF001


def _dataclass(value: Any, out: _Out) -> object:
    kind = type(value)
    names = _field_names(kind) or []
    held = getattr(value, "__dict__", {})
    slots = {
        slot for base in kind.__mro__ for slot, what in vars(base).items() if type(what).__name__ == "member_descriptor"
    }
    extra = [name for name in (*held, *slots) if name not in names and hasattr(value, name)]
    if extra:
        raise _refusal(value, f"it holds {extra[0]!r} too, which is not a field")
    try:
        object.__new__(kind)  # a subclass of a built-in type holds more than its fields
        values = [held[name] if name in held else getattr(value, name) for name in names]
        for name in names:
            default = kind.__dataclass_fields__[name].default  # which may stand on the class alone
            if name not in held and name not in slots and getattr(value, name) is not default:
                raise _refusal(value, f"its field {name!r} is not a plain attribute")
    except (TypeError, AttributeError) as error:
        raise _refusal(value, str(error)) from None
    return out.mark(_DATACLASS, *_named(kind), names, _list(values, out))


def _namedtuple(value: Any, out: _Out) -> object:
    kind = type(value)
    if getattr(value, "__dict__", None) or len(kind._fields) != len(value):
        raise _refusal(value, "it holds more than its fields")
    return out.mark(_NAMEDTUPLE, *_named(kind), list(kind._fields), _list(list(value), out))


def _enum(value: Any, out: _Out) -> object:
    kind = type(value)
    if vars(kind).get("_member_map_", {}).get(value._name_) is not value:
        raise _refusal(value, "it is not one of its enum's named members")
    return out.mark(_ENUM, *_named(kind), value._name_)


_encoders: dict[type, Callable[[Any, _Out], Any]] = {
    list: _list,
    dict: _dict,
    tuple: _sequence(_TUPLE),
    set: _sequence(_SET),
    frozenset: _sequence(_FROZENSET),
    complex: _complex,
    bytearray: _bytearray,
}
_LATER: tuple[tuple[str, str, Callable[[Any, _Out], Any]], ...] = (
    ("decimal", "Decimal", _decimal),
    ("uuid", "UUID", _uuid),
    ("datetime", "date", _date),
    ("datetime", "time", _time),
    ("datetime", "datetime", _datetime),
    ("datetime", "timedelta", _timedelta),
    ("numpy", "ndarray", _array),
    *(("pathlib", name, _path) for name in _PATHS),
)


def _learn(value: Any) -> Callable[[Any, _Out], Any]:
    """The encoder of a type that is not in the table yet; a value's module is imported by whoever made the value."""
    kind = type(value)
    for module, name, encoder in _LATER:
        if module in sys.modules and kind is getattr(sys.modules[module], name, None):
            _encoders[kind] = encoder
            return encoder
    enum, numpy = sys.modules.get("enum"), sys.modules.get("numpy")
    if enum is not None and isinstance(value, enum.Enum):
        return _enum
    if numpy is not None and isinstance(value, numpy.generic) and kind.__module__ == "numpy":
        return _scalar
    if _field_names(kind) is not None and kind.__flags__ & _HEAP_TYPE:
        return _dataclass
    if isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return _namedtuple
    raise _refusal(value)


def _pad(length: int) -> int:
    return -length % _ALIGN


def dumps(value: Any) -> Buffer | list[Buffer]:
    """`value` as a payload: bytes, or, where it has numpy arrays, a list of buffers, some of them the arrays themselves.

    Raises `EncodeError` for what would not come back as it is.
    """
    if _pack is None:
        _load_msgpack()
    out = _Out()
    try:
        message = _message(_prepare(value, out))
    except EncodeError:
        raise
    except UnicodeEncodeError:
        raise EncodeError(
            "a text with half a surrogate can't be stored as msgpack: use bytes, or codec='pickle'"
        ) from None
    except (ValueError, OverflowError, TypeError, RecursionError, RuntimeError) as error:
        raise EncodeError(f"the value can't be stored as msgpack: {error}") from error
    if not out.marked:
        return message
    head = _APART + len(message).to_bytes(4, "little") + message
    if not out.arrays:
        return head
    parts: list[Buffer] = [head + bytes(_pad(len(head)))]
    for array in out.arrays:
        parts.append(array)
        nbytes = memoryview(array).nbytes
        if _pad(nbytes):
            parts.append(bytes(_pad(nbytes)))
    return parts


# Decoding


class _Mark:
    """That the array which it begins stands for something else."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


_marks: dict[int, _Mark] = {}


def _plain_extension(code: int, data: bytes) -> Any:
    return _carriers[code](data)


class _In:
    """Turns extensions back; `view` and `position` are where the next array lies, if there are any."""

    __slots__ = ("open", "position", "view")

    def __init__(self, view: memoryview, position: int) -> None:
        self.view = view
        self.position = position
        self.open = 0  # marks that no array has begun with

    def extension(self, code: int, data: bytes) -> Any:
        mark = _marks.get(code)
        if mark is None:
            return _carriers[code](data)
        self.open += 1
        return mark

    def array(self, items: list[Any]) -> Any:
        if not items or type(items[0]) is not _Mark:
            return items
        self.open -= 1
        return _decoders[items[0].code](self, *items[1:])

    def take(self, nbytes: int) -> memoryview:
        """The next array's bytes."""
        if not nbytes:
            return memoryview(b"")
        if self.position + nbytes > len(self.view):
            raise ValueError("an array lies beyond the end")
        start = self.position
        self.position = start + nbytes + _pad(nbytes)
        return self.view[start : start + nbytes]


def _to_int(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _to_complex(data: bytes) -> complex:
    import struct

    return complex(*struct.unpack("<dd", data))


def _to_decimal(data: bytes) -> Any:
    from decimal import Decimal

    return Decimal(data.decode("ascii"))


def _to_uuid(data: bytes) -> Any:
    from uuid import UUID, SafeUUID

    safety = SafeUUID.unknown if len(data) == 16 else SafeUUID(0 if data[16:] == b"\0" else -1)
    return UUID(bytes=data[:16], is_safe=safety)


def _to_zone(zone: Any) -> Any:
    import datetime as dt

    if zone is None:
        return None
    if isinstance(zone, str):
        from zoneinfo import ZoneInfo

        return ZoneInfo(zone)
    seconds, microseconds, *name = zone
    offset = dt.timedelta(seconds=seconds, microseconds=microseconds)
    return dt.timezone(offset, *name) if name or offset else dt.UTC


def _to_date(_: _In, year: int, month: int, day: int) -> Any:
    import datetime as dt

    return dt.date(year, month, day)


def _to_time(_: _In, hour: int, minute: int, second: int, microsecond: int, fold: int, zone: Any) -> Any:
    import datetime as dt

    return dt.time(hour, minute, second, microsecond, _to_zone(zone), fold=fold)


def _to_datetime(
    _: _In, year: int, month: int, day: int, hour: int, minute: int, second: int, microsecond: int, fold: int, zone: Any
) -> Any:
    import datetime as dt

    return dt.datetime(year, month, day, hour, minute, second, microsecond, _to_zone(zone), fold=fold)


def _to_timedelta(_: _In, days: int, seconds: int, microseconds: int) -> Any:
    import datetime as dt

    return dt.timedelta(days, seconds, microseconds)


def _to_dtype(spec: Any) -> Any:
    import numpy as np

    dtype = np.dtype(_described(spec) if isinstance(spec, list) else str(spec))
    if dtype.hasobject:
        raise ValueError("an array of objects")
    return dtype


def _to_array(into: _In, spec: Any, shape: list[int], fortran: bool) -> Any:
    import numpy as np

    dtype = _to_dtype(spec)
    count = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise ValueError("an array's shape")
        count *= size
    raw = into.take(count * dtype.itemsize)
    if not raw.nbytes:
        return np.empty(shape, dtype, order="F" if fortran else "C")
    flat = np.frombuffer(raw, dtype)
    if raw.readonly or not flat.flags.aligned:
        flat = flat.copy()  # what the caller gets is the caller's to change
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _to_scalar(_: _In, spec: Any, raw: bytes) -> Any:
    import numpy as np

    dtype = _to_dtype(spec)
    if len(raw) != dtype.itemsize:  # 20 bytes must not ask for 2 GiB
        raise ValueError("a scalar's length")
    return np.frombuffer(raw, dtype, 1)[0] if raw else np.zeros(1, dtype)[0]


def _to_dataclass(_: _In, module: str, qualname: str, names: list[str], values: list[Any]) -> Any:
    from types import MemberDescriptorType

    kind = _find(module, qualname)
    if kind is None or _field_names(kind) != names or len(values) != len(names):
        raise ValueError(f"the dataclass {module}.{qualname} is not imported, or its fields have changed")
    made = object.__new__(kind)
    held = getattr(made, "__dict__", None)
    for name, value in zip(names, values, strict=True):
        slot = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
        if type(slot) is MemberDescriptorType:
            slot.__set__(made, value)
        elif held is not None:
            held[name] = value
        else:
            raise ValueError(f"the dataclass {module}.{qualname} has no place for {name!r}")
    return made


def _to_namedtuple(_: _In, module: str, qualname: str, names: list[str], values: list[Any]) -> Any:
    kind = _find(module, qualname)
    if kind is None or not issubclass(kind, tuple) or list(kind._fields) != names or len(values) != len(names):
        raise ValueError(f"the namedtuple {module}.{qualname} is not imported, or its fields have changed")
    return tuple.__new__(kind, values)


def _to_enum(_: _In, module: str, qualname: str, name: str) -> Any:
    member = vars(_find(module, qualname) or object).get("_member_map_", {}).get(name)
    if member is None:
        raise ValueError(f"the enum {module}.{qualname} is not imported, or has no {name!r}")
    return member


def _to_path(_: _In, kind: int, text: bytes) -> Any:
    import os
    import pathlib

    return getattr(pathlib, _PATHS[kind])(os.fsdecode(text))


def _to_dict(_: _In, *parts: Any) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


_carriers: dict[int, Callable[[bytes], Any]] = {
    _INT: _to_int,
    _COMPLEX: _to_complex,
    _BYTEARRAY: bytearray,
    _DECIMAL: _to_decimal,
    _UUID: _to_uuid,
}
_decoders: dict[int, Callable[..., Any]] = {
    _TUPLE: lambda _, *items: items,
    _SET: lambda _, *items: set(items),
    _FROZENSET: lambda _, *items: frozenset(items),
    _DATE: _to_date,
    _TIME: _to_time,
    _DATETIME: _to_datetime,
    _TIMEDELTA: _to_timedelta,
    _ARRAY: _to_array,
    _SCALAR: _to_scalar,
    _DATACLASS: _to_dataclass,
    _NAMEDTUPLE: _to_namedtuple,
    _ENUM: _to_enum,
    _PATH: _to_path,
    _DICT: _to_dict,
}
_marks.update((code, _Mark(code)) for code in _decoders)


def loads(payload: Buffer) -> Any:
    """The value in `payload`; what it returns is the caller's own.

    A numpy array is a view into `payload` where that is writable (a bytearray that nobody else uses), else a copy.
    Raises `ValueError` for anything that is not what `dumps` made.
    """
    if _unpack is None:
        _load_msgpack()
    try:
        if payload[0] != 0xC1:
            return _unpack(payload, ext_hook=_plain_extension, strict_map_key=False)
        view = memoryview(payload)
        length = 5 + int.from_bytes(view[1:5], "little")
        end = length if length == len(view) else length + _pad(length)
        into = _In(view, end)
        value = _unpack(view[5:length], ext_hook=into.extension, list_hook=into.array, strict_map_key=False)
        if into.position != len(view) or into.open:
            raise ValueError("its arrays or its marks do not add up")  # noqa: TRY301
    except Exception as error:
        # Whatever it was (a FormatError, a KeyError, a MemoryError of a hostile length), the bytes are not a value.
        raise ValueError(f"its payload can't be read: {type(error).__name__}: {error}") from error
    else:
        return value


# Which codec


def resolve_codec(codec: Any, *, signed: bool = False) -> tuple[str, Dumps, Loads]:
    """The name that goes into the entry, `dumps` and `loads` of "msgpack", "pickle", or an object that has both.

    `dumps` raises `EncodeError`, `loads` `ValueError`. `signed`: the root has a key, so that only what this deployment
    wrote ever reaches pickle; without one, pickle is worth a warning.
    """
    if codec == "msgpack":
        return "msgpack", dumps, loads
    if codec == "pickle":
        import pickle

        if not signed:
            from efsstate import events

            events.log(
                "warning",
                "codec='pickle' without EFSSTATE_SIGNING_KEY: whoever may write to the mount can run code in this"
                " process; set the key, or use codec='msgpack'",
                once="pickle unsigned",
            )
        return "pickle", _encoder(lambda value: pickle.dumps(value, 5), "pickle"), _decoder(pickle.loads)
    given, taken = getattr(codec, "dumps", None), getattr(codec, "loads", None)
    if not callable(given) or not callable(taken):
        raise TypeError(f"codec: 'msgpack', 'pickle' or an object with dumps and loads is needed, not {codec!r}")
    name = getattr(codec, "name", None) or getattr(codec, "__name__", None) or type(codec).__name__
    name = "x-" + str(name).encode("ascii", "replace").decode()[:30]
    return name, _encoder(given, name), _decoder(lambda payload: taken(bytes(payload)))


def _encoder(function: Callable[[Any], Any], name: str) -> Dumps:
    def encode(value: Any) -> Buffer:
        try:
            made = function(value)
            made = made.encode() if isinstance(made, str) else made
            return memoryview(made).cast("B")
        except Exception as error:
            kind = type(value)
            raise EncodeError(f"a {kind.__module__}.{kind.__qualname__} can't be stored by {name}: {error}") from error

    return encode


def _decoder(function: Callable[[Any], Any]) -> Loads:
    def decode(payload: Buffer) -> Any:
        try:
            return function(payload)
        except Exception as error:
            raise ValueError(f"its payload can't be read: {type(error).__name__}: {error}") from error

    return decode
