"""Big files, read in long ranges or by several threads: one `read` after the other gets an eighth of what NFS can give."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time

from efsstate import deadline
from efsstate.errors import CorruptEntryError, DeadlineExceeded, EfsStateError
from efsstate.mount import free_memory
from efsstate.mount.files import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, TypeVar

    from efsstate.mount.drafts import PartialFile

    J = TypeVar("J")
    R = TypeVar("R")

RANGE = 8 << 20  # bytes; with O_DIRECT the requests for a range are in flight all at once, so
READERS = (
    2  # threads fill a link, and more take the processor from each other (measured: docs/models.md)
)
THREADS = 8  # for copies and small files, whose threads wait for answers
_TURN = 0.25  # seconds; a reader can't be stopped within a range, and holds its buffer
_DEEPEST = 128 << 20  # bytes; the kernel keeps a list of a range's pages for as long as it reads it
_PULL = 1 << 20  # bytes of one request to the server
_PAGE = mmap.PAGESIZE
_LEAST = 64 << 10  # bytes of a range where there is hardly any memory
_DIRECT = getattr(os, "O_DIRECT", 0)
_network: dict[str, bool] = {}  # root -> whether it is on NFS
_doing = (
    threading.local()
)  # `job`: whether this thread does a job of an `each`, which watches the deadline for it


class Opened:
    """A file that several threads read; its descriptor closes with the last reference, so none reads a stranger's."""

    def __init__(self, mount: Mount, folder: str, name: str, *, direct: bool = True) -> None:
        self._mount, self._folder, self._name = mount, folder, name
        self.path = mount.path_of(folder, name)
        self.network = on_network(mount)
        self.direct = bool(_DIRECT) and direct and self.network
        self._fds = [mount.open(folder, name, os.O_RDONLY | (_DIRECT if self.direct else 0))]
        self.stat = self.look()
        self.size = self.stat.st_size

    def look(self) -> os.stat_result:
        """Its stat as it is now."""
        try:
            return os.fstat(self._fds[0])
        except OSError as error:
            error.filename = self.path
            raise

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        for fd in getattr(self, "_fds", ()):
            _close(fd)

    def again(self) -> Opened:
        """The same file with a descriptor of its own; `CorruptEntryError` if the name has another one now."""
        other = Opened(self._mount, self._folder, self._name, direct=self.direct)
        if not os.path.samestat(other.stat, self.stat):
            raise CorruptEntryError(self.path, "it was replaced while it was read")
        return other

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
                    self.path,
                    f"it ended at {offset + done} of {self.size} bytes: cut while it was read",
                )
            done += got


def on_network(mount: Mount) -> bool:
    """Whether the mount is NFS, where O_DIRECT pays: a local disk is fastest through the page cache."""
    known = _network.get(mount.path)
    if known is None:
        try:
            device = os.stat(mount.path).st_dev
            wanted = f"{os.major(device)}:{os.minor(device)}"
            lines = free_memory.read_text(f"/proc/{os.getpid()}/mountinfo").splitlines()
            kinds = [line.partition(" - ")[2] for line in lines if line.split(" ", 3)[2] == wanted]
            known = any(kind.startswith(("nfs ", "nfs4 ")) for kind in kinds)
        except (OSError, EfsStateError, IndexError):
            known = False
        _network[mount.path] = known
    return known


def ranges(size: int, step: int | None = None) -> list[tuple[int, int]]:
    """(offset, length) of every range of a file of `size` bytes."""
    step = step or RANGE
    return [(offset, min(step, size - offset)) for offset in range(0, size, step)]


def _deep(size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) for one reader with O_DIRECT: as long as takes some `_TURN` seconds, by the range before.

    One long range after the other is faster than several short ones side by side (measured: docs/models.md).
    """
    offset, length = (
        0,
        READERS * RANGE,
    )  # else a file of two ranges would wait for one after the other
    while offset < size:
        length, began = min(length, size - offset), time.monotonic()
        yield offset, length
        seconds = time.monotonic() - began
        offset += length
        length = max(
            RANGE, int(min(_DEEPEST, length * _TURN / max(seconds, 1e-9))) // _PULL * _PULL
        )


def each(
    work: Callable[[J], R], jobs: Sequence[J], *, threads: int, late: Callable[[], str]
) -> Iterator[tuple[J, R]]:
    """Do `work` on every job, by several threads, and yield (job, result) in their order, at most a few ahead.

    The first error ends it. Shortly before the deadline it raises `OutOfTime` with what `late()` says, whether or not a
    thread hangs in the file system. So a single job has a thread too, but where there is no deadline, and in a job of
    another `each`, which watches for both.
    """
    left = deadline.remaining()
    if getattr(_doing, "job", False) or (len(jobs) < 2 and left is None):
        for job in jobs:
            yield job, work(job)
        return
    until = None if left is None else time.monotonic() + max(0.0, left - deadline.MARGIN)
    turn = threading.Condition()
    results: dict[int, Any] = {}
    taken = yielded = 0
    failed: BaseException | None = None
    ended = False

    def run() -> None:
        nonlocal taken, failed
        _doing.job = True
        while True:
            with turn:
                while (
                    not (ended or failed or taken >= len(jobs)) and taken >= yielded + threads + 2
                ):
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
                if (
                    mine == yielded
                ):  # else nobody waits for it yet, and to be woken costs a thread its turn
                    turn.notify_all()

    workers: list[threading.Thread] = []
    try:
        for _ in range(min(threads, len(jobs))):
            worker = threading.Thread(target=run, daemon=True, name="efsstate-model")
            try:
                worker.start()
            except RuntimeError:
                if not workers:
                    raise
                break  # the process may have no more threads: those that it has do it all
            workers.append(worker)
        for index, job in enumerate(jobs):
            with turn:
                while True:
                    wait = None if until is None else until - time.monotonic()
                    # Before every job, ready or not: else what reads fast enough for its consumer is never stopped.
                    if wait is not None and wait <= 0:
                        raise DeadlineExceeded(late())
                    if index in results or failed is not None:
                        break
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
        for worker in workers:
            # One that hangs is left behind. The others end what they do before the caller closes the files they do it to.
            worker.join(
                None if until is None else max(0.0, until + deadline.MARGIN / 2 - time.monotonic())
            )
        failed = None  # its traceback has this frame and the buffers: they would keep each other


def every(
    sizes: Mapping[str, int],
    work: Callable[[str, Callable[[int], None] | None], R],
    *,
    late: Callable[[], str],
    done: Callable[[int], None],
) -> Iterator[tuple[str, R]]:
    """Do `work(name, done)` on every file: small ones side by side, and big ones one by one, for those are read so."""
    small = [name for name, size in sizes.items() if size <= RANGE]
    for name, result in each(lambda name: work(name, None), small, threads=THREADS, late=late):
        done(sizes[name])
        yield name, result
    for name, size in sizes.items():
        if size > RANGE:
            yield name, work(name, done)


def buffer(size: int) -> memoryview:
    """`size` zeroed bytes of memory of their own, aligned to a page as O_DIRECT needs it; freed with the last view."""
    if not size:
        return memoryview(bytearray())
    whole = -(-size // _PAGE) * _PAGE
    return memoryview(mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def late(path: str, size: int) -> tuple[Callable[[int], None], Callable[[], str]]:
    """A count of what was read of `size` bytes, and the words for a deadline that comes first."""
    read, started = 0, time.monotonic()

    def add(amount: int) -> None:
        nonlocal read
        read += amount

    def words() -> str:
        return (
            f"{path}: {mib(read)} of {mib(size)} read in {time.monotonic() - started:.1f} s when the deadline came: give"
            " the function a longer timeout, or more memory (network and CPU grow with it)"
        )

    return add, words


def whole(file: Opened, *, digest: str | None = None) -> memoryview:
    """All bytes of the file, in one buffer; with `digest`, its SHA-256 in hex, they are checked on the way."""
    free_memory.require(
        file.size,
        file.path,
        "use files.mmap() or files.stage(); keep_old=False frees the old version first",
    )
    view = buffer(file.size)
    count, words = late(file.path, file.size)
    checked = _Checked(digest)

    def fill(job: tuple[int, int]) -> None:
        offset, length = job
        file.into(view[offset : offset + length], offset)

    # With a digest, one range is read while another is digested; through the page cache, a reader waits for each request.
    deep = file.direct and digest is None
    turns = ([job] for job in _deep(file.size)) if deep else [ranges(file.size)]
    for jobs in turns:
        for (offset, length), _ in each(fill, jobs, threads=READERS, late=words):
            count(length)
            checked.take(view[offset : offset + length])
    checked.end(file.path)
    return view[: file.size]


def mapped(file: Opened, *, digest: str | None = None) -> memoryview:
    """The file's pages, read only: pulled from the server in parallel first, and shared with whoever maps it too."""
    if not file.size:
        return memoryview(b"")
    count, words = late(file.path, file.size)
    if file.network:
        spare = threading.local()

        def pull(job: tuple[int, int]) -> None:
            offset, length = job
            if not hasattr(
                spare, "file"
            ):  # a descriptor has one read-ahead: threads that share it spoil it
                spare.file, spare.view = file.again(), buffer(_PULL)
            for at in range(offset, offset + length, _PULL):
                spare.file.into(spare.view[: min(_PULL, offset + length - at)], at)

        for (_, length), _ in each(pull, ranges(file.size), threads=READERS, late=words):
            count(length)
    try:
        view = memoryview(mmap.mmap(file.fileno(), file.size, prot=mmap.PROT_READ))
    except ValueError:
        raise CorruptEntryError(
            file.path, f"shorter than its {file.size} bytes: cut while it was read"
        ) from None
    if digest is not None:
        checked = _Checked(digest)

        def check(job: tuple[int, int]) -> None:
            offset, length = job
            checked.take(view[offset : offset + length])

        for _ in each(
            check, ranges(file.size), threads=1, late=words
        ):  # in a thread: a page may have to come anew
            pass
        checked.end(file.path)
    return view


class _Checked:
    """The SHA-256 of what goes by, compared at the end; without `digest` nothing is done."""

    def __init__(self, digest: str | None) -> None:
        self._wanted, self._hash = digest, None
        if digest is not None:
            from hashlib import sha256

            self._hash = sha256()

    def take(self, view: memoryview) -> None:
        if self._hash is not None:
            self._hash.update(view)

    def end(self, path: str) -> None:
        if self._hash is not None and self._hash.hexdigest() != self._wanted:
            raise CorruptEntryError(
                path,
                "its SHA-256 is not the one in the manifest: activate another version, or publish it under a new id",
            )


def copy(
    file: Opened,
    target: PartialFile | None,
    *,
    late: Callable[[], str],
    done: Callable[[int], None] | None = None,
) -> str:
    """Copy the file in ranges, by several threads, and give its SHA-256; without a `target` it is only digested.

    A range that the target holds already is not written again. Where little memory is free the ranges are shorter.
    """
    from hashlib import sha256

    step = min(RANGE, _room(file.size) // _PAGE * _PAGE)
    digest = sha256()
    spare: list[memoryview] = []
    guard = threading.Lock()

    def move(job: tuple[int, int]) -> memoryview:
        offset, length = job
        with guard:
            room = spare.pop() if spare else None
        if room is None:
            room = buffer(min(step, file.size))
        view = room[:length]
        file.into(view, offset)
        if target is not None and not target.has(view, offset):
            target.put(view, offset)
        return room

    for (_, length), room in each(move, ranges(file.size, step), threads=THREADS, late=late):
        digest.update(room[:length])
        with guard:
            spare.append(room)
        if done is not None:
            done(length)
    return digest.hexdigest()


def _room(size: int) -> int:
    """Bytes for each buffer of a copy: all of them take a quarter of what is free, and as much again to be compared."""
    left = (
        free_memory.free() if size > _PULL else None
    )  # small files are many, and to ask takes longer than to read one
    return (
        RANGE if left is None else max(_LEAST, left // 4 // (THREADS + 3))
    )  # 2 that are ahead, and the digest's


def mib(size: float) -> str:
    """A size for a person."""
    return f"{size / 2**20:.1f} MiB"
