"""Load: 200 processes on two clients with at most 1,024 descriptors each.

And a Managed Instance's 16 on a local folder.

No operation may fail, memory and descriptors stay flat, and the waits for one lock that many want
are measured.

python -m tests.torture.load PROCESSES SEED BUG THINK      in the guest: half on each client
"""

import json
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time

from efsstate import checkpoint
from efsstate.mount import root as roots
from efsstate.testing import Function
from tests.nfs.lab import Lab, missing
from tests.torture import Skip, history, planted
from tests.torture.power import Loaded, judge_in_guest, run_for
from tests.torture.workload import Worker

MIX = (
    "set:8,get:20,fresh:3,add:2,compute:6,append:2,load:4,shards:0.5,publish:0.02,serve:6,"
    "sweep:0.02,clear:0.02"
)
DESCRIPTORS = 1024
SAMPLE = 5.0  # seconds
QUEUE = 8  # one process in so many does nothing but wait for one lock
MEMORY = (
    2**18
)  # bytes of results that each process keeps: else a young cache's growth would look like a leak


class Patient(Worker):
    """A worker that pauses between operations, tells its size, or only queues for one lock."""

    def run_at_ease(self, think, until):
        names, weights = zip(
            *[(n, float(w)) for n, w in (one.split(":") for one in MIX.split(","))], strict=True
        )
        sample_at = 0.0
        while (now := time.monotonic()) < until:
            if now >= sample_at:
                self.tell(
                    {"op": "sample", "name": "", "who": self.who, "t0": now, "t1": now, **size()}
                )
                sample_at = now + SAMPLE
            self.once(self.rng.choices(names, weights)[0])
            time.sleep(self.rng.expovariate(1 / think) if think else 0)

    def queue(self, until):
        sample_at = 0.0
        while (now := time.monotonic()) < until:
            if now >= sample_at:
                self.tell(
                    {"op": "sample", "name": "", "who": self.who, "t0": now, "t1": now, **size()}
                )
                sample_at = now + SAMPLE
            self.once("wait_in_line")
            time.sleep(0.02)

    def wait_in_line(self):
        with checkpoint("queue", root=self.root, wait=120) as job:
            self.done("claim", job.name, epoch=job.epoch)
            job.save((job.state or 0) + 1)
        self.done("turn", job.name)


def size():
    """Return this process's own memory in KiB, its descriptors, and those but for kept folders."""
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    fds = len(os.listdir("/proc/self/fd")) - 1
    kept = sum(len(mount._folders) for mount in set(roots._known.values()))
    return {"kib": int(status["RssAnon"].split()[0]), "fds": fds, "unkept": fds - kept}


def processes(count, seed, plant, think):
    """In the guest: become so many processes, and never end."""
    if plant:
        getattr(planted, plant)()
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    # Every module is loaded before the forks: 200 processes that each import would take the guest
    # minutes.
    with tempfile.TemporaryDirectory() as folder:
        warm = Patient(folder, "warm", seed, tell=lambda _: None)
        for name in ("publish", *[one.partition(":")[0] for one in MIX.split(",")], "wait_in_line"):
            warm.once(name)
    for i in range(count):
        if os.fork():
            continue
        client = "ab"[i % 2]
        worker = Patient(f"/mnt/{client}/all", f"{client}{i}", seed, memory=MEMORY, slot=120)
        time.sleep(random.Random(f"{seed} {i}").random() * think)
        if i % QUEUE:
            worker.run_at_ease(think, float("inf"))
        else:
            worker.queue(float("inf"))
    while True:
        time.sleep(3600)


def record(seconds, seed, *, count=200, think=4.0, plant=""):
    """(operations, violations found afterwards) of so many seconds after the start of all."""
    folder = tempfile.mkdtemp(prefix="efsstate-load-")
    lab = Lab(mem="5G").boot()
    try:
        lab.spawn(["mkdir", "-p", "/run/disk/export/all"]).output()
        load = Loaded("", seed)
        load.run(lab, "tests.torture.load", count, seed, plant, think)
        limit = time.monotonic() + 240
        while (
            len({one["who"] for one in load.take() if one["op"] == "sample"}) < count
            and time.monotonic() < limit
        ):
            run_for(load, 1)
        run_for(load, seconds)
        told = list(load.take())
        # The rest is looked at while they work: the server is as busy as it was.
        checkable = [one for one in told if one["op"] in ("publish", "activate")]
        bad = judge_in_guest(lab, folder, "/mnt/b/all", "", checkable, 0)
    finally:
        lab.close()
        shutil.rmtree(folder, ignore_errors=True)
    return told, bad


def check(told):
    """Violations, and figures."""
    bad = [(one["op"], one) for one in told if one["op"] in ("error", "failure", "lost")]
    bad += [
        ("starved", one) for one in told if one["op"] == "refused" and one["name"] == "wait_in_line"
    ]
    bad += [
        ("the sweep told of errors", one) for one in told if one["op"] == "sweep" and one["errors"]
    ]
    bad += history.check_cache(told)
    bad += history.check_epochs(told)
    bad += history.check_models(told)
    more, _ = history.check_flights(told, [])
    bad += more
    grown, figures = growth([one for one in told if one["op"] == "sample"])
    return bad + grown, figures | queue_figures(told)


def growth(samples):
    """Whether a process grew between the second quarter of the time and the last."""
    first, last = min(one["t0"] for one in samples), max(one["t0"] for one in samples)
    quarter, by = (last - first) / 4, {}
    for one in samples:
        by.setdefault(one["who"], []).append(one)
    bad, grown = [], {"kib": [], "unkept": []}
    for who, mine in by.items():
        early = [one for one in mine if first + quarter <= one["t0"] < first + 2 * quarter]
        late = [one for one in mine if one["t0"] >= last - quarter]
        if not early or not late:
            continue
        for what, allowed in (("kib", 1024), ("unkept", 16)):
            before, after = (statistics.mean(one[what] for one in some) for some in (early, late))
            grown[what].append(after - before)
            if after > before * 1.03 + allowed:
                bad.append((f"{what} grows", {"who": who, "before": before, "after": after}))
    most = max(one["fds"] for one in samples)
    if most > DESCRIPTORS / 2:
        bad.append(("descriptors", {"most": most}))
    return bad, {
        "processes": len(by),
        "most_descriptors": most,
        "median_kib": statistics.median(one["kib"] for one in samples),
        "median_growth_kib": round(statistics.median(grown["kib"] or [0]), 1),
        "most_growth_kib": round(max(grown["kib"], default=0), 1),
        "most_growth_descriptors": round(max(grown["unkept"], default=0), 1),
    }


def queue_figures(told):
    """How long the one lock was waited for, and how evenly it went round."""
    waits, turns, began = [], {}, {}
    for one in told:
        began.setdefault(one["who"], one["t0"])
    all_there = max(began.values())
    for one in told:
        if one["op"] == "claim" and one["name"] == "queue" and one["t0"] >= all_there:
            waits.append(one["t1"] - one["t0"])
            turns[one["who"]] = turns.get(one["who"], 0) + 1
    if len(waits) < 2:
        return {"lock_turns": len(waits)}
    waits.sort()
    numbers = sorted(turns.values())
    return {
        "operations": sum(one["op"] != "sample" for one in told),
        "lock_turns": len(waits),
        "lock_waiters": len(turns),
        "lock_wait_median_s": round(waits[len(waits) // 2], 2),
        "lock_wait_p95_s": round(waits[len(waits) * 95 // 100], 2),
        "lock_wait_longest_s": round(waits[-1], 2),
        "lock_turns_least": numbers[0],
        "lock_turns_median": numbers[len(numbers) // 2],
        "lock_turns_most": numbers[-1],
        # 1: all had as many turns; 1/n: one had them all
        "lock_fairness": round(sum(numbers) ** 2 / (len(numbers) * sum(n * n for n in numbers)), 3),
    }


def managed(seconds, seed, *, count=16, plant=""):
    """The same of a Managed Instance's processes: one environment, one local folder."""
    root, told, lock = tempfile.mkdtemp(prefix="efsstate-load-"), [], threading.Lock()
    here = os.path.dirname(os.path.abspath(__file__))
    above = os.path.dirname(os.path.dirname(here))
    until, failed = time.monotonic() + seconds, []

    def call(number, function):
        calls = 0
        while time.monotonic() < until and len(failed) < 10:
            calls += 1
            result = function.invoke({"who": f"{number}.{calls}", "seed": seed})
            with lock:
                if result.error:
                    failed.append(
                        (
                            "an invocation failed",
                            {"error": result.error, "logs": result.logs[-500:]},
                        )
                    )
                else:
                    told.extend(result.value)

    environment = {"EFSSTATE_ROOT": root, "PYTHONPATH": above, "TORTURE_PLANT": plant}
    try:
        with Function(
            "managed.handler",
            path=here,
            environment=environment,
            timeout=120,
            memory=2048,
            concurrency=1,
            max_concurrency=count,
        ) as function:
            threads = [threading.Thread(target=call, args=(i, function)) for i in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return told, failed


def run(seconds, seed):
    """About so long: {figure: number}; `violations` must be 0."""
    if reason := missing():
        raise Skip(reason)
    told, bad = record(max(30, seconds * 0.8 - 24), seed)
    more, figures = check(told)
    bad += more
    told, failed = managed(max(15, seconds * 0.1), seed)
    more, managed_figures = check(told)
    bad += failed + more
    figures |= {f"managed_{name}": n for name, n in managed_figures.items()}
    found = [
        what
        for what, _ in check(managed(max(12, seconds * 0.03), seed, count=2, plant="leak")[0])[0]
    ]
    if not found:
        bad.append(("a leak was not noticed", ""))
    for what, about in bad[:10]:
        print(
            f"load: VIOLATION: {what}, seed {seed}: {json.dumps(about, default=str)[:800]}",
            flush=True,
        )
    return {"violations": len(bad), **figures, "planted_leak_found": len(found)}


if __name__ == "__main__":
    processes(int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
