"""A function that is decorated: its parameters, by which a call's arguments come into one form, its name, and whether it is async."""

from __future__ import annotations

import sys
from functools import partial

from efsstate import events
from efsstate.cache import keys
from efsstate.mount import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Bound = Iterable[tuple[bytes, Any]]

_VARARGS, _VARKEYWORDS, _COROUTINE, _GENERATORS = (
    0x04,
    0x08,
    0x80,
    0x220,
)  # inspect's CO_ flags, without its 5 ms
_MISSING: Any = object()
_SIMPLE = frozenset((bool, int, float, str, bytes))
_MOST_WRAPPED = 100  # functions, one in another: some objects have a `__wrapped__` without end
_decorated: dict[
    tuple[str, str], list[Any]
] = {}  # the codes of the functions of a name and version


class Signature:
    """A function's parameters; `ignore` names those that do not count."""

    __slots__ = (
        "_defaults",
        "_ignore",
        "_keyword",
        "_plain",
        "_positional",
        "_positional_only",
        "_rest",
        "_rest_named",
        "_tags",
        "_tails",
        "_through",
        "owner",
    )

    def __init__(
        self, function: Callable[..., Any], ignore: Iterable[str] = (), *, wrapped: bool = False
    ) -> None:
        """`wrapped`: what `inspect.signature` says it takes, which may be what it wraps, and not what is called."""
        self._defaults: dict[str, object] = {}
        self._positional: tuple[str, ...] = ()
        self._keyword: tuple[str, ...] = ()
        self._positional_only: frozenset[str] = frozenset()
        self._rest: str | None = None
        self._rest_named: str | None = None
        self._through: Signature | None = (
            None  # of what it passes all on to: where that takes the arguments, it says what they are
        )
        plain = getattr(function, "__func__", function)
        code = getattr(plain, "__code__", None)
        if wrapped or code is None:
            self._inspect(plain, follow=wrapped)
        else:
            self._read(plain, code)
        if type(plain) is partial and plain.args:
            self._fix("partial()", plain.args)  # `inspect` knows no more of them
        self.owner = bound_to(function)
        if self.owner is not None:
            self._bind_owner(plain is not function)
        if (
            not wrapped
            and self._rest
            and self._rest_named
            and (code is None or hasattr(plain, "__wrapped__"))
        ):
            through = Signature(function, wrapped=True)
            self._through = through if through._agrees(self) else None
        self._settle(ignore)

    def _bind_owner(self, named: bool) -> None:
        """What a method is bound to: an argument, under its own name, that no caller gives."""
        name = "self"
        if named and self._positional:
            name, self._positional = self._positional[0], self._positional[1:]
        self._fix(name, self.owner)

    def _fix(self, name: str, value: object) -> None:
        self._keyword = (name, *self._keyword)
        self._positional_only |= {name}
        self._defaults[name] = value

    def _agrees(self, own: Signature) -> bool:
        """Whether a wrapper that takes `own` may pass its arguments on as they are."""
        return (
            self._positional[: len(own._positional)] == own._positional
            and set(own._keyword) <= {*self._positional, *self._keyword}
            and all(
                self._defaults.get(name, _MISSING) is default
                for name, default in own._defaults.items()
            )
        )

    def _settle(self, ignore: Iterable[str]) -> None:
        try:
            self._ignore = frozenset([ignore] if isinstance(ignore, str) else ignore)
        except TypeError:
            raise TypeError(
                f"ignore: a parameter's name or several are needed, not {ignore!r}"
            ) from None
        if self._through is not None:
            self._through._settle(ignore)  # noqa: SLF001 - one of ours
        else:
            unknown = self._ignore.difference(
                self._positional, self._keyword, (self._rest, self._rest_named)
            )
            if unknown and self._rest_named is None:
                raise ValueError(
                    f"ignore: the function has no parameter {', '.join(map(repr, sorted(unknown)))}"
                )
        self._tags = dict(map(_tag, self._positional + self._keyword))
        # Where every call has the same form, its arguments are paired with these and that is all: `_tails[n]` is what
        # the defaults add to n arguments, if they do for the rest.
        one_form = not self._keyword and not self._ignore and self._through is None
        self._plain = list(self._tags.values()) if one_form else None
        self._tails: dict[int, tuple[tuple[bytes, Any], ...]] = self._make_tails()

    def _make_tails(self) -> dict[int, tuple[tuple[bytes, Any], ...]]:
        tails: dict[int, tuple[tuple[bytes, Any], ...]] = {}
        for given in range(len(self._positional), -1, -1):
            if given < len(self._positional) and self._positional[given] not in self._defaults:
                break
            tails[given] = tuple(
                [(self._tags[rest], self._defaults[rest]) for rest in self._positional[given:]]
            )
        return tails

    def _read(self, function: Any, code: Any) -> None:
        names: tuple[str, ...] = code.co_varnames
        first, last = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
        self._positional, self._keyword = names[:first], names[first:last]
        self._positional_only = frozenset(names[: code.co_posonlyargcount])
        if code.co_flags & _VARARGS:
            self._rest = names[last]
            last += 1
        if code.co_flags & _VARKEYWORDS:
            self._rest_named = names[last]
        defaults = function.__defaults__ or ()
        self._defaults = dict(
            zip(self._positional[len(self._positional) - len(defaults) :], defaults, strict=True)
        )
        self._defaults.update(function.__kwdefaults__ or {})

    def _inspect(self, function: Callable[..., Any], *, follow: bool) -> None:
        import inspect

        positional: list[str] = []
        keyword: list[str] = []
        positional_only: list[str] = []
        try:
            parameters = list(
                inspect.signature(function, follow_wrapped=follow).parameters.values()
            )
        except (ValueError, TypeError):  # a built-in that tells nothing of itself
            self._rest, self._rest_named = "args", "kwargs"
            return
        for parameter in parameters:
            if parameter.kind is parameter.VAR_POSITIONAL:
                self._rest = parameter.name
            elif parameter.kind is parameter.VAR_KEYWORD:
                self._rest_named = parameter.name
            else:
                (keyword if parameter.kind is parameter.KEYWORD_ONLY else positional).append(
                    parameter.name
                )
                if parameter.kind is parameter.POSITIONAL_ONLY:
                    positional_only.append(parameter.name)
                if parameter.default is not parameter.empty:
                    self._defaults[parameter.name] = parameter.default
        self._positional, self._keyword = tuple(positional), tuple(keyword)
        self._positional_only = frozenset(positional_only)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bound | None:
        """The arguments, each with its name's bytes, without those ignored; None if the function would not take them."""
        if not kwargs and self._plain is not None:
            tail = self._tails.get(len(args))
            if tail is not None:
                # Each hit comes here: a keyword would cost it 0.1 us, and a tuple that nobody needs as much.
                return (*zip(self._plain, args), *tail) if tail else zip(self._plain, args)  # noqa: B905
        return self._bind(args, kwargs)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bound | None:
        bound: list[tuple[bytes, Any]] = []
        if self._through is not None:
            through = self._through.bind(args, kwargs)
            if through is not None:
                return through
            bound.append((b"own:", None))  # or it might be taken for another call in the other form
        positional, tags, ignore = self._positional, self._tags, self._ignore
        found: dict[str, Any] = dict(zip(positional, args, strict=False))
        rest = args[len(positional) :]
        if rest and self._rest is None:
            return None
        rest_named: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in tags and name not in self._positional_only:
                if name in found:
                    return None
                found[name] = value
            elif self._rest_named is None:
                return None
            elif name not in ignore:
                rest_named[name] = value
        for name, tag in tags.items():
            value = found.get(name, _MISSING)
            if value is _MISSING:
                value = self._defaults.get(name, _MISSING)
                if value is _MISSING:
                    return None
            if name not in ignore:
                bound.append((tag, value))
        if rest and self._rest not in ignore:
            bound.append((b"*:", rest))
        if rest_named and self._rest_named not in ignore:
            bound.append((b"**:", rest_named))
        return tuple(bound)


def bound_to(function: Any) -> Any:
    """What a method is bound to; None where there is nothing: a built-in function's `__self__` is its module."""
    owner = getattr(function, "__self__", None)
    return None if type(owner) is type(sys) else owner


def code_of(function: Any) -> Any:
    """The code that a call runs: of a function, or of what is called in its place; None if it is not Python's."""
    while type(function) is partial:
        function = function.func
    if not hasattr(function, "__code__"):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - what it is, and not whether
    return getattr(function, "__code__", None)


def _tag(name: str) -> tuple[str, bytes]:
    return name, b"=%b:" % name.encode()


def is_async(function: Any) -> bool:
    """Whether a call of it gives something to be awaited; `TypeError` for one that yields."""
    flags = getattr(code_of(function), "co_flags", 0)
    if flags & _GENERATORS:
        raise TypeError(
            f"cached: {function!r} is a generator function: what it yields is gone after one use; return a list"
        )
    inspect = sys.modules.get("inspect")  # whoever has marked it as async has imported that
    return bool(flags & _COROUTINE) or (
        inspect is not None and inspect.iscoroutinefunction(function)
    )


def namespace(function: Any, version: object) -> str:
    """The module and qualified name, within one Lambda function; `__main__` is its file's name."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if type(function) is partial or not isinstance(module, str) or not isinstance(name, str):
        raise TypeError(
            f"cached: {function!r} has no name of its own, by which its results are known: give it name="
        )
    namespace = f"{keys.main_name() if module == '__main__' else module}.{name}"
    program = environment.function_name()
    if program:
        namespace = f"{program}/{namespace}"
    codes = _codes(function)
    if _decorated.setdefault((namespace, repr(version)), codes) != codes:
        events.log(
            "warning",
            "cached: two functions are called %s, and their code or what it captures differs: they share results; give one"
            " of them name= or version=, or pass what it captures as a parameter",
            namespace,
            once=f"two {namespace}", cache=namespace,
        )  # fmt: skip
    return namespace


def _codes(function: Any) -> list[Any]:
    """What tells two functions of one name apart: their codes, what these capture, and the same of what they wrap.

    A loop makes one code again, and so does a call of the function around it.
    """
    codes: list[Any] = []
    while function is not None and len(codes) < _MOST_WRAPPED:
        code = code_of(function)
        codes.append(
            type(function) if code is None else (code.co_filename, code, *_captured(function))
        )
        function = getattr(function, "__wrapped__", None)
    return codes


def _captured(function: Any) -> Iterable[Any]:
    """The simple values that a closure captures: they are in no key, and two with other values give other results."""
    for cell in getattr(function, "__closure__", None) or ():
        try:
            value = cell.cell_contents
        except ValueError:  # nothing yet
            continue
        if type(value) in _SIMPLE:
            yield type(value), value


def source(function: Any) -> tuple[str, str]:
    """Its text, as a version."""
    import inspect

    try:
        return "source", inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"version='source': {function!r} has no source to be read ({error}): give a version"
        ) from None
