r"""The codec "msgpack": values to bytes and back, exactly, without running code that they name.

A value that MessagePack can't hold is an extension: some carry their bytes,

    2 int beyond 64 bits   5 complex   6 bytearray   7 Decimal   8 UUID
    20 text with lone surrogates

the others are empty, begin an array, and say that it stands for a

    1 tuple   3 set   4 frozenset   9 date   10 time   11 datetime   12 timedelta   13 numpy array
    14 numpy scalar   15 dataclass   16 namedtuple   17 enum member   18 path
    19 dict with keys that MessagePack can't hold   21 bytes or text of a message beyond 4 GiB
    22 pydantic model   23 frame or series of pandas or polars   24 image of Pillow
    25 tensor of torch   26 instance of a type that `register` taught both ways

(no value is a message within a message: reading one would take as much of the C stack as a thread
may have). A payload with such an array, or with numpy arrays, which lie outside of the message so
that they are never copied into it, says so:

    payload = message | "\xc1" length message padding (array padding)*
    length  = u32, little endian, the message's; every array begins at a multiple of 64 bytes from
              the payload's start

A value that can't be kept exactly (a subclass of int, an object, a cycle, an array of objects, …)
is an `EncodeError`, and never changed silently. Bytes that can't be read are a `ValueError`,
whatever they are.
"""

from __future__ import annotations

import msgpack  # type: ignore[import-untyped]

from efsstate.errors import EncodeError
from efsstate.format.codec.wire import (
    INT,
    PLAIN,
    In,
    NeedsStrictKeys,
    Out,
    carried,
    padding,
    plain_map,
    refusal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.format.codec.wire import Buffer

# How a timestamp is decoded, MessagePack's own extension, which never reaches `ext_hook`. Nothing
# here writes one. As a float it is a plain value; the default is an object that `dumps` refuses.
_AS_FLOAT = 1
_APART = b"\xc1"  # the one first byte that MessagePack never uses

_pack, _unpack, _extension = msgpack.packb, msgpack.unpackb, msgpack.ExtType


def _encode_large_int(value: object) -> object:
    if type(value) is int:  # all that reaches this is beyond 64 bits
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return _extension(INT, data)
    raise refusal(value)


def _encode_message(value: Any, out: Out) -> bytes:
    message: bytes = _pack(out.prepare(value), default=_encode_large_int, strict_types=True)
    return message


def dumps(value: Any) -> Buffer | list[Buffer]:
    """Return `value` as a payload: bytes, or, if it has numpy arrays, a list of buffers.

    Some of these are the arrays themselves. Raise `EncodeError` for a value that would not come
    back as it is.
    """
    # The usual value is plain: MessagePack keeps it, and all in it, as it is.
    kind = type(value)
    if kind in PLAIN or (
        (kind is list or kind is dict)
        and PLAIN.issuperset(map(type, value))
        and (kind is list or PLAIN.issuperset(map(type, value.values())))
    ):
        try:
            message: bytes = _pack(value, default=_encode_large_int, strict_types=True)
            return message  # noqa: TRY300
        except (ValueError, OverflowError, MemoryError, EncodeError):
            pass  # a lone surrogate, or beyond 4 GiB: taken apart below
    return _dumps_by_parts(value)


def _dumps_by_parts(value: Any, *, is_again: bool = False) -> Buffer | list[Buffer]:
    """Do as `dumps`, for a value that MessagePack does not keep as it is."""
    out = Out(_extension)
    try:
        try:
            message = _encode_message(value, out)
        except EncodeError:
            raise
        except (ValueError, OverflowError, MemoryError):
            # A lone surrogate, or more than 4 GiB: look at each text and each bytes.
            out = Out(_extension, is_careful=True)
            message = _encode_message(value, out)
    except EncodeError:
        raise
    except Exception as error:
        if not is_again:
            _dumps_by_parts(value, is_again=True)
            raise  # the value can be stored: a signal handler raised
        # A library's or a class's own code may raise anything: the caller keeps its result.
        raise EncodeError(
            f"the value can't be stored as msgpack: {type(error).__name__}: {error}"
        ) from error
    if not out.is_marked:
        return message
    head = _APART + len(message).to_bytes(4, "little") + message
    if not out.arrays:
        return head
    parts: list[Buffer] = [head + bytes(padding(len(head)))]
    for array in out.arrays:
        parts.append(array)
        nbytes = memoryview(array).nbytes
        if padding(nbytes):
            parts.append(bytes(padding(nbytes)))
    return parts


def bytes_head(size: int) -> bytes:
    """Return the message's head of a value that is `size` bytes, fewer than 4 GiB.

    So a caller can write such a value from several buffers, without a copy of it in one.
    """
    if size < 1 << 8:
        return b"\xc4" + size.to_bytes(1, "big")
    if size < 1 << 16:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def bytes_start(name: str, head: bytes, start: int, size: int) -> int:
    """Return where the bytes begin of a value that is all long bytes; 0 for any other.

    `name` is the codec's, `head` the first of `size` bytes of a file, and its payload begins at
    `start`. The bytes read from there on are the value: `loads` takes the payload in two parts, and
    copies none.
    """
    prefix = b"\xc6" + max(0, size - start - 5).to_bytes(8, "big")[4:]
    is_bytes = name == "msgpack" and head[start : start + 5] == prefix
    return start + 5 if is_bytes else 0


def _decode_message(message: memoryview, into: In) -> Any:
    return _unpack(
        message,
        ext_hook=into.extension,
        list_hook=into.array,
        object_pairs_hook=plain_map if into.is_strict else None,
        strict_map_key=False,
        timestamp=_AS_FLOAT,
    )


def loads(payload: Any, *, is_again: bool = False) -> Any:
    """Return the value in `payload`; it is the caller's own.

    Of a payload in two parts, the second is the value (`bytes_start`). A numpy array is a view into
    `payload` if that is writable (a bytearray of the caller's own), else a copy. Raise `ValueError`
    for anything that `dumps` did not make.
    """
    if type(payload) is tuple:
        return payload[1]
    try:
        if payload[0] != _APART[0]:
            return _unpack(payload, ext_hook=carried, strict_map_key=False, timestamp=_AS_FLOAT)
        view = memoryview(payload)
        length = 5 + int.from_bytes(view[1:5], "little")
        end = length if length == len(view) else length + padding(length)
        into = In(view, end)
        try:
            value = _decode_message(view[5:length], into)
        except NeedsStrictKeys:
            into = In(view, end, is_strict=True)
            value = _decode_message(view[5:length], into)
        if into.position != len(view) or into.open_marks:
            raise ValueError("its arrays or its marks do not add up")  # noqa: TRY301
    except Exception as error:
        # MUT: an-alarm-is-no-damage
        if not is_again:
            loads(payload, is_again=True)
            raise  # the bytes are a value: a signal handler raised
        # Whatever it was (a FormatError, a KeyError, a MemoryError of a hostile length), the bytes
        # are no value.
        raise ValueError(f"its payload can't be read: {type(error).__name__}: {error}") from error
    else:
        return value
