r"""What a call is known by: a digest of the namespace, the version and the bound arguments, the same on every host.

A value becomes bytes that begin with its type's letter and say their own length, so that no two different values give
the same bytes, one after another or nested. Sets and dicts go by the sorted digests of their members, large things by
their own digest, so that nothing large is copied. Nothing rests on `hash`, `repr` of an object, or `id`.

    None N;   True T;   False F;   7 i7;   1.5 f<8 bytes>   "ab" s2:ab   b"ab" b2:ab   [x] l1:<x>   (x,) t1:<x>
    {k: v} d1:<digest of k><v>   {x} S1:<digest of x>   a class's value <letter><len>:<module>:<name> and its parts
    a class Cs<len>:<module>:<name>
"""

from __future__ import annotations

import struct
import sys

from efsstate.errors import UnstableError
from efsstate.format import entry, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Add = Callable[[bytes], object]  # takes the next piece
    Feeder = Callable[[Any, Add, int], object]

SCHEME = b"efsstate key 1;"  # raised only if the same call were to get another digest
_DEEPEST = 100
LARGE = 1 << 16  # bytes; from here on a digest stands for them
_FLOAT = struct.Struct("<d")


def new_sum(start: bytes = b"") -> Any:
    """A hash that makes digests of our length."""
    return entry.blake2b()(start, digest_size=layout.DIGEST_BYTES)


def _sum(*parts: Any) -> bytes:
    h = new_sum()
    for part in parts:
        h.update(part)
    return bytes(h.digest())


def _sum_of(value: Any, depth: int) -> bytes:
    pieces: list[bytes] = []
    feed(value, pieces.append, depth)
    return _sum(*pieces)


def feed_raw(tag: bytes, data: Any, add: Add) -> None:
    """Any number of bytes."""
    length = len(data)
    if length < LARGE:
        add(b"%b%d:%b" % (tag, length, data))
    else:
        add(b"%b%d#%b" % (tag, length, _sum(data)))


def feed(value: Any, add: Add, depth: int = 0) -> None:
    """Give `value`'s pieces to `add`; `TypeError` for a type that has no stable form."""
    feeder = _feeders.get(type(value)) or _learn(value)
    if depth > _DEEPEST:
        raise UnstableError(
            "a value", f"it is nested more than {_DEEPEST} deep, or contains itself", ""
        )
    feeder(value, add, depth)


def _int(value: int, add: Add, _: int) -> None:
    if -(2**63) <= value < 2**64:
        add(b"i%d;" % value)
    else:  # decimal digits take quadratic time, and Python refuses many of them
        feed_raw(b"I", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True), add)


def feed_text(value: str, add: Add, _: int) -> None:
    """A text, half surrogates too."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        data = value.encode("utf-8", "surrogatepass")
    if len(data) < LARGE:
        # MUT: keys-have-types
        add(b"s%d:%b" % (len(data), data))
    else:
        feed_raw(b"s", data, add)


def _items(tag: bytes) -> Feeder:
    def run(value: Any, add: Add, depth: int) -> None:
        add(b"%b%d:" % (tag, len(value)))
        depth += 1
        for item in value:
            feed(item, add, depth)

    return run


feed_tuple = _items(b"t")


def _members(tag: bytes) -> Feeder:
    def run(value: Any, add: Add, depth: int) -> None:
        add(b"%b%d:" % (tag, len(value)))
        add(b"".join(sorted([_sum_of(item, depth + 1) for item in value])))

    return run


def mapping(tag: bytes, *, ordered: bool = False) -> Feeder:
    """The feeder of dicts; `ordered`: their order counts."""

    def run(value: Any, add: Add, depth: int) -> None:
        add(b"%b%d:" % (tag, len(value)))
        pairs = [(_sum_of(key, depth + 1), item) for key, item in value.items()]
        if not ordered:
            pairs.sort(key=_first)
        for key, item in pairs:
            add(key)
            feed(item, add, depth + 1)

    return run


def _first(pair: tuple[bytes, object]) -> bytes:
    return pair[0]


def _view(value: Any, add: Add, depth: int) -> None:
    with memoryview(value) as view:
        add(b"v")
        feed_text(view.format, add, depth)
        feed_tuple(view.shape or (), add, depth)
        feed_raw(b"-", view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes(), add)


def parts(tag: bytes, *names: str) -> Feeder:
    """The feeder of what its attributes `names` tell."""

    def run(value: Any, add: Add, depth: int) -> None:
        add(tag)
        feed_tuple([getattr(value, name) for name in names], add, depth)

    return run


def feed_class(tag: bytes, kind: type, add: Add, depth: int) -> None:
    """Where a class is."""
    module = kind.__module__
    add(tag)
    feed_text(f"{main_name() if module == '__main__' else module}:{kind.__qualname__}", add, depth)


def _registered(to_parts: Callable[[Any], object]) -> Feeder:
    def run(value: Any, add: Add, depth: int) -> None:
        feed_class(b"R", type(value), add, depth)
        feed(to_parts(value), add, depth + 1)

    return run


_feeders: dict[type, Feeder] = {
    type(None): lambda _value, add, _depth: add(b"N;"),
    bool: lambda value, add, _: add(b"T;" if value else b"F;"),
    int: _int,
    float: lambda value, add, _: add(b"f" + _FLOAT.pack(value)),
    complex: lambda value, add, _: add(b"c" + _FLOAT.pack(value.real) + _FLOAT.pack(value.imag)),
    str: feed_text,
    bytes: lambda value, add, _: feed_raw(b"b", value, add),
    bytearray: lambda value, add, _: feed_raw(b"a", value, add),
    memoryview: _view,
    list: _items(b"l"),
    tuple: feed_tuple,
    set: _members(b"S"),
    frozenset: _members(b"Z"),
    dict: mapping(b"d"),
    range: parts(b"r", "start", "stop", "step"),
    slice: parts(b"x", "start", "stop", "step"),
}
_BUILT_IN = tuple(_feeders)
_taught: set[type] = set()


def register(kind: type, to_parts: Callable[[Any], object]) -> None:
    """Teach keys the type `kind` and its subclasses: `to_parts(value)` returns what tells one value from another.

    That is anything keys know already: a plain value, or a tuple of them. It must be the same on every host, and
    differ wherever a function's result may. `TypeError` for a built-in type. Example: `register(Image, lambda image: (image.size, image.tobytes()))`.
    """
    if not isinstance(kind, type) or not callable(to_parts):
        raise TypeError("register(type, to_parts): a class and a function of one value are needed")
    if any(kind in known.__mro__ for known in _BUILT_IN):
        raise TypeError(
            f"register({kind.__qualname__}, …): it is known already: register a class of your own"
        )
    for known in [known for known in _feeders if kind in known.__mro__]:
        if known is not kind and known not in _taught:
            del _feeders[known]  # learned by a rule that this one now goes before
    _feeders[kind] = _registered(to_parts)
    _taught.add(kind)


def unstable(value: object, why: str) -> UnstableError:
    """What is raised for a value that can't be part of a key."""
    kind = type(value)
    taught = "" if kind.__module__ == "builtins" else kind.__qualname__
    return UnstableError(f"a value of type {kind.__module__}.{kind.__qualname__}", why, taught)


def _learn(value: Any) -> Feeder:
    kind = type(value)
    feeder = next((_feeders[base] for base in kind.__mro__ if base in _taught), None)
    if feeder is None:
        from efsstate.cache import key_types

        feeder = key_types.find(value, kind)
    if feeder is None:
        raise unstable(value, "it has no stable form")
    _feeders[kind] = feeder
    return feeder


def main_name() -> str:
    """What the program `__main__` is called: its module's or file's name, so that two programs are told apart."""
    import os

    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", "builtins"):
        return str(spec.name).removesuffix(".__main__")
    return os.path.basename(getattr(main, "__file__", None) or "__main__").removesuffix(".py")


class KeyBuilder:
    """Makes the digests of one namespace and version."""

    __slots__ = ("_begun", "_name", "_start")

    def __init__(self, namespace: str, version: object) -> None:
        pieces: list[bytes] = [SCHEME]
        try:
            feed((namespace, version), pieces.append)
        except UnstableError as error:
            raise error.located(f"{namespace}: version=") from None
        self._name = namespace
        self._start = b"".join(pieces)
        self._begun: Any = None  # a hash of that: to copy it is faster than to begin anew

    def digest(self, value: object, what: str = "") -> str:
        """The digest of a key, 48 hex digits; `TypeError` for what has no stable form: of a function it is `what`."""
        pieces: list[bytes] = []
        try:
            feed(value, pieces.append)
        except UnstableError as error:
            raise error.located(
                f"{self._name}: {what}" if what else f"Cache({self._name!r})"
            ) from None
        h = (self._begun or self._begin()).copy()
        h.update(b"".join(pieces))
        return h.hexdigest()  # type: ignore[no-any-return]

    def digest_call(self, bound: Iterable[tuple[bytes, Any]]) -> str:
        """The same of bound arguments, each with its name's bytes: see `Signature`."""
        pieces: list[bytes] = []
        add = pieces.append
        try:
            for name, value in bound:
                add(name)
                (_feeders.get(type(value)) or _learn(value))(value, add, 1)
        except UnstableError as error:
            raise error.located(
                f"{self._name}: argument {name.strip(b'=:').decode()}", ignore=True
            ) from None
        h = (self._begun or self._begin()).copy()
        h.update(b"".join(pieces))
        return h.hexdigest()  # type: ignore[no-any-return]

    def _begin(self) -> Any:
        self._begun = new_sum(self._start)
        return self._begun
