"""Own an open descriptor from the instant at which the kernel made it.

A signal's handler may raise between any two steps of Python code, such as a call that opens a file
and the assignment of its result. So opening and closing each are one call into C, after which the
number is in a list, or gone from it.
"""

from __future__ import annotations

import os
from functools import partial


class Descriptor:
    """At most one open descriptor, which closes with its last reference at the latest."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: list[int] = []

    def open(self, name: str, flags: int, mode: int, dir_fd: int) -> int:
        """Open `name` in the folder `dir_fd`; return the number."""
        # MUT: a-descriptor-is-owned-at-once
        self._open.extend(map(partial(os.open, dir_fd=dir_fd), (name,), (flags,), (mode,)))
        return self._open[0]

    def fileno(self) -> int:
        """Return the number, or -1 if nothing is open."""
        return self._open[0] if self._open else -1

    def close(self) -> None:
        """Close it. Calling it again does nothing."""
        if self._open:
            list(map(os.close, map(list.pop, (self._open,))))

    def __del__(self) -> None:
        try:
            self.close()
        except (OSError, AttributeError):  # AttributeError: it was never initialised
            pass
