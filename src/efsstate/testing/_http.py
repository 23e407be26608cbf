"""The Runtime API over HTTP on loopback, as the runtime client uses it."""

from __future__ import annotations

import json
import selectors
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efsstate.testing._api import Invocation, RuntimeApi

PREFIX = "/2018-06-01/runtime/"
RESPONSE_LIMIT = 6_291_556  # bytes of a response, as Lambda refuses them


class Server(ThreadingHTTPServer):
    """The server of one environment, with a thread for each connection of its processes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, api: RuntimeApi) -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self._closed = False
        threading.Thread(target=self._serve, name="runtime-api", daemon=True).start()

    def close(self) -> None:
        """Stop serving, and let the polls return that still wait."""
        self._closed = True
        self.api.release_polls()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the accept
        except OSError:
            pass
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a connection that broke: its process died, and the environment reports that."""

    def _serve(self) -> None:
        while not self._closed:
            try:
                self.handle_request()
            except (OSError, ValueError):  # closed under the accept
                return


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement
    wbufsize = 65536
    server: Server
    invocation: Invocation | None = None  # the event of this connection's process

    def do_GET(self) -> None:
        self._body()  # an unread body would be taken for the next request
        if self.path != PREFIX + "invocation/next":
            self._reply(404, _refusal("NotFound", f"no such resource: {self.path}"))
            return
        invocation = self.server.api.take(self._has_hung_up)
        if invocation is None:
            self.close_connection = True
            return
        self.invocation = invocation
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
        """End the connection: no other process will answer an event that is still out on it."""
        super().finish()
        if self.invocation is not None and not self.invocation.answered.wait(0.5):
            self.server.api.lose(self.invocation)

    def log_message(self, *_: Any) -> None:
        pass

    def _has_hung_up(self) -> bool:
        with selectors.PollSelector() as ready:  # select() fails beyond 1,024 descriptors
            ready.register(self.connection, selectors.EVENT_READ)
            readable = ready.select(0)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def _answer(self, request_id: str, kind: str, body: bytes) -> None:
        invocation = self.server.api.finish(request_id)
        if invocation is None:
            self._reply(400, _refusal("InvalidRequestID", f"no invocation {request_id} is running"))
            return
        if kind == "error":
            invocation.answer(error=_parse_error(body))
        elif len(body) > RESPONSE_LIMIT:
            limit = f"maximum allowed payload size ({RESPONSE_LIMIT} bytes)"
            message = f"Response payload size exceeded {limit}."
            error = {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message}
            invocation.answer(error=error)
            self._reply(413, _refusal("RequestEntityTooLarge", message))
            return
        else:
            invocation.answer(body)
        self._reply(202, b'{"status":"OK"}')

    def _init_error(self, body: bytes) -> None:
        if self.server.api.fail_init(_parse_error(body)):
            self._reply(202, b'{"status":"OK"}')
        else:  # of several processes only the first to fail is heard
            message = "the init error was reported already"
            self._reply(403, _refusal("InvalidStateTransition", message))

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
