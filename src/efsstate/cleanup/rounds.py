"""Whose turn it is: which folders a sweep takes, in which order, one sweeper at a time, and where it goes on next time.

Each folder has a mark, an empty file: its atime is when the folder was swept last, and a lock on it is held by whoever
sweeps the folder now. ROUND is there from a sweep's start until every folder has been swept since, which may take several
calls: one that was stopped or killed is gone on with by the next, wherever it runs. The order is another each time, so that
sweepers that start together do not meet, and a folder that is too large for the time does not keep the others waiting.
Sweeps that were asked different things have marks of their own.
"""

from __future__ import annotations

import os

from efsstate.format import layout
from efsstate.mount import clock, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from efsstate.mount.files import Mount

_FORGOTTEN = (
    7 * 86400.0
)  # marks that nobody used for so long belong to a sweep that was asked for once


def _swept(mark: os.stat_result) -> float:
    """When the folder of this mark was swept last; 0 if it never came to an end."""
    return 0.0 if mark.st_atime_ns == mark.st_mtime_ns else mark.st_atime


class SweepRound:
    """The marks of one kind of sweep. `start` is the server's time at which this call began."""

    def __init__(self, mount: Mount, kind: str, *, fresh: bool) -> None:
        self._mount, self._folder = mount, layout.sweep_marks(kind)
        mount.make(self._folder)
        # MUT: the-sweeps-clock-is-the-servers
        mount.ask_time(self._folder)
        self.start = clock.now()
        self._marks: dict[str, float] = {}
        for item in mount.scan(self._folder):
            try:
                self._marks[item.name] = _swept(item.stat(follow_symlinks=False))
            except OSError:
                continue
        if self._marks.pop(layout.ROUND, None) is None:
            mount.create(self._folder, layout.ROUND, lambda _created: (), durable=False)
        self.round = mount.stat(self._folder, layout.ROUND).st_mtime
        if fresh:  # everything is looked at once more, whatever an earlier call did of this round
            self.round = float("inf")

    def queue(self, folders: Iterable[str]) -> list[str]:
        """The folders that have not had their turn in this round, in an order of this call's own."""
        left = [
            folder
            for folder in folders
            if self._marks.get(layout.sweep_mark(folder), 0.0) < self.round
        ]
        return sorted(left, key=lambda _: os.urandom(8))

    def take(self, folder: str, sweep: Callable[[], bool]) -> bool | None:
        """Call `sweep` (whether it came to its end) if nobody else sweeps `folder` now or has since we began.

        Returns what it returned, True where another has done it, None where another does it now.
        """
        name = layout.sweep_mark(folder)
        held = lock.attempt(self._mount, self._folder, name)
        if not isinstance(held, lock.Lock):
            os.close(held)
            return None
        try:
            found = self._mount.stat(self._folder, name)
            if _swept(found) != self._marks.get(name, 0.0):
                return True
            done = sweep()
            if done:
                self._mount.touch(self._folder, name, found)
            return done
        finally:
            held.release()

    def end(self, *, finished: bool, folders: Iterable[str]) -> None:
        """The call ends; with `finished` so does the round, and marks of folders that are gone go too."""
        if not finished:
            return
        self._mount.remove(self._folder, layout.ROUND, quiet=True)
        known = {layout.sweep_mark(folder) for folder in folders}
        for name, swept in self._marks.items():
            if name not in known and self.start - swept > _FORGOTTEN:
                self._mount.remove(self._folder, name, quiet=True)  # of a folder that is gone
        own = self._folder.rpartition("/")[2]
        for kind in self._mount.names(layout.SWEEPS):
            if kind != own:
                self._forget(f"{layout.SWEEPS}/{kind}")

    def _forget(self, folder: str) -> None:
        """Remove the marks of a sweep that nobody asks for any more."""
        try:
            items = [
                (item.name, item.stat(follow_symlinks=False).st_atime)
                for item in self._mount.scan(folder)
            ]
        except OSError:
            return  # another forgets it at the same time
        if all(self.start - swept > _FORGOTTEN for _, swept in items):
            for name, _ in items:
                self._mount.remove(folder, name, quiet=True)
            self._mount.remove_folder(folder)
