"""Time by the server's clock, as far as this process has seen it: no two hosts' clocks are ever compared.

Every file that this process creates comes back with the server's time on it, at no cost. Whoever writes stamps with
that, so a writer's clock never matters; a reader corrects its own clock by what its last write showed, and until it
has written anything it trusts its own.
"""

from __future__ import annotations

import time

_TICK = 2.0  # seconds
_offset = 0.0  # server minus local, seconds


def observe(server: float) -> None:
    """Note that the server's clock shows `server` (seconds since the epoch) at this moment."""
    global _offset
    difference = server - time.time()
    # Under 2 s it is the granularity of time stamps and the way there, not a wrong clock.
    # MUT: the-servers-clock-stamps
    _offset = difference if abs(difference) > 2 else 0.0


def now() -> float:
    """Seconds since the epoch by the server's clock, as far as it is known here."""
    return time.time() + _offset


def tells(stamp: float) -> bool:
    """Whether a change made now would bear another time than `stamp` (server's): some file systems' clocks are coarse."""
    return now() - stamp > _TICK


def local(server: float) -> float:
    """The local clock's reading at the server's time `server`, for showing it to a person."""
    return server - _offset
