"""Tell the time by the server's clock, as far as this process has seen it.

No two hosts' clocks are ever compared. Every file that this process creates comes back with the
server's time on it, at no cost. A writer stamps with that, so its own clock never matters; a reader
corrects its clock by the time on its last write, and trusts it until it has written.

A test that sets the clock by freezegun or time-machine sets the server's too, as far as entries are
concerned: else each put would set it right again.
"""

from __future__ import annotations

import sys
import time

TICK = 2.0  # seconds
_offset = 0.0  # server minus local, seconds


def observe(server: float, wall: float | None = None, steady: float | None = None) -> None:
    """Note that the server's clock shows `server` (seconds since the epoch).

    `wall` is `time.time()` and `steady` is `time.monotonic()` from before the server was asked, now
    by default.
    """
    global _offset
    if is_traveling():
        _offset = 0.0
        return
    now, steady_now = time.time(), time.monotonic()
    took = now - (now if wall is None else wall)
    took_steadily = steady_now - (steady_now if steady is None else steady)
    # The process may be frozen between the server's answer and this line: the older answer would
    # set the clock back by hours, and results beyond their ttl would be served.
    # MUT: only-a-quick-answer-sets-the-clock
    if not (0 <= took < TICK and took_steadily < TICK):
        return
    difference = server - now
    # Below 2 s it is the granularity of time stamps and the way there, not a wrong clock.
    # MUT: the-servers-clock-stamps
    _offset = difference if abs(difference) > TICK else 0.0


def creation_time(server: float) -> float:
    """Return the time to stamp on content whose file the server created at `server`."""
    return time.time() if is_traveling() else server


def is_traveling() -> bool:
    """Return True if a test has set the clock of this process by freezegun or time-machine."""
    if getattr(time.time, "__module__", "") == "freezegun.api":
        return True
    time_machine = sys.modules.get("time_machine")
    return time_machine is not None and bool(time_machine.escape_hatch.is_travelling())


def now() -> float:
    """Return the seconds since the epoch by the server's clock, as far as it is known here."""
    return time.time() + _offset


def tells(stamp: float) -> bool:
    """Return True if a change made now would bear another time than `stamp` (the server's).

    Some file systems' clocks are coarse.
    """
    return time.time() + _offset - stamp > TICK
