"""Keep results on the mount: one namespace's entries. Every failure is raised.

A result may be out of date when it is to be stored: another host changed or removed the entry
during the computation. So each computation creates the file of its result when it begins, an empty
*draft* in the namespace's folder, named by the digest and a random part. Storing is a rename
of the draft to the entry.

    compute:            create the draft, compute, write the draft, rename it to the entry
    invalidate:         list the folder, remove every draft of the digest, remove the entry
    refresh:            list the folder, remove every draft of the digest, then compute

If the change removes the draft first, the rename fails; else the entry exists before the change
removes it, or a later computation replaces it. No clock counts, no process waits, and each may be
killed or frozen at any step. No name is ever used again, or a rename might take another's draft.

A `set` leaves other hosts' drafts, because listing would be a request more. Instead, a computation
checks before its rename that the entry is the one that was there when it began. A value that is set
between that check and the rename, within one request's time, is overwritten.
"""

from __future__ import annotations

import struct
import time
from _weakref import ref
from functools import partial

from efsstate import process
from efsstate.cache.clearing import MAX_STALENESS, MOST, ClearStamps
from efsstate.cache.memory import Changes, Item
from efsstate.format import entry, layout
from efsstate.mount import clock
from efsstate.mount.files import PendingFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from efsstate.cache.flight import Flight
    from efsstate.format.entry import Entry
    from efsstate.mount.files import Buffer, Mount

_DAY = 86400.0
_META = struct.Struct("<QB")  # clear stamp, bytes of padding after the key; see `pack_meta`
_TAG = struct.Struct("<8sQ")  # the id of a tag, and its clear stamp when the value was made
_PADDING, _TAGGED, _OWN_TTL = 0x3F, 0x40, 0x80
_IDENTITY = struct.Struct("<QqQ")  # inode, mtime, size: a fifth of the memory of three ints
_STAMP = _META.unpack_from
_META_OF = _META.unpack_from
_LEAST_META, _HEADER = _META.size, entry.HEADER
_GLANCE = entry.HEADER + 32 + entry.LONGEST_META  # bytes that contain an entry's head
_ALIGN = 16  # bytes: a payload begins at a multiple, so that arrays are used where they were read


def pack_meta(
    clear_stamp: int,
    key: bytes,
    codec_name: str,
    *,
    own_ttl: bool = False,
    tags: Sequence[tuple[bytes, int]] = (),
) -> bytes:
    """Return an entry's meta: clear stamp u64, flags u8, tags, the key, and the padding.

    The lower six bits of the flags are the length of the padding, which puts the payload at a
    multiple of 16 bytes. Bit 7 says that the ttl is the value's own, which the cache's ttl, however
    short, does not shorten. Bit 6 says that there are tags: their number u8, and for each its id
    (8 bytes) and its clear stamp u64.
    """
    if tags:
        packed = bytes([len(tags)]) + b"".join([_TAG.pack(*tag) for tag in tags])
        key = packed + key
    length = entry.HEADER + len(codec_name) + _META.size + len(key)
    padding = -length % _ALIGN
    flags = padding | (_OWN_TTL if own_ttl else 0) | (_TAGGED if tags else 0)
    return _META.pack(clear_stamp, flags) + key + bytes(padding)


def tags_of(meta: bytes) -> list[tuple[str, int]]:
    """Return the tags in an entry's meta, each with its clear stamp when the value was made."""
    if len(meta) <= _LEAST_META or not meta[_LEAST_META - 1] & _TAGGED:
        return []
    end = _LEAST_META + 1 + meta[_LEAST_META] * _TAG.size
    packed = meta[_LEAST_META + 1 : end]
    packed = packed[: len(packed) // _TAG.size * _TAG.size]
    return [(tag.hex(), stamp) for tag, stamp in _TAG.iter_unpack(packed)]


def key_of(stored: Entry) -> bytes:
    """Return the key that an entry was written with, if it was."""
    meta = stored.meta
    flags, start = meta[_META.size - 1], _META.size
    if flags & _TAGGED and len(meta) > start:
        start += 1 + meta[start] * _TAG.size
    return meta[start : len(meta) - (flags & _PADDING)]


def _identity(status: os.stat_result) -> bytes:
    """Return bytes that tell a file from one that takes its place."""
    return _IDENTITY.pack(status.st_ino, status.st_mtime_ns, status.st_size)


class Snapshot:
    """The state that a computation starts from: clear stamp, the entry's identity, and its draft.

    `error` is why the draft could not be created; then the result cannot be stored. `changing`: the
    result replaces the entry even if that counts. `keeps_old`: if it can't, the entry counts on.
    `tier`: where the draft is, and the result goes.
    """

    __slots__ = (
        "changing", "clear_stamp", "draft", "error", "flight", "keeps_old", "seen", "tags", "tier",
    )  # fmt: skip

    def __init__(self, tier: DiskTier, flight: Flight | None, *, changing: bool) -> None:
        self.tier, self.clear_stamp = tier, tier.clear_stamp()
        self.flight, self.changing, self.keeps_old = flight, changing, False
        self.tags: list[tuple[bytes, int]] = []
        self.draft: PendingFile | None = None
        self.error: OSError | None = None
        self.seen: bytes | None = None

    @property
    def has_draft(self) -> bool:
        """Return True if a draft is there, not yet renamed."""
        return self.draft is not None and not self.draft.is_over

    def discard(self) -> None:
        """Remove the draft, if it is there."""
        if self.draft is not None:
            self.draft.discard()


_tiers: dict[tuple[str, bytes | None, str], ref[DiskTier]] = {}
_tiers_lock = process.lock()


def find(mount: Mount, component: str) -> DiskTier:
    """Return the namespace's DiskTier, of which a process has one.

    So a change by one cache shows at once in every other cache of that name.
    """
    key = mount.path, mount.key, component

    def forget(dead: ref[DiskTier]) -> None:
        if _tiers.get(key) is dead:
            del _tiers[key]

    with _tiers_lock:
        known = _tiers.get(key)
        tier = known() if known is not None else None
        if tier is None:
            tier = DiskTier(mount, component)
            _tiers[key] = ref(tier, forget)
        return tier


@process.at_reset
def forget_tiers() -> None:
    """Have later caches share nothing with those that exist, as in another process."""
    _tiers.clear()


class DiskTier:
    """The entries of the namespace `component` below `mount`.

    `changes` are the changes that this process makes to them. `clears` has the stamps by which an
    entry was cleared.
    """

    def __init__(self, mount: Mount, component: str) -> None:
        self.mount = mount
        self.component = component
        self.changes = Changes()
        self.folder = f"{layout.CACHE}/{component}"
        # By a digest's first digit: every hit needs one.
        self.folders = {folder[-1]: folder for folder in layout.entry_folders(component)}
        self.clears = ClearStamps(mount, self.folder, tuple(self.folders.values()))

    def clear_stamp(self, *, older_than: float = MAX_STALENESS) -> int:
        """Return the number that `clear` raises, read again if `older_than` seconds have passed."""
        if not 0 <= time.time() - self.clears.looked < older_than:
            self.clears.read()
        return self.clears.stamp

    # Reading

    def read(
        self,
        digest: str,
        codec_name: str | None,
        fresh: bool = False,
        exact: bool = False,
        identified: bool = False,
    ) -> Item | None:
        """Return the entry, with its identity if `identified`; None if there is none that counts.

        An entry does not count if it was cleared, or is of another codec than `codec_name` (None
        takes each). `fresh`: ask the server about the name, even if this host's client remembers
        it; `exact`: about clears too.
        Raise OSError, CorruptEntryError, or UnknownFormatError.
        """
        now = time.time()
        folder = self.folders[digest[0]]
        if exact:
            self.clears.refresh_exactly(folder)
        elif not 0 <= now - self.clears.looked < MAX_STALENESS:
            self.clears.read()
        stale = None if exact else 0.0 if fresh else MAX_STALENESS
        item: Item | None = self.mount.find_entry(folder, digest, stale, True, Item, identified)
        return None if item is None else self._accept(item, folder, digest, codec_name, now)

    def read_plain(
        self, digest: str, codec_name: str
    ) -> tuple[Buffer, bytes, int, int] | Item | None:
        """Return the payload, the meta, the creation time (ns) and the ttl (ms) of an entry.

        No Item is built. Return an Item, as `read` does, of an entry that is large, has tags or a
        ttl of its own, is older than a day, or has another clear stamp than this process knows.
        """
        now = time.time()
        folder = self.folders[digest[0]]
        if not 0 <= now - self.clears.looked < MAX_STALENESS:
            self.clears.read()
        stored: Any = self.mount.find_fields(folder, digest, MAX_STALENESS, Item)
        if type(stored) is tuple:
            data, (middle, start, created, ttl) = stored
            stamp, flags = _META_OF(data, middle) if start - middle >= _LEAST_META else (-1, 0)
            is_own = data[_HEADER:middle] == codec_name.encode()
            # MUT: a-clears-generation-without-memory
            # MUT: a-tag-is-looked-up-without-memory
            # MUT: an-entry-of-another-codec-is-not-read-without-memory
            if (
                is_own
                and stamp == self.clears.stamp
                and flags < _TAGGED
                and now - created / 1e9 <= _DAY
            ):
                view = data if len(data) < entry.COPIED else memoryview(data)
                return view[start:], data[middle:start], created, ttl
            if is_own:
                seconds = None if ttl == entry.FOREVER else ttl / 1000
                stored = Item(data[start:], codec_name, data[middle:start], created / 1e9, seconds)
            else:
                mount = self.mount
                stored = entry.decode(data, f"{folder}/{digest}", mount.path, mount.key, kind=Item)
        if stored is None:
            return None
        return self._accept(stored, folder, digest, codec_name, now)

    def _accept(
        self, item: Item, folder: str, digest: str, codec_name: str | None, now: float
    ) -> Item | None:
        """Return the item if it counts, else None; see `read`."""
        status = item.stat
        if status is not None:
            item.identity, item.stat = _identity(status), None
        meta = item.meta
        stamp = item.clear_stamp = _STAMP(meta)[0] if len(meta) >= _LEAST_META else -1
        if stamp > self.clears.stamp:  # its writer knows of a clear that we have not seen yet
            if stamp >= MOST:
                return None
            self.clears.raise_to(stamp)
        # MUT: a-clears-generation
        # MUT: an-entry-of-another-codec-is-not-read
        if stamp < self.clears.stamp or codec_name not in (None, item.codec):
            return None
        item.codec = codec_name or item.codec  # one string for all items
        flags = meta[_LEAST_META - 1]
        if flags >= _TAGGED:
            item.own_ttl = flags >= _OWN_TTL
            if flags & _TAGGED and self.clears.is_stale(tags_of(meta)):
                return None
        if now - item.created > _DAY:
            self._note_use(folder, digest, status)
        return item

    def _note_use(self, folder: str, digest: str, status: os.stat_result | None) -> None:
        """Note that the entry was used, at most once a day for the whole fleet."""
        try:
            # No request: this host's client knows the status, for it has just opened the file.
            status = status or self.mount.stat(folder, digest)
        except OSError as error:
            process.raise_of_handler(error)
            return
        if clock.now() - max(status.st_atime, status.st_mtime) > _DAY:
            self.mount.touch(folder, digest, status)

    def explain_miss(self, digest: str, codec_name: str) -> str:
        """Return why `read` gives None."""
        item = self.mount.find_entry(self.folders[digest[0]], digest, stale=0)
        if item is None:
            return "there is no result"
        if item.codec != codec_name:
            return f"it was stored with codec {item.codec!r}"
        return (
            "a tag of it was invalidated"
            if self.clears.is_stale(tags_of(item.meta))
            else "it was cleared"
        )

    def is_unchanged(self, digest: str, item: Item) -> bool:
        """Return True if the entry still is the file that `item` was read from."""
        if item.identity is None or self.clear_stamp() != item.clear_stamp:
            return False
        if self.clears.is_stale(tags_of(item.meta)):
            return False
        folder = self.folders[digest[0]]
        self.mount.refresh(folder, older_than=MAX_STALENESS)
        try:
            status = self.mount.stat(folder, digest)
        except FileNotFoundError:
            return False
        if _identity(status) != item.identity:
            return False
        self._note_use(folder, digest, status)
        return True

    def read_head(self, digest: str, codec_name: str) -> Item | None:
        """Return the entry as `read` does, by its head alone: unchecked, and without a payload."""
        folder = self.folders[digest[0]]
        self.mount.refresh(folder)
        try:
            data, status = self.mount.read_stat(folder, digest, _GLANCE)
        except FileNotFoundError:
            return None
        head, path = bytes(data), f"{self.mount.path}/{folder}/{digest}"
        created, ttl = entry.peek(head, status.st_size, path)
        codec, meta, _ = entry.labels(head, path)
        item = Item(b"", codec, meta, created, ttl)
        item.own_ttl = len(meta) >= _LEAST_META and meta[_LEAST_META - 1] >= _OWN_TTL
        stamp = _STAMP(meta)[0] if len(meta) >= _LEAST_META else -1
        counts = self.clear_stamp() <= stamp < MOST and codec == codec_name
        is_stale = (
            counts and meta[_LEAST_META - 1] & _TAGGED and self.clears.is_stale(tags_of(meta))
        )
        return item if counts and not is_stale else None

    def digests(self) -> Iterator[str]:
        """Yield the digests of all entries, whether they count or not."""
        for folder in self.folders.values():
            for name in self.mount.names(folder):
                if layout.is_digest(name):
                    yield name

    # Writing

    def start(
        self, digest: str, flight: Flight | None, *, changing: bool, tags: Iterable[str] = ()
    ) -> Snapshot:
        """Return the state that a computation starts from, and create its draft.

        `changing`: computations that began before must not undo it. Raise the mount's errors.
        """
        start = Snapshot(self, flight, changing=changing)
        if tags:
            start.tags = self.clears.of_tags(tags)
        try:
            if changing:
                # MUT: a-refresh-ends-what-began-before
                self.remove_drafts(digest)
            start.draft = PendingFile(self.mount, self.folder, layout.TEMPORARY + digest)
            if flight is not None:
                flight.draft = start.draft.name
            start.seen = self._find_identity(digest)
        except BaseException as error:
            # MUT: a-time-limit-ends-a-computation
            if not process.is_of_system(error):
                start.discard()  # no other code knows of its draft
                raise
            start.error = error
        return start

    def write(
        self, digest: str, payload: Buffer | list[Buffer], codec_name: str, ttl: float | None,
        meta: bytes, start: Snapshot | None = None,
    ) -> bool:  # fmt: skip
        """Store an entry; return False if its `start` is out of date by now."""
        folder = self.folders[digest[0]]
        if start is None:
            self.mount.write_entry(folder, digest, payload, codec=codec_name, meta=meta, ttl=ttl)
            return True
        if start.error is not None:
            raise start.error
        if start.draft is None:
            return False
        return self.mount.write_entry(folder, digest, payload, codec=codec_name, meta=meta, ttl=ttl,
            draft=start.draft, unless=partial(self._is_overtaken, digest, start),
        )  # fmt: skip

    def _is_overtaken(self, digest: str, start: Snapshot) -> bool:
        """Return True if this process has changed the entry since, or any host has set it."""
        if start.flight is not None and start.flight.discarded:
            return True
        # None: it was removed without the drafts, and so for its own sake, as by the sweep.
        # MUT: what-another-host-set-meanwhile-stays
        return self._find_identity(digest) not in (None, start.seen)

    def _find_identity(self, digest: str) -> bytes | None:
        status = self.mount.find(self.folders[digest[0]], digest)
        return None if status is None else _identity(status)

    def remove_since(self, digest: str, start: Snapshot | None) -> None:
        """Remove the entry, if it is the one that was there at the `start`, as far as that tells.

        Raise only what a signal handler raised.
        """
        try:
            if (
                start is None
                or start.error is not None
                or self._find_identity(digest) == start.seen
            ):
                self.mount.remove(self.folders[digest[0]], digest)
        except OSError as error:
            process.raise_of_handler(error)

    def remove(self, digest: str) -> bool:
        """Remove an entry, whatever it is, and the drafts of computations of it on any host.

        Return True if there was an entry, as far as this host's client knows: `refresh` before.
        """
        # MUT: the-draft-goes-before-the-entry
        # MUT: what-another-host-removed-meanwhile-is-not
        self.remove_drafts(digest)
        return self.mount.remove(self.folders[digest[0]], digest)

    def remove_drafts(self, digest: str) -> None:
        """Have no computation of the entry that began before be stored, on any host."""
        for name in layout.drafts(digest, self.clears.read()):
            self.remove_draft(name)

    def remove_draft(self, name: str) -> None:
        """Have the computation with this draft not be stored."""
        self.mount.remove(self.folder, name)
