"""`sweep`: goes through everything below a root, within its time, and removes what is no longer wanted."""

from __future__ import annotations

import os
import stat
import threading
import time

from efsstate import deadline, events, units
from efsstate.cleanup.rounds import SweepRound
from efsstate.errors import CorruptEntryError, EfsStateError, ForeignFilesError, UnknownFormatError
from efsstate.eviction import policy as policy_module
from efsstate.eviction import removal
from efsstate.eviction import scan as folder_module
from efsstate.eviction.policy import LIVE, UNSURE
from efsstate.eviction.report import SweepReport
from efsstate.eviction.scan import SweepOptions
from efsstate.format import grammar, layout
from efsstate.mount import clock
from efsstate.mount.root import resolve
from efsstate.parallel import spread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from efsstate.eviction.policy import Policy
    from efsstate.mount.files import Mount
    from efsstate.units import Duration, Size

__all__ = ["SweepReport", "sweep"]

WORKERS = (
    8  # folders at once: a request to the server takes a millisecond or more, whoever waits for it
)
_SHORT = 10.0  # seconds: with less, one folder at a time, for several begun are none done
_MARGIN = 2.0  # seconds before the invocation's deadline at which it ends
_BUCKETS = 16  # of checkpoints, which share the work as the folders of entries do
_HEX = "0123456789abcdef"


def sweep(
    *,
    root: str | os.PathLike[str] | None = None,
    older_than: Duration | None = None,
    unused_for: Duration | None = None,
    max_bytes: Size | None = None,
    max_entries: int | None = None,
    budget: Duration | None = None,
    dry_run: bool = False,
) -> SweepReport:
    """Remove what is expired, over its limit, abandoned, or beyond its keep; returns what it did.

    Of cache entries: the expired; all older than `older_than`; all not used for `unused_for`; and, least recently used
    first, what is beyond its namespace's limits, and beyond `max_bytes` and `max_entries` of the whole cache. Of the
    rest: finished checkpoints past their ttl and generations beyond their keep; model versions beyond theirs, after their
    grace; temporaries, locks and staging that nobody has written for a day by the server's clock. What it doesn't know, it
    leaves alone and reports.

    It ends after `budget`, or 2 s before the invocation's deadline, and the next call goes on from there; without either
    it looks at everything. Several at once, anywhere, share the work. `dry_run` removes nothing. An error in one folder is
    in the report, and the others are swept. Raises `RootError`, and `OSError` where the root itself fails.
    """
    return run(
        root=root,
        older_than=older_than,
        unused_for=unused_for,
        max_bytes=max_bytes,
        max_entries=max_entries,
        budget=budget,
        dry_run=dry_run,
    )


def run(
    *,
    root: str | os.PathLike[str] | None = None,
    older_than: Duration | None = None,
    unused_for: Duration | None = None,
    max_bytes: Size | None = None,
    max_entries: int | None = None,
    budget: Duration | None = None,
    dry_run: bool = False,
    shard: int = 0,
    of: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SweepReport:
    """`sweep`, of the folders whose number modulo `of` is `shard`; `progress` gets folders done and folders in all."""
    began = time.monotonic()
    old = None if older_than is None else units.seconds(older_than, "older_than")
    idle = None if unused_for is None else units.seconds(unused_for, "unused_for")
    limit = None if max_bytes is None else units.size(max_bytes, "max_bytes")
    if max_entries is not None and (
        isinstance(max_entries, bool) or not isinstance(max_entries, int) or max_entries < 0
    ):
        raise ValueError(f"max_entries: {max_entries!r} is not a number of entries")
    if not (isinstance(shard, int) and isinstance(of, int) and 0 <= shard < of):
        raise ValueError(
            f"shard {shard!r} of {of!r}: shards are numbered from 0, below their number"
        )
    ends = _ends(budget)
    mount = resolve(root, durable=True)
    report = SweepReport(dry_run=dry_run)
    kind = f"{old} {idle} {limit} {max_entries} {shard}/{of}"
    turns = None if dry_run else SweepRound(mount, kind, fresh=ends is None)
    if turns is None:
        mount.ask_time("")
    wish = SweepOptions(
        clock.now(),
        float("inf") if ends is None else ends,
        older_than=old,
        unused_for=idle,
        dry_run=dry_run,
    )
    _Sweep(mount, wish, turns, report, shard, of, progress).run(limit, max_entries)
    report.seconds = time.monotonic() - began
    events.emit("sweep", mount.path, **report.as_dict())
    return report


def _ends(budget: Duration | None) -> float | None:
    """The monotonic time at which to end, or None."""
    limits = [] if budget is None else [time.monotonic() + units.seconds(budget, "budget")]
    left = deadline.remaining()
    if left is not None:
        limits.append(time.monotonic() + left - min(_MARGIN, left / 2))
    return min(limits, default=None)


class _Sweep:
    """One call: what there is to sweep, and the workers that share it."""

    def __init__(
        self,
        mount: Mount,
        wish: SweepOptions,
        turns: SweepRound | None,
        report: SweepReport,
        shard: int,
        of: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._mount, self._wish, self._turns, self._report = mount, wish, turns, report
        self._shard, self._of = shard, of
        self._progress = progress or (lambda _done, _all: None)
        self._device = mount.stat("", ".").st_dev
        self._policies: dict[str, Policy] = {}
        self._entries: dict[
            str, list[str]
        ] = {}  # folders by namespace: those that are there, and on this file system
        self._jobs: dict[str, Callable[[SweepReport], bool]] = {}  # by folder
        self._lock = threading.Lock()
        self._done = 0
        if wish.dry_run:
            wish.gone = self._would_be_gone

    def run(self, max_bytes: int | None, max_entries: int | None) -> None:
        report = self._report
        self._list()
        self._work(list(self._jobs))
        for namespace, policy in self._policies.items():
            if policy.max_bytes is not None or policy.max_entries is not None:
                self._limit(
                    f"{layout.CACHE}/{namespace}", [namespace], policy.max_bytes, policy.max_entries
                )
        if max_bytes is not None or max_entries is not None:
            self._limit(layout.CACHE, list(self._policies), max_bytes, max_entries)
        report.finished = not (report.left or report.elsewhere)
        if self._turns:
            self._turns.end(finished=report.finished, folders=self._jobs)

    # What there is

    def _mine(self, folder: str) -> bool:
        """Whether the folder is in this call's shard."""
        from zlib import crc32

        return crc32(folder.encode(errors="surrogateescape")) % self._of == self._shard

    def _add(self, folder: str, job: Callable[[SweepReport], bool]) -> None:
        if self._mine(folder):
            self._jobs[folder] = job

    def _folders(self, folder: str, *, strict: bool = True) -> Iterator[str]:
        """The names of the folders in `folder`; files in it are removed if they were abandoned, and else reported if `strict`."""
        mount, report = self._mount, self._report
        try:
            for item in mount.scan(folder):
                try:
                    found = item.stat(follow_symlinks=False)
                except OSError as error:
                    report.problem(error, mount.path_of(folder, item.name))
                    continue
                if not stat.S_ISDIR(found.st_mode):
                    known = item.name == layout.POLICY or layout.is_cleared(item.name)
                    if not folder and found.st_size:
                        known = True  # in the root only `ask_time` makes temporaries, empty ones
                    if not known and (strict or layout.is_temporary(item.name)):
                        folder_module.tidy(mount, folder, item.name, found, self._wish, report)
                elif (
                    found.st_dev != self._device
                ):  # another file system is mounted there: not ours to clean
                    report.stranger("foreign", mount.path_of(folder, item.name))
                else:
                    yield item.name
        except (OSError, CorruptEntryError) as error:
            report.problem(error, mount.path_of(folder))

    def _is_here(self, area: str) -> bool:
        """Whether the area is a folder of this file system; a link, or another one that is mounted there, is reported."""
        try:
            found = self._mount.stat("", area)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(found.st_mode) and found.st_dev == self._device:
            return True
        self._report.stranger("foreign", self._mount.path_of(area))
        return False

    def _list(self) -> None:
        for namespace in sorted(self._folders(layout.CACHE)) if self._is_here(layout.CACHE) else ():
            if layout.is_component(namespace):
                self._list_namespace(namespace)
            else:
                self._report.stranger("foreign", self._mount.path_of(layout.CACHE, namespace))
        if self._is_here(layout.CHECKPOINTS):
            for bucket in range(_BUCKETS):
                self._add(f"{layout.CHECKPOINTS}#{bucket}", self._checkpoints_job(bucket))
        for _ in self._folders("", strict=False):
            pass  # the root's own folders are its users'; temporaries that were abandoned in it are ours
        for name in (
            self._folders(layout.MODELS, strict=False) if self._is_here(layout.MODELS) else ()
        ):
            self._add(f"{layout.MODELS}/{name}", self._model_job(name))

    def _list_namespace(self, namespace: str) -> None:
        mount, report = self._mount, self._report
        folder = f"{layout.CACHE}/{namespace}"
        try:
            policy, problem = policy_module.read(mount, namespace)
        except UnknownFormatError as error:
            report.stranger("newer", error.path)
            return
        except (OSError, EfsStateError) as error:
            report.problem(error, mount.path_of(folder))
            return
        if problem is not None:
            report.problem(problem)
        self._policies[namespace] = policy
        self._entries[namespace] = []
        for name in self._folders(folder):
            if len(name) == 1 and name in _HEX:
                self._entries[namespace].append(f"{folder}/{name}")
                self._add(f"{folder}/{name}", self._entries_job(f"{folder}/{name}", policy))
            else:
                report.stranger("foreign", mount.path_of(folder, name))

    def _entries_job(self, folder: str, policy: Policy) -> Callable[[SweepReport], bool]:
        return lambda report: folder_module.sweep_folder(
            self._mount, folder, policy, self._wish, report
        )

    def _checkpoints_job(self, bucket: int) -> Callable[[SweepReport], bool]:
        """One job for many checkpoints: there may be a million, and a mark for each would double their files."""
        from efsstate.checkpoints.retention import sweep as sweep_one

        def job(report: SweepReport) -> bool:
            for name in self._names(bucket, report):
                if self._wish.is_over():
                    return False
                folder = f"{layout.CHECKPOINTS}/{name}"
                try:
                    for reason, size in sweep_one(
                        self._mount, folder, self._wish.now, dry_run=self._wish.dry_run
                    ):
                        report.gone(reason, size)
                except UnknownFormatError as error:
                    report.stranger("newer", error.path)
                except ForeignFilesError as error:
                    for path in error.paths:
                        report.stranger("foreign", path)
                except FileNotFoundError:
                    continue  # removed meanwhile
                except (OSError, EfsStateError) as error:
                    report.problem(error, self._mount.path_of(folder))
            return True

        return job

    def _names(self, bucket: int, report: SweepReport) -> Iterator[str]:
        """The checkpoints of the bucket; the first bucket's sweeper reports what is none."""
        from zlib import crc32

        for item in self._mount.scan(layout.CHECKPOINTS):
            try:
                found = item.stat(follow_symlinks=False)
            except OSError:
                continue  # removed since it was listed
            folder = stat.S_ISDIR(found.st_mode) and found.st_dev == self._device
            mine = folder and layout.is_component(item.name)
            if folder and layout.is_temporary(item.name):
                if not bucket:
                    self._remove_rest(f"{layout.CHECKPOINTS}/{item.name}", found, report)
            elif not mine and not bucket:
                folder_module.tidy(
                    self._mount, layout.CHECKPOINTS, item.name, found, self._wish, report
                )
            elif mine and crc32(item.name.encode()) % _BUCKETS == bucket:
                yield item.name

    def _remove_rest(self, folder: str, found: os.stat_result, report: SweepReport) -> None:
        """Remove what a sweep that was killed left of a checkpoint that it had put out of the way."""
        if self._wish.now - found.st_mtime < folder_module.ABANDONED:
            return
        if not self._wish.dry_run:
            rest = removal.remove_tree(
                self._mount, folder, grammar.checkpoint, is_over=self._wish.is_over
            )
            for path in rest.foreign:
                report.stranger("foreign", path)
            if rest.foreign or not rest.is_complete:
                return
        report.gone("temporary")

    def _model_job(self, folder: str) -> Callable[[SweepReport], bool]:
        from efsstate.modelstore.versions import prune, versions

        def job(report: SweepReport) -> bool:
            name, root = layout.model_name(folder), self._mount.path
            try:
                try:
                    sizes = {one.id: one.bytes for one in versions(name, root=root)}
                except LookupError:
                    sizes = {}  # of what killed publications left, nothing is a version
                for version in prune(name, dry_run=self._wish.dry_run, root=root):
                    report.gone("version", sizes.get(version, 0))
            except (LookupError, ValueError):
                pass  # put there by hand, or no model: not ours to clean
            return True

        return job

    # The work

    def _work(self, folders: list[str]) -> None:
        """Sweep the folders, several at once."""
        queue = self._turns.queue(folders) if self._turns else folders

        def work(folder: str) -> None:
            mine = SweepReport()
            self._one(folder, mine)
            with self._lock:
                self._report.add(mine)
                self._done += 1
                self._progress(self._done, len(queue))

        spread(queue, work, workers=min(self._workers(), len(queue)))

    def _workers(self) -> int:
        return WORKERS if self._wish.until - time.monotonic() >= _SHORT else 1

    def _one(self, folder: str, report: SweepReport) -> None:
        if self._wish.is_over():
            report.left += 1
            return
        job = self._jobs[folder]

        def attempt() -> bool:
            try:
                return job(report)
            except (
                OSError,
                EfsStateError,
            ) as error:  # one folder that fails must not keep the others from being swept
                report.problem(error, self._mount.path_of(folder))
                return True

        try:
            done = self._turns.take(folder, attempt) if self._turns else attempt()
        except (
            OSError,
            EfsStateError,
        ) as error:  # its mark: something else stands there, or can't be written
            report.problem(error, self._mount.path_of(folder))
            done = attempt()
        if done is None:
            report.elsewhere += 1
        elif done:
            report.folders += 1
        else:
            report.left += 1

    def _would_be_gone(self, folder: str, found: os.stat_result) -> bool:
        policy = self._policies[folder.split("/")[1]]
        return policy.judge(
            found, self._wish.now, self._wish.older_than, self._wish.unused_for
        ) not in (LIVE, UNSURE)

    def _limit(
        self, folder: str, namespaces: list[str], max_bytes: int | None, max_entries: int | None
    ) -> None:
        """Hold the namespaces together to a limit, one sweeper at a time."""
        from efsstate.eviction import limits

        if not self._mine(folder):
            return
        folders = [one for namespace in namespaces for one in self._entries[namespace]]

        def job(report: SweepReport) -> bool:
            done = limits.enforce(
                self._mount,
                folders,
                self._wish,
                report,
                max_bytes=max_bytes,
                max_entries=max_entries,
                workers=self._workers(),
            )
            report.kept -= report.removed  # they were counted when their folders were swept
            report.kept_bytes -= report.removed_bytes
            return done

        self._jobs[folder] = job
        self._work([folder])
