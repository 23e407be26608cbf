"""Encode Python's own types that MessagePack lacks, and decode them."""

from __future__ import annotations

import struct

from efsstate.format.codec.wire import (
    APART,
    BYTEARRAY,
    COMPLEX,
    DICT,
    FROZENSET,
    INT,
    LARGE,
    SET,
    TEXT,
    TUPLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.format.codec.wire import Encoder, In, Out


def _encode_tuple(value: Any, out: Out) -> object:
    return out.mark(TUPLE, *out.items(value))


def _encode_set(code: int) -> Encoder:
    def encode(value: Any, out: Out) -> object:
        return out.mark(code, *(value if out.are_plain(value) else out.keys(value)))

    return encode


def _encode_complex(value: Any, out: Out) -> object:
    return out.extension(COMPLEX, struct.pack("<dd", value.real, value.imag))


def _encode_bytearray(value: Any, out: Out) -> object:
    if out.is_careful and len(value) >= APART:
        return out.put_apart(bytes(value), bytearray)
    return out.extension(BYTEARRAY, bytes(value))


ENCODERS: dict[int, Encoder] = {
    TUPLE: _encode_tuple,
    SET: _encode_set(SET),
    FROZENSET: _encode_set(FROZENSET),
    COMPLEX: _encode_complex,
    BYTEARRAY: _encode_bytearray,
}


def _decode_int(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _decode_complex(data: bytes) -> complex:
    return complex(*struct.unpack("<dd", data))


def _decode_set(into: In, *items: Any) -> set[Any]:
    into.require_hashable(items)
    return set(items)


def _decode_frozenset(into: In, *items: Any) -> frozenset[Any]:
    into.require_hashable(items)
    return frozenset(items)


def _decode_dict(into: In, *parts: Any) -> dict[Any, Any]:
    into.require_hashable(parts[::2])
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _decode_large(into: In, kind: int, nbytes: int) -> str | bytes | bytearray:
    data = into.take(nbytes)
    if kind == 1:
        return str(data, "utf-8", "surrogatepass")
    return bytearray(data) if kind else bytes(data)


DECODERS: dict[int, Callable[..., Any]] = {
    TUPLE: lambda _, *items: items,
    INT: _decode_int,
    SET: _decode_set,
    FROZENSET: _decode_frozenset,
    COMPLEX: _decode_complex,
    BYTEARRAY: bytearray,
    DICT: _decode_dict,
    TEXT: _decode_text,
    LARGE: _decode_large,
}
