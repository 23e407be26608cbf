"""Reads of large files, in long ranges or by several threads: many times as fast as `read`."""

from __future__ import annotations

import mmap
import threading
import time
from functools import partial

from efsstate import deadline, process
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
_SHARE = 1 / 8  # of the time before a deadline, which one range of a load that fits may take
_SURE = 0.5  # seconds of reads, after which their rate stands for the whole load's
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

    `is_cautious`: the first range is short, and each later one takes a quarter of a second or an
    eighth of the time before the deadline, whichever is longer. A range cannot be stopped, and the
    bytes of one that the deadline or a kill cuts off were sent for nothing.
    """
    offset, length, shortest, turn = 0, READERS * RANGE, RANGE, _TURN
    if is_cautious:
        # A file of two requests has both in flight at once.
        length, shortest = _FIRST if size > 2 * _FIRST else size, min(_PULL, RANGE)
    while offset < size:
        length, started = min(length, size - offset), time.monotonic()
        yield offset, length
        seconds = time.monotonic() - started
        offset += length
        remaining = deadline.remaining() if is_cautious else None
        if remaining is not None:
            turn = max(_TURN, (remaining - deadline.MARGIN) * _SHARE)
        wanted = int(min(_DEEPEST, length * turn / max(seconds, 1e-9)))
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
    """The rest of the load does not come before the deadline.

    `view` has the first bytes of the file. `is_whole`: it has all of them, and the load's other
    files will not come in time.
    """

    def __init__(self, view: memoryview, *, is_whole: bool = False) -> None:
        super().__init__()
        self.view, self.is_whole = view, is_whole


class Load:
    """The reads of one load: how fast they come, and how many bytes of its files are to come.

    `rest` is these bytes. `rate` is in bytes a second of the time in which any thread reads:
    several that read at once share the link.
    """

    def __init__(self) -> None:
        self._unread: dict[str, int] | None = None  # files that no read has begun with
        self._lock = process.lock()
        self._readers, self._bytes = 0, 0
        self._seconds, self._since = 0.0, 0.0
        self.rest = 0

    def begin(self, name: str, files: Mapping[str, tuple[int, str]]) -> bool:
        """Return True at the first read of `name`, one of `files`: sizes and digests by name."""
        with self._lock:
            if self._unread is None:
                self._unread = {each_name: size for each_name, (size, _) in files.items()}
                self.rest = sum(self._unread.values())
            return self._unread.pop(name, None) is not None

    def skip(self, length: int) -> None:
        """Count bytes that need not come: they are in a local copy, or go into one."""
        with self._lock:
            self.rest -= length

    def enter(self) -> None:
        """Count the time from here on."""
        with self._lock:
            if not self._readers:
                self._since = time.monotonic()
            self._readers += 1

    def add(self, length: int, *, is_first: bool) -> None:
        """Count bytes that have come; `is_first`: of a file that was not read before."""
        with self._lock:
            self._bytes += length
            self.rest -= length if is_first else 0

    def leave(self) -> None:
        """Count no more time for the thread that called `enter`."""
        with self._lock:
            self._readers -= 1
            if not self._readers:
                self._seconds += time.monotonic() - self._since

    @property
    def rate(self) -> float | None:
        """Return the rate, or None before half a second of reads has shown it."""
        with self._lock:
            now = time.monotonic() - self._since if self._readers else 0.0
            seconds = self._seconds + now
            return None if seconds < _SURE else max(self._bytes, 1) / seconds


class Switch:
    """How a read goes on if the load does not fit before the deadline.

    `can_switch` says whether the file can be read otherwise; then `DoesNotFit` is raised. The bytes
    that come are counted in `load`; `is_first`: its file was not read before.
    """

    def __init__(self, can_switch: Callable[[], bool], load: Load, *, is_first: bool) -> None:
        self.can_switch, self.load, self.is_first = can_switch, load, is_first


class _Pace:
    """Whether a load fits before the deadline, at the rate so far; `switch` if it does not."""

    def __init__(self, size: int, switch: Switch | None) -> None:
        self._size, self._switch, self._has_room = size, switch, True
        self._started = time.monotonic()

    @property
    def is_known(self) -> bool:
        """Return True if a deadline is known, so that the first ranges must be short."""
        return self._switch is not None and deadline.remaining() is not None

    def rounds(self) -> Iterable[tuple[list[tuple[int, int]], int]]:
        """Return the ranges to read, with the number of threads that read them."""
        if self.is_known:
            return _paced(0, self._size, RANGE, READERS, READERS)
        return [(ranges(self._size), READERS)]

    def __enter__(self) -> None:
        if self._switch is not None:
            self._switch.load.enter()

    def __exit__(self, *_: object) -> None:
        if self._switch is not None:
            self._switch.load.leave()

    def add(self, length: int) -> None:
        """Count bytes that have come."""
        if self._switch is not None:
            self._switch.load.add(length, is_first=self._switch.is_first)

    def require_rest(self, done: int, first: Callable[[int], memoryview]) -> None:
        """Raise DoesNotFit if the rest of the file will not come before the deadline.

        `done` bytes of it have come, and `first(done)` returns them. Half a second of the load's
        reads shows their rate. From then on the load's other files must come in time, too.
        """
        remaining = None if self._switch is None else deadline.remaining()
        if self._switch is None or remaining is None:
            return
        own, room = self._size - done, remaining - deadline.MARGIN
        seconds, load = time.monotonic() - self._started, self._switch.load
        is_late = own > 0 and own * seconds > room * max(done, 1)
        # MUT: a-load-of-several-files-is-judged-as-a-whole
        if load.rest > own and (rate := load.rate) is not None:
            is_late = is_late or load.rest > rate * room
        if is_late and self._has_room:
            self._has_room = self._switch.can_switch()  # asked once if there is none
            if self._has_room:
                raise DoesNotFit(first(done), is_whole=not own)


def whole(
    file: ReadableFile,
    *,
    digest: str | None = None,
    switch: Switch | None = None,
    advice: str = _TOO_LARGE,
) -> memoryview:
    """Return all bytes of the file in one buffer; compare their SHA-256 with `digest`, if given.

    Raise DoesNotFit if the deadline comes first at the present rate, and `switch` can be made, and
    `EfsStateError` with `advice` if the file is larger than the free memory.
    """
    free_memory.require(file.size, file.path, advice)
    view = buffer(file.size)
    batch, check = read_batch(file.path, file.size), _DigestCheck(digest)
    pace = _Pace(file.size, switch)

    def fill(job: tuple[int, int]) -> None:
        offset, length = job
        file.read_into(view[offset : offset + length], offset)

    def first(done: int) -> memoryview:
        return view[:done]

    # With a digest, one range is read while another is digested. Through the page cache, a reader
    # waits for each request, so several read side by side.
    is_deep = file.direct and digest is None
    rounds: Iterable[tuple[list[tuple[int, int]], int]]
    if is_deep:
        rounds = (([job], READERS) for job in _deep(file.size, is_cautious=pace.is_known))
    else:
        rounds = pace.rounds()
    with pace:
        for jobs, threads in rounds:
            for (offset, length), _ in each(fill, jobs, threads=threads, late=batch.late):
                batch.add(length)
                pace.add(length)
                check.add(view[offset : offset + length])
                if batch.done < file.size:
                    pace.require_rest(batch.done, first)
        check.end(file.path)
        pace.require_rest(file.size, first)
    return view[: file.size]


def mapped(
    file: OpenFile, *, digest: str | None = None, switch: Switch | None = None
) -> memoryview:
    """Return the file's pages, read only, pulled from the server in parallel first.

    Raise DoesNotFit as `whole`.
    """
    if not file.size:
        return memoryview(b"")
    batch, pace = read_batch(file.path, file.size), _Pace(file.size, switch)
    with pace:
        if file.network:
            _pull_pages(file, batch, pace)
        view = _pages(file, file.size)
        if digest is not None:
            check = _DigestCheck(digest)

            def add(job: tuple[int, int]) -> None:
                offset, length = job
                check.add(view[offset : offset + length])

            # In a thread, so that the deadline is watched: a page may have to be read again.
            for _ in each(add, ranges(file.size), threads=1, late=batch.late):
                pass
            check.end(file.path)
        pace.require_rest(file.size, lambda _: view)
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
            pace.add(length)
            if batch.done < file.size:
                pace.require_rest(batch.done, partial(_pages, file))


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
