"""Boot the lab: an NFSv4.1 server and two clients, a and b, in a User Mode Linux guest.

The host drives it.

python -m tests.nfs.lab [--delay 3ms] [--mem 3G] [--writable DIR] [--disk IMAGE] -- COMMAND...
"""

import argparse
import contextlib
import os
import socket
import sys

from tests.nfs.guest import KERNEL, Guest, LabError

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
            f"the NFS lab needs Linux, and this is {sys.platform}; pass --mount-a and --mount-b, or"
            " run it in a container"
        )
    packages = {
        NEEDS[path]
        for path in NEEDS
        if not os.path.exists(path) and not os.path.exists(path.replace("/usr/", "/"))
    }
    if packages:
        names = " ".join(sorted(packages))
        return f"the NFS lab lacks packages: apt-get install -y --no-install-recommends {names}"
    return ""


class Lab:
    """The server with clients a and b in one guest, and further clients in guests of their own.

    `disk`: an ext4 image on the host, with a journal, made when missing, that outlives kill() and
    the next boot(); without it the disk is in the guest's memory and has no journal: for counts
    only. `alone`: names of the clients that get a guest of their own by `client(name)`; they
    outlive the server's kill() and boot(). `writable`: host folders that the guest may write to;
    all else it writes is gone with it.
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
        """Boot the client `name`, one of `alone`, in a guest of its own.

        With the export at /mnt/<name>.
        """
        names = list(self._wires)
        end = self._wires[name][1]
        settings = {
            "CLIENT": name,
            "ADDRESS": f"10.9.0.{10 + names.index(name)}",
            "WRITABLE": self.writable,
        }
        number = 10 + names.index(name)
        device = f"vec0:transport=fd,fd={end.fileno()},vec=0,mac=02:00:00:00:00:{number:02x}"
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
    parser.add_argument(
        "-d", "--delay", default="300us", help="added one way, server to client (default 300us)"
    )
    parser.add_argument(
        "-m",
        "--mem",
        default="3G",
        help="the guest's memory, which holds the disk too (default 3G)",
    )
    parser.add_argument(
        "-w",
        "--writable",
        action="append",
        default=[],
        help="a host folder that the command may write to; repeatable",
    )
    parser.add_argument("-t", "--timeout", type=float, default=3600, help="seconds (default 3600)")
    parser.add_argument(
        "--disk",
        help="an ext4 image on the host for the export, made when missing (default: in the "
        "guest's memory)",
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    options = parser.parse_args()
    try:
        with Lab(
            options.disk, delay=options.delay, mem=options.mem, writable=options.writable
        ) as lab:
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
