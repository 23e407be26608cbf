"""Keep track of one cache: its root and namespace, its counters, and the failures it forgives."""

from __future__ import annotations

import os
import time
from errno import EMFILE, ENFILE
from weakref import WeakSet

from efsstate import events, process
from efsstate.cache import disk, memory
from efsstate.errors import CorruptEntryError, EfsStateError, RootError
from efsstate.format import codec, layout
from efsstate.mount import environment, root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.cache.disk import DiskTier
    from efsstate.cache.memory import Item
    from efsstate.cache.options import Options
    from efsstate.mount.files import Mount

# An ImportError: the modules of a first use cannot be loaded without a free descriptor, nor while
# the interpreter shuts down.
FAILURES = (OSError, EfsStateError, MemoryError, ImportError)
ENDLESS = float("inf")  # seconds
_PAUSE = 60.0  # seconds until puts try again to widen POLICY, after two of them failed
_FOREVER = 10.0**10  # seconds: the shortest life of an entry that never expires, for the sweep


def is_load_failure(error: Exception) -> bool:
    """Return True if a module could not be loaded: no descriptor is free, or Python shuts down."""
    return isinstance(error, ImportError) or getattr(error, "errno", 0) in (EMFILE, ENFILE)


class Counts:
    """The events of one cache, in calls."""

    __slots__ = (
        "computed", "damaged", "errors", "memory", "mount", "puts", "stale", "unstored", "waits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.errors = self.damaged = 0
        self.memory = self.mount = self.stale = self.computed = self.puts = self.waits = 0
        self.unstored = 0

    def reset(self) -> None:
        """Start counting calls again; the failures of the mount and `events.totals` go on."""
        calls = ("memory", "mount", "stale", "computed", "puts", "waits", "unstored")
        events.restart(self, calls)


_all: WeakSet[Namespace] = WeakSet()


@process.at_reset
def _start_over() -> None:
    for cache in list(_all):
        cache.start_over()


class Upkeep:
    """The policy of one namespace, as far as this process knows it.

    POLICY covers a result if its ttl and its stale time together are between `shortest` and
    `longest` seconds; at first it covers none. Before the monotonic time `retry_at` a put does not
    try again to widen POLICY.
    """

    def __init__(self, name: str, component: str, options: Options) -> None:
        self._name, self._component, self._options = name, component, options
        self.forget()

    def forget(self) -> None:
        """Know nothing of the policy: there is another root now."""
        self.shortest, self.longest = ENDLESS, 0.0
        self.retry_at, self._has_failed = 0.0, False

    def widen(self, mount: Mount, life: float) -> None:
        """Make POLICY cover a result with this life. Raise the mount's errors, ValueError."""
        from efsstate.eviction import policy

        options, is_endless = self._options, life == ENDLESS
        shortest, longest = _FOREVER if is_endless else life, None if is_endless else life
        if options.ttl_of:
            shortest, longest = 0.0, None
        wanted = policy.Policy(
            self._name, shortest, longest, options.max_bytes, options.max_entries
        )
        wanted.keeps_unused = options.keeps_unused
        # MUT: a-policy-is-known-once-it-is-written
        stored = policy.widen(mount, self._component, wanted)
        self.shortest = stored.shortest
        self.longest = ENDLESS if stored.longest is None else stored.longest
        self._has_failed = False

    def postpone(self) -> None:
        """Note that a put could not widen POLICY.

        The next put tries again, because most failures are short. If that fails too, puts try again
        after `_PAUSE` seconds: each try costs a put several requests.
        """
        if self._has_failed:
            self.retry_at = time.monotonic() + _PAUSE
        self._has_failed = True

    def trim(self, mount: Mount) -> None:
        """Remove a few of the least recently used results if there are too many."""
        from efsstate.eviction import trim

        trim.trim(mount, self._component, self._options.max_bytes, self._options.max_entries)


class Namespace:
    """One cache on the root that counts now, with its tiers: `memory`, and, once used, `disk()`."""

    def __init__(self, name: str, options: Options) -> None:
        self.name, self.options = name, options
        self.component = layout.component(name)
        self.ttl, self.stale = options.ttl, options.stale
        self.has_limit = options.max_bytes is not None or options.max_entries is not None
        self.io_timeout = options.io_timeout
        self.counts = Counts()
        events.count_for(self, name, self.counts)
        _all.add(self)
        self.memory = memory.MemoryTier(options.memory)
        self.unstorable: set[str] = set()  # of results that could not be stored
        self.codec_name = ""  # once there is a disk tier
        self.identify_code: Callable[[], bytes] | None = None  # of a function: see `fingerprint`
        self._fingerprint = b""
        self.known_enabled = False  # as `follow_environment` found it
        self.seen_root: object = self  # the variables' values then; until the first call, neither
        self.seen_disable: object = self
        self._root_path = ""
        self._disk: DiskTier | None = None
        self._newer: set[str] = set()  # of entries that a newer release wrote
        self.upkeep = Upkeep(name, self.component, options)

    @property
    def enabled(self) -> bool:
        """Return False if EFSSTATE_DISABLE is set now."""
        if (
            environment.peek(environment.ROOT) is not self.seen_root
            or environment.peek(environment.DISABLE) is not self.seen_disable
        ):
            self.follow_environment()
        return self.known_enabled

    def follow_environment(self) -> None:
        """Go by EFSSTATE_ROOT and EFSSTATE_DISABLE as they are now.

        Tests set them while the process lives: another root has other results.
        """
        is_first, root_before = self.seen_root is self, self.seen_root
        self.seen_root = environment.peek(environment.ROOT)
        self.seen_disable = environment.peek(environment.DISABLE)
        self.known_enabled = not environment.disabled()
        # MUT: results-of-another-root-are-not-served
        is_moved = self.options.root is None and self.seen_root != root_before
        if is_moved and not is_first:
            if self._disk is not None:
                self._disk.changes.record()  # no computation there fills our memory
            self._root_path, self._disk = "", None
            self.upkeep.forget()
        if not is_first and (is_moved or not self.known_enabled):
            self.memory.clear()  # a remembered call is served without a look at anything else

    def start_over(self) -> None:
        """Forget the items in memory, the counts, and the tier on the mount; for tests."""
        self.counts.errors = self.counts.damaged = 0
        self.counts.reset()
        self.memory.clear()
        self.unstorable.clear()
        self._newer.clear()
        self._root_path, self._disk, self.seen_root = "", None, self
        self.upkeep.forget()

    def identify_again(self) -> None:
        """Compare results with the function's code as it is now."""
        if self.identify_code is not None and self._disk is not None:
            self._fingerprint = self.identify_code()

    def disk(self) -> DiskTier:
        """Return the namespace on the mount; raise RootError if there is no root."""
        if self._disk is None:
            mount = root.resolve(self.options.root)
            self.codec_name, self._dumps, self.loads = codec.resolve_codec(
                self.options.codec, signed=mount.key is not None
            )
            if self.identify_code is not None:
                self._fingerprint = self.identify_code()
            tier = disk.find(mount, self.component)
            tier.changes.attach(self.memory)
            self._disk = tier
        return self._disk

    @property
    def root_path(self) -> str:
        """The root's path, by which the process has one circuit and one flight for a key."""
        if not self._root_path:
            path = None if self.options.root is None else os.fspath(self.options.root)
            try:
                self._root_path = root.place(path)
            except OSError as error:
                process.raise_of_handler(error)
                return path or ""  # a relative one, and the working directory is gone: no root
        return self._root_path

    # Events and failures

    def report_failure(self, error: BaseException, doing: str) -> None:
        """Count and log that the mount failed while `doing` something.

        Raise the error if a signal handler raised it: the handler limits the caller's time.
        """
        # MUT: a-time-limit-is-no-failure-of-the-mount
        process.raise_of_handler(error)
        self.count_failure(error, doing)

    def count_failure(self, error: BaseException, doing: str) -> None:
        """Count and log an error of the mount, or of the caller's function."""
        is_damage = isinstance(error, CorruptEntryError)
        self.counts.damaged += is_damage
        self.counts.errors += not is_damage
        if events.listeners:
            events.emit(
                "cache",
                "error",
                self.name,
                error=type(error).__name__,
                message=str(error),
                doing=doing,
            )
        kind = f"{self.name} {doing} {type(error).__name__}"
        if isinstance(error, RootError):
            kind = "root"
        events.log(
            "warning", "cache %s: could not %s, went on without: %s", self.name, doing, error,
            once=f"{kind}{getattr(error, 'errno', '')}",
            kind="cache", event="error", name=self.name, doing=doing, error=type(error).__name__,
        )  # fmt: skip

    def emit(self, event: str, began: float, **values: object) -> None:
        """Emit an event that has taken since `began` (monotonic)."""
        if events.listeners:
            events.emit("cache", event, self.name, seconds=time.monotonic() - began, **values)

    def emit_miss(self, digest: str, began: float, error: BaseException | None) -> None:
        """Emit that a result was computed, or that computing it raised an Exception."""
        if events.listeners:
            if isinstance(error, Exception):
                self.emit("miss", began, key=digest, error=type(error).__name__)
            elif error is None:
                self.emit("miss", began, key=digest)

    def count_hit(self, item: Item, level: str, began: float) -> None:
        """Count and emit a hit at a level: "memory", "mount", or "stale"."""
        counts = self.counts
        setattr(counts, level, getattr(counts, level) + 1)
        self.emit("hit", began, bytes=item.cost, level=level)

    def count_wait(self, began: float) -> None:
        """Count and emit a wait for another computation."""
        self.counts.waits += 1
        self.emit("wait", began)
