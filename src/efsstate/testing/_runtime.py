"""The processes of one execution environment as one group: started, stopped, ended together, and what they write."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING

from efsstate.testing._api import RuntimeApi

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO


class Runtime:
    """`awslambdaric` with its Runtime API, its folder and its log. At most one process group runs at a time."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="lambda-environment-")
        self.tmp = os.path.join(self._folder, "tmp")
        os.mkdir(self.tmp)
        # A file and not a pipe: what was written before the answer is there with the answer, whatever was killed.
        self._log = open(os.path.join(self._folder, "log"), "ab+", buffering=0)  # noqa: SIM115
        self.api = RuntimeApi()
        self._processes: list[
            subprocess.Popen[bytes]
        ] = []  # the leader that runs, if any; shared with the finalizer
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(
            self, _clean_up, self._processes, self.api, self._log, self._folder
        )

    @property
    def pid(self) -> int | None:
        """The leader's process id, also that of its group; None while none runs."""
        process = next(iter(self._processes), None)
        return None if process is None else process.pid

    def start(self, python: str, handler: str, path: str, variables: Mapping[str, str]) -> None:
        """Start the group. Raises `OSError`: no such interpreter, no such folder, closed."""
        with self._lock:
            if not self._finalizer.alive:
                raise OSError("the environment is closed")
            self.api.begin()
            process = subprocess.Popen(  # noqa: S603
                [python, "-m", "awslambdaric", handler],
                cwd=path,
                env=dict(variables, AWS_LAMBDA_RUNTIME_API=self.api.address, TMPDIR=self.tmp),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                process_group=0,  # killed as one; and if we are killed, the kernel hangs up on a stopped group
            )
            self._processes[:] = [process]
        threading.Thread(target=self._watch, args=(process,), name="watch", daemon=True).start()

    def freeze(self) -> None:
        """Stop the group; returns when its leader has stopped."""
        with self._lock:
            if self._processes:
                pid = self._processes[0].pid
                os.killpg(pid, signal.SIGSTOP)
                os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let the group go on."""
        with self._lock:
            if self._processes:
                os.killpg(self._processes[0].pid, signal.SIGCONT)

    def kill(self, reason: str) -> None:
        """End the group without a signal that Python sees; `reason` is told to whoever waits for an answer."""
        with self._lock:
            if self._processes:
                _kill_group(self._processes.pop())
                self.api.end(reason)

    def close(self) -> None:
        """End the group, the API and the folder, for good."""
        with self._lock:
            self._finalizer()

    def written(self) -> int:
        """Bytes in the log so far."""
        return 0 if self._log.closed else os.fstat(self._log.fileno()).st_size

    def log(self, since: int) -> str:
        """What was written after the first `since` bytes; nothing once it is closed."""
        if self._log.closed:
            return ""
        return os.pread(self._log.fileno(), self.written() - since, since).decode(
            "utf-8", "replace"
        )

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        try:
            os.waitid(
                os.P_PID, process.pid, os.WEXITED | os.WNOWAIT
            )  # unreaped, its id can't become another's
        except ChildProcessError:
            return
        with self._lock:
            if process in self._processes:
                self._processes.remove(process)
                _kill_group(process)  # what it left running goes with it
                self.api.end(_reason(process.returncode))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _clean_up(
    processes: list[subprocess.Popen[bytes]], api: RuntimeApi, log: BinaryIO, folder: str
) -> None:
    """The end of a runtime that was closed, or is still there when the interpreter exits."""
    while processes:
        _kill_group(processes.pop())
    api.end("signal: killed")
    api.close()
    log.close()
    shutil.rmtree(folder, ignore_errors=True)


def _reason(returncode: int) -> str:
    """An exit as Lambda words it."""
    if returncode >= 0:
        return f"exit status {returncode}"
    names = {
        signal.SIGKILL: "killed",
        signal.SIGSEGV: "segmentation fault",
        signal.SIGBUS: "bus error",
    }
    number = signal.Signals(-returncode)
    return "signal: " + names.get(number, number.name)
