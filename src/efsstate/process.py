"""Handle forks and tests in one place: every lock of the package, the fork hook, and `reset`.

A forked child has a single thread, and a copy of each lock in whatever state it was. So each lock
of the package is made by `lock` and is free in the child. Then the functions given to `after_fork`
run there, in order: they let go of descriptors, locks and computations that belong to the parent.
"""

from __future__ import annotations

import os
import threading
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import
from operator import methodcaller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Hook = TypeVar("Hook", bound=Callable[[], object])

_locks: WeakSet[Any] = WeakSet()
_after_fork: list[Callable[[], object]] = []
_at_reset: list[Callable[[], object]] = []
_free = methodcaller("_at_fork_reinit")  # the standard library frees its own locks by it


def lock() -> Any:
    """Return a new re-entrant lock that is free in a forked child.

    It is re-entrant because a signal handler, or an object that the garbage collector ends, may
    enter the code that its own thread is in.
    """
    new = threading.RLock()
    _locks.add(new)
    return new


def after_fork(function: Hook) -> Hook:
    """Call `function` in every forked child, before other code of the package runs there."""
    _after_fork.append(function)
    return function


def at_reset(function: Hook) -> Hook:
    """Call `function` on `reset`."""
    _at_reset.append(function)
    return function


def reset() -> None:
    """Forget everything the process remembers, and release the locks it holds; for tests.

    That is: roots, open folders, memory, computations, the circuit breaker, warnings given once.
    """
    for function in _at_reset:
        function()


def _in_child() -> None:
    for copied in list(_locks):
        _free(copied)
    for function in _after_fork:
        function()


os.register_at_fork(after_in_child=_in_child)
