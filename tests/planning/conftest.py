"""The command `plan`, and AWS as far as moto and a stub on loopback have it."""

import contextlib
import http.server
import json
import threading

import pytest
from tests.documents import checked_documents  # noqa: F401 - a fixture

from efsstate.cli import app

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@pytest.fixture
def run(capsys):
    """`run(*arguments, code=0)` returns what `efsstate plan` printed, of an error the message."""

    def run(*arguments, code=0):
        got = app.run(["plan", *arguments])
        out, err = capsys.readouterr()
        assert got == code, (out, err)
        return err if code > 1 else out

    return run


@pytest.fixture
def aws(monkeypatch):
    """Set keys and a region that are of no account."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def answering(respond):
    """Serve JSON on loopback: `respond(operation, request)` returns (status, answer)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            status, answer = respond(operation, json.loads(body or b"{}"))
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
