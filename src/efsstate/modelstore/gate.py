"""A gate that one thread of the process passes at a time, while the others wait outside."""

from __future__ import annotations

import threading
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import

from efsstate import process

_gates: WeakSet[ThreadGate] = WeakSet()


class ThreadGate:
    """`changed` guards `owner`, and is notified when `owner` changes.

    `owner` is None while the gate is open, else a list with the id of the thread that is inside:
    a new list per entry, so that leaving twice never ends the entry of another.
    """

    __slots__ = ("__weakref__", "changed", "owner")

    def __init__(self) -> None:
        self.changed = threading.Condition(process.lock())
        self.owner: list[int] | None = None
        _gates.add(self)


@process.after_fork
def _open_gates() -> None:
    """Open every gate in a forked child: the thread that was inside does not exist there."""
    for gate in list(_gates):
        gate.owner = None
