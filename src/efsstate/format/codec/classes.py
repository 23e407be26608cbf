"""Encode values of the user's classes, and decode them, without running code of theirs.

Which code could that be? A class with `__del__` is refused: its instances would run it with the
fields that the bytes give. A class with a `__hash__` or `__eq__` of its own is no key and no member
of a set. All else is taken and put by `inspection`, and no method of a class is called.
"""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, MemberDescriptorType, MethodType

from efsstate.errors import EncodeError
from efsstate.format.codec import inspection
from efsstate.format.codec.inspection import look_up, namespace, own_dict
from efsstate.format.codec.wire import DATACLASS, ENUM, NAMEDTUPLE, PYDANTIC, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Encoder, In, Out

_PYDANTIC_SLOTS = (
    "__pydantic_fields_set__",
    "__pydantic_extra__",
    "__pydantic_private__",
)
# Methods that `Flag` calls to make a combined flag: a class with its own would run them.
_FLAG_METHODS = (
    "_missing_", "_iter_member_", "_iter_member_by_value_", "_iter_member_by_def_",
    "_numeric_repr_", "__eq__", "__setattr__", "__getattribute__", "__getattr__",
)  # fmt: skip
_MISSING: Any = object()

# Encoding


def _path_of(value: Any, out: Out) -> tuple[str, str]:
    """Return the module and name of the value's class; `EncodeError` if it can't be rebuilt."""
    kind = type(value)
    own = namespace(kind)
    module, name = own.get("__module__"), type.__dict__["__qualname__"].__get__(kind)
    if not isinstance(module, str) or inspection.find(module, name) is not kind:
        raise EncodeError(
            f"a {module}.{name} can't be stored as msgpack: that name does not lead to the class"
            " (is it made inside a function?); move it to the top of its module"
        )
    if inspection.has_finalizer(kind):
        raise refusal(value, "its class has __del__, whose code would run while it is read")
    if inspection.hashes_by_its_own_code(kind):
        out.own_hashes += 1
    return module, name


def field_names(kind: type) -> list[str] | None:
    """Return the names of a dataclass's or attrs class's fields; None for any other class."""
    fields = namespace(kind).get("__dataclass_fields__")
    if type(fields) is dict:
        # ClassVar and InitVar are in the table too; `dataclasses.fields` goes by this mark.
        marks = {name: getattr(field, "_field_type", None) for name, field in fields.items()}
        return [name for name, mark in marks.items() if getattr(mark, "name", "") == "_FIELD"]
    attributes = namespace(kind).get("__attrs_attrs__")
    if isinstance(attributes, tuple):
        return [attribute.name for attribute in attributes]
    return None


def _encode_dataclass(value: Any, out: Out) -> object:
    kind = type(value)
    names = field_names(kind) or []
    attributes = {**inspection.slots(value), **own_dict(value)}
    attributes.pop("__weakref__", None)
    for name in attributes:
        if name not in names and not inspection.is_derived(kind, name):
            raise refusal(value, f"it holds {name!r} too, which is not a field")
    base = inspection.hidden(kind)
    if base is not None:
        raise refusal(value, f"it is a {base.__qualname__}, which holds more than its fields")
    path = _path_of(value, out)
    values = [
        attributes[name] if name in attributes else _class_default(value, name) for name in names
    ]
    return out.mark(DATACLASS, *path, names, out.items(values))


def _class_default(value: Any, name: str) -> Any:
    """Return a field's default that stands on the class alone, as with `field(init=False)`."""
    kind = type(value)
    field = namespace(kind).get("__dataclass_fields__", {}).get(name)
    default = look_up(kind, name)
    is_default = field is not None and field.default is default
    if not is_default or inspection.definer(type(default), "__get__") is not None:
        raise refusal(value, f"its field {name!r} is not a plain attribute")
    return default


def _encode_pydantic(value: Any, out: Out) -> object:
    slots = inspection.slots(value)
    if inspection.hidden(type(value)) is not None:
        raise refusal(value, "it holds more than its fields")
    attributes = {
        name: item
        for name, item in own_dict(value).items()
        if not inspection.is_derived(type(value), name)
    }
    path = _path_of(value, out)
    others = [slots.get(name) for name in _PYDANTIC_SLOTS]
    return out.mark(PYDANTIC, *path, *out.items([attributes, *others]))


def _encode_namedtuple(value: Any, out: Out) -> object:
    kind = type(value)
    names = list(look_up(kind, "_fields"))
    if own_dict(value) or len(names) != tuple.__len__(value):
        raise refusal(value, "it holds more than its fields")
    return out.mark(
        NAMEDTUPLE, *_path_of(value, out), names, out.items(list(tuple.__iter__(value)))
    )


def _encode_enum(value: Any, out: Out) -> object:
    kind, own = type(value), own_dict(value)
    name, number = own.get("_name_"), own.get("_value_")
    if _member(kind, name) is value:
        return out.mark(ENUM, *_path_of(value, out), name)
    if type(number) is int and _combined_flag(kind, number) is value:
        return out.mark(ENUM, *_path_of(value, out), number)
    raise refusal(value, "it is not one of its enum's members")


def find_encoder(value: Any) -> Encoder | None:
    """Return the encoder for a value of a class of the user's; None for any other value."""
    kind = type(value)
    enum, pydantic = sys.modules.get("enum"), sys.modules.get("pydantic.main")
    if enum is not None and issubclass(kind, enum.Enum):
        return _encode_enum
    if not inspection.is_written(kind):
        return None
    if field_names(kind) is not None:
        return _encode_dataclass
    if pydantic is not None and pydantic.BaseModel in inspection.bases(kind):
        return _encode_pydantic
    if issubclass(kind, tuple) and isinstance(look_up(kind, "_fields"), tuple):
        return _encode_namedtuple
    return None


# Decoding


def _find(into: In, module: str, qualname: str) -> Any:
    """Return the class; `ValueError` if it is missing, or its code could run."""
    kind = inspection.find(module, qualname)
    if kind is None:
        raise ValueError(f"the class {module}.{qualname} is not imported")
    # MUT: no-finalizer-runs-on-what-was-read
    if inspection.has_finalizer(kind):
        raise ValueError(f"the class {module}.{qualname} has __del__, whose code would run")
    if inspection.hashes_by_its_own_code(kind):
        into.note_own_hash()
    return kind


def _put(value: Any, name: str, item: Any) -> None:
    """Set an attribute in the place where its class keeps it, without running code of the class."""
    descriptor = look_up(type(value), name)
    if type(descriptor) is MemberDescriptorType:
        descriptor.__set__(value, item)
        return
    if inspection.definer(type(descriptor), "__set__") is not None:
        raise ValueError(f"its attribute {name!r} is code")
    place = own_dict(value)
    place[name] = item
    if own_dict(value).get(name, _MISSING) is not item:
        raise ValueError(f"it has no place for {name!r}")


def _decode_dataclass(
    into: In, module: str, qualname: str, names: list[str], values: list[Any]
) -> Any:
    kind = _find(into, module, qualname)
    if field_names(kind) != names or len(values) != len(names):
        raise ValueError(f"the class {module}.{qualname}: its fields have changed")
    value = object.__new__(kind)
    for name, item in zip(names, values, strict=True):
        _put(value, name, item)
    return value


def _decode_pydantic(into: In, module: str, qualname: str, attributes: Any, *others: Any) -> Any:
    kind = _find(into, module, qualname)
    pydantic = sys.modules.get("pydantic.main")
    if pydantic is None or pydantic.BaseModel not in inspection.bases(kind):
        raise ValueError(f"{module}.{qualname} is no pydantic model any more")
    fields = look_up(kind, "__pydantic_fields__")
    if type(fields) is not dict or fields.keys() != attributes.keys():
        raise ValueError(f"the class {module}.{qualname}: its fields have changed")
    value = object.__new__(kind)
    look_up(kind, "__dict__").__set__(value, dict(attributes))
    for name, item in zip(_PYDANTIC_SLOTS, others, strict=True):
        _put(value, name, item)
    return value


def _decode_namedtuple(
    into: In, module: str, qualname: str, names: list[str], values: list[Any]
) -> Any:
    kind = _find(into, module, qualname)
    fields = look_up(kind, "_fields")
    if (
        not issubclass(kind, tuple)
        or type(fields) is not tuple
        or list(fields) != names
        or len(values) != len(names)
    ):
        raise ValueError(f"the class {module}.{qualname}: its fields have changed")
    return tuple.__new__(kind, values)


def _decode_enum(into: In, module: str, qualname: str, name: Any) -> Any:
    kind = _find(into, module, qualname)
    member = _combined_flag(kind, name) if type(name) is int else _member(kind, name)
    if member is None:
        raise ValueError(f"the enum {module}.{qualname} has no {name!r}")
    return member


def _member(kind: type, name: Any) -> Any:
    """Return the member that the class statement made, or None.

    `_missing_` may put others into the class's tables, which another process does not have.
    """
    own = namespace(kind)
    # MUT: a-member-is-one-in-every-process
    return own.get("_member_map_", {}).get(name) if name in own else None


def _combined_flag(kind: type, number: int) -> Any:
    """Return the combination of a flag's members that has the value `number`.

    Return None if code of the class could run, or if `number` has a bit that no member has. This
    process may have met such a value before, and then it is in the class's table; another process
    could not make it.
    """
    import enum

    if not issubclass(kind, enum.Flag) or type(kind) is not enum.EnumMeta:
        return None
    own = namespace(kind)
    # MUT: a-flag-has-its-members-bits-alone
    if number & ~own.get("_flag_mask_", 0) or own.get("_member_type_") not in (object, int):
        return None
    by_definition = enum.Flag.__dict__["_iter_member_by_def_"].__func__
    for name in _FLAG_METHODS:
        base = inspection.definer(kind, name)
        if base is None or not inspection.is_written(base):
            continue
        # If the values of a flag's members do not ascend, Python sets `_iter_member_` itself.
        method = namespace(base)[name]
        is_pythons = type(method) is MethodType and method.__func__ is by_definition
        is_pythons = is_pythons or type(method) is BuiltinFunctionType  # re.RegexFlag has `hex`
        if namespace(base).get("__module__") != "enum" and not is_pythons:
            return None
    known = own.get("_value2member_map_", {}).get(number)
    return enum.Flag.__dict__["_missing_"].__func__(kind, number) if known is None else known


DECODERS: dict[int, Callable[..., Any]] = {
    DATACLASS: _decode_dataclass,
    NAMEDTUPLE: _decode_namedtuple,
    ENUM: _decode_enum,
    PYDANTIC: _decode_pydantic,
}
