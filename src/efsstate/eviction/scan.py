"""Sweep one folder of cache entries: judge each file by its stat, and remove those that go."""

from __future__ import annotations

import errno
import stat
import time

from efsstate import process
from efsstate.errors import CorruptEntryError, UnknownFormatError
from efsstate.eviction.policy import LIVE, UNSURE, last_use
from efsstate.format import entry, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from efsstate.eviction.policy import Policy
    from efsstate.eviction.report import SweepReport
    from efsstate.mount.files import Mount

    Doomed = list[tuple[str, int, str]]  # name, size, reason

# MUT: only-a-day-old-is-abandoned
ABANDONED = 86400.0  # seconds by the server's clock: no invocation writes for longer, even frozen
# Doomed names that are held: each removal makes an NFS client list the folder again.
BATCH = 8192
EVERY = 256  # files between looks at the time
_NORMAL = (errno.ENOENT, errno.ESTALE, errno.EBUSY)  # gone, replaced, or in use by an NFS client
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class BudgetExhausted(Exception):  # noqa: N818 - not an error
    """The time was up in the middle of a folder."""


class SweepOptions:
    """The options of one sweep; the same for all its folders.

    `now` is the server's clock. `until` and `latest` are monotonic times: of the budget, and of the
    invocation's deadline. `device` is the root's file system: files on another one are not ours.
    `would_be_gone` (folder, status) is for a dry run, which judges the limits by the
    entries that a sweep would have left; `listing` is held while a folder is listed.
    """

    __slots__ = (
        "device",
        "dry_run",
        "latest",
        "listing",
        "now",
        "older_than",
        "until",
        "unused_for",
        "would_be_gone",
    )

    def __init__(
        self,
        now: float,
        until: float,
        *,
        older_than: float | None = None,
        unused_for: float | None = None,
        dry_run: bool = False,
        device: int | None = None,
        latest: float = float("inf"),
    ) -> None:
        self.now, self.until, self.latest = now, until, latest
        self.older_than, self.unused_for = older_than, unused_for
        self.dry_run, self.device = dry_run, device
        self.listing = process.lock()
        self.would_be_gone: Callable[[str, os.stat_result], bool] | None = None

    def is_over(self) -> bool:
        """Return True if the time is up."""
        return time.monotonic() >= self.until

    def is_too_late(self) -> bool:
        """Return True if the invocation is about to end."""
        return time.monotonic() >= self.latest

    def grant(self, seconds: float) -> None:
        """See to it that at least `seconds` remain, if the invocation has as many."""
        self.until = min(self.latest, max(self.until, time.monotonic() + seconds))

    def is_abandoned(self, status: os.stat_result) -> bool:
        """Return True if a file being written, with this `status`, was given up by its writer."""
        return self.now - last_use(status) / 1e9 >= ABANDONED

    def is_elsewhere(self, status: os.stat_result) -> bool:
        """Return True if the `status` is of something on another file system."""
        return self.device is not None and status.st_dev != self.device


def sweep_folder(
    mount: Mount, folder: str, policy: Policy, options: SweepOptions, report: SweepReport
) -> bool:
    """Sweep the entries of `folder`; return True if the time sufficed.

    Raise OSError if the folder cannot be listed.
    """
    entries = judge_all(mount, folder, policy, options, report)
    has_more = is_whole = True
    while has_more:
        doomed: Doomed = []
        # One folder is listed at a time: an NFS client keeps the attributes that came with a
        # listing for 3 s, and many threads on a slow processor would ask again, one by one.
        with options.listing:
            try:
                has_more = _gather(entries, report, doomed)
            except BudgetExhausted:
                has_more = is_whole = False
        is_settled = _open_unsure(mount, folder, policy, doomed, options, report)
        if not remove(mount, folder, doomed, options, report) or not is_settled:
            return False
    return is_whole


def _gather(
    entries: Iterator[tuple[str, os.stat_result, str]], report: SweepReport, doomed: Doomed
) -> bool:
    """Fill `doomed` with up to `BATCH` entries that do not stay; return True if there are more."""
    for name, status, reason in entries:
        report.looked += 1
        if reason == LIVE:
            report.keep(status.st_size)
            continue
        doomed.append((name, status.st_size, reason))
        if len(doomed) >= BATCH:
            return True
    return False


def judge_all(
    mount: Mount, folder: str, policy: Policy, options: SweepOptions, report: SweepReport
) -> Iterator[tuple[str, os.stat_result, str]]:
    """Yield the name, stat and verdict of each entry in `folder`; tidy up other files.

    Raise BudgetExhausted when the time is up, and OSError if the folder cannot be listed.
    """
    for seen, item in enumerate(mount.scan(folder), 1):
        if seen % EVERY == 0 and options.is_over():
            raise BudgetExhausted
        name = item.name
        try:
            status = item.stat(follow_symlinks=False)
        except OSError as error:
            process.raise_of_handler(error)
            continue  # removed since it was listed
        if not layout.is_digest(name):
            tidy(mount, folder, name, status, options, report)
        elif not stat.S_ISREG(status.st_mode) or options.is_elsewhere(status):
            report.leave("foreign", mount.path_of(folder, name))
        else:
            yield (
                name,
                status,
                policy.judge(status, options.now, options.older_than, options.unused_for),
            )


def _open_unsure(
    mount: Mount,
    folder: str,
    policy: Policy,
    doomed: Doomed,
    options: SweepOptions,
    report: SweepReport,
) -> bool:
    """Read the headers of the UNSURE in `doomed`, and leave in it those that go.

    Return True if the time sufficed; unopened entries stay.
    """
    unsure = [(name, size) for name, size, reason in doomed if reason == UNSURE]
    doomed[:] = [item for item in doomed if item[2] != UNSURE]
    for count, (name, size) in enumerate(unsure):
        if count % 16 == 0 and options.is_over():
            return False
        reason = judge_by_header(mount, folder, name, policy, options, report)
        if reason == LIVE:
            report.keep(size)
        else:
            doomed.append((name, size, reason))
    return True


def judge_by_header(
    mount: Mount,
    folder: str,
    name: str,
    policy: Policy,
    options: SweepOptions,
    report: SweepReport,
) -> str:
    """Return why the entry goes, or LIVE, by its header."""
    report.opened += 1
    try:
        head, status = mount.read_stat(folder, name, entry.HEADER)
        mount.restore_use(folder, name, status)  # a look of the sweep is no use
        created, ttl = entry.peek(bytes(head), status.st_size, mount.path_of(folder, name))
    except UnknownFormatError as error:
        report.leave("newer", error.path)
    except CorruptEntryError as error:
        report.leave("damaged", error.path)  # readers miss it; `verify --repair` removes it
    except OSError as error:
        if error.errno not in _NORMAL:
            report.note_error(error)
    else:
        return "expired" if policy.is_expired(created, ttl, options.now) else LIVE
    return LIVE


def remove(
    mount: Mount, folder: str, doomed: Doomed, options: SweepOptions, report: SweepReport
) -> bool:
    """Remove the entries in `doomed`, and empty it; return True if the time sufficed.

    The first `EVERY` go even if the time is up, so that every call gets on. An entry that was
    replaced since it was judged goes too, which costs its readers one computation.
    """
    for count, (name, size, reason) in enumerate(doomed):
        if count and count % EVERY == 0 and options.is_over():
            doomed.clear()
            return False
        try:
            if not options.dry_run and not mount.remove(folder, name):
                continue  # another sweeper removed it, or its owner
        except OSError as error:
            if error.errno in _NORMAL:
                continue
            report.note_error(error)
            if error.errno in _REFUSED:
                break  # the next would be refused alike
        else:
            report.note_removed(reason, size)
    doomed.clear()
    return True


def tidy(
    mount: Mount,
    folder: str,
    name: str,
    status: os.stat_result,
    options: SweepOptions,
    report: SweepReport,
) -> None:
    """Remove an abandoned temporary; report any other file that is not ours."""
    if layout.is_foreign_nfs(name) or name == layout.LOCK:  # LOCK is held by its bytes, and stays
        return
    is_file = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
    if not (is_file and layout.is_temporary(name)) or options.is_elsewhere(status):
        report.leave("foreign", mount.path_of(folder, name))
        return
    try:
        if options.is_abandoned(status) and (options.dry_run or mount.remove(folder, name)):
            report.note_removed("temporary", status.st_size)
    except OSError as error:
        if error.errno not in _NORMAL:
            report.note_error(error, mount.path_of(folder, name))
