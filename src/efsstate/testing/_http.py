"""The Runtime API over HTTP on loopback, as the runtime client speaks it."""

from __future__ import annotations

import json
import selectors
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efsstate.testing._api import Invocation, RuntimeApi

PREFIX = "/2018-06-01/runtime/"
RESPONSE_LIMIT = 6_291_556  # bytes of a response, as Lambda refuses them


class Server(ThreadingHTTPServer):
    """A thread a connection, that is a process of the environment."""

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
    server: Server
    given: Invocation | None = None  # what this connection, that is this process, works on

    def do_GET(self) -> None:
        self._body()  # an unread body would be taken for the next request
        if self.path != PREFIX + "invocation/next":
            self._reply(404, _refusal("NotFound", f"no such resource: {self.path}"))
            return
        invocation = self.server.api.take(self._hung_up)
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
            self.server.api.lost(self.given)

    def log_message(self, *_: Any) -> None:
        pass

    def _hung_up(self) -> bool:
        with selectors.PollSelector() as ready:  # select() fails beyond 1,024 descriptors
            ready.register(self.connection, selectors.EVENT_READ)
            readable = ready.select(0)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def _answer(self, request_id: str, kind: str, body: bytes) -> None:
        invocation = self.server.api.returned(request_id)
        if invocation is None:
            self._reply(400, _refusal("InvalidRequestID", f"no invocation {request_id} is running"))
            return
        if kind == "error":
            invocation.answer(error=_parse_error(body))
        elif len(body) > RESPONSE_LIMIT:
            said = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
            invocation.answer(
                error={"errorType": "Function.ResponseSizeTooLarge", "errorMessage": said}
            )
            self._reply(413, _refusal("RequestEntityTooLarge", said))
            return
        else:
            invocation.answer(body)
        self._reply(202, b'{"status":"OK"}')

    def _init_error(self, body: bytes) -> None:
        if self.server.api.init_failed(_parse_error(body)):
            self._reply(202, b'{"status":"OK"}')
        else:  # of several processes only the first to fail is heard
            self._reply(
                403, _refusal("InvalidStateTransition", "the init error was reported already")
            )

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


def _refusal(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


def _parse_error(body: bytes) -> dict[str, Any]:
    try:
        error = json.loads(body)
    except ValueError:
        error = None
    if not isinstance(error, dict):
        error = {"errorType": "Unhandled", "errorMessage": body.decode("utf-8", "replace")}
    return error
