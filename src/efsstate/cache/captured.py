"""The variables that a function captures: with other ones it is another cache.

They count as they are when the function is decorated, in the cache's name, and in the keys if they
are bound to another object since. Plain values count by value, functions by their code and name,
classes and modules by name. Other objects are refused: two functions of one `def` that capture two
of them would share results. The attributes of an instance that decorates a function are captured
variables, too.
"""

from __future__ import annotations

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
from efsstate.cache.key_encoding import UnstableError, encode, new_hash
from efsstate.cache.signature import bound_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_MARK = 24  # hex digits
_MAX_DEPTH = 50  # functions that capture each other
_NOT_SET = object()
# Attributes that `functools.update_wrapper` sets.
_WRAPPERS_OWN = frozenset(
    f"__{name}__"
    for name in (
        "module", "name", "qualname", "doc", "dict", "wrapped", "annotations", "type_params",
        "weakref",
    )
)  # fmt: skip
_BUILT_IN = frozenset(("wrapper_descriptor", "method_descriptor", "classmethod_descriptor"))


class Captured:
    """The captured variables of one function, and of the functions that it wraps under its name."""

    def __init__(self, function: Any, ignore: frozenset[str]) -> None:
        variables = list(_variables(function))
        self._wraps_cached = _wraps_cached(function)
        self.names = frozenset([name for name, _ in variables])
        self._function = function
        self._variables = [item for item in variables if item[0] not in ignore]
        self._first = [_content(cell) for _, cell in self._variables]
        self._last = list(self._first)

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
        pieces = self._encode([item for item, value in was_set if value is not _NOT_SET], cache)
        return f"[{new_hash(pieces).hexdigest()[:_MARK]}]" if pieces else ""

    def encode_late(self, cache: str) -> bytes:
        """Return the bytes that variables bound after the decoration add to each key."""
        late = [
            (name, cell)
            for (name, cell), first in zip(self._variables, self._first, strict=True)
            if not _is_same(_content(cell), first) and not self._is_itself(cell)
        ]
        return self._encode(late, cache)

    def has_moved(self) -> bool:
        """Return True if a variable is bound to another object than at the last `follow`."""
        for (_, cell), last in zip(self._variables, self._last):  # noqa: B905 - as long
            try:
                if cell.cell_contents is not last:
                    return True
            except ValueError:
                if last is not _NOT_SET:
                    return True
        return False

    def follow(self) -> None:
        """Remember the objects to which the variables are bound now."""
        self._last = [_content(cell) for _, cell in self._variables]

    def __bool__(self) -> bool:
        return bool(self._variables)

    def _is_itself(self, cell: Any) -> bool:
        value: Any = _content(cell)
        return _is_cached(value) and value.__wrapped__ is self._function

    def _encode(self, variables: list[tuple[str, Any]], cache: str) -> bytes:
        pieces: list[bytes] = []
        for name, cell in variables:
            try:
                # MUT: captured-variables-count
                encode((name, _describe(cell.cell_contents, ())), pieces.append)
            except UnstableError as error:
                value, why, _ = error.args
                raise TypeError(
                    f"{cache}: the captured variable {name!r}: {value} can't be part of a key:"
                    f" {why}; pass it as a parameter, give each such function a name= of its own,"
                    f" or leave it out with ignore={name!r} if no result depends on it"
                ) from None
        return b"".join(pieces)


def _variables(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield each captured variable with its cell, of `function` and of those that it wraps."""
    function = getattr(function, "__func__", function)
    for _ in range(_MAX_DEPTH):
        wrapped = getattr(function, "__wrapped__", None)
        if not _has_name_of(function, wrapped):
            wrapped = None
        # MUT: what-a-decorators-object-keeps-counts
        yield from _state_of(function, wrapped)
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
            for name, cell in cells:
                # The name of the cache tells the function inside, and the class of a method.
                if name != "__class__" and not (
                    wrapped is not None and _is_set(cell) and cell.cell_contents is wrapped
                ):
                    yield name, cell
        if wrapped is None:
            return
        function = wrapped


def _wraps_cached(function: Any) -> bool:
    """Return True if `function`, or one that it wraps under its name, is a cached function."""
    for _ in range(_MAX_DEPTH):
        if _is_cached(function):
            return True
        wrapped = getattr(function, "__wrapped__", None)
        if not _has_name_of(function, wrapped):
            return False
        function = wrapped
    return False


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


def _is_same(now: object, first: object) -> bool:
    return now is first or now is _NOT_SET


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


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _describe(value: Any, outer: tuple[int, ...]) -> object:
    """Return a value that keys can encode and that stands for `value`."""
    if id(value) in outer or len(outer) > _MAX_DEPTH:
        return "recursion", len(outer)
    outer = (*outer, id(value))
    # Not `isinstance`: it asks a proxy for its class, for which a lazy proxy loads its object.
    kind = type(value)
    if _is_cached(value):
        return _describe(value.__wrapped__, outer)
    if issubclass(kind, FunctionType):
        return _describe_function(value, outer)
    if issubclass(kind, MethodType):
        return "method", _describe(value.__func__, outer), _describe(value.__self__, outer)
    if issubclass(kind, BuiltinFunctionType):
        owner = bound_to(value)
        place = value.__module__ if owner is None else _describe(owner, outer)
        return "built-in", place, value.__qualname__
    if kind.__name__ in _BUILT_IN:
        return "built-in", value.__objclass__, value.__qualname__
    if issubclass(kind, ModuleType):
        return "module", value.__name__
    if issubclass(kind, partial):
        fixed = [_describe(item, outer) for item in value.args]
        named = {name: _describe(item, outer) for name, item in value.keywords.items()}
        return "partial", _describe(value.func, outer), fixed, named
    if kind.__name__ == "_lru_cache_wrapper":
        return _describe(value.__wrapped__, outer)
    return value


def _is_cached(value: Any) -> bool:
    """Return True if `value` is a function that `cached` made.

    A wrapper around one that was made with `functools.wraps` has copies of its attributes.
    """
    if type(value) is not FunctionType or not hasattr(value, "__wrapped__"):
        return False
    attributes = getattr(vars(value).get("cache_key"), "__self__", None)
    # MUT: a-wrapper-of-a-cached-function-counts
    return getattr(attributes, "function", None) is value.__wrapped__


def _describe_function(function: Any, outer: tuple[int, ...]) -> object:
    defaults = [_describe(value, outer) for value in function.__defaults__ or ()]
    named = {name: _describe(v, outer) for name, v in (function.__kwdefaults__ or {}).items()}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    captured = [(n, _describe(c.cell_contents, outer)) for n, c in cells if _is_set(c)]
    place = f"{naming.module_of(function)}:{function.__qualname__}"
    return "function", place, describe_code(function.__code__), defaults, named, captured


def describe_code(code: Any, docstring: str | None = None) -> object:
    """Return the parts of compiled code that differ whenever its behaviour in this Python does."""
    constants = [_describe_constant(item) for item in code.co_consts if item is not docstring]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return code.co_code, code.co_exceptiontable, code.co_flags, constants, names


def _describe_constant(constant: Any) -> object:
    if isinstance(constant, CodeType):
        return describe_code(constant)
    if isinstance(constant, (tuple, frozenset)):
        return type(constant)(map(_describe_constant, constant))
    return "..." if constant is ... else constant
