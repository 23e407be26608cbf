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

from efsstate.errors import EncodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Buffer = bytes | bytearray | memoryview
    Encoder = Callable[[Any, "Out"], Any]
    Dumps = Callable[[Any], Buffer | list[Buffer]]
    Loads = Callable[[Any], Any]

_TUPLE, _INT, _SET, _FROZENSET, _COMPLEX, _BYTEARRAY, _DICT = 1, 2, 3, 4, 5, 6, 19
DECIMAL, UUID = 7, 8
DATE, TIME, DATETIME, TIMEDELTA, ARRAY, SCALAR, DATACLASS, NAMEDTUPLE, ENUM, PATH = range(9, 19)
_APART = b"\xc1"  # the one first byte that MessagePack never uses
_ALIGN = 64
_DEEPEST = 100  # levels; each takes two of Python's
_PLAIN = frozenset(
    {type(None), bool, int, float, str, bytes}
)  # MessagePack keeps these as they are

_pack: Callable[..., bytes] = None  # type: ignore[assignment]  # msgpack is imported with the first value
_unpack: Callable[..., Any] = None  # type: ignore[assignment]
_Ext: Callable[[int, bytes], object] = None  # type: ignore[assignment]


def _load_msgpack() -> None:
    global _pack, _unpack, _Ext
    import msgpack  # type: ignore[import-untyped]

    _unpack, _Ext = msgpack.unpackb, msgpack.ExtType
    _pack = msgpack.packb


# Encoding


class Out:
    """The arrays of one value, in the order in which the message names them, whether it has marks, and how deep we are."""

    __slots__ = ("arrays", "depth", "marked")

    def __init__(self) -> None:
        self.arrays: list[Buffer] = []
        self.depth = 0
        self.marked = False

    def carry(self, code: int, data: bytes) -> object:
        """What stands for a value and has its bytes."""
        return _Ext(code, data)

    def mark(self, code: int, *items: Any) -> list[Any]:
        """The array that stands for a value."""
        self.marked = True
        return [_Ext(code, b""), *items]


def _big(value: object) -> object:
    if type(value) is int:  # all that reaches this is beyond 64 bits
        return _Ext(_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
    raise refusal(value)


def _message(value: object) -> bytes:
    return _pack(value, default=_big, strict_types=True)


def refusal(value: object, why: str = "it would not come back as it is") -> EncodeError:
    """What is raised for a value that can't be kept."""
    kind = type(value)
    return EncodeError(
        f"a {kind.__module__}.{kind.__qualname__} can't be stored as msgpack: {why}; return plain values, or use"
        " codec='pickle' or a codec of your own"
    )


def _prepare(value: Any, out: Out) -> Any:
    """`value` as what MessagePack keeps exactly."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    encoder = _encoders.get(kind) or _learn(value)
    if out.depth >= _DEEPEST:
        raise refusal(value, f"it is nested more than {_DEEPEST} deep, or contains itself")
    out.depth += 1
    try:
        return encoder(value, out)
    finally:
        out.depth -= 1


def encode_items(value: Any, out: Out) -> Any:
    """The items of a list or a tuple, as MessagePack keeps them."""
    if _PLAIN.issuperset(map(type, value)):
        return value
    return [_prepare(item, out) for item in value]


def _dict(value: Any, out: Out) -> Any:
    if _PLAIN.issuperset(map(type, value)) and _PLAIN.issuperset(map(type, value.values())):
        return value
    if _PLAIN.issuperset(map(type, value)):
        return {key: _prepare(item, out) for key, item in value.items()}
    return out.mark(_DICT, *[_prepare(part, out) for pair in value.items() for part in pair])


def _sequence(code: int) -> Callable[[Any, Out], object]:
    def encode(value: Any, out: Out) -> object:
        return out.mark(code, *encode_items(value, out))

    return encode


def _complex(value: Any, out: Out) -> object:
    import struct

    return out.carry(_COMPLEX, struct.pack("<dd", value.real, value.imag))


def _bytearray(value: Any, out: Out) -> object:
    return out.carry(_BYTEARRAY, bytes(value))


_encoders: dict[type, Callable[[Any, Out], Any]] = {
    list: encode_items,
    dict: _dict,
    tuple: _sequence(_TUPLE),
    set: _sequence(_SET),
    frozenset: _sequence(_FROZENSET),
    complex: _complex,
    bytearray: _bytearray,
}


def _learn(value: Any) -> Encoder:
    """The encoder of a type that is not in the table yet."""
    kind = type(value)
    for family in _load_families():
        encoder, always = family.encoder(value, kind)
        if encoder is not None:
            if always:
                _encoders[kind] = encoder
            return encoder  # type: ignore[no-any-return]
    raise refusal(value)


_families: tuple[Any, ...] = ()


def _load_families() -> tuple[Any, ...]:
    """The modules of what few results hold: they are imported with the first of it."""
    global _families
    if not _families:
        from efsstate.format.codec import arrays, classes, stdlib

        for family in (stdlib, classes, arrays):
            _carriers.update(family.CARRIERS)
            _decoders.update(family.DECODERS)
        _families = stdlib, classes, arrays
    return _families


def _pad(length: int) -> int:
    return -length % _ALIGN


def dumps(value: Any) -> Buffer | list[Buffer]:
    """`value` as a payload: bytes, or, where it has numpy arrays, a list of buffers, some of them the arrays themselves.

    Raises `EncodeError` for what would not come back as it is.
    """
    if _pack is None:
        _load_msgpack()
    out = Out()
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
    if code not in _carriers:
        _load_families()
    return _carriers[code](data)


class In:
    """Turns extensions back; `view` and `position` are where the next array lies, if there are any."""

    __slots__ = ("open", "position", "view")

    def __init__(self, view: memoryview, position: int) -> None:
        self.view = view
        self.position = position
        self.open = 0  # marks that no array has begun with

    def extension(self, code: int, data: bytes) -> Any:
        """A value that has its bytes, or a mark."""
        mark = _marks.get(code)
        if mark is None:
            return _plain_extension(code, data)
        self.open += 1
        return mark

    def array(self, items: list[Any]) -> Any:
        """What an array stands for, if a mark begins it."""
        if not items or type(items[0]) is not _Mark:
            return items
        self.open -= 1
        code = items[0].code
        if code not in _decoders:
            _load_families()
        return _decoders[code](self, *items[1:])

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


def _to_dict(_: In, *parts: Any) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


_carriers: dict[int, Callable[[bytes], Any]] = {
    _INT: _to_int,
    _COMPLEX: _to_complex,
    _BYTEARRAY: bytearray,
}
_decoders: dict[int, Callable[..., Any]] = {
    _TUPLE: lambda _, *items: items,
    _SET: lambda _, *items: set(items),
    _FROZENSET: lambda _, *items: frozenset(items),
    _DICT: _to_dict,
}
_marks.update((code, _Mark(code)) for code in (_TUPLE, _SET, _FROZENSET, *range(DATE, _DICT + 1)))


def bytes_start(name: str, head: bytes, start: int, size: int) -> int:
    """Where the bytes begin of a value that is nothing but long bytes; 0 for any other.

    `name` is the codec's, `head` the first of `size` bytes of a file, and its payload begins at `start`. What is read from
    there on as a `bytes` is the value: `loads` takes the payload in two parts, and copies none.
    """
    long = (
        name == "msgpack"
        and head[start : start + 5] == b"\xc6" + max(0, size - start - 5).to_bytes(8, "big")[4:]
    )
    return start + 5 if long else 0


def loads(payload: Any) -> Any:
    """The value in `payload`; what it returns is the caller's own. In two parts, the second is the value (`bytes_start`).

    A numpy array is a view into `payload` where that is writable (a bytearray that nobody else uses), else a copy.
    Raises `ValueError` for anything that is not what `dumps` made.
    """
    if _unpack is None:
        _load_msgpack()
    if type(payload) is tuple:
        return payload[1]
    try:
        if payload[0] != 0xC1:
            return _unpack(payload, ext_hook=_plain_extension, strict_map_key=False)
        view = memoryview(payload)
        length = 5 + int.from_bytes(view[1:5], "little")
        end = length if length == len(view) else length + _pad(length)
        into = In(view, end)
        value = _unpack(
            view[5:length], ext_hook=into.extension, list_hook=into.array, strict_map_key=False
        )
        if into.position != len(view) or into.open:
            raise ValueError("its arrays or its marks do not add up")  # noqa: TRY301
    except Exception as error:
        # Whatever it was (a FormatError, a KeyError, a MemoryError of a hostile length), the bytes are not a value.
        raise ValueError(f"its payload can't be read: {type(error).__name__}: {error}") from error
    else:
        return value


# Which codec


def demand_codec(codec: Any) -> None:
    """`TypeError` for what is no codec."""
    if isinstance(codec, str) and codec in ("msgpack", "pickle"):
        return
    if not callable(getattr(codec, "dumps", None)) or not callable(getattr(codec, "loads", None)):
        raise TypeError(
            f"codec: 'msgpack', 'pickle' or an object with dumps and loads is needed, not {codec!r}"
        )


def resolve_codec(codec: Any, *, signed: bool = False) -> tuple[str, Dumps, Loads]:
    """The name that goes into the entry, `dumps` and `loads` of "msgpack", "pickle", or an object that has both.

    `dumps` raises `EncodeError`, `loads` `ValueError`. `signed`: the root has a key, so that only what this deployment
    wrote ever reaches pickle; without one, pickle is worth a warning.
    """
    demand_codec(codec)
    if codec == "msgpack":
        return "msgpack", dumps, loads
    from efsstate.format.codec import pickles

    return pickles.resolve(codec, signed=signed)
