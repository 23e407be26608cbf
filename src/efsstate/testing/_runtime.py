"""The processes of one execution environment as a group: started, frozen and ended together."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import warnings
import weakref
from typing import TYPE_CHECKING

from efsstate.testing import _memory, _sandbox
from efsstate.testing._api import RuntimeApi
from efsstate.testing._http import Server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from efsstate.testing._settings import Settings

GRACE = 0.5  # seconds from SIGTERM to SIGKILL, where an extension is registered
KILLED = "signal: killed"  # Lambda's words for a process that took too much memory


class Runtime:
    """`awslambdaric` with its Runtime API, its folder and its log; one process group at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = tempfile.mkdtemp(prefix="lambda-environment-")
        self._tmp = os.path.join(self._folder, "tmp")
        os.mkdir(self._tmp)
        self._sandbox = (
            _sandbox.Sandbox(settings, self._folder, self._tmp) if _sandbox.can_mount() else None
        )
        self.tmp = self._sandbox.tmp if self._sandbox else self._tmp
        self._has_warned = False
        self._peak: int | None = None  # MB, of a process that took too much
        # A file, not a pipe: a process may be killed, and its last lines are there all the same.
        self._log = open(os.path.join(self._folder, "log"), "ab+", buffering=0)  # noqa: SIM115
        self.api = RuntimeApi()
        self._server = Server(self.api)
        self.address = self._server.address
        # The leader that runs, if any; the finalizer shares the list.
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(
            self, _clean_up, self._processes, self._server, self._log, self._folder, self._sandbox
        )

    @property
    def enforced(self) -> frozenset[str]:
        """What is enforced here of "memory", "tmp" and "task root"."""
        names = {"memory"} if os.path.isdir("/proc/self/task") else set()
        if self._sandbox is not None:
            names.add("tmp")
            if self._settings.read_only:
                names.add("task root")
        return frozenset(names)

    @property
    def pid(self) -> int | None:
        """The leader's process id, which is also its group's; None if none runs."""
        process = next(iter(self._processes), None)
        return None if process is None else process.pid

    def start(self, variables: Mapping[str, str]) -> None:
        """Start the group. Raise OSError if the interpreter or folder is missing, or if closed."""
        settings = self._settings
        with self._lock:
            if not self._finalizer.alive:
                raise OSError("the environment is closed")
            self.api.begin()
            own = {"AWS_LAMBDA_RUNTIME_API": self.address, "TMPDIR": self._tmp}
            environment = {**variables, **own}
            isolated = settings.packages is not None
            if settings.packages is not None:
                runtime = _sandbox.provide_runtime(self._folder)
                environment["PYTHONPATH"] = os.pathsep.join([settings.packages, runtime])
            command = _sandbox.command(settings.python, settings.handler, isolated=isolated)
            if not shutil.which(settings.python):
                raise FileNotFoundError(2, "no such interpreter", settings.python)
            if self._sandbox is not None:
                command = self._sandbox.enter(command)
            process = subprocess.Popen(  # noqa: S603
                command,
                cwd=settings.path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                # Killed as one; and if we are killed, the kernel hangs up on a stopped group.
                process_group=0,
            )
            _limit_descriptors(process.pid, settings.descriptors)
            self._processes[:] = [process]
            self._peak = None
        ended = threading.Event()
        for name, target in (("watch", self._watch), ("memory", self._watch_memory)):
            threading.Thread(target=target, args=(process, ended), name=name, daemon=True).start()

    def freeze(self) -> None:
        """Stop the group; return when its leader has stopped."""
        with self._lock:
            if self._processes:
                pid = self._processes[0].pid
                os.killpg(pid, signal.SIGSTOP)
                os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let the group run again."""
        with self._lock:
            if self._processes:
                os.killpg(self._processes[0].pid, signal.SIGCONT)

    def kill(self, reason: str) -> None:
        """End the group without a signal that Python sees; callers that wait get the `reason`."""
        with self._lock:
            if self._processes:
                _kill_group(self._processes.pop())
                self.api.end(reason)

    def shut_down(self) -> None:
        """Send SIGTERM to the leader, as Lambda does where an extension is registered, and wait."""
        with self._lock:
            process = next(iter(self._processes), None)
            if process is None:
                return
            os.killpg(process.pid, signal.SIGCONT)
            _terminate(process)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            pass

    def close(self) -> None:
        """End the group, the API and the folder for good."""
        with self._lock:
            self._finalizer()

    def written(self) -> int:
        """Return the size of the log so far in bytes."""
        return 0 if self._log.closed else os.fstat(self._log.fileno()).st_size

    def log(self, since: int) -> str:
        """Return the log after its first `since` bytes; "" once it is closed."""
        if self._log.closed:
            return ""
        data = os.pread(self._log.fileno(), self.written() - since, since)
        return data.decode("utf-8", "replace")

    def peak_memory(self) -> int | None:
        """Return the most memory in MB that the leader has used, or None if none runs."""
        if self._peak is not None:
            return self._peak
        try:
            with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as file:
                lines = [line for line in file if line.startswith("VmHWM:")]
        except OSError:
            return None
        return int(lines[0].split()[1]) // 1024 if lines else None

    def warn_of_tmp(self) -> None:
        """Warn once if more was written to TMPDIR than Lambda has room for, and it was let."""
        if self._sandbox is not None or self._has_warned:
            return
        size = _sandbox.size_of(self._tmp)
        limit = self._settings.ephemeral_storage
        if size > limit << 20:
            self._has_warned = True
            text = f"TMPDIR: {size >> 20} MB were written; Lambda refuses more than {limit} MB"
            warnings.warn(text + ": raise ephemeral_storage, or write less", stacklevel=4)

    def _watch_memory(self, process: subprocess.Popen[bytes], ended: threading.Event) -> None:
        """End the group if it takes more memory than the function has, as Lambda does."""

        def end() -> None:
            with self._lock:
                if process in self._processes:
                    self._processes.remove(process)
                    self._peak = self._settings.memory
                    _kill_group(process)
                    self.api.end(KILLED)

        _memory.watch(process.pid, self._settings.memory, ended, end)

    def _watch(self, process: subprocess.Popen[bytes], ended: threading.Event) -> None:
        try:
            # Until it is reaped, its id cannot become another process's.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            return
        finally:
            ended.set()
        with self._lock:
            if process in self._processes:
                self._processes.remove(process)
                _kill_group(process)  # its children end with it
                self.api.end(_reason(process.returncode))


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the main thread, where the C library can.

    Of a process that was thawed just now, Linux may give the signal to another thread; Python's
    handler of it would run only when something else wakes the main thread.
    """
    try:
        tgkill = ctypes.CDLL(None).tgkill
    except AttributeError:  # macOS, musl
        process.terminate()
    else:
        tgkill(process.pid, process.pid, signal.SIGTERM)


def _limit_descriptors(pid: int, limit: int) -> None:
    """Bound the descriptors of a process that has just been started, and of its children."""
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
    except (AttributeError, OSError, ValueError):
        pass  # it ended already, or may not be bounded


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _clean_up(
    processes: list[subprocess.Popen[bytes]],
    server: Server,
    log: BinaryIO,
    folder: str,
    sandbox: _sandbox.Sandbox | None,
) -> None:
    """End a runtime that is closed, or that still runs when the interpreter exits."""
    while processes:
        _kill_group(processes.pop())
    server.api.end(KILLED)
    server.close()
    log.close()
    if sandbox is not None:
        sandbox.close()
    shutil.rmtree(folder, ignore_errors=True)


def _reason(returncode: int) -> str:
    """Return an exit in Lambda's words."""
    if returncode >= 0:
        return f"exit status {returncode}"
    names = {
        signal.SIGKILL: "killed",
        signal.SIGSEGV: "segmentation fault",
        signal.SIGBUS: "bus error",
        signal.SIGTERM: "terminated",
    }
    number = signal.Signals(-returncode)
    return "signal: " + names.get(number, number.name)
