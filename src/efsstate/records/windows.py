"""Find the window that a record is claimed in now, and the earlier ones that still count.

A claim counts only if the server's time on its link lies in its window. So a window that is over
gets no more claims, and a process that looks at the earlier windows after that sees all of them. A
mark beside the windows says for how long after its end the records of a window may count. A process
makes sure of its mark before it claims, so nobody looks away too early.
"""

from __future__ import annotations

import time

from efsstate.errors import EfsStateError
from efsstate.format import record_layout as names
from efsstate.mount import clock, links

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

    from efsstate.mount.files import Mount

_UNIT = 3600  # seconds: a reach is rounded up to them, so that there are few marks
_MARGIN = 3600.0  # seconds that a result may come after its window's end, and still count in full
SLACK = 60.0  # seconds that a window is looked at beyond its reach
TRIES = 8  # changes of the window in one call, until the server's clock is called unreliable


class Window:
    """A span of time with the records that were claimed in it.

    `start` and `end` are seconds since the epoch by the server's clock, `reach` is for how many
    seconds after its end its records may count, and `folder` is where they lie.
    """

    __slots__ = ("end", "folder", "index", "reach", "start")

    def __init__(self, namespace: str, width: int, index: int, reach: int) -> None:
        self.folder, self.index, self.reach = f"{namespace}/{index}", index, reach
        self.start, self.end = index * width, (index + 1) * width

    @property
    def limit(self) -> float:
        """Return the time after which nobody looks at the records of this window."""
        return self.end + self.reach


def reach_for(seconds: float) -> int:
    """Return the reach that a window needs for records that count for `seconds`."""
    return -int(-(max(0.0, seconds) + _MARGIN) // _UNIT) * _UNIT


class Windows:
    """The windows of one namespace of records, as this process knows them."""

    def __init__(self, mount: Mount, folder: str, width: int) -> None:
        self._mount, self._folder, self._width = mount, folder, width
        self._current: tuple[Window, list[Window]] | None = None

    def enter(self, now: float, reach: int) -> tuple[Window, list[Window]]:
        """Return the window at `now`, and all earlier ones that exist, newest first.

        No request but for the first call in a window. Raise `OSError`, and `EfsStateError` if the
        server's clock jumps.
        """
        current = self._current
        if current is not None:
            window = current[0]
            if window.index == int(now // self._width) and window.reach >= reach:
                return current
        for _ in range(TRIES):
            window = Window(self._folder, self._width, int(now // self._width), reach)
            listing, now = self._mark(window)
            # MUT: a-window-is-entered-by-the-servers-clock
            if window.start <= now < window.end:
                self._current = window, self._earlier(window, listing)
                return self._current
        raise EfsStateError(
            f"{self._mount.path_of(self._folder)}: the server's clock jumps; check its time"
        )

    def _mark(self, window: Window) -> tuple[list[str], float]:
        """Make sure of the mark of `window`; return a listing from after that, and its time."""
        mount, folder = self._mount, self._folder
        mark = links.mark(mount, folder, names.mark_name(window.index, window.reach))
        wall, steady = time.time(), time.monotonic()
        try:
            mount.symlink(folder, mark, "-")
            is_new = True
        except FileExistsError:
            is_new = False
        listing = mount.names(folder)
        try:
            status = mount.stat(folder, mark)
        except FileNotFoundError:
            # The window was swept just now: it is long over.
            return listing, window.limit
        if is_new:
            clock.observe(status.st_mtime, wall, steady)
        elif _time_of(status) < window.start:
            # Its host's clock was ahead: the mark alone does not show that the window has begun.
            mount.stamp(folder, mark)
            listing, status = mount.names(folder), mount.stat(folder, mark)
        return listing, _time_of(status)

    def _earlier(self, window: Window, listing: list[str]) -> list[Window]:
        # Without marks, as after an operator's removal, a window counts as long as ours.
        reaches: dict[int, int] = {}
        for name in listing:
            mark = names.parse_mark(name)
            if mark is not None and self._is_signed(name, *mark):
                reaches[mark[0]] = max(mark[1], reaches.get(mark[0], 0))
        return [
            Window(self._folder, self._width, index, reaches.get(index, window.reach))
            for index in names.windows(listing)
            if index < window.index
        ]

    def _is_signed(self, name: str, index: int, reach: int, _signature: str) -> bool:
        return links.mark(self._mount, self._folder, names.mark_name(index, reach)) == name


def _time_of(status: os.stat_result) -> float:
    return clock.creation_time(status.st_mtime)
