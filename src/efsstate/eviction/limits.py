"""Holds a cache to its limits: finds how much is too much, and removes what was used least recently.

It needs two looks at the folders and no list of entries: the first adds up bytes and entries by the time of last use, in
a histogram of bounded size; that gives the time before which all must go; the second removes it.
"""

from __future__ import annotations

import stat
import threading

from efsstate.errors import CorruptEntryError
from efsstate.eviction.policy import last_use
from efsstate.eviction.report import SweepReport
from efsstate.eviction.scan import BATCH, EVERY, TimeUp, remove
from efsstate.format import layout
from efsstate.parallel import spread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from efsstate.eviction.scan import SweepOptions
    from efsstate.mount.files import Mount

    Cut = tuple[int, int, int]

_MOST = 8192  # steps of the histogram: under 2 MiB, and the cut is right to 1/4096 of the range of times


class Uses:
    """Entries and bytes by time of last use; times grow coarser (the step doubles) when they become too many."""

    __slots__ = ("entries", "size", "step", "steps")

    def __init__(self) -> None:
        self.step = 1  # nanoseconds
        self.steps: dict[int, list[int]] = {}
        self.entries = self.size = 0

    def add(self, when: int, size: int, entries: int = 1) -> None:
        """Count entries that were last used at `when` (nanoseconds)."""
        self.entries += entries
        self.size += size
        slot = self.steps.get(when // self.step)
        if slot is not None:
            slot[0] += entries
            slot[1] += size
            return
        self.steps[when // self.step] = [entries, size]
        while len(self.steps) > _MOST:
            self._coarsen()

    def _coarsen(self) -> None:
        self.step *= 2
        fine, self.steps = self.steps, {}
        for index, (entries, size) in fine.items():
            slot = self.steps.setdefault(index // 2, [0, 0])
            slot[0] += entries
            slot[1] += size

    def cut(self, max_entries: int | None, max_bytes: int | None) -> Cut | None:
        """What must go, or None: (before, entries, size).

        All used before `before` (ns), and, of those used from there to one step on, so many entries or bytes, whichever
        takes more of them.
        """
        entries = 0 if max_entries is None else self.entries - max_entries
        size = 0 if max_bytes is None else self.size - max_bytes
        if entries <= 0 and size <= 0:
            return None
        for index in sorted(self.steps):
            slot = self.steps[index]
            if slot[0] >= entries and slot[1] >= size:
                return index * self.step, entries, size
            entries -= slot[0]
            size -= slot[1]
        raise AssertionError


def entries(mount: Mount, folder: str, wish: SweepOptions) -> Iterator[tuple[str, int, int]]:
    """Name, last use (ns) and size of each entry in `folder`; raises `TimeUp` when the time is up."""
    for seen, item in enumerate(mount.scan(folder), 1):
        if seen % EVERY == 0 and wish.is_over():
            raise TimeUp
        if not layout.is_digest(item.name):
            continue
        try:
            found = item.stat(follow_symlinks=False)
        except OSError:
            continue  # removed since it was listed
        if stat.S_ISREG(found.st_mode) and not (wish.gone and wish.gone(folder, found)):
            yield item.name, last_use(found), found.st_size


def survey(mount: Mount, folders: Iterable[str], wish: SweepOptions, uses: Uses) -> None:
    """Add the entries of `folders` to `uses`; raises `TimeUp` when the time is up."""
    for folder in folders:
        try:
            for _, when, size in entries(mount, folder, wish):
                uses.add(when, size)
        except (OSError, CorruptEntryError):
            continue  # reported when it was swept: what can't be seen can't be counted, and the others are


class _Edge:
    """What must go of those that were used within the one step at the edge: shared by the workers."""

    def __init__(self, count: int, excess: int) -> None:
        self._count, self._excess = count, excess
        self._lock = threading.Lock()

    def goes(self, size: int) -> bool:
        """Whether one more of them goes."""
        with self._lock:
            if self._count <= 0 and self._excess <= 0:
                return False
            self._count, self._excess = self._count - 1, self._excess - size
            return True


def trim(
    mount: Mount,
    folders: Iterable[str],
    wish: SweepOptions,
    report: SweepReport,
    uses: Uses,
    cut: Cut,
    *,
    workers: int = 1,
) -> bool:
    """Remove what `uses.cut` said from `folders`; whether the time sufficed."""
    before, until, edge = cut[0], cut[0] + uses.step, _Edge(*cut[1:])
    late: list[str] = []
    guard = threading.Lock()

    def work(folder: str) -> None:
        mine = SweepReport()
        try:
            found = entries(mount, folder, wish)
            more = True
            while more:
                doomed: list[tuple[str, int, str]] = []
                with wish.listing:
                    more = False
                    for name, when, size in found:
                        if when < before or (when < until and edge.goes(size)):
                            doomed.append((name, size, "limit"))
                            if len(doomed) >= BATCH:
                                more = True
                                break
                if not remove(mount, folder, doomed, wish, mine):
                    late.append(folder)
                    break
        except TimeUp:
            late.append(folder)
        except (OSError, CorruptEntryError):
            pass  # as in `survey`
        with guard:
            report.add(mine)

    spread(folders, work, workers=workers)
    return not late


def enforce(
    mount: Mount,
    folders: Sequence[str],
    wish: SweepOptions,
    report: SweepReport,
    *,
    max_bytes: int | None = None,
    max_entries: int | None = None,
    workers: int = 1,
) -> bool:
    """Remove, least recently used first, what is in `folders` beyond the limits; whether the time sufficed."""
    uses = Uses()
    try:
        survey(mount, folders, wish, uses)
    except TimeUp:
        return False  # without the whole sum nobody knows what is too much
    cut = uses.cut(max_entries, max_bytes)
    return cut is None or trim(mount, folders, wish, report, uses, cut, workers=workers)
