"""Sweeps one folder of cache entries: judges each file, and removes those that go."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time

from efsstate.errors import CorruptEntryError, UnknownFormatError
from efsstate.eviction.policy import LIVE, UNSURE, last_use
from efsstate.format import entry, layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from efsstate.eviction.policy import Policy
    from efsstate.eviction.report import SweepReport
    from efsstate.mount.files import Mount

# MUT: only-a-day-old-is-abandoned
ABANDONED = 86400.0  # seconds without a write, by the server's clock: no invocation lasts so long, nor a frozen one's file
BATCH = 8192  # doomed names that are held: each removal makes an NFS client list the folder anew, so not one by one
EVERY = 256  # files between looks at the time
_NORMAL = (
    errno.ENOENT,
    errno.ESTALE,
    errno.EBUSY,
)  # gone, replaced, or in use by a client that needs it so
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class TimeUp(Exception):  # noqa: N818 - not an error
    """The time was up in the middle of a folder."""


class SweepOptions:
    """What one sweep was asked, the same for all its folders: `now` is the server's clock, `until` monotonic seconds.

    `gone` (folder, stat) is for a dry run: whether the entry would be gone when the limits are looked at.
    """

    __slots__ = ("dry_run", "gone", "listing", "now", "older_than", "until", "unused_for")

    def __init__(
        self,
        now: float,
        until: float,
        *,
        older_than: float | None = None,
        unused_for: float | None = None,
        dry_run: bool = False,
    ) -> None:
        self.now, self.until = now, until
        self.older_than, self.unused_for = older_than, unused_for
        self.dry_run = dry_run
        self.listing = threading.Lock()
        self.gone: Callable[[str, os.stat_result], bool] | None = None

    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.until


def look(
    mount: Mount, folder: str, policy: Policy, wish: SweepOptions, report: SweepReport
) -> Iterator[tuple[str, os.stat_result, str]]:
    """Name, stat, and why it goes (LIVE, UNSURE) of each entry in `folder`; other files are tidied.

    Raises `TimeUp` when the time is up, and `OSError` if the folder can't be listed.
    """
    for seen, item in enumerate(mount.scan(folder), 1):
        if seen % EVERY == 0 and wish.is_over():
            raise TimeUp
        name = item.name
        try:
            found = item.stat(follow_symlinks=False)
        except OSError:
            continue  # removed since it was listed
        if not layout.is_digest(name):
            tidy(mount, folder, name, found, wish, report)
        elif not stat.S_ISREG(found.st_mode):
            report.stranger("foreign", mount.path_of(folder, name))
        else:
            yield name, found, policy.judge(found, wish.now, wish.older_than, wish.unused_for)


def sweep_folder(
    mount: Mount, folder: str, policy: Policy, wish: SweepOptions, report: SweepReport
) -> bool:
    """Sweep the entries of `folder`; whether it was done before the time was up. Raises `OSError` if it can't be listed."""
    entries = look(mount, folder, policy, wish, report)
    more = whole = True
    while more:
        doomed: list[tuple[str, int, str]] = []
        # One folder is listed at a time: an NFS client keeps the attributes that came with a listing for 3 s. Where many
        # threads share a slow processor it would have to ask for them again, one by one.
        with wish.listing:
            more = False
            try:
                for name, found, reason in entries:
                    report.looked += 1
                    if reason == LIVE:
                        report.kept += 1
                        report.kept_bytes += found.st_size
                        continue
                    doomed.append((name, found.st_size, reason))
                    if len(doomed) >= BATCH:
                        more = True
                        break
            except TimeUp:
                whole = False
        if not _settle(mount, folder, policy, doomed, wish, report) or not remove(
            mount, folder, doomed, wish, report
        ):
            return False
    return whole


def _settle(
    mount: Mount,
    folder: str,
    policy: Policy,
    doomed: list[tuple[str, int, str]],
    wish: SweepOptions,
    report: SweepReport,
) -> bool:
    """Open those of which only the header can tell, and keep in `doomed` those that go; whether the time sufficed."""
    unsure = [(name, size) for name, size, reason in doomed if reason == UNSURE]
    doomed[:] = [one for one in doomed if one[2] != UNSURE]
    for count, (name, size) in enumerate(unsure):
        if count % 16 == 0 and wish.is_over():
            return False
        reason = opened(mount, folder, name, policy, wish, report)
        if reason == LIVE:
            report.kept += 1
            report.kept_bytes += size
        else:
            doomed.append((name, size, reason))
    return True


def opened(
    mount: Mount, folder: str, name: str, policy: Policy, wish: SweepOptions, report: SweepReport
) -> str:
    """Why the entry goes, by its header; LIVE if it stays."""
    report.opened += 1
    try:
        head, found = mount.read_stat(folder, name, entry.HEADER)
        created, ttl = entry.peek(bytes(head), found.st_size, mount.path_of(folder, name))
    except UnknownFormatError as error:
        report.stranger("newer", error.path)
    except CorruptEntryError as error:
        report.stranger(
            "damaged", error.path
        )  # a miss for its readers; `verify --repair` removes it
    except OSError as error:
        if error.errno not in _NORMAL:
            report.problem(error)
    else:
        return "expired" if policy.is_expired(created, ttl, wish.now) else LIVE
    return LIVE


def remove(
    mount: Mount,
    folder: str,
    doomed: list[tuple[str, int, str]],
    wish: SweepOptions,
    report: SweepReport,
) -> bool:
    """Remove what is in `doomed`, which is empty then; whether the time sufficed.

    One that was replaced since it was judged goes too: that costs its readers a computation and no more.
    """
    for count, (name, size, reason) in enumerate(doomed):
        if count % EVERY == 0 and wish.is_over():
            doomed.clear()
            return False
        try:
            if not wish.dry_run and not mount.remove(folder, name):
                continue  # another sweeper's, or its owner's
        except OSError as error:
            if error.errno in _NORMAL:
                continue
            report.problem(error)
            if error.errno in _REFUSED:
                break  # the next will be refused alike
        else:
            report.gone(reason, size)
    doomed.clear()
    return True


def tidy(
    mount: Mount,
    folder: str,
    name: str,
    found: os.stat_result,
    wish: SweepOptions,
    report: SweepReport,
) -> None:
    """Remove a file that is no entry if it is a temporary that was abandoned; report it if it is not ours."""
    if (
        layout.is_foreign_nfs(name) or name == layout.LOCK
    ):  # one a folder, whose bytes are claims: it stays
        return
    try:
        mine = (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)) and layout.is_temporary(
            name
        )
        if not mine:
            report.stranger("foreign", mount.path_of(folder, name))
        elif wish.now - last_use(found) / 1e9 >= ABANDONED and (
            wish.dry_run or mount.remove(folder, name)
        ):
            report.gone("temporary", found.st_size)
    except OSError as error:
        if error.errno not in _NORMAL:
            report.problem(error, mount.path_of(folder, name))
