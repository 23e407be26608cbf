"""Encode one save as an entry, and decode it: what goes into its meta, its payload and its state.

    meta    = head digest
    head    = version u8 · flags u8 · schema u32 · saves u64 · items u64 · moved u64 · tries u16
              skipped u32 · behind u16 · shown u16 · name u16
              (epoch u64 · number u64)* · position as text · name
    digest  = 16 bytes, over the head, bound to the save's place
    payload = length u32 · tail · state
    tail    = MessagePack list: position, result, and a map if there are phases, skipped items or
              a last error

All numbers are little endian. The head has a checksum of its own, so that the first kilobytes of a
save are enough to tell how far its job is. A head that begins as a MessagePack map is of the format
before; it is read.
"""

from __future__ import annotations

import struct
from itertools import chain

from efsstate.errors import (
    CorruptEntryError,
    EfsStateError,
    EncodeError,
    SignatureError,
    UnknownFormatError,
)
from efsstate.format import codec as codecs
from efsstate.format import entry, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.mount.files import Buffer, Mount

    Key = tuple[int, int]

_LENGTH = struct.Struct("<I")
_MAPS = frozenset(bytes([byte]) for byte in range(0x80, 0x90))  # how a MessagePack map begins
_HEAD = struct.Struct("<BBIQQQHIHHH")
_VERSION = 1
_FINISHED, _EMPTY, _LEFT = 1, 2, 4
_NO_TAIL = b"\x92\xc0\xc0"  # no position and no result, as most tails are
_DIGEST = 16
_DEEPEST = 100  # levels of a state that are searched for the part that can't be saved
# Types of states and positions that no code can change in place.
FIXED = frozenset({type(None), bool, int, float, complex, str, bytes})
_SHOWN = 200  # characters of the position that people see
_NAME = 1200  # bytes of a name that its folder cannot give back
HEAD_BYTES = 4096  # hold the header and the meta of any save


def own(position: Any) -> Any:
    """Return the position, or a copy if code outside may change it in place."""
    if type(position) in FIXED:
        return position
    from copy import deepcopy

    try:
        return deepcopy(position)
    except TypeError as error:
        raise TypeError(
            f"position: {position!r:.200} can't be copied ({error}); give a number, a text, or a"
            " list or dict of them"
        ) from None


class Save:
    """One save: `key` is (epoch, number), `behind` the valid ones before it, `state` encoded.

    `shown` is the position as people read it; `created` and `ttl` are seconds. A save with `empty`
    is left by a reset: it has no state at all. `moved` is the epoch in which the position last
    moved, `tries` how often the item after it was begun, as far as that was noted, and `left` that
    its claim ended in order. `name` is the checkpoint's if its folder cannot give it back.
    """

    __slots__ = (
        "behind",
        "codec",
        "created",
        "empty",
        "finished",
        "items",
        "key",
        "left",
        "moved",
        "name",
        "notes",
        "position",
        "result",
        "saves",
        "schema",
        "shown",
        "size",
        "skipped",
        "state",
        "tries",
        "ttl",
    )

    def __init__(self, key: Key) -> None:
        self.key = key
        self.schema = 1
        self.saves = self.items = self.size = self.moved = self.tries = self.skipped = 0
        self.finished = self.empty = self.left = False
        self.behind: list[Key] = []
        self.shown = self.codec = self.name = ""
        self.notes: dict[str, Any] = {}  # phases, skipped items, the last error
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
    position, tail = save.position, _pack_tail(save)
    text = "" if position is None else position if isinstance(position, str) else repr(position)
    shown = text[:_SHOWN].encode(errors="replace")
    flags = (_FINISHED * save.finished) | (_EMPTY * save.empty) | (_LEFT * save.left)
    name = save.name.encode()[:_NAME]
    numbers = [*chain.from_iterable(save.behind)]
    head = _HEAD.pack(
        _VERSION,
        flags,
        save.schema,
        save.saves,
        save.items,
        save.moved,
        min(save.tries, 0xFFFF),
        save.skipped,
        len(save.behind),
        len(shown),
        len(name),
    )
    head += struct.pack(f"<{len(numbers)}Q", *numbers) + shown + name
    meta = head + entry.digest(mount.key, place(folder, save.key), head)
    return meta, [_LENGTH.pack(len(tail)) + tail, *save.state]


def _pack_tail(save: Save) -> bytes:
    position = save.position
    if save.result is None and not save.notes:
        # Nearly every tail is one of these, which is written here as MessagePack has it.
        if position is None:
            return _NO_TAIL
        if type(position) is int and 0 <= position < 2**63:
            return b"\x92\xcf" + position.to_bytes(8, "big") + b"\xc0"
    try:
        parts = codecs.dumps([position, save.result, *([save.notes] if save.notes else ())])
    except EncodeError as error:
        raise _tail_error(save) from error
    return parts if type(parts) is bytes else b"".join(map(bytes, parts))


def _tail_error(save: Save) -> EncodeError:
    """Return the error for a position or result that MessagePack cannot hold.

    The codec option is for the state alone, so another codec would not help.
    """
    for what, value in (("position", save.position), ("result", save.result)):
        try:
            codecs.dumps(value)
        except EncodeError:
            kind = type(value).__qualname__
            return EncodeError(
                f"the {what}{_shown(value)}: a {kind} can't be saved; give a {what} of plain"
                " values, such as a string, a number or a date"
            )
    return EncodeError("the skipped items: they can't be saved; give plain values as items")


def _shown(value: object) -> str:
    """Return a value as an error shows it; "" if it cannot be shown."""
    try:
        return f" {value!r:.80}"
    except Exception:
        return ""


def unpack(mount: Mount, folder: str, key: Key, stored: entry.Entry) -> Save:
    """Return the save in a verified entry.

    Raises `CorruptEntryError` if the entry's content is not a save's.
    """
    save = _unpack_head(mount, folder, key, stored.meta)
    try:
        payload = memoryview(stored.payload)
        (length,) = _LENGTH.unpack_from(payload)
        _fill_from_tail(save, codecs.loads(payload[4 : 4 + length]))
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
        if head[:1] in _MAPS:
            _fill_from_map(save, codecs.loads(head))
        elif head[0] > _VERSION:
            raise UnknownFormatError(mount.path_of(folder, layout.generation_name(*key)), head[0])
        else:
            _fill_from_head(save, head)
    except (ValueError, TypeError, LookupError, struct.error) as error:
        path = f"{mount.path}/{place(folder, key)}"
        raise CorruptEntryError(path, f"not a save: {error}") from None
    return save


def _fill_from_tail(save: Save, tail: list[Any]) -> None:
    save.position, save.result, *notes = tail
    save.notes = notes[0] if notes else {}
    if len(notes) > 1 or type(save.notes) is not dict:
        raise ValueError("its tail is not one that this release writes")


def _fill_from_head(save: Save, head: bytes) -> None:
    fields = _HEAD.unpack_from(head)
    version, flags, save.schema, save.saves, save.items, save.moved, save.tries = fields[:7]
    save.skipped, behind, shown, name = fields[7:]
    start = _HEAD.size + 16 * behind
    is_whole = len(head) == start + shown + name
    if version != _VERSION or flags > _FINISHED | _EMPTY | _LEFT or not is_whole:
        raise ValueError("its head is not one that this release writes")
    numbers = struct.unpack_from(f"<{2 * behind}Q", head, _HEAD.size)
    save.behind = list(zip(numbers[::2], numbers[1::2], strict=True))
    save.finished, save.empty = bool(flags & _FINISHED), bool(flags & _EMPTY)
    save.left = bool(flags & _LEFT)
    save.shown = head[start : start + shown].decode()
    save.name = head[start + shown :].decode(errors="replace")


def _fill_from_map(save: Save, fields: Any) -> None:
    """Fill a save from the head that was written before there were attempts: a MessagePack map."""
    save.schema, save.saves, save.items = (fields[key] for key in ("schema", "saves", "items"))
    save.finished, save.empty = fields["finished"], fields["empty"]
    save.behind = [(epoch, number) for epoch, number in fields["behind"]]
    save.shown = fields["position"]
    numbers = [save.schema, save.saves, save.items, *(n for key in save.behind for n in key)]
    is_flags = type(save.finished) is bool and type(save.empty) is bool
    if not is_flags or type(save.shown) is not str:
        raise ValueError("a field of its head is of the wrong kind")
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a number of its head is of the wrong kind")


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
            place, reason = self._find_culprit(state, error)
            raise EncodeError(
                f"{place} can't be saved, and earlier saves stand: {reason}"
            ) from error
        if type(encoded) is bytes:
            return [encoded]
        parts = encoded if isinstance(encoded, list) else [encoded]
        # An array that changed between its checksum and its write would be saved damaged: copy it.
        # MUT: what-is-saved-is-a-copy
        return [part if type(part) is bytes else bytes(part) for part in parts]

    def _find_culprit(self, state: Any, error: EncodeError) -> tuple[str, EncodeError]:
        """Return the place of the smallest part of `state` that can't be encoded, and why."""
        place = ""
        for _ in range(_DEEPEST):
            kind = type(state)  # `isinstance` would run code of an object that lies about itself
            parts = enumerate(state) if issubclass(kind, (list, tuple)) else ()
            for key, part in state.items() if issubclass(kind, dict) else parts:
                try:
                    self._dumps(part)
                except EncodeError as inner:
                    place, state, error = f"{place}[{key!r:.80}]", part, inner
                    break
            else:
                break
        return f"state{place}" if place else "the state", error

    def copy(self, state: Any) -> Any:
        """Return a copy of `state` by way of its bytes. Raises `EncodeError`."""
        return state if state is None else self._loads(b"".join(self.encode(state)))

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
