"""Boots the lab: an NFSv4.1 server and two clients, a and b, in a User Mode Linux guest, driven from the host.

python -m tests.nfs.lab [--delay 3ms] [--mem 3G] [--writable DIR] [--disk IMAGE] -- COMMAND...
"""

import argparse
import contextlib
import json
import os
import re
import select
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
NEEDS = {  # what the lab runs -> the Debian package that has it
    KERNEL: "user-mode-linux",
    "/usr/sbin/rpc.nfsd": "nfs-kernel-server",
    "/usr/sbin/rpc.mountd": "nfs-kernel-server",
    "/usr/sbin/ip": "iproute2",
    "/usr/sbin/modprobe": "kmod",
    "/usr/sbin/mkfs.ext4": "e2fsprogs",
}


def missing():
    """Why the lab cannot run here, with what to do; empty when it can."""
    if not sys.platform.startswith("linux"):
        return (
            f"the NFS lab needs Linux, this is {sys.platform}: pass --mount-a and --mount-b, or run it in a container"
        )
    packages = {
        NEEDS[path] for path in NEEDS if not os.path.exists(path) and not os.path.exists(path.replace("/usr/", "/"))
    }
    if packages:
        return f"the NFS lab lacks packages: apt-get install -y --no-install-recommends {' '.join(sorted(packages))}"
    return ""


def _memory_folder(mem):
    """Where the guest's memory lies as a sparse file: /dev/shm, unless a container made it too small or not executable."""
    size = int(mem[:-1]) << {"k": 10, "m": 20, "g": 30}[mem[-1].lower()]
    with contextlib.suppress(OSError):
        shm = os.statvfs("/dev/shm")
        if not shm.f_flag & os.ST_NOEXEC and shm.f_bavail * shm.f_frsize > size:
            return "/dev/shm"
    return tempfile.gettempdir()


class LabError(Exception):
    """The guest did not boot, died, or did not answer in time; the text has the end of its console."""


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
        """The next line of its standard output, empty at its end; what has come out here was written before any power cut."""
        self._guest._until(lambda: b"\n" in self._lines[0] or self.exit_code is not None, timeout, "no line from it")
        line, newline, self._lines[0] = self._lines[0].partition(b"\n")
        return (line + newline).decode()

    def lines(self):
        """The complete lines of its output that have arrived and were not read yet; waits for none."""
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
        """Wait for it to succeed; its whole output. Another exit code raises LabError with its standard error."""
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
        settings = {"AGENT": os.path.join(self.job, "agent.py"), "PYTHON": os.path.realpath(sys.executable)} | settings
        with open(os.path.join(self.job, "env"), "w") as file:
            for name, value in settings.items():
                file.write(
                    f"{name}={'(' + shlex.join(value) + ')' if isinstance(value, list) else shlex.quote(value)}\n"
                )
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
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                pass_fds=[theirs.fileno(), *fds], start_new_session=True, env=os.environ | {"TMPDIR": _memory_folder(mem)},
            )  # fmt: skip
        theirs.close()
        # A host process that is killed takes its guests with it: its end of the pipe closes, and this ends them.
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", 'read _; kill -9 "-$1"; rm -rf "$2"', "lab-watch", str(self._kernel.pid), self.job],
            stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def _fail(self, what):
        with open(self.console, errors="replace") as file:
            tail = "".join(line for line in file if not line.startswith("SELinux"))[-4000:]
        raise LabError(f"the lab's guest: {what}\n--- its console ---\n{tail}")

    def _pump(self, timeout):
        """Take one reading from the guest; whether there was one."""
        if not select.select([self._line], [], [], timeout)[0]:
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
        """A request goes as a file, and only its number along the line: its input stalls for good beyond 4 KiB unread."""
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
        """Start a process in the guest: a Process. The environment is the host's with `env` over it."""
        name = self._sent + 1
        process = self._processes[name] = Process(self, name)
        environment = dict(os.environ) | {"TMPDIR": "/run/tmp"} | (env or {})
        self._send(spawn=name, argv=[os.fspath(a) for a in argv], env=environment, cwd=os.fspath(cwd or os.getcwd()))
        self._until(lambda: process.pid is not None, 60, "the agent did not answer")
        return process

    def python(self, code, *arguments):
        """Start Python code in the guest, with `sys.argv[1:]` the arguments and unbuffered output: a Process."""
        return self.spawn([sys.executable, "-u", "-c", code, *map(str, arguments)])

    def kill(self):
        """Power cut: every process of the guest ends at once; what its kernel had not written to the disk image is lost."""
        self._watch.kill()
        self._watch.wait()
        self._watch.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._kernel.pid, signal.SIGKILL)
        self._kernel.wait()
        self._line.close()
        shutil.rmtree(self.job, ignore_errors=True)

    def freeze(self):
        """Stop the whole guest, kernel and all, as Lambda does between invocations: it renews no lease."""
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


class Lab:
    """The server with clients a and b in one guest; further clients in guests of their own, which can lose power alone.

    `disk`: an ext4 image on the host, with a journal, made when missing, that outlives kill() and the next boot();
    without it the disk is in the guest's memory and has no journal: for counts only.
    `alone`: names of the clients that get a guest of their own by `client(name)`; they outlive the server's kill() and boot().
    `writable`: host folders that the guest may write to; all else it writes is gone with it.
    """

    def __init__(self, disk=None, *, delay="300us", mem="2G", writable=(), alone=()):
        if reason := missing():
            raise LabError(reason)
        self.disk = disk and os.path.abspath(disk)
        self.delay, self.mem = delay, mem
        self.writable = [os.path.realpath(folder) for folder in writable]
        self._wires = {name: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for name in alone}
        self.server, self._clients = None, {}

    def boot(self):
        """Start the server's guest, with a and b mounted at /mnt/a and /mnt/b."""
        devices, fresh = [], False
        if self.disk:
            fresh = not os.path.exists(self.disk)
            if fresh:
                with open(self.disk, "wb") as file:
                    file.truncate(1 << 30)
            devices.append(f"ubd0={self.disk}")
        ends = [wire[0] for wire in self._wires.values()]
        for i, end in enumerate(ends):
            with contextlib.suppress(BlockingIOError):  # frames for the guest that lost power
                while end.recv(1 << 16, socket.MSG_DONTWAIT):
                    pass
            devices.append(f"vec{i}:transport=fd,fd={end.fileno()},vec=0")
        settings = {"CLIENT": "", "DELAY": self.delay, "WRITABLE": self.writable}
        settings |= {"DISK": self.disk or "", "FORMAT": "1" if fresh else ""}
        self.server = Guest(self.mem, settings, devices, [end.fileno() for end in ends])
        self.server.wait_up()
        return self

    def client(self, name):
        """Boot the client `name`, one of `alone`, in a guest of its own: a Guest, the export at /mnt/<name>."""
        names = list(self._wires)
        end = self._wires[name][1]
        settings = {"CLIENT": name, "ADDRESS": f"10.9.0.{10 + names.index(name)}", "WRITABLE": self.writable}
        device = f"vec0:transport=fd,fd={end.fileno()},vec=0,mac=02:00:00:00:00:{10 + names.index(name):02x}"
        guest = self._clients[name] = Guest("512M", settings, [device], [end.fileno()])
        guest.wait_up()
        return guest

    def spawn(self, argv, **options):
        """Start a process beside the server, where both mounts are: a Process."""
        return self.server.spawn(argv, **options)

    def python(self, code, *arguments):
        """Start Python code beside the server, where both mounts are: a Process."""
        return self.server.python(code, *arguments)

    def cut(self, client):
        """Take the client's link away."""
        self.spawn(["ip", "link", "set", self._device(client), "nomaster"]).output()

    def heal(self, client):
        """Give the client its link back."""
        self.spawn(["ip", "link", "set", self._device(client), "master", "br0"]).output()

    def _device(self, client):
        # Off the bridge, not down: a guest's wire that went down would not come up again.
        return f"v{client}" if client in ("a", "b") else f"vec{list(self._wires).index(client)}"

    def kill(self):
        """Power cut of the server and of the clients a and b."""
        if self.server:
            self.server.kill()
        self.server = None

    def __enter__(self):
        return self.boot()

    def __exit__(self, *_):
        if self.server and self.disk:
            self.server.halt()
            self.server = None
        self.close()

    def close(self):
        """End every guest at once."""
        self.kill()
        for guest in self._clients.values():
            guest.kill()
        for wire in self._wires.values():
            wire[0].close()
            wire[1].close()


def main():
    """The command: run a process in the lab with its output here; its exit code is ours."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.nfs.lab",
        description="Run a command beside two NFS clients, mounted at /mnt/a and /mnt/b.",
    )
    parser.add_argument("-d", "--delay", default="300us", help="added one way, server to client (default 300us)")
    parser.add_argument("-m", "--mem", default="3G", help="the guest's memory, which holds the disk too (default 3G)")
    parser.add_argument(
        "-w", "--writable", action="append", default=[], help="a host folder that the command may write to; repeatable"
    )
    parser.add_argument("-t", "--timeout", type=float, default=3600, help="seconds (default 3600)")
    parser.add_argument(
        "--disk", help="an ext4 image on the host for the export, made when missing (default: in the guest's memory)"
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    options = parser.parse_args()
    try:
        with Lab(options.disk, delay=options.delay, mem=options.mem, writable=options.writable) as lab:
            process = lab.spawn(options.command)
            process.tee = (sys.stdout.buffer, sys.stderr.buffer)
            process.close_stdin()
            code = process.wait(options.timeout)
            return 128 - code if code < 0 else code
    except LabError as error:
        print(error, file=sys.stderr)
        return 125
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
