"""One examination of one folder: who may do what there, whether it keeps NFS's promises, and how fast it is."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable

from efsstate.deploy.findings import Hit

MIB = 1 << 20
SLOW_OPERATION = 0.05  # seconds: EFS answers a read in about 1 ms and a write in about 3
SLOW_READ = (
    20 * MIB
)  # bytes a second: a file system in bursting mode without credits reads below this
SKEW = 5.0  # seconds between our clock and the server's
SAMPLES = 9


class Look:
    """One examination of one folder: what has been seen, and where it is now, for whoever waits for it."""

    def __init__(self, path: str, size: int) -> None:
        """`path`: the root folder; `size`: bytes of the file for the throughput test, 0 for none."""
        self.path, self.size = path, size
        self.step = "looking at the folder"
        self.seen: dict[str, str] = {}
        self.folder = os.path.join(path, f".efsstate-doctor-{secrets.token_hex(4)}")
        self.hits: list[tuple[str, Hit]] = []

    def run(self) -> None:
        """All checks, in order; one that makes the next ones pointless ends them."""
        try:
            if self._identity() and self._writable():
                for check in (
                    self._rename,
                    self._exclusive,
                    self._lock,
                    self._fresh,
                    self._clock,
                    self._latency,
                    self._throughput,
                ):
                    self.step = (check.__doc__ or "").rstrip(".").lower()
                    try:
                        check()
                    except OSError as error:
                        self._error(error)
        finally:
            self._clean()

    def say(self, code: str, evidence: str, severity: str = "") -> None:
        """A finding."""
        self.hits.append((code, Hit(self.path, evidence, severity=severity)))

    def _error(self, error: OSError) -> None:
        code = {
            errno.EROFS: "EFS107",
            errno.ENOSPC: "EFS108",
            errno.EDQUOT: "EFS108",
            errno.EACCES: "EFS106",
            errno.EPERM: "EFS106",
        }
        self.say(
            code.get(error.errno or 0, "EFS109"),
            f"{self.step}: {error.strerror} ({errno.errorcode.get(error.errno or 0, '?')})",
        )

    def _name(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _identity(self) -> bool:
        try:
            found = os.stat(self.path)
            space = os.statvfs(self.path)
        except OSError as error:
            self._error(error)
            return False
        me = f"{os.geteuid()}:{os.getegid()}"
        self.seen["folder"] = (
            f"{found.st_uid}:{found.st_gid} {stat.filemode(found.st_mode)}, this process is {me}"
        )
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            self.say("EFS115", f"{stat.filemode(found.st_mode)}")
        free, whole = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
        self.seen["space"] = f"{free / MIB:,.0f} MiB free of {whole / MIB:,.0f}"
        if whole and (free < 64 * MIB or free < whole / 50):
            self.say("EFS108", f"{free / MIB:,.0f} MiB free of {whole / MIB:,.0f}", "warning")
        return True

    def _writable(self) -> bool:
        self.step = "making a folder"
        try:
            os.mkdir(self.folder, 0o700)
            self.step = "writing a file, fsync, close"
            with open(self._name("first"), "xb") as file:
                file.write(b"efsstate")
                file.flush()
                os.fsync(file.fileno())
            made = os.stat(self._name("first"))
        except OSError as error:
            found = os.stat(self.path)
            self._error(error)
            if error.errno in (errno.EACCES, errno.EPERM):
                code, hit = self.hits[-1]
                whose = f"the folder is {found.st_uid}:{found.st_gid} {stat.filemode(found.st_mode)}, this process {os.geteuid()}:{os.getegid()}"
                self.hits[-1] = (code, hit._replace(evidence=f"{hit.evidence}; {whose}"))
            return False
        self.seen["files"] = f"are made as {made.st_uid}:{made.st_gid}"
        if made.st_uid == 0:
            self.say("EFS116", f"a file made by {os.geteuid()} belongs to 0:{made.st_gid}")
        return True

    def _rename(self) -> None:
        """Renaming a file over another."""
        self._put("old", b"old")
        with open(self._name("old"), "rb") as held:
            self._put("new", b"new")
            os.rename(self._name("new"), self._name("old"))
            if self._get("old") != b"new":
                self.say("EFS109", "after a rename the name still has the old content")
            if held.read() != b"old":
                self.say("EFS109", "a file that is open lost its content by a rename over its name")

    def _exclusive(self) -> None:
        """Creating a file that must not exist."""
        self._put("once", b"1")
        try:
            os.close(os.open(self._name("once"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        self.say(
            "EFS109",
            "an exclusive create of a name that exists succeeded: two hosts would both believe they were first",
        )

    def _lock(self) -> None:
        """Locking a file."""
        first = os.open(self._name("lock"), os.O_CREAT | os.O_RDWR, 0o600)
        second = os.open(self._name("lock"), os.O_RDWR)
        try:
            try:
                fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self.say(
                    "EFS110",
                    f"flock: {error.strerror} ({errno.errorcode.get(error.errno or 0, '?')})",
                )
                return
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self.say("EFS110", "two holders had one lock at the same time")
        finally:
            os.close(first)
            os.close(second)

    def _fresh(self) -> None:
        """Seeing a file that was missing a moment ago."""
        if os.path.exists(self._name("late")):
            return
        self._put("late", b"1")
        if not os.path.exists(self._name("late")):
            self.say("EFS111", "a file that this process made is not there for it")

    def _clock(self) -> None:
        """Comparing clocks."""
        before = time.time()
        self._put("clock", b"1")
        os.utime(self._name("clock"))
        server = os.stat(self._name("clock")).st_mtime
        after = time.time()
        off = server - after if server > after else server - before if server < before else 0.0
        self.seen["clock"] = f"the server's is {off:+.1f} s from ours"
        if abs(off) > SKEW:
            self.say(
                "EFS114",
                f"the server's clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}",
            )

    def _latency(self) -> None:
        """Timing small operations."""
        reads = self._median(lambda: self._get("first"))
        writes = self._median(lambda: self._put("small", b"x" * 1024))
        self.seen["latency"] = (
            f"open, read, close {reads * 1000:.1f} ms, create, write 1 KiB, close {writes * 1000:.1f} ms (median of {SAMPLES})"
        )
        if reads > SLOW_OPERATION or writes > 2 * SLOW_OPERATION:
            self.say("EFS112", self.seen["latency"])

    def _median(self, action: Callable[[], object]) -> float:
        times = []
        for _ in range(SAMPLES):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
        return sorted(times)[SAMPLES // 2]

    def _throughput(self) -> None:
        """Timing a larger file."""
        if not self.size:
            return
        piece = os.urandom(MIB)
        start = time.perf_counter()
        with open(self._name("large"), "wb", buffering=0) as file:
            file.writelines(piece for _ in range(max(1, self.size // MIB)))
            os.fsync(file.fileno())
        written = time.perf_counter() - start
        fd = os.open(self._name("large"), os.O_RDONLY)
        try:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(
                    fd, 0, 0, os.POSIX_FADV_DONTNEED
                )  # read from the server, not from our own memory
            start = time.perf_counter()
            while os.read(fd, MIB):
                pass
            read = time.perf_counter() - start
        finally:
            os.close(fd)
        size = max(1, self.size // MIB) * MIB
        rates = (size / max(read, 1e-9), size / max(written, 1e-9))
        self.seen["throughput"] = (
            f"read {rates[0] / MIB:,.0f} MiB/s, write {rates[1] / MIB:,.0f} MiB/s ({size // MIB} MiB, one stream)"
        )
        if rates[0] < SLOW_READ:
            self.say("EFS113", self.seen["throughput"])

    def _put(self, name: str, data: bytes) -> None:
        with open(self._name(name), "wb") as file:
            file.write(data)

    def _get(self, name: str) -> bytes:
        with open(self._name(name), "rb") as file:
            return file.read()

    def _clean(self) -> None:
        self.step = "removing what was made"
        try:
            for name in os.listdir(self.folder):
                os.unlink(self._name(name))
            os.rmdir(self.folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.seen["left behind"] = f"{self.folder}: {error.strerror}"
