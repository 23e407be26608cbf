"""Share the folders of a sweep out among calls and sweepers, by marks on the mount.

Each folder has a mark, an empty file. Its atime is when the folder was swept last, and a lock on it
is held by the sweeper that works in the folder now. ROUND exists from a sweep's start until every
folder has been swept since, which may take several calls: one that was stopped or killed is gone on
with by the next, wherever it runs. The order is another each time, so that sweepers that start
together do not meet, and a folder that is too large for the time does not keep the others waiting.
Sweeps that were asked for different things have marks of their own.
"""

from __future__ import annotations

import os
import stat

from efsstate import events, process
from efsstate.errors import EfsStateError
from efsstate.format import layout
from efsstate.mount import clock, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from efsstate.mount.files import Mount

_FORGOTTEN = 7 * 86400.0  # seconds after which unused marks are those of a sweep asked for once


def _swept_at(mark: os.stat_result) -> float:
    """Return when the folder of this mark was swept last; 0 if no sweep of it came to its end."""
    return 0.0 if mark.st_atime_ns == mark.st_mtime_ns else mark.st_atime


def _is_mark(status: os.stat_result) -> bool:
    """Return True if a file in a folder of marks can be one: it is empty. Another is a user's."""
    return stat.S_ISREG(status.st_mode) and not status.st_size


def begin(mount: Mount, kind: str, *, fresh: bool) -> SweepRound | None:
    """Return the round of the sweeps of this `kind`, or None if its marks cannot be written.

    A sweep without marks works too: it begins with any folder, and shares none with others.
    `fresh`: look at everything once more, even at folders that an earlier call of it has done.
    """
    # MUT: a-sweep-without-notes-goes-on
    try:
        return SweepRound(mount, kind, fresh=fresh)
    except (OSError, EfsStateError) as error:
        events.log(
            "warning",
            "sweep: its marks cannot be written, so it goes on without them: %s",
            error,
            kind="sweep",
            event="no_marks",
            name=mount.path,
            error=type(error).__name__,
            once=f"sweep marks {mount.path}",
        )
        return None


class SweepRound:
    """The marks of one kind of sweep; `start` is the server's time at which this call began."""

    def __init__(self, mount: Mount, kind: str, *, fresh: bool) -> None:
        self._mount, self._folder = mount, layout.sweep_marks(kind)
        mount.make(self._folder)
        # MUT: the-sweeps-clock-is-the-servers
        if not mount.ask_time(self._folder):
            raise PermissionError(13, "not writable", mount.path_of(self._folder))
        self.start = clock.now()
        self._marks: dict[str, float] = {}
        for item in mount.scan(self._folder):
            try:
                status = item.stat(follow_symlinks=False)
            except OSError as error:
                process.raise_of_handler(error)
                continue
            if _is_mark(status):
                self._marks[item.name] = _swept_at(status)
        if self._marks.pop(layout.ROUND, None) is None:
            mount.create(self._folder, layout.ROUND, lambda _created: (), durable=False)
        # A mark's name is its folder's path, with commas: see `layout.sweep_mark`.
        self._above = {name.rpartition(",")[0] for name in self._marks}
        began = mount.stat(self._folder, layout.ROUND).st_mtime
        self._began = float("inf") if fresh else began

    def has_marks_below(self, folder: str) -> bool:
        """Return True if folders in `folder` had marks of their own when this call began."""
        return layout.sweep_mark(folder) in self._above

    def mark(self, folder: str) -> None:
        """Mark `folder` as swept, by the sweeper of the folder above it."""
        self.take(folder, lambda: True)

    def queue(self, folders: Iterable[str]) -> list[str]:
        """Return the folders that this round has not done yet, in a random order."""
        marks, began = self._marks, self._began
        due = [folder for folder in folders if marks.get(layout.sweep_mark(folder), 0.0) < began]
        return shuffled(due)

    def take(self, folder: str, sweep: Callable[[], bool]) -> bool | None:
        """Call `sweep` if no other sweeper has `folder` now, or has swept it since we began.

        Return its result (True if it came to its end), True if another sweeper has done it,
        None if another has it now.
        """
        name = layout.sweep_mark(folder)
        turn = lock.attempt(self._mount, self._folder, name)
        if turn is None:
            return None
        try:
            mark = self._mount.stat(self._folder, name)
            if _swept_at(mark) != self._marks.get(name, 0.0):
                return True
            is_done = sweep()
            if is_done:
                self._mount.touch(self._folder, name, mark)
            return is_done
        finally:
            turn.release()

    def end(self, *, is_finished: bool, folders: Iterable[str]) -> None:
        """End the call; if the sweep is finished, end the round and forget marks of no use.

        Raise OSError if the round cannot be ended: then the next call would sweep nothing.
        """
        if not is_finished:
            return
        if not self._mount.remove(self._folder, layout.ROUND, quiet=True):
            self._begin_anew()
        known = {layout.sweep_mark(folder) for folder in folders}
        for name, swept in self._marks.items():
            if name not in known and self.start - swept > _FORGOTTEN:
                self._mount.remove(self._folder, name, quiet=True)  # of a folder that is gone
        own = self._folder.rpartition("/")[2]
        for kind in self._mount.names(layout.SWEEPS):
            if kind != own and layout.is_sweep_kind(kind):
                self._forget(f"{layout.SWEEPS}/{kind}")

    def _begin_anew(self) -> None:
        """Have the file ROUND, which could not be removed, stand for a new round."""
        # MUT: a-round-file-that-stays-begins-a-new-round
        try:
            self._mount.stamp(self._folder, layout.ROUND)
        except FileNotFoundError:
            pass  # another sweeper has ended the round

    def _forget(self, folder: str) -> None:
        """Remove the marks of another kind of sweep if none was asked for in a while."""
        try:
            items = [
                (item.name, item.stat(follow_symlinks=False)) for item in self._mount.scan(folder)
            ]
        except (OSError, EfsStateError) as error:
            process.raise_of_handler(error)
            return  # another sweeper forgets it at the same time, or it is not ours
        # MUT: only-marks-are-forgotten
        if not all(_is_mark(status) for _, status in items):
            return
        if all(self.start - status.st_atime > _FORGOTTEN for _, status in items):
            for name, _ in items:
                self._mount.remove(folder, name, quiet=True)
            self._mount.remove_folder(folder)


def shuffled(folders: Iterable[str]) -> list[str]:
    """Return the folders in a random order; `random` would be an import at a cold start."""
    return sorted(folders, key=lambda _: os.urandom(8))
