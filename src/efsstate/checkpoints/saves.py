"""One save as an entry: what goes into its meta and its payload, and back.

    meta    = head (MessagePack map) digest (16 bytes, over the head, at the generation's place)
    payload = length (u32, little endian) tail (MessagePack list: position, result) state

The meta has a checksum of its own, so that whoever only wants to know how far a job is reads the first kilobyte.
"""

from __future__ import annotations

import struct

from efsstate.errors import CorruptEntryError, EncodeError, SignatureError
from efsstate.format import codec as codecs
from efsstate.format import entry, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from efsstate.mount.files import Buffer, Mount

_LENGTH = struct.Struct("<I")
_DIGEST = 16
_SHOWN = 200  # characters of the position that people see
HEAD = 4096  # bytes that hold the header and the meta of any generation


class Save:
    """A save: `key` is (epoch, number), `behind` the valid ones before it, `state` still encoded; times in seconds.

    `shown` is the position as people read it. A generation with `empty` is what a reset leaves: no state at all.
    """

    __slots__ = ("behind", "codec", "created", "empty", "finished", "items", "key", "position", "result", "saves", "schema", "shown", "size", "state", "ttl")  # fmt: skip

    def __init__(self, key: tuple[int, int], head: dict[str, Any]) -> None:
        self.key = key
        self.schema: int = head["schema"]
        self.saves: int = head["saves"]
        self.items: int = head["items"]
        self.finished: bool = head["finished"]
        self.empty: bool = head["empty"]
        self.behind: list[tuple[int, int]] = [(epoch, number) for epoch, number in head["behind"]]
        self.shown: str = head["position"]
        self.created = 0.0
        self.ttl: float | None = None
        self.size = 0
        self.codec = ""
        self.position: Any = None
        self.result: Any = None
        self.state: memoryview = memoryview(b"")


def pack(
    mount: Mount,
    folder: str,
    key: tuple[int, int],
    *,
    state: Buffer | list[Buffer],
    position: Any,
    result: Any,
    finished: bool,
    empty: bool,
    schema: int,
    saves: int,
    items: int,
    behind: list[tuple[int, int]],
) -> tuple[bytes, list[Buffer]]:
    """The meta and the payload of a generation. Raises `EncodeError` for a position or result that MessagePack can't keep."""
    head = {
        "schema": schema,
        "saves": saves,
        "items": items,
        "finished": finished,
        "empty": empty,
        "behind": [list(one) for one in behind],
        "position": "" if position is None else _shown(position),
    }
    packed = b"".join(map(bytes, _parts(codecs.dumps(head))))
    try:
        tail = b"".join(map(bytes, _parts(codecs.dumps([position, result]))))
    except EncodeError as error:
        raise EncodeError(f"the position {position!r:.80} or the result: {error}") from error
    meta = packed + entry.digest(mount.key, _place(folder, key), packed)
    return meta, [_LENGTH.pack(len(tail)) + tail, *_parts(state)]


def unpack(mount: Mount, folder: str, key: tuple[int, int], found: entry.Entry) -> Save:
    """The generation in a verified entry. Raises `CorruptEntryError` where its inside is not a generation's."""
    made = _head(mount, folder, key, found.meta)
    try:
        payload = memoryview(found.payload)
        (length,) = _LENGTH.unpack_from(payload)
        made.position, made.result = codecs.loads(payload[4 : 4 + length])
    except (ValueError, TypeError, struct.error) as error:
        raise CorruptEntryError(
            mount.path_of(folder, layout.generation_name(*key)), f"not a generation: {error}"
        ) from None
    made.state = payload[4 + length :]
    made.codec, made.created, made.ttl = found.codec, found.created, found.ttl
    made.size = len(payload)
    return made


def glance(mount: Mount, folder: str, key: tuple[int, int]) -> Save:
    """The generation without its state, position and result, from its first bytes alone: for showing, not for going on.

    Raises `FileNotFoundError`, `CorruptEntryError`, `UnknownFormatError`, `OSError`.
    """
    name = layout.generation_name(*key)
    path = mount.path_of(folder, name)
    raw, found = mount.read_stat(folder, name, HEAD)
    data = bytes(raw)
    created, ttl = entry.peek(data[: entry.HEADER], found.st_size, path)
    codec, meta, _ = entry.labels(data, path)
    made = _head(mount, folder, key, meta)
    made.codec, made.created, made.ttl, made.size = codec, created, ttl, found.st_size
    return made


def _head(mount: Mount, folder: str, key: tuple[int, int], meta: bytes) -> Save:
    packed, digest = meta[:-_DIGEST], meta[-_DIGEST:]
    path = mount.path_of(folder, layout.generation_name(*key))
    if entry.digest(mount.key, _place(folder, key), packed) != digest:
        kind = SignatureError if mount.key else CorruptEntryError
        raise kind(path, "its meta does not match its checksum")
    try:
        made = Save(key, codecs.loads(packed))
    except (ValueError, TypeError, LookupError) as error:
        raise CorruptEntryError(path, f"not a generation: {error}") from None
    numbers = [
        made.schema,
        made.saves,
        made.items,
        *[number for one in made.behind for number in one],
    ]
    flags = type(made.finished) is bool and type(made.empty) is bool and type(made.shown) is str
    if not flags or any(type(number) is not int or number < 0 for number in numbers):
        raise CorruptEntryError(path, "not a generation: a field is of the wrong kind")
    return made


def _place(folder: str, key: tuple[int, int]) -> str:
    return f"{folder}/{layout.generation_name(*key)}"


def _parts(made: Buffer | list[Buffer]) -> list[Buffer]:
    return made if isinstance(made, list) else [made]


def _shown(position: object) -> str:
    text = position if isinstance(position, str) else repr(position)
    return text[:_SHOWN].encode(errors="replace").decode()
