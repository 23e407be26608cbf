"""One namespace on the mount: its entries, its generation and its policy; every failure is raised.

What a computation began with may be out of date when its result is to be put: another host changed or removed the entry
meanwhile. So who computes makes the file of its result when it begins, as a *draft* that is empty still, under a name that the
digest gives; the put is a rename of it. Who removes or refreshes an entry removes the draft first, then the entry: in whatever
order the steps of both come, the rename fails or its outcome is removed. Nobody waits, no clock counts, and it holds for who is
killed or frozen in the middle.

Who sets a value leaves the draft alone (it would be a request more): right before its rename, who computed looks whether the
entry is the one that was there when it began. What is set in that last moment, a request's time, is overwritten.
"""

from __future__ import annotations

import struct
import time
from _weakref import ref
from _weakrefset import WeakSet

from efsstate.cache import memory
from efsstate.cache.memory import Item
from efsstate.errors import CorruptEntryError, UnknownFormatError
from efsstate.format import codec, entry, layout
from efsstate.mount import clock, links, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from typing import Any

    from efsstate.cache.flight import Flight
    from efsstate.cache.memory import MemoryTier
    from efsstate.format.entry import Entry
    from efsstate.mount.drafts import PendingFile
    from efsstate.mount.files import Buffer, Mount

    Identity = tuple[int, int, int]

# What another host changes shows here within: this, for what its NFS client remembers of names, and this again for what
# our memory holds. Together they stay below the promised 60 s.
MAX_STALENESS = 20.0
_DAY = 86400.0
_META = struct.Struct("<QB")  # generation, bytes of padding after the key; see `pack_meta`
_PADDING, _OWN_TTL = 0x7F, 0x80
_GENERATION = _META.unpack_from
_LEAST_META = _META.size
_MOST = 2**62  # generations are milliseconds since the epoch, and never come near
# What is raised where somebody else's values are taken for ours.
_NOT_OURS = (CorruptEntryError, ArithmeticError, LookupError, TypeError, ValueError)
_GLANCE = entry.HEADER + 32 + entry.LONGEST_META  # bytes that have an entry's head
_DRAFTS = 3  # tries to make one where others are making theirs
_LEFT = (
    3600.0  # seconds after which a draft is taken for one of who was killed, where no claim tells
)
_BEGINNINGS = [f"{number:02x}" for number in range(256)]
_ALIGN = 16  # where a payload begins in its file, so that arrays can be used where they were read


def pack_meta(generation: int, key: bytes, codec_name: str, *, own_ttl: bool = False) -> bytes:
    """Generation u64, padding u8, the key, and the padding that puts the payload at a multiple of 16 bytes.

    The padding's highest bit says that the ttl is this value's own: the cache's, however short, does not shorten it.
    """
    length = entry.HEADER + len(codec_name) + _META.size + len(key)
    padding = -length % _ALIGN
    return _META.pack(generation, padding | _OWN_TTL if own_ttl else padding) + key + bytes(padding)


def key_of(entry: Entry) -> bytes:
    """The key that an entry was written with, if it was."""
    return entry.meta[_META.size : len(entry.meta) - (entry.meta[_META.size - 1] & _PADDING)]


def identity(found: os.stat_result) -> Identity:
    """What tells a file from the one that takes its place."""
    return found.st_ino, found.st_mtime_ns, found.st_size


class Snapshot:
    """What a computation starts from: the clear's generation, the entry that it may replace, and the draft of its result.

    Without a `draft` the result is not kept: another's is there, or (`error`) it could not be made.
    """

    __slots__ = ("changing", "draft", "error", "flight", "generation", "seen")

    def __init__(self, generation: int, *, changing: bool) -> None:
        self.generation, self.changing = generation, changing
        self.draft: PendingFile | None = None
        self.error: OSError | None = None
        self.seen: Identity | None = None
        self.flight: Flight | None = None

    def end(self) -> None:
        """No result comes of it, or it is put."""
        if self.draft is not None:
            self.draft.discard()


_shelves: dict[tuple[str, bytes | None, str], ref[DiskTier]] = {}


def find(mount: Mount, component: str) -> DiskTier:
    """The namespace's shelf: one a process, so that what one cache of that name changes shows in every other at once."""
    key = mount.path, mount.key, component

    def end(dead: ref[DiskTier]) -> None:
        if _shelves.get(key) is dead:
            del _shelves[key]

    with memory.guard():
        known = _shelves.get(key)
        shelf = known() if known is not None else None
        if shelf is None:
            shelf = DiskTier(mount, component)
            _shelves[key] = ref(shelf, end)
        return shelf


class DiskTier:
    """The entries of the namespace `component` below `mount`."""

    def __init__(self, mount: Mount, component: str) -> None:
        self.mount = mount
        self.component = component
        self._shares: WeakSet[MemoryTier] = WeakSet()  # where this process remembers them
        # The last change by this process of a digest that begins so: what was read before it is out of date.
        self._changes: dict[str, object] = {}
        self.folder = f"{layout.CACHE}/{component}"
        # By a digest's first digit: every hit needs one.
        self._folders = {folder[-1]: folder for folder in layout.entry_folders(component)}
        self._generation = 0
        self._looked = 0.0  # when the generation was read, by the wall clock; 0: never
        self._seen: os.stat_result | None = (
            None  # the folder's stat then, if it tells a change since
        )
        self._settled: dict[
            str, int
        ] = {}  # folders, and the mtime since which the generation is known to be the same

    def generation(self, *, older_than: float = MAX_STALENESS) -> int:
        """The number that `clear` raises, read anew if that is more than `older_than` seconds ago."""
        if not 0 <= time.time() - self._looked < older_than:
            self._read_generation()
        return self._generation

    def _read_generation(self) -> None:
        """One request where nothing has changed in the namespace's folder since the look before, else two."""
        now = time.time()
        seen = self.mount.look(self.folder, self._seen)
        names = () if seen is None else seen[1]
        if names is not None:
            marks = [
                (number, self._is_mark(name, number))
                for name, number in layout.cleared_marks(names)
            ]
            found = max([number for number, sound in marks if sound], default=0)
            if not all(sound for _, sound in marks):
                # Damaged or forged: clearing once more is safe, trusting what is left is not.
                # MUT: a-damaged-cleared-clears-once-more
                found = self._write_generation(max(found, self._generation))
            self._raise_generation(found)
        # A change right after this look may leave the folder's time as it is: then the next one must list it again.
        self._seen = seen[0] if seen is not None and clock.tells(seen[0].st_mtime) else None
        self._looked = now

    def _raise_generation(self, number: int) -> None:
        with memory.guard():  # of two clears at once here the later counts, whoever comes back last
            self._generation = max(self._generation, number)

    def _is_mark(self, name: str, generation: int) -> bool:
        return generation < _MOST and name == links.mark(
            self.mount, self.folder, layout.cleared_mark(generation)
        )

    def _write_generation(self, known: int) -> int:
        # By a clock that is behind, a number whose predecessor is lost might be below one that was cleared long ago.
        self.mount.ask_time(self.folder)
        made = max(known + 1, int(clock.now() * 1000))
        while True:
            try:
                own = links.mark(self.mount, self.folder, layout.cleared_mark(made))
                self.mount.symlink(self.folder, own, "cleared")
                break
            except FileExistsError:
                made += 1
        for name, number in layout.cleared_marks(self.mount.names(self.folder)):
            if number < made or not self._is_mark(name, number):
                self.mount.remove(self.folder, name, quiet=True)
        return made

    def clear(self) -> None:
        """Put every entry out of reach: from now on here and where an exact look is taken, within 60 s elsewhere."""
        self._read_generation()
        self._raise_generation(self._write_generation(self._generation))
        self._looked = time.time()
        for folder in layout.entry_folders(self.component):
            self.mount.touch_folder(folder)

    def _look_exactly(self, folder: str) -> None:
        """Ask about the names in `folder` and about clears, with one request where nothing has changed there.

        A clear touches the folders after it has raised the generation: in one that has the mtime it had when we read the
        generation, nobody has cleared since. An mtime of this very second tells nothing: a touch might not change it.
        """
        found = self.mount.refresh(folder)
        if found is None or self._settled.get(folder) != found.st_mtime_ns:
            self._read_generation()
            if found is not None and clock.now() - found.st_mtime > 1:
                self._settled[folder] = found.st_mtime_ns

    def read(
        self,
        digest: str,
        codec_name: str,
        fresh: bool = False,
        exact: bool = False,
        identified: bool = False,
    ) -> Item | None:
        """The entry, with its generation and, with `identified`, its identity; None if there is none that counts.

        That is one that is missing, cleared, or another codec's. `fresh`: ask the server about the name, whatever this host's client remembers; `exact`: about clears too.
        Raises `OSError`, `CorruptEntryError`, `UnknownFormatError`.
        """
        now = time.time()
        folder = self._folders[digest[0]]
        if exact:
            self._look_exactly(folder)
        elif not 0 <= now - self._looked < MAX_STALENESS:
            self._read_generation()
        stale = None if exact else 0.0 if fresh else MAX_STALENESS
        stat = None
        try:
            if identified:
                item = store.read(self.mount, folder, digest, stale, True, Item, with_stat=True)
                stat = item.stat
                assert stat is not None
                item.identity = identity(stat)
            else:
                item = store.read(self.mount, folder, digest, stale, True, Item)
        except FileNotFoundError:
            return None
        meta = item.meta
        own = item.generation = _GENERATION(meta)[0] if len(meta) >= _LEAST_META else -1
        if (
            own > self._generation
        ):  # written by somebody who knows of a clear that we have not seen yet
            if own >= _MOST:
                return None
            self._raise_generation(own)
        # MUT: a-clears-generation
        # MUT: an-entry-of-another-codec-is-not-read
        if own < self._generation or item.codec != codec_name:
            return None
        if meta[_LEAST_META - 1] >= _OWN_TTL:
            item.own_ttl = True
        if now - item.created > _DAY:
            self._note_use(folder, digest, stat)
        return item

    def _note_use(self, folder: str, digest: str, stat: os.stat_result | None) -> None:
        """At most once a day for the whole fleet: whoever touches it shows that to all others."""
        try:
            stat = stat or self.mount.stat(
                folder, digest
            )  # this host's client knows it: it has just opened the file
        except OSError:
            return
        if clock.now() - max(stat.st_atime, stat.st_mtime) > _DAY:
            self.mount.touch(folder, digest, stat)

    def why_not(self, digest: str, codec_name: str) -> str:
        """Why `read` gives None."""
        try:
            found = store.read(self.mount, self._folders[digest[0]], digest, stale=0)
        except FileNotFoundError:
            return "there is no result"
        if found.codec != codec_name:
            return f"it was stored with codec {found.codec!r}"
        return "it was cleared"

    def unchanged(self, digest: str, held: Item) -> bool:
        """Whether the entry still is the file that `held` was read from, asked of the server."""
        if held.identity is None or self.generation() != held.generation:
            return False
        folder = layout.entry_folder(self.component, digest)
        self.mount.refresh(folder, older_than=MAX_STALENESS)
        try:
            stat = self.mount.stat(folder, digest)
        except FileNotFoundError:
            return False
        if identity(stat) != held.identity:
            return False
        self._note_use(folder, digest, stat)
        return True

    def write(
        self,
        digest: str,
        payload: Buffer | list[Buffer],
        *,
        codec_name: str,
        ttl: float | None,
        generation: int,
        key: bytes = b"",
        own_ttl: bool = False,
        start: Snapshot | None = None,
    ) -> bool:
        """Put an entry, as made under `generation`; False if it was computed from a `start` that is out of date by now."""
        meta = pack_meta(generation, key, codec_name, own_ttl=own_ttl)
        folder = self._folders[digest[0]]
        draft = None
        if start is not None:
            if start.error is not None:
                raise start.error
            if start.draft is None:
                return False
            draft = start.draft
        return store.write(
            self.mount, folder, digest, payload, codec=codec_name, meta=meta, ttl=ttl, draft=draft,
            unless=lambda: start is not None and self._is_overtaken(folder, digest, start),
        )  # fmt: skip

    def _is_overtaken(self, folder: str, digest: str, start: Snapshot) -> bool:
        """Whether this process has changed it since, or anybody has set it."""
        if start.flight is not None and start.flight.doomed:
            return True
        # None: who removed it left the draft, and so meant what was there, such as the sweep, or a refresh that is not kept.
        # MUT: what-another-host-set-meanwhile-stays
        return self._identity(folder, digest) not in (None, start.seen)

    def _identity(self, folder: str, name: str) -> Identity | None:
        try:
            return identity(self.mount.stat(folder, name))
        except FileNotFoundError:
            return None

    def start(self, digest: str, *, alone: bool, changing: bool) -> Snapshot:
        """What a computation that begins now starts from; `changing`: those that began before are not to undo it.

        `alone`: without the claim, so that another's draft is of one who computes, and not of one who was killed.
        """
        from efsstate.mount.drafts import PendingFile

        folder, name = self._folders[digest[0]], layout.draft(digest)
        start = Snapshot(self.generation(), changing=changing)
        try:
            for _ in range(_DRAFTS):
                try:
                    start.draft = PendingFile(self.mount, folder, name)
                    break
                except FileExistsError:
                    # MUT: a-refresh-ends-what-began-before
                    if alone and not changing and not self._is_left(folder, name):
                        break  # they keep what they compute, and would never come to it if they could be outrun
                    self.mount.refresh(
                        folder
                    )  # or our client may remember that there is no such name
                    self.mount.remove(folder, name)
            start.seen = self._identity(folder, digest)
        except OSError as error:
            start.error = error
        except BaseException:
            start.end()  # nobody else knows of its draft
            raise
        return start

    def _is_left(self, folder: str, name: str) -> bool:
        try:
            return clock.now() - self.mount.stat(folder, name).st_mtime > _LEFT
        except FileNotFoundError:
            return True

    def discard(self, digest: str, start: Snapshot | None) -> None:
        """Remove an entry, if that can be done, and if it is the one that was there at the `start`, if that told."""
        folder = self._folders[digest[0]]
        try:
            if (
                start is None
                or start.error is not None
                or self._identity(folder, digest) == start.seen
            ):
                self.mount.remove(folder, digest)
        except OSError:
            pass

    def remove(self, digest: str) -> bool:
        """Remove an entry, whatever it is, and what is being computed for it now on any host; whether there was one.

        As far as this host's client knows of them: ask the server about the folder before.
        """
        # MUT: the-draft-goes-before-the-entry
        # MUT: what-another-host-removed-meanwhile-is-not
        self.end_draft(digest)
        return self.mount.remove(self._folders[digest[0]], digest)

    def end_draft(self, digest: str) -> None:
        """What is being computed for the entry is not to be put, whoever computes it."""
        self.mount.remove(self._folders[digest[0]], layout.draft(digest))

    def glance(self, digest: str, codec_name: str) -> Item | None:
        """The entry as `read` gives it, asked of the server, by its head alone: unchecked, without its payload."""
        folder = self._folders[digest[0]]
        self.mount.refresh(folder)
        try:
            data, found = self.mount.read_stat(folder, digest, _GLANCE)
        except FileNotFoundError:
            return None
        head, path = bytes(data), self.mount.path_of(folder, digest)
        created, ttl = entry.peek(head, found.st_size, path)
        codec_named, meta, _ = entry.labels(head, path)
        item = Item(b"", codec_named, meta, created, ttl)
        item.own_ttl = len(meta) >= _LEAST_META and meta[_LEAST_META - 1] >= _OWN_TTL
        own = _GENERATION(meta)[0] if len(meta) >= _LEAST_META else -1
        return item if self.generation() <= own < _MOST and codec_named == codec_name else None

    def remember_in(self, share: MemoryTier) -> None:
        """Have `share` hear of changes."""
        with memory.guard():
            self._shares.add(share)

    def last_change(self, digest: str) -> object:
        """What is another one once this process has changed the entry: see `forget`."""
        return self._changes.get(digest[:2])

    def forget(self, digest: str | None = None, since: object = None) -> object:
        """This process changes the entry (None: all): what it remembers of it, or reads of it now, is out of date.

        The change, for `last_change`; None if it had been changed `since` that one.
        """
        change = object()
        with memory.guard():  # or of two changes at once each would take itself for the last
            last = since is None or digest is None or self._changes.get(digest[:2]) is since
            for beginning in _BEGINNINGS if digest is None else [digest[:2]]:
                self._changes[beginning] = change
            shares = list(self._shares)
        for share in shares:
            if digest is None:
                share.clear()
            else:
                share.drop(digest)
        return change if last else None

    def widen_policy(
        self, name: str, shortest: float, longest: float | None, max_bytes: int | None
    ) -> tuple[float, float | None]:
        """Have POLICY tell the sweep at least this; what it tells now. A newer release's is left alone."""
        told: dict[str, Any] = {}
        try:
            told = codec.loads(store.read(self.mount, self.folder, layout.POLICY, stale=0).payload)
            low, high = (
                float(told["shortest"]),
                told["longest"] if told["longest"] is None else float(told["longest"]),
            )
            if not (0 <= low < float("inf") and 0 <= (high or 0.0) < float("inf")):
                raise ValueError(told)
            shortest = min(shortest, low)
            longest = None if longest is None or high is None else max(longest, high)
        except FileNotFoundError:
            pass
        except UnknownFormatError:
            return shortest, longest
        except _NOT_OURS:
            told = {}
        made = {
            "name": name,
            "shortest": shortest,
            "longest": longest,
            "max_bytes": max_bytes,
            "max_entries": None,
        }
        if told != made:
            store.write(self.mount, self.folder, layout.POLICY, codec.dumps(made), codec="msgpack")
        return shortest, longest

    def digests(self) -> Iterator[str]:
        """The digests of all entries, whether they count or not."""
        for folder in layout.entry_folders(self.component):
            for name in self.mount.names(folder):
                if layout.is_digest(name):
                    yield name
