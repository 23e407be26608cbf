"""Hold a cache to its limits: find how much is too much, and remove the least recently used.

It looks at the folders twice and keeps no list of entries. The first look adds up bytes and entries
by the time of last use, in a histogram of bounded size. That gives the time before which all must
go, and the second look removes them.
"""

from __future__ import annotations

import os
import stat
import time

from efsstate import process
from efsstate.errors import CorruptEntryError
from efsstate.eviction.policy import last_use
from efsstate.eviction.report import SweepReport
from efsstate.eviction.scan import BATCH, EVERY, BudgetExhausted, remove
from efsstate.format import layout
from efsstate.parallel import spread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from efsstate.eviction.scan import Doomed, SweepOptions
    from efsstate.mount.files import Mount

    Cut = tuple[int, int, int]

# Steps of the histogram: under 2 MiB, and the cut is right to 1/4096 of the range of times.
_MOST_STEPS = 8192


class Uses:
    """Entries and bytes by time of last use; the step of time doubles when steps are too many."""

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
        while len(self.steps) > _MOST_STEPS:
            self._double_step()

    def merge(self, other: Uses) -> None:
        """Add the entries of `other`, as exactly as its step tells."""
        for index, (entries, size) in other.steps.items():
            self.add(index * other.step, size, entries)

    def _double_step(self) -> None:
        self.step *= 2
        fine, self.steps = self.steps, {}
        for index, (entries, size) in fine.items():
            slot = self.steps.setdefault(index // 2, [0, 0])
            slot[0] += entries
            slot[1] += size

    def cut(self, max_entries: int | None, max_bytes: int | None) -> Cut | None:
        """Return the cut as (before, entries, size), or None if nothing must go.

        All used before `before` (nanoseconds) go, and of those used from there to one step on, so
        many entries or bytes, whichever takes more of them.
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


def list_uses(mount: Mount, folder: str, options: SweepOptions) -> Iterator[tuple[str, int, int]]:
    """Yield the name, last use (nanoseconds) and size of each entry in `folder`.

    Raise BudgetExhausted when the time is up.
    """
    would_be_gone = options.would_be_gone
    for seen, item in enumerate(mount.scan(folder), 1):
        if seen % EVERY == 0 and options.is_over():
            raise BudgetExhausted
        if not layout.is_digest(item.name):
            continue
        try:
            status = item.stat(follow_symlinks=False)
        except OSError as error:
            process.raise_of_handler(error)
            continue  # removed since it was listed
        if not stat.S_ISREG(status.st_mode) or options.is_elsewhere(status):
            continue
        if would_be_gone is None or not would_be_gone(folder, status):
            yield item.name, last_use(status), status.st_size


def survey(mount: Mount, folders: Iterable[str], options: SweepOptions, uses: Uses) -> None:
    """Add the entries of `folders` to `uses`. Raise BudgetExhausted when the time is up."""
    for folder in folders:
        if options.is_over():
            raise BudgetExhausted
        try:
            for _, when, size in list_uses(mount, folder, options):
                uses.add(when, size)
        except (OSError, CorruptEntryError) as error:
            process.raise_of_handler(error)
            continue  # the sweep of that folder reported it; the others are counted


class _Edge:
    """How many go of those that were used within the one step at the edge; workers share it."""

    def __init__(self, count: int, excess: int) -> None:
        self._count, self._excess = count, excess
        self._lock = process.lock()

    def take(self, size: int) -> bool:
        """Return True if an entry of this size goes, and count it."""
        with self._lock:
            if self._count <= 0 and self._excess <= 0:
                return False
            self._count, self._excess = self._count - 1, self._excess - size
            return True


class Trim:
    """The removal of everything before the cut of `uses`; workers share it."""

    def __init__(self, mount: Mount, options: SweepOptions, uses: Uses, cut: Cut) -> None:
        self._mount, self._options = mount, options
        self._before, self._until = cut[0], cut[0] + uses.step
        self._edge = _Edge(*cut[1:])

    def sweep_folder(self, folder: str, report: SweepReport) -> bool:
        """Remove the entries of `folder` before the cut; return True if the time sufficed."""
        mount, options = self._mount, self._options
        try:
            entries = list_uses(mount, folder, options)
            has_more = True
            while has_more:
                doomed: Doomed = []
                with options.listing:
                    has_more = self._gather(entries, doomed)
                if not remove(mount, folder, doomed, options, report):
                    return False
        except BudgetExhausted:
            return False
        except (OSError, CorruptEntryError) as error:
            process.raise_of_handler(error)  # go on after others, as `survey` does
        return True

    def _gather(self, entries: Iterator[tuple[str, int, int]], doomed: Doomed) -> bool:
        """Fill `doomed` with up to `BATCH` entries; return True if there are more."""
        for name, when, size in entries:
            if when < self._before or (when < self._until and self._edge.take(size)):
                doomed.append((name, size, "limit"))
                if len(doomed) >= BATCH:
                    return True
        return False


def enforce(
    mount: Mount,
    folders: Sequence[str],
    options: SweepOptions,
    report: SweepReport,
    *,
    max_bytes: int | None = None,
    max_entries: int | None = None,
    workers: int = 1,
    is_even: bool = False,
) -> bool:
    """Remove, least recently used first, the entries in `folders` beyond the limits.

    Return True if the time sufficed. If it does not, nothing is removed, because the sum is not
    known; but if the entries are spread evenly (`is_even`: the folders of one namespace), those of
    half of the time stand for all, and are held to their share of the limits.
    """
    uses = Uses()
    if is_even:
        seen = _survey_evenly(mount, folders, options, uses)
    else:
        seen = list(folders)
        try:
            survey(mount, folders, options, uses)
        except BudgetExhausted:
            return False
    share = len(seen) / max(1, len(folders))
    cut = uses.cut(_part(max_entries, share), _part(max_bytes, share))
    if cut is None:
        return len(seen) == len(folders)
    trim = Trim(mount, options, uses, cut)
    late: list[str] = []
    guard = process.lock()

    def work(folder: str) -> None:
        mine = SweepReport()
        if not trim.sweep_folder(folder, mine):
            late.append(folder)
        with guard:
            report.add(mine)

    spread(seen, work, workers=workers)
    return not late and len(seen) == len(folders)


def _part(limit: int | None, share: float) -> int | None:
    return None if limit is None else int(limit * share)


def _survey_evenly(
    mount: Mount, folders: Sequence[str], options: SweepOptions, uses: Uses
) -> list[str]:
    """Add the entries of as many `folders` as half of the time allows; return these folders."""
    now = time.monotonic()
    until = now + (options.until - now) / 2
    seen: list[str] = []
    for folder in sorted(folders, key=lambda _: os.urandom(8)):
        if seen and time.monotonic() >= until:
            break
        own = Uses()
        try:
            survey(mount, [folder], options, own)
        except BudgetExhausted:
            break
        uses.merge(own)
        seen.append(folder)
    return seen
