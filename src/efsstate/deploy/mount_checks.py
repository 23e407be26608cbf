"""Looks at a mount from inside: what it is, who may do what on it, whether it keeps NFS's promises, and how fast it is."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator

from efsstate.deploy.findings import Hit, Rule

MIB = 1 << 20
SLOW_OPERATION = 0.05  # seconds: EFS answers a read in about 1 ms and a write in about 3
SLOW_READ = 20 * MIB  # bytes a second: a file system in bursting mode without credits reads below this
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
        self.seen["folder"] = f"{found.st_uid}:{found.st_gid} {stat.filemode(found.st_mode)}, this process is {me}"
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
                self.say("EFS110", f"flock: {error.strerror} ({errno.errorcode.get(error.errno or 0, '?')})")
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
            self.say("EFS114", f"the server's clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}")

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
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # read from the server, not from our own memory
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


def table_entry(path: str, text: str | None = None) -> tuple[str, str, str, set[str]] | None:
    """The mount that a path is on, from the kernel's table: device, mount point, type, options; None where there is none."""
    if text is None:
        try:
            with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError:
            return None
    best = None
    for line in text.splitlines():
        parts = line.split(" ")
        if len(parts) < 4:
            continue
        point = parts[1].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best[1])):
            best = (parts[0], point, parts[2], set(parts[3].split(",")))
    return best


def mounted(path: str, *, on_lambda: bool, entry: tuple[str, str, str, set[str]] | None) -> Iterator[tuple[str, Hit]]:
    """What the kernel's table says of the mount: no call on the mount itself, which may hang."""
    if entry is None:
        return
    device, point, kind, options = entry

    def hit(evidence: str, severity: str = "") -> Hit:
        return Hit(path, evidence, severity=severity)

    if not kind.startswith("nfs"):
        severity = "error" if on_lambda else "warning"
        yield "EFS102", hit(f"it is on {point}, a {kind} file system of {device}", severity)
        return
    version = next((one.partition("=")[2] for one in options if one.startswith("vers=")), "?")
    if version != "4.1":
        yield "EFS103", hit(f"NFS version {version}")
    bad = sorted(options & {"soft", "softerr", "nolock", "nocto", "noac", "lookupcache=none", "sync"})
    bad += sorted(one for one in options if one.startswith("local_lock=") and not one.endswith("none"))
    for name in ("rsize", "wsize"):
        size = next((one.partition("=")[2] for one in options if one.startswith(f"{name}=")), "")
        if size.isdigit() and int(size) < MIB:
            bad.append(f"{name}={size}")
    if bad:
        yield "EFS104", hit(", ".join(bad))
    if "ro" in options:
        yield "EFS107", hit("it is mounted read-only (ro)")


def surroundings(variable: Callable[[str], str | None], temporary: str = "/tmp") -> Iterator[tuple[str, Hit]]:  # noqa: S108 - Lambda's
    """What the execution environment brings: SnapStart, Managed Instances, memory, /tmp, descriptors."""
    kind = variable("AWS_LAMBDA_INITIALIZATION_TYPE")
    name = variable("AWS_LAMBDA_FUNCTION_NAME") or "this process"
    if kind == "snap-start":
        yield "EFS117", Hit(name, "AWS_LAMBDA_INITIALIZATION_TYPE is snap-start", severity="error")
    several = variable("AWS_LAMBDA_MAX_CONCURRENCY")
    if several is not None and several.isdigit() and int(several) > 1:
        evidence = f"Managed Instances: up to {several} requests at once in this environment, in several processes with one /tmp"
        yield "EFS117", Hit(name, evidence, severity="note")
    memory = variable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    if memory is not None and memory.isdigit() and int(memory) < 256:
        yield "EFS118", Hit(name, f"{memory} MiB of memory")
    try:
        space = os.statvfs(temporary)
        free = space.f_bavail * space.f_frsize
        if free < 64 * MIB:
            yield "EFS118", Hit(name, f"{temporary}: {free // MIB} MiB free")
    except OSError as error:
        yield "EFS118", Hit(name, f"{temporary}: {error.strerror}")
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        used = len(os.listdir("/proc/self/fd"))
        if used > limit * 0.8:
            yield "EFS120", Hit(name, f"{used} of {limit} descriptors are open")
    except (ImportError, OSError):
        pass


RULES = (
    Rule(
        "EFS100", "note", "mount", "What the doctor saw and measured",
        "The numbers to compare with: EFS answers a small read in about 1 ms and a small write in about 3, and one stream reads some 70 to 110 MiB/s "
        "(several streams at once read more; that is what `model` does).",
        "Nothing, where they are as expected.",
    ),
    Rule(
        "EFS101", "error", "mount", "There is no root to look at",
        "Nothing names the folder of efsstate, or it does not exist or cannot be read.",
        "Set EFSSTATE_ROOT to a folder on the mount, such as /mnt/efs, and see that the function's FileSystemConfigs has that path.",
    ),
    Rule(
        "EFS102", "warning", "mount", "The root is not on NFS",
        "What is kept there is on this machine's own disk: no other environment sees it, and on Lambda it goes with the environment.",
        "Point EFSSTATE_ROOT at the mount path of the function's file system.",
    ),
    Rule(
        "EFS103", "warning", "mount", "The mount is not NFS 4.1",
        "EFS speaks 4.0 and 4.1; Lambda mounts 4.1. In 4.0 a lock that is waited for may come tens of seconds late.",
        "Mount with nfsvers=4.1 (Lambda and efs-utils do).",
    ),
    Rule(
        "EFS104", "warning", "mount", "The mount's options take away what efsstate relies on",
        "`soft` lets a slow server look like a failed write; `nolock` and `local_lock` keep locks from other hosts; `nocto` shows old files; `noac` and "
        "small rsize or wsize multiply the requests.",
        "Mount with hard, timeo=600, retrans=2, noresvport, rsize=1048576, wsize=1048576, and without the options named (Lambda does).",
    ),
    Rule(
        "EFS105", "error", "mount", "A call on the mount does not return",
        "NFS mounts are hard: when the server is out of reach, calls wait for ever; they do not fail. The path to TCP 2049 was cut after the mount, or the "
        "mount target is gone.",
        "Look at the security groups, the network ACLs and the mount target (`efsstate doctor --aws --function NAME`). `io_timeout=` of `cached` keeps requests "
        "from hanging with it.",
    ),
    Rule(
        "EFS106", "error", "access point", "This process may not write to the root",
        "The user that counts is the access point's; it needs write and search permission on the folder. CreationInfo counts only when EFS makes the directory: "
        "it changes nothing on one that is there.",
        "Give the folder to the access point's user (chown, or an access point with a new path and CreationInfo); and see that the role has "
        "elasticfilesystem:ClientWrite.",
    ),
    Rule(
        "EFS107", "error", "policy", "The mount is read-only",
        "Without elasticfilesystem:ClientWrite EFS mounts read-only, and every write ends with `Read-only file system`.",
        "Allow elasticfilesystem:ClientWrite to the function's role, on the file system, with the access point's condition.",
    ),
    Rule(
        "EFS108", "error", "file system", "No space",
        "EFS itself grows without a limit that you meet; another NFS server, a quota or a small disk does not.",
        "Run `efsstate sweep`, or make room.",
    ),
    Rule(
        "EFS109", "error", "file system", "A basic operation does not do what it must",
        "Checkpoints, models and cached results rest on rename, fsync and exclusive create doing what POSIX and NFS 4.1 say.",
        "Do not keep state on this file system. On EFS this should not happen: see the exact error.",
    ),
    Rule(
        "EFS110", "error", "file system", "Locks do not work",
        "One computation for the whole fleet, and one owner of a checkpoint, rest on flock held by the server.",
        "Use NFS 4.1 without nolock and local_lock; the lock service of the server must be up. EFS allows 512 locks on one file.",
    ),
    Rule(
        "EFS111", "error", "file system", "A new file is not seen",
        "A process must at least see its own files.",
        "Mount without nocto and lookupcache settings of your own.",
    ),
    Rule(
        "EFS112", "warning", "file system", "Small operations are slow",
        "EFS answers in a few milliseconds. Much more means throttling (PercentIOLimit, burst credits), a path through another zone or region, or a CPU share too "
        "small to run the client: Lambda gives CPU by memory.",
        "Look at PercentIOLimit and BurstCreditBalance; mount in the same zone; try 1,769 MiB of memory.",
    ),
    Rule(
        "EFS113", "warning", "file system", "Reading is slow",
        "One stream should read some 70 MiB/s and more. In bursting mode without credits a file system of 100 GiB reads 15 MiB/s, shared by all.",
        "Look at BurstCreditBalance and at MeteredIOBytes against PermittedThroughput; choose Elastic throughput; give the function more memory.",
    ),
    Rule(
        "EFS114", "warning", "mount", "The clocks differ",
        "A ttl is judged by the server's clock where it matters, but `on_event` times and logs are ours.",
        "Set the machine's clock (chrony, NTP). On Lambda it is AWS's to keep.",
    ),
    Rule(
        "EFS115", "warning", "access point", "Everyone may write to the root",
        "Whoever may write there may replace cached results, checkpoints and models.",
        "chmod 0750 on the folder, with the access point's user as its owner.",
    ),
    Rule(
        "EFS116", "warning", "access point", "Files are made as root",
        "The access point has user 0, or there is none and the client is root. No permission protects other applications then.",
        "Give the access point a PosixUser above 0. On a machine that administers the mount this is as expected.",
    ),
    Rule(
        "EFS117", "note", "function", "The execution environment is of a special kind",
        "SnapStart does not go with EFS. Managed Instances run several processes in an environment: each has its own memory cache and its own copy of a model.",
        "Without SnapStart nothing is needed; with Managed Instances, give the model's memory times the number of processes.",
    ),
    Rule(
        "EFS118", "warning", "function", "Little memory or temporary space",
        "Lambda gives CPU by memory: below 256 MiB even small files are slow. `stage=True` copies models to /tmp.",
        "Raise MemorySize, or EphemeralStorage.",
    ),
    Rule(
        "EFS120", "warning", "function", "Nearly all descriptors are open",
        "Lambda allows 1,024 for an environment; the next open ends with `Too many open files`.",
        "Close files and connections; look for a leak.",
    ),
)  # fmt: skip
