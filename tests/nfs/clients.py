"""The clients of an NFS test: their folders, request counters, processes and faults."""

import contextlib
import os
import pickle
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings

import pytest

BACKGROUND = {"SEQUENCE"}  # the client renews its lease by the clock, whatever a test does


class Worker:
    """A process of one client, started by `Clients.start`."""

    def __init__(self, target, arguments, hostname):
        lines, stdout = os.pipe()
        results, result = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # a fork beside threads: the child uses none of them
            self.pid = os.fork()
        if not self.pid:
            _work(target, arguments, hostname, stdout, result)
        os.close(stdout)
        os.close(result)
        self._lines, self._results = lines, results
        self._data = {lines: b"", results: b""}
        self._open = {lines, results}
        self._code, self._text = None, isinstance(target, str)

    def _take(self, timeout):
        with selectors.PollSelector() as ready:  # select() fails beyond 1,024 descriptors
            for fd in self._open:
                ready.register(fd, selectors.EVENT_READ)
            found = [key.fd for key, _ in ready.select(timeout)]
        for fd in found:
            data = os.read(fd, 65536)
            self._data[fd] += data
            if not data:
                self._open.discard(fd)
                os.close(fd)

    def _until(self, done, timeout, what):
        end = time.monotonic() + timeout
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"worker {self.pid}: {what} within {timeout} s")
            self._take(left)

    def readline(self, timeout=30):
        """The next line it printed; empty at the end of its output."""
        self._until(
            lambda: b"\n" in self._data[self._lines] or self._lines not in self._open,
            timeout,
            "no line",
        )
        line, newline, self._data[self._lines] = self._data[self._lines].partition(b"\n")
        return (line + newline).decode()

    def is_running(self):
        """Whether it has yet to end."""
        try:
            self.wait(0)
        except TimeoutError:
            return True
        return False

    def wait(self, timeout=60):
        """Its exit code; negative for the signal that ended it."""
        end = time.monotonic() + timeout
        while self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise TimeoutError(f"worker {self.pid}: did not end within {timeout} s")
            elif self._open:
                self._take(0.02)
            else:
                time.sleep(0.005)
        return self._code

    def result(self, timeout=60):
        """Return what the function returned (of code in a string: what it printed).

        Raise AssertionError with its traceback if it failed.
        """
        code = self.wait(timeout)
        with contextlib.suppress(TimeoutError):
            self._until(
                lambda: self._lines not in self._open, 1, ""
            )  # a grandchild may hold the pipe
        if self._text and code == 0:
            return self._data[self._lines].decode()
        if not self._text:
            with contextlib.suppress(TimeoutError):
                self._until(lambda: self._results not in self._open, 1, "")
            if self._data[self._results]:
                done, value = pickle.loads(self._data[self._results])
                if done:
                    return value
                raise AssertionError(f"worker {self.pid} failed:\n{value}")
        raise AssertionError(f"worker {self.pid} ended with {code}")

    def kill(self):
        """Kill -9, and gather it."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def freeze(self):
        """SIGSTOP: as a function between two invocations."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.pid, signal.SIGCONT)

    def close(self):
        self.kill()
        for fd in self._open:
            os.close(fd)
        self._open = set()


def _work(target, arguments, hostname, stdout, result):
    """The child's side: never returns."""
    code = 1
    try:
        os.dup2(stdout, 1)
        if hostname:
            _own_hostname(hostname)
        if isinstance(target, str):
            os.execv(sys.executable, [sys.executable, "-u", "-c", target, *map(str, arguments)])
        sys.stdout = os.fdopen(1, "w", 1, closefd=False)
        try:
            data, code = pickle.dumps((True, target(*arguments))), 0
        except BaseException:
            data = pickle.dumps((False, traceback.format_exc()))
        sys.stdout.flush()
        while data:
            data = data[os.write(result, data) :]
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _own_hostname(name):
    """Two clients are two hosts, also for what tells hosts apart by their name."""
    if hasattr(os, "unshare"):
        os.unshare(os.CLONE_NEWUTS)
    else:
        import ctypes

        if ctypes.CDLL(None).unshare(0x04000000):  # CLONE_NEWUTS
            raise OSError("unshare(CLONE_NEWUTS) failed")
    socket.sethostname(name)


class Counts:
    """Requests of one client: `ops` by operation, without zeros, and `total`.

    Set when the block ends.
    """

    def __init__(self):
        self.ops, self.total = {}, 0

    def __repr__(self):
        return f"{self.total}: {self.ops}"


class Faults:
    """What goes wrong on demand: the lab's network, server and delay."""

    def __init__(self, delay):
        self.normal = delay
        self._cut, self._slow, self._restarted = set(), False, False

    def _run(self, *command):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def hostname(self, client):
        return client

    def cut(self, client):
        self._run("ip", "-n", client, "link", "set", "eth0", "down")
        self._cut.add(client)

    def heal(self, client):
        self._run("ip", "-n", client, "link", "set", "eth0", "up")
        self._cut.discard(client)

    def delay(self, value):
        for client in "ab":
            self._run(
                "tc",
                "qdisc",
                "change",
                "dev",
                f"v{client}",
                "root",
                "netem",
                "delay",
                value,
                "limit",
                "100000",
            )
        self._slow = value != self.normal

    def restart_server(self):
        self._restarted = True
        self._run("rpc.nfsd", "0")
        self._run("rpc.nfsd", "-N", "3", "-V", "4.1", "16")

    def undo(self, folders):
        for client in list(self._cut):
            self.heal(client)
        if self._slow:
            self.delay(self.normal)
        if self._restarted:
            for folder in folders:  # opens wait for the end of the server's grace
                os.close(os.open(f"{folder}/.grace", os.O_CREAT | os.O_RDWR, 0o600))


class NoFaults:
    """Mounts that were given: nothing can be broken there, so a test that needs it is skipped."""

    def undo(self, folders):
        pass

    def __getattr__(self, name):
        pytest.skip(f"{name}() needs the lab: these mounts were given by --mount-a and --mount-b")


class Clients:
    """Clients a and b of one export; `a` and `b` are one new, empty folder on the mount of each.

    Both have walked to it.
    """

    def __init__(self, mount_a, mount_b, name, *, delay="300us", faults=None):
        name = re.sub(r"[^\w.-]+", "-", name)[:100] + "-" + os.urandom(3).hex()
        self.mounts = {"a": os.path.abspath(mount_a), "b": os.path.abspath(mount_b)}
        self.a, self.b = (f"{mount}/{name}" for mount in self.mounts.values())
        self._faults = faults or Faults(delay)
        self._workers = []
        os.mkdir(self.a)
        for client in "ab":
            # Both have walked to the folder, so that counts are of what a test does; twice, because
            # the first walk may learn that the mount's root has changed, and the next then looks
            # the folder up again.
            for _ in range(2):
                os.close(os.open(self.mounts[client], os.O_RDONLY | os.O_DIRECTORY))
                os.close(os.open(self.path(client), os.O_RDONLY | os.O_DIRECTORY))

    def path(self, client):
        """The test's folder as client "a" or "b" sees it."""
        return {"a": self.a, "b": self.b}[client]

    def other(self, path):
        """The same path through the other client's mount."""
        one, two = (self.a, self.b) if path.startswith(self.a) else (self.b, self.a)
        return two + path[len(one) :]

    # counting

    def rpcs(self, client):
        """Return requests by operation since the mount, without the renewals of the lease."""
        found, counts, mount = False, {}, os.path.realpath(self.mounts[client])
        with open("/proc/self/mountstats") as file:
            for line in file:
                if line.startswith("device "):
                    words = line.split()
                    found = words[4] == mount and words[7].startswith("nfs")
                    if found:
                        counts = {}
                elif (
                    found
                    and (match := re.match(r"\s+([A-Z_0-9]+): (\d+) ", line))
                    and match[1] not in BACKGROUND
                ):
                    name = match[1].removesuffix(
                        "_NOATTR"
                    )  # an OPEN by file handle: the same request to the server
                    counts[name] = counts.get(name, 0) + int(match[2])
        if not counts:
            pytest.skip(
                f"{mount} is not the mount point of an NFS mount: its requests cannot be counted"
            )
        return counts

    def settled(self, client):
        """Return `rpcs()` once nothing is under way.

        The kernel sends some requests after the call.
        """
        before = self.rpcs(client)
        for _ in range(100):
            time.sleep(0.03)
            after = self.rpcs(client)
            if after == before:
                break
            before = after
        return before

    @contextlib.contextmanager
    def count(self, client):
        """Count in a block: `with lab.count("b") as sent: …`.

        Then `sent.ops == {"OPEN": 1, "CLOSE": 1}` and `sent.total == 2`.
        """
        counts, before = Counts(), self.settled(client)
        yield counts
        after = self.settled(client)
        counts.ops = {
            name: n - before.get(name, 0) for name, n in after.items() if n != before.get(name, 0)
        }
        counts.total = sum(counts.ops.values())

    # processes

    def start(self, client, target, *arguments):
        """Start a process on client a's or b's host name: a Worker.

        `target` is a function, forked (closures are fine), or a string of Python code, run afresh
        with `sys.argv[1:]`.
        """
        worker = Worker(target, arguments, None if isinstance(self._faults, NoFaults) else client)
        self._workers.append(worker)
        return worker

    def run(self, client, target, *arguments, timeout=60):
        """start() and result()."""
        return self.start(client, target, *arguments).result(timeout)

    # faults

    def hostname(self, client):
        """The host name of the client's workers."""
        return self._faults.hostname(client)

    def cut(self, client):
        """Take the client's link down: its calls hang."""
        self._faults.cut(client)

    def heal(self, client):
        """Take the link up again; hanging calls go on after some seconds."""
        self._faults.heal(client)

    def restart_server(self):
        """Restart the NFS server.

        Clients reclaim their locks and opens in a grace of up to 10 s.
        """
        self._faults.restart_server()

    def delay(self, value):
        """Set the delay, one way, server to client, until the test ends: `lab.delay("3ms")`."""
        self._faults.delay(value)

    def freeze(self, pid):
        os.kill(pid, signal.SIGSTOP)

    def thaw(self, pid):
        os.kill(pid, signal.SIGCONT)

    def close(self):
        """End the workers, undo the faults, remove the folder."""
        self._faults.undo((self.a, self.b))
        for worker in self._workers:
            worker.close()
        shutil.rmtree(self.a, ignore_errors=True)
