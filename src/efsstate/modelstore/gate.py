"""What one thread of this process does while the others wait; in a forked child nobody does it."""

from __future__ import annotations

import os
import threading
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import


class ThreadGate:
    """`over` locks, and tells of an end; `busy` is the id of the thread whose turn it is, in a list of its own each time."""

    __slots__ = ("__weakref__", "busy", "over")

    def __init__(self) -> None:
        self.renew()
        _turns.add(self)

    def renew(self) -> None:
        """Begin anew."""
        self.over = threading.Condition()
        self.busy: list[int] | None = None


_turns: WeakSet[ThreadGate] = WeakSet()


def _after_fork() -> None:
    """In a child: a thread that is not here never comes to an end."""
    for turn in _turns:
        turn.renew()


os.register_at_fork(after_in_child=_after_fork)
