"""Reads of large files, in long ranges or by several threads: many times as fast as `read`."""

from __future__ import annotations

import mmap
import threading
import time
from functools import partial

from efsstate import deadline
from efsstate.errors import CorruptEntryError
from efsstate.mount import free_memory, large
from efsstate.parallel import AHEAD, Batch, each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Protocol, TypeVar

    from efsstate.modelstore.open_file import OpenFile
    from efsstate.mount.drafts import PartialFile

    R_co = TypeVar("R_co", covariant=True)
    R = TypeVar("R")

    class FileWork(Protocol[R_co]):
        """The work on one file."""

        def __call__(self, name: str, advance: Callable[[int], None] | None) -> R_co:
            """Do it; `advance` counts the bytes of a large file as they are done."""

    class ReadableFile(Protocol):
        """A file that several threads read: on a mount, or on a hub."""

        path: str
        size: int
        direct: bool

        def read_into(self, view: memoryview, offset: int) -> None:
            """Fill `view` with the file's bytes from `offset` on."""


# Bytes. With O_DIRECT all requests of a range are in flight at once, so two readers fill a link;
# more take processor time from each other (measured: docs/models.md).
RANGE = 8 << 20
READERS = 2
THREADS = 8  # for copies and small files: their threads wait for answers
WRONG_DIGEST = (
    "its SHA-256 is not the one in the manifest; activate another version, or publish it under a"
    " new id"
)
_TOO_LARGE = "use files.mmap() or files.stage(); keep_old=False frees the old version first"
_TURN = 0.25  # seconds; a reader cannot be stopped within a range, and holds its buffer
_FIRST = 1 << 20  # bytes of the first range, where its time decides whether the rest fits
_DEEPEST = 128 << 20  # bytes; the kernel keeps a list of a range's pages while it reads it
_SHORT = 64 << 10  # bytes of the first range, and of the shortest, where a copy may be cut off
_PULL = 1 << 20  # bytes of one request to the server
_PAGE = mmap.PAGESIZE
_LEAST = 64 << 10  # bytes of a range if there is hardly any memory


def in_flight() -> int:
    """Return how many bytes of a copy may be written behind one that is not.

    `each` takes no job further ahead than that.
    """
    return (THREADS + AHEAD + 1) * RANGE


def ranges(size: int, step: int | None = None, start: int = 0) -> list[tuple[int, int]]:
    """Return (offset, length) of every range of a file of `size` bytes, from `start` on."""
    step = step or RANGE
    if start < size <= start + step:  # most files
        return [(start, size - start)]
    return [(offset, min(step, size - offset)) for offset in range(start, size, step)]


def _deep(size: int, *, is_cautious: bool = False) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of ranges for a single reader with O_DIRECT.

    Each is as long as takes a quarter of a second at the rate of the one before. One long range
    after the other is faster than several short ones side by side (measured: docs/models.md).

    `is_cautious`: the first range is short, and so are those of a slow link. A range cannot be
    stopped, and the bytes of one that the deadline or a kill cuts off were sent for nothing.
    """
    offset, length, shortest = 0, READERS * RANGE, RANGE
    if is_cautious:
        # A file of two requests has both in flight at once.
        length, shortest = _FIRST if size > 2 * _FIRST else size, min(_PULL, RANGE)
    while offset < size:
        length, started = min(length, size - offset), time.monotonic()
        yield offset, length
        seconds = time.monotonic() - started
        offset += length
        wanted = int(min(_DEEPEST, length * _TURN / max(seconds, 1e-9)))
        length = max(shortest, wanted // _PULL * _PULL)


def every(
    sizes: Mapping[str, int],
    work: FileWork[R],
    batch: Batch,
) -> Iterator[tuple[str, R]]:
    """Do `work(name, advance)` on every file, and count its bytes in `batch`.

    Small files are done side by side, large ones one by one: each of them keeps all threads busy.
    `advance` counts the bytes of a large file as they are done; for a small one it is None.
    """
    small = [name for name, size in sizes.items() if size <= RANGE]
    for name, result in each(partial(work, advance=None), small, threads=THREADS, late=batch.late):
        batch.add(sizes[name])
        yield name, result
    for name, size in sizes.items():
        if size > RANGE:
            yield name, work(name, batch.add)


def read_batch(path: str, size: int) -> Batch:
    """Return the count of a read of `size` bytes."""
    advice = "give the function a longer timeout, or more memory (network and CPU grow with it)"
    return Batch(path, size, "read", advice)


def buffer(size: int) -> memoryview:
    """Return `size` zeroed bytes of their own, aligned to a page as O_DIRECT needs it.

    They are freed with the last view.
    """
    if not size:
        return memoryview(bytearray())
    size = -(-size // _PAGE) * _PAGE
    if size < large.HUGE_PAGE:
        return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    return memoryview(large.memory(size))


class DoesNotFit(Exception):  # noqa: N818 - a decision, not an error: the caller goes on otherwise
    """The rest of the file does not come before the deadline; `view` has the first part."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self.view = view


class _Pace:
    """Whether a read fits before the deadline, at the rate so far; `can_switch` if it does not."""

    def __init__(self, size: int, can_switch: Callable[[], bool] | None) -> None:
        self._size, self._can_switch = size, can_switch
        self._started = time.monotonic()

    @property
    def is_known(self) -> bool:
        """Return True if a deadline is known, so that the first ranges must be short."""
        return self._can_switch is not None and deadline.remaining() is not None

    def rounds(self) -> Iterable[tuple[list[tuple[int, int]], int]]:
        """Return the ranges to read, with the number of threads that read them."""
        if self.is_known:
            return _paced(0, self._size, RANGE, READERS, READERS)
        return [(ranges(self._size), READERS)]

    def is_too_slow(self, done: int) -> bool:
        """Return True if the rest will not come, and the caller can read it otherwise."""
        remaining = None if self._can_switch is None else deadline.remaining()
        if remaining is None or self._can_switch is None or done >= self._size:
            return False
        rate = done / max(time.monotonic() - self._started, 1e-9)
        if (self._size - done) / max(rate, 1.0) <= remaining - deadline.MARGIN:
            return False
        if not self._can_switch():
            self._can_switch = None  # asked once
            return False
        return True


def whole(
    file: ReadableFile,
    *,
    digest: str | None = None,
    can_switch: Callable[[], bool] | None = None,
    advice: str = _TOO_LARGE,
) -> memoryview:
    """Return all bytes of the file in one buffer; compare their SHA-256 with `digest`, if given.

    Raise DoesNotFit if the deadline comes first at the present rate, and `can_switch` agrees, and
    `EfsStateError` with `advice` if the file is larger than the free memory.
    """
    free_memory.require(file.size, file.path, advice)
    view = buffer(file.size)
    batch, check = read_batch(file.path, file.size), _DigestCheck(digest)
    pace = _Pace(file.size, can_switch)

    def fill(job: tuple[int, int]) -> None:
        offset, length = job
        file.read_into(view[offset : offset + length], offset)

    # With a digest, one range is read while another is digested. Through the page cache, a reader
    # waits for each request, so several read side by side.
    is_deep = file.direct and digest is None
    rounds: Iterable[tuple[list[tuple[int, int]], int]]
    if is_deep:
        rounds = (([job], READERS) for job in _deep(file.size, is_cautious=pace.is_known))
    else:
        rounds = pace.rounds()
    for jobs, threads in rounds:
        for (offset, length), _ in each(fill, jobs, threads=threads, late=batch.late):
            batch.add(length)
            check.add(view[offset : offset + length])
            if pace.is_too_slow(batch.done):
                raise DoesNotFit(view[: batch.done])
    check.end(file.path)
    return view[: file.size]


def mapped(
    file: OpenFile, *, digest: str | None = None, can_switch: Callable[[], bool] | None = None
) -> memoryview:
    """Return the file's pages, read only, pulled from the server in parallel first.

    Raise DoesNotFit as `whole`.
    """
    if not file.size:
        return memoryview(b"")
    batch = read_batch(file.path, file.size)
    if file.network:
        _pull_pages(file, batch, _Pace(file.size, can_switch))
    view = _pages(file, file.size)
    if digest is None:
        return view
    check = _DigestCheck(digest)

    def add(job: tuple[int, int]) -> None:
        offset, length = job
        check.add(view[offset : offset + length])

    # In a thread, so that the deadline is watched: a page may have to be read again.
    for _ in each(add, ranges(file.size), threads=1, late=batch.late):
        pass
    check.end(file.path)
    return view


def _pull_pages(file: OpenFile, batch: Batch, pace: _Pace) -> None:
    """Read the file into the page cache by several threads."""
    own = threading.local()

    def pull(job: tuple[int, int]) -> None:
        offset, length = job
        # A descriptor has one read-ahead: threads that share it spoil it.
        if not hasattr(own, "file"):
            own.file, own.view = file.reopen(), buffer(_PULL)
        for at in range(offset, offset + length, _PULL):
            own.file.read_into(own.view[: min(_PULL, offset + length - at)], at)

    for jobs, threads in pace.rounds():
        for (_, length), _ in each(pull, jobs, threads=threads, late=batch.late):
            batch.add(length)
            if pace.is_too_slow(batch.done):
                raise DoesNotFit(_pages(file, batch.done))


def _pages(file: OpenFile, size: int) -> memoryview:
    """Return the first `size` bytes of a file, mapped; raise CorruptEntryError if it is shorter."""
    try:
        return memoryview(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ))
    except ValueError:
        why = f"shorter than its {file.size} bytes: cut while it was read"
        raise CorruptEntryError(file.path, why) from None


class _DigestCheck:
    """The SHA-256 of the bytes that were added, compared at the end; without `digest` a no-op."""

    def __init__(self, digest: str | None) -> None:
        self._digest, self._hash = digest, None
        if digest is not None:
            from hashlib import sha256

            self._hash = sha256()

    def add(self, view: memoryview) -> None:
        if self._hash is not None:
            self._hash.update(view)

    def end(self, path: str) -> None:
        if self._hash is not None and self._hash.hexdigest() != self._digest:
            raise CorruptEntryError(path, WRONG_DIGEST)


def copy(
    file: ReadableFile,
    target: PartialFile | None,
    *,
    late: Callable[[], str],
    advance: Callable[[int], None] | None = None,
    note: Callable[[int], None] | None = None,
    prefix: tuple[OpenFile, int] | None = None,
) -> str:
    """Copy the file in ranges by several threads, and return its SHA-256.

    Without a `target` it is only digested. A range that the target has already is not written
    again. If little memory is free, the ranges are shorter. `advance` counts the bytes.

    `note` gets the byte up to which the copy is complete; the ranges are short on a slow link then,
    because bytes in flight are lost at a kill. `prefix` is the target's file and the byte up to
    which an earlier copy completed it: these bytes are digested, and not read from `file`.
    """
    from hashlib import sha256

    # Small files are many, and to ask for the free memory takes longer than to read one.
    step = RANGE if file.size <= _PULL else min(RANGE, _bytes_per_buffer())
    digest, start = sha256(), 0
    if prefix is not None:
        opened, start = prefix
        room = buffer(min(start, _PULL))
        for offset, length in ranges(start, _PULL):
            opened.read_into(room[:length], offset)
            digest.update(room[:length])
        if advance is not None:
            advance(start)
    spare: list[memoryview] = []
    lock = threading.Lock()

    def move(job: tuple[int, int]) -> memoryview:
        offset, length = job
        with lock:
            room = spare.pop() if spare else None
        if room is None:
            room = buffer(min(step, file.size))
        view = room[:length]
        file.read_into(view, offset)
        if target is not None and not target.has(view, offset):
            target.put(view, offset)
        return room

    rounds: Iterable[tuple[list[tuple[int, int]], int]]
    rounds = [(ranges(file.size, step, start), THREADS)]
    if note is not None:
        fewest = READERS if file.direct else THREADS
        rounds = _paced(start, file.size, step, fewest, THREADS)
    for jobs, threads in rounds:
        for (offset, length), room in each(move, jobs, threads=threads, late=late):
            digest.update(room[:length])
            with lock:
                spare.append(room)
            if advance is not None:
                advance(length)
            if note is not None:
                note(offset + length)
    return digest.hexdigest()


def _paced(
    start: int, size: int, longest: int, fewest: int, most: int
) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """Yield rounds of ranges from `start` on, each with the number of threads that read them.

    Together they have a quarter of a second's work in flight. On a slow link that is little, so the
    `fewest` threads read it: many short ranges cost a busy machine more than they bring.
    """
    shortest = min(_SHORT, longest)
    offset, length, threads, count = start, shortest, fewest, 1
    while offset < size:
        end = min(size, offset + count * threads * length)
        started = time.monotonic()
        yield [(at, min(length, end - at)) for at in range(offset, end, length)], threads
        in_flight = (end - offset) / max(time.monotonic() - started, 1e-9) * _TURN
        offset, count = end, 8
        threads = max(fewest, min(most, int(in_flight) // longest))
        wanted = int(min(longest, in_flight / threads)) // _PAGE * _PAGE
        length = max(shortest, wanted)


def _bytes_per_buffer() -> int:
    """Return how large each buffer of a copy may be, in whole pages.

    All buffers take a quarter of the free memory, and as much again to be compared.
    """
    free = free_memory.free()
    if free is None:
        return RANGE
    return max(_LEAST, free // 4 // (THREADS + AHEAD + 1)) // _PAGE * _PAGE
