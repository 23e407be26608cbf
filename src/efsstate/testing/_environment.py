"""One execution environment: its processes, its folder, its log, its clock."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efsstate.testing._api import Invocation, RuntimeApi

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from efsstate.testing._settings import Settings

EVENT_LIMIT = 6_291_456  # bytes of an event in a synchronous call
TIMED_OUT = "Sandbox.Timedout"


@dataclass(frozen=True)
class Result:
    """What one invocation gave."""

    request_id: str
    value: Any  # what the handler returned, after JSON; bytes where it isn't JSON; None on an error
    error: dict[str, Any] | None  # errorType, errorMessage, stackTrace as the caller of Lambda gets them
    logs: str  # what the environment wrote meanwhile; with several processes that is everybody's
    duration: float  # seconds from the hand-over to the answer
    timed_out: bool
    init_duration: float | None  # seconds of the init before it, for the first invocation of a fresh process
    environment: Environment


@dataclass(frozen=True)
class Init:
    """One run of the code outside the handler."""

    status: str  # "ok", "error", "timeout", "exit"
    duration: float  # seconds
    error: dict[str, Any] | None
    logs: str


class Environment:
    """An execution environment. It starts at once; the first `invoke` waits for its init. Made by `Function.environment`."""

    def __init__(self, settings: Settings, on_free: Callable[[], None]) -> None:
        self.id = uuid.uuid4().hex
        self.inits: list[Init] = []
        self.invocations = 0
        self.slots = threading.BoundedSemaphore(settings.processes or 1)
        self._settings = settings
        self._on_free = on_free
        self._folder = tempfile.mkdtemp(prefix="lambda-environment-")
        self.tmp = os.path.join(self._folder, "tmp")  # TMPDIR of its processes; outlives a timeout, as /tmp does
        os.mkdir(self.tmp)
        # A file and not a pipe: what was written before the answer is there with the answer, whatever was killed.
        self._log = open(os.path.join(self._folder, "log"), "ab+", buffering=0)  # noqa: SIM115
        self._api = RuntimeApi()
        self._processes: list[subprocess.Popen[bytes]] = []  # the one that runs, if any; shared with the finalizer
        self._lock = threading.Lock()
        self._fresh: Init | None = None  # an init that no invocation has counted yet
        self._initialised = threading.Event()
        self._finalizer = weakref.finalize(self, _clean_up, self._processes, self._api, self._log, self._folder)
        threading.Thread(target=self._first_init, name="init", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """The runtime's process id, also that of its group; None while none runs."""
        process = self._processes[0] if self._processes else None
        return process.pid if process is not None and process.returncode is None else None

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
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the processes go on from where they were stopped."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End every process without a signal that Python sees. The next invocation starts anew, in the same folder."""
        self._initialised.wait()
        self._kill("signal: killed")

    def close(self) -> None:
        """End the environment: its processes, its folder, its server."""
        with self._lock:
            self._finalizer()
        self._initialised.wait()

    # Starting

    def _first_init(self) -> None:
        self._init(self._settings.init_timeout)
        self._initialised.set()

    def _init(self, limit: float) -> Init:
        mark = self._logged_bytes()
        started = time.monotonic()
        api = self._api
        try:
            self._start()
        except OSError as problem:  # no such interpreter, no such folder
            api.end(str(problem))
        with api.changed:
            settled = api.changed.wait_for(lambda: api.polling or api.init_error or api.exited, limit)
            if api.init_error and api.exited is None:  # it says why, and then ends itself
                api.changed.wait_for(lambda: api.exited, 2)
            status, error = "ok", api.init_error
            if error:
                status = "error"
            elif api.exited is not None:
                status, error = (
                    "exit",
                    {"errorType": "Runtime.ExitError", "errorMessage": f"Runtime exited with error: {api.exited}"},
                )
            elif not settled:
                status = "timeout"
        if status != "ok":
            self._kill("init " + status)
        init = Init(status, time.monotonic() - started, error, self._logged(mark))
        self.inits.append(init)
        self._fresh = init if status == "ok" else None
        if status == "ok" and self._settings.freeze:
            self.freeze()
        return init

    def _start(self) -> None:
        settings = self._settings
        variables = dict(
            settings.variables,
            AWS_LAMBDA_RUNTIME_API=self._api.address,
            AWS_LAMBDA_LOG_STREAM_NAME=self._stream(),
            TMPDIR=self.tmp,
        )
        with self._lock:
            if not self._finalizer.alive:
                raise OSError("the environment is closed")
            self._api.begin()
            process = subprocess.Popen(  # noqa: S603
                [settings.python, "-m", "awslambdaric", settings.handler],
                cwd=settings.path,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                process_group=0,  # killed as one; and if we are killed, the kernel hangs up on a stopped group
            )
            self._processes[:] = [process]
        threading.Thread(target=self._watch, args=(process,), name="watch", daemon=True).start()

    def _stream(self) -> str:
        return time.strftime("%Y/%m/%d/[$LATEST]", time.gmtime()) + self.id

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # unreaped, its id can't become another's
        except ChildProcessError:
            return
        with self._lock:
            if process in self._processes:
                _kill_group(process)
                self._processes.clear()
                self._api.end(_reason(process.returncode))

    # One invocation

    def _invoke(self, body: bytes, client_context: Any) -> Result:
        self._initialised.wait()
        request_id = str(uuid.uuid4())
        mark = self._logged_bytes()
        began = time.monotonic()
        invocation = Invocation(request_id, body, self._headers(request_id, client_context))
        init_duration = self._run(invocation, began + self._settings.timeout)
        error = invocation.error
        return Result(
            request_id=request_id,
            value=_decoded(invocation.payload) if error is None else None,
            error=error,
            logs=self._logged(mark),
            duration=invocation.at - began,
            timed_out=error is not None and error.get("errorType") == TIMED_OUT,
            init_duration=init_duration,
            environment=self,
        )

    def _run(self, invocation: Invocation, deadline: float) -> float | None:
        """See to it that the invocation is answered, one way or another; the duration of an init that it is the first to follow."""
        settings, api = self._settings, self._api
        if (
            self.pid is None
        ):  # its init failed, it ran into a timeout or it died: init again, now on the invocation's time
            init = self._init(settings.timeout)
            if init.status == "timeout":
                invocation.answer(error=self._timeout_error(invocation.request_id))
            elif init.status != "ok":
                invocation.answer(error=init.error)
            if init.status != "ok":
                return None
        init_duration = self._fresh.duration if self._fresh else None
        self._fresh = None
        if settings.freeze:
            self.thaw()
        self.invocations += 1
        api.offer(invocation)
        if not invocation.answered.wait(max(0.0, deadline - time.monotonic())):
            invocation.answer(error=self._timeout_error(invocation.request_id))
        if settings.processes is None:
            self._settle(deadline)
        else:  # Managed Instances: at a timeout the caller gets the error, the code and the others run on
            api.withdraw(invocation)
        return init_duration

    def _settle(self, deadline: float) -> None:
        """Wait until the process asks for more, and end it if the deadline comes first.

        Before it asks, it isn't idle, and what it logs belongs to this invocation.
        """
        api = self._api
        with api.changed:
            idle = api.changed.wait_for(
                lambda: api.polling or api.exited is not None, max(0.0, deadline - time.monotonic())
            )
        if not idle:
            self._kill("timeout")
        elif self._settings.freeze:
            self.freeze()

    def _headers(self, request_id: str, client_context: Any) -> dict[str, str]:
        now = time.time()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((now + self._settings.timeout) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self._settings.arn,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(now):08x}-{uuid.uuid4().hex[:24]};Parent={uuid.uuid4().hex[:16]};Sampled=0",
        }
        if client_context is not None:
            headers["Lambda-Runtime-Client-Context"] = json.dumps(client_context)
        return headers

    def _timeout_error(self, request_id: str) -> dict[str, Any]:
        said = f"RequestId: {request_id} Error: Task timed out after {self._settings.timeout:.2f} seconds"
        return {"errorType": TIMED_OUT, "errorMessage": said}

    # Processes

    def _signal(self, number: int) -> None:
        with self._lock:
            if self._processes:
                os.killpg(self._processes[0].pid, number)
                if number == signal.SIGSTOP:  # back only when it has stopped
                    os.waitid(os.P_PID, self._processes[0].pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _kill(self, reason: str) -> None:
        with self._lock:
            if self._processes:
                _kill_group(self._processes[0])
                self._processes.clear()
                self._api.end(reason)

    def _logged_bytes(self) -> int:
        return 0 if self._log.closed else os.fstat(self._log.fileno()).st_size

    def _logged(self, mark: int) -> str:
        if self._log.closed:
            return ""
        return os.pread(self._log.fileno(), self._logged_bytes() - mark, mark).decode("utf-8", "replace")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _decoded(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return payload


def _clean_up(processes: list[subprocess.Popen[bytes]], api: RuntimeApi, log: BinaryIO, folder: str) -> None:
    """The end of an environment that was closed, forgotten, or still there when the interpreter exits."""
    for process in processes[:]:
        _kill_group(process)
    processes.clear()
    api.end("signal: killed")
    api.close()
    log.close()
    shutil.rmtree(folder, ignore_errors=True)


def _reason(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        names = {
            signal.SIGKILL: "killed",
            signal.SIGSEGV: "segmentation fault",
            signal.SIGABRT: "aborted",
            signal.SIGBUS: "bus error",
        }
        return "signal: " + names.get(signal.Signals(-returncode), signal.Signals(-returncode).name)
    return f"exit status {returncode}"
