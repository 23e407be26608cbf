"""The checkpoint rows.

Saves, loads, claims and `resume`, beside bare calls and the usual recipe.
"""

import contextlib
import fcntl
import itertools
import os
import pickle
import time

from benchmarks import measure, subjects

STATE = b"s" * subjects.SIZE


class Floor:
    """The bare system calls for the same bytes, flushed, without fencing and history.

    Create, write, fsync, close, rename; open, read, close.
    """

    name, package = "bare system calls", ""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def save(self, state):
        fd = os.open("state.tmp", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600, dir_fd=self.folder)
        os.write(fd, state)
        os.fsync(fd)
        os.close(fd)
        os.rename("state.tmp", "state", src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def load(self):
        fd = os.open("state", os.O_RDONLY, dir_fd=self.folder)
        data = os.read(fd, 65536)
        os.close(fd)
        return data

    def claim(self):
        fd = os.open("state.lock", os.O_CREAT | os.O_RDWR, 0o600, dir_fd=self.folder)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)

    enter = exit = lambda self: None

    def resume(self, items):
        for _ in items:
            pass


class Recipe(Floor):
    """The usual recipe: a FileLock around pickle, fsync and os.replace."""

    name, package = "`filelock` + pickle + `os.replace`", "filelock"

    def __init__(self, folder):
        from filelock import FileLock

        os.makedirs(folder, exist_ok=True)
        self.path, self.lock = f"{folder}/state", FileLock(f"{folder}/state.lock")

    def save(self, state):
        with open(f"{self.path}.tmp", "wb") as file:
            pickle.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{self.path}.tmp", self.path)

    def load(self):
        with open(self.path, "rb") as file:
            return pickle.load(file)

    def claim(self):
        with self.lock:
            pass

    def resume(self, items):
        state = 0
        for number, _ in enumerate(items):
            state = number
        return state


class Ours:
    name, package = "efsstate `checkpoint`", "efsstate"

    def __init__(self, folder):
        from efsstate import checkpoint

        os.makedirs(folder, exist_ok=True)
        self.make = lambda name="bench", keep=3: checkpoint(name, root=folder, keep=keep)
        self.outside = self.make()

    def enter(self):
        self.job = self.make()
        self.job.__enter__()

    def exit(self):
        self.job.__exit__(None, None, None)

    def save(self, state):
        self.job.save(state)

    def load(self):
        return self.outside.load()

    def claim(self):
        with self.make("claimed"):
            pass

    def resume(self, items):
        with self.make(f"resumed-{os.urandom(4).hex()}") as job:
            for _ in job.resume(items, every="1h"):
                pass

    def work_through(self, function, items, workers):
        with self.make(f"mapped-{os.urandom(4).hex()}") as job:
            for _ in job.map(function, items, workers=workers, every="1h"):
                pass


ALL = [Floor, Ours, Recipe]
BY_NAME = {subject.__name__: subject for subject in ALL}


def rows(subject, a, b, requests, *, count=48):
    """Measure saves by a; loads by b, without news and after a save by a; a claim.

    An item's cost.
    """
    writer, reader = subject(a), subject(b)
    writer.enter()
    for _ in range(8):
        writer.save(STATE)  # beyond `keep`: each further one removes one
    yield {
        "row": "save",
        **measure.run(
            writer.save, [STATE + bytes([i]) for i in range(count)], requests=requests["a"]
        ),
    }
    reader.load(), reader.load()
    stored = STATE + bytes([count - 1])
    checked = lambda _, state: None if state == stored else "wrong"  # noqa: E731
    found = measure.run(
        lambda _: reader.load(), range(count), requests=requests["b"], check=checked
    )
    yield {"row": "load", **found}
    parts = []
    for i in range(count):
        stored = STATE + bytes([100 + i])
        writer.save(stored)
        parts.append(
            measure.run(lambda _: reader.load(), [i], requests=requests["b"], check=checked)
        )
    yield {"row": "load after a save", **measure.merged(parts)}
    yield {"row": "stale", "loads": count, **stale(writer, reader, b, count)}
    writer.exit()
    if subject is Ours:
        with writer.make("keeping", keep=100) as job:
            job.save(STATE)
            found = measure.run(job.save, [STATE] * count, requests=requests["a"])
            yield {"row": "save, nothing to remove", **found}
    writer.claim()
    yield {
        "row": "claim",
        **measure.run(lambda _: writer.claim(), range(count // 2), requests=requests["a"]),
    }


def stale(writer, reader, folder, count):
    """Count the loads by b that give an older state right after a save by a was acknowledged.

    Then the same while b's host has the files open.
    """
    found = {}
    for name in ("closed", "open"):
        found[name] = 0
        for _i in range(count):
            reader.load()
            held = _all_open(folder) if name == "open" else []
            writer.save(state := os.urandom(16) + STATE)
            found[name] += reader.load() != state
            for file in held:
                file.close()
    return found


def _all_open(folder):
    files = []
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed since it was listed, or a link
                files.append(open(f"{where}/{name}", "rb"))  # noqa: SIM115 - kept open
    return files


def items(subject, folder, *, count=200_000):
    """What `resume` adds to an item, between saves."""
    run = subject(folder)
    run.resume(range(1000))
    found = measure.run(lambda _: run.resume(range(count)), range(5))
    found["time"] = {
        key: value / count if key != "samples" else value for key, value in found["time"].items()
    }
    yield {"row": "resume", **found}
    if subject is Ours:
        yield {"row": "map", **waiting_items(run)}


def waiting_items(run, *, count=240, workers=8, wait=0.01, rounds=3):
    """Items that wait 10 ms each: a loop's time divided by that of `job.map` with 8 workers."""
    ratios = []
    for _ in range(rounds):
        started = time.monotonic()
        for _ in range(count):
            time.sleep(wait)
        loop = time.monotonic()
        run.work_through(lambda _: time.sleep(wait), range(count), workers)
        ratios.append((loop - started) / (time.monotonic() - loop))
    return {"workers": workers, "faster": sorted(ratios)[rounds // 2]}


def trace(subject, traced):
    """Under strace: what `traced.py` runs."""
    subject.enter()
    for _ in range(8):
        subject.save(STATE)
    traced("save", subject.save, [STATE] * 32)
    subject.load()
    traced("load", lambda _: subject.load(), range(32))
    subject.exit()
    subject.claim()
    traced("claim", lambda _: subject.claim(), itertools.repeat(None, 32))
