"""Histories: workers, readers and pollers that record every operation, faults among them.

And the check of the record.

A save's state is its own identity and that of the state that it was built on, so the saves form a
tree, and a history is
linearizable if what was acknowledged lies on one path of it, and everybody finds at least what the
past obliges to:

  fork     two acknowledged saves of which neither was built on the other
  lost     a load or claim that began after a save was acknowledged, and has a state not built on it
  undone   a load that began after another load had ended, and has a state not built on that one's
  unknown  a load has a state that nobody had begun to save
  gone     a load or claim is refused for damage, though nobody damaged anything
"""

import json
import os
import random
import signal
import time
from collections import Counter

from efsstate import ClaimedError, ClaimLost, CorruptEntryError, checkpoint
from efsstate.checkpoints import newest, protocol

START = "start"


class Record:
    """A line a moment, into a file on a local disk: what was written there survives a kill."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, **what):
        os.write(
            self.fd,
            json.dumps({"t": time.monotonic(), "pid": os.getpid(), **what}).encode() + b"\n",
        )


def new_id():
    return os.urandom(6).hex()


def break_rule(bug):
    """Bugs to be put in on purpose."""
    if bug == "no look after a save":
        protocol.CheckpointFolder._require_top = lambda *_: None
    elif bug == "a claim does not list again":
        look_after = protocol.CheckpointFolder._list_after

        def first(self, name, reader):
            if name[0] == "e":
                return self._first_listing
            return look_after(self, name, reader)

        listing = newest.Listing
        protocol.CheckpointFolder._list_after = first

        def claim(self, note, **options):
            self._first_listing = listing(self.mount.names(self.folder))
            time.sleep(0.02)
            return plain(self, note, **options)

        plain, protocol.CheckpointFolder.claim = protocol.CheckpointFolder.claim, claim


def work(root, path, until, seed, bug=None):
    """Claim, save a few times, leave, again and again."""
    break_rule(bug)
    chance, record = random.Random(seed), Record(path)
    while time.monotonic() < until:
        claim = new_id()
        record.note(op="claim", id=claim, phase="begin")
        try:
            with checkpoint("job", root=root, wait=1, keep=chance.choice([1, 2, 3])) as job:
                state = job.state or {"id": START}
                record.note(op="claim", id=claim, phase="ok", state=state["id"], epoch=job.epoch)
                for _ in range(chance.choice([1, 3, 20])):
                    if time.monotonic() > until:
                        break
                    mine = {"id": new_id(), "on": state["id"]}
                    record.note(op="save", phase="begin", **mine)
                    try:
                        job.save({**mine, "padding": b"x" * chance.choice([0, 900, 900, 70_000])})
                    except OSError as error:
                        record.note(op="save", phase="error", error=str(error), **mine)
                    else:
                        record.note(op="save", phase="ok", **mine)
                    state = mine
                    time.sleep(chance.choice([0, 0, 0.002, 0.03]))
        except ClaimedError:
            record.note(op="claim", id=claim, phase="refused")
        except ClaimLost:
            record.note(op="claim", id=claim, phase="lost")
        except (OSError, CorruptEntryError) as error:
            record.note(op="claim", id=claim, phase="error", error=repr(error))
        time.sleep(chance.random() * 0.05)


def read(root, path, until, seed):
    """Load again and again."""
    chance, record = random.Random(seed), Record(path)
    job = checkpoint("job", root=root)
    while time.monotonic() < until:
        load = new_id()
        record.note(op="load", id=load, phase="begin")
        try:
            state = job.load({"id": START})
        except (OSError, CorruptEntryError) as error:
            record.note(op="load", id=load, phase="error", error=repr(error))
        else:
            record.note(
                op="load", id=load, phase="unsettled" if job.unsettled else "ok", state=state["id"]
            )
        time.sleep(chance.choice([0, 0.005, 0.05]))


def poll(root, path, until, seed):
    """Keep whatever is in the folder open for a while, as a backup or an indexer does."""
    chance, here = random.Random(seed), os.path.join(root, "checkpoints", "job")
    while time.monotonic() < until:
        held = []
        try:
            for name in os.listdir(here):
                if "-" in name:
                    held.append(os.open(os.path.join(here, name), os.O_RDONLY))
                    os.read(held[-1], 100)
        except OSError:
            pass
        time.sleep(chance.random() * 2)
        for fd in held:
            os.close(fd)


def check(lines):
    """(counts, violations) of a record's lines."""
    events = sorted(lines, key=lambda e: e["t"])
    counts, violations = Counter(), []
    on, depth, began = {}, {START: 0}, {START: 0.0}
    for e in events:
        counts[f"{e['op']} {e['phase']}"] += 1
        if e["op"] == "save" and e["phase"] == "begin":
            on[e["id"]], began[e["id"]] = e["on"], e["t"]
            depth[e["id"]] = depth.get(e["on"], 0) + 1

    def builds_on(state, older):
        while state is not None and depth.get(state, 0) > depth[older]:
            state = on.get(state)
        return state == older

    acknowledged = shown = START  # the deepest so far
    begun = {}
    for e in events:
        op, phase = e["op"], e["phase"]
        if phase == "begin" and op != "save":
            begun[e["id"]] = acknowledged, shown
        elif op == "save" and phase == "ok":
            if builds_on(e["id"], acknowledged):
                acknowledged = e["id"]
            elif not builds_on(acknowledged, e["id"]):
                violations.append(("fork", e, acknowledged))
        elif phase == "error" and "CorruptEntryError" in e["error"]:
            violations.append(("gone", e, None))
        elif phase in ("ok", "unsettled") and op in ("claim", "load"):
            state, (need, before) = e["state"], begun[e["id"]]
            if state not in began or began[state] > e["t"]:
                violations.append(("unknown", e, None))
            elif not builds_on(state, need):
                violations.append(("lost", e, need))
            elif op == "load" and phase == "ok":
                if not builds_on(state, before):
                    violations.append(("undone", e, before))
                elif builds_on(state, shown):
                    shown = state
    return counts, violations


def lines(paths):
    for path in paths:
        with open(path) as file:
            yield from (json.loads(line) for line in file if line.endswith("\n"))


class Play:
    """Runs a history: `start(where, function, *arguments)` gives a process with `pid`.

    `kill()` and `close()`.
    """

    def __init__(
        self,
        start,
        roots,
        folder,
        seconds,
        seed,
        *,
        bug=None,
        faults=("kill", "freeze", "break"),
        special=None,
    ):
        self.start, self.roots, self.folder, self.bug = start, roots, str(folder), bug
        self.chance, self.until = random.Random(seed), time.monotonic() + seconds
        self.faults, self.special, self.done = faults, special or {}, Counter()
        self.paths, self.workers, self.others = [], [], []

    def add(self, function, where, into, *more):
        path = os.path.join(self.folder, f"{len(self.paths)}.jsonl")
        self.paths.append(path)
        open(path, "w").close()
        into.append(
            (
                where,
                self.start(
                    where,
                    function,
                    self.roots[where],
                    path,
                    self.until,
                    self.chance.random(),
                    *more,
                ),
            )
        )

    def thaw(self, pid):
        if pid in [worker.pid for _, worker in self.workers]:  # else it was killed as it was
            os.kill(pid, signal.SIGCONT)

    def run(self):
        clients = list(self.roots)
        for where in clients * 2:
            self.add(work, where, self.workers, self.bug)
        for where in clients:
            self.add(read, where, self.others)
            self.add(poll, where, self.others)
        frozen, last = [], self.until + 90
        while time.monotonic() < self.until:
            time.sleep(self.chance.random() * 0.4)
            for item in [item for item in frozen if item[0] < time.monotonic()]:
                frozen.remove(item)
                self.thaw(item[1])
            fault = self.chance.choice(self.faults)
            self.done[fault] += 1
            index = self.chance.randrange(len(self.workers))
            where, worker = self.workers[index]
            if fault == "kill":
                worker.kill()
                del self.workers[index]
                self.add(work, where, self.workers, self.bug)
            elif fault == "freeze":
                if worker.pid not in [pid for _, pid in frozen]:
                    os.kill(worker.pid, signal.SIGSTOP)
                    frozen.append((time.monotonic() + self.chance.choice([0.1, 1, 3]), worker.pid))
            elif fault == "break":
                try:
                    checkpoint("job", root=self.roots[self.chance.choice(clients)]).break_claim()
                except (OSError, CorruptEntryError):
                    pass
            else:
                self.special[fault]()
        for _, pid in frozen:
            self.thaw(pid)
        for _, process in self.workers + self.others:
            try:
                process.wait(max(1, last - time.monotonic()))
            finally:
                process.kill()
        return check(lines(self.paths))
