"""Encode values of the user's classes, and decode them, without running code of theirs."""

from __future__ import annotations

import sys
from types import MemberDescriptorType

from efsstate.errors import EncodeError
from efsstate.format.codec.wire import DATACLASS, ENUM, NAMEDTUPLE, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Encoder, In, Out

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement

# Encoding


def _path_of(kind: Any) -> tuple[str, str]:
    """Return the class's module and name; `EncodeError` if they do not lead to it again."""
    if find(kind.__module__, kind.__qualname__) is not kind:
        raise EncodeError(
            f"a {kind.__module__}.{kind.__qualname__} can't be stored as msgpack: that name"
            " does not lead to the class (is it made inside a function?); move it to the top of its"
            " module"
        )
    return kind.__module__, kind.__qualname__


def find(module: str, qualname: str) -> Any:
    """Return the class if it is imported already; import nothing, run no attribute hook."""
    from types import ModuleType

    # MUT: nothing-that-is-named-is-imported
    place: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if not isinstance(place, (type, ModuleType)):
            return None
        place = vars(place).get(part)
    return place if isinstance(place, type) else None


def field_names(kind: Any) -> list[str] | None:
    """Return the names of a dataclass's fields; None for any other class."""
    fields = vars(kind).get("__dataclass_fields__")
    if not isinstance(fields, dict):
        return None
    # ClassVar and InitVar are in the table too; `dataclasses.fields` goes by this mark.
    return [
        name
        for name, field in fields.items()
        if getattr(getattr(field, "_field_type", None), "name", "") == "_FIELD"
    ]


def hidden(kind: type) -> type | None:
    """Return the base that is not written in Python, if there is one.

    It holds more than its attributes show.
    """
    for base in kind.__mro__[:-1]:
        if not base.__flags__ & _HEAP_TYPE or type(vars(base).get("__new__")) is type(len):
            return base
    return None


def attribute_names(value: Any) -> list[str]:
    """Return the names of the value's own attributes, in its `__dict__` and in its slots."""
    slots = [
        slot
        for base in type(value).__mro__
        for slot, descriptor in vars(base).items()
        if type(descriptor) is MemberDescriptorType
    ]
    return [*getattr(value, "__dict__", ()), *[slot for slot in slots if hasattr(value, slot)]]


def _encode_dataclass(value: Any, out: Out) -> object:
    kind = type(value)
    names, present = field_names(kind) or [], attribute_names(value)
    extra = [name for name in present if name not in names]
    if extra:
        raise refusal(value, f"it holds {extra[0]!r} too, which is not a field")
    base = hidden(kind)
    if base is not None:
        raise refusal(value, f"it is a {base.__qualname__}, which holds more than its fields")
    own = getattr(value, "__dict__", {})
    try:
        values = [own[name] if name in own else getattr(value, name) for name in names]
        for name in names:
            default = kind.__dataclass_fields__[name].default  # which may stand on the class alone
            if name not in present and getattr(value, name) is not default:
                raise refusal(value, f"its field {name!r} is not a plain attribute")
    except AttributeError as error:
        raise refusal(value, str(error)) from None
    return out.mark(DATACLASS, *_path_of(kind), names, out.items(values))


def _encode_namedtuple(value: Any, out: Out) -> object:
    kind = type(value)
    if getattr(value, "__dict__", None) or len(kind._fields) != len(value):
        raise refusal(value, "it holds more than its fields")
    return out.mark(NAMEDTUPLE, *_path_of(kind), list(kind._fields), out.items(list(value)))


def _encode_enum(value: Any, out: Out) -> object:
    kind = type(value)
    if vars(kind).get("_member_map_", {}).get(value._name_) is not value:
        raise refusal(value, "it is not one of its enum's named members")
    return out.mark(ENUM, *_path_of(kind), value._name_)


def find_encoder(value: Any) -> Encoder | None:
    """Return the encoder of an enum's member, a dataclass or a namedtuple; None for any other."""
    kind = type(value)
    enum = sys.modules.get("enum")
    if enum is not None and isinstance(value, enum.Enum):
        return _encode_enum
    if field_names(kind) is not None and kind.__flags__ & _HEAP_TYPE:
        return _encode_dataclass
    if isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return _encode_namedtuple
    return None


# Decoding


def _decode_dataclass(
    _: In, module: str, qualname: str, names: list[str], values: list[Any]
) -> Any:
    kind = find(module, qualname)
    if kind is None or field_names(kind) != names or len(values) != len(names):
        raise ValueError(
            f"the dataclass {module}.{qualname} is not imported, or its fields have changed"
        )
    value = object.__new__(kind)
    own = getattr(value, "__dict__", None)
    for name, item in zip(names, values, strict=True):
        slot = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
        if type(slot) is MemberDescriptorType:
            slot.__set__(value, item)
        elif own is not None:
            own[name] = item
        else:
            raise ValueError(f"the dataclass {module}.{qualname} has no place for {name!r}")
    return value


def _decode_namedtuple(
    _: In, module: str, qualname: str, names: list[str], values: list[Any]
) -> Any:
    kind = find(module, qualname)
    if (
        kind is None
        or not issubclass(kind, tuple)
        or list(kind._fields) != names
        or len(values) != len(names)
    ):
        raise ValueError(
            f"the namedtuple {module}.{qualname} is not imported, or its fields have changed"
        )
    return tuple.__new__(kind, values)


def _decode_enum(_: In, module: str, qualname: str, name: str) -> Any:
    member = vars(find(module, qualname) or object).get("_member_map_", {}).get(name)
    if member is None:
        raise ValueError(f"the enum {module}.{qualname} is not imported, or has no {name!r}")
    return member


DECODERS: dict[int, Callable[..., Any]] = {
    DATACLASS: _decode_dataclass,
    NAMEDTUPLE: _decode_namedtuple,
    ENUM: _decode_enum,
}
