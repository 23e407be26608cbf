"""Whose turn it is: which folders a sweep takes, in which order, one sweeper at a time, and where it goes on next time.

Each folder has a mark, an empty file: its atime is when the folder was swept last, and a lock on it is held by whoever
sweeps the folder now. The folder that waited longest comes first, so a sweep that was stopped or killed is gone on with by
the next one, wherever it runs, and no folder starves. ROUND is there from a sweep's start until every folder has had its
turn since, which may take several calls. Sweeps that were asked different things have marks of their own.
"""

from __future__ import annotations

import os

from efsstate.mount import layout, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from efsstate.mount.files import Mount

_FORGOTTEN = 7 * 86400.0  # marks that nobody used for so long belong to a sweep that was asked for once


def server_now(mount: Mount, folder: str) -> float:
    """The time by the server's clock: that of a file made for it (three requests). Raises `OSError`."""
    from efsstate.mount import clock

    name = layout.TEMPORARY + os.urandom(12).hex()
    mount.create(folder, name, lambda _created: (), durable=False)  # observes the clock
    mount.remove(folder, name, quiet=True)
    return clock.now()


class Turns:
    """The marks of one kind of sweep. `start` is the server's time at which this call began."""

    def __init__(self, mount: Mount, kind: str, *, fresh: bool) -> None:
        self._mount, self._folder = mount, layout.sweep_marks(kind)
        self.start = server_now(mount, self._folder)
        self._marks: dict[str, float] = {}
        for item in mount.scan(self._folder):
            try:
                self._marks[item.name] = item.stat(follow_symlinks=False).st_atime
            except OSError:
                continue
        self.round = self._marks.pop(layout.ROUND, None)
        if self.round is None:
            mount.create(self._folder, layout.ROUND, lambda _created: (), durable=False)
            self.round = self.start
        if fresh:  # everything is looked at once more, whatever an earlier call did of this round
            self.round = float("inf")

    def queue(self, folders: Iterable[str]) -> list[str]:
        """The folders that have not had their turn in this round, the one that waited longest first."""
        assert self.round is not None
        waiting = [(self._marks.get(layout.sweep_mark(folder), 0.0), folder) for folder in folders]
        return [folder for swept, folder in sorted(waiting) if swept < self.round]

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
            known = self._marks.get(name)
            # One that is new to us and was never noted is ours: its times are those of its creation.
            if found.st_atime != (found.st_mtime if known is None else known):
                return True
            done = sweep()
            if done:
                self.note(folder)
            return done
        finally:
            held.release()

    def note(self, folder: str) -> None:
        """The folder had its turn."""
        name = layout.sweep_mark(folder)
        self._mount.touch(self._folder, name, self._mount.stat(self._folder, name))

    def end(self, *, finished: bool, folders: Iterable[str]) -> None:
        """The call ends; with `finished` so does the round, and marks of folders that are gone go too."""
        if not finished:
            return
        self._mount.remove(self._folder, layout.ROUND, quiet=True)
        known = {layout.sweep_mark(folder) for folder in folders}
        for name, swept in self._marks.items():
            if name not in known and self.start - swept > _FORGOTTEN:
                self._mount.remove(self._folder, name, quiet=True)
        own = self._folder.rpartition("/")[2]
        for kind in self._mount.names(layout.SWEEPS):
            if kind != own:
                self._forget(f"{layout.SWEEPS}/{kind}")

    def _forget(self, folder: str) -> None:
        """Remove the marks of a sweep that nobody asks for any more."""
        try:
            items = [(item.name, item.stat(follow_symlinks=False).st_atime) for item in self._mount.scan(folder)]
        except OSError:
            return  # another forgets it at the same time
        if all(self.start - swept > _FORGOTTEN for _, swept in items):
            for name, _ in items:
                self._mount.remove(folder, name, quiet=True)
            self._mount.remove_folder(folder)
