"""One User Mode Linux guest and the processes in it, driven from the host."""

import contextlib
import json
import os
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
KERNEL = "/usr/bin/linux.uml"


def memory_folder(mem):
    """Return the folder for a sparse file of this size, such as the guest's memory.

    /dev/shm if it is large and executable.
    """
    size = int(mem[:-1]) << {"k": 10, "m": 20, "g": 30}[mem[-1].lower()]
    with contextlib.suppress(OSError):
        shm = os.statvfs("/dev/shm")
        if not shm.f_flag & os.ST_NOEXEC and shm.f_bavail * shm.f_frsize > size:
            return "/dev/shm"
    return tempfile.gettempdir()


def _quoted(value):
    """Return a string, or a list, as bash reads it."""
    return f"({shlex.join(value)})" if isinstance(value, list) else shlex.quote(value)


class LabError(Exception):
    """The guest did not boot, died, or did not answer in time; the text ends with its console."""


class Process:
    """A process in a guest, as the host sees it: its output arrives while it runs."""

    def __init__(self, guest, name):
        self._guest, self._name = guest, name
        self._lines = [b"", b""]
        self.pid = None  # in the guest
        self.exit_code = None  # negative: the signal that ended it
        self.tee = None  # (stdout, stderr): binary files that get the output instead of readline()

    def _take(self, message):
        if "fd" in message:
            data = message["data"].encode("latin-1")
            if self.tee:
                self.tee[message["fd"] - 1].write(data)
                self.tee[message["fd"] - 1].flush()
            else:
                self._lines[message["fd"] - 1] += data
        elif "exit" in message:
            self.exit_code = message["exit"]
        else:
            self.pid = message["pid"]

    def readline(self, timeout=60):
        """Return the next line of its output, empty at the end.

        A line that has come out was written before any power cut.
        """
        self._guest._until(
            lambda: b"\n" in self._lines[0] or self.exit_code is not None,
            timeout,
            "no line from it",
        )
        line, newline, self._lines[0] = self._lines[0].partition(b"\n")
        return (line + newline).decode()

    def lines(self):
        """Return the complete lines of its output that have arrived and were not read.

        Wait for none.
        """
        with contextlib.suppress(LabError):
            while self._guest._pump(0):
                pass
        *lines, self._lines[0] = self._lines[0].split(b"\n")
        return [line.decode() for line in lines]

    def write(self, text):
        """Feed its standard input."""
        self._guest._send(id=self._name, feed=text)

    def close_stdin(self):
        self._guest._send(id=self._name, eof=True)

    def signal(self, number):
        self._guest._send(id=self._name, signal=int(number))

    def kill(self):
        self.signal(signal.SIGKILL)

    def wait(self, timeout=300):
        """Its exit code; negative for the signal that ended it."""
        self._guest._until(lambda: self.exit_code is not None, timeout, "it did not end")
        return self.exit_code

    @property
    def stderr(self):
        """What it has written to its standard error so far."""
        return self._lines[1].decode(errors="replace")

    def output(self, timeout=300):
        """Wait for it to succeed; return its output.

        Another exit code raises LabError with its standard error.
        """
        if self.wait(timeout):
            raise LabError(f"a process in the guest ended with {self.exit_code}:\n{self.stderr}")
        return self._lines[0].decode()


class Guest:
    """One User Mode Linux guest; kill() is a power cut."""

    def __init__(self, mem, settings, devices=(), fds=()):
        self.job = tempfile.mkdtemp(prefix="efsstate-lab-")
        self.console = os.path.join(self.job, "console")
        self._processes, self._buffer, self._sent, self._ready = {}, b"", 0, False
        shutil.copy(os.path.join(HERE, "guest-init"), os.path.join(self.job, "init"))
        shutil.copy(os.path.join(HERE, "agent.py"), os.path.join(self.job, "agent.py"))
        settings = {
            "AGENT": os.path.join(self.job, "agent.py"),
            "PYTHON": os.path.realpath(sys.executable),
        } | settings
        with open(os.path.join(self.job, "env"), "w") as file:
            file.writelines(f"{name}={_quoted(value)}\n" for name, value in settings.items())
        self._line, theirs = socket.socketpair()
        arguments = [
            KERNEL,
            f"mem={mem}",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "init=/bin/bash",
            f"job={self.job}",
        ]
        arguments += [
            f"uml_dir={self.job}/",
            "con=null",
            "con0=null,fd:1",
            "con1=null",
            f"ssl0=fd:{theirs.fileno()}",
            "quiet",
            "loglevel=3",
        ]
        with open(self.console, "wb") as console:
            self._kernel = subprocess.Popen(
                [*arguments, *devices, "--", f"{self.job}/init"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=[theirs.fileno(), *fds],
                start_new_session=True,
                env=os.environ | {"TMPDIR": memory_folder(mem)},
            )
        theirs.close()
        # A host process that is killed takes its guests with it: its end of the pipe closes, and
        # this ends them.
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", ('read _; kill -9 "-$1"; rm -rf '
                              '"$2"'), "lab-watch", str(self._kernel.pid), self.job],
            stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def _fail(self, what):
        with open(self.console, errors="replace") as file:
            tail = "".join(line for line in file if not line.startswith("SELinux"))[-4000:]
        raise LabError(f"the lab's guest: {what}\n--- its console ---\n{tail}")

    def _pump(self, timeout):
        """Take one reading from the guest; whether there was one."""
        with selectors.PollSelector() as ready:  # select() fails beyond 1,024 descriptors
            ready.register(self._line, selectors.EVENT_READ)
            if not ready.select(timeout):
                return False
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self._line.recv(1 << 18)
        if not data:
            self._fail("it is down")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                self._ready = True
            elif message["id"] in self._processes:
                self._processes[message["id"]]._take(message)
        return True

    def _until(self, done, timeout, what):
        end = time.monotonic() + timeout
        while not done():
            if not self._pump(min(1, max(0, end - time.monotonic()))):
                if self._kernel.poll() is not None:
                    self._fail("it is down")
                if time.monotonic() >= end:
                    self._fail(f"{what} within {timeout} s")

    def _send(self, **message):
        """Send a request as a file, and its number along the line.

        The line's input stalls for good beyond 4 KiB unread.
        """
        self._sent += 1
        with open(f"{self.job}/{self._sent}", "w") as file:
            json.dump(message, file)
        self._line.sendall(b"%d\n" % self._sent)

    def wait_up(self, timeout=120):
        try:
            self._until(lambda: self._ready, timeout, "it was not up")
        except LabError:
            self.kill()
            raise

    def spawn(self, argv, *, env=None, cwd=None):
        """Start a process in the guest; the environment is the host's with `env` over it."""
        name = self._sent + 1
        process = self._processes[name] = Process(self, name)
        environment = dict(os.environ) | {"TMPDIR": "/run/tmp"} | (env or {})
        self._send(
            spawn=name,
            argv=[os.fspath(a) for a in argv],
            env=environment,
            cwd=os.fspath(cwd or os.getcwd()),
        )
        self._until(lambda: process.pid is not None, 60, "the agent did not answer")
        return process

    def python(self, code, *arguments):
        """Start Python code in the guest.

        With `sys.argv[1:]` the arguments and unbuffered output.
        """
        return self.spawn([sys.executable, "-u", "-c", code, *map(str, arguments)])

    def kill(self):
        """Cut the power: every process ends at once.

        What the kernel had not written to the disk image is lost.
        """
        self._watch.kill()
        self._watch.wait()
        self._watch.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._kernel.pid, signal.SIGKILL)
        self._kernel.wait()
        self._line.close()
        shutil.rmtree(self.job, ignore_errors=True)

    def freeze(self):
        """Stop the whole guest, kernel and all, as Lambda does between calls.

        It renews no lease.
        """
        os.kill(self._kernel.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self._kernel.pid, signal.SIGCONT)

    def halt(self, timeout=30):
        """Orderly shutdown: the disk image is unmounted."""
        with contextlib.suppress(OSError):
            self._send(halt=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._kernel.wait(timeout)
        self.kill()
