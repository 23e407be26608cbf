"""Encode values of types that `efsstate.register` was given both ways for, and rebuild them.

Bytes name such a type, and choose no code: what runs is the function that this process registered
under that name.
"""

from __future__ import annotations

from efsstate.format.codec import inspection, wire
from efsstate.format.codec.wire import REGISTERED, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Encoder, In, Out

    Ways = tuple[type, Callable[[Any], object], Callable[[Any], object]]

_known: dict[tuple[str, str], Ways] = {}  # by the module and the name of the type


def _name_of(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def teach(
    kind: type, to_parts: Callable[[Any], object], from_parts: Callable[[Any], object] | None
) -> None:
    """Keep the instances of `kind` by their parts; without `from_parts`, no longer."""
    wire.teach(kind, None if from_parts is None else _encode_registered)
    if from_parts is not None:
        _known[_name_of(kind)] = kind, to_parts, from_parts
    elif _known.get(_name_of(kind), (None,))[0] is kind:
        del _known[_name_of(kind)]


def _encode_registered(value: Any, out: Out) -> object:
    kind = type(value)
    ways = _known.get(_name_of(kind))
    if ways is None or ways[0] is not kind:
        raise refusal(value, "another class was registered under its name")
    if inspection.hashes_by_its_own_code(kind):
        out.own_hashes += 1
    return out.mark(REGISTERED, *_name_of(kind), out.prepare(ways[1](value)))


ENCODERS: dict[int, Encoder] = {REGISTERED: _encode_registered}


def _decode_registered(into: In, module: str, qualname: str, parts: Any) -> Any:
    ways = _known.get((module, qualname))
    if ways is None:
        raise ValueError(f"the class {module}.{qualname} is not registered with from_parts")
    kind, _, from_parts = ways
    if inspection.hashes_by_its_own_code(kind):
        into.note_own_hash()
    value = from_parts(parts)
    # MUT: what-is-rebuilt-has-its-type
    if type(value) is not kind:
        raise ValueError(f"from_parts of {module}.{qualname} returned a {type(value).__qualname__}")
    return value


DECODERS: dict[int, Callable[..., Any]] = {REGISTERED: _decode_registered}
