"""Read a large file into memory of its own, and digest it on another thread meanwhile.

The memory is a mapping of huge pages if the kernel has them: a `bytearray` is zeroed first, and the
kernel provides it in pages of 4 KiB, which takes three times as long as the read.
"""

from __future__ import annotations

import mmap
import os
import threading
from queue import SimpleQueue

from efsstate import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PIECE = 4 << 20  # bytes that are read before the other thread digests them
HUGE_PAGE = 2 << 20  # bytes


def memory(size: int) -> mmap.mmap:
    """Return `size` zeroed bytes, which begin at a page; they are freed with the last view.

    A forked child has a copy of them, as of any other memory. Raise `MemoryError`.
    """
    try:
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:  # an OSError would stand for a failure of the mount
        raise MemoryError(f"no memory for {size} bytes: {error.strerror}") from None
    if size >= HUGE_PAGE:
        try:
            mapping.madvise(mmap.MADV_HUGEPAGE)
        except (AttributeError, OSError):
            pass  # another system, or a kernel without them
    return mapping


def fill(
    fd: int, size: int, start: bytes = b"", hashed: Any = None, skipped: int = 0
) -> memoryview:
    """Return the first `size` bytes of an open file, of which `start` was read before.

    They are fewer if the file shrank. `hashed`, a hash object, takes in all of them but the first
    `skipped`, on a thread of its own if one can be started.
    """
    view, filled = memoryview(memory(size)), len(start)
    view[:filled] = start
    digesting = None if hashed is None else _Digesting(hashed, view, skipped)
    try:
        # MUT: a-short-read-is-gone-on-with
        while filled < size:  # a read gives 2 GiB at the most
            end = size if digesting is None else min(size, filled + _PIECE)
            done = os.readv(fd, [view[filled:end]])
            if not done:  # the file shrank
                break
            filled += done
            if digesting is not None:
                digesting.reach(filled)
    finally:
        if digesting is not None:
            digesting.end()
    return view[:filled]


class _Digesting:
    """A thread that digests `view` as far as it was filled. It never touches the file."""

    def __init__(self, hashed: Any, view: memoryview, position: int) -> None:
        self._hashed, self._view = hashed, view
        self._position = position  # the bytes before it count as digested
        self._reached: SimpleQueue[int | None] = SimpleQueue()
        self._thread: threading.Thread | None = threading.Thread(
            target=self._run, name="efsstate-digest", daemon=True
        )
        try:
            process.start(self._thread)
        except RuntimeError:  # no thread can be started: none is left, or Python shuts down
            self._thread = None

    def reach(self, filled: int) -> None:
        """Have everything before `filled` digested."""
        self._reached.put(filled)

    def end(self) -> None:
        """Wait until everything is digested."""
        self._reached.put(None)
        if self._thread is not None:
            self._thread.join()
        else:
            self._run()

    def _run(self) -> None:
        while (end := self._reached.get()) is not None:
            self._hashed.update(self._view[self._position : end])
            self._position = end
