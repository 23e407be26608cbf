r"""What a call is known by: a digest of the namespace, the version and the bound arguments, the same on every host.

Every value is fed as its type's tag, its length and its bytes, so that no two different values feed the same bytes.
Sets and dicts are fed by the sorted digests of their members. Nothing rests on `hash`, `repr` or `id`.
"""

from __future__ import annotations

import struct
import sys
from _blake2 import blake2b  # hashlib's own, without hashlib's import of OpenSSL

from efsstate.mount import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Write = Callable[[Any], None]

SCHEME = b"efsstate key 1"  # raised only if the same call were to get another digest
_DEEPEST = 200
_LENGTH = struct.Struct("<cQ")
_FLOAT = struct.Struct("<d")
_HEAP_TYPE = 1 << 9


def _digest(feed: Callable[[Write], None]) -> bytes:
    h = blake2b(digest_size=layout.DIGEST_BYTES)
    feed(h.update)
    return h.digest()


def _bytes(write: Write, tag: bytes, data: bytes | memoryview) -> None:
    write(_LENGTH.pack(tag, len(data)))
    write(data)


def _text(write: Write, tag: bytes, text: str) -> None:
    _bytes(write, tag, text.encode("utf-8", "surrogatepass"))


def feed(write: Write, value: Any, depth: int = 0) -> None:
    """Feed `value` to `write`; `TypeError` for a type that has no stable form."""
    kind = type(value)
    feeder = _feeders.get(kind)
    if feeder is None:
        feeder = _learn(value)
    if depth > _DEEPEST:
        raise TypeError(
            f"an argument is nested more than {_DEEPEST} deep, or contains itself: it can't be part of a key"
        )
    feeder(write, value, depth)


def _items(tag: bytes) -> Callable[[Write, Any, int], None]:
    def run(write: Write, value: Any, depth: int) -> None:
        write(_LENGTH.pack(tag, len(value)))
        for item in value:
            feed(write, item, depth + 1)

    return run


def _members(tag: bytes) -> Callable[[Write, Any, int], None]:
    def run(write: Write, value: Any, depth: int) -> None:
        write(_LENGTH.pack(tag, len(value)))
        for member in sorted([_digest(lambda w, item=item: feed(w, item, depth + 1)) for item in value]):  # type: ignore[misc]
            write(member)

    return run


def _mapping(tag: bytes, *, ordered: bool = False) -> Callable[[Write, Any, int], None]:
    def run(write: Write, value: Any, depth: int) -> None:
        write(_LENGTH.pack(tag, len(value)))
        pairs = [(_digest(lambda w, key=key: feed(w, key, depth + 1)), key) for key in value]  # type: ignore[misc]
        if not ordered:
            pairs.sort(key=lambda pair: pair[0])
        for key_digest, key in pairs:
            write(key_digest)
            feed(write, value[key], depth + 1)

    return run


def _int(write: Write, value: int, _: int) -> None:
    _bytes(write, b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _view(write: Write, value: Any, depth: int) -> None:
    with memoryview(value) as view:
        _text(write, b"v", view.format)
        feed(write, view.shape, depth)
        if view.c_contiguous:
            _bytes(write, b"-", view.cast("B") if view.nbytes else b"")
        else:
            _bytes(write, b"-", view.tobytes())


def _zone(write: Write, value: Any, depth: int) -> None:
    """A time's zone: an offset is one wherever it comes from; a named zone counts by its name."""
    zone = value.tzinfo
    key = getattr(zone, "key", None)
    if isinstance(key, str):
        _text(write, b"z", key)
    else:
        feed(write, value.utcoffset(), depth)


def _time(tag: bytes) -> Callable[[Write, Any, int], None]:
    def run(write: Write, value: Any, depth: int) -> None:
        _text(write, tag, value.replace(tzinfo=None).isoformat())
        feed(write, value.fold, depth)
        _zone(write, value, depth)

    return run


def _dtype(write: Write, dtype: Any) -> None:
    if dtype.hasobject or dtype.kind == "T":
        raise TypeError(f"an array of dtype {dtype} can't be part of a key: its items are objects; pass plain values")
    _text(write, b"y", dtype.str if dtype.names is None else repr(dtype.descr))


def _array(write: Write, value: Any, depth: int) -> None:
    _dtype(write, value.dtype)
    feed(write, value.shape, depth)
    write(_LENGTH.pack(b"-", value.nbytes))
    if not value.nbytes:
        return
    if value.flags.c_contiguous:
        write(memoryview(value.reshape(-1).view("u1")))
    else:
        import numpy as np

        # In pieces, in C order: neither the memory's order nor a stride may show, and nothing large is copied.
        order = np.nditer(value, ["external_loop", "buffered", "zerosize_ok"], order="C", buffersize=1 << 16)
        for piece in order:
            write(np.ascontiguousarray(piece).view("u1"))


def _scalar(write: Write, value: Any, _: int) -> None:
    _dtype(write, value.dtype)
    _bytes(write, b"n", value.tobytes())


def _class(write: Write, tag: bytes, kind: type) -> None:
    module = kind.__module__
    _text(write, tag, f"{main_name() if module == '__main__' else module}:{kind.__qualname__}")


def _enum(write: Write, value: Any, depth: int) -> None:
    _class(write, b"E", type(value))
    feed(write, value._name_ if value._name_ is not None else value._value_, depth)  # noqa: SLF001


def _dataclass(write: Write, value: Any, depth: int) -> None:
    _class(write, b"D", type(value))
    fields = type(value).__dataclass_fields__
    feed(write, {name: getattr(value, name) for name in fields if hasattr(value, name)}, depth)


def _namedtuple(write: Write, value: Any, depth: int) -> None:
    _class(write, b"N", type(value))
    feed(write, dict(zip(value._fields, value, strict=True)), depth)


def _registered(to_parts: Callable[[Any], object]) -> Callable[[Write, Any, int], None]:
    def run(write: Write, value: Any, depth: int) -> None:
        _class(write, b"R", type(value))
        feed(write, to_parts(value), depth + 1)

    return run


_feeders: dict[type, Callable[[Any, Any, int], None]] = {
    type(None): lambda write, _value, _depth: write(b"0"),
    bool: lambda write, value, _: write(b"1" if value else b"2"),
    int: _int,
    float: lambda write, value, _: _bytes(write, b"f", _FLOAT.pack(value)),
    complex: lambda write, value, _: _bytes(write, b"c", _FLOAT.pack(value.real) + _FLOAT.pack(value.imag)),
    str: lambda write, value, _: _text(write, b"s", value),
    bytes: lambda write, value, _: _bytes(write, b"b", value),
    bytearray: lambda write, value, _: _bytes(write, b"a", memoryview(value)),
    memoryview: _view,
    list: _items(b"l"),
    tuple: _items(b"t"),
    set: _members(b"S"),
    frozenset: _members(b"F"),
    dict: _mapping(b"d"),
    range: lambda write, value, depth: (write(b"r"), feed(write, (value.start, value.stop, value.step), depth))[0],
    slice: lambda write, value, depth: (write(b"x"), feed(write, (value.start, value.stop, value.step), depth))[0],
}
_LATER: tuple[tuple[str, str, Callable[[Any, Any, int], None]], ...] = (
    ("decimal", "Decimal", lambda write, value, _: _text(write, b"M", str(value))),
    ("fractions", "Fraction", lambda write, value, _: _text(write, b"Q", str(value))),
    ("uuid", "UUID", lambda write, value, _: _bytes(write, b"U", value.bytes)),
    ("datetime", "date", lambda write, value, _: _text(write, b"A", value.isoformat())),
    ("datetime", "time", _time(b"I")),
    ("datetime", "datetime", _time(b"W")),
    (
        "datetime",
        "timedelta",
        lambda write, value, depth: (write(b"L"), feed(write, (value.days, value.seconds, value.microseconds), depth))[
            0
        ],
    ),
    ("collections", "OrderedDict", _mapping(b"O", ordered=True)),
    ("numpy", "ndarray", _array),
)
_own: set[type] = set()  # registered by the user: these count for subclasses too


def register(kind: type, to_parts: Callable[[Any], object]) -> None:
    """Teach keys the type `kind` and its subclasses: `to_parts(value)` returns what identifies a value.

    That is anything keys know already: a plain value, or a tuple of them. It must be the same on every host, and
    differ where the function's result may. Example: `register(Image, lambda image: (image.size, image.tobytes()))`.
    """
    if not isinstance(kind, type) or not callable(to_parts):
        raise TypeError("register(type, to_parts): a class and a function of one value are needed")
    for known in [known for known in _feeders if known is not kind and kind in known.__mro__]:
        if known not in _own:
            _feeders.pop(known)  # learned by a rule that this one now goes before
    _feeders[kind] = _registered(to_parts)
    _own.add(kind)


def _learn(value: Any) -> Callable[[Any, Any, int], None]:
    kind = type(value)
    feeder = _rule(value, kind)
    if feeder is None:
        raise TypeError(
            f"an argument of type {kind.__module__}.{kind.__qualname__} can't be part of a key: it has no stable form;"
            f" pass plain values, leave it out with ignore=, or teach it once with efsstate.register({kind.__qualname__},"
            " to_parts)"
        )
    _feeders[kind] = feeder
    return feeder


def _rule(value: Any, kind: type) -> Callable[[Any, Any, int], None] | None:
    for base in kind.__mro__:
        if base in _own:
            return _feeders[base]
    for module, name, feeder in _LATER:
        if module in sys.modules and kind is getattr(sys.modules[module], name, None):
            return feeder
    enum, numpy, paths = sys.modules.get("enum"), sys.modules.get("numpy"), sys.modules.get("pathlib")
    if enum is not None and isinstance(value, enum.Enum):
        return _enum
    if numpy is not None and isinstance(value, numpy.generic):
        return _scalar
    if paths is not None and isinstance(value, paths.PurePath):
        tag = b"P" if isinstance(value, paths.PurePosixPath) else b"p"
        return lambda write, path, _: _text(write, tag, str(path))
    if "__dataclass_fields__" in vars(kind):
        return _dataclass
    if isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        return _namedtuple
    return None


def main_name() -> str:
    """What the program `__main__` is called: its file's name, so that two programs' functions are told apart."""
    import os

    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", "builtins"):
        return str(spec.name).removesuffix(".__main__")
    return os.path.basename(getattr(main, "__file__", None) or "__main__").removesuffix(".py")


class Keyer:
    """Makes the digests of one namespace and version."""

    __slots__ = ("_start",)

    def __init__(self, namespace: str, version: object) -> None:
        self._start = blake2b(SCHEME, digest_size=layout.DIGEST_BYTES)
        feed(self._start.update, (namespace, version))

    def digest(self, value: object) -> str:
        """The digest of a key, 48 hex digits; `TypeError` for what has no stable form."""
        h = self._start.copy()
        feed(h.update, value)
        return h.hexdigest()


# Arguments

_VARARGS, _VARKEYWORDS = 4, 8  # inspect's, without the import
_MISSING: Any = object()


class Signature:
    """A function's parameters, taken in once; gives the arguments of a call in one form, however they were passed."""

    __slots__ = (
        "_defaults",
        "_ignore",
        "_keyword",
        "_names",
        "_positional",
        "_positional_only",
        "_rest",
        "_rest_named",
    )

    def __init__(self, function: Callable[..., Any], ignore: Iterable[str]) -> None:
        self._defaults: dict[str, object] = {}
        code = getattr(function, "__code__", None)
        if code is None or hasattr(function, "__wrapped__") or hasattr(function, "__self__"):
            self._inspect(function)
        else:
            names = code.co_varnames
            count = code.co_argcount + code.co_kwonlyargcount
            self._positional: tuple[str, ...] = names[: code.co_argcount]
            self._positional_only: frozenset[str] = frozenset(names[: code.co_posonlyargcount])
            self._keyword: tuple[str, ...] = names[code.co_argcount : count]
            self._rest = names[count] if code.co_flags & _VARARGS else None
            self._rest_named = names[count + bool(code.co_flags & _VARARGS)] if code.co_flags & _VARKEYWORDS else None
            defaults = function.__defaults__ or ()  # type: ignore[attr-defined]
            self._defaults |= zip(self._positional[len(self._positional) - len(defaults) :], defaults, strict=True)
            self._defaults |= function.__kwdefaults__ or {}  # type: ignore[attr-defined]
        self._names = frozenset(self._positional + self._keyword)
        self._ignore = frozenset([ignore] if isinstance(ignore, str) else ignore)
        unknown = self._ignore - self._names - {self._rest, self._rest_named}
        if unknown and self._rest_named is None:
            raise ValueError(f"ignore: the function has no parameter {', '.join(map(repr, sorted(unknown)))}")

    def _inspect(self, function: Callable[..., Any]) -> None:
        import inspect

        positional: list[str] = []
        positional_only: list[str] = []
        keyword: list[str] = []
        self._rest = self._rest_named = None
        try:
            parameters = inspect.signature(function).parameters.values()
        except (ValueError, TypeError):  # a built-in that tells nothing of itself
            self._rest, self._rest_named, parameters = "args", "kwargs", ()  # type: ignore[assignment]
        for parameter in parameters:
            if parameter.kind is parameter.VAR_POSITIONAL:
                self._rest = parameter.name
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                self._rest_named = parameter.name
                continue
            (keyword if parameter.kind is parameter.KEYWORD_ONLY else positional).append(parameter.name)
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional_only.append(parameter.name)
            if parameter.default is not parameter.empty:
                self._defaults[parameter.name] = parameter.default
        self._positional, self._keyword = tuple(positional), tuple(keyword)
        self._positional_only = frozenset(positional_only)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[str, Any], ...] | None:
        """The arguments by name, those to be ignored left out; None if the function would not take them."""
        positional, ignore = self._positional, self._ignore
        found: dict[str, Any] = dict(zip(positional, args, strict=False))
        rest = args[len(positional) :]
        if rest and self._rest is None:
            return None
        named: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in self._names and name not in self._positional_only:
                if name in found:
                    return None
                found[name] = value
            elif self._rest_named is None:
                return None
            elif name not in ignore:
                named[name] = value
        bound: list[tuple[str, Any]] = []
        for name in positional + self._keyword:
            value = found.get(name, _MISSING)
            if value is _MISSING:
                value = self._defaults.get(name, _MISSING)
                if value is _MISSING:
                    return None
            if name not in ignore:
                bound.append((name, value))
        if rest and self._rest not in ignore:
            bound.append(("*", rest))
        if named and self._rest_named not in ignore:
            bound.append(("**", named))
        return tuple(bound)
