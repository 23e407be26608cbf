"""The state of one execution environment's Runtime API: events that wait, run, and are answered."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Invocation:
    """One event, from its delivery to its answer."""

    def __init__(self, request_id: str, body: bytes) -> None:
        self.request_id = request_id
        self.body = body
        self.headers: dict[str, str] = {}
        self.answered = threading.Event()
        self._lock = threading.Lock()
        self.payload = b""
        self.error: dict[str, Any] | None = None
        self.at = 0.0  # time.monotonic() of the answer

    def answer(self, payload: bytes = b"", error: dict[str, Any] | None = None) -> bool:
        """Record the answer and return True; return False if there is one already."""
        with self._lock:
            if self.answered.is_set():
                return False
            self.payload, self.error, self.at = payload, error, time.monotonic()
            self.answered.set()
            return True


class RuntimeApi:
    """The events of one environment. `changed` guards and announces every field below it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.polling = 0  # processes that wait for their next event
        # The number of the runtime's start: a poll of a dead runtime must not take an event.
        self.life = 0
        self.init_error: dict[str, Any] | None = None
        self.waiting: deque[Invocation] = deque()
        self.running: dict[str, Invocation] = {}
        self.exited: str | None = None  # why the runtime ended, in Lambda's words

    def begin(self) -> None:
        """Note that a new runtime process starts."""
        with self.changed:
            self.init_error = None
            self.exited = None

    def end(self, reason: str) -> None:
        """Note that the runtime ended, and answer all its events with the reason."""
        with self.changed:
            self.life += 1
            self.polling = 0
            self.exited = reason
            for invocation in (*self.running.values(), *self.waiting):
                invocation.answer(error=exit_error(invocation.request_id, reason))
            self.running.clear()
            self.waiting.clear()
            self.changed.notify_all()

    def offer(self, invocation: Invocation) -> None:
        """Give an event to the next process that polls."""
        with self.changed:
            if self.exited is not None:
                invocation.answer(error=exit_error(invocation.request_id, self.exited))
                return
            self.waiting.append(invocation)
            self.changed.notify_all()

    def withdraw(self, invocation: Invocation) -> None:
        """Remove an event that waits, if it still does: its caller has given up."""
        with self.changed:
            if invocation in self.waiting:
                self.waiting.remove(invocation)

    def take(self, has_hung_up: Callable[[], bool]) -> Invocation | None:
        """Return the next event for a process that polls.

        Return None if its runtime has ended, or if the process `has_hung_up` meanwhile.
        """
        with self.changed:
            life = self.life
            self.polling += 1
            self.changed.notify_all()
            while not self.waiting and self.life == life:
                self.changed.wait()
            if self.life != life:
                return None
            self.polling -= 1
            if has_hung_up():  # the event is for another
                return None
            invocation = self.waiting.popleft()
            self.running[invocation.request_id] = invocation
            return invocation

    def lose(self, invocation: Invocation) -> None:
        """Answer an event after its process died alone."""
        with self.changed:
            self.running.pop(invocation.request_id, None)
            invocation.answer(error=exit_error(invocation.request_id, "exit status unknown"))

    def finish(self, request_id: str) -> Invocation | None:
        """Return the running event that an answer came for, once."""
        with self.changed:
            return self.running.pop(request_id, None)

    def fail_init(self, error: dict[str, Any]) -> bool:
        """Record an init error and return True; return False if there is one already."""
        with self.changed:
            is_first = self.init_error is None
            if is_first:
                self.init_error = error
                self.changed.notify_all()
            return is_first

    def release_polls(self) -> None:
        """Let the polls that still wait return without an event."""
        with self.changed:
            self.life += 1
            self.changed.notify_all()


def exit_error(request_id: str, reason: str) -> dict[str, Any]:
    """Return Lambda's answer for a runtime that exited."""
    return {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id} Error: Runtime exited with error: {reason}",
    }
