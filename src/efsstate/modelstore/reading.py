"""Big files, read in ranges by several threads: one `read` after the other gets a fifth of what NFS can give."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time

from efsstate import deadline
from efsstate.errors import CorruptEntryError, EfsStateError
from efsstate.mount.files import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    J = TypeVar("J")
    R = TypeVar("R")

RANGE = 8 << 20  # bytes of a range, and
THREADS = 8  # how many are in flight: docs/models.md has the measurement
_PAGE = mmap.PAGESIZE
_MARGIN = 0.25  # seconds before the deadline at which a read gives up, so that its error still reaches somebody
_DIRECT = getattr(os, "O_DIRECT", 0)
_network: dict[str, bool] = {}  # root -> whether it is on NFS


class OutOfTime(EfsStateError):  # noqa: N818 - reads as what it says
    """The deadline came first; the message tells how far the work had come."""


class Opened:
    """A file that several threads read; its descriptor closes with the last reference, so none reads a stranger's."""

    def __init__(self, mount: Mount, folder: str, name: str) -> None:
        self._mount, self._folder, self._name = mount, folder, name
        self.path = mount.where(folder, name)
        self.direct = bool(_DIRECT) and on_network(mount)
        self._fds = [mount.open(folder, name, os.O_RDONLY | (_DIRECT if self.direct else 0))]
        self.stat = os.fstat(self._fds[0])
        self.size = self.stat.st_size

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        for fd in getattr(self, "_fds", ()):
            _close(fd)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fds[-1]

    def into(self, view: memoryview, offset: int) -> None:
        """Fill `view` with what the file has from `offset` on; the file is damaged if it ends before."""
        done, length = 0, len(view)
        while done < length:
            try:
                got = os.preadv(self._fds[-1], [view[done:]], offset + done)
            except OSError as error:
                if error.errno == errno.EINVAL and self.direct:
                    # Another alignment is wanted. The old descriptor stays open: other threads may be reading by it.
                    self._fds.append(self._mount.open(self._folder, self._name))
                    self.direct = False
                    continue
                error.filename = self.path
                raise
            if not got:
                raise CorruptEntryError(
                    self.path, f"it ended at {offset + done} of {self.size} bytes: cut while it was read"
                )
            done += got


def on_network(mount: Mount) -> bool:
    """Whether the mount is NFS, where O_DIRECT pays: a local disk is fastest through the page cache."""
    known = _network.get(mount.path)
    if known is None:
        try:
            device = os.stat(mount.path).st_dev
            lines = kernel("/proc", str(os.getpid()), "mountinfo").splitlines()
            wanted = f"{os.major(device)}:{os.minor(device)}"
            kinds = [line.partition(" - ")[2] for line in lines if line.split(" ", 3)[2] == wanted]
            known = any(kind.startswith("nfs") for kind in kinds)
        except (OSError, EfsStateError, IndexError):
            known = False
        _network[mount.path] = known
    return known


def kernel(top: str, folder: str, name: str) -> str:
    """What a file of the kernel's own says: its size is told as 0, so it is read until it ends."""
    fd = Mount(top).open(folder, name)
    try:
        text = b""
        while more := os.read(fd, 1 << 20):
            text += more
    finally:
        os.close(fd)
    return text.decode(errors="replace")


def ranges(size: int) -> list[tuple[int, int]]:
    """(offset, length) of every range of a file of `size` bytes."""
    return [(offset, min(RANGE, size - offset)) for offset in range(0, size, RANGE)]


def each(work: Callable[[J], R], jobs: Sequence[J], *, threads: int, late: Callable[[], str]) -> Iterator[tuple[J, R]]:
    """Do `work` on every job, by several threads, and yield (job, result) in their order, at most two rounds ahead.

    The first error ends it. At the deadline it raises `OutOfTime` with what `late()` says, whether or not a thread
    hangs in the file system.
    """
    if len(jobs) < 2:
        for job in jobs:
            yield job, work(job)
        return
    left = deadline.remaining()
    until = None if left is None else time.monotonic() + max(0.0, left - _MARGIN)
    turn = threading.Condition()
    results: dict[int, Any] = {}
    taken = yielded = 0
    failed: BaseException | None = None
    ended = False

    def run() -> None:
        nonlocal taken, failed
        while True:
            with turn:
                while not (ended or failed or taken >= len(jobs)) and taken >= yielded + 2 * threads:
                    turn.wait()
                if ended or failed or taken >= len(jobs):
                    return
                mine = taken
                taken += 1
            try:
                result = work(jobs[mine])
            except BaseException as error:
                with turn:
                    failed = failed or error
                    turn.notify_all()
                return
            with turn:
                results[mine] = result
                turn.notify_all()

    workers = [threading.Thread(target=run, daemon=True, name="efsstate-model") for _ in range(min(threads, len(jobs)))]
    for worker in workers:
        worker.start()
    hung = False
    try:
        for index, job in enumerate(jobs):
            with turn:
                while index not in results and failed is None:
                    wait = None if until is None else until - time.monotonic()
                    if wait is not None and wait <= 0:
                        hung = True
                        raise OutOfTime(late())
                    turn.wait(wait)
                if failed is not None:
                    raise failed
                result = results.pop(index)
                yielded = index + 1
                turn.notify_all()
            yield job, result
    finally:
        with turn:
            ended = True
            turn.notify_all()
        if not hung:
            for worker in workers:
                worker.join()


def buffer(size: int) -> memoryview:
    """`size` zeroed bytes of memory of their own, aligned to a page as O_DIRECT needs it; freed with the last view."""
    if not size:
        return memoryview(bytearray())
    whole = -(-size // _PAGE) * _PAGE
    return memoryview(mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def whole(file: Opened, *, digest: str | None = None) -> memoryview:
    """All bytes of the file, in one buffer; with `digest`, its SHA-256 in hex, they are checked on the way."""
    view, read = buffer(file.size), 0
    started = time.monotonic()
    checked = None
    if digest is not None:
        from hashlib import sha256

        checked = sha256()

    def fill(job: tuple[int, int]) -> None:
        offset, length = job
        file.into(view[offset : offset + length], offset)

    def late() -> str:
        return (
            f"{file.path}: {mib(read)} of {mib(file.size)} read in {time.monotonic() - started:.1f} s when the deadline"
            " came: give the function a longer timeout, or more memory (its network and CPU come with it)"
        )

    for (offset, length), _ in each(fill, ranges(file.size), threads=THREADS, late=late):
        read = offset + length
        if checked is not None:
            checked.update(view[offset:read])
    if checked is not None and checked.hexdigest() != digest:
        raise CorruptEntryError(
            file.path, "its SHA-256 is not the manifest's: publish it again, or activate another version"
        )
    return view[: file.size]


def mib(size: float) -> str:
    """A size for a person."""
    return f"{size / 2**20:.1f} MiB"
