"""The process as a hazard: the only fork hook, every lock that a fork may copy, and the reset for tests.

A forked child has one thread, and a copy of every lock in whatever state it was in. So each lock of the package is made
by `lock`, and is new in the child; then every function that was given to `after_fork` runs there, in the order in which
they were given: it lets go of what belongs to the parent (descriptors, locks on the mount, computations).
"""

from __future__ import annotations

import os
import threading
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Hook = TypeVar("Hook", bound=Callable[[], object])

_locks: WeakSet[Any] = WeakSet()
_after_fork: list[Callable[[], object]] = []
_at_reset: list[Callable[[], object]] = []


def lock() -> Any:
    """Return a new re-entrant lock that a forked child finds free.

    It is re-entrant because a signal handler, or an object that the collector ends, may come back to the code that its
    own thread is in.
    """
    made = threading.RLock()
    _locks.add(made)
    return made


def after_fork(function: Hook) -> Hook:
    """Have `function` called in every forked child, before anything else of the package runs there."""
    _after_fork.append(function)
    return function


def at_reset(function: Hook) -> Hook:
    """Have `function` called by `reset`."""
    _at_reset.append(function)
    return function


def reset() -> None:
    """Forget all that the process remembers: roots, open folders, memory, locks that are held, warnings that were given.

    For tests: the next call finds a process that is as good as new. Claims that are held are released.
    """
    for function in _at_reset:
        function()


def _in_child() -> None:
    for copied in list(_locks):
        reinitialise = getattr(
            copied, "_at_fork_reinit"
        )  # as the standard library does with its own
        reinitialise()
    for function in _after_fork:
        function()


os.register_at_fork(after_in_child=_in_child)
