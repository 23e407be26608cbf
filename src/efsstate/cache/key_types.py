"""The keys of types that are not built in: times, numbers, arrays, enums, dataclasses and paths.

No library is imported here: if a value of its type exists, the program has imported it.
"""

from __future__ import annotations

import sys

from efsstate.cache.key_encoding import (
    LARGE,
    UnstableError,
    attributes,
    encode,
    encode_class,
    encode_raw,
    encode_text,
    encode_tuple,
    mapping,
    new_hash,
    unstable,
)
from efsstate.format.codec import classes, inspection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from efsstate.cache.key_encoding import Add, Encoder


def _time(tag: bytes) -> Encoder:
    # Constraint: a time's zone is a value of its own, since its offset is not all that it tells;
    # a zone without a stable form is refused.
    def encode_time(value: Any, add: Add, depth: int) -> None:
        add(tag)
        encode_text(value.replace(tzinfo=None).isoformat(), add, depth)
        encode_tuple((value.fold, value.tzinfo), add, depth)

    return encode_time


def _encode_offset(value: Any, add: Add, depth: int) -> None:
    add(b"z")
    encode_tuple(value.__getinitargs__(), add, depth)


def _encode_zone(value: Any, add: Add, depth: int) -> None:
    from efsstate.format.codec.stdlib import zone_key

    key = zone_key(value)
    if key is None:
        raise unstable(value, "it is read from a file, whose content a name does not tell")
    add(b"k")
    encode_text(key, add, depth)


def _encode_uuid(value: Any, add: Add, _: int) -> None:
    # `uuid1` says if its UUID was made safely; a function can tell it from one that does not.
    safety = value.is_safe.value
    add(b"u" + value.bytes if safety is None else b"U%d;" % safety + value.bytes)


def _encode_address(value: Any, add: Add, depth: int) -> None:
    add(b"V")
    encode_tuple((type(value).__name__, str(value)), add, depth)


def _encode_dateutil(value: Any, add: Add, depth: int) -> None:
    from efsstate.format.codec.stdlib import describe_dateutil

    description = describe_dateutil(value)
    if description is None or description[0] == "tzlocal":
        raise unstable(value, "it is read from a file or from this machine, and has no name")
    add(b"Y")
    encode(description, add, depth)


def _encode_pydantic(value: Any, add: Add, depth: int) -> None:
    _encode_kind(b"B", value, add, depth)
    add(b"t4:")
    # Which fields were set counts: a function may ask for it.
    for name in ("__dict__", "__pydantic_extra__", "__pydantic_private__"):
        encode(getattr(value, name), add, depth)
    encode(value.__pydantic_fields_set__, add, depth)


def _encode_decimal(value: Any, add: Add, depth: int) -> None:
    add(b"m")
    # Constraint: the context says which of the two letters `str` writes.
    encode_text(str(value).replace("e", "E"), add, depth)


def _encode_array(value: Any, add: Add, depth: int) -> None:
    add(b"A")
    _encode_items(value, add, depth)


def _encode_items(value: Any, add: Add, depth: int) -> None:
    dtype = value.dtype
    encode(_describe(dtype), add, depth)
    encode_tuple(value.shape, add, depth)
    if dtype.names is None:
        add(_digest_items(value))
    for name in dtype.names or ():  # field by field: the bytes between them are not the value's
        _encode_items(value[name], add, depth)


def _describe(dtype: Any) -> object:
    """Return a description that no other dtype has; overlapping fields can share `dtype.descr`."""
    import numpy as np

    if dtype.hasobject or dtype.kind == "T":
        raise UnstableError(f"an array of dtype {dtype}", "its items are objects", "")
    if dtype.metadata:
        raise UnstableError(f"an array of dtype {dtype}", "its dtype has metadata", "")
    if dtype.subdtype is not None:
        return _describe(dtype.subdtype[0]), dtype.subdtype[1]
    if dtype.names is not None:
        fields = [(name, *dtype.fields[name]) for name in dtype.names]
        record = dtype.itemsize, [(name, _describe(inner), *rest) for name, inner, *rest in fields]
        return record if dtype.type is np.void else (dtype.type, *record)
    # Those of other libraries, such as a float of 8 bits, share their text, or have none.
    for description in (dtype.str, dtype.type):
        try:
            # MUT: a-dtype-is-described-completely
            if np.dtype(description) == dtype:
                return description
        except TypeError:
            continue
    raise UnstableError(f"an array of dtype {dtype}", "the dtype has no stable form", "")


def _digest_items(value: Any) -> bytes:
    import numpy as np

    if value.dtype.char in "gG":
        value = _significant_bytes(value)
    h = new_hash()
    if value.flags.c_contiguous:
        h.update(value.reshape(-1).view("u1").data if value.nbytes else b"")
        return bytes(h.digest())
    # Piece by piece in C order: the layout in memory must not show, nor a large array be copied.
    flags: Any = ["external_loop", "buffered", "zerosize_ok"]
    pieces: Any = np.nditer(value, flags, order="C", buffersize=LARGE)
    for piece in pieces:
        h.update(np.ascontiguousarray(piece).view("u1").data if piece.nbytes else b"")
    return bytes(h.digest())


def _significant_bytes(value: Any) -> Any:
    """Return the bytes of long doubles without the six at the end of each, which are not set."""
    import numpy as np

    native = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
    if np.finfo(np.longdouble).nmant != 63:  # quad precision uses all of its bytes
        return native
    width = np.dtype(np.longdouble).itemsize
    # MUT: padding-is-no-part-of-a-number
    return np.ascontiguousarray(native.reshape(-1).view("u1").reshape(-1, width)[:, :10])


def _encode_scalar(value: Any, add: Add, depth: int) -> None:
    import numpy as np

    # MUT: a-scalars-class-counts
    if type(value) not in (np.str_, np.bytes_, value.dtype.type):
        _encode_fields(
            b"nC", value, (), add, depth
        )  # its class, and the attributes of the instance
    # MUT: numpy-scalars-have-tags
    if isinstance(value, str):  # an array would drop the zeros at its end
        add(b"nU")
        encode_text(str.__str__(value), add, depth)
    elif isinstance(value, bytes):
        add(b"nS")
        encode_raw(b"b", bytes(value), add)
    else:
        add(b"nV")
        _encode_items(np.asarray(value), add, depth)


def _encode_enum(value: Any, add: Add, depth: int) -> None:
    _encode_kind(b"E", value, add, depth)
    encode_tuple((value._name_, value._value_), add, depth)  # a flag may have no name


def _encode_dataclass(value: Any, add: Add, depth: int) -> None:
    kind = type(value)
    base = inspection.hidden(kind)
    if base is not None:
        raise unstable(value, f"it is a {base.__qualname__}, which holds more than its fields")
    names = classes.field_names(kind) or []
    _encode_fields(b"D", value, [name for name in names if hasattr(value, name)], add, depth)


def _encode_namedtuple(value: Any, add: Add, depth: int) -> None:
    if len(value._fields) != len(value):
        raise unstable(value, "it holds more than its fields")
    _encode_fields(b"M", value, value._fields, add, depth)


def _encode_fields(tag: bytes, value: Any, names: Sequence[str], add: Add, depth: int) -> None:
    """Encode the class, the fields in their order, and the other attributes of the instance."""
    kind = type(value)
    others = {*inspection.attribute_names(value)} - {*names, "__weakref__"}
    _encode_kind(tag, value, add, depth)
    # MUT: attributes-of-an-instance-count
    for group in (names, sorted(name for name in others if not inspection.is_derived(kind, name))):
        _encode_ordered({name: getattr(value, name) for name in group}, add, depth)


_encode_ordered = mapping(b"O", ordered=True)


def _encode_kind(tag: bytes, value: Any, add: Add, depth: int) -> None:
    """Encode the class of `value`, unless another class may have its name."""
    kind = type(value)
    # MUT: local-classes-are-no-keys
    if not _is_findable(kind):
        raise unstable(value, "its class is not to be found under that name (is it a local one?)")
    encode_class(tag, kind, add, depth)


def _encode_type(value: Any, add: Add, depth: int) -> None:
    # Constraint: a class counts by its place; another class at that place would get its results.
    if not _is_findable(value):
        raise UnstableError(
            f"the class {value.__module__}.{value.__qualname__}",
            "it is not to be found under that name (is it made inside a function?)",
            "",
        )
    encode_class(b"C", value, add, depth)


def _is_findable(kind: type) -> bool:
    return inspection.find(kind.__module__, kind.__qualname__) is kind


def _path(tag: bytes) -> Encoder:
    def encode_path(value: Any, add: Add, depth: int) -> None:
        add(tag)
        encode_text(str(value), add, depth)

    return encode_path


_BY_NAME: tuple[tuple[str, str, Encoder], ...] = (
    ("collections", "OrderedDict", _encode_ordered),
    ("decimal", "Decimal", _encode_decimal),
    ("fractions", "Fraction", attributes(b"q", "numerator", "denominator")),
    ("uuid", "UUID", _encode_uuid),
    ("datetime", "date", attributes(b"y", "year", "month", "day")),
    ("datetime", "time", _time(b"h")),
    ("datetime", "datetime", _time(b"w")),
    ("datetime", "timedelta", attributes(b"e", "days", "seconds", "microseconds")),
    ("datetime", "timezone", _encode_offset),
    ("zoneinfo", "ZoneInfo", _encode_zone),
    *[
        ("ipaddress", f"IPv{version}{kind}", _encode_address)
        for version in (4, 6)
        for kind in ("Address", "Network", "Interface")
    ],
    ("pathlib", "PurePosixPath", _path(b"P")),
    ("pathlib", "PosixPath", _path(b"H")),
    ("pathlib", "PureWindowsPath", _path(b"p")),
    ("pathlib", "WindowsPath", _path(b"j")),
    ("numpy", "ndarray", _encode_array),
    ("numpy", "memmap", _encode_array),
)
_LIBRARIES = ("pandas", "polars", "PIL.", "torch")


def find(kind: type) -> Encoder | None:
    """Return the encoder of `kind`; None if its values have no stable form."""
    for module, name, encoder in _BY_NAME:
        if module in sys.modules and kind is getattr(sys.modules[module], name, None):
            return encoder
    if issubclass(kind, type):
        return _encode_type
    enum, numpy = sys.modules.get("enum"), sys.modules.get("numpy")
    if enum is not None and issubclass(kind, enum.Enum):
        return _encode_enum
    if numpy is not None and issubclass(kind, numpy.generic):
        return _encode_scalar
    if kind.__module__ == "dateutil.tz.tz":
        return _encode_dateutil
    if any(str(base.__module__).startswith(_LIBRARIES) for base in kind.__mro__):
        from efsstate.cache import key_libraries

        by_content = key_libraries.find(kind)
        if by_content is not None:
            return by_content
    pydantic = sys.modules.get("pydantic.main")
    if pydantic is not None and issubclass(kind, pydantic.BaseModel):
        return _encode_pydantic
    if classes.field_names(kind) is not None:
        return _encode_dataclass
    if issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return _encode_namedtuple
    return None
