"""Handle forks and tests in one place: every lock of the package, the fork hook, and `reset`.

A forked child has a single thread, and a copy of each lock in whatever state it was. So each lock
of the package is made by `lock` and is free in the child. Then the functions given to `after_fork`
run there, in order: they let go of descriptors, locks and computations that belong to the parent.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import
from operator import methodcaller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeGuard, TypeVar

    Hook = TypeVar("Hook", bound=Callable[[], object])

_PATIENCE = 1.0  # seconds that a fork waits for other threads, one of which may hang on the mount
_PAUSE = 0.0005  # seconds between two looks

_locks: WeakSet[Any] = WeakSet()
_opening: WeakSet[Opening] = WeakSet()
_forking: list[int] = []  # the threads that fork now
_after_fork: list[Callable[[], object]] = []
_at_reset: list[Callable[[], object]] = []
_free = methodcaller("_at_fork_reinit")  # the standard library frees its own locks by it


def lock(*, reentrant: bool = True) -> Any:
    """Return a new lock that is free in a forked child.

    It is re-entrant because a signal handler, or an object that the garbage collector ends, may
    enter the code that its own thread is in. One that is not is for a thread that must wait for
    itself too.
    """
    new = threading.RLock() if reentrant else threading.Lock()
    _locks.add(new)
    return new


def is_of_handler(error: BaseException) -> bool:
    """Return True if a signal handler raised the error: an OSError that has no errno.

    A handler that limits the time of its program usually raises TimeoutError, which is an OSError.
    The errors of system calls have an errno.
    """
    return isinstance(error, OSError) and error.errno is None


def is_of_system(error: BaseException) -> TypeGuard[OSError]:
    """Return True if a system call failed: an OSError that no signal handler raised."""
    return isinstance(error, OSError) and error.errno is not None


def raise_of_handler(error: BaseException) -> None:
    """Raise the error again if a signal handler raised it.

    For code that goes on without what failed: a caller's time limit is no failure of the mount.
    """
    if is_of_handler(error):
        raise error


class Latch:
    """An event that one thread waits for, and that another thread sets once.

    `threading.Event` is entered by Python code: a signal handler that raises in it leaves a lock
    taken, and then the thread that sets the event waits for ever.
    """

    __slots__ = ("_lock", "is_set")

    def __init__(self) -> None:
        self._lock, self.is_set = threading.Lock(), False
        self._lock.acquire()

    def set(self) -> None:
        """Let the waiting thread go on."""
        self.is_set = True
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it was set before

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for at most `timeout` seconds, or for ever; return True if it is set."""
        if not self.is_set:
            self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        return self.is_set


def start(thread: threading.Thread) -> None:
    """Start a thread; raise `RuntimeError` if the process may have no more.

    A signal handler that raises within Python's own `start` makes it fail with a `RuntimeError`
    about a lock; raise the handler's exception in its place.
    """
    try:
        thread.start()
    except RuntimeError as error:
        if "new thread" in str(error) or error.__context__ is None:
            raise
        raise error.__context__ from None


class Opening:
    """While a thread is in it, no other thread forks; for at most a second.

    A file that is being opened is known to nobody yet, so nobody could close it in the child.
    """

    __slots__ = ("__weakref__",)

    def __enter__(self) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            # Added before the look: of two threads that opens and that forks, one sees the other.
            # MUT: a-fork-waits-for-who-opens-a-lock-file
            _opening.add(self)
            if not _forking or time.monotonic() >= until:
                return
            _opening.discard(self)
            time.sleep(_PAUSE)

    def __exit__(self, *_error: object) -> None:
        _opening.discard(self)


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


def _before_fork() -> None:
    _forking.append(threading.get_ident())
    until = time.monotonic() + _PATIENCE
    # Threads that open a lock file are looked for last, right before the fork: a thread begins to
    # open one within some bytecodes, and the look for imports takes longer.
    # MUT: a-fork-waits-for-who-imports
    while (_others_import() or _opening) and time.monotonic() < until:
        time.sleep(_PAUSE)


def _others_import() -> bool:
    """Return True if another thread is importing a module.

    In a child that is forked meanwhile, the import lock of that module stays taken for ever: the
    child would hang as soon as it imports the module itself.
    """
    locks: dict[str, Any] = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})
    own = (None, threading.get_ident())
    return any(getattr(known(), "owner", None) not in own for known in list(locks.values()))


def _in_parent() -> None:
    _forking.remove(threading.get_ident())


def _in_child() -> None:
    _forking.clear()
    _opening.clear()
    for copied in list(_locks):
        _free(copied)
    for function in _after_fork:
        function()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
