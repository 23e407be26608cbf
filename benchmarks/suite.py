"""The rows of each place: in memory the code itself is measured, on NFS its requests."""

import functools
import os
import shutil
import sys
import tempfile
import time

from benchmarks import (
    answers,
    caches,
    checkpoints,
    cold,
    flat,
    imports,
    in_memory,
    large,
    lean,
    lost_updates,
    many,
    measure,
    models,
    processes,
    subjects,
    survival,
    sweep,
)

PARTS = (
    "caches",
    "lean",
    "memory",
    "cold",
    "large",
    "flat",
    "many",
    "answers",
    "survival",
    "checkpoints",
    "updates",
    "imports",
    "models",
    "sweep",
)


class Places:
    """The root to measure on, as clients a and b see it, and this run's folder below it."""

    def __init__(self, root, other=None, *, peers=True, words=()):
        self.peers, self.words = peers, words
        self.folder = "benchmark-" + os.urandom(4).hex()
        self.root, self.a, self.b = root, f"{root}/{self.folder}", f"{other or root}/{self.folder}"
        os.mkdir(self.a)
        os.stat(self.b)
        self.requests = {"a": measure.Requests(self.a), "b": measure.Requests(self.b)}
        self.name = "nfs" if self.requests["b"].counted else "local"
        self._next = 0

    def new(self):
        """A fresh folder, as a and as b see it; b has never looked there."""
        self._next += 1
        return f"{self.a}/{self._next}", f"{self.b}/{self._next}"

    def takes(self, name):
        """Return True if a subject of that name is measured."""
        if self.words:
            return any(word in name for word in self.words)
        return self.peers or name.startswith(("efsstate", "bare"))

    def among(self, subjects):
        """Yield those that are measured, and say how long each took."""
        for subject in subjects:
            if self.takes(subject.name):
                started = time.monotonic()
                yield subject
                say(f"{subject.name}: {time.monotonic() - started:.1f} s")

    def close(self):
        shutil.rmtree(self.a, ignore_errors=True)


def round_trip(path):
    """Seconds of one request: opening a folder asks the server once."""

    def ask(_):
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY))

    return measure.run(ask, range(32))["time"]


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def run(places, parts):
    """Return every figure of `parts` on `places`.

    Dicts with part, row, place, subject and the measurements.
    """
    for part in parts:
        if part in _PARTS:
            started = time.monotonic()
            for figure in _PARTS[part](places):
                yield {"part": part, "place": places.name, **figure}
            say(f"{part}: {time.monotonic() - started:.0f} s")


def _caches(places):
    nfs = places.name == "nfs"
    for subject in places.among(subjects.ALL):
        a, b = places.new()
        if nfs:
            jobs = [
                (caches.hits, subject, a, b, places.requests["b"]),
                (caches.writes, subject, places.new()[0], places.requests["a"]),
            ]
        else:
            jobs = [(caches.local, subject, a), (_system_calls, "cache", subject, places)]
        for function, *arguments in jobs:
            for figure in processes.isolated(function, *arguments):
                yield {"subject": subject.name, "row": function.__name__, **figure}


def _lean(places):
    if places.name == "local":
        for name in lean.CODE:
            if places.takes(name):
                for figure in processes.isolated(lean.one, name, places.new()[0]):
                    yield {"subject": name, "row": "lean", **figure}


def _memory(places):
    """Hits in memory, their wrong answers, and the memory that entries take."""
    if places.name == "local":
        for name in in_memory.CACHES:
            if places.takes(name) or name == in_memory.BESIDE:
                jobs = [
                    functools.partial(in_memory.hits, name),
                    functools.partial(in_memory.answers, name),
                    functools.partial(in_memory.footprint, name, places.new()[0]),
                ]
                for job in jobs:
                    for figure in processes.isolated(job):
                        yield {"subject": name, "row": "memory", **figure}


def _cold(places):
    if places.name == "local":
        rows = functools.partial(cold.rows, places.new()[0], peers=places.peers)
        for figure in processes.isolated(rows, timeout=900):
            yield {"subject": "all", "row": "cold", **figure}


def _system_calls(kind, subject, places):
    if not shutil.which("strace"):
        return
    for name, calls in processes.system_calls(kind, subject.__name__, places.new()[0]).items():
        count = {"cache": 64, "checkpoint": 32}[kind]
        own = processes.own(calls)
        yield {
            "row": f"{name} calls",
            "calls": sum(own.values()) / count,
            "allocator": processes.of_allocator(calls) / count,
            "by_call": own,
        }


def _answers(places):
    for subject in places.among([*subjects.OURS, *subjects.PEERS]):
        with tempfile.TemporaryDirectory() as counted:
            jobs = [functools.partial(answers.stampede, subject, *places.new(), counted)]
            if places.name == "local":
                jobs.append(functools.partial(answers.flipped, subject, places.new()[0]))
                if issubclass(subject, subjects.Function):
                    jobs.append(functools.partial(answers.confusion, subject, places.new()[0]))
            yield from _performed(subject, jobs)


def _survival(places):
    """What is left after a kill, of two writers and of a counter; the floor promises nothing."""
    for subject in places.among([*subjects.OURS, *subjects.PEERS]):
        folders = [places.new() for _ in range(2 if places.name == "nfs" else 4)]
        jobs = [
            functools.partial(survival.killed, subject, folders),
            functools.partial(survival.writers, subject, *places.new()),
        ]
        if subject.add_one:
            jobs.append(functools.partial(survival.counter, subject, *places.new()))
        yield from _performed(subject, jobs)


def _performed(subject, jobs):
    for job in jobs:
        for figure in processes.isolated(job, timeout=45):
            yield {"subject": subject.name, "row": job.func.__name__, **figure}


def _checkpoints(places):
    for subject in places.among(checkpoints.ALL):
        jobs = [functools.partial(checkpoints.rows, subject, *places.new(), places.requests)]
        if places.name == "local":
            jobs.append(functools.partial(checkpoints.items, subject, places.new()[0]))
            jobs.append(functools.partial(_system_calls, "checkpoint", subject, places))
        for job in jobs:
            for figure in processes.isolated(job):
                yield {"subject": subject.name, "row": "checkpoint", **figure}


def _updates(places):
    """Count the updates that survive on two clients.

    Alone and beside readers that keep the file open.
    """
    if places.name == "nfs":
        a, b = places.new()
        os.makedirs(a)
        for name in lost_updates.UPDATES:
            for readers in (False, True):
                acknowledged, kept = lost_updates.run(name, (a, b), 100, readers)
                yield {
                    "row": "updates",
                    "subject": name,
                    "readers": readers,
                    "acknowledged": acknowledged,
                    "kept": kept,
                }


def _imports(places):
    if places.name == "local":
        yield from imports.rows()


def _models(places):
    if places.name == "nfs":
        a, b = places.new()
        os.makedirs(a)
        for figure in processes.isolated(models.rows, a, b, places.requests["b"], timeout=1800):
            yield {"subject": "all", "row": "model", **figure}


def _many(places):
    if places.name == "nfs":
        for figure in processes.isolated(
            many.rows, *places.new(), places.requests["b"], timeout=300
        ):
            yield {"subject": "all", "row": "many", **figure}


def _sweep(places):
    yield from sweep.figures(places.new()[0], places.requests["a"])


_PARTS = {
    "caches": _caches,
    "lean": _lean,
    "memory": _memory,
    "cold": _cold,
    "large": large.rows,
    "flat": flat.rows,
    "many": _many,
    "answers": _answers,
    "survival": _survival,
    "checkpoints": _checkpoints,
    "updates": _updates,
    "imports": _imports,
    "models": _models,
    "sweep": _sweep,
}
