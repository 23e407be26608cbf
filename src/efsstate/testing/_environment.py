"""One execution environment: its inits and its invocations, against their clocks."""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from efsstate.testing._api import Invocation
from efsstate.testing._result import Init, Result
from efsstate.testing._runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.testing._settings import Settings

EVENT_LIMIT = 6_291_456  # bytes of an event in a synchronous call
TIMED_OUT = "Sandbox.Timedout"


class Environment:
    """An execution environment. It starts at once; the first `invoke` waits for its init. Made by `Function.environment`.

    `id`; `tmp`, the TMPDIR of its processes, which outlives a timeout as /tmp does; `inits`, every init so far;
    `invocations`, how many events it was given.
    """

    def __init__(self, settings: Settings, on_free: Callable[[], None]) -> None:
        self.id = uuid.uuid4().hex
        self.inits: list[Init] = []
        self.invocations = 0
        self.slots = threading.BoundedSemaphore(settings.processes or 1)
        self._settings = settings
        self._on_free = on_free
        self._runtime = Runtime()
        self.tmp = self._runtime.tmp
        self._starting = threading.Lock()
        self._fresh: Init | None = None  # an init that no invocation has counted yet
        self._initialised = threading.Event()
        threading.Thread(target=self._first_init, name="init", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """The runtime's process id, also that of its group; None while none runs."""
        return self._runtime.pid

    def invoke(self, event: Any = None, *, client_context: Any = None) -> Result:
        """Run the handler on `event` (anything that JSON can hold, up to 6 MiB) and wait for it.

        An error of the handler, of its init, of its process, and a timeout are all in the result; nothing of them is raised.
        While the environment is busy, this waits until it is free.
        """
        self.slots.acquire()
        return self.invoke_taken(event, client_context)

    def invoke_taken(self, event: Any, client_context: Any) -> Result:
        """`invoke` for a caller who holds a slot already, which this gives back."""
        try:
            body = json.dumps(event).encode()
            if len(body) > EVENT_LIMIT:
                raise ValueError(
                    f"the event is {len(body)} bytes; Lambda takes {EVENT_LIMIT}: put it on the mount or in S3"
                )
            return self._invoke(body, client_context)
        finally:
            self.slots.release()
            self._on_free()

    def freeze(self) -> None:
        """Stop every process, as Lambda does between invocations: no thread runs, no lease is renewed."""
        self._runtime.freeze()

    def thaw(self) -> None:
        """Let the processes go on from where they were stopped."""
        self._runtime.thaw()

    def kill(self) -> None:
        """End every process without a signal that Python sees. The next invocation starts anew, in the same folder."""
        self._initialised.wait()
        self._runtime.kill("signal: killed")

    def close(self) -> None:
        """End the environment: its processes, its folder, its server."""
        self._runtime.close()
        self._initialised.wait()

    # Init

    def _first_init(self) -> None:
        self._init(self._settings.init_timeout)
        self._initialised.set()

    def _init(self, limit: float) -> Init:
        settings, runtime, api = self._settings, self._runtime, self._runtime.api
        mark = runtime.written()
        started = time.monotonic()
        stream = time.strftime("%Y/%m/%d/[$LATEST]", time.gmtime()) + self.id
        try:
            variables = dict(settings.variables, AWS_LAMBDA_LOG_STREAM_NAME=stream)
            runtime.start(settings.python, settings.handler, settings.path, variables)
        except OSError as problem:
            api.end(str(problem))
        with api.changed:
            api.changed.wait_for(lambda: api.polling > 0 or api.init_error or api.exited, limit)
            if api.init_error:
                status, error = "error", api.init_error
                api.changed.wait_for(lambda: api.exited, 2)  # it says why, and then ends itself
            elif api.exited is not None:
                said = f"Runtime exited with error: {api.exited}"
                status, error = "exit", {"errorType": "Runtime.ExitError", "errorMessage": said}
            else:
                status, error = "ok" if api.polling else "timeout", None
        if status != "ok":
            runtime.kill("init " + status)
        elif settings.freeze:
            runtime.freeze()
        init = Init(status, time.monotonic() - started, error, runtime.log(mark))
        self.inits.append(init)
        self._fresh = init if status == "ok" else None
        return init

    # Invocation

    def _invoke(self, body: bytes, client_context: Any) -> Result:
        self._initialised.wait()
        mark = self._runtime.written()
        began = time.monotonic()
        invocation = Invocation(str(uuid.uuid4()), body)
        invocation.headers = self._headers(invocation.request_id, client_context)
        init_duration = self._run(invocation, began + self._settings.timeout)
        error = invocation.error
        return Result(
            request_id=invocation.request_id,
            value=_decoded(invocation.payload) if error is None else None,
            error=error,
            logs=self._runtime.log(mark),
            duration=invocation.at - began,
            timed_out=error is not None and error.get("errorType") == TIMED_OUT,
            init_duration=init_duration,
            environment=self,
        )

    def _run(self, invocation: Invocation, deadline: float) -> float | None:
        """See to it that it is answered, one way or another; the duration of an init that it is the first to follow."""
        settings, api = self._settings, self._runtime.api
        with self._starting:  # of several events at once the first starts the processes
            if (
                self.pid is None
            ):  # the init failed, a timeout or a death ended it: again, now on the invocation's time
                init = self._init(settings.timeout)
                if init.status != "ok":
                    timed_out = init.status == "timeout"
                    invocation.answer(
                        error=self._timeout_error(invocation) if timed_out else init.error
                    )
                    return None
            init_duration = self._fresh.duration if self._fresh else None
            self._fresh = None
        if settings.freeze:
            self.thaw()
        self.invocations += 1
        api.offer(invocation)
        if not invocation.answered.wait(max(0.0, deadline - time.monotonic())):
            invocation.answer(error=self._timeout_error(invocation))
        if settings.processes is None:
            self._settle(deadline)
        else:  # Managed Instances: at a timeout the caller gets the error, the code and the others run on
            api.withdraw(invocation)
        return init_duration

    def _settle(self, deadline: float) -> None:
        """Wait until the process asks for more, and end it if the deadline comes first.

        Before it asks, it isn't idle, and what it logs belongs to this invocation.
        """
        api = self._runtime.api
        with api.changed:
            left = max(0.0, deadline - time.monotonic())
            idle = api.changed.wait_for(lambda: api.polling > 0 or api.exited is not None, left)
        if not idle:
            self._runtime.kill("timeout")
        elif self._settings.freeze:
            self.freeze()

    def _headers(self, request_id: str, client_context: Any) -> dict[str, str]:
        now = time.time()
        trace = f"Root=1-{int(now):08x}-{uuid.uuid4().hex[:24]};Parent={uuid.uuid4().hex[:16]};Sampled=0"
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((now + self._settings.timeout) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self._settings.arn,
            "Lambda-Runtime-Trace-Id": trace,
        }
        if client_context is not None:
            headers["Lambda-Runtime-Client-Context"] = json.dumps(client_context)
        return headers

    def _timeout_error(self, invocation: Invocation) -> dict[str, Any]:
        said = f"RequestId: {invocation.request_id} Error: Task timed out after {self._settings.timeout:.2f} seconds"
        return {"errorType": TIMED_OUT, "errorMessage": said}


def _decoded(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return payload
