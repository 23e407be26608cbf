"""The probe of a folder on the mount: permissions, the promises of NFS, latency, throughput."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable

from efsstate.deploy.aws_facts import quote
from efsstate.deploy.findings import Hit

MIB = 1 << 20
SLOW_OPERATION = 0.05  # seconds; in the lab a read takes 1 ms and a write 3
SLOW_READ = 20 * MIB  # bytes a second; a bursting file system without credits reads below this
SKEW = 5.0  # seconds between our clock and the server's
SAMPLES = 9
_CODES = {
    errno.EROFS: "EFS107",
    errno.ENOSPC: "EFS108",
    errno.EDQUOT: "EFS119",
    errno.EACCES: "EFS106",
    errno.EPERM: "EFS106",
}


class Probe:
    """One examination of one folder; `step` names the call under way, for a thread that waits."""

    def __init__(self, path: str, size: int) -> None:
        """Prepare to examine the root `path`, with a file of `size` bytes for the throughput."""
        self.path, self.size = path, size
        self.step = "looking at the folder"
        self.seen: dict[str, str] = {}
        self.folder = os.path.join(path, f".efsstate-doctor-{secrets.token_hex(4)}")
        self.hits: list[tuple[str, Hit]] = []

    def run(self) -> None:
        """Run all checks in order, up to one that makes the next ones pointless."""
        try:
            if self._check_folder() and self._check_writable():
                for step, check in (
                    ("renaming a file over another", self._check_rename),
                    ("creating a file that must not exist", self._check_exclusive),
                    ("locking a file", self._check_lock),
                    ("seeing a file that was missing a moment ago", self._check_new_file),
                    ("comparing clocks", self._check_clock),
                    ("timing small operations", self._measure_latency),
                    ("timing a larger file", self._measure_throughput),
                ):
                    self.step = step
                    try:
                        check()
                    except OSError as error:
                        self._report_error(error)
        finally:
            self._remove_folder()

    def _report(self, code: str, evidence: str, severity: str = "") -> None:
        self.hits.append((code, Hit(self.path, evidence, severity=severity)))

    def _report_error(self, error: OSError) -> None:
        number = error.errno or 0
        evidence = f"{self.step}: {error.strerror} ({errno.errorcode.get(number, '?')})"
        self._report(_CODES.get(number, "EFS109"), evidence)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _check_folder(self) -> bool:
        try:
            folder = os.stat(self.path)
            space = os.statvfs(self.path)
        except OSError as error:
            self._report_error(error)
            return False
        mode = stat.filemode(folder.st_mode)
        owner = f"{folder.st_uid}:{folder.st_gid} {mode}"
        self.seen["folder"] = f"{owner}, this process is {os.geteuid()}:{os.getegid()}"
        if folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX:
            self._report("EFS115", mode)
        free, whole = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
        self.seen["space"] = f"{free / MIB:,.0f} MiB free of {whole / MIB:,.0f}"
        if whole and (free < 64 * MIB or free < whole / 50):
            self._report("EFS108", self.seen["space"], "warning")
        return True

    def _check_writable(self) -> bool:
        self.step = "making a folder"
        try:
            os.mkdir(self.folder, 0o700)
            self.step = "writing a file, fsync, close"
            with open(self._path("first"), "xb") as file:
                file.write(b"efsstate")
                file.flush()
                os.fsync(file.fileno())
            first = os.stat(self._path("first"))
        except OSError as error:
            self._report_error(error)
            if error.errno in (errno.EACCES, errno.EPERM):
                code, hit = self.hits[-1]
                evidence = f"{hit.evidence}; the folder is {self.seen['folder']}"
                self.hits[-1] = (code, hit._replace(evidence=evidence))
            return False
        self.seen["files"] = f"are made as {first.st_uid}:{first.st_gid}"
        if first.st_uid == 0:
            evidence = f"a file made by {os.geteuid()} belongs to 0:{first.st_gid}"
            self._report("EFS116", evidence)
        return True

    def _check_rename(self) -> None:
        self._write("old", b"old")
        with open(self._path("old"), "rb") as file:
            self._write("new", b"new")
            os.rename(self._path("new"), self._path("old"))
            if self._read("old") != b"new":
                self._report("EFS109", "after a rename the name still has the old content")
            if file.read() != b"old":
                self._report(
                    "EFS109", "a file that is open lost its content by a rename over its name"
                )

    def _check_exclusive(self) -> None:
        self._write("once", b"1")
        try:
            os.close(os.open(self._path("once"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        self._report(
            "EFS109",
            "an exclusive create of a name that exists succeeded: two hosts would both win",
        )

    def _check_lock(self) -> None:
        first = os.open(self._path("lock"), os.O_CREAT | os.O_RDWR, 0o600)
        second = os.open(self._path("lock"), os.O_RDWR)
        try:
            try:
                fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._report(
                    "EFS110",
                    f"flock: {error.strerror} ({errno.errorcode.get(error.errno or 0, '?')})",
                )
                return
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._report("EFS110", "two holders had one lock at the same time")
        finally:
            os.close(first)
            os.close(second)

    def _check_new_file(self) -> None:
        if os.path.exists(self._path("late")):
            return
        self._write("late", b"1")
        if not os.path.exists(self._path("late")):
            self._report("EFS111", "a file that this process made is not there for it")

    def _check_clock(self) -> None:
        before = time.time()
        self._write("clock", b"1")
        os.utime(self._path("clock"))
        server = os.stat(self._path("clock")).st_mtime
        after = time.time()
        off = server - after if server > after else server - before if server < before else 0.0
        self.seen["clock"] = f"the server's is {off:+.1f} s from ours"
        if abs(off) > SKEW:
            self._report(
                "EFS114",
                f"the server's clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}",
            )

    def _measure_latency(self) -> None:
        reads = self._median(lambda: self._read("first"))
        writes = self._median(lambda: self._write("small", b"x" * 1024))
        self.seen["latency"] = (
            f"open, read, close {reads * 1000:.1f} ms, "
            f"create, write 1 KiB, close {writes * 1000:.1f} ms (median of {SAMPLES})"
        )
        if reads > SLOW_OPERATION or writes > 2 * SLOW_OPERATION:
            self._report("EFS112", self.seen["latency"])

    def _median(self, action: Callable[[], object]) -> float:
        times = []
        for _ in range(SAMPLES):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
        return sorted(times)[SAMPLES // 2]

    def _measure_throughput(self) -> None:
        if not self.size:
            return
        piece = os.urandom(MIB)
        start = time.perf_counter()
        with open(self._path("large"), "wb", buffering=0) as file:
            file.writelines(piece for _ in range(max(1, self.size // MIB)))
            os.fsync(file.fileno())
        written = time.perf_counter() - start
        fd = os.open(self._path("large"), os.O_RDONLY)
        try:
            if hasattr(os, "posix_fadvise"):
                # Our own page cache would answer instead of the server.
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            while os.read(fd, MIB):
                pass
            read = time.perf_counter() - start
        finally:
            os.close(fd)
        size = max(1, self.size // MIB) * MIB
        rates = [size / max(seconds, 1e-9) for seconds in (read, written)]
        self.seen["throughput"] = (
            f"read {rates[0] / MIB:,.0f} MiB/s, write {rates[1] / MIB:,.0f} MiB/s "
            f"({size // MIB} MiB in one stream, and a function in a VPC has {quote('network')})"
        )
        if rates[0] < SLOW_READ:
            self._report("EFS113", self.seen["throughput"])

    def _write(self, name: str, data: bytes) -> None:
        with open(self._path(name), "wb") as file:
            file.write(data)

    def _read(self, name: str) -> bytes:
        with open(self._path(name), "rb") as file:
            return file.read()

    def _remove_folder(self) -> None:
        self.step = "removing what was made"
        try:
            for name in os.listdir(self.folder):
                os.unlink(self._path(name))
            os.rmdir(self.folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.seen["left behind"] = f"{self.folder}: {error.strerror}"
