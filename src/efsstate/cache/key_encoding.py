r"""Encode a value as bytes that no other value shares: the content of a cache key.

A value becomes bytes that begin with its type's letter and state their own length, so that no two
different values give the same bytes: alone, in a row, or nested. Sets and dicts are encoded by
the sorted digests of their members, and large data by their digest, so that nothing large is
copied. Nothing rests on `hash`, on an object's `repr`, or on `id`.

    None N;   True T;   False F;   7 i7;   1.5 f<8 bytes>   "ab" s2:ab   b"ab" b2:ab   [x] l1:<x>
    (x,) t1:<x>   {k: v} d1:<digest of k><v>   {x} S1:<digest of x>
    an instance <letter>s<len>:<module>:<name> and its parts   a class Cs<len>:<module>:<name>
"""

from __future__ import annotations

import struct
from weakref import WeakKeyDictionary

from efsstate.cache import naming
from efsstate.format import entry, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Add = Callable[[bytes], object]  # takes the next piece
    Encoder = Callable[[Any, Add, int], object]  # of a value, at a depth
    Finder = Callable[[type], Encoder | None]

LARGE = 1 << 16  # bytes; data of this length and longer is represented by its digest
_MAX_DEPTH = 100
_PLAIN = "pass plain values"
_FLOAT = struct.Struct("<d")


class UnstableError(TypeError):
    """A value cannot be part of a key; its args: the value's description, the reason, its type.

    The type is the name to be given to `register`, or "" if that would not help.
    """

    def for_caller(self, place: str, *, argument: str = "") -> TypeError:
        """Return the error that names `place`; `argument` is the name of a function's parameter."""
        value, why, teachable = self.args
        is_owner = argument in ("self", "cls")  # its method: each instance may differ
        ways = ["move the work to a function of the values it uses" if is_owner else _PLAIN]
        if argument and not is_owner:
            ways.append("leave it out with ignore=")
        if teachable:
            ways.append(f"teach it once with efsstate.register({teachable}, to_parts)")
        text = f"{place}: {value} can't be part of a key: {why}; {', or '.join(ways)}"
        if is_owner:
            text += f" (with ignore={argument!r} all instances and subclasses would share results)"
        return TypeError(text)


def unstable(value: object, why: str) -> UnstableError:
    """Return the error for a value that cannot be part of a key."""
    kind = type(value)
    teachable = "" if kind.__module__ == "builtins" else kind.__qualname__
    return UnstableError(f"a value of type {kind.__module__}.{kind.__qualname__}", why, teachable)


def new_hash(start: bytes = b"") -> Any:
    """Return a hash object that makes digests of the length of a key's."""
    return entry.blake2b()(start, digest_size=layout.DIGEST_BYTES)


def _digest(data: Any) -> bytes:
    return bytes(new_hash(data).digest())


def _digest_of(value: Any, depth: int) -> bytes:
    pieces: list[bytes] = []
    encode(value, pieces.append, depth)
    return _digest(b"".join(pieces))


def encode(value: Any, add: Add, depth: int = 0) -> None:
    """Give the pieces of `value` to `add`; raise `UnstableError` if its type has no stable form."""
    encoder = encoders.get(type(value)) or learn(value)
    if depth > _MAX_DEPTH:
        why = f"it is nested more than {_MAX_DEPTH} deep, or contains itself"
        raise UnstableError("a value", why, "")
    encoder(value, add, depth)


def encode_raw(tag: bytes, data: Any, add: Add) -> None:
    """Encode bytes of any length."""
    length = len(data)
    if length < LARGE:
        add(b"%b%d:%b" % (tag, length, data))
    else:
        add(b"%b%d#%b" % (tag, length, _digest(data)))


def _encode_int(value: int, add: Add, _: int) -> None:
    if -(2**63) <= value < 2**64:
        add(b"i%d;" % value)
    else:  # decimal digits would take quadratic time, and Python refuses many of them
        encode_raw(b"I", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True), add)


def encode_text(value: str, add: Add, _: int) -> None:
    """Encode a string, lone surrogates included."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        data = value.encode("utf-8", "surrogatepass")
    if len(data) < LARGE:
        # MUT: keys-have-types
        add(b"s%d:%b" % (len(data), data))
    else:
        encode_raw(b"s", data, add)


def _sequence(tag: bytes) -> Encoder:
    def encode_items(value: Any, add: Add, depth: int) -> None:
        add(b"%b%d:" % (tag, len(value)))
        depth += 1
        for item in value:
            encode(item, add, depth)

    return encode_items


encode_tuple = _sequence(b"t")


def _unordered(tag: bytes) -> Encoder:
    def encode_members(value: Any, add: Add, depth: int) -> None:
        add(b"%b%d:" % (tag, len(value)))
        add(b"".join(sorted([_digest_of(item, depth + 1) for item in value])))

    return encode_members


def mapping(tag: bytes, *, ordered: bool = False) -> Encoder:
    """Return an encoder of dicts; if `ordered`, the order of their items counts."""

    def encode_pairs(value: Any, add: Add, depth: int) -> None:
        add(b"%b%d:" % (tag, len(value)))
        pairs = [(_digest_of(key, depth + 1), item) for key, item in value.items()]
        if not ordered:
            pairs.sort(key=_key_of_pair)
        for key, item in pairs:
            add(key)
            encode(item, add, depth + 1)

    return encode_pairs


def _key_of_pair(pair: tuple[bytes, object]) -> bytes:
    return pair[0]


def _encode_view(value: Any, add: Add, depth: int) -> None:
    with memoryview(value) as view:
        add(b"v")
        encode_text(view.format, add, depth)
        encode_tuple(view.shape or (), add, depth)
        is_plain = view.c_contiguous and view.nbytes
        encode_raw(b"-", view.cast("B") if is_plain else view.tobytes(), add)


def attributes(tag: bytes, *names: str) -> Encoder:
    """Return an encoder of values that the attributes `names` describe completely."""

    def encode_attributes(value: Any, add: Add, depth: int) -> None:
        add(tag)
        encode_tuple([getattr(value, name) for name in names], add, depth)

    return encode_attributes


def encode_class(tag: bytes, kind: type, add: Add, depth: int) -> None:
    """Encode the place of a class."""
    module = kind.__module__
    add(tag)
    place = naming.main_name(module) if module in ("__main__", "__mp_main__") else module
    encode_text(f"{place}:{kind.__qualname__}", add, depth)


# The encoders of built-in types and of others that are not made by a class statement: these stay.
encoders: dict[type, Encoder] = {
    type(None): lambda _value, add, _depth: add(b"N;"),
    bool: lambda value, add, _: add(b"T;" if value else b"F;"),
    int: _encode_int,
    float: lambda value, add, _: add(b"f" + _FLOAT.pack(value)),
    complex: lambda value, add, _: add(b"c" + _FLOAT.pack(value.real) + _FLOAT.pack(value.imag)),
    str: encode_text,
    bytes: lambda value, add, _: encode_raw(b"b", value, add),
    bytearray: lambda value, add, _: encode_raw(b"a", value, add),
    memoryview: _encode_view,
    list: _sequence(b"l"),
    tuple: encode_tuple,
    set: _unordered(b"S"),
    frozenset: _unordered(b"Z"),
    dict: mapping(b"d"),
    range: attributes(b"r", "start", "stop", "step"),
    slice: attributes(b"x", "start", "stop", "step"),
}
BUILT_IN = tuple(encoders)
finders: list[Finder] = []  # asked in this order about a type that is not known
_learned: WeakKeyDictionary[type, Encoder] = WeakKeyDictionary()


def learn(value: Any) -> Encoder:
    """Return the encoder of a type that is not built in; raise `UnstableError` if there is none."""
    kind = type(value)
    encoder = _learned.get(kind)
    if encoder is None:
        encoder = next(filter(None, (find(kind) for find in finders)), None)
        if encoder is None:
            raise unstable(value, "it has no stable form")
        _remember(kind, encoder)
    return encoder


def _remember(kind: type, encoder: Encoder) -> None:
    # Constraint: a class made while the program runs must be able to go; a strong table keeps it.
    if kind.__flags__ & _HEAP_TYPE:
        _learned[kind] = encoder
    else:
        encoders[kind] = encoder


def forget(kind: type) -> None:
    """Forget the encoders that were learned for `kind` and its subclasses."""
    for table in (_learned, encoders):
        for known in [known for known in table if kind in known.__mro__]:
            del table[known]


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that a program may make and drop
