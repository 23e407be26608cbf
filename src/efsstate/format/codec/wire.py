"""Keep the table of types that a message can hold, and the state of one message.

That is `Out` while it is written, `In` while it is read.

The table names types and modules of ours as text: a module is imported with the first value, or the
first code, that needs it, and no library is ever imported for its types.
"""

from __future__ import annotations

import sys

from efsstate.errors import EncodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Buffer = bytes | bytearray | memoryview
    Encoder = Callable[[Any, "Out"], Any]

TUPLE, INT, SET, FROZENSET, COMPLEX, BYTEARRAY, DECIMAL, UUID = range(1, 9)
DATE, TIME, DATETIME, TIMEDELTA, ARRAY, SCALAR, DATACLASS, NAMEDTUPLE, ENUM, PATH = range(9, 19)
DICT, TEXT, LARGE, PYDANTIC, FRAME, IMAGE, TENSOR, REGISTERED = range(19, 27)

_FRAMES, _FRAME_KINDS = ("pandas", "polars"), ("DataFrame", "Series")
_PATHS = ("PurePath", "PurePosixPath", "PureWindowsPath", "Path", "PosixPath", "WindowsPath")
# code -> the module that knows it, and the types that it is for; none if the module looks itself
TYPES: dict[int, tuple[str, tuple[str, ...]]] = {
    TUPLE: ("builtin", ("builtins.tuple",)),
    INT: ("builtin", ()),  # beyond 64 bits
    SET: ("builtin", ("builtins.set",)),
    FROZENSET: ("builtin", ("builtins.frozenset",)),
    COMPLEX: ("builtin", ("builtins.complex",)),
    BYTEARRAY: ("builtin", ("builtins.bytearray",)),
    DECIMAL: ("stdlib", ("decimal.Decimal",)),
    UUID: ("stdlib", ("uuid.UUID",)),
    DATE: ("stdlib", ("datetime.date",)),
    TIME: ("stdlib", ("datetime.time",)),
    DATETIME: ("stdlib", ("datetime.datetime",)),
    TIMEDELTA: ("stdlib", ("datetime.timedelta",)),
    ARRAY: ("arrays", ("numpy.ndarray",)),
    SCALAR: ("arrays", ()),
    DATACLASS: ("classes", ()),
    NAMEDTUPLE: ("classes", ()),
    ENUM: ("classes", ()),
    PATH: ("stdlib", tuple([f"pathlib.{name}" for name in _PATHS])),
    DICT: ("builtin", ("builtins.dict",)),  # with keys that MessagePack can't hold
    TEXT: ("builtin", ()),  # with lone surrogates
    LARGE: ("builtin", ()),  # bytes or text beyond the 4 GiB of a message
    PYDANTIC: ("classes", ()),
    FRAME: ("frames", tuple([f"{name}.{kind}" for name in _FRAMES for kind in _FRAME_KINDS])),
    IMAGE: ("images", ("PIL.Image.Image",)),
    TENSOR: ("tensors", ("torch.Tensor",)),
    REGISTERED: ("registered", ()),
}
CARRIERS = (
    INT,
    COMPLEX,
    BYTEARRAY,
    DECIMAL,
    UUID,
    TEXT,
)  # have their bytes in the extension itself
_LOOKING = ("classes", "arrays")  # modules that look at a value to tell if it is theirs

PLAIN = frozenset({type(None), bool, int, float, str, bytes})  # MessagePack keeps these as they are
_DEEPEST = 100  # levels; each takes two of Python's
APART = 2**20  # bytes of a leaf from which it lies outside of a message that would be too large
ALIGN = 64  # bytes; every array begins at a multiple of it

_encoders: dict[type, Encoder] = {}
_decoders: dict[int, Callable[..., Any]] = {}


def refusal(value: object, why: str = "it would not come back as it is") -> EncodeError:
    """Return the error for a value that can't be kept."""
    kind = type(value)
    return EncodeError(
        f"a {kind.__module__}.{kind.__qualname__} can't be stored as msgpack: {why}; return plain"
        " values, or use codec='pickle' or a codec of your own"
    )


def _module(name: str) -> Any:
    full = f"{__package__}.{name}"
    __import__(full)
    return sys.modules[full]


def decoder(code: int) -> Callable[..., Any]:
    """Return the decoder of an extension's code; `KeyError` if there is none."""
    known = _decoders.get(code)
    if known is None:
        known = _decoders[code] = _module(TYPES[code][0]).DECODERS[code]
    return known


def teach(kind: type, encoder: Encoder | None) -> None:
    """Use `encoder` for the instances of `kind`, or, without one, what is known of them."""
    if encoder is None:
        _encoders.pop(kind, None)
    else:
        _encoders[kind] = encoder


def _encoder(value: Any) -> Encoder:
    kind = type(value)
    for code, (module, types) in TYPES.items():
        for full in types:
            library, _, name = full.rpartition(".")
            if library in sys.modules and vars(sys.modules[library]).get(name) is kind:
                encode: Encoder = _module(module).ENCODERS[code]
                _encoders[kind] = encode
                return encode
    for module in _LOOKING:
        looked: Encoder | None = _module(module).find_encoder(value)
        if looked is not None:
            return looked  # not for all of the class: it can change
    raise refusal(value)


class Out:
    """One value while it becomes a message.

    arrays      its arrays, in the order in which the message names them
    extension   makes an extension of a code and bytes
    is_marked   True once the message has a mark
    is_careful  True in a second try, for text and bytes that MessagePack can't hold
    own_hashes  how many instances it has so far whose hash would run code of their class
    """

    __slots__ = ("arrays", "depth", "extension", "is_careful", "is_marked", "own_hashes")

    def __init__(
        self, extension: Callable[[int, bytes], object], *, is_careful: bool = False
    ) -> None:
        self.arrays: list[Buffer] = []
        self.depth = 0
        self.extension = extension
        self.is_careful = is_careful
        self.is_marked = False
        self.own_hashes = 0

    def mark(self, code: int, *items: Any) -> list[Any]:
        """Return the array that stands for a value: an empty extension, and the value's parts."""
        self.is_marked = True
        return [self.extension(code, b""), *items]

    def prepare(self, value: Any) -> Any:
        """Return `value` as a value that MessagePack keeps exactly."""
        kind = type(value)
        if kind in PLAIN:
            return self._prepare_leaf(value) if self.is_careful else value
        encode = _encoders.get(kind) or _encoder(value)
        if self.depth >= _DEEPEST:
            raise refusal(value, f"it is nested more than {_DEEPEST} deep, or contains itself")
        self.depth += 1
        try:
            return encode(value, self)
        finally:
            self.depth -= 1

    def _prepare_leaf(self, value: Any) -> Any:
        kind = type(value)
        if kind is str and not value.isascii():
            data = value.encode("utf-8", "surrogatepass")
            if len(data) < APART:
                is_valid = data == value.encode("utf-8", "replace")
                return value if is_valid else self.extension(TEXT, data)
        elif kind in (str, bytes) and len(value) >= APART:
            data = value if kind is bytes else value.encode()
        else:
            return value
        return self.put_apart(data, kind)

    def put_apart(self, data: Buffer, kind: type) -> Any:
        """Return the mark for bytes that lie outside of the message."""
        self.arrays.append(data)
        return self.mark(LARGE, (bytes, str, bytearray).index(kind), len(data))

    def are_plain(self, values: Any) -> bool:
        """Return True if MessagePack keeps all of the values as they are."""
        if not PLAIN.issuperset(map(type, values)):
            return False
        return not self.is_careful or all(map(_is_small, values))

    def items(self, values: Any) -> Any:
        """Return the items of a list or a tuple, prepared."""
        if self.are_plain(values):
            return values
        return [self.prepare(item) for item in values]

    def keys(self, values: Any) -> Any:
        """Return the members of a set or the keys of a dict, prepared.

        Raise `EncodeError` if hashing them, which their reader does, may run code of their classes.
        """
        before = self.own_hashes
        prepared = [self.prepare(item) for item in values]
        if self.own_hashes != before:
            raise EncodeError(
                "a set or dict can't be stored as msgpack: a class among its members or keys has"
                " its own __hash__ or __eq__, whose code would run while it is read; use a frozen"
                " dataclass, or codec='pickle'"
            )
        return prepared


def _is_small(value: Any) -> bool:
    kind = type(value)
    if kind not in (str, bytes):
        return True
    return len(value) < APART and (kind is bytes or value.isascii())


def _encode_list(value: Any, out: Out) -> Any:
    return out.items(value)


def _encode_dict(value: Any, out: Out) -> Any:
    if not out.are_plain(value):
        keys = out.keys(value)
        values = [out.prepare(item) for item in value.values()]
        return out.mark(DICT, *[part for pair in zip(keys, values, strict=True) for part in pair])
    if out.are_plain(value.values()):
        return value
    return {key: out.prepare(item) for key, item in value.items()}


_encoders.update({list: _encode_list, dict: _encode_dict})


class Mark:
    """The first item of an array that stands for another value."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


_marks = {code: Mark(code) for code in TYPES if code not in CARRIERS}


def carried(code: int, data: bytes) -> Any:
    """Return the value of an extension that has its bytes."""
    if code not in CARRIERS:
        raise ValueError("a mark that begins no array")
    return decoder(code)(data)


class In:
    """One message while it becomes a value.

    `view` and `position` are where the next array lies, if there are any; `open_marks` is how many
    marks no array has begun with; `is_strict` says that no map's key is anything but plain.
    """

    __slots__ = ("_has_own_hashes", "is_strict", "open_marks", "position", "view")

    def __init__(self, view: memoryview, position: int, *, is_strict: bool = False) -> None:
        self.view = view
        self.position = position
        self.open_marks = 0
        self.is_strict = is_strict
        self._has_own_hashes = False

    def note_own_hash(self) -> None:
        """Note that an instance follows whose hash would run code of its class.

        Raise `NeedsStrictKeys` unless `is_strict`: MessagePack hashes a map's keys by itself.
        """
        # MUT: no-hash-of-a-class-runs-on-what-was-read
        if not self.is_strict:
            raise NeedsStrictKeys
        self._has_own_hashes = True

    def require_hashable(self, values: Any) -> None:
        """Raise `ValueError` if hashing the values may run code of a class."""
        if self._has_own_hashes:
            from efsstate.format.codec import inspection

            for value in values:
                _require_known_hash(value, inspection)

    def extension(self, code: int, data: bytes) -> Any:
        """Return the value of an extension, or its mark."""
        mark = _marks.get(code)
        if mark is None:
            return carried(code, data)
        self.open_marks += 1
        return mark

    def array(self, items: list[Any]) -> Any:
        """Return the value that an array stands for, if a mark begins it, else the array."""
        if not items or type(items[0]) is not Mark:
            return items
        self.open_marks -= 1
        return decoder(items[0].code)(self, *items[1:])

    def take(self, nbytes: int) -> memoryview:
        """Return the next array's bytes."""
        if not nbytes:
            return memoryview(b"")
        if self.position + nbytes > len(self.view):
            raise ValueError("an array lies beyond the end")
        start = self.position
        self.position = start + nbytes + padding(nbytes)
        return self.view[start : start + nbytes]


class NeedsStrictKeys(Exception):  # noqa: N818 - a signal within one reading
    """The message must be read again with each map's keys checked before they are hashed."""


def plain_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a map of MessagePack's own; `ValueError` if a key is not plain."""
    if not PLAIN.issuperset(type(key) for key, _ in pairs):
        raise ValueError("a map's key is not plain")
    return dict(pairs)


def _require_known_hash(value: Any, inspection: Any) -> None:
    kind = type(value)
    if kind in (tuple, frozenset):
        members: Any = value
    elif not inspection.is_written(kind):
        return
    elif inspection.hashes_by_its_own_code(kind):
        raise ValueError("a class among a set's members or a dict's keys has its own hash")
    elif issubclass(kind, tuple):
        members = tuple.__iter__(value)
    else:
        members = [*inspection.own_dict(value).values(), *inspection.slots(value).values()]
    for member in members:
        _require_known_hash(member, inspection)


def padding(length: int) -> int:
    """Return how many bytes there are from `length` to the next multiple of `ALIGN`."""
    return -length % ALIGN
