"""A mixed load over the whole library on two clients, under every kind of fault.

One client is a machine of its own. Links are cut, machines and processes frozen
or killed, and the server restarted; the history is checked at the end.
"""

import json
import os
import random
import shutil
import signal
import tempfile
import time

from tests.nfs.lab import Lab, missing
from tests.torture import Skip, history, workload
from tests.torture.power import Loaded, align, clock, judge_in_guest, run_for, run_until

LEASE = 10.0  # seconds, in the lab
# seconds after a fault: a lease, or the grace of a restarted server, is over and waiters have
# looked again
SETTLED = 20.0
MARGIN = 0.02  # seconds by which the clocks of two guests may differ


class Faults:
    """What goes wrong, one after the other; `windows` are (begin, end) by the server's clock."""

    def __init__(self, lab, load, rng, workers):
        self.lab, self.load, self.rng, self.workers = lab, load, rng, workers
        self.guests = {"a": lab.server, "c": lab.client("c") if "c" in lab._wires else None}
        if not self.guests["c"]:
            self.guests = {"a": lab.server, "b": lab.server}
        self.running = {client: [] for client in self.guests}
        self.windows, self.counts, self._base = [], {}, clock(lab.server)
        align(lab, *[guest for guest in self.guests.values() if guest is not lab.server])

    def start(self):
        for client in self.guests:
            while len(self.running[client]) < self.workers:
                process = self.load.start(self.guests[client], f"/mnt/{client}/all", client)
                self.running[client].append(process)

    def kinds(self):
        """The names of the faults that this lab can do."""
        return ["cut_short", "cut_long", "freeze_process", "kill_process", "restart"] + (
            ["freeze_machine", "kill_machine"] if "c" in self.guests else []
        )

    def do(self, name):
        begin = time.monotonic() + self._base
        print(f"partitions: {begin:.1f} {name}", flush=True)
        getattr(self, name)()
        self.windows.append((begin, time.monotonic() + self._base + SETTLED))
        self.counts[name] = self.counts.get(name, 0) + 1

    def _cut(self, seconds):
        client = self.rng.choice(list(self.guests))
        self.lab.cut(client)
        run_for(self.load, seconds)
        self.lab.heal(client)

    def cut_short(self):
        self._cut(self.rng.uniform(0.5, 0.7 * LEASE))

    def cut_long(self):
        self._cut(self.rng.uniform(1.3, 2.2) * LEASE)

    def freeze_machine(self):
        """As Lambda does between invocations: no lease is renewed."""
        self.guests["c"].freeze()
        run_for(self.load, self.rng.uniform(1.3, 2.0) * LEASE)
        self.guests["c"].thaw()

    def freeze_process(self):
        process = self.rng.choice(self.running[self.rng.choice(list(self.running))])
        process.signal(signal.SIGSTOP)
        run_for(self.load, self.rng.uniform(0.3, 1.5) * LEASE)
        process.signal(signal.SIGCONT)

    def kill_process(self):
        client = self.rng.choice(list(self.running))
        process = self.running[client].pop(self.rng.randrange(len(self.running[client])))
        process.kill()
        process.wait()
        run_for(self.load, 0.5)
        self.start()

    def kill_machine(self):
        """Cut the client's power.

        It comes back as a new machine of the same name, sooner or later.
        """
        self.load.drop(self.guests["c"])
        self.guests["c"].kill()
        run_for(self.load, self.rng.choice((0.0, 1.5 * LEASE)))
        guest = self.guests["c"] = self.lab.client("c")
        align(self.lab, guest)
        self.running["c"] = []
        self.start()

    def restart(self):
        self.lab.spawn(
            ["sh", "-c", f"rpc.nfsd 0; sleep {self.rng.choice((0, 0, 5))}; rpc.nfsd -N 3 -V 4.1 16"]
        ).output()

    def stop(self):
        """Kill every worker."""
        for client, processes in self.running.items():
            if client != "c":
                for process in processes:
                    process.kill()
        for client, processes in self.running.items():
            for process in processes:
                if client == "c":
                    process.kill()
                process.wait(60)
        now = time.monotonic() + self._base
        self.windows.append((now, now + SETTLED))


def record(
    seconds,
    seed,
    *,
    alone=True,
    workers=3,
    mix=workload.EVERYTHING,
    plant="",
    kinds=None,
    calm=(2, 8),
):
    """Return the history of one run: operations, fault windows, counts of faults, violations."""
    rng = random.Random(f"partitions {seed}")
    folder = tempfile.mkdtemp(prefix="efsstate-partitions-")
    lab = Lab(alone=("c",) if alone else ()).boot()
    try:
        lab.spawn(["mkdir", "-p", "/run/disk/export/all"]).output()
        load = Loaded(mix, seed, plant=plant)
        faults = Faults(lab, load, rng, workers)
        faults.start()
        run_until(load, 10)
        until, schedule = time.monotonic() + seconds, []
        while time.monotonic() < until:
            run_for(load, rng.uniform(*calm))
            if not schedule:
                schedule = list(kinds or faults.kinds())
                rng.shuffle(schedule)
            faults.do(schedule.pop())
        run_for(load, 5)  # healed: everybody goes on
        faults.stop()
        told = list(load.take())
        bad = judge_in_guest(lab, folder, "/mnt/b/all", "", told, 0, MARGIN)
    finally:
        lab.close()
        shutil.rmtree(folder, ignore_errors=True)
    return told, faults, bad


def check(told, windows):
    """Violations that only the fault windows tell, and figures."""
    bad, duplicates = history.check_flights(told, windows)
    errors = [one for one in told if one["op"] in ("error", "lost")]
    bad += [
        (f"{one['op']} with no fault near", one)
        for one in errors
        if not history.near([one], windows)
    ]
    longest = max(
        [one["t1"] - one["t0"] for one in told if not history.near([one], windows)], default=0
    )
    names = (
        "set",
        "get",
        "add",
        "compute",
        "append",
        "load",
        "claim",
        "shard",
        "publish",
        "activate",
        "model",
        "sweep",
        "clear",
    )
    return bad, {
        "operations": len(told),
        **{f"op_{name}": sum(one["op"] == name for one in told) for name in names},
        "claims_lost": sum(one["op"] == "lost" for one in told),
        "claims_refused": sum(one["op"] == "refused" for one in told),
        "errors_near_faults": sum(one["op"] == "error" for one in errors),
        "failures_forgiven": sum(one["op"] == "failure" for one in told),
        "duplicate_computations_near_faults": duplicates,
        "longest_staleness_s": round(history.staleness(told), 1),
        "longest_operation_away_from_faults_s": round(longest, 1),
    }


def show(bad, seed):
    for what, about in bad[:10]:
        print(
            f"partitions: VIOLATION: {what}, seed {seed}: {json.dumps(about, default=str)[:1200]}",
            flush=True,
        )


def planted(seed):
    """Return True if a library without its fencing look is found out.

    Each claim that outlived its lease goes on saving.
    """
    _, _, bad = record(
        1,
        seed,
        workers=2,
        mix="hold:3,append:1",
        plant="no_fencing",
        kinds=["freeze_machine"],
        calm=(4, 5),
    )
    return len(bad)


def run(seconds, seed):
    """About so long: {figure: number}; `violations` must be 0."""
    if reason := missing():
        raise Skip(reason)
    told, faults, bad = record(max(20, seconds - 90), seed)
    more, figures = check(told, faults.windows)
    bad += more
    show(bad, seed)
    kept = os.environ.get("EFSSTATE_TORTURE_HISTORY")
    if kept or bad:
        path = kept or os.path.join(tempfile.gettempdir(), f"efsstate-history-{seed}.json")
        with open(path, "w") as file:
            json.dump(
                {"told": told, "windows": faults.windows, "violations": bad}, file, default=str
            )
        print(f"partitions: the history is in {path}")
    found = 0
    for attempt in range(3):  # a claim must be held at the moment of the freeze
        found = found or planted(seed + attempt)
    if not found:
        bad.append(("a library without fencing was not noticed", ""))
    figures |= {f"fault_{name}": n for name, n in faults.counts.items()}
    return {
        "violations": len(bad),
        "faults": sum(faults.counts.values()),
        "planted_lack_of_fencing_found": found,
    } | figures
