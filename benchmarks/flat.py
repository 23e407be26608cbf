"""The cost of a hit, a put and a miss among 1,000, 100,000 and 1,000,000 entries: the same.

python -m benchmarks --only flat --root /dev/shm
"""

import hashlib
import os
import shutil
import stat

from benchmarks import caches, processes, subjects

SIZES = (1_000, 100_000, 1_000_000)
SERVER = "/run/disk/export"  # the lab's: where the server has what the clients mount
OPERATIONS = {"hit": subjects.Cached, "put": subjects.OurCache, "miss": subjects.Cached}


def plant(root, count):
    """Make `count` names of entries in the subjects' namespace; nobody reads what is in them."""
    for digit in "0123456789abcdef":
        os.makedirs(f"{root}/cache/bench/{digit}", exist_ok=True)
    for i in range(count):
        name = hashlib.blake2b(b"%d" % i, digest_size=24).hexdigest()
        os.mknod(f"{root}/cache/bench/{name[0]}/{name}", 0o600 | stat.S_IFREG)


def system_calls(root, count):
    """Return the system calls of 64 hits, puts and misses among `count` entries, by operation."""
    plant(root, count)
    try:
        traced = {
            subject: processes.system_calls("cache", subject.__name__, root)
            for subject in set(OPERATIONS.values())
        }
        return {name: processes.own(traced[subject][name]) for name, subject in OPERATIONS.items()}
    finally:
        shutil.rmtree(root, ignore_errors=True)


def requests(a, b, count, sent, path=None):
    """Measure hits by client b, puts and misses by client a.

    Among `count` entries made at `path`.
    """
    plant(path or a, count)
    try:
        for subject, function, rest in (
            (subjects.Cached, caches.hits, (b, sent["b"])),
            (subjects.Cached, caches.writes, (sent["a"],)),
            (subjects.OurCache, caches.writes, (sent["a"],)),
        ):
            for figure in processes.isolated(function, subject, a, *rest, timeout=600):
                if "failed" in figure or OPERATIONS.get(figure["row"]) is subject:
                    yield figure
    finally:
        shutil.rmtree(path or a, ignore_errors=True)


def times(root, count):
    """Measure hits, puts and misses among `count` entries in memory, beside the bare system calls.

    Those run in an empty folder.
    """
    plant(f"{root}/subject", count)
    try:
        for subject in (subjects.Cached, subjects.OurCache):
            for figure in processes.isolated(caches.local, subject, root, timeout=600):
                if "failed" in figure or OPERATIONS.get(figure["row"]) is subject:
                    yield figure
                shutil.rmtree(f"{root}/floor", ignore_errors=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def rows(places):
    """Every row on `places`: requests on NFS; elsewhere times and system calls."""
    nfs = places.name == "nfs"
    for count in SIZES[:2] if nfs else SIZES:
        if nfs:
            a, b = places.new()
            server = SERVER + a.removeprefix(places.requests["a"].point)
            figures = list(
                requests(a, b, count, places.requests, server if os.path.isdir(SERVER) else None)
            )
        else:
            figures = list(times(places.new()[0], count))
            if shutil.which("strace"):
                for name, calls in system_calls(places.new()[0], count).items():
                    total = sum(calls.values()) / 64
                    figures.append({"row": f"{name} calls", "calls": total, "by_call": calls})
        for figure in figures:
            operation = figure.pop("row", "")
            yield {
                "row": "flat",
                "subject": "efsstate",
                "operation": operation,
                "entries": count,
                **figure,
            }
