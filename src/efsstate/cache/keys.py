"""Cache keys: a BLAKE2b digest of a cache's name, its version and the bound arguments of a call.

It is the same in every process, on every host and in every version of Python.
"""

from __future__ import annotations

from efsstate.cache import key_encoding
from efsstate.cache.key_encoding import UnstableError, encode, encode_class, encoders, learn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    from efsstate.cache.key_encoding import Add, Encoder

    T = TypeVar("T")

SCHEME = b"efsstate key 1;"  # raised only if the same call were to get another digest
_registered: dict[type, Encoder] = {}


def register(
    kind: type[T],
    to_parts: Callable[[T], object],
    from_parts: Callable[[Any], T] | None = None,
) -> None:
    """Accept instances of `kind` and its subclasses as arguments; with `from_parts`, as results.

    `to_parts(value)` returns a value of a type that keys know already, or a tuple of such values.
    It must be the same on every host, and differ wherever a function's result may.

    `from_parts(parts)` makes an instance of `kind` from the value that `to_parts` returned. No
    other code of the type runs when a result is read: if the process has not registered the type,
    the result is a miss. Instances of subclasses are not kept as results. Raises `TypeError` for a
    built-in type. For example:

        register(Image, lambda image: (image.size, image.data), lambda parts: Image(*parts))
    """
    if not isinstance(kind, type) or not callable(to_parts):
        raise TypeError("register(type, to_parts): a class and a function of one value are needed")
    if from_parts is not None and not callable(from_parts):
        raise TypeError("register(…, from_parts): a function of the parts is needed")
    if any(kind in known.__mro__ for known in key_encoding.BUILT_IN):
        raise TypeError(
            f"register({kind.__qualname__}, …): it is known already: register a class of your own"
        )
    key_encoding.forget(kind)  # a rule may have found encoders that this one goes before
    _registered[kind] = _encode_parts(to_parts)
    from efsstate.format.codec import registered

    registered.teach(kind, to_parts, from_parts)


def _encode_parts(to_parts: Callable[[Any], object]) -> Encoder:
    def encode_parts(value: Any, add: Add, depth: int) -> None:
        encode_class(b"R", type(value), add, depth)
        encode(to_parts(value), add, depth + 1)

    return encode_parts


def _find_registered(kind: type) -> Encoder | None:
    return next((_registered[base] for base in kind.__mro__ if base in _registered), None)


def _find_known(kind: type) -> Encoder | None:
    from efsstate.cache import key_types

    return key_types.find(kind)


key_encoding.finders[:] = [_find_registered, _find_known]


class KeyBuilder:
    """Build the digests of one cache: its name and version come before each value."""

    __slots__ = ("_hash", "_late", "_name", "start")

    def __init__(
        self, name: str, version: object, late: Callable[[str], bytes] | None = None
    ) -> None:
        # `late` returns more bytes to put before each value, which are known at the first key only.
        pieces: list[bytes] = [SCHEME]
        try:
            encode((name, version), pieces.append)
        except UnstableError as error:
            raise error.for_caller(f"{name}: version=") from None
        self._name = name
        self.start = b"".join(pieces)
        self._late = late
        self._hash: Any = None  # of `_start`: copying it is faster than hashing it again

    def digest(self, value: object, option: str = "") -> str:
        """Return the digest of a key, 48 hex digits.

        Raises `TypeError` for a key without a stable form. `option` describes a key that the
        option of a function returned.
        """
        pieces: list[bytes] = []
        try:
            encode(value, pieces.append)
        except UnstableError as error:
            place = f"{self._name}: {option}" if option else f"Cache({self._name!r})"
            raise error.for_caller(place) from None
        digest = (self._hash or self._begin()).copy()
        digest.update(b"".join(pieces))
        return digest.hexdigest()  # type: ignore[no-any-return]

    def digest_call(self, bound: Iterable[tuple[bytes, Any]]) -> str:
        """Return the digest of bound arguments, each with its name: see `signature.Parameters`."""
        pieces: list[bytes] = []
        add = pieces.append
        try:
            for name, value in bound:
                add(name)
                (encoders.get(type(value)) or learn(value))(value, add, 1)
        except UnstableError as error:
            argument = name.strip(b"=:").decode()
            place = f"{self._name}: argument {argument}"
            raise error.for_caller(place, argument=argument) from None
        digest = (self._hash or self._begin()).copy()
        digest.update(b"".join(pieces))
        return digest.hexdigest()  # type: ignore[no-any-return]

    def restart(self) -> None:
        """Ask again, at the next key, for the bytes that come before each value."""
        self._hash = None

    def _begin(self) -> Any:
        late = self._late(self._name) if self._late is not None else b""
        self._hash = key_encoding.new_hash(self.start + late)
        return self._hash
