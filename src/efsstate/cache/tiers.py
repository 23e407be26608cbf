"""Serve one cache from two tiers, memory above the mount."""

from __future__ import annotations

import time

from efsstate import events, process
from efsstate.cache import disk, io_threads, memory
from efsstate.cache import flight as flights
from efsstate.cache.clearing import MAX_STALENESS
from efsstate.cache.namespace import ENDLESS, FAILURES, Namespace
from efsstate.errors import CorruptEntryError, EfsStateError, UnknownFormatError
from efsstate.format.entry import FOREVER
from efsstate.mount import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.cache.disk import DiskTier, Snapshot
    from efsstate.cache.flight import Flight, Key
    from efsstate.cache.memory import Item
    from efsstate.mount.byte_locks import ByteLock
    from efsstate.mount.files import Buffer


class _Missing:
    """The default that stands for no value; `help()` shows it as `<none>`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<none>"


MISSING: Any = _Missing()
_SKEW = 5.0  # seconds that a clock may be behind the server's
_MOST_NOTED = 1024  # digests of entries that are newer, or of results that cannot be stored


class Encoded:
    """A value that is ready to be stored by any thread: the item for memory, and the payload."""

    __slots__ = ("item", "key", "payload", "tags")

    def __init__(self, item: Item, payload: Buffer | list[Buffer], key: bytes) -> None:
        self.item, self.payload, self.key = item, payload, key
        self.tags: tuple[str, ...] = ()  # of a value that is set


class TieredCache(Namespace):
    """The results under one name.

    Its one invariant: memory holds a value only if no change by this process came after the value
    was read from the mount, or after its writing began. A reader or writer takes the number of
    the last change before, and memory keeps the value only if it is the last one still.
    """

    def flight_key(self, digest: str) -> Key:
        """Return the key of a flight that computes `digest`."""
        return self._root_path or self.root_path, self.component, digest

    def attempt(self, doing: str, function: Callable[[], Any], default: Any = None) -> Any:
        """Return `function()`, within the io_timeout; `default` if the mount fails."""
        try:
            if self.io_timeout is None:
                return function()
            return io_threads.call(self.root_path, function, self.io_timeout)
        except FAILURES as error:
            self.report_failure(error, doing)
            return default

    # How long a result counts

    def remaining(self, item: Item) -> float:
        """Return the seconds for which the item counts; negative if it has expired."""
        limit = item.ttl
        if self.ttl is not None and (limit is None or self.ttl < limit) and not item.own_ttl:
            limit = self.ttl
        if limit is None:
            return ENDLESS
        # A result from the future: our clock is behind, and would serve it for as much too long. To
        # compute it sets the clock.
        age = clock.now() - item.created
        # MUT: a-result-from-the-future
        return limit - age if age > -_SKEW else 0.0

    def may_serve_stale(self, old: Item, error: BaseException) -> bool:
        """Return True if `old` may be served because computing it again raised `error`."""
        if not isinstance(error, Exception) or self.remaining(old) <= -self.stale:
            return False
        self.count_failure(error, "compute a result again")
        return True

    def _trust(self, item: Item) -> None:
        """Let memory serve the item without asking the mount for a while."""
        now = time.time()
        item.since = now
        item.span = min(MAX_STALENESS, self.remaining(item))

    # Reading

    def get_from_memory(self, digest: str) -> Item | None:
        """Return the item if memory may serve it without asking the mount."""
        item = self.memory.get(digest)
        return item if item is not None and 0 <= time.time() - item.since < item.span else None

    def read(
        self, digest: str, *, fresh: bool = False, exact: bool = False, again: bool = False
    ) -> Item | None:
        """Return the item on the mount, which may have expired; None if there is none that counts.

        `fresh`: ask the server about the name, even if this host's client remembers it; `exact`:
        about clears too. `again`: it is the second look of one call, and a failure was reported
        after the first. It runs on the current thread, and raises nothing.
        """
        if self._newer:
            self._newer.discard(digest)
        try:
            tier = self._disk or self.disk()
            if self.memory.limit == 0:
                item = tier.read(digest, self.codec_name, fresh, exact)
                return None if item is None else self._decode_alone(item)
            change = tier.changes.last_change(digest)
            if not fresh and not exact:
                item = self._revalidate(digest, tier)
                if item is not None:
                    return item
            item = tier.read(digest, self.codec_name, fresh, exact, True)
            if item is not None:
                if self._fingerprint not in item.meta:
                    self._note_other_code(item)
                return self._decode(digest, item, tier, change)
        except (*FAILURES, ValueError) as error:
            process.raise_of_handler(error)
            self._note_newer(digest, error)
            if not again:
                self.report_failure(error, "read a result")
        if digest in self.memory.by_digest:
            self.memory.drop(digest)
        return None

    def read_plain(self, digest: str) -> tuple[Any, int] | Item | None:
        """Return a result that counts, and its size in bytes, for a cache without memory.

        Return an Item, as `read` does, if the result has expired or belongs to other code. Raise
        nothing.
        """
        if self._newer:
            self._newer.discard(digest)
        try:
            tier = self._disk or self.disk()
            stored: Any = tier.read_plain(digest, self.codec_name)
            if type(stored) is tuple:
                payload, meta, created, ttl = stored
                is_own_code = self._fingerprint in meta
                if is_own_code and ttl == FOREVER and self.ttl is None:
                    return self.loads(payload), len(payload)
                seconds = None if ttl == FOREVER else ttl / 1000
                stored = memory.Item(payload, self.codec_name, meta, created / 1e9, seconds)
                if is_own_code and self.remaining(stored) > 0:
                    return self.loads(payload), len(payload)
            return None if stored is None else self._decode_alone(stored)
        except (*FAILURES, ValueError) as error:
            self._note_newer(digest, error)
            self.report_failure(error, "read a result")
        return None

    def _decode_alone(self, item: Item) -> Item:
        if self._fingerprint not in item.meta:
            self._note_other_code(item)
        return self._decode_for_one(item)

    def _note_newer(self, digest: str, error: Exception) -> None:
        if isinstance(error, UnknownFormatError) and len(self._newer) < _MOST_NOTED:
            self._newer.add(digest)

    def _note_other_code(self, item: Item) -> None:
        from efsstate.cache import fingerprint

        fingerprint.warn_of_other_code(self.name, self._fingerprint, disk.key_of(item))

    def read_for_change(self, digest: str, *, exact: bool = True) -> Item | None:
        """Return the item on the mount that counts, for a change that depends on it.

        None if there is none, or a damaged one, which is reported. `exact`: ask the server about
        clears, too. Raise the mount's errors. Raise ValueError if the value can't be decoded, or if
        another codec wrote it: a change would lose it.
        """

        def look() -> Item | None:
            item: Item | None = None
            try:
                item = self.disk().read(digest, None, not exact, exact)
            except CorruptEntryError as error:
                self.report_failure(error, "read a value")
            if item is None or self.remaining(item) <= 0:
                return None
            # MUT: a-change-loses-no-value-of-another-codec
            if item.codec != self.codec_name:
                raise ValueError(
                    f"cache {self.name}: a value of the codec {item.codec!r} is there, and this"
                    f" cache has {self.codec_name!r}; set or delete it"
                )
            return self._decode_alone(item)

        # MUT: a-change-needs-a-readable-value
        item: Item | None = io_threads.call(self.root_path, look, self.io_timeout)
        return item

    def read_in_time(self, digest: str) -> Item | None:
        """Return `read(digest)`, within the io_timeout."""
        if self.io_timeout is None:
            return self.read(digest)
        item: Item | None = self.attempt("read a result", lambda: self.read(digest))
        return item

    def _revalidate(self, digest: str, tier: DiskTier) -> Item | None:
        """Return memory's item if it counts, and the mount's entry is the file it was read from."""
        item = self.memory.get(digest)
        if item is None or self.remaining(item) <= 0 or not tier.is_unchanged(digest, item):
            return None
        self._trust(item)
        return item

    def _decode_for_one(self, item: Item) -> Item:
        """Decode the item for one caller, and not for memory."""
        payload = item.payload
        is_split = type(payload) is tuple
        item.cost = len(payload[1] if is_split else payload)
        item.spare_copy = [self.loads(payload)]
        # An array in the value is a view into the payload, which is this caller's alone.
        item.not_cached = not is_split
        return item

    def _decode(self, digest: str, item: Item, tier: DiskTier, change: int) -> Item:
        """Decode the item, and keep it in memory if it fits."""
        payload = item.payload
        is_split = type(payload) is tuple
        if not self.memory.fits(len(payload[1] if is_split else payload)):
            return self._decode_for_one(item)
        if not is_split and type(payload) is not bytes:
            # It stays here, so a value for a caller must not be a view into it.
            payload = item.payload = memoryview(payload).toreadonly()
        value = self.loads(payload)
        size = memory.immutable_size(value)
        if size is None:
            item.spare_copy, item.cost = [value], len(payload)
        else:
            item.value, item.payload, item.cost = value, None, size
        item.digest = digest
        if item.meta and not disk.tags_of(item.meta):
            item.meta = b""  # of it, the tags alone are asked for again
        self._remember(item, tier, change)
        return item

    def _remember(self, item: Item, tier: DiskTier, change: int) -> None:
        """Keep the item in memory, unless this process has changed the entry since `change`.

        Nor if the root is another one by now.
        """
        self._trust(item)
        # MUT: a-late-result-of-another-root-is-not-remembered
        if item.span > 0 and tier is self._disk:
            self.memory.put(item, tier.changes, change)

    def value(self, item: Item, default: Any) -> Any:
        """Return the item's value, or `default` if it cannot be read, which is reported."""
        try:
            return self.take(item)
        except (ValueError, *FAILURES) as error:
            self.report_unreadable(item, error)
            return default

    def report_unreadable(self, item: Item, error: BaseException) -> None:
        """Report an item with a value that cannot be read, and forget it."""
        self.report_failure(error, "read a result")
        self.memory.drop(item.digest)

    def take(self, item: Item) -> Any:
        """Return the item's value, the caller's own. Raise ValueError if it cannot be read."""
        value = item.value
        if value is not memory.PACKED:
            return value
        try:
            # Of several callers, one has it.
            value = item.spare_copy.pop()  # type: ignore[union-attr]
            item.spare_copy = None  # an empty list takes memory, too
        except (IndexError, AttributeError):
            return self.loads(item.payload)
        else:
            return value

    # Storing

    def encode(
        self,
        digest: str,
        value: Any,
        ttl: float | None,
        *,
        key: bytes = b"",
        own_ttl: bool = False,
        detach: bool,
    ) -> Encoded:
        """Encode `value` for `store`; call it on the caller's thread.

        `detach`: copy all that the caller can change, because another thread will store it, at any
        time later. `own_ttl`: the cache's ttl does not shorten `ttl`. Raise EncodeError if the
        value cannot be stored, and RootError.
        """
        if self._disk is None:
            self.disk()
        payload = self._dumps(value)
        item = memory.Item(None, self.codec_name, b"", 0.0, ttl)
        item.digest, item.own_ttl = digest, own_ttl
        # A codec of the user's may decode another value than it encoded: JSON has no tuples.
        size = None
        if self.codec_name in ("msgpack", "pickle"):
            size = memory.immutable_size(value)
        parts = payload if isinstance(payload, list) else [payload]
        if size is not None:
            item.value, item.cost = value, size
        else:
            item.cost = 0
            for part in parts:
                item.cost += memoryview(part).nbytes
            item.not_cached = not self.memory.fits(item.cost)
            if not item.not_cached:
                payload = item.payload = b"".join(parts)
                return Encoded(item, payload, key)
        if detach:
            # MUT: a-value-is-copied-before-it-is-handed-over
            payload = [part if type(part) is bytes else bytes(part) for part in parts]
        return Encoded(item, payload, key)

    def store(self, encoded: Encoded, start: Snapshot | None = None) -> bool:
        """Store a value on the mount and in memory; return True if it is on the mount.

        `start`: the state it was computed from. If that is out of date by now, it is not stored.
        Without one, the value was set. Raise the mount's errors; then memory may serve the value
        for as long as it may do so without asking the mount.
        """
        tier, item = self._disk or self.disk(), encoded.item
        if start is not None:
            tier = start.tier  # the root may have changed since
        digest = item.digest
        is_change = start is None or start.changing
        change, now = tier.changes.last_change(digest), tier.clear_stamp()
        item.clear_stamp = now
        is_stored = True
        try:
            # Hosts of two releases must not take turns at replacing each other's entry.
            if is_change or digest not in self._newer:
                stamp = now if start is None else start.clear_stamp
                tags = tier.clears.of_tags(encoded.tags) if start is None else start.tags
                meta = disk.pack_meta(
                    stamp, encoded.key, self.codec_name, own_ttl=item.own_ttl, tags=tags
                )
                is_stored = tier.write(
                    digest, encoded.payload, self.codec_name, item.ttl, meta, start
                )
                self.counts.puts += is_stored
        except BaseException:
            # MUT: an-interrupted-sum-leaves-the-number
            if start is not None and start.keeps_old:
                is_stored = False
            elif is_change:
                self.retract(digest, start)
            raise
        finally:
            # A value that was read meanwhile is out of date.
            own_change = tier.changes.record(digest, since=change)
            if (
                is_stored
                and own_change is not None
                and not item.not_cached
                and (start is None or start.clear_stamp == now)
            ):
                item.created = clock.now()
                self._remember(item, tier, own_change)
        life, upkeep = ENDLESS if item.ttl is None else item.ttl + self.stale, self.upkeep
        if self.has_limit or not upkeep.shortest <= life <= upkeep.longest:
            self._look_after(tier, life)
        return is_stored

    def _look_after(self, tier: DiskTier, life: float) -> None:
        """Widen the namespace's policy to cover a put, and trim the namespace to its limit."""
        upkeep = self.upkeep
        is_covered = upkeep.shortest <= life <= upkeep.longest
        try:
            if not is_covered and time.monotonic() >= upkeep.retry_at:
                upkeep.widen(tier.mount, life)
        except (*FAILURES, ValueError) as error:
            self.report_failure(error, "write the policy")
            upkeep.postpone()
        if self.has_limit:
            upkeep.trim(tier.mount)

    # Changing

    def begin_change(self, digest: str | None = None, *, tag: str | None = None) -> list[Flight]:
        """Forget this process's memory and computations of `digest` (default: of all).

        For a change that begins now, before the mount is asked, which may hang. Return the flights
        that are not stored.
        """
        key = (self._root_path or self.root_path, self.component)
        stale = flights.discard_in_flight(*(key if digest is None else (*key, digest)), tag=tag)
        if self._disk is not None:
            self._disk.changes.record(digest)
        return stale

    def remove(self, digest: str) -> bool:
        """Remove a result from the mount, after `begin_change`; return True if there was one.

        Raise the mount's errors.
        """
        tier = self._disk or self.disk()
        try:
            item = tier.read_head(digest, self.codec_name)
        except (OSError, EfsStateError) as error:
            process.raise_of_handler(error)
            item = None  # damaged, newer, or unreadable: it is removed all the same
        try:
            was_removed = tier.remove(digest)
        finally:
            if events.listeners:
                events.emit("cache", "invalidate", self.name, key=digest)
            # A flight that began meanwhile may have read the old result, and no call may join it.
            self.begin_change(digest)
        return was_removed and item is not None and self.remaining(item) > 0

    def clear(self) -> None:
        """Put all results out of reach, after `begin_change`. Raise the mount's errors."""
        try:
            self.disk().clears.clear()
        finally:
            if events.listeners:
                events.emit("cache", "clear", self.name)
            self.begin_change()  # as in `remove`

    def invalidate_tag(self, tag: str) -> None:
        """Put all results with the tag (its id) out of reach, after `begin_change`.

        Raise the mount's errors.
        """
        try:
            self.disk().clears.invalidate_tag(tag)
        finally:
            if events.listeners:
                events.emit("cache", "invalidate_tag", self.name, tag=tag)
            self.begin_change(tag=tag)  # as in `remove`

    def retract(self, digest: str, start: Snapshot | None) -> None:
        """Remove the result that should have been replaced, unless it came after `start`.

        Raise nothing.
        """
        tier = self.disk()
        tier.remove_since(digest, start)
        tier.changes.record(digest)

    def claim(self, digest: str) -> ByteLock | None:
        """Lock the digest's byte on the mount; None if another process, of any host, has it.

        Raise the mount's errors.
        """
        from efsstate.mount import byte_locks

        tier = self._disk or self.disk()
        folder, keep_open = tier.folders[digest[0]], self.io_timeout is None
        return byte_locks.acquire(tier.mount, folder, digest, keep_open=keep_open)

    def read_or_start(self, digest: str, flight: Flight) -> Item | Snapshot:
        """Return the item on the mount, if it counts, else the state that `flight` starts from.

        Raise the mount's errors.
        """
        # MUT: another-look-under-the-claim
        item = self.read(digest, fresh=True, again=True)
        if item is not None and self.remaining(item) > 0:
            return item
        tier = self._disk or self.disk()
        return tier.start(digest, flight, changing=False, tags=flight.tags)

    def start(self, digest: str, flight: Flight, *, changing: bool) -> Snapshot:
        """Return the state that `flight` starts from. Raise the mount's errors."""
        tier = self._disk or self.disk()
        return tier.start(digest, flight, changing=changing, tags=flight.tags)

    def end_drafts(self, stale: list[Flight]) -> None:
        """Have none of the flights in `stale`, which were discarded, be stored."""
        for flight in stale:
            if flight.draft is not None:
                self.disk().remove_draft(flight.draft)

    def note_unstorable(self, digest: str) -> None:
        """Note that the last result could not be stored, so that no call waits for the next."""
        if len(self.unstorable) >= _MOST_NOTED:
            self.unstorable.clear()
        self.unstorable.add(digest)
