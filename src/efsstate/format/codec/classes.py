"""Values of the user's classes, to what the codec keeps and back, without running any code of theirs."""

from __future__ import annotations

import sys
from types import MemberDescriptorType

from efsstate.errors import EncodeError
from efsstate.format.codec import DATACLASS, ENUM, NAMEDTUPLE, encode_items, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec import Encoder, In, Out

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement

# Encoding


def _named(kind: Any) -> tuple[str, str]:
    """Where the class is; `EncodeError` if it is not found there again."""
    if find(kind.__module__, kind.__qualname__) is not kind:
        raise EncodeError(
            f"a {kind.__module__}.{kind.__qualname__} can't be stored as msgpack: the class is not to be found under that"
            " name (is it made inside a function?); move it to the top of its module"
        )
    return kind.__module__, kind.__qualname__


def find(module: str, qualname: str) -> Any:
    """The class, if it is imported already: nothing is imported and no attribute hook runs."""
    from types import ModuleType

    # MUT: nothing-that-is-named-is-imported
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if not isinstance(found, (type, ModuleType)):
            return None
        found = vars(found).get(part)
    return found if isinstance(found, type) else None


def field_names(kind: Any) -> list[str] | None:
    """The fields of a dataclass whose instances hold nothing else, else None."""
    fields = vars(kind).get("__dataclass_fields__")
    if not isinstance(fields, dict):
        return None
    # ClassVar and InitVar are in the table too; the mark is what `dataclasses.fields` goes by.
    return [
        name for name, field in fields.items() if getattr(field._field_type, "name", "") == "_FIELD"
    ]


def hidden(kind: type) -> type | None:
    """The base that is not written in Python, and so holds what no attribute tells; None if there is none."""
    for base in kind.__mro__[:-1]:
        if not base.__flags__ & _HEAP_TYPE or type(vars(base).get("__new__")) is type(len):
            return base
    return None


def held(value: Any) -> list[str]:
    """The names of what the value holds, in its `__dict__` and in its slots."""
    slots = [
        slot
        for base in type(value).__mro__
        for slot, what in vars(base).items()
        if type(what) is MemberDescriptorType
    ]
    return [*getattr(value, "__dict__", ()), *[slot for slot in slots if hasattr(value, slot)]]


def _dataclass(value: Any, out: Out) -> object:
    kind = type(value)
    names, present = field_names(kind) or [], held(value)
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
    return out.mark(DATACLASS, *_named(kind), names, encode_items(values, out))


def _namedtuple(value: Any, out: Out) -> object:
    kind = type(value)
    if getattr(value, "__dict__", None) or len(kind._fields) != len(value):
        raise refusal(value, "it holds more than its fields")
    return out.mark(NAMEDTUPLE, *_named(kind), list(kind._fields), encode_items(list(value), out))


def _enum(value: Any, out: Out) -> object:
    kind = type(value)
    if vars(kind).get("_member_map_", {}).get(value._name_) is not value:
        raise refusal(value, "it is not one of its enum's named members")
    return out.mark(ENUM, *_named(kind), value._name_)


def encoder(value: Any, kind: type) -> tuple[Encoder | None, bool]:
    """The encoder of an enum's member, a dataclass or a namedtuple; not one for all, for a class can change."""
    enum = sys.modules.get("enum")
    if enum is not None and isinstance(value, enum.Enum):
        return _enum, False
    if field_names(kind) is not None and kind.__flags__ & _HEAP_TYPE:
        return _dataclass, False
    if isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return _namedtuple, False
    return None, False


# Decoding


def _to_dataclass(_: In, module: str, qualname: str, names: list[str], values: list[Any]) -> Any:
    kind = find(module, qualname)
    if kind is None or field_names(kind) != names or len(values) != len(names):
        raise ValueError(
            f"the dataclass {module}.{qualname} is not imported, or its fields have changed"
        )
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


def _to_namedtuple(_: In, module: str, qualname: str, names: list[str], values: list[Any]) -> Any:
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


def _to_enum(_: In, module: str, qualname: str, name: str) -> Any:
    member = vars(find(module, qualname) or object).get("_member_map_", {}).get(name)
    if member is None:
        raise ValueError(f"the enum {module}.{qualname} is not imported, or has no {name!r}")
    return member


CARRIERS: dict[int, Callable[[bytes], Any]] = {}
DECODERS: dict[int, Callable[..., Any]] = {
    DATACLASS: _to_dataclass,
    NAMEDTUPLE: _to_namedtuple,
    ENUM: _to_enum,
}
