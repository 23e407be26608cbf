"""Training data on two NFS clients: what survives a kill and two writers, and how fast parts read.

    python -m tests.nfs.lab --mem 3G -- python benchmarks/training_data.py attacks
    python -m tests.nfs.lab --delay 3ms --mem 3G -- python benchmarks/training_data.py reading

`attacks` needs the packages of the group `heavy`. Each writer writes numbered samples, and prints
each one that its library acknowledged: the call returned. One attack kills a writer with SIGKILL.
The other lets two writers, one on each client, write other samples to the same place at once. Then
a new process on the second client reads the place.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

SAMPLES = 300

# A writer gets its folder, its first sample, and how many. It prints each acknowledged sample.
WRITERS = {
    "efsstate.dataset": """
from efsstate import dataset
ds = dataset("d", root=folder)
for n in range(first, first + count):
    ds.add(str(n).encode(), ".txt", key=str(n))
    print(n, flush=True)
""",
    "MosaicML streaming": """
from streaming import MDSWriter
with MDSWriter(out=folder, columns={"n": "int"}, size_limit=2048, exist_ok=True) as out:
    for n in range(first, first + count):
        out.write({"n": n})
        print(n, flush=True)
""",
    "WebDataset": """
from webdataset import ShardWriter
with ShardWriter(folder + "/%05d.tar", maxcount=50, verbose=0) as out:
    for n in range(first, first + count):
        out.write({"__key__": "%08d" % n, "txt": str(n)})
        print(n, flush=True)
""",
    "LitData": """
from litdata.streaming.writer import BinaryWriter
writer = BinaryWriter(folder, chunk_bytes=2048, chunk_index=0)
for i, n in enumerate(range(first, first + count)):
    writer[i] = {"n": n}
    print(n, flush=True)
writer.done()
writer.merge(1)
""",
}
READERS = {
    "efsstate.dataset": """
from efsstate import dataset
ds = dataset("d", root=folder)
for _, data in ds.freeze("all").read():
    print(bytes(data).decode())
""",
    "MosaicML streaming": """
from streaming import StreamingDataset
for sample in StreamingDataset(local=folder, batch_size=1, shuffle=False):
    print(sample["n"])
""",
    "WebDataset": """
import glob, webdataset
for sample in webdataset.WebDataset(sorted(glob.glob(folder + "/*.tar")), shardshuffle=False):
    print(sample["txt"].decode())
""",
    "LitData": """
from litdata import StreamingDataset
data = StreamingDataset(folder)
for i in range(len(data)):
    print(data[i]["n"])
""",
}


def start(code, folder, first=0, count=0):
    """Start a process that runs `code` on a folder."""
    head = f"import sys; sys.path.insert(0, {str(HERE.parent / 'src')!r})\n"
    head += f"folder, first, count = {str(folder)!r}, {first}, {count}\n"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", head + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def numbers(process):
    """Return the samples that a process printed, once it has ended."""
    return {int(line) for line in process.stdout if line.strip().isdigit()}


def kill_a_writer(name, a, b):
    """Return (acknowledged, readable, how the reader ended) of a writer killed at two thirds."""
    writer = start(WRITERS[name], a, 0, SAMPLES)
    acknowledged = set()
    for line in writer.stdout:
        acknowledged.add(int(line))
        if len(acknowledged) == SAMPLES * 2 // 3:
            writer.send_signal(signal.SIGKILL)
            break
    acknowledged |= numbers(writer)
    writer.wait()
    reader = start(READERS[name], b)
    readable = numbers(reader)
    return len(acknowledged), len(acknowledged & readable), reader.wait()


def let_two_write(name, a, b):
    """Return (acknowledged, readable, exit codes) of two writers of other samples."""
    writers = [
        start(WRITERS[name], folder, i * SAMPLES, SAMPLES) for i, folder in enumerate((a, b))
    ]
    acknowledged = set().union(*map(numbers, writers))
    codes = [writer.wait() for writer in writers]
    reader = start(READERS[name], b)
    readable = numbers(reader)
    reader.wait()
    return len(acknowledged), len(acknowledged & readable), codes


def attack(a, b):
    """Print both attacks on each library."""
    print(
        "library | killed: acknowledged | readable | two at once: acknowledged | readable | exits"
    )
    for name in WRITERS:
        cells = []
        for index, function in enumerate((kill_a_writer, let_two_write)):
            below = f"{name.split()[0].lower().replace('.', '-')}-{index}"
            (a / below).mkdir()
            acknowledged, readable, codes = function(name, a / below, b / below)
            cells += [acknowledged, readable]
        print(name, *cells, codes, sep=" | ", flush=True)


# Reading


def timed(function):
    """Return the seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def read_ahead(a, b, *, parts=4, size=32 << 20, rounds=4):
    """Print how much faster `read(ahead=1)` is than one `read()` a part, by client b.

    Both fill a buffer that is kept and touched, because a fresh page costs far more here than on a
    host: see the facts of the lab.
    """
    from efsstate import dataset

    writer, reader = dataset("big", root=a), dataset("big", root=b)
    block = os.urandom(1 << 20)
    for i in range(parts):
        writer.add([block] * (size >> 20), ".bin", key=str(i))
    snapshot = reader.freeze("run")
    buffer = bytearray(size)

    def plainly():
        for part in snapshot:
            with open(part.path, "rb", buffering=0) as file:
                filled = 0
                while filled < size:
                    filled += file.readinto(memoryview(buffer)[filled:])
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def ahead():
        for _part, data in snapshot.read(ahead=1, verify=False):
            assert len(data) == size

    plain, fast = [], []
    for _ in range(rounds):
        plain.append(timed(plainly))
        fast.append(timed(ahead))
    ratio = statistics.median(p / f for p, f in zip(plain, fast, strict=True))
    rate = parts * size / min(fast) / 2**20
    print(f"read(ahead=1): {ratio:.2f} x one read() a part, {rate:.0f} MiB/s")


def compact(a, b, *, parts=1000, size=16 << 10):
    """Print how much faster one large part reads than many small ones."""
    from efsstate import dataset

    small, big = dataset("small", root=a), dataset("compacted", root=a)
    for i in range(parts):
        small.add(os.urandom(size), key=str(i))
    snapshot = small.freeze("run")
    for key, group in snapshot.groups("1GiB"):
        big.add([data for _part, data in snapshot.read(group)], key=key)
    reader = dataset("small", root=b).at("run"), dataset("compacted", root=b).freeze("run")
    many = timed(lambda: [None for _ in reader[0].read(ahead=0, verify=False)])
    few = timed(lambda: [None for _ in reader[1].read(ahead=0, verify=False)])
    print(
        f"{parts} parts of {size >> 10} KiB: {many:.2f} s;"
        f" compacted {few:.2f} s: {many / few:.0f} x"
    )


def main():
    """Run what is asked for, below two mounts of one export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["attacks", "reading"])
    parser.add_argument("mounts", nargs="*", default=["/mnt/a", "/mnt/b"])
    options = parser.parse_args()
    a, b = (pathlib.Path(mount) / "training-data" for mount in options.mounts)
    a.mkdir()
    if options.what == "attacks":
        attack(a, b)
    else:
        read_ahead(str(a), str(b))
        compact(str(a), str(b))


if __name__ == "__main__":
    main()
