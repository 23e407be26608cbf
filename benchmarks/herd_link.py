"""A herd of cold starts behind a simulated link, on this machine: `python -m benchmarks.herd_link`.

The environments of `benchmarks.herd`, with a quarter of a second between their starts. They read
one file whose bytes arrive in the order in which they were asked for, at the rate of the link. So
the link alone is the limit, and what a killed reader had asked for is sent all the same.
"""

import fcntl
import importlib
import mmap
import os
import shutil
import struct
import tempfile
import threading
import time

from benchmarks import herd

APART = 0.25  # seconds between the starts


class Link:
    """A link that all processes share, for one file: at `free` all requests are answered."""

    def __init__(self, path, rate, folder):
        self._inode, self._rate, self._real = os.stat(path).st_ino, rate, os.preadv
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self._lock = threading.Lock()
        self._file = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT)

    def _exchange(self, size):
        """Note that `size` bytes are asked for; return when they have arrived, and all bytes."""
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            free, sent = struct.unpack_from("dq", self._shared)
            free, sent = max(free, time.monotonic()) + size / self._rate, sent + size
            struct.pack_into("dq", self._shared, 0, free, sent)
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        return free, sent

    def preadv(self, fd, buffers, offset):
        count = self._real(fd, buffers, offset)
        if os.fstat(fd).st_ino == self._inode:
            time.sleep(max(0.0, self._exchange(count)[0] - time.monotonic()))
        return count

    def sent(self):
        """Return the bytes that it has sent."""
        return self._exchange(0)[1]


def main():
    from efsstate import publish
    from efsstate.modelstore import open_file

    for name in ("failures", "loading", "model_files", "staging", "swapping"):
        importlib.import_module(f"efsstate.modelstore.{name}")
    folder = tempfile.mkdtemp()
    with open(f"{folder}/weights", "wb") as file:
        file.write(os.urandom(herd.SIZE))
    root = f"{folder}/root"
    os.mkdir(root)
    version = publish("herd", f"{folder}/weights", root=root)
    path = f"{root}/models/herd/versions/{version}/weights"
    open_file.is_on_network = lambda mount: mount.path.startswith(root)
    real = os.preadv
    print(
        f"{herd.ENVIRONMENTS} environments, {herd.SIZE >> 20} MiB each, {APART} s apart,", end=" "
    )
    print(f"killed after {herd.TIMEOUT:.0f} s, behind {herd.LIMIT / 1e6:.1f} MB/s")
    print("| way | loads | of the link's | last served, × fair | bytes sent, × least |")
    print("|---|---|---|---|---|")
    for title, way in herd.WAYS.items():
        places = tempfile.mkdtemp(dir=folder)
        link = Link(path, herd.LIMIT, places)
        os.preadv = link.preadv
        started = time.monotonic()
        ends = herd.herd(way, root, places, apart=APART)
        seconds = ends[-1] if len(ends) == herd.ENVIRONMENTS else time.monotonic() - started
        share = len(ends) * herd.SIZE / herd.LIMIT / seconds
        last = f"{seconds / herd.FAIR:.2f}" if len(ends) == herd.ENVIRONMENTS else "never"
        sent = link.sent() / (herd.ENVIRONMENTS * herd.SIZE)
        print(f"| {title} | {len(ends)} | {share:.2f} | {last} | {sent:.2f} |", flush=True)
        os.preadv = real
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
