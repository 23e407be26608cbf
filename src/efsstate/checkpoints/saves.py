"""Encode one save as an entry, and decode it: what goes into its meta, its payload and its state.

    meta    = head digest
    head    = version u8 · flags u8 · schema u32 · saves u64 · items u64
              behind u16 · shown u16 · (epoch u64 · number u64)* · position as text
    digest  = 16 bytes, over the head, bound to the save's place
    payload = length u32 · tail · state
    tail    = MessagePack list: position, result

All numbers are little endian. The head has a checksum of its own, so that the first kilobytes of a
save are enough to tell how far its job is.
"""

from __future__ import annotations

import struct

from efsstate.errors import CorruptEntryError, EfsStateError, EncodeError, SignatureError
from efsstate.format import codec as codecs
from efsstate.format import entry, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.mount.files import Buffer, Mount

    Key = tuple[int, int]

_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<BBIQQHH")
_VERSION = 1
_FINISHED, _EMPTY = 1, 2
_DIGEST = 16
_SHOWN = 200  # characters of the position that people see
HEAD_BYTES = 4096  # hold the header and the meta of any save


class Save:
    """One save: `key` is (epoch, number), `behind` the valid ones before it, `state` encoded.

    `shown` is the position as people read it; `created` and `ttl` are seconds. A save with `empty`
    is left by a reset: it has no state at all.
    """

    __slots__ = (
        "behind",
        "codec",
        "created",
        "empty",
        "finished",
        "items",
        "key",
        "position",
        "result",
        "saves",
        "schema",
        "shown",
        "size",
        "state",
        "ttl",
    )

    def __init__(self, key: Key) -> None:
        self.key = key
        self.schema = 1
        self.saves = self.items = self.size = 0
        self.finished = self.empty = False
        self.behind: list[Key] = []
        self.shown = self.codec = ""
        self.created = 0.0
        self.ttl: float | None = None
        self.position: Any = None
        self.result: Any = None
        self.state: Any = b""


def place(folder: str, key: Key) -> str:
    """Return where a save lies below the root."""
    return f"{folder}/{key[0]}-{key[1]}"


def pack(mount: Mount, folder: str, save: Save) -> tuple[bytes, list[Buffer]]:
    """Return the meta and the payload of `save`, whose state is a list of buffers.

    Raises `EncodeError` for a position or result that MessagePack cannot hold.
    """
    position = save.position
    try:
        parts = codecs.dumps([position, save.result])
    except EncodeError as error:
        raise EncodeError(f"the position {position!r:.80} or the result: {error}") from error
    tail = parts if type(parts) is bytes else b"".join(map(bytes, parts))
    text = "" if position is None else position if isinstance(position, str) else repr(position)
    shown = text[:_SHOWN].encode(errors="replace")
    flags = (_FINISHED if save.finished else 0) | (_EMPTY if save.empty else 0)
    numbers = [number for key in save.behind for number in key]
    head = _HEAD.pack(
        _VERSION, flags, save.schema, save.saves, save.items, len(save.behind), len(shown)
    )
    head += struct.pack(f"<{len(numbers)}Q", *numbers) + shown
    meta = head + entry.digest(mount.key, place(folder, save.key), head)
    return meta, [_LENGTH.pack(len(tail)) + tail, *save.state]


def unpack(mount: Mount, folder: str, key: Key, stored: entry.Entry) -> Save:
    """Return the save in a verified entry.

    Raises `CorruptEntryError` if the entry's content is not a save's.
    """
    save = _unpack_head(mount, folder, key, stored.meta)
    try:
        payload = memoryview(stored.payload)
        (length,) = _LENGTH.unpack_from(payload)
        save.position, save.result = codecs.loads(payload[4 : 4 + length])
    except (ValueError, TypeError, struct.error) as error:
        path = f"{mount.path}/{place(folder, key)}"
        raise CorruptEntryError(path, f"not a save: {error}") from None
    save.state = payload[4 + length :]
    save.codec, save.created, save.ttl = stored.codec, stored.created, stored.ttl
    save.size = len(payload)
    return save


def read_header(mount: Mount, folder: str, key: Key) -> Save:
    """Return a save without its state, position and result, from its first bytes alone.

    It is for showing, not for going on. Raises `FileNotFoundError`, `CorruptEntryError`,
    `UnknownFormatError`, `OSError`.
    """
    name = layout.generation_name(*key)
    path = mount.path_of(folder, name)
    raw, stat = mount.read_stat(folder, name, HEAD_BYTES)
    data = bytes(raw)
    created, ttl = entry.peek(data[: entry.HEADER], stat.st_size, path)
    codec, meta, _ = entry.labels(data, path)
    save = _unpack_head(mount, folder, key, meta)
    save.codec, save.created, save.ttl, save.size = codec, created, ttl, stat.st_size
    return save


def _unpack_head(mount: Mount, folder: str, key: Key, meta: bytes) -> Save:
    head = meta[:-_DIGEST]
    if entry.digest(mount.key, place(folder, key), head) != meta[-_DIGEST:]:
        kind = SignatureError if mount.key else CorruptEntryError
        path = f"{mount.path}/{place(folder, key)}"
        raise kind(path, "its meta does not match its checksum")
    save = Save(key)
    try:
        _fill_from_head(save, head)
    except (ValueError, struct.error) as error:
        path = f"{mount.path}/{place(folder, key)}"
        raise CorruptEntryError(path, f"not a save: {error}") from None
    return save


def _fill_from_head(save: Save, head: bytes) -> None:
    version, flags, save.schema, save.saves, save.items, behind, shown = _HEAD.unpack_from(head)
    start = _HEAD.size + 16 * behind
    if version != _VERSION or flags > _FINISHED | _EMPTY or len(head) != start + shown:
        raise ValueError("its head is not one that this release writes")
    numbers = struct.unpack_from(f"<{2 * behind}Q", head, _HEAD.size)
    save.behind = list(zip(numbers[::2], numbers[1::2], strict=True))
    save.finished, save.empty = bool(flags & _FINISHED), bool(flags & _EMPTY)
    save.shown = head[start:].decode()


class States:
    """Encode and decode the states of one checkpoint.

    `codec` is the codec's name, `schema` the number that this code knows.
    """

    def __init__(
        self, codec: Any, schema: int, migrate: Callable[[Any, int], Any] | None, *, signed: bool
    ) -> None:
        self.codec, self._dumps, self._loads = codecs.resolve_codec(codec, signed=signed)
        self.schema = schema
        self._migrate = migrate

    def encode(self, state: Any) -> list[Buffer]:
        """Return the state as bytes that nothing can change any more. Raises `EncodeError`."""
        try:
            encoded = self._dumps(state)
        except EncodeError as error:
            raise EncodeError(
                f"the state can't be saved, and earlier saves stand: {error}"
            ) from error
        if type(encoded) is bytes:
            return [encoded]
        parts = encoded if isinstance(encoded, list) else [encoded]
        # An array that changed between its checksum and its write would be saved damaged: copy it.
        # MUT: what-is-saved-is-a-copy
        return [part if type(part) is bytes else bytes(part) for part in parts]

    def decode(self, save: Save, path: str) -> Any:
        """Return the state of `save`, which is at `path`; None if it has none.

        Raises `EfsStateError`.
        """
        if save.schema > self.schema:
            raise EfsStateError(
                f"{path}: its state has schema {save.schema}, this code knows schema={self.schema}:"
                " it was saved by a newer deployment and is left as it is; run that deployment's"
                " code, or a newer one"
            )
        if save.empty:
            return None
        if save.codec != self.codec:
            raise EfsStateError(
                f"{path}: its state was saved with codec {save.codec!r}, not {self.codec!r}:"
                " pass that codec"
            )
        try:
            state = self._loads(save.state)
        except ValueError as error:
            raise EfsStateError(f"{path}: the state can't be read: {error}") from error
        if save.schema == self.schema:
            return state
        if self._migrate is None:
            raise EfsStateError(
                f"{path}: its state has schema {save.schema}, this code has schema={self.schema}:"
                " pass migrate=, a function of the old state and its schema that returns the new"
                " state"
            )
        return self._migrate(state, save.schema)
