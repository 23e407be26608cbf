"""The results of one cache, memory above the mount: every failure is counted, told and forgiven here."""

from __future__ import annotations

import os
import time

from efsstate import events
from efsstate.cache import disk as shelves
from efsstate.cache import flight as flights
from efsstate.cache import io_threads, memory
from efsstate.cache.disk import MAX_STALENESS, key_of
from efsstate.errors import CorruptEntryError, EfsStateError, RootError, UnknownFormatError
from efsstate.format import codec, layout
from efsstate.mount import clock, environment, root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.cache.disk import DiskTier, Snapshot
    from efsstate.cache.flight import Flight
    from efsstate.cache.memory import Item
    from efsstate.cache.options import Options

FAILURES = (OSError, EfsStateError, MemoryError)
MISSING: Any = object()  # in a value's place where there is none
_FOREVER = 10.0**10  # seconds: the shortest life of what never expires, for the sweep
_ENDLESS = float("inf")
_SKEW = 5.0  # seconds that a clock may be behind the server's
_MOST_NOTED = 1024  # digests that are remembered for what is wrong with their entries or results


class Counts:
    """What happened, in calls."""

    __slots__ = (
        "computed",
        "damaged",
        "errors",
        "memory",
        "mount",
        "puts",
        "stale",
        "unstored",
        "waits",
    )

    def __init__(self) -> None:
        self.memory = self.mount = self.stale = self.computed = self.puts = self.waits = 0
        self.errors = self.damaged = self.unstored = 0


class TieredCache:
    """The results under one name."""

    def __init__(self, name: str, options: Options) -> None:
        self.name, self.options = name, options
        self.component = layout.component(name)
        self.ttl, self.stale = options.ttl, options.stale
        self.max_bytes = options.max_bytes
        self.io_timeout = options.io_timeout
        self.counts = Counts()
        self.share = memory.MemoryTier(options.memory)
        self.unstorable: set[str] = (
            set()
        )  # whose last result could not be stored: nobody waits for another
        self._place: str | None = None
        self._shelf: DiskTier | None = None
        self.codec_name = ""  # once there is a shelf
        self._newer: set[str] = set()
        self._policy: tuple[float, float | None] | None = None
        self.known_enabled: bool | None = None  # what `enabled` found: a hit looks here first

    @property
    def enabled(self) -> bool:
        """Whether EFSSTATE_DISABLE lets it work; looked up once."""
        if self.known_enabled is None:
            self.known_enabled = not environment.disabled()
        return self.known_enabled

    @property
    def place(self) -> str:
        """The root's path, for what there is one of for each root of the process."""
        if self._place is None:
            given = None if self.options.root is None else os.fspath(self.options.root)
            try:
                self._place = root.place(given)
            except OSError:  # a relative one, and the working directory is gone: no root, but the caller has a result
                return given or ""
        return self._place

    def shelf(self) -> DiskTier:
        """The namespace on the mount; `RootError` if there is no root."""
        if self._shelf is None:
            mount = root.resolve(self.options.root)
            self.codec_name, self._dumps, self._loads = codec.resolve_codec(
                self.options.codec, signed=mount.key is not None
            )
            shelf = shelves.find(mount, self.component)
            shelf.remember_in(self.share)
            self._shelf = shelf
        return self._shelf

    def failed(self, error: BaseException, doing: str) -> None:
        """Count and tell that the mount did not do it."""
        damaged = isinstance(error, CorruptEntryError)
        self.counts.damaged += damaged
        self.counts.errors += not damaged
        if events.listeners:
            events.emit(
                "cache",
                "error",
                self.name,
                error=type(error).__name__,
                message=str(error),
                doing=doing,
            )
        kind = (
            "root"
            if isinstance(error, RootError)
            else f"{self.name} {doing} {type(error).__name__}"
        )
        kind += str(getattr(error, "errno", ""))
        events.log(
            "warning", "cache %s: could not %s, went on without: %s", self.name, doing, error, once=kind,
            cache=self.name, doing=doing, error=type(error).__name__,
        )  # fmt: skip

    def tell(self, event: str, began: float, **values: object) -> None:
        """Tell the listeners what took so long since `began` (monotonic)."""
        if events.listeners:
            events.emit("cache", event, self.name, seconds=time.monotonic() - began, **values)

    def guarded(self, doing: str, function: Callable[[], Any], default: Any = None) -> Any:
        """`function()` within the io_timeout; `default` where the mount fails."""
        try:
            return io_threads.call(self.place, function, self.io_timeout)
        except FAILURES as error:
            self.failed(error, doing)
            return default

    # How long a result counts

    def left(self, item: Item) -> float:
        """Seconds for which it still counts; negative: expired since so many."""
        limit = item.ttl
        if self.ttl is not None and (limit is None or self.ttl < limit) and not item.own_ttl:
            limit = self.ttl
        if limit is None:
            return _ENDLESS
        # From the future: our clock is behind, and would serve it for as much too long. To compute it tells us the time.
        age = clock.now() - item.created
        # MUT: a-result-from-the-future
        return limit - age if age > -_SKEW else 0.0

    def _trust(self, item: Item) -> None:
        now = time.time()
        item.since = now
        item.until = now + min(MAX_STALENESS, self.left(item))

    # Finding

    def recall(self, digest: str) -> Item | None:
        """From memory alone, if it may be trusted without asking the mount."""
        item = self.share.get(digest)
        return item if item is not None and item.since <= time.time() < item.until else None

    def fetch(
        self, digest: str, *, fresh: bool = False, exact: bool = False, again: bool = False
    ) -> Item | None:
        """From the mount, perhaps expired; None if there is none that counts. On the caller's thread; raises nothing.

        `fresh`: whatever this host's client remembers of the name; `exact`: and of clears. `again`: a second look of one
        call, whose failure was told after the first.
        """
        if self._newer:
            self._newer.discard(digest)
        try:
            shelf = self._shelf or self.shelf()
            kept = self.share.limit != 0
            change = shelf.last_change(digest) if kept else None
            held = self.share.get(digest) if kept else None
            if (
                held is not None
                and not fresh
                and not exact
                and self.left(held) > 0
                and shelf.unchanged(digest, held)
            ):
                self._trust(held)
                return held
            item = shelf.read(digest, self.codec_name, fresh, exact, kept)
            if item is not None:
                return self._ready(digest, item, shelf, change) if kept else self._taken(item)
        except UnknownFormatError as error:
            if len(self._newer) < _MOST_NOTED:
                self._newer.add(digest)
            if not again:
                self.failed(error, "read a result")
        except (*FAILURES, ValueError) as error:
            if not again:
                self.failed(error, "read a result")
        self.share.drop(digest)
        return None

    def fetch_in_time(self, digest: str) -> Item | None:
        """`fetch` within the io_timeout."""
        if self.io_timeout is None:
            return self.fetch(digest)
        found: Item | None = self.guarded("read a result", lambda: self.fetch(digest))
        return found

    def _taken(self, item: Item) -> Item:
        """The item with its value, for a caller, and not for memory."""
        payload = item.payload
        item.cost = len(payload) if type(payload) is not tuple else len(payload[1])
        item.first = [self._loads(payload)]
        # An array of the caller's is a view into it: it can't be anybody else's.
        item.hollow = type(payload) is not tuple
        return item

    def _ready(self, digest: str, item: Item, shelf: DiskTier, change: object) -> Item:
        """The item with its value, and kept in memory where it fits."""
        payload = item.payload
        if not self.share.fits(len(payload) if type(payload) is not tuple else len(payload[1])):
            return self._taken(item)
        if type(payload) is not tuple:
            # It stays here: what a caller gets must not be a view into it.
            payload = item.payload = memoryview(payload).toreadonly()
        value = self._loads(payload)
        shared = memory.shared_size(value)
        if shared is None:
            item.first, item.cost = [value], len(payload)
        else:
            item.value, item.payload, item.cost = value, None, shared
        item.digest = digest
        self._remember(item, shelf, change)
        return item

    def _remember(self, item: Item, shelf: DiskTier, change: object) -> None:
        """Keep it in memory, unless this process has changed the entry since `change`."""
        self._trust(item)
        if item.until > item.since:
            with (
                memory.guard()
            ):  # looked at after the put, another thread would be given it in between
                if shelf.last_change(item.digest) is change:
                    self.share.put(item)

    def served(self, item: Item, level: str, began: float) -> None:
        """Count and tell a hit: from "memory", the "mount", or "stale"."""
        counts = self.counts
        setattr(counts, level, getattr(counts, level) + 1)
        self.tell("hit", began, bytes=item.cost, level=level)

    def value(self, item: Item, default: Any) -> Any:
        """`take`, or `default` where the value can't be read any more: counted, told and forgotten."""
        try:
            return self.take(item)
        except (ValueError, *FAILURES) as error:
            self.unreadable(item, error)
            return default

    def unreadable(self, item: Item, error: BaseException) -> None:
        """Count and tell an item that can't be taken, and forget it."""
        self.failed(error, "read a result")
        self.share.drop(item.digest)

    def take(self, item: Item) -> Any:
        """The value, the caller's own. Raises `ValueError` if it can't be read."""
        value = item.value
        if value is not memory.PACKED:
            return value
        try:
            return item.first.pop()  # one caller's, whoever comes first
        except (IndexError, AttributeError):
            return self._loads(item.payload)

    # Keeping

    def keep(
        self,
        digest: str,
        value: Any,
        ttl: float | None,
        *,
        key: bytes = b"",
        own_ttl: bool = False,
        start: Snapshot | None = None,
    ) -> Item | None:
        """Put `value` on the mount and in memory; the item if it is kept, `hollow` where memory has no room for it.

        `start`: what it was computed from; where that is out of date by now, it is not kept. `own_ttl`: the cache's own
        does not shorten `ttl`. Raises `EncodeError`, and what the mount raises.
        """
        shelf = self.shelf()
        payload = self._dumps(value)
        replaces = start is None or start.changing
        change, now = shelf.forget(digest), shelf.generation()
        item = self._held(digest, value, payload, ttl, now)
        item.own_ttl = own_ttl
        kept = True
        try:
            if (
                replaces or digest not in self._newer
            ):  # hosts of two releases must not take turns at replacing it
                kept = shelf.write(
                    digest, payload, codec_name=self.codec_name, ttl=ttl, key=key, own_ttl=own_ttl, start=start,
                    generation=now if start is None else start.generation,
                )  # fmt: skip
                self.counts.puts += kept
        except BaseException:
            if replaces:
                self.retract(digest, start)
            raise
        finally:
            # On a full disk memory still serves, for as long as it may without asking the mount.
            change = shelf.forget(digest, since=change)  # what was read meanwhile
            if (
                kept
                and change is not None
                and not item.hollow
                and (start is None or start.generation == now)
            ):
                item.created = clock.now()
                self._remember(item, shelf, change)
        self._look_after(shelf, ttl)
        return item if kept else None

    def _held(
        self, digest: str, value: Any, payload: Any, ttl: float | None, generation: int
    ) -> Item:
        item = memory.Item(None, self.codec_name, b"", 0.0, ttl)
        item.digest, item.generation = digest, generation
        # Another's codec may give back something else: a JSON has no tuples.
        shared = memory.shared_size(value) if self.codec_name in ("msgpack", "pickle") else None
        if shared is not None:
            item.value, item.cost = value, shared
        else:
            parts = payload if isinstance(payload, list) else [payload]
            item.cost = sum([memoryview(part).nbytes for part in parts])
            if self.share.fits(item.cost):
                item.payload = b"".join(parts)
            else:
                item.hollow = True
        return item

    def _look_after(self, shelf: DiskTier, ttl: float | None) -> None:
        """What a put brings with it: the policy, and a little clean-up where there is a limit."""
        try:
            self._tell_policy(shelf, ttl)
        except (*FAILURES, ValueError) as error:
            self.failed(error, "write the policy")
        if self.max_bytes is not None:
            from efsstate.eviction import trim

            trim.trim(shelf.mount, self.component, self.max_bytes)

    def _tell_policy(self, shelf: DiskTier, ttl: float | None) -> None:
        """Have POLICY say at least what this result needs; looked at once a process, unless something new comes."""
        life = None if ttl is None else ttl + self.stale
        shortest = 0.0 if self.options.ttl_of else _FOREVER if life is None else life
        known = self._policy
        if (
            known is not None
            and known[0] <= shortest
            and (known[1] is None or (life is not None and life <= known[1]))
        ):
            return
        longest = None if self.options.ttl_of else life
        self._policy = (
            shortest,
            longest,
        )  # also where it can't be written: not to be tried at every put
        self._policy = shelf.widen_policy(self.name, shortest, longest, self.max_bytes)

    def remove(self, digest: str) -> bool:
        """Remove a result here and on the mount; whether there was one that counted. Raises what the mount raises."""
        shelf = self.shelf()
        shelf.forget(digest)
        try:
            found = shelf.glance(digest, self.codec_name)
        except (OSError, EfsStateError):  # damaged, newer, or can't be read: it goes all the same
            found = None
        removed = shelf.remove(digest)
        # Who began meanwhile may have read what was there still, and who comes must not join.
        flights.doom(self, digest)
        return removed and found is not None and self.left(found) > 0

    def forget(self, digest: str | None) -> None:
        """Memory has it no more (None: all), in any cache of this name."""
        if self._shelf is not None:
            self._shelf.forget(digest)

    def retract(self, digest: str, start: Snapshot | None) -> None:
        """What was to be replaced must not be served from now on; what came since `start` (None: anything) may. Raises nothing."""
        shelf = self.shelf()
        shelf.discard(digest, start)
        shelf.forget(digest)

    def start(self, digest: str, mine: Flight, *, alone: bool, changing: bool) -> Snapshot:
        """What `mine`, a computation that begins now, starts from. Raises what the mount raises."""
        start = self.shelf().start(digest, alone=alone, changing=changing)
        start.flight = mine
        return start

    def note_unstorable(self, digest: str) -> None:
        """The result could not be stored: who wants another one does not wait for it."""
        if len(self.unstorable) >= _MOST_NOTED:
            self.unstorable.clear()
        self.unstorable.add(digest)

    def clear(self) -> None:
        """Put all results out of reach. Raises what the mount raises."""
        shelf = self.shelf()
        shelf.forget()
        try:
            shelf.clear()
        finally:
            flights.doom(self)  # as in `remove`

    def key_of(self, digest: str) -> bytes | None:
        """The key of a value that counts, as `keep` got it. On the caller's thread; raises nothing."""
        try:
            found = self.shelf().read(digest, self.codec_name)
        except (*FAILURES, ValueError) as error:
            self.failed(error, "read a value")
            return None
        return None if found is None or self.left(found) <= 0 else key_of(found)

    def explain(self, digest: str) -> str:
        """Why the mount has a result or has not. Raises what the mount raises."""
        shelf = self.shelf()
        found = shelf.read(digest, self.codec_name, exact=True)
        if found is None:
            return f"miss: {shelf.why_not(digest, self.codec_name)}"
        left = self.left(found)
        if left <= 0:
            return f"miss: expired {-left:.0f} s ago" + (
                ", but may be given while it is recomputed" if -left < self.stale else ""
            )
        self._loads(found.payload)
        return (
            f"hit: on the mount, {'for ever' if left == float('inf') else f'for {left:.0f} s more'}"
        )
