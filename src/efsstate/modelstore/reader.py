"""Reads of large files, in long ranges or by several threads: many times as fast as `read`."""

from __future__ import annotations

import mmap
import threading
import time

from efsstate.errors import CorruptEntryError
from efsstate.mount import free_memory
from efsstate.parallel import Batch, each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeVar

    from efsstate.modelstore.open_file import OpenFile
    from efsstate.mount.drafts import PartialFile

    R = TypeVar("R")

# Bytes. With O_DIRECT all requests of a range are in flight at once, so two readers fill a link;
# more take processor time from each other (measured: docs/models.md).
RANGE = 8 << 20
READERS = 2
THREADS = 8  # for copies and small files, whose threads wait for answers
WRONG_DIGEST = (
    "its SHA-256 is not the one in the manifest; activate another version, or publish it under a"
    " new id"
)
_TURN = 0.25  # seconds; a reader cannot be stopped within a range, and holds its buffer
_DEEPEST = 128 << 20  # bytes; the kernel keeps a list of a range's pages while it reads it
_PULL = 1 << 20  # bytes of one request to the server
_PAGE = mmap.PAGESIZE
_LEAST = 64 << 10  # bytes of a range if there is hardly any memory


def ranges(size: int, step: int | None = None) -> list[tuple[int, int]]:
    """Return (offset, length) of every range of a file of `size` bytes."""
    step = step or RANGE
    return [(offset, min(step, size - offset)) for offset in range(0, size, step)]


def _deep(size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of ranges for a single reader with O_DIRECT.

    Each is as long as takes a quarter of a second at the rate of the one before. One long range
    after the other is faster than several short ones side by side (measured: docs/models.md).
    """
    offset, length = 0, READERS * RANGE
    while offset < size:
        length, started = min(length, size - offset), time.monotonic()
        yield offset, length
        seconds = time.monotonic() - started
        offset += length
        wanted = int(min(_DEEPEST, length * _TURN / max(seconds, 1e-9)))
        length = max(RANGE, wanted // _PULL * _PULL)


def every(
    sizes: Mapping[str, int],
    work: Callable[[str, Callable[[int], None] | None], R],
    batch: Batch,
) -> Iterator[tuple[str, R]]:
    """Do `work(name, advance)` on every file, and count its bytes in `batch`.

    Small files are done side by side, large ones one by one: each of them keeps all threads busy.
    `advance` counts the bytes of a large file as they are done; for a small one it is None.
    """
    small = [name for name, size in sizes.items() if size <= RANGE]
    for name, result in each(
        lambda name: work(name, None), small, threads=THREADS, late=batch.late
    ):
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
    pages = -(-size // _PAGE) * _PAGE
    return memoryview(mmap.mmap(-1, pages, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def whole(file: OpenFile, *, digest: str | None = None) -> memoryview:
    """Return all bytes of the file in one buffer; compare their SHA-256 with `digest`, if given."""
    free_memory.require(
        file.size,
        file.path,
        "use files.mmap() or files.stage(); keep_old=False frees the old version first",
    )
    view = buffer(file.size)
    batch, check = read_batch(file.path, file.size), _DigestCheck(digest)

    def fill(job: tuple[int, int]) -> None:
        offset, length = job
        file.read_into(view[offset : offset + length], offset)

    # With a digest, one range is read while another is digested. Through the page cache, a reader
    # waits for each request, so several read side by side.
    is_deep = file.direct and digest is None
    rounds = ([job] for job in _deep(file.size)) if is_deep else [ranges(file.size)]
    for jobs in rounds:
        for (offset, length), _ in each(fill, jobs, threads=READERS, late=batch.late):
            batch.add(length)
            check.add(view[offset : offset + length])
    check.end(file.path)
    return view[: file.size]


def mapped(file: OpenFile, *, digest: str | None = None) -> memoryview:
    """Return the file's pages, read only, pulled from the server in parallel first."""
    if not file.size:
        return memoryview(b"")
    batch = read_batch(file.path, file.size)
    if file.network:
        _pull_pages(file, batch)
    try:
        view = memoryview(mmap.mmap(file.fileno(), file.size, prot=mmap.PROT_READ))
    except ValueError:
        why = f"shorter than its {file.size} bytes: cut while it was read"
        raise CorruptEntryError(file.path, why) from None
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


def _pull_pages(file: OpenFile, batch: Batch) -> None:
    """Read the file into the page cache by several threads."""
    own = threading.local()

    def pull(job: tuple[int, int]) -> None:
        offset, length = job
        # A descriptor has one read-ahead: threads that share it spoil it.
        if not hasattr(own, "file"):
            own.file, own.view = file.reopen(), buffer(_PULL)
        for at in range(offset, offset + length, _PULL):
            own.file.read_into(own.view[: min(_PULL, offset + length - at)], at)

    for (_, length), _ in each(pull, ranges(file.size), threads=READERS, late=batch.late):
        batch.add(length)


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
    file: OpenFile,
    target: PartialFile | None,
    *,
    late: Callable[[], str],
    advance: Callable[[int], None] | None = None,
) -> str:
    """Copy the file in ranges by several threads, and return its SHA-256.

    Without a `target` it is only digested. A range that the target has already is not written
    again. If little memory is free, the ranges are shorter. `advance` counts the bytes.
    """
    from hashlib import sha256

    step = min(RANGE, _bytes_per_buffer(file.size) // _PAGE * _PAGE)
    digest = sha256()
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

    for (_, length), room in each(move, ranges(file.size, step), threads=THREADS, late=late):
        digest.update(room[:length])
        with lock:
            spare.append(room)
        if advance is not None:
            advance(length)
    return digest.hexdigest()


def _bytes_per_buffer(size: int) -> int:
    """Return how large each buffer of a copy may be.

    All buffers take a quarter of the free memory, and as much again to be compared.
    """
    # Small files are many, and to ask takes longer than to read one.
    free = free_memory.free() if size > _PULL else None
    if free is None:
        return RANGE
    return max(_LEAST, free // 4 // (THREADS + 3))  # 2 that are ahead, and the digest's
