"""Lambda's Invoke on loopback, answered by the runtime harness, for a real client of AWS's API."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LambdaEndpoint:
    """An endpoint of Lambda's for the functions that are given by name."""

    def __init__(self, functions):
        self.calls = []  # the events, in order
        self.failures = []  # the services' exceptions that the next calls answer, by name
        calls, failures = self.calls, self.failures

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm, wbufsize = True, 65536

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                event = json.loads(body)
                calls.append(event)
                if failures:
                    self.answer(502, {"Message": "planned"}, {"x-amzn-ErrorType": failures.pop()})
                    return
                name = re.search(r"/functions/(?:.*%3A|.*:)?([\w-]+)/invocations", self.path)[1]
                result = functions[name].invoke(event)
                failed = {"X-Amz-Function-Error": "Unhandled"} if result.error else {}
                self.answer(200, result.error or result.value, failed)

            def answer(self, status, value, headers):
                body = json.dumps(value).encode()
                self.send_response(status)
                for key, text in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, text)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
