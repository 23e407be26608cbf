"""The variables that a function captures: with other values, its results go into another cache.

A variable counts in the cache's name, as it is when the function is decorated, and in the keys if
it is bound to another object since. Plain values count by value, functions by their code, name and
attributes, classes and modules by name. Other objects are refused: two functions of one `def` that
capture two of them would share results. The attributes of an instance that decorates a function are
captured variables, too.
"""

from __future__ import annotations

import sys
from functools import partial
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
)

from efsstate.cache import naming
from efsstate.cache.key_encoding import BUILT_IN, UnstableError, encode, new_hash
from efsstate.cache.signature import bound_to
from efsstate.callables import code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    Names = frozenset[str]

_MARK = 24  # hex digits
_MAX_DEPTH = 50  # functions that capture each other
_NOT_SET = object()
_ELLIPSIS = range(0)  # a value that can be in a set, and is no constant
_HAS_DOCSTRING = 0x4000000  # a flag of code objects, since Python 3.14
# The operations that load a constant: `opcode` knows them, and costs a cold start a millisecond.
_LOADS = {(3, 11): b"\x64", (3, 12): b"\x64\x79", (3, 13): b"\x53\x67"}
_TYPE_PARAMETERS = frozenset(("TypeVar", "ParamSpec", "TypeVarTuple"))
# Attributes that `functools.update_wrapper` sets.
_WRAPPERS_OWN = frozenset(
    f"__{name}__"
    for name in (
        "module", "name", "qualname", "doc", "dict", "wrapped", "annotations", "type_params",
        "weakref",
    )
)  # fmt: skip
_C_FUNCTIONS = frozenset(("wrapper_descriptor", "method_descriptor", "classmethod_descriptor"))


class Captured:
    """The captured variables of one function, and of the functions that it wraps under its name."""

    def __init__(self, function: Any, ignore: frozenset[str]) -> None:
        variables = list(_variables(function))
        self._wraps_cached = _wraps_cached(function)
        self.names = frozenset([name for name, _, _ in variables])
        self._function = function
        counted = [item for item in variables if item[0] not in ignore]
        self._classes = [cell for name, cell, _ in counted if name == "__class__"]
        self._variables = [item for item in counted if item[0] != "__class__"]
        self._first = [_content(cell) for _, cell, _ in self._variables]
        # Each cell with the object to which it was bound at the last `follow`.
        self.bound = [*zip((cell for _, cell, _ in self._variables), self._first, strict=True)]
        self._own: dict[
            str, object
        ] = {}  # attributes of the function itself, as they were at the first key

    def mark(self, cache: str) -> str:
        """Return the text that tells a cache from others of its name; "" if nothing is captured.

        Raises `TypeError` for a variable that can't count, and if the function wraps a cached one
        of its name: they would share results. `cache` is the name for the message.
        """
        if self._wraps_cached:
            raise TypeError(
                f"{cache}: it is, or wraps, a function that is cached under this name already; pass"
                " a name= of its own"
            )
        was_set = zip(self._variables, self._first, strict=True)
        pieces = b"".join(
            [
                self._encode(name, value, value is wrapped, cache)
                for (name, _, wrapped), value in was_set
                if value is not _NOT_SET
            ]
        )
        return f"[{new_hash(pieces).hexdigest()[:_MARK]}]" if pieces else ""

    def encode_late(self, cache: str) -> bytes:
        """Return the bytes that variables bound after the decoration add to each key."""
        pieces: list[bytes] = []
        for (name, cell, _), first in zip(self._variables, self._first, strict=True):
            now = _content(cell)
            is_own = _is_cached(now) and now.__wrapped__ is self._function
            if is_own or (now is not first and now is not _NOT_SET):
                pieces.append(self._encode(name, now, is_own, cache))
        for cell in self._classes:  # it is set when the class is made, after the decoration
            if _is_set(cell):
                # MUT: the-class-of-a-method-is-no-local-one
                self._encode("__class__", cell.cell_contents, False, cache)
        return b"".join(pieces)

    def has_moved(self) -> bool:
        """Return True if a variable is bound to another object than at the last `follow`."""
        for cell, last in self.bound:
            try:
                if cell.cell_contents is not last:
                    return True
            except ValueError:
                if last is not _NOT_SET:
                    return True
        return False

    def follow(self) -> None:
        """Remember the objects to which the variables are bound now."""
        self.bound[:] = [(cell, _content(cell)) for cell, _ in self.bound]

    def has_wrapped(self) -> bool:
        """Return True if a variable is bound to the function that it wraps under its name."""
        return any(wrapped is not _NOT_SET for _, _, wrapped in self._variables)

    def __bool__(self) -> bool:
        return bool(self._variables)

    def _encode(self, name: str, value: Any, is_named: bool, cache: str) -> bytes:
        """Return the bytes of a variable for a key.

        `is_named`: it is bound to a function that the name of the cache identifies, so only the
        attributes of that function count.
        """
        pieces: list[bytes] = []
        codes = map(code_of, _chain(self._function))
        used = frozenset(text for code in codes for text in _names_in(code))
        try:
            if not is_named:
                description = _describe(value, (), used)
            elif _is_cached(value) and name in self._own:
                description = self._own[name]
            else:
                # MUT: attributes-of-functions-count
                description = _attributes(value, (), used)
                if _is_cached(value):
                    self._own[name] = description
            if not is_named or description:
                # MUT: captured-variables-count
                encode((name, description), pieces.append)
        except UnstableError as error:
            value, why, _ = error.args
            raise TypeError(
                f"{cache}: the captured variable {name!r}: {value} can't be part of a key:"
                f" {why}; pass it as a parameter, give each such function a name= of its own,"
                f" or leave it out with ignore={name!r} if no result depends on it"
            ) from None
        return b"".join(pieces)


def _chain(function: Any) -> Iterator[Any]:
    """Yield `function`, and the functions that it wraps under its name."""
    function = getattr(function, "__func__", function)
    for _ in range(_MAX_DEPTH):
        yield function
        wrapped = getattr(function, "__wrapped__", None)
        if not _has_name_of(function, wrapped):
            return
        function = wrapped


def _variables(function: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield each captured variable of `function` and of the functions that it wraps.

    Each is a name, a cell, and the wrapped function if the cell holds that one (the name of the
    cache identifies it), else `_NOT_SET`.
    """
    chain = list(_chain(function))
    for outer, wrapped in zip(chain, (*chain[1:], None), strict=True):
        # MUT: attributes-of-a-decorator-count
        yield from ((name, cell, _NOT_SET) for name, cell in _state_of(outer, wrapped))
        code = getattr(outer, "__code__", None)
        if isinstance(code, CodeType):
            for name, cell in zip(code.co_freevars, outer.__closure__ or (), strict=True):
                is_wrapped = wrapped is not None and _content(cell) is wrapped
                yield name, cell, wrapped if is_wrapped else _NOT_SET


def _wraps_cached(function: Any) -> bool:
    """Return True if `function`, or one that it wraps under its name, is a cached function."""
    method_of = getattr(function, "__func__", None)
    return any(_is_cached(inner) for inner in _chain(function) if inner is not method_of)


def _has_name_of(function: Any, wrapped: Any) -> bool:
    names = ("__module__", "__qualname__")
    return wrapped is not None and all(
        getattr(function, name, None) == getattr(wrapped, name, None) for name in names
    )


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _NOT_SET


def _is_set(cell: Any) -> bool:
    return _content(cell) is not _NOT_SET


def _state_of(function: Any, wrapped: object) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object that is called in place of a function, as variables.

    A decorator that is a class keeps its options there, and one of wrapt its function.
    """
    kind = type(function)
    if issubclass(kind, (FunctionType, type)):  # not `isinstance`: see `_describe`
        return
    if not isinstance(getattr(kind, "__call__", None), FunctionType):  # noqa: B004 - the method
        wrapper = getattr(function, "_self_wrapper", None)
        if wrapper is not None:
            yield "_self_wrapper", CellType(wrapper)
        return
    names = {
        *getattr(function, "__dict__", ()),
        *(n for base in kind.__mro__ for n in _slots(base)),
    }
    copied = getattr(wrapped, "__dict__", {})
    for name in sorted(names - _WRAPPERS_OWN):
        value = getattr(function, name, _NOT_SET)
        # The name of the cache tells the function inside.
        if value is not wrapped and value is not copied.get(name, _NOT_SET):
            yield name, CellType(value)
    base = next((base for base in kind.__mro__ if base in BUILT_IN), None)
    if base is not None:
        # MUT: items-of-a-decorators-dict-count
        yield base.__name__, CellType(base(function))


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _describe(value: Any, outer: tuple[int, ...], used: Names) -> object:
    """Return a value that keys can encode and that stands for `value`."""
    if id(value) in outer or len(outer) > _MAX_DEPTH:
        return "recursion", len(outer)
    outer = (*outer, id(value))
    # Not `isinstance`: it asks a proxy for its class, for which a lazy proxy loads its object.
    kind = type(value)
    if _is_cached(value) or kind.__name__ == "_lru_cache_wrapper":
        return _with_attributes(_describe(value.__wrapped__, outer, used), value, outer, used)
    if issubclass(kind, FunctionType):
        return _describe_function(value, outer, used)
    if issubclass(kind, MethodType):
        owner = _describe(value.__self__, outer, used)
        return "method", _describe(value.__func__, outer, used), owner
    if issubclass(kind, BuiltinFunctionType):
        owner = bound_to(value)
        place = value.__module__ if owner is None else _describe(owner, outer, used)
        return "built-in", place, value.__qualname__
    if kind.__name__ in _C_FUNCTIONS:
        return "built-in", value.__objclass__, value.__qualname__
    if issubclass(kind, ModuleType):
        return "module", value.__name__
    if kind is partial:
        fixed = [_describe(item, outer, used) for item in value.args]
        named = {name: _describe(item, outer, used) for name, item in value.keywords.items()}
        parts = "partial", _describe(value.func, outer, used), fixed, named
        return _with_attributes(parts, value, outer, used)
    if kind.__module__ == "typing" and kind.__name__ in _TYPE_PARAMETERS:
        return "type parameter", value.__name__
    return ("tuple", value) if kind is tuple else value  # no other description is as a value


def _with_attributes(description: object, value: Any, outer: tuple[int, ...], used: Names) -> Any:
    attributes = _attributes(value, outer, used)
    return ("attributes", description, attributes) if attributes else description


def _attributes(function: Any, outer: tuple[int, ...], used: Names) -> dict[str, object]:
    """Return the attributes of a function that count, each with its description.

    Frameworks set attributes, too. An attribute that can't be described is refused only if the code
    of the function uses its name.
    """
    counted: dict[str, object] = {}
    if isinstance(getattr(type(function), "__call__", None), FunctionType):  # noqa: B004
        return counted  # of an object: see `_state_of`
    ignored: list[bytes] = []
    copied: Mapping[str, Any] = {}
    if _is_cached(function):
        inner = function.__wrapped__
        copied = {**getattr(inner, "__dict__", {}), "__wrapped__": inner}
    for name, value in getattr(function, "__dict__", {}).items():
        is_special = name.startswith("__") and name not in used
        if is_special or _is_of_cached(value) or value is copied.get(name, _NOT_SET):
            continue
        try:
            description = _describe(value, outer, used)
            encode(description, ignored.append)
        except UnstableError:
            if name in used:
                raise
        else:
            counted[name] = description
    return counted


def _is_of_cached(value: Any) -> bool:
    """Return True if `cached` has made the attribute `value`."""
    owner = getattr(value, "__self__", None) if type(value) is MethodType else value
    return type(owner).__module__ == "efsstate.cache.attributes"


def _is_cached(value: Any) -> bool:
    """Return True if `value` is a function that `cached` made.

    A wrapper around one that was made with `functools.wraps` has copies of its attributes.
    """
    if type(value) is not FunctionType or not hasattr(value, "__wrapped__"):
        return False
    attributes = getattr(vars(value).get("cache_key"), "__self__", None)
    # MUT: a-wrapper-of-a-cached-function-counts
    return getattr(attributes, "function", None) is value.__wrapped__


def _describe_function(function: Any, outer: tuple[int, ...], used: Names) -> object:
    used = used.union(_names_in(function.__code__))
    defaults = [_describe(value, outer, used) for value in function.__defaults__ or ()]
    fixed = (function.__kwdefaults__ or {}).items()
    named = {name: _describe(value, outer, used) for name, value in fixed}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    captured = [(n, _describe(c.cell_contents, outer, used)) for n, c in cells if _is_set(c)]
    place = f"{naming.module_of(function)}:{function.__qualname__}"
    parts = "function", place, describe_code(function.__code__), defaults, named, captured
    return _with_attributes(parts, function, outer, used)


def _names_in(code: Any) -> Iterator[str]:
    """Yield each text that code, or code in it, may use as the name of an attribute."""
    if isinstance(code, CodeType):
        yield from code.co_names
        for constant in code.co_consts:
            if type(constant) is str:
                yield constant
            yield from _names_in(constant)


def describe_code(code: Any, *, docstring: bool = True) -> object:
    """Return the parts of compiled code that differ whenever its behaviour in this Python does.

    Leave the function's docstring out if `docstring` is False, and nothing else uses its text.
    """
    constants = code.co_consts
    if _has_no_docstring(constants) or (not docstring and _has_unused_docstring(code)):
        constants = constants[1:]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    described = [*map(_describe_constant, constants)]
    parts = code.co_code, code.co_exceptiontable, code.co_flags, described, names
    return (*parts, counts) if any(counts[1:]) else parts  # without, as earlier releases had it


def _has_no_docstring(constants: tuple[Any, ...]) -> bool:
    """Return True if the first constant says that there is no docstring, as before Python 3.14."""
    return sys.version_info < (3, 14) and constants[:1] == (None,)


def _has_unused_docstring(code: Any) -> bool:
    """Return True if the first constant is a docstring, and no instruction loads it."""
    if sys.version_info >= (3, 14) and not code.co_flags & _HAS_DOCSTRING:
        return False
    loads: Any = _LOADS.get(sys.version_info[:2])
    if loads is None:
        from opcode import hasconst as loads
    steps = zip(code.co_code[::2], code.co_code[1::2], strict=True)
    return not any(operation in loads and argument == 0 for operation, argument in steps)


def _describe_constant(constant: Any) -> object:
    if isinstance(constant, CodeType):
        return describe_code(constant)
    if isinstance(constant, (tuple, frozenset)):
        return type(constant)(map(_describe_constant, constant))
    if isinstance(constant, slice):  # a constant since Python 3.14
        parts = (constant.start, constant.stop, constant.step)
        return [*map(_describe_constant, parts)]
    # MUT: an-ellipsis-is-no-text
    return _ELLIPSIS if constant is ... else constant
