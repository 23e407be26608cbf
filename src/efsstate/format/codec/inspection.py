"""Look at classes and their instances without running any code of theirs.

A metaclass, `__getattr__`, a property or a mock's `__class__` is code. So attributes are taken from
the namespaces and slots themselves, by the descriptors of `type` and `object`.
"""

from __future__ import annotations

import sys
from functools import cached_property
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement
_HASHING = ("__hash__", "__eq__")
# Methods that a reading of attributes, or the building of an instance, could run.
_RUN_BY_ACCESS = ("__getattribute__", "__getattr__", "__setattr__", "__delattr__")

_namespace = type.__dict__["__dict__"].__get__
_bases = type.__dict__["__mro__"].__get__
_flags = type.__dict__["__flags__"].__get__
_contents: Any = vars(ModuleType)["__dict__"].__get__


def namespace(kind: type) -> Mapping[str, Any]:
    """Return the class's own attributes."""
    own: Mapping[str, Any] = _namespace(kind)
    return own


def bases(kind: type) -> tuple[type, ...]:
    """Return the class and its bases, in the order in which attributes are looked up."""
    order: tuple[type, ...] = _bases(kind)
    return order


def is_written(kind: type) -> bool:
    """Return True if a class statement made it: it is not a built-in or an extension's."""
    return bool(_flags(kind) & _HEAP_TYPE)


def definer(kind: type, name: str) -> type | None:
    """Return the class, among `bases`, that defines the attribute `name`."""
    for base in bases(kind):
        if name in namespace(base):
            return base
    return None


def look_up(kind: type, name: str) -> Any:
    """Return the attribute `name` of the class as it was assigned, or None."""
    base = definer(kind, name)
    return None if base is None else namespace(base)[name]


def find(module: str, qualname: str) -> Any:
    """Return the class if it is imported already; import nothing, run no attribute hook."""
    # MUT: nothing-that-is-named-is-imported
    place: Any = sys.modules.get(module)
    for part in qualname.split("."):
        if issubclass(type(place), ModuleType):
            place = _contents(place).get(part)
        elif issubclass(type(place), type):
            place = namespace(place).get(part)
        else:
            return None
    return place if issubclass(type(place), type) else None


def hidden(kind: type) -> type | None:
    """Return the base that is not written in Python, if there is one.

    It holds more than its attributes show.
    """
    for base in bases(kind)[:-1]:
        if not is_written(base) or type(namespace(base).get("__new__")) is type(len):
            return base
    return None


def own_dict(value: Any) -> dict[str, Any]:
    """Return the `__dict__` of `value`, empty if it has none."""
    for base in bases(type(value)):
        descriptor: Any = namespace(base).get("__dict__")
        # pydantic declares it as a slot
        if type(descriptor) in (GetSetDescriptorType, MemberDescriptorType):
            attributes: dict[str, Any] = descriptor.__get__(value)
            return attributes
    return {}


def slots(value: Any) -> dict[str, Any]:
    """Return the contents of the slots of `value` that are set, by name."""
    contents = {}
    for base in bases(type(value)):
        for name, descriptor in namespace(base).items():
            if type(descriptor) is MemberDescriptorType and name != "__dict__":
                try:
                    contents[name] = descriptor.__get__(value)
                except AttributeError:
                    pass  # not set
    return contents


def attribute_names(value: Any) -> list[str]:
    """Return the names of the value's own attributes, in its `__dict__` and in its slots."""
    return [*own_dict(value), *slots(value)]


def is_derived(kind: type, name: str) -> bool:
    """Return True if using a value sets the attribute: a cached property, or typing's own."""
    if name in ("__orig_class__", "_attrs_cached_hash"):
        return True
    return issubclass(type(look_up(kind, name)), cached_property)


def has_finalizer(kind: type) -> bool:
    """Return True if code of the class runs when an instance goes."""
    return definer(kind, "__del__") is not None


def hashes_by_its_own_code(kind: type) -> bool:
    """Return True if putting an instance into a set, or a dict's keys, may run code of the class.

    The methods that `dataclass` and `attrs` generate only pass the question on to the fields.
    """
    if not is_written(kind):
        return False
    for name in _RUN_BY_ACCESS[:2]:
        base = definer(kind, name)
        if base is not None and is_written(base) and namespace(base)["__module__"] != "enum":
            return True
    return not all(_is_known_method(kind, name) for name in _HASHING)


def _is_known_method(kind: type, name: str) -> bool:
    base = definer(kind, name)
    if base is None or not is_written(base) or namespace(base).get("__module__") == "enum":
        return True
    method = namespace(base)[name]
    if method is None:
        return True  # it is not hashable at all
    if type(method) is not FunctionType:
        return False
    made_by = method.__code__.co_filename
    names = namespace(base)
    is_dataclass = "__dataclass_params__" in names and made_by == "<string>"
    return is_dataclass or ("__attrs_attrs__" in names and made_by.startswith("<attrs generated"))
