"""Store entries at paths: one is read back from its own path alone, whole, or not at all."""

from __future__ import annotations

from functools import partial

from efsstate.errors import CorruptEntryError
from efsstate.format import entry
from efsstate.format.entry import Entry, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.format.entry import E
    from efsstate.mount.drafts import PendingFile
    from efsstate.mount.files import Buffer, Mount


def read(
    mount: Mount,
    folder: str,
    name: str,
    stale: float | None = None,
    parted: bool = False,
    kind: type[E] = Entry,  # type: ignore[assignment]  # E's default, which mypy does not look at
    with_stat: bool = False,
) -> E:
    """Return the entry at `name`, every byte checked.

    stale      the longest, in seconds, that this host's NFS client may have remembered the folder
               (0: ask now, one request more); None leaves it to the client: up to 60 s
    parted     the payload of a very large `bytes` value may come as `codec.loads` takes it without
               a copy
    kind       the class to build: `Entry` or one derived from it
    with_stat  put the file's stat, from before it was read, on the entry

    An entry that is being replaced may be missing for a request's time: a client that replaces a
    file which one of its processes has open first renames the old one away (`.nfs…`, measured).

    Raise `FileNotFoundError`, `CorruptEntryError` (`SignatureError` if there is a key),
    `UnknownFormatError`, `OSError`, and `EfsStateError` for one larger than the free memory.
    """
    judge, status = _find_bytes if parted else _check_size, None
    if with_stat:
        if stale is not None:
            mount.refresh(folder, older_than=stale)
        data, status = mount.read_stat(folder, name, judge=judge)
    else:
        data = mount.read(folder, name, judge, stale)
    rest = b""
    if type(data) is tuple:
        data, rest = data
    try:
        item = decode(data, f"{folder}/{name}", mount.path, mount.key, rest, kind)
    except CorruptEntryError:
        if with_stat:
            raise
        # A signal may have cut the read of a small file short: with its size known, that shows.
        return read(mount, folder, name, None, parted, kind, with_stat=True)
    item.stat = status
    return item


def _check_size(head: bytes, size: int, path: str) -> int:
    """Refuse a file that can't be an entry, or does not fit in memory, before it is read."""
    entry.peek(head, size, path)
    from efsstate.mount import free_memory

    # MUT: what-does-not-fit-in-memory-is-not-read
    free_memory.require(size, path, "remove the file, if nothing of yours is that large")
    return 0


def _find_bytes(head: bytes, size: int, path: str) -> int:
    """Check as `_check_size`; return where the bytes of a value that is all bytes begin."""
    _check_size(head, size, path)
    from efsstate.format.codec import msgpack

    name, meta, _ = entry.labels(head, path)
    start = entry.HEADER + len(name) + len(meta)
    return msgpack.bytes_start(name, head, start, size)


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
    """Put an entry at `name` in one step, replacing any before it.

    With a `draft` in that folder, return False, and change nothing, if it was removed meanwhile or
    `unless` is true (see `PendingFile.commit`). Raise `OSError`; then the old entry stands.
    """
    build = partial(
        entry.encode, payload,
        place=f"{folder}/{name}", codec=codec, meta=meta, ttl=ttl, key=mount.key,
    )  # fmt: skip
    if draft is not None:
        return draft.commit(folder, name, build, unless=unless)
    mount.replace(folder, name, build, durable=durable)
    return True
