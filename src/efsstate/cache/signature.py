"""Bring the arguments of a call into one form: positional, keyword and default forms are one call.

Only certain knowledge is used: the code that runs, and of a wrapper that takes `*args, **kwargs`
whether its code hands them on unchanged. Any other callable's arguments are taken as they are.
"""

from __future__ import annotations

import functools
from functools import partial
from types import CodeType, FunctionType, ModuleType

from efsstate.callables import code_of, is_coroutine_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Bound = Iterable[tuple[bytes, Any]]


# Flags of code objects, as in `inspect`, which costs 5 ms.
_VARARGS, _VARKEYWORDS, _GENERATORS = 0x04, 0x08, 0x220
_MAX_WRAPPED = 100  # wrappers inside each other: some objects have a `__wrapped__` without end
_PLACEHOLDER = id(getattr(functools, "Placeholder", None))  # of a partial, since Python 3.14


class Parameters:
    """The parameters of code, or of a callable whose arguments are taken as they are."""

    __slots__ = (
        "_defaults",
        "_ignore",
        "_keyword",
        "_keyword_defaults",
        "_plain",
        "_positional",
        "_positional_only",
        "_rest",
        "_rest_named",
        "_tags",
        "_tails",
    )
    is_constant = True  # nothing besides the arguments of a call is bound

    def __init__(
        self,
        positional: tuple[str, ...] = (),
        keyword: tuple[str, ...] = (),
        *,
        positional_only: Iterable[str] = (),
        rest: str | None = None,
        rest_named: str | None = None,
        defaults: Mapping[str, object] | None = None,
        keyword_defaults: Mapping[str, object] | None = None,
    ) -> None:
        self._positional, self._keyword = positional, keyword
        self._keyword_defaults = keyword_defaults or {}  # no copy: the function's may change
        self._positional_only = frozenset(positional_only)
        self._rest, self._rest_named = rest, rest_named
        self._defaults = dict(defaults or {})
        self._ignore: frozenset[str] = frozenset()
        self._tags = {name: b"=%b:" % name.encode() for name in positional + keyword}
        self._prepare()

    def ignore(self, names: frozenset[str]) -> frozenset[str]:
        """Have the parameters `names` not count; return those that are none of its."""
        self._ignore = names
        self._prepare()
        if self._rest_named is not None:
            return frozenset()
        return names.difference(self._positional, self._keyword, (self._rest,))

    def _prepare(self) -> None:
        # If every call has the same form, its arguments are paired with `_plain`; `_tails[n]` is
        # what the defaults add to n arguments, if there are defaults for the others.
        has_one_form = not self._keyword and not self._ignore
        self._plain = list(self._tags.values()) if has_one_form else None
        self._tails: dict[int, tuple[tuple[bytes, Any], ...]] = {}
        for count in range(len(self._positional), -1, -1):
            rest = self._positional[count:]
            if not self._defaults.keys() >= set(rest):
                break
            self._tails[count] = tuple([(self._tags[name], self._defaults[name]) for name in rest])

    def hands_on_to(self, other: Parameters) -> bool:
        """Return True if `other` takes every call that this takes, under the same names."""
        own = self._positional
        is_open = self._rest is not None and self._rest_named is not None
        is_prefix = other._positional[: len(own)] == own
        return is_open and is_prefix and not self._keyword and not self._defaults

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bound | None:
        """Return the arguments that count, each with its name's bytes; None if they misfit."""
        if not kwargs and self._plain is not None:
            tail = self._tails.get(len(args))
            if tail is not None:
                # Every hit comes here: `strict=` would cost 0.1 us, and an unneeded tuple as much.
                pairs = zip(self._plain, args)  # noqa: B905
                return (*pairs, *tail) if tail else pairs
        return self._bind_each(args, kwargs)

    def _bind_each(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bound | None:
        values: dict[str, Any] = dict(zip(self._positional, args, strict=False))
        rest = args[len(self._positional) :]
        named: dict[str, Any] = {}
        if rest and self._rest is None:
            return None
        for name, value in kwargs.items():
            if name in self._tags and name not in self._positional_only:
                if name in values:
                    return None
                values[name] = value
            elif self._rest_named is None:
                return None
            elif name not in self._ignore:
                named[name] = value
        values = {**self._defaults, **self._keyword_defaults, **values}
        if len(values) < len(self._tags):
            return None
        ignore = self._ignore
        bound = [(tag, values[name]) for name, tag in self._tags.items() if name not in ignore]
        if rest and self._rest not in ignore:
            bound.append((b"*:", rest))
        if named and self._rest_named not in ignore:
            bound.append((b"**:", named))
        return tuple(bound)


class Partial:
    """The signature of a callable with some arguments fixed: a partial's, or what a method's is."""

    __slots__ = ("_args", "_inner", "_kwargs")
    is_constant = False  # the arguments that it fixes may change

    def __init__(
        self,
        inner: Parameters | Partial,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._inner, self._args, self._kwargs = inner, args, dict(kwargs or {})

    def ignore(self, names: frozenset[str]) -> frozenset[str]:
        """Have the parameters `names` not count; return those that are none of its."""
        return self._inner.ignore(names)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bound | None:
        """Return the arguments that count, each with its name's bytes; None if they misfit."""
        fixed = self._args
        if _PLACEHOLDER in map(id, fixed):
            rest = iter(args)
            fixed = tuple([next(rest, v) if id(v) == _PLACEHOLDER else v for v in fixed])
            args = tuple(rest)
        # MUT: what-a-partial-fixes-counts
        return self._inner.bind((*fixed, *args), {**self._kwargs, **kwargs})


def signature_of(
    function: Any,
    ignore: frozenset[str] = frozenset(),
    captured: frozenset[str] = frozenset(),
) -> Parameters | Partial:
    """Return the signature of `function`, in which the parameters `ignore` do not count.

    Raises `ValueError` for a name of neither a parameter nor a `captured` variable.
    """
    signature = _read(function)
    unknown = signature.ignore(ignore) - captured
    if unknown:
        names_text = ", ".join(map(repr, sorted(unknown)))
        raise ValueError(f"ignore: the function has no parameter {names_text}")
    return signature


def parts_of(function: Any) -> list[tuple[Any, Any, Any, Any]]:
    """Return `function` and those that it wraps, each with its code and its defaults.

    A debugger, a tool that reloads code, or a test may replace them.
    """
    parts: list[tuple[Any, Any, Any, Any]] = []
    while function is not None and len(parts) < _MAX_WRAPPED:
        function = getattr(function, "__func__", function)
        if isinstance(function, partial):
            function = function.func
            continue
        if not isinstance(function, FunctionType):
            break
        parts.append((function, function.__code__, function.__defaults__, function.__kwdefaults__))
        function = getattr(function, "__wrapped__", None)
    return parts


def _read(function: Any, depth: int = 0) -> Parameters | Partial:
    if isinstance(function, partial):
        return _read_partial(function, depth)
    owner = bound_to(function)
    if owner is not None:
        return Partial(_read(getattr(function, "__func__", None), depth), (owner,))
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return _read_other(function, depth)
    own = _from_code(code, function.__defaults__, function.__kwdefaults__)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and depth < _MAX_WRAPPED:
        inner = _read(wrapped, depth + 1)
        # MUT: a-wrapper-is-trusted-by-its-code-alone
        if isinstance(inner, Parameters) and own.hands_on_to(inner) and _hands_on(function):
            return inner
    return own


def _read_partial(function: partial[Any], depth: int) -> Partial:
    calls_like_partial = type(function).__call__ is partial.__call__
    inner = _read(function.func, depth) if calls_like_partial else _as_they_are()
    return Partial(inner, function.args, function.keywords)


def _read_other(function: Any, depth: int) -> Parameters:
    """Return the parameters of a callable that is not written in Python, or is an object."""
    kind = type(function)
    if (kind.__module__, kind.__qualname__) == ("functools", "_lru_cache_wrapper"):
        inner = _read(function.__wrapped__, depth + 1)
        return inner if isinstance(inner, Parameters) else _as_they_are()
    call = vars(kind).get("__call__")
    if isinstance(getattr(call, "__code__", None), CodeType):
        return _from_code(call.__code__, call.__defaults__, call.__kwdefaults__, skipped=1)
    if isinstance(function, type) or hasattr(function, "__wrapped__"):
        return _as_they_are()
    return _inspect(function)


def _as_they_are() -> Parameters:
    return Parameters(rest="args", rest_named="kwargs")


def _from_code(code: Any, defaults: Any, keyword_defaults: Any, skipped: int = 0) -> Parameters:
    names: tuple[str, ...] = code.co_varnames
    first, last = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
    positional, keyword = names[:first], names[first:last]
    has_rest, has_named = bool(code.co_flags & _VARARGS), bool(code.co_flags & _VARKEYWORDS)
    values = tuple(defaults or ())
    fixed = dict(zip(positional[len(positional) - len(values) :], values, strict=True))
    return Parameters(
        positional[skipped:],
        keyword,
        positional_only=positional[: code.co_posonlyargcount],
        rest=names[last] if has_rest else None,
        rest_named=names[last + has_rest] if has_named else None,
        defaults=fixed,
        keyword_defaults=keyword_defaults,
    )


def _hands_on(function: Any) -> bool:
    from efsstate.cache import wrappers

    return wrappers.hands_on(function)


def _inspect(function: Callable[..., Any]) -> Parameters:
    """Return the parameters of a built-in callable, as its text signature describes them."""
    import inspect

    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    except (ValueError, TypeError):  # it has none
        return _as_they_are()
    kinds: dict[Any, list[str]] = {}
    for parameter in parameters:
        kinds.setdefault(parameter.kind, []).append(parameter.name)
    kind = inspect.Parameter
    positional_only = kinds.get(kind.POSITIONAL_ONLY, [])
    return Parameters(
        (*positional_only, *kinds.get(kind.POSITIONAL_OR_KEYWORD, ())),
        tuple(kinds.get(kind.KEYWORD_ONLY, ())),
        positional_only=positional_only,
        rest=next(iter(kinds.get(kind.VAR_POSITIONAL, ())), None),
        rest_named=next(iter(kinds.get(kind.VAR_KEYWORD, ())), None),
        defaults={p.name: p.default for p in parameters if p.default is not p.empty},
    )


def bound_to(function: Any) -> Any:
    """Return the object that a method is bound to, or None.

    The `__self__` of a built-in function is its module: that is no object it is bound to.
    """
    owner = getattr(function, "__self__", None)
    return None if isinstance(owner, ModuleType) else owner


def is_async(function: Any) -> bool:
    """Return True if a call's result is awaited; raise `TypeError` for a generator function."""
    flags = getattr(code_of(function), "co_flags", 0)
    if flags & _GENERATORS:
        raise TypeError(
            f"cached: {function!r} is a generator function, and an iterator can't be cached;"
            " return a list"
        )
    return is_coroutine_function(function)
