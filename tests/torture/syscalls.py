"""Process death, and errors, at every system call of every operation that writes.

What is promised holds after each.

After each fault, seen by a process of its own: what was acknowledged is there; else the old state
or the new one, whole; a cache's caller got its result; no descriptor leaked; an error names a path;
and the same operation, done again, succeeds.
"""

import itertools
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import warnings

import efsstate
from efsstate import Cache, cached, checkpoint, publish
from efsstate.format import layout
from tests import faults
from tests.torture import Skip

ERRORS = ["EIO", "ENOSPC", "EDQUOT", "ESTALE", "EACCES", "EROFS", "EINTR", "EMFILE"]
OLD, NEW = {"n": 1, "pad": "o" * 3000}, {"n": 2, "pad": "n" * 5000}
LIMITS = [0, 1, 40, 200, 3000]  # bytes


# What the operations begin from


def _caches(root):
    cache = Cache("c", root=root)
    cache.set("kept", OLD)
    cache.set("k", OLD)


def _jobs(root):
    with checkpoint("job", root=root) as job:
        for n in range(5):
            job.save(OLD | {"n": n})
        job.save(OLD)


def _models(root):
    for n, text in enumerate(["one", "two", "three"]):
        with open(f"{root}/../source", "w") as file:
            file.write(text * 1000)
        publish("m", f"{root}/../source", version=f"v{n}", activate=not n, root=root)
        manifest = f"{root}/models/m/versions/v{n}/.efsstate-manifest"
        os.utime(manifest, (time.time() - 10**6 + n,) * 2)


def _all(root):
    _caches(root)
    _jobs(root)
    _models(root)
    Cache("short", ttl=0.001, root=root).set("k", OLD)
    time.sleep(0.01)
    left = f"{root}/cache/c/a/.tmp-1ef71ef71ef71ef71ef71ef7"
    os.makedirs(os.path.dirname(left), exist_ok=True)
    open(left, "w").close()
    os.utime(left, (1, 1))


# What is seen afterwards, by somebody who comes new


def _see_caches(root):
    cache = Cache("c", root=root)
    return {"k": cache.get("k", fresh=True), "kept": cache.get("kept", fresh=True)}


def _see_job(root):
    job = checkpoint("job", root=root)
    return {"state": job.load(), "finished": job.finished, "result": job.result}


def _see_models(root):
    found = {one.id: one.active for one in efsstate.versions("m", root=root)}
    problems = efsstate.verify("m", root=root)
    assert not problems, problems
    model = efsstate.model("m", load=lambda files: bytes(files.read(files.names[-1])), root=root)
    return {
        "versions": sorted(found),
        "active": [version for version in found if found[version]],
        "content": model()[:3],
    }


def _see_all(root):
    return _see_caches(root) | {"job": _see_job(root), "models": _see_models(root)}


# The operations: what comes between the two yields


def put(root):
    cache = Cache("c", root=root)
    cache.get("k")
    yield
    cache.set("k", NEW)


def put_first(root):
    cache = Cache("c", root=root)
    yield
    cache.set("k", NEW)


def computed(root):
    @cached(name="c2", root=root)
    def work(n):
        return NEW

    yield
    yield work(1) == NEW


def hit(root):
    cache = Cache("c", root=root)
    yield
    yield cache.get("k", OLD) == OLD


def stale(root):
    @cached(name="c", ttl=0.001, stale="1h", root=root)
    def work(n):
        return NEW

    work(1)
    time.sleep(0.005)
    yield
    yield work(1) == NEW


def add(root):
    cache = Cache("c", root=root)
    cache.delete("k")
    yield
    cache.add("k", NEW)


def delete(root):
    cache = Cache("c", root=root)
    yield
    yield cache.delete("k")


def invalidate(root):
    cache = Cache("c", root=root)
    yield
    cache._results.attempt("invalidate", lambda: cache._results.remove(cache._keys.digest("k")))


def refresh(root):
    @cached(name="c3", root=root)
    def work(n):
        return NEW

    work(1)
    yield
    yield work.refresh(1) == NEW


def clear(root):
    cache = Cache("c", root=root)
    yield
    cache.clear()


def trim(root):
    from efsstate.eviction import trim as opportunistic

    cache = Cache("c", max_bytes=1, root=root)
    cache.get("k")
    opportunistic._due[(root, "c")] = 0.0
    yield
    cache.set("k", NEW)


def claim(root):
    job = checkpoint("job", root=root)
    yield
    job.__enter__()
    yield "claimed"


def save(root):
    with checkpoint("job", root=root) as job:
        yield
        job.save(NEW)
        yield "saved"


def first_save(root):
    with checkpoint("other", root=root) as job:
        yield
        job.save(NEW)
        yield "saved"


def finish(root):
    with checkpoint("job", root=root) as job:
        job.state = NEW
        yield
        job.finish("done")
        yield "finished"


def reset(root):
    job = checkpoint("job", root=root)
    yield
    job.reset()
    yield "reset"


def update(root):
    job = checkpoint("job", root=root)
    yield
    yield job.update(lambda state: NEW)["n"]


def resumed(root):
    job = checkpoint("job", root=root)
    yield
    with job:
        for item in job.resume(range(5), every=1):
            job.state = NEW if item == 4 else OLD
    yield "resumed"


def load(root):
    job = checkpoint("job", root=root)
    yield
    yield job.load()["n"]


def shards(root):
    job = checkpoint("parts", root=root)
    yield
    with job.shards(2) as parts:
        for part in parts:
            part.finish()
    yield "shards"


def break_claim(root):
    job = checkpoint("job", root=root)
    yield
    job.break_claim()
    yield "broken"


def published(root):
    source = f"{root}.source"
    os.makedirs(f"{source}/sub", exist_ok=True)
    for name in ("weights", "sub/more"):
        with open(f"{source}/{name}", "w") as file:
            file.write("new" * 2000)
    yield
    yield publish("m", source, version="v9", root=root)


def activate(root):
    yield
    efsstate.activate("m", "v2", root=root)
    yield "active"


def prune(root):
    yield
    yield efsstate.prune("m", keep=1, grace="1h", root=root)


def _text(path):
    """What a user's own function reads; its errors are its own, and Python's name no path."""
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        error.filename = path
        raise


def stage(root):
    os.environ["TMPDIR"] = f"{root}.tmp"
    os.makedirs(f"{root}.tmp", exist_ok=True)
    yield
    model = efsstate.model("m", load=lambda files: _text(files.stage()), root=root)
    yield model()[:3] == "one"


def swept(root):
    yield
    efsstate.sweep(root=root)
    yield False  # it promises nothing: what it could not sweep, the next does


def _see_shards(root):
    return _see_all(root) | {"shards": checkpoint("parts", root=root).shards(2).progress().done}


def _see_other(root):
    return {"other": checkpoint("other", root=root).load(), "job": _see_job(root)["state"]}


def _see_computed(root):
    return _see_caches(root) | {"c2": Cache("c2", root=root).keys() is not None}


def _whatever(_before, _after, seen):
    return seen["kept"] == OLD or seen["kept"] is None


def _between(before, after, seen):
    """Every version that is there is whole; the active one is; some that may go have gone."""
    return (
        set(after["versions"]) <= set(seen["versions"]) <= set(before["versions"])
        and seen["active"] == after["active"]
    )


# name: (start, operation, what is seen, fails open, which states may be seen after a fault besides
# the old and the new one)
OPERATIONS = {
    "put": (_caches, put, _see_caches, True, None),
    "put, first": (_caches, put_first, _see_caches, True, None),
    "computed": (_caches, computed, _see_computed, True, None),
    "hit": (_caches, hit, _see_caches, True, None),
    "stale": (_caches, stale, _see_caches, True, None),
    "add": (_caches, add, _see_caches, True, None),
    "delete": (_caches, delete, _see_caches, True, None),
    "invalidate": (_caches, invalidate, _see_caches, True, None),
    "refresh": (_caches, refresh, _see_caches, True, None),
    "clear": (_caches, clear, _see_caches, True, _whatever),
    "trim": (
        _caches,
        trim,
        _see_caches,
        True,
        lambda _b, _a, seen: all(one in (None, OLD, NEW) for one in seen.values()),
    ),
    "claim": (_jobs, claim, _see_job, False, None),
    "save": (_jobs, save, _see_job, False, None),
    "save, first": (_jobs, first_save, _see_other, False, None),
    "finish": (_jobs, finish, _see_job, False, None),
    "reset": (_jobs, reset, _see_job, False, None),
    "update": (_jobs, update, _see_job, False, None),
    "resume": (
        _jobs,
        resumed,
        _see_job,
        False,
        lambda _b, _a, seen: not seen["finished"] and seen["state"] in (OLD, NEW),
    ),
    "load": (_jobs, load, _see_job, False, None),
    "shards": (
        _all,
        shards,
        _see_shards,
        False,
        lambda b, _a, seen: (
            0 <= seen["shards"] <= 2 and {**seen, "shards": 0} == {**b, "shards": 0}
        ),
    ),
    "break_claim": (_jobs, break_claim, _see_job, False, None),
    "publish": (
        _models,
        published,
        _see_models,
        False,
        lambda b, a, seen: seen["versions"] == a["versions"] and seen["active"] == b["active"],
    ),
    "activate": (_models, activate, _see_models, False, None),
    "prune": (_models, prune, _see_models, False, _between),
    "stage": (_models, stage, _see_models, False, None),
    "sweep": (
        _all,
        swept,
        _see_all,
        False,
        lambda b, a, seen: (
            {**seen, "models": 0} == {**b, "models": 0}
            and _between(b["models"], a["models"], seen["models"])
        ),
    ),
}


class Trial:
    """One operation, and the roots that it is done on."""

    def __init__(self, name, folder):
        self.name = name
        self.start, self.act, self.look, self.open, self.between = OPERATIONS[name]
        self._folder, self._count = folder, itertools.count()
        first = self._path()
        os.makedirs(first, 0o700)
        faults.elsewhere(self.start, first)
        self.template = first
        self.before = faults.elsewhere(self.look, self.fresh())
        warmed, clean = self.fresh(), self.fresh()
        faults.warm(lambda: self.act(warmed))
        self.calm = faults.run(lambda: self.act(clean))
        assert self.calm.how == "returned", f"{name}: {self.calm}"
        self.after = faults.elsewhere(self.look, clean)
        self.clean(clean)

    def _path(self):
        return f"{self._folder}/{self.name.replace(', ', '-')}{next(self._count)}/root"

    def fresh(self):
        """A root as the operation begins from."""
        root = self._path()
        shutil.copytree(os.path.dirname(self.template), os.path.dirname(root), symlinks=True)
        return root

    @staticmethod
    def clean(root):
        shutil.rmtree(os.path.dirname(root), ignore_errors=True)

    def calls(self):
        root = self.fresh()
        try:
            return faults.calls(lambda: self.act(root))
        finally:
            self.clean(root)

    def faults(self):
        """Every fault that it is tried with."""
        calls = self.calls()
        for call in calls:
            yield {"kill": call}
        for call in calls:
            if call[0] in faults.DISK:
                for error in ERRORS:
                    yield {"call": call, "error": error}
        transfers = sum(
            name in ("read", "write", "writev", "pread64", "pwrite64", "readv", "preadv")
            for name, _ in calls
        )
        for n in range(1, transfers + 1):
            yield {"short": n}
        for n in range(1, sum(name == "close" for name, _ in calls) + 1):
            for error in ("EIO", "ENOSPC", "EDQUOT"):
                yield {"close": error, "nth": n}
        for size in LIMITS:
            yield {"limit": size}

    def attempt(self, fault):
        """(whether the fault was met, what is wrong, as texts)."""
        root = self.fresh()
        try:
            outcome = faults.run(lambda: self.act(root), **fault)
            return outcome.injected, list(self._judge(root, fault, outcome))
        finally:
            self.clean(root)

    def _judge(self, root, fault, outcome):
        if outcome.how == "hung":
            yield f"it did not come to an end: {outcome}"
            return
        if outcome.how == "raised":
            if self.open:
                yield f"a cache raised {outcome.kind}: {outcome.error}"
            elif not ("OSError" in outcome.kind or "EfsStateError" in outcome.kind):
                yield f"an undocumented error: {outcome.kind}: {outcome.error}"
            elif (
                root not in outcome.error
                and f"{root}.tmp" not in outcome.error
                and f"{root}.source" not in outcome.error
            ):
                yield f"an error that names no path of ours: {outcome.kind}: {outcome.error}"
        if (
            outcome.how == "returned"
            and self.open
            and outcome.value is False
            and self.name != "delete"
        ):
            yield "the caller did not get its result"
        if outcome.descriptors > max(self.calm.descriptors, 0) + (
            outcome.how == "raised" and "ClaimLost" in outcome.kind
        ):
            yield f"{outcome.descriptors - self.calm.descriptors} descriptors leaked: {outcome}"
        try:
            seen = faults.elsewhere(self.look, root)
        except AssertionError as error:
            yield f"after it, nobody can read: {error}"
            return
        kept = (
            outcome.how == "returned"
            and (not self.open or self.name == "delete")
            and outcome.value is not False
        )
        if kept and seen != self.after:
            yield f"acknowledged, and not there: {seen!r:.400}"
        elif (
            seen not in (self.before, self.after)
            and not (self.between and self.between(self.before, self.after, seen))
            and not (self.open and _misses(self.before, self.after, seen))
        ):
            yield f"neither the old state nor the new: {seen!r:.400}"
        if outcome.how == "raised" and fault.get("call", ("",))[0] != "unlinkat":
            left = [
                name
                for _, folders, files in os.walk(root)
                for name in folders + files
                if layout.is_temporary(name) and name != ".tmp-1ef71ef71ef71ef71ef71ef7"
            ]
            if left and self.name not in (
                "publish",
                "prune",
            ):  # what a publication could do goes on from there
                yield f"temporaries are left: {left}"
        again = faults.run(lambda: self.act(root))
        if again.how != "returned" or (
            self.open and self.name != "delete" and again.value is False
        ):
            if "is finished, and stays so" in again.error and seen == self.after:
                return
            yield f"done again, it fails: {again}"
            return
        seen = faults.elsewhere(self.look, root)
        if seen != self.after and self.name not in ("clear", "trim"):
            yield f"done again, it is not as it should be: {seen!r:.400}"


def _misses(before, after, seen):
    """A cache may forget, and never gives anything else."""
    return all(seen[key] in (None, before[key], after[key]) for key in seen)


def trials(names, seconds, seed, say=print, most=None):
    """Try faults in a random order until the time is up, all were tried, or `most` of each."""
    if faults.MISSING:
        raise Skip(faults.MISSING)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    chance = random.Random(seed)
    figures = {
        "operations": len(names),
        "points": 0,
        "faults": 0,
        "kills": 0,
        "errors": 0,
        "transfers": 0,
        "violations": 0,
    }
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    try:
        with tempfile.TemporaryDirectory(dir=base) as folder:
            queues = []
            for name in names:
                trial = Trial(name, folder)
                queue = list(trial.faults())
                figures["points"] += len(queue)
                chance.shuffle(queue)
                queues.append((trial, queue[:most]))
            until = time.monotonic() + seconds
            while any(queue for _, queue in queues) and time.monotonic() < until:
                for trial, queue in queues:
                    if not queue or time.monotonic() >= until:
                        continue
                    fault = queue.pop()
                    met, wrong = trial.attempt(fault)
                    figures["faults"] += met
                    kind = (
                        "kills" if "kill" in fault else "errors" if "call" in fault else "transfers"
                    )
                    figures[kind] += met
                    for text in wrong:
                        figures["violations"] += 1
                        say(f"VIOLATION {trial.name} {fault}: {text}", flush=True)
    finally:
        logging.disable(logging.NOTSET)
    return figures


def run(seconds, seed):
    figures = trials(list(OPERATIONS), seconds, seed)
    if not figures["faults"]:
        print("VIOLATION no fault was met", flush=True)
        figures["violations"] += 1
    return figures


if __name__ == "__main__":  # NAMES SEED MOST: its figures as JSON, after what is wrong
    chosen, given_seed, each = sys.argv[1:]
    print(json.dumps(trials(chosen.split(";"), 600, int(given_seed), most=int(each))))
