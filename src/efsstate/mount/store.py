"""Entries at paths: what is written at a place can be read back from that place alone, whole, or not at all."""

from __future__ import annotations

from efsstate.errors import CorruptEntryError
from efsstate.format import codec, entry
from efsstate.format.entry import Entry, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from efsstate.format.entry import E
    from efsstate.mount.files import Buffer, Mount, Parts, PendingFile


def read(
    mount: Mount,
    folder: str,
    name: str,
    stale: float | None = None,
    parted: bool = False,
    kind: type[E] = Entry,  # type: ignore[assignment]  # (it is the default of E too, which mypy does not look at)
) -> E:
    """The entry at `name`, every byte checked; a `kind`.

    `stale`: the longest, in seconds, that this host's NFS client may have remembered the folder (0: ask now, a request
    more); None leaves it to the client, which remembers for up to 60 s. One that is being replaced may be missing for a
    request's time: a client that replaces a file which one of its own processes has open first renames the old one away
    (`.nfs…`, measured). `parted`: the payload of a very large `bytes` value may come as `codec.loads` takes it without a copy.

    Raises `FileNotFoundError`, `CorruptEntryError` (`SignatureError` where there is a key), `UnknownFormatError`,
    `OSError`, and `EfsStateError` for one that is larger than the memory that is free.
    """
    try:
        data = mount.read(folder, name, _part if parted else _judge, stale)
        if type(data) is tuple:
            return decode(data[0], f"{folder}/{name}", mount.path, mount.key, data[1], kind)
        return decode(data, f"{folder}/{name}", mount.path, mount.key, b"", kind)
    except CorruptEntryError:
        # A signal may have cut the read of a small file short: with its length known, that shows.
        return read_stat(mount, folder, name, None, parted, kind)[0]


def read_stat(
    mount: Mount,
    folder: str,
    name: str,
    stale: float | None = None,
    parted: bool = False,
    kind: type[E] = Entry,  # type: ignore[assignment]
) -> tuple[E, os.stat_result]:
    """The same, and the stat of the file that it was read from."""
    if stale is not None:
        mount.refresh(folder, older_than=stale)
    data, found = mount.read_stat(folder, name, judge=_part if parted else _judge)
    data, rest = data if type(data) is tuple else (data, b"")
    return decode(data, f"{folder}/{name}", mount.path, mount.key, rest, kind), found


def _judge(head: bytes, size: int, path: str) -> int:
    """Refuse what can't be an entry, or does not fit in memory, before all of it is read."""
    entry.peek(head, size, path)
    from efsstate.mount import free_memory

    # MUT: what-does-not-fit-in-memory-is-not-read
    free_memory.demand(size, path, "remove the file, if nothing of yours is that large")
    return 0


def _part(head: bytes, size: int, path: str) -> int:
    """The same; and where the bytes begin of a value that is nothing but bytes."""
    _judge(head, size, path)
    name, meta, _ = entry.labels(head, path)
    start = entry.HEADER + len(name) + len(meta)
    return codec.bytes_start(name, head, start, size)


def write(
    mount: Mount,
    folder: str,
    name: str,
    payload: Buffer | list[Buffer],
    *,
    codec: str,
    meta: bytes = b"",
    ttl: float | None = None,
    durable: bool = False,
    draft: PendingFile | None = None,
    unless: Callable[[], bool] = bool,
) -> bool:
    """Put an entry at `name` in one step, in place of any before it. Raises `OSError`; then the old one stands.

    With a `draft` in that folder: False, and nothing changed, where that or `unless` keeps it back (`Draft.become`).
    """
    build = _builder(mount, folder, name, payload, codec, meta, ttl)
    if draft is not None:
        return draft.commit(name, build, unless=unless)
    mount.replace(folder, name, build, durable=durable)
    return True


def create(
    mount: Mount,
    folder: str,
    name: str,
    payload: Buffer | list[Buffer],
    *,
    codec: str,
    meta: bytes = b"",
    ttl: float | None = None,
    exclusive: bool = False,
) -> None:
    """Make an entry that never changes, durably, under its final name; half written it reads as damaged.

    Raises `OSError`; then the name may hold a torn entry, and must not be used again.
    """
    mount.create(
        folder, name, _builder(mount, folder, name, payload, codec, meta, ttl), exclusive=exclusive
    )


def _builder(
    mount: Mount,
    folder: str,
    name: str,
    payload: Buffer | list[Buffer],
    codec: str,
    meta: bytes,
    ttl: float | None,
) -> Callable[[float], Parts]:
    place = f"{folder}/{name}"

    def build(created: float) -> Parts:
        return entry.encode(
            payload, place=place, codec=codec, meta=meta, created=created, ttl=ttl, key=mount.key
        )

    return build
