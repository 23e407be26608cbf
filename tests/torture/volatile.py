"""A disk whose write cache loses what was not flushed, between a guest's kernel and its image.

By ptrace.

User Mode Linux does its disk's I/O in a process of its own, which reads batches of requests from a
pipe and writes to the image. That one is stopped at each system call: before a write, what was
there is noted; when a flush is asked for, the notes are forgotten. At a power cut every sector that
was written since the last flush is given any of the contents it had since, at random, as a disk may
do. (Linux 6.1's own flush of such a disk does nothing, and the host's page cache survives a kill:
without this, what the guest's kernel had written but not flushed would never be lost.)
"""

import contextlib
import ctypes
import errno
import os
import struct
import threading
import time

SECTOR = 512
READ, PWRITE, FALLOCATE = 0, 18, 285  # x86-64
# where a request of the kernel's `struct io_thread_req` has its number of segments: a flush has
# none
SEGMENTS = 48
_SEIZE, _INTERRUPT, _SYSCALL, _GET_SYSCALL_INFO = 0x4206, 0x4207, 24, 0x420E
_WALL = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class _Info(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("_pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),  # at an exit: the return value
        ("args", ctypes.c_uint64 * 6),
    )


def _ptrace(request, pid, address=None, data=None):
    if _libc.ptrace(request, pid, address, data) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _writers(kernel):
    """Return the processes of a guest's kernel that do its I/O: children that it does not trace."""
    with open(f"/proc/{kernel}/task/{kernel}/children") as file:
        children = file.read().split()
    for child in children:
        try:
            with open(f"/proc/{child}/status") as file:
                if "\nTracerPid:\t0\n" in file.read():
                    yield int(child)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it ended meanwhile


class VolatileCache:
    """The write cache of a running guest's disk; `flushes` and `writes` count.

    `close()` it before the guest is killed for another reason.
    """

    def __init__(self, guest, image):
        self.image = image
        self.flushes = self.writes = self.lost = 0
        self._kernel = guest._kernel.pid
        self._disk = os.open(image, os.O_RDONLY)
        self._before = {}  # sector -> the contents it had since the last flush, oldest first
        self._guard = threading.Lock()
        self._threads = []
        for pid in _writers(self._kernel):
            ready, failed = threading.Event(), []
            thread = threading.Thread(
                target=self._trace, args=(pid, ready, failed), daemon=True
            )  # a thread is the tracer
            thread.start()
            self._threads.append(thread)
            ready.wait(10)
            if failed:
                raise failed[0]

    def _trace(self, pid, ready, failed):
        try:
            _ptrace(_SEIZE, pid, None, 1)  # TRACESYSGOOD
            _ptrace(_INTERRUPT, pid)
        except OSError as error:
            failed.append(error)
            return
        finally:
            ready.set()
        pending = {}
        while True:
            try:
                _, status = os.waitpid(pid, _WALL)
            except ChildProcessError:
                return
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                return
            self._stopped(pid, os.WSTOPSIG(status), status >> 16, pending)

    def _stopped(self, pid, signal, event, pending):
        try:
            if signal == 0x85:  # SIGTRAP | 0x80: a system call
                info = _Info()
                _ptrace(_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
                with self._guard:
                    if info.op == 1:
                        pending[pid] = (info.nr, list(info.args))
                        if info.nr in (PWRITE, FALLOCATE):
                            args = info.args
                            self._note(
                                *((args[3], args[2]) if info.nr == PWRITE else (args[2], args[3]))
                            )
                    elif info.op == 2:
                        number, args = pending.pop(pid, (-1, ()))
                        if (
                            number == READ
                            and 0 < info.nr <= args[2]
                            and self._asks_for_flush(pid, args[1], info.nr)
                        ):
                            self._before.clear()
                            self.flushes += 1
            deliver = 0 if signal in (0x85, 5) or event else signal
            _ptrace(_SYSCALL, pid, None, deliver)
        except OSError as error:
            if error.errno != errno.ESRCH:  # it was killed
                raise

    @staticmethod
    def _asks_for_flush(pid, address, length):
        """Return True if a flush is among the requests read.

        All writes before it are done, so they are durable once it is.
        """
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for request in struct.unpack(
                f"{length // 8}Q", os.pread(memory.fileno(), length // 8 * 8, address)
            ):
                if os.pread(memory.fileno(), 4, request + SEGMENTS) == bytes(4):
                    return True
        return False

    def _note(self, offset, length):
        first = offset // SECTOR
        data = os.pread(self._disk, -(-length // SECTOR) * SECTOR, first * SECTOR)
        self.writes += 1
        for i in range(0, len(data), SECTOR):
            self._before.setdefault(first + i // SECTOR, []).append(data[i : i + SECTOR])

    def _cut(self, path, rng):
        """Take from `path` what was not flushed: all of it, or at random."""
        everything = rng.random() < 0.5
        with open(path, "r+b", buffering=0) as file:
            for sector, contents in sorted(self._before.items()):
                kept = contents[0] if everything else rng.choice([*contents, None])
                if kept is not None:
                    file.seek(sector * SECTOR)
                    file.write(kept)
                    self.lost += 1

    @contextlib.contextmanager
    def _moment(self, rng):
        """Cut now or, mostly, once so many sectors are written and not flushed.

        No write comes between.
        """
        wanted, until = rng.choice((0, 1, 1, 16)), time.monotonic() + 0.7
        while True:
            with self._guard:
                if len(self._before) >= wanted or time.monotonic() > until:
                    yield
                    return
            time.sleep(0.0003)

    def snapshot(self, path, rng):
        """Make `path` the disk as it would be if power went now; the guest goes on."""
        with self._moment(rng):
            _copy(self._disk, path)
            self._cut(path, rng)

    def power_off(self, kill, rng):
        """`kill()` the guest, and leave on its disk what a power cut leaves."""
        with self._moment(rng):
            kill()
        for thread in self._threads:
            thread.join(10)
        self._cut(self.image, rng)
        self.close()

    def close(self):
        if self._disk >= 0:
            os.close(self._disk)
            self._disk = -1


def _copy(source, path):
    """A sparse copy."""
    size = os.fstat(source).st_size
    target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.ftruncate(target, size)
        at = 0
        while at < size:
            try:
                at = os.lseek(source, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole is left
                    break
                raise
            end = os.lseek(source, at, os.SEEK_HOLE)
            while at < end:
                data = os.pread(source, min(1 << 22, end - at), at)
                at += os.pwrite(target, data, at)
    finally:
        os.close(target)
