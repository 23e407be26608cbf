"""What may be judged of a cache entry without opening it: the namespace's POLICY and CLEARED, and what the sweep was asked.

A namespace's POLICY is an entry whose payload is a msgpack map:

    name                the function's or cache's name, for people
    shortest, longest   seconds: the shortest and the longest that an entry may be served (its ttl and `stale`);
                        `longest` is nil where one may be served for ever
    max_bytes, max_entries   the namespace's limits, or nil

Every other key is for later releases. A release that changes the format of entries raises POLICY's too: a namespace
whose POLICY is newer than this release is left alone as a whole.
"""

from __future__ import annotations

from efsstate.errors import CorruptEntryError, UnknownFormatError
from efsstate.format import layout
from efsstate.mount import links, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

    from efsstate.mount.files import Mount

LIVE, LOOK = "", "?"  # keep it unopened; only its header can tell


class Policy:
    """What is known of one namespace: see the module. `cleared` is when it was cleared last (server's clock), or None."""

    __slots__ = ("cleared", "longest", "max_bytes", "max_entries", "name", "shortest")

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

    def judge(
        self, found: os.stat_result, now: float, older_than: float | None, unused_for: float | None
    ) -> str:
        """Why the entry with this stat goes ("cleared", "old", "unused", "expired"), or LIVE, or LOOK: open it."""
        age = now - found.st_mtime
        if self.cleared is not None and found.st_mtime < self.cleared:
            return "cleared"
        if older_than is not None and age >= older_than:
            return "old"
        if unused_for is not None and now - used(found) / 1e9 >= unused_for:
            return "unused"
        if self.longest is not None and age >= self.longest:
            return "expired"
        return LIVE if age < self.shortest else LOOK

    def is_expired(self, created: float, ttl: float | None, now: float) -> bool:
        """Whether an entry with this header is past its ttl; `stale` is not in it, so the shortest stands in for it."""
        return ttl is not None and now - created >= max(ttl, self.shortest)


def used(found: os.stat_result) -> int:
    """When the file was used last, in nanoseconds, as far as its stat tells (uses are noted at most once a day)."""
    return max(found.st_atime_ns, found.st_mtime_ns)


def read(mount: Mount, namespace: str) -> tuple[Policy, Exception | None]:
    """The policy of `namespace`, and what was wrong with its file: then, or without one, every entry's header decides.

    Raises `UnknownFormatError`: the namespace is a newer release's, to be left alone. Two or three requests each for
    the POLICY and the folder's listing.
    """
    folder = f"{layout.CACHE}/{namespace}"
    policy, problem = Policy(layout.readable(namespace)), None
    # MUT: a-newer-policy-all-is-left-alone
    try:
        held = store.read(mount, folder, layout.POLICY, stale=0)
        policy = _parse(bytes(held.payload), policy.name, mount.path_of(folder, layout.POLICY))
    except FileNotFoundError:
        pass
    except UnknownFormatError:
        raise
    except (CorruptEntryError, OSError) as error:
        problem = error
    try:
        marks = layout.cleared_marks(mount.names(folder))
        sound = [
            (n, name)
            for name, n in marks
            if name == links.mark(mount, folder, layout.cleared_mark(n))
        ]
        policy.cleared = mount.stat(folder, max(sound)[1]).st_mtime if sound else None
    except OSError:
        pass
    return policy, problem


def _parse(payload: bytes, name: str, path: str) -> Policy:
    import msgpack  # type: ignore[import-untyped]

    try:
        told = msgpack.unpackb(payload)
        shortest, longest = told.get("shortest") or 0.0, told.get("longest")
        limits = told.get("max_bytes"), told.get("max_entries")
    except Exception:  # msgpack raises a dozen kinds; whichever, it is not what a cache wrote
        raise CorruptEntryError(path, "not a policy") from None
    numbers = (
        shortest,
        0.0 if longest is None else longest,
        *[0 if limit is None else limit for limit in limits],
    )
    if any(
        isinstance(one, bool) or not isinstance(one, (int, float)) or not 0 <= one < float("inf")
        for one in numbers
    ):
        raise CorruptEntryError(path, "not a policy: a length of time or a limit is no number")
    return Policy(str(told.get("name") or name), float(shortest), longest, *limits)
