"""Training data on two NFS clients: how fast parts are read, compacted and frozen.

    python -m tests.nfs.lab --delay 3ms --mem 3G -- python benchmarks/training_data.py reading
    python -m tests.nfs.lab --delay 3ms --mem 3G -- python benchmarks/training_data.py compacting
    python -m tests.nfs.lab --mem 3G -- python benchmarks/training_data.py freezing

`freezing` makes 100,000 parts on the server, and freezes and sweeps them from a client. What is
left after kills and beside other writers is in `benchmarks/training_peers.py`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = [str(HERE.parent / "src"), str(HERE.parent)]
sys.path[:0] = SOURCES

from benchmarks.measure import Requests  # noqa: E402 - the path comes first
from efsstate import dataset  # noqa: E402
from efsstate.format import dataset_layout as layout  # noqa: E402
from efsstate.modelstore import reader  # noqa: E402

SERVER = "/run/disk/export"  # the lab's: where the server has what the clients mount

# Reading


def timed(function):
    """Return the seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


class KeptBuffers:
    """Buffers that are used again and again, in place of a new one for each part.

    A page that is new to a process costs User Mode Linux 80 µs, and a real kernel a quarter of one.
    So each subject reads into pages that were touched before; the caller drops each in time.
    """

    def __init__(self, count, size):
        self._buffers, self._size, self._next = [reader.buffer(size) for _ in range(count)], size, 0
        for view in self._buffers:
            view[:] = bytes(size)

    def __call__(self, size):
        assert size == self._size
        self._next += 1
        return self._buffers[self._next % len(self._buffers)]


def touch(data):
    """Read a byte of each page, as a consumer does at least."""
    return len(bytes(memoryview(data)[::4096]))


def read_plainly(snapshot, view):
    """Read each part by as few calls of `read` as the kernel allows; drop it from the cache."""
    for part in snapshot:
        with open(part.path, "rb", buffering=0) as file:
            filled = 0
            while filled < part.size:
                filled += file.readinto(view[filled:])
            touch(view)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_ahead(a, b, *, parts=12, size=32 << 20, rounds=7, thought=0.3):
    """Print how much faster `read(ahead=1)` is than one `read()` a part, by client b.

    The two take turns. Then a consumer thinks for `thought` seconds about each part, without the
    processor, as one does that feeds an accelerator.
    """
    writer, client = dataset("big", root=a), dataset("big", root=b)
    block = os.urandom(1 << 20)
    for i in range(parts):
        writer.add([block] * (size >> 20), ".bin", key=str(i))
    snapshot, view = client.freeze("run"), memoryview(bytearray(size))
    reader.buffer = KeptBuffers(3, size)

    def ahead(*, verify=False, seconds=0.0):
        for _part, data in snapshot.read(ahead=1, verify=verify):
            assert len(data) == size
            touch(data)
            time.sleep(seconds)

    ways = {
        "one read() a part": lambda: read_plainly(snapshot, view),
        "read(ahead=1)": ahead,
        "read(ahead=1), every byte checked": lambda: ahead(verify=True),
    }
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(timed(way))
    base = times["one read() a part"]
    for name, seconds in times.items():
        ratio = statistics.median(b / s for b, s in zip(base, seconds, strict=True))
        rate = parts * size / statistics.median(seconds) / 2**20
        print(f"{name}: {ratio:.2f} x, {rate:.0f} MiB/s")
    for name, verify in (("", False), (", every byte checked", True)):
        total = min(timed(lambda: ahead(verify=verify, seconds=thought)) for _ in range(3))
        own = parts * thought
        first = min(base) / parts
        print(
            f"a consumer of {thought} s a part{name}: {total:.2f} s in all; its own time is"
            f" {own / total:.3f} of that, and {own / (total - first):.3f} without the first part"
        )


def compact(a, b, *, parts=1000, size=16 << 10):
    """Print how much faster one large part reads than many small ones."""
    small, big = dataset("small", root=a), dataset("compacted", root=a)
    for i in range(parts):
        small.add(os.urandom(size), key=str(i))
    snapshot = small.freeze("run")
    for key, group in snapshot.groups("1GiB"):
        big.add([data for _part, data in snapshot.read(group)], key=key)
    many, few = dataset("small", root=b).at("run"), dataset("compacted", root=b).freeze("run")
    requests, rows = Requests(b), []
    for snapshot in (many, few):
        before = requests.settled()
        seconds = timed(lambda: [None for _ in snapshot.read(ahead=0, verify=False)])
        after = requests.settled()
        rows.append((seconds, sum(after.values()) - sum(before.values())))
    (slow, asked), (fast, asked_less) = rows
    print(
        f"{parts} parts of {size >> 10} KiB: {slow:.2f} s, {asked} requests; compacted:"
        f" {fast:.2f} s, {asked_less} requests: {slow / fast:.0f} x, {asked / asked_less:.0f} x"
    )


# A hundred thousand parts


def plant(folder, count):
    """Make parts as writers make them, but on the server's disk."""
    os.makedirs(folder)
    for i in range(count):
        key = layout.key_digest(str(i), None)
        name = layout.part_name(key, 0, f"{i:032x}", ".bin")
        os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY, 0o666))


def memory():
    """Return the bytes of memory that this process has taken up to now, at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def list_bare(path):
    """List a folder anew, as the bare system calls do it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return len(os.listdir(fd))
    finally:
        os.close(fd)


def write_bare(path, text):
    """Write a list of that size, durably."""
    with open(path, "wb", buffering=0) as file:
        file.write(text)
        os.fsync(file.fileno())


def freeze_many(a, b, *, count=100_000, rounds=4):
    """Print what it takes client b to freeze, open and sweep many parts, beside the bare calls.

    Another host adds a part before each, so that b has to list the folder anew.
    """
    folder = os.path.relpath(b, "/mnt/b")
    plant(f"{SERVER}/{folder}/datasets/d/parts", count)
    writer, ds = dataset("d", root=a), dataset("d", root=b)
    ds.freeze("warm", [])
    before, rows, text = memory(), [], os.urandom(76 * count)
    for i in range(rounds):
        writer.add(b"x", key=f"a {i}")
        froze = timed(lambda: ds.freeze(f"run {i}"))
        writer.add(b"x", key=f"b {i}")
        listed = timed(lambda: list_bare(ds.path))
        wrote = timed(lambda: write_bare(f"{b}/list-{i}", text))
        opened = timed(lambda: dataset("d", root=a).at(f"run {i}"))
        rows.append((froze, listed + wrote, opened))
    froze, bare, opened = (min(row[i] for row in rows) for i in range(3))
    ratio = statistics.median(row[0] / row[1] for row in rows)
    print(f"{count:,} parts: frozen in {froze:.2f} s, the bare listing and writing take {bare:.2f}")
    print(f"  {ratio:.2f} x these; opened by the other client in {opened:.2f} s")
    print(f"  {(memory() - before) >> 20} MiB more memory at most")
    code = f"import sys; sys.path[:0] = {SOURCES!r}\nfolder = {str(b)!r}\n{SWEEP}"
    swept = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    print("  " + swept.stdout.strip().replace("\n", "\n  "))


SWEEP = """
import resource, efsstate
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = most()
report = efsstate.sweep(root=folder, dry_run=True)
print(f"sweep: {most() - before} MiB more memory than {before}, finished: {report.finished}")
"""


def main():
    """Run what is asked for, below two mounts of one export."""
    what = {
        "reading": read_ahead,
        "compacting": compact,
        "freezing": freeze_many,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=what)
    parser.add_argument("mounts", nargs="*", default=["/mnt/a", "/mnt/b"])
    options = parser.parse_args()
    a, b = (pathlib.Path(mount) / "training-data" for mount in options.mounts)
    a.mkdir()
    what[options.what](a, b)


if __name__ == "__main__":
    main()
