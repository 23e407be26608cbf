"""What one execution environment is doing: which events wait, which run, who asks for more, and why it ended."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from efsstate.testing._http import Server

if TYPE_CHECKING:
    from collections.abc import Callable


class Invocation:
    """One event, from its hand-over to its answer."""

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
        """Whether this is the first answer; a later one changes nothing."""
        with self._lock:
            if self.answered.is_set():
                return False
            self.payload, self.error, self.at = payload, error, time.monotonic()
            self.answered.set()
            return True


class RuntimeApi:
    """The server of one environment. `changed` guards and announces every field below it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.polling = 0  # processes that wait for their next event
        self.life = 0  # which start of the runtime the polls belong to; those of a dead one must not take events
        self.init_error: dict[str, Any] | None = None
        self.waiting: deque[Invocation] = deque()
        self.running: dict[str, Invocation] = {}
        self.exited: str | None = None  # why the runtime is no more, in Lambda's words
        self._closed = False
        self._server = Server(self)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._serve, name="runtime-api", daemon=True).start()

    def begin(self) -> None:
        """A new runtime process starts."""
        with self.changed:
            self.init_error = None
            self.exited = None

    def end(self, reason: str) -> None:
        """The runtime is gone: whoever waits for it gets the reason."""
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
        """Give it to the next process that polls."""
        with self.changed:
            if self.exited is not None:
                invocation.answer(error=exit_error(invocation.request_id, self.exited))
                return
            self.waiting.append(invocation)
            self.changed.notify_all()

    def withdraw(self, invocation: Invocation) -> None:
        """Forget it: nobody waits for its answer any more."""
        with self.changed:
            if invocation in self.waiting:
                self.waiting.remove(invocation)

    def take(self, hung_up: Callable[[], bool]) -> Invocation | None:
        """The next event for a process that polls; None if its runtime is no more, or if it `hung_up` meanwhile."""
        with self.changed:
            life = self.life
            self.polling += 1
            self.changed.notify_all()
            while not self.waiting and self.life == life:
                self.changed.wait()
            if self.life != life:
                return None
            self.polling -= 1
            if hung_up():  # the event is for another
                return None
            invocation = self.waiting.popleft()
            self.running[invocation.request_id] = invocation
            return invocation

    def lost(self, invocation: Invocation) -> None:
        """The process that had it is gone, alone."""
        with self.changed:
            self.running.pop(invocation.request_id, None)
            invocation.answer(error=exit_error(invocation.request_id, "exit status unknown"))

    def returned(self, request_id: str) -> Invocation | None:
        """The running event that an answer came for, once."""
        with self.changed:
            return self.running.pop(request_id, None)

    def init_failed(self, error: dict[str, Any]) -> bool:
        """Whether this is the first init error that is reported."""
        with self.changed:
            first = self.init_error is None
            if first:
                self.init_error = error
                self.changed.notify_all()
            return first

    def close(self) -> None:
        """Stop serving; polls that still wait are let go."""
        self._closed = True
        with self.changed:
            self.life += 1
            self.changed.notify_all()
        try:
            self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the accept
        except OSError:
            pass
        self._server.server_close()

    def _serve(self) -> None:
        while not self._closed:
            try:
                self._server.handle_request()
            except (OSError, ValueError):  # closed under the accept
                return


def exit_error(request_id: str, reason: str) -> dict[str, Any]:
    """What Lambda answers for a runtime that went away."""
    return {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id} Error: Runtime exited with error: {reason}",
    }
