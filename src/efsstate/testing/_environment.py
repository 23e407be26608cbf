"""One execution environment: its inits and its invocations, against their clocks."""

from __future__ import annotations

import json
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efsstate.deploy.aws_facts import number
from efsstate.testing._api import Invocation
from efsstate.testing._runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.testing._settings import Settings

EVENT_LIMIT = int(number("event")) << 20  # bytes of an event in a synchronous call
ASYNC_EVENT_LIMIT = int(number("event-async")) << 20  # bytes of one in an asynchronous call
TIMED_OUT = "Sandbox.Timedout"


@dataclass(frozen=True)
class Init:
    """One run of the code outside the handler, in `duration` seconds.

    `status` is "ok", "error", "timeout" or "exit".
    """

    status: str
    duration: float
    """Seconds."""
    error: dict[str, Any] | None
    logs: str


@dataclass(frozen=True)
class Result:
    """The outcome of one invocation.

    `error` is None if the handler returned; then `value` is what it returned. Durations are in
    seconds, and memory is in MB.
    """

    request_id: str
    value: Any
    """What the handler returned, after JSON; bytes if that is not JSON; None on an error."""
    error: dict[str, Any] | None
    """errorType, errorMessage and stackTrace, as Lambda's caller gets them."""
    logs: str
    """The environment's output meanwhile; with several processes that of all of them."""
    duration: float
    """Seconds from the delivery to the answer."""
    timed_out: bool
    init_duration: float | None
    """Seconds of the init before it, for the first invocation of a new process."""
    environment: Environment
    memory: int
    """The function's memory in MB."""
    max_memory_used: int | None
    """The most memory in MB that the process has used; None if it has ended."""

    @property
    def log_stream(self) -> str:
        """The log as it stands in CloudWatch, with Lambda's START, END and REPORT lines."""
        milliseconds = self.duration * 1000
        parts = [
            f"REPORT RequestId: {self.request_id}",
            f"Duration: {milliseconds:.2f} ms",
            f"Billed Duration: {-int(-milliseconds // 1)} ms",
            f"Memory Size: {self.memory} MB",
            f"Max Memory Used: {self.max_memory_used or 0} MB",
        ]
        if self.init_duration is not None:
            parts.append(f"Init Duration: {self.init_duration * 1000:.2f} ms")
        if self.timed_out:
            parts.append("Status: timeout")
        elif self.error is not None:
            parts.append(f"Status: error\tError Type: {self.error.get('errorType')}")
        start = f"START RequestId: {self.request_id} Version: $LATEST\n"
        logs = self.logs if self.logs.endswith("\n") or not self.logs else self.logs + "\n"
        return f"{start}{logs}END RequestId: {self.request_id}\n" + "\t".join(parts) + "\n"


class Environment:
    """An execution environment, made by `Function.environment`. Its init begins at once.

    `id` names it. `tmp` is the TMPDIR of its processes, which outlives a timeout as /tmp does, as
    this process sees it: theirs has another name if its size is enforced.
    `inits` are all its inits so far; `invocations` counts the events that it was given.
    """

    def __init__(self, settings: Settings, on_free: Callable[[], None]) -> None:
        self.id = uuid.uuid4().hex
        self.inits: list[Init] = []
        self.invocations = 0
        self.slots = threading.BoundedSemaphore(settings.processes or 1)
        self._settings = settings
        self._on_free = on_free
        self._runtime = Runtime(settings)
        self.tmp = self._runtime.tmp
        self._starting = threading.Lock()
        self._uncounted_init: Init | None = None  # its duration is the next result's
        self._initialised = threading.Event()
        threading.Thread(target=self._run_first_init, name="init", daemon=True).start()

    def __repr__(self) -> str:
        plural = "" if self.invocations == 1 else "s"
        return f"<Environment {self.id[:8]}, {self.invocations} invocation{plural}>"

    @property
    def enforced(self) -> frozenset[str]:
        """Which of "memory", "tmp" (its size) and "task root" (read-only) are enforced here.

        Memory needs Linux; the others need root rights, and are only announced without them.
        """
        return self._runtime.enforced

    @property
    def pid(self) -> int | None:
        """The runtime's process id, which is also its group's; None if none runs."""
        return self._runtime.pid

    def invoke(
        self, event: Any = None, *, client_context: Any = None, tenant_id: str | None = None
    ) -> Result:
        """Run the handler on `event` (anything that JSON can hold, up to 6 MiB) and wait for it.

        An error of the handler, of its init or of its process, and a timeout, are in the result;
        none of them is raised. If the environment is busy, wait until it is free.
        """
        body = encode(event, EVENT_LIMIT)
        self.slots.acquire()
        return self.invoke_taken(body, client_context, tenant_id)

    def invoke_taken(
        self,
        body: bytes,
        client_context: Any = None,
        tenant_id: str | None = None,
        request_id: str | None = None,
    ) -> Result:
        """Invoke for a caller that holds a slot already, which this gives back."""
        try:
            invocation = Invocation(request_id or str(uuid.uuid4()), body)
            invocation.headers = self._headers(invocation.request_id, client_context, tenant_id)
            return self._invoke(invocation)
        finally:
            self.slots.release()
            self._on_free()

    def freeze(self) -> None:
        """Stop every process, as Lambda does between invocations: no thread runs."""
        self._runtime.freeze()

    def thaw(self) -> None:
        """Let the processes run on from where they were stopped."""
        self._runtime.thaw()

    def kill(self) -> None:
        """End every process without a signal that Python sees.

        The next invocation starts new ones in the same folder.
        """
        self._initialised.wait()
        self._runtime.kill("signal: killed")

    def shut_down(self) -> str:
        """End the environment as Lambda does when it is no longer needed; return the last log.

        With `extension=True` the runtime gets SIGTERM and half a second; without, no signal.
        """
        self._initialised.wait()
        mark = self._runtime.written()
        if self._settings.extension:
            self._runtime.shut_down()
        log = self._runtime.log(mark)
        self.close()
        return log

    def close(self) -> None:
        """End the environment: its processes, its folder, its server."""
        self._runtime.close()
        self._initialised.wait()

    # Init

    def _run_first_init(self) -> None:
        self._init(self._settings.init_timeout)
        self._initialised.set()

    def _init(self, limit: float) -> Init:
        settings, runtime, api = self._settings, self._runtime, self._runtime.api
        mark = runtime.written()
        started = time.monotonic()
        stream = time.strftime("%Y/%m/%d/[$LATEST]", time.gmtime()) + self.id
        try:
            runtime.start(dict(settings.variables, AWS_LAMBDA_LOG_STREAM_NAME=stream))
        except OSError as problem:
            api.end(str(problem))
        with api.changed:
            api.changed.wait_for(lambda: api.polling > 0 or api.init_error or api.exited, limit)
            if api.init_error:
                status, error = "error", api.init_error
                api.changed.wait_for(lambda: api.exited, 2)  # it reports, and then ends itself
            elif api.exited is not None:
                message = f"Runtime exited with error: {api.exited}"
                status = "exit"
                error = {"errorType": "Runtime.ExitError", "errorMessage": message}
            else:
                status, error = "ok" if api.polling else "timeout", None
        if status != "ok":
            runtime.kill("init " + status)
        elif settings.freeze:
            runtime.freeze()
        init = Init(status, time.monotonic() - started, error, runtime.log(mark))
        self.inits.append(init)
        self._uncounted_init = init if status == "ok" else None
        return init

    # Invocation

    def _invoke(self, invocation: Invocation) -> Result:
        self._initialised.wait()
        mark = self._runtime.written()
        began = time.monotonic()
        init_duration = self._run(invocation, began + self._settings.timeout)
        error = invocation.error
        self._runtime.warn_of_tmp()
        return Result(
            request_id=invocation.request_id,
            value=_decoded(invocation.payload) if error is None else None,
            error=error,
            logs=self._runtime.log(mark),
            duration=invocation.at - began,
            timed_out=error is not None and error.get("errorType") == TIMED_OUT,
            init_duration=init_duration,
            environment=self,
            memory=self._settings.memory,
            max_memory_used=self._runtime.peak_memory(),
        )

    def _run(self, invocation: Invocation, deadline: float) -> float | None:
        """Have the event answered; return the duration of the init that it is the first after."""
        settings, api = self._settings, self._runtime.api
        with self._starting:  # of several events at once the first starts the processes
            if self.pid is None and not self._restart(invocation):
                return None
            init = self._uncounted_init
            self._uncounted_init = None
        if settings.freeze:
            self.thaw()
        self.invocations += 1
        api.offer(invocation)
        if not invocation.answered.wait(max(0.0, deadline - time.monotonic())):
            invocation.answer(error=self._timeout_error(invocation))
        if settings.processes is None:
            self._settle(deadline)
        else:  # Managed Instances: a timeout ends the call, while the code and the others run on
            api.withdraw(invocation)
        return init.duration if init else None

    def _restart(self, invocation: Invocation) -> bool:
        """Run the init again in the invocation's time; if it fails, answer and return False."""
        init = self._init(self._settings.timeout)
        if init.status == "ok":
            return True
        is_timeout = init.status == "timeout"
        invocation.answer(error=self._timeout_error(invocation) if is_timeout else init.error)
        return False

    def _settle(self, deadline: float) -> None:
        """Wait until the process polls again, and end it if the deadline comes first.

        Until it polls it is not idle, and its log belongs to this invocation.
        """
        api = self._runtime.api
        with api.changed:
            remaining = max(0.0, deadline - time.monotonic())
            idle = api.changed.wait_for(
                lambda: api.polling > 0 or api.exited is not None, remaining
            )
        if not idle:
            if self._settings.extension:
                self._runtime.shut_down()
            self._runtime.kill("timeout")
        elif self._settings.freeze:
            self.freeze()

    def _headers(
        self, request_id: str, client_context: Any, tenant_id: str | None
    ) -> dict[str, str]:
        now = time.time()
        root = f"Root=1-{int(now):08x}-{uuid.uuid4().hex[:24]}"
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((now + self._settings.timeout) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self._settings.arn,
            "Lambda-Runtime-Trace-Id": f"{root};Parent={uuid.uuid4().hex[:16]};Sampled=0",
        }
        if client_context is not None:
            headers["Lambda-Runtime-Client-Context"] = json.dumps(client_context)
        if tenant_id is not None:
            headers["Lambda-Runtime-Aws-Tenant-Id"] = tenant_id
        return headers

    def _timeout_error(self, invocation: Invocation) -> dict[str, Any]:
        after = f"Task timed out after {self._settings.timeout:.2f} seconds"
        message = f"RequestId: {invocation.request_id} Error: {after}"
        return {"errorType": TIMED_OUT, "errorMessage": message}


def encode(event: Any, limit: int) -> bytes:
    """Return an event as JSON. Raise ValueError if it is too large, or has a NaN or infinity."""
    body = json.dumps(event, allow_nan=False).encode()
    if len(body) > limit:
        advice = "put it on the mount or in S3"
        raise ValueError(f"the event is {len(body)} bytes; Lambda takes {limit}: {advice}")
    return body


def _decoded(payload: bytes) -> Any:
    """Return a response as strict JSON, which has no NaN and no infinity; else its bytes."""
    try:
        return json.loads(payload, parse_constant=_refuse_constant)
    except ValueError:
        return payload


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
