"""Run in the guest.

Start processes for the host, their input, output and exit on one serial line.
"""

import errno
import json
import os
import select
import signal
import sys
import tty


class Child:
    """One process, its pipes and its pidfd."""

    def __init__(self, request):
        stdin, self.stdin = os.pipe()
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setsid()
                for target, fd in enumerate((stdin, stdout, stderr)):
                    os.dup2(fd, target)
                os.chdir(request["cwd"])
                os.execvpe(request["argv"][0], request["argv"], request["env"])
            except BaseException as error:
                os.write(2, f"{request['argv'][0]}: cannot be started: {error}\n".encode())
                os._exit(127)
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        for fd in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)
        self.exit = os.pidfd_open(self.pid)


class Agent:
    def __init__(self, line, job):
        self.job = job
        self.line = os.open(line, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.line)
        self.poll = select.poll()
        self.children = {}
        self.watched = {}
        self.buffer = b""
        self.poll.register(self.line, select.POLLIN)

    def send(self, **message):
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self.line, data) :]

    def watch(self, fd, name, stream):
        self.watched[fd] = (name, stream)
        self.poll.register(fd, select.POLLIN)

    def unwatch(self, fd):
        if self.watched.pop(fd, None):
            self.poll.unregister(fd)
            os.close(fd)

    def forward(self, fd):
        """Pass on what is there; whether the pipe is still open."""
        name, stream = self.watched[fd]
        while True:
            try:
                data = os.read(fd, 32768)
            except BlockingIOError:
                return
            if not data:
                self.unwatch(fd)
                return
            self.send(id=name, fd=stream, data=data.decode("latin-1"))

    def obey(self, request):
        if "spawn" in request:
            name = request["spawn"]
            child = self.children[name] = Child(request)
            self.watch(child.stdout, name, 1)
            self.watch(child.stderr, name, 2)
            self.watch(child.exit, name, 0)
            self.send(id=name, pid=child.pid)
        elif (child := self.children.get(request.get("id"))) is None:
            return
        elif "feed" in request:
            data = request["feed"].encode("latin-1")
            os.set_blocking(child.stdin, True)
            try:
                while data:
                    data = data[os.write(child.stdin, data) :]
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
        elif "eof" in request:
            os.close(child.stdin)
            child.stdin = -1
        elif "signal" in request:
            os.kill(child.pid, request["signal"])

    def finish(self, fd):
        name, _ = self.watched[fd]
        child = self.children.pop(name)
        _, status = os.waitpid(child.pid, 0)
        for pipe in (child.stdout, child.stderr):
            if pipe in self.watched:
                self.forward(pipe)
                self.unwatch(pipe)
        self.unwatch(fd)
        if child.stdin >= 0:
            os.close(child.stdin)
        self.send(id=name, exit=os.waitstatus_to_exitcode(status))

    def run(self):
        self.send(ready=True)
        while True:
            for fd, _ in self.poll.poll():
                if fd == self.line:
                    self.buffer += os.read(self.line, 65536)
                    *lines, self.buffer = self.buffer.split(b"\n")
                    for line in lines:
                        with open(f"{self.job}/{line.decode()}") as file:
                            request = json.load(file)
                        if "halt" in request:
                            return
                        self.obey(request)
                elif fd in self.watched:
                    if self.watched[fd][1]:
                        self.forward(fd)
                    else:
                        self.finish(fd)


signal.signal(signal.SIGPIPE, signal.SIG_IGN)
Agent(sys.argv[1], sys.argv[2]).run()
