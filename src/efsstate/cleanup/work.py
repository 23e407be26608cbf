"""The work of one sweep: its units, in which order they are done, and by how many workers.

A unit is swept in one go and marked in the round: a namespace of the cache, a group of
checkpoints, a group of a checkpoint's shards, a model. A namespace with many entries is *large*:
its sixteen folders are units of their own, so that workers and sweepers share them. No unit is
looked into before its turn, so that a call with little time gets on, however many there are.
"""

from __future__ import annotations

import stat
import time
from functools import partial

from efsstate import process
from efsstate.errors import EfsStateError, UnknownFormatError
from efsstate.eviction import policy as policies
from efsstate.eviction import scan
from efsstate.eviction.policy import LIVE, UNSURE
from efsstate.eviction.report import SweepReport
from efsstate.eviction.scan import BudgetExhausted
from efsstate.format import layout
from efsstate.parallel import spread

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from typing import Protocol

    from efsstate.cleanup.rounds import SweepRound
    from efsstate.eviction.policy import Policy
    from efsstate.eviction.scan import SweepOptions
    from efsstate.mount.files import Mount

    Job = Callable[[SweepReport], bool]  # returns True if it came to its end

    class Areas(Protocol):
        """The units of all areas but the cache: the module `jobs`."""

        def folder_units(self, work: Work, area: str) -> Iterator[tuple[str, Job]]:
            """Yield a unit for each model, dataset or namespace of records in `area`."""

        def checkpoint_units(self, work: Work) -> Iterator[dict[str, Job]]:
            """Yield the groups of checkpoints, in portions."""

        def incoming_job(self, work: Work) -> Job:
            """Return the job that removes abandoned copies from S3."""


# Units at once: a request to the server takes a millisecond or more, which a worker waits for.
WORKERS = 8
_SHORT = 10.0  # seconds: with less, one unit at a time, because several begun are none done
_LARGE = 16  # entries in the first of sixteen folders from which on a namespace is large
_HEX = "0123456789abcdef"
_DATASETS, _RECORDS = "datasets", "records"  # their layouts are imported only if they are there


class Work:
    """One call of a sweep."""

    def __init__(
        self,
        mount: Mount,
        options: SweepOptions,
        sweep_round: SweepRound | None,
        report: SweepReport,
        shard: int,
        of: int,
        progress: Callable[[int, int], None],
        areas: Areas,
    ) -> None:
        self.mount, self.options, self.report = mount, options, report
        self._round, self._shard, self._of, self._progress = sweep_round, shard, of, progress
        self._areas = areas
        self._namespaces: list[str] = []
        self._large: set[str] = set()
        self._policies: dict[str, Policy | None] = {}  # None: a newer release's
        self._units: list[str] = []
        self._later: dict[str, Job] = {}
        self._lock = process.lock()
        self._done = self._total = 0
        self._has_begun = True  # False: one unit is done, however slow the machine is
        self._granted = 0.0  # seconds that the first units have at least
        if options.dry_run:
            options.would_be_gone = self._would_be_gone

    def run(self, max_bytes: int | None, max_entries: int | None, budget: float = 0.0) -> None:
        """Do all units, then hold the large namespaces and the whole cache to their limits.

        Half of the `budget` (seconds) is for work even if the listing of names took it all.
        """
        report, self._granted = self.report, budget / 2
        self._has_begun = not budget
        try:
            self._do_all(self._first_units())
            self._do_all(self._take_later())
            for units in self._checkpoint_units():
                self._do_all(units)
            limits = {
                f"{layout.CACHE}/{namespace}#limit": self._namespace_limit(namespace)
                for namespace in sorted(self._large)
            }
            self._do_all(limits)
            if max_bytes is not None or max_entries is not None:
                self._do_all({f"{layout.CACHE}#limit": self._cache_limit(max_bytes, max_entries)})
        except BudgetExhausted:
            report.left += 1
        report.finished = not (report.left or report.elsewhere)
        # Entries beyond a limit may have been counted as kept by an earlier call.
        report.kept, report.kept_bytes = max(0, report.kept), max(0, report.kept_bytes)
        if self._round:
            try:
                self._round.end(is_finished=report.finished, folders=self._units)
            except (OSError, EfsStateError) as error:
                report.note_error(error)

    # The units

    def _first_units(self) -> dict[str, Job]:
        units: dict[str, Job] = {}
        report = self.report
        try:
            for _ in self.folders("", report, is_strict=False):
                pass  # the root's folders are its users'; the clock's empty temporaries are ours
            if self._is_ours(layout.CACHE):
                units.update(self._cache_units())
            for area in (layout.MODELS, _DATASETS, _RECORDS):
                if self._is_ours(area):
                    units.update(self._areas.folder_units(self, area))
            if self._is_ours(layout.SHARED) and self._has_incoming():
                units[f"{layout.SHARED}#incoming"] = self._areas.incoming_job(self)
        except BudgetExhausted:
            report.left += 1  # names that were not listed
        return units

    def _has_incoming(self) -> bool:
        """Return True if `shared-data` has copies from S3; all else in it is its users'."""
        return any(map(layout.is_incoming, self.mount.names(layout.SHARED)))

    def _checkpoint_units(self) -> Iterator[dict[str, Job]]:
        if self._is_ours(layout.CHECKPOINTS):
            yield from self._areas.checkpoint_units(self)

    def _cache_units(self) -> Iterator[tuple[str, Job]]:
        for namespace in self.folders(layout.CACHE, self.report):
            folder = f"{layout.CACHE}/{namespace}"
            if not layout.is_component(namespace):
                self.report.leave("foreign", self.mount.path_of(folder))
                continue
            self._namespaces.append(namespace)
            yield folder, self._namespace_job(namespace)
            # Shards are for large caches; and a namespace that was large once still is.
            if self._of > 1 or (self._round and self._round.has_marks_below(folder)):
                self._large.add(namespace)
                yield from self._folder_units(namespace)

    def _folder_units(self, namespace: str) -> Iterator[tuple[str, Job]]:
        for folder in layout.entry_folders(namespace):
            yield folder, self._folder_job(namespace, folder)

    def _is_ours(self, area: str) -> bool:
        """Return True if the area is a folder of this file system; report anything else."""
        try:
            status = self.mount.stat("", area)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(status.st_mode) and not self.options.is_elsewhere(status):
            return True
        self.report.leave("foreign", self.mount.path_of(area))
        return False

    def folders(self, folder: str, report: SweepReport, *, is_strict: bool = True) -> Iterator[str]:
        """Yield the names of the folders in `folder`, and tidy up the files in it.

        With `is_strict` files that are not ours are reported. It goes on beyond the budget: a part
        of the names would be the same in each call. Raise BudgetExhausted before the deadline.
        """
        mount, options = self.mount, self.options
        try:
            for seen, item in enumerate(mount.scan(folder), 1):
                if seen % scan.EVERY == 0 and options.is_too_late():
                    raise BudgetExhausted
                try:
                    status = item.stat(follow_symlinks=False)
                except OSError as error:
                    process.raise_of_handler(error)
                    continue  # removed since it was listed
                if not stat.S_ISDIR(status.st_mode):
                    if self._is_to_tidy(folder, item.name, status, is_strict=is_strict):
                        scan.tidy(mount, folder, item.name, status, options, report)
                elif options.is_elsewhere(status):
                    report.leave("foreign", mount.path_of(folder, item.name))
                else:
                    yield item.name
        except (OSError, EfsStateError) as error:
            report.note_error(error, mount.path_of(folder))

    def _is_to_tidy(
        self, folder: str, name: str, status: os.stat_result, *, is_strict: bool
    ) -> bool:
        """Return True if the file is an abandoned temporary, or (`is_strict`) to be reported."""
        if name == layout.POLICY or layout.is_cleared(name):
            return False
        if not folder and status.st_size:
            return False  # in the root `Mount.ask_time` alone makes temporaries, and empty ones
        return is_strict or layout.is_temporary(name)

    # Namespaces

    def _policy(self, namespace: str, report: SweepReport) -> Policy | None:
        """Return the namespace's policy, read once a call; None if a newer release wrote it."""
        with self._lock:
            if namespace in self._policies:
                return self._policies[namespace]
        policy, problem = None, None
        try:
            policy, problem = policies.read(self.mount, namespace)
        except UnknownFormatError as error:
            report.leave("newer", error.path)
        if problem is not None:
            report.note_error(problem)
        with self._lock:
            return self._policies.setdefault(namespace, policy)

    def _namespace_job(self, namespace: str) -> Job:
        def sweep_namespace(report: SweepReport) -> bool:
            """Sweep all folders of a small namespace; of a large one, leave them to later."""
            policy = self._policy(namespace, report)
            if policy is None:
                return True
            swept: list[str] = []
            for name in self._entry_folders(namespace, report):
                folder = f"{layout.CACHE}/{namespace}/{name}"
                if namespace in self._large:
                    continue
                before = report.looked
                if not self._sweep_entries(folder, policy, report):
                    self._split(namespace, swept)
                    return True
                report.folders += 1
                swept.append(folder)
                if len(swept) == 1 and report.looked - before > _LARGE:
                    self._split(namespace, swept)
            if namespace in self._large or not _is_limited(policy):
                return True
            return self._enforce(swept, policy.max_bytes, policy.max_entries, report, is_even=True)

        return sweep_namespace

    def _entry_folders(self, namespace: str, report: SweepReport) -> Iterator[str]:
        folder = f"{layout.CACHE}/{namespace}"
        for name in sorted(self.folders(folder, report)):
            if len(name) == 1 and name in _HEX:
                yield name
            else:
                report.leave("foreign", self.mount.path_of(folder, name))

    def _split(self, namespace: str, swept: Sequence[str] = ()) -> None:
        """Make the folders of a namespace units of their own, but for those `swept` already."""
        units = dict(self._folder_units(namespace))
        for folder in swept:
            del units[folder]
            if self._round:
                self._round.mark(folder)
        with self._lock:
            self._large.add(namespace)
            self._later.update(units)

    def _take_later(self) -> dict[str, Job]:
        later, self._later = self._later, {}
        return later

    def _folder_job(self, namespace: str, folder: str) -> Job:
        def sweep_folder(report: SweepReport) -> bool:
            policy = self._policy(namespace, report)
            if policy is None or not self._is_entry_folder(folder):
                return True
            is_done = self._sweep_entries(folder, policy, report)
            report.folders += is_done
            return is_done

        return sweep_folder

    def _sweep_entries(self, folder: str, policy: Policy, report: SweepReport) -> bool:
        """Sweep one folder of entries; an error in it does not end the namespace's sweep."""
        try:
            return scan.sweep_folder(self.mount, folder, policy, self.options, report)
        except Exception as error:
            report.note_error(error, self.mount.path_of(folder))
            return True

    def _is_entry_folder(self, folder: str) -> bool:
        """Return True if `folder` exists, and on this file system."""
        above, _, name = folder.rpartition("/")
        try:
            status = self.mount.stat(above, name)
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(status.st_mode) and not self.options.is_elsewhere(status)

    # Limits

    def _would_be_gone(self, folder: str, status: os.stat_result) -> bool:
        policy, options = self._policy(folder.split("/")[1], SweepReport()), self.options
        if policy is None:
            return False
        reason = policy.judge(status, options.now, options.older_than, options.unused_for)
        return reason not in (LIVE, UNSURE)

    def _namespace_limit(self, namespace: str) -> Job:
        def enforce(report: SweepReport) -> bool:
            policy = self._policy(namespace, report)
            if policy is None or not _is_limited(policy):
                return True
            folders = layout.entry_folders(namespace)
            limits = policy.max_bytes, policy.max_entries
            return self._enforce(folders, *limits, report, is_even=True)

        return enforce

    def _cache_limit(self, max_bytes: int | None, max_entries: int | None) -> Job:
        def enforce(report: SweepReport) -> bool:
            folders: list[str] = []
            for namespace in self._namespaces:
                if self._policy(namespace, report) is not None:
                    folders += layout.entry_folders(namespace)
            return self._enforce(folders, max_bytes, max_entries, report)

        return enforce

    def _enforce(
        self,
        folders: list[str],
        max_bytes: int | None,
        max_entries: int | None,
        report: SweepReport,
        *,
        is_even: bool = False,
    ) -> bool:
        from efsstate.eviction import limits

        mine = SweepReport()
        is_done = limits.enforce(
            self.mount,
            folders,
            self.options,
            mine,
            max_bytes=max_bytes,
            max_entries=max_entries,
            workers=self._workers(),
            is_even=is_even,
        )
        mine.kept -= mine.removed  # they were counted when their folders were swept
        mine.kept_bytes -= mine.removed_bytes
        report.add(mine)
        return is_done

    # The doing

    def _workers(self) -> int:
        return WORKERS if self.options.until - time.monotonic() >= _SHORT else 1

    def do_parts(self, parts: dict[str, Job], report: SweepReport) -> bool:
        """Do the parts of one unit, each with a mark; return True if the round has done all."""
        for count, unit in enumerate(self._round.queue(parts) if self._round else parts):
            if (count and self.options.is_over()) or self.options.is_too_late():
                return False  # after one part at least, so that each call gets on
            job = partial(parts[unit], report)
            if (self._round.take(unit, job) if self._round else job()) is not True:
                return False
        return True

    def _do_all(self, jobs: dict[str, Job]) -> None:
        """Do those of `jobs` that are in this call's shard and that the round has not done yet."""
        mine = [unit for unit in jobs if self._of == 1 or self._is_in_shard(unit)]
        self._units += mine
        queue = self._round.queue(mine) if self._round else mine
        if not queue:
            return
        self._total += len(queue)
        # However long it took to list and to shuffle the names, each call gets on.
        # MUT: each-call-of-a-sweep-gets-on
        self.options.grant(self._granted)
        self._granted = 0.0

        def work(unit: str) -> None:
            report = SweepReport()
            self._do(unit, jobs[unit], report)
            with self._lock:
                self.report.add(report)
                self._done += 1
                self._progress(self._done, self._total)

        spread(queue, work, workers=min(self._workers(), len(queue)))

    def _is_in_shard(self, unit: str) -> bool:
        from zlib import crc32

        return crc32(unit.encode(errors="surrogateescape")) % self._of == self._shard

    def _do(self, unit: str, job: Job, report: SweepReport) -> None:
        """Do one unit; whatever fails in it is reported, and ends that unit alone."""
        # MUT: a-call-without-time-does-one-folder
        if (self._has_begun and self.options.is_over()) or self.options.is_too_late():
            report.left += 1
            return
        self._has_begun = True

        def attempt() -> bool:
            # MUT: a-bad-folder-does-not-end-a-sweep
            try:
                return job(report)
            except BudgetExhausted:
                return False
            except Exception as error:
                report.note_error(error, self.mount.path_of(unit))
                return True

        try:
            is_done = self._round.take(unit, attempt) if self._round else attempt()
        except (OSError, EfsStateError) as error:  # something else stands where its mark belongs
            report.note_error(error, self.mount.path_of(unit))
            is_done = attempt()
        if is_done is None and (namespace := _namespace_of(unit)):
            self._split(namespace)  # another sweeper is in it: share its folders
        elif is_done is None:
            report.elsewhere += 1
        elif not is_done:
            report.left += 1


def _namespace_of(unit: str) -> str:
    """Return the namespace if the unit is one, else ""."""
    area, _, namespace = unit.partition("/")
    return namespace if area == layout.CACHE and layout.is_component(namespace) else ""


def _is_limited(policy: Policy) -> bool:
    return policy.max_bytes is not None or policy.max_entries is not None
