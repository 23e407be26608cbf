"""The POLICY of a namespace, by which its entries are judged without opening them.

POLICY is an entry; its payload is a msgpack map:

    name                     the function's or cache's name, for people
    shortest, longest        seconds: the least and the most that an entry may be served, its ttl
                             and `stale` together; `longest` is nil if one may be served for ever
    max_bytes, max_entries   the namespace's limits, or nil
    keeps_unused             true if entries stay however long they are not used; else missing

Other keys are for later releases. A release that changes the format of entries raises POLICY's
too, and a namespace whose POLICY is newer than this release is left as it is.

Every cache of the namespace widens POLICY until it covers its own entries. A limit stays until
another is given. Writers take turns by the file LOCK beside it, because of two that read, merge
and write at once, the second would undo the first.
"""

from __future__ import annotations

import time

from efsstate import process
from efsstate.errors import CorruptEntryError, EfsStateError, UnknownFormatError
from efsstate.format import entry, layout
from efsstate.mount import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

    from efsstate.mount.files import Mount
    from efsstate.mount.lock import Lock

LIVE, UNSURE = "", "unsure"  # `judge`: it stays; only its header can tell
_WAIT = 1.0  # seconds that a writer waits for its turn: a put waits for it


class _NoPolicyError(CorruptEntryError):
    """The checksum of POLICY matches, but its content is not a policy."""


class Policy:
    """The fields of one namespace's POLICY, and when the namespace was cleared.

    `cleared` is the server's time in seconds, or None. It is no part of POLICY, so it is left out
    of comparisons.
    """

    __slots__ = (
        "cleared",
        "keeps_unused",
        "longest",
        "max_bytes",
        "max_entries",
        "name",
        "shortest",
    )

    def __init__(
        self,
        name: str,
        shortest: float = 0.0,
        longest: float | None = None,
        max_bytes: int | None = None,
        max_entries: int | None = None,
        cleared: float | None = None,
    ) -> None:
        self.name = name
        self.shortest, self.longest = shortest, longest
        self.max_bytes, self.max_entries = max_bytes, max_entries
        self.cleared = cleared
        self.keeps_unused = False

    def __eq__(self, other: object) -> bool:
        """Return True if `other` would be stored as the same POLICY."""
        return isinstance(other, Policy) and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]

    def _fields(self) -> dict[str, object]:
        return {
            "name": self.name,
            "shortest": self.shortest,
            "longest": self.longest,
            "max_bytes": self.max_bytes,
            "max_entries": self.max_entries,
            **({"keeps_unused": True} if self.keeps_unused else {}),
        }

    def encode(self) -> bytes:
        """Return the payload of POLICY."""
        import msgpack  # type: ignore[import-untyped]

        return bytes(msgpack.packb(self._fields()))

    def widened(self, wanted: Policy) -> Policy:
        """Return the policy that covers this one's entries and those of `wanted`.

        A limit of `wanted` takes the place of this one's. Without one this one's stays: a program
        that opens the namespace without naming its limit must not lift it.
        """
        longest = None
        if self.longest is not None and wanted.longest is not None:
            longest = max(self.longest, wanted.longest)
        # MUT: a-limit-stays-until-another-is-given
        max_bytes = self.max_bytes if wanted.max_bytes is None else wanted.max_bytes
        max_entries = self.max_entries if wanted.max_entries is None else wanted.max_entries
        shortest = min(self.shortest, wanted.shortest)
        merged = Policy(wanted.name, shortest, longest, max_bytes, max_entries, self.cleared)
        merged.keeps_unused = self.keeps_unused or wanted.keeps_unused
        return merged

    def judge(
        self,
        status: os.stat_result,
        now: float,
        older_than: float | None,
        unused_for: float | None,
    ) -> str:
        """Return why the entry with this `status` goes, LIVE if it stays, or UNSURE.

        The reasons are "cleared", "old", "unused" and "expired". UNSURE: its header must be read.
        """
        age = now - status.st_mtime
        if self.cleared is not None and status.st_mtime < self.cleared:
            return "cleared"
        if older_than is not None and age >= older_than:
            return "old"
        is_unused = unused_for is not None and now - last_use(status) / 1e9 >= unused_for
        # MUT: an-entry-that-must-stay-is-not-unused
        if is_unused and not self.keeps_unused:
            return "unused"
        if self.longest is not None and age >= self.longest:
            return "expired"
        return LIVE if age < self.shortest else UNSURE

    def is_expired(self, created: float, ttl: float | None, now: float) -> bool:
        """Return True if an entry with this header is past its ttl.

        The header does not tell `stale`, so the namespace's shortest time stands in for it.
        """
        return ttl is not None and now - created >= max(ttl, self.shortest)


def last_use(status: os.stat_result) -> int:
    """Return when the file was used last, in nanoseconds; uses are noted at most once a day."""
    return max(status.st_atime_ns, status.st_mtime_ns)


def read(mount: Mount, namespace: str) -> tuple[Policy, Exception | None]:
    """Return the policy of `namespace` with its last clear, and the error that POLICY gave.

    If POLICY is missing or gave an error, the policy leaves every verdict to the entries' headers.
    If it gave an error, the policy keeps entries that are not used, because POLICY may say so.
    Raise UnknownFormatError for a newer release's namespace, which is to be left as it is. It takes
    two or three requests each for POLICY and for the folder's listing.
    """
    policy, problem = Policy(layout.readable(namespace)), None
    # MUT: a-newer-policy-all-is-left-alone
    try:
        policy = load(mount, namespace) or policy
    except UnknownFormatError:
        raise
    except (CorruptEntryError, OSError) as error:
        process.raise_of_handler(error)
        problem = error
        # MUT: an-unreadable-policy-keeps-unused-entries
        policy.keeps_unused = True
    policy.cleared = _cleared_at(mount, f"{layout.CACHE}/{namespace}")
    return policy, problem


def load(mount: Mount, namespace: str) -> Policy | None:
    """Return POLICY without the last clear, or None if there is no POLICY.

    Raise CorruptEntryError, UnknownFormatError, or OSError.
    """
    folder = f"{layout.CACHE}/{namespace}"
    try:
        stored = mount.read_entry(folder, layout.POLICY, stale=0)
    except FileNotFoundError:
        return None
    path = mount.path_of(folder, layout.POLICY)
    return _parse(bytes(stored.payload), layout.readable(namespace), path)


def is_well_formed(mount: Mount, folder: str, name: str) -> bool:
    """Return True if the header of the entry `name` is sound; its checksum is not compared.

    If the checksum of an entry does not match, the entry is damaged, or another key signed it. Only
    a process with that key can tell which. Raise OSError.
    """
    head, status = mount.read_stat(folder, name, entry.HEADER)
    try:
        entry.peek(bytes(head), status.st_size, mount.path_of(folder, name))
    except EfsStateError:
        return False
    return True


def widen(mount: Mount, namespace: str, wanted: Policy) -> Policy:
    """Make POLICY cover `wanted` too, and return the result.

    A newer release's POLICY is left as it is, and `wanted` returned. The same goes for one that may
    be signed, if this process has no key. A damaged one is replaced. Raise OSError if POLICY cannot
    be read or written.
    """
    try:
        merged, is_stored = _merge(mount, namespace, wanted)
        if is_stored:
            return merged
        # Actor 1 reads POLICY; actor 2 reads it, merges and writes; actor 1 writes its merge
        # with the old one: 2's entries would be swept by 1's times. So read again, in turn.
        # MUT: writers-of-a-policy-take-turns
        turn = _wait_for_turn(mount, f"{layout.CACHE}/{namespace}")
        try:
            merged, is_stored = _merge(mount, namespace, wanted)
            if not is_stored:
                write(mount, namespace, merged)
            return merged
        finally:
            if turn is not None:
                turn.release()
    except UnknownFormatError:
        return wanted


def write(mount: Mount, namespace: str, policy: Policy) -> None:
    """Put `policy` in place of the POLICY that there is. Raise OSError."""
    folder = f"{layout.CACHE}/{namespace}"
    mount.write_entry(folder, layout.POLICY, policy.encode(), codec="msgpack")


def _merge(mount: Mount, namespace: str, wanted: Policy) -> tuple[Policy, bool]:
    """Return the policy that covers POLICY and `wanted`, and True if POLICY need not be written."""
    try:
        stored = load(mount, namespace)
    except _NoPolicyError:
        stored = None
    except CorruptEntryError:
        # MUT: a-policy-that-may-be-signed-is-not-written
        if not mount.key and is_well_formed(mount, f"{layout.CACHE}/{namespace}", layout.POLICY):
            return wanted, True
        stored = None
    merged = wanted if stored is None else stored.widened(wanted)
    return merged, merged == stored


def _wait_for_turn(mount: Mount, folder: str) -> Lock | None:
    """Return the lock of POLICY's writers, or None if it is not to be had within `_WAIT`."""
    from efsstate.mount import lock

    try:
        return lock.acquire(mount, folder, layout.LOCK, until=time.monotonic() + _WAIT)
    except OSError as error:
        process.raise_of_handler(error)
        return None  # a mount without locks: writing POLICY unlocked is better than not at all


def _cleared_at(mount: Mount, folder: str) -> float | None:
    """Return when the namespace in `folder` was cleared last, by the server's clock, or None."""
    try:
        numbers = [
            (number, name)
            for name, tag, number in layout.cleared_marks(mount.names(folder))
            if not tag and name == links.mark(mount, folder, layout.cleared_mark(number))
        ]
        return mount.stat(folder, max(numbers)[1]).st_mtime if numbers else None
    except OSError as error:
        process.raise_of_handler(error)
        return None


def _parse(payload: bytes, name: str, path: str, *, is_again: bool = False) -> Policy:
    import msgpack

    try:
        fields = msgpack.unpackb(payload)
        shortest, longest = fields.get("shortest") or 0.0, fields.get("longest")
        limits = fields.get("max_bytes"), fields.get("max_entries")
    except Exception:  # msgpack raises a dozen kinds, all of which say that no cache wrote this
        # MUT: an-alarm-does-not-damage-a-policy
        if not is_again:
            _parse(payload, name, path, is_again=True)
            raise  # the bytes are a policy: a signal handler raised
        raise _NoPolicyError(path, "not a policy") from None
    numbers = [shortest, *[0 if number is None else number for number in (longest, *limits)]]
    if not all(_is_measure(number) for number in numbers):
        raise _NoPolicyError(path, "not a policy: a length of time or a limit is no number")
    longest = None if longest is None else float(longest)
    policy = Policy(str(fields.get("name") or name), float(shortest), longest, *limits)
    policy.keeps_unused = fields.get("keeps_unused") is True
    return policy


def _is_measure(number: object) -> bool:
    """Return True if `number` can be a length of time or a limit."""
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    return is_number and 0 <= number < float("inf")  # type: ignore[operator]
