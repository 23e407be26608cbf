"""The Runtime API on loopback, as one execution environment sees it: hands out invocations, takes their answers."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PREFIX = "/2018-06-01/runtime/"
RESPONSE_LIMIT = 6_291_556  # bytes of a response, as Lambda refuses them


class Invocation:
    """One event, from its hand-over to its answer."""

    def __init__(self, request_id: str, body: bytes, headers: dict[str, str]) -> None:
        self.request_id = request_id
        self.body = body
        self.headers = headers
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
        self._server = _Server(self)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._serve, name="runtime-api", daemon=True).start()

    def begin(self) -> None:
        """A new runtime process starts: what the last one left is void."""
        with self.changed:
            self.life += 1
            self.polling = 0
            self.init_error = None
            self.exited = None
            self.changed.notify_all()

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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, api: RuntimeApi) -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is a process that died; the environment reports that."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement
    wbufsize = 65536
    server: _Server
    given: Invocation | None = None  # what this connection, that is this process, works on

    def do_GET(self) -> None:
        self._body()  # an unread body would be taken for the next request
        if self.path != PREFIX + "invocation/next":
            self._reply(404, _refusal("NotFound", f"no such resource: {self.path}"))
            return
        invocation = self._next()
        if invocation is None:
            self.close_connection = True
            return
        self.given = invocation
        self._reply(200, invocation.body, invocation.headers)

    def do_POST(self) -> None:
        body = self._body()
        if self.path == PREFIX + "init/error":
            self._init_error(body)
            return
        parts = self.path.removeprefix(PREFIX).split("/")
        if len(parts) == 3 and parts[0] == "invocation" and parts[2] in ("response", "error"):
            self._answer(parts[1], parts[2], body)
            return
        self._reply(404, _refusal("NotFound", f"no such resource: {self.path}"))

    def finish(self) -> None:
        """The connection is over: an event still out on it will not be answered by anyone else."""
        super().finish()
        if self.given is not None and not self.given.answered.wait(0.5):
            with self.server.api.changed:
                self.server.api.running.pop(self.given.request_id, None)
                self.given.answer(error=exit_error(self.given.request_id, "exit status unknown"))

    def log_message(self, *_: Any) -> None:
        pass

    def _next(self) -> Invocation | None:
        api = self.server.api
        with api.changed:
            life = api.life
            api.polling += 1
            api.changed.notify_all()
            while not api.waiting and api.life == life:
                api.changed.wait()
            if api.life != life:
                return None
            api.polling -= 1
            if self._hung_up():  # a worker died while it waited: the event is for another
                return None
            invocation = api.waiting.popleft()
            api.running[invocation.request_id] = invocation
            return invocation

    def _hung_up(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def _answer(self, request_id: str, kind: str, body: bytes) -> None:
        api = self.server.api
        with api.changed:
            invocation = api.running.pop(request_id, None)
        if invocation is None:
            self._reply(400, _refusal("InvalidRequestID", f"no invocation {request_id} is running"))
            return
        if kind == "error":
            invocation.answer(error=_parse_error(body))
        elif len(body) > RESPONSE_LIMIT:
            said = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
            invocation.answer(error={"errorType": "Function.ResponseSizeTooLarge", "errorMessage": said})
            self._reply(413, _refusal("RequestEntityTooLarge", said))
            return
        else:
            invocation.answer(body)
        self._reply(202, b'{"status":"OK"}')

    def _init_error(self, body: bytes) -> None:
        api = self.server.api
        with api.changed:
            first = api.init_error is None
            if first:
                api.init_error = _parse_error(body)
                api.changed.notify_all()
        if first:
            self._reply(202, b'{"status":"OK"}')
        else:  # of several processes only the first to fail is heard
            self._reply(403, _refusal("InvalidStateTransition", "the init error was reported already"))

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def exit_error(request_id: str, reason: str) -> dict[str, Any]:
    """What Lambda answers for a runtime that went away."""
    return {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id} Error: Runtime exited with error: {reason}",
    }


def _refusal(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


def _parse_error(body: bytes) -> dict[str, Any]:
    try:
        error = json.loads(body)
    except ValueError:
        error = None
    return (
        error
        if isinstance(error, dict)
        else {"errorType": "Unhandled", "errorMessage": body.decode("utf-8", "replace")}
    )
