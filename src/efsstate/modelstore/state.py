"""What a process knows of a model, and the gate through which one thread at a time changes it."""

from __future__ import annotations

import threading
from _weakrefset import WeakSet  # as `threading` has it: the public module would be one more import

from efsstate import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.modelstore.failures import LoadFailure
    from efsstate.modelstore.loading import LoadedModel
    from efsstate.modelstore.resolve import ResolvedModel

_states: WeakSet[ModelState] = WeakSet()


class ModelState:
    """`loaded` serves; the thread inside the gate may change it and the fields below it.

    `released` left memory for another version, and has the seconds of its load. `failure` is the
    last one. `next_look` is when the server is asked again, in seconds of `time.monotonic`.
    `pending_change` has the identity of an unmanaged model that changed, and when that was seen.

    `lock` guards `owner`, and `changed` is notified when `owner` changes. The lock is entered by
    itself: `Condition.__enter__` is Python code, and a signal handler that raises in it would leave
    the lock taken for good. `owner` is None while the gate is open, else a list with the id of the
    thread that is inside: a new list per entry, so that leaving twice never ends the entry of
    another.
    """

    __slots__ = (
        "__weakref__",
        "changed",
        "failure",
        "loaded",
        "lock",
        "next_look",
        "owner",
        "pending_change",
        "released",
    )

    def __init__(self) -> None:
        self.loaded: LoadedModel | None = None
        self.released: tuple[ResolvedModel, float] | None = None
        self.failure: LoadFailure | None = None
        self.next_look = 0.0
        self.pending_change: tuple[str, float] | None = None
        self.lock = process.lock()
        self.changed = threading.Condition(self.lock)
        self.owner: list[int] | None = None
        _states.add(self)


@process.after_fork
def _open_gates() -> None:
    """Open every gate in a forked child: the thread that was inside does not exist there."""
    for state in list(_states):
        state.owner = None
