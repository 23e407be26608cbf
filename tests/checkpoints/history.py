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

Workers that go through items with `map` record each item that they did, and its reference is their
number: an item counts only if it is in a record by then.

  skipped  a load or a claim counts an item that nobody did
  early    a job is finished, and not all of its items were done
  torn     a state is not that of the items that are counted with it
"""

import json
import os
import random
import signal
import time
from collections import Counter, defaultdict

from efsstate import ClaimedError, ClaimLost, CorruptEntryError, checkpoint
from efsstate.checkpoints import crew, newest, protocol

START = "start"
ITEMS = 60  # of each job that workers go through with `map`


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

    elif bug == "a map counts what was begun":

        def count_begun(self, task):
            finish(self, task)
            loop = self._loop
            if self.tasks and loop.items < self._items:
                loop.next_position, loop.next_items = self._items, self._items
                loop.finish_item(time.monotonic())

        finish, crew.Window.finish = crew.Window.finish, count_begun


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


class Failed(Exception):  # noqa: N818 - the work failed
    """The work on an item failed."""


def work_by_map(root, path, until, seed, bug=None):
    """Go through one job after the other with `map`, in four threads; some items fail."""
    break_rule(bug)
    chance, record = random.Random(seed), Record(path)
    number = 0
    while time.monotonic() < until:
        name = f"map-{number}"

        def do(item, name=name):
            time.sleep(chance.choice([0, 0.002, 0.02]))
            if chance.random() < 0.01:
                raise Failed
            record.note(op="item", phase="ok", job=name, item=item)
            return item

        job = checkpoint(name, root=root, wait=1)
        try:
            with job:
                note_progress(record, "claim", "ok", job)
                every = chance.choice([1, 5, "0.1s"])
                for result in job.map(do, range(ITEMS), workers=4, every=every):
                    job.state = [*(job.state or []), result]
                    if time.monotonic() > until:
                        break
        except (ClaimedError, ClaimLost, Failed) as error:
            record.note(op="map", phase=type(error).__name__)
        except (OSError, CorruptEntryError) as error:
            record.note(op="map", phase="error", error=repr(error))
        number += job.finished
        time.sleep(chance.random() * 0.02)


def note_progress(record, op, phase, job):
    """Note how far a job is, as its checkpoint says."""
    record.note(
        op=op,
        phase=phase,
        job=job.name,
        items=job.items,
        finished=job.finished,
        state=job.state,
    )


def read_maps(root, path, until, seed):
    """Load the jobs that workers go through with `map`, again and again."""
    chance, record, number = random.Random(seed), Record(path), 0
    while time.monotonic() < until:
        job = checkpoint(f"map-{number}", root=root)
        try:
            job.load()
        except (OSError, CorruptEntryError) as error:
            record.note(op="load", phase="error", error=repr(error))
        else:
            note_progress(record, "load", "unsettled" if job.unsettled else "ok", job)
        number += job.finished
        time.sleep(chance.choice([0, 0.005, 0.05]))


def finish_maps(root, path):
    """Go through what the workers left, without a fault."""
    record, number = Record(path), 0
    while os.path.exists(os.path.join(root, "checkpoints", f"map-{number}")):
        job = checkpoint(f"map-{number}", root=root, wait="30s")
        with job:
            for item in job.resume(range(ITEMS)):
                record.note(op="item", phase="ok", job=job.name, item=item)
                job.state = [*(job.state or []), item]
        note_progress(record, "load", "ok", job)
        number += 1
    return number


def check_maps(lines):
    """(counts, violations) of a record's lines: the items that a job counts were done by then."""
    counts, violations, done = Counter(), [], defaultdict(set)
    for e in sorted(lines, key=lambda e: e["t"]):
        counts[f"{e['op']} {e['phase']}"] += 1
        if e["op"] == "item":
            counts["items again"] += e["item"] in done[e["job"]]
            done[e["job"]].add(e["item"])
        elif e["phase"] == "error" and "CorruptEntryError" in e["error"]:
            violations.append(("gone", e, None))
        elif "items" in e:
            missing = set(range(e["items"])) - done[e["job"]]
            if missing:
                violations.append(("skipped", e, sorted(missing)))
            if e["finished"] and len(done[e["job"]]) < ITEMS:
                violations.append(("early", e, None))
            if (e["state"] or []) != list(range(e["items"])):
                violations.append(("torn", e, None))
    return counts, violations


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
        by_map=False,
    ):
        self.work, self.readers = (work_by_map, [read_maps]) if by_map else (work, [read, poll])
        self.check = check_maps if by_map else check
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
            self.add(self.work, where, self.workers, self.bug)
        for where in clients:
            for reader in self.readers:
                self.add(reader, where, self.others)
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
                self.add(self.work, where, self.workers, self.bug)
            elif fault == "freeze":
                if worker.pid not in [pid for _, pid in frozen]:
                    os.kill(worker.pid, signal.SIGSTOP)
                    frozen.append((time.monotonic() + self.chance.choice([0.1, 1, 3]), worker.pid))
            elif fault == "break":
                root = self.roots[self.chance.choice(clients)]
                try:
                    jobs = os.listdir(os.path.join(root, "checkpoints"))
                    newest_job = max(jobs, key=lambda name: (len(name), name))
                    checkpoint(newest_job, root=root).break_claim()
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
        return self.check(lines(self.paths))
