"""Encode Python's own types that MessagePack lacks, and decode them."""

from __future__ import annotations

import struct

from efsstate.format.codec.wire import (
    BYTEARRAY,
    COMPLEX,
    DICT,
    FROZENSET,
    INT,
    SET,
    TUPLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Encoder, In, Out


def _encode_sequence(code: int) -> Encoder:
    def encode(value: Any, out: Out) -> object:
        return out.mark(code, *out.items(value))

    return encode


def _encode_complex(value: Any, out: Out) -> object:
    return out.extension(COMPLEX, struct.pack("<dd", value.real, value.imag))


def _encode_bytearray(value: Any, out: Out) -> object:
    return out.extension(BYTEARRAY, bytes(value))


ENCODERS: dict[int, Encoder] = {
    TUPLE: _encode_sequence(TUPLE),
    SET: _encode_sequence(SET),
    FROZENSET: _encode_sequence(FROZENSET),
    COMPLEX: _encode_complex,
    BYTEARRAY: _encode_bytearray,
}


def _decode_int(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _decode_complex(data: bytes) -> complex:
    return complex(*struct.unpack("<dd", data))


def _decode_dict(_: In, *parts: Any) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


DECODERS: dict[int, Callable[..., Any]] = {
    TUPLE: lambda _, *items: items,
    INT: _decode_int,
    SET: lambda _, *items: set(items),
    FROZENSET: lambda _, *items: frozenset(items),
    COMPLEX: _decode_complex,
    BYTEARRAY: bytearray,
    DICT: _decode_dict,
}
