"""Datasets on two real NFS clients: requests, and no part lost under kills and removals."""

import os
import random
import time

import pytest
from benchmarks.measure import Requests

import efsstate
from efsstate import CorruptEntryError, EfsStateError, PartRemoved, dataset
from efsstate.datasets import retention
from efsstate.format import dataset_layout as layout
from efsstate.mount import clock

pytestmark = pytest.mark.nfs


def count(requests, function, times=6):
    """Return the most requests that one of several calls takes, once the folders are warm."""
    function(), function()
    counts = []
    for _ in range(times):
        before = requests.settled()
        function()
        after = requests.settled()
        counts.append(sum(after.values()) - sum(before.values()))
    return max(counts)


def test_requests(lab):
    """An add is 4 requests, with a key 5; a frozen name opens in 3, a part is read in 3."""
    requests = {client: Requests(getattr(lab, client)) for client in "ab"}
    if not requests["a"].counted:
        pytest.skip("these are no NFS mounts: requests cannot be counted")
    ds, other = dataset("d", root=lab.a), dataset("d", root=lab.b)
    numbers, removed = iter(range(10_000)), map(str, range(100))
    assert count(requests["a"], lambda: ds.add(b"x" * 1024)) <= 4
    assert count(requests["a"], lambda: ds.add(b"x" * 1024, key=str(next(numbers)))) <= 5
    ds.freeze("run")
    assert count(requests["a"], lambda: ds.freeze("run")) <= 3
    assert count(requests["b"], lambda: other.at("run")) <= 2
    assert count(requests["b"], lambda: "1" in other) <= 5
    assert count(requests["b"], lambda: "nothing" in other) <= 3
    assert count(requests["a"], lambda: ds.remove(next(removed))) <= 4
    snapshot = other.at("run")
    parts = iter([part for part in snapshot if part not in snapshot.missing])
    assert count(requests["b"], lambda: list(snapshot.read([next(parts)], ahead=0))) <= 3


def write(root, seed, seconds):
    """Add keys that others add too, and print each one that is acknowledged."""
    chance, ds, end = random.Random(seed), dataset("d", root=root), time.monotonic() + seconds
    while time.monotonic() < end:
        key = str(chance.randrange(400))
        try:
            part = ds.add(f"{key} {'x' * chance.randrange(3000)}".encode(), key=key)
        except EfsStateError:
            continue  # its staged file was swept: nothing was acknowledged
        print(key, part.name if not part.removed else "-", flush=True)


def remove(root, seed, seconds):
    """Remove keys, and print each one whose removal is acknowledged."""
    chance, ds, end = random.Random(seed), dataset("d", root=root), time.monotonic() + seconds
    while time.monotonic() < end:
        key = str(chance.randrange(300, 400))
        ds.remove(key)
        print(key, "removed", flush=True)
        time.sleep(0.2)


def sweep(root, seconds):
    """Sweep the dataset again and again, taking staged files that are a second old."""
    retention.ABANDONED, end = 1.0, time.monotonic() + seconds
    ds = dataset("d", root=root)
    while time.monotonic() < end:
        folders = ds.folders(reading=False)
        folders.mount.ask_time(folders.folder)
        taken = list(retention.sweep(folders.mount, folders.folder, clock.now(), dry_run=False))
        print(len(taken), "swept", flush=True)
        time.sleep(0.3)


def lines_of(worker):
    """Return the whole lines that a worker printed before it ended."""
    lines = []
    while line := worker.readline(timeout=60):
        if line.endswith("\n"):
            lines.append(line.split())
    return lines


@pytest.mark.parametrize("seconds", [20, pytest.param(120, marks=pytest.mark.slow)])
def test_no_part_is_lost_or_doubled_under_faults(lab, seconds):
    """Writers of the same keys, killed, frozen and cut off, beside removals, sweeps, snapshots.

    It prints its table: `pytest -m nfs -rP tests/nfs/test_datasets.py -k "faults or power"`, with
    `-m "nfs and slow"` for the long run.
    """
    chance, started, cuts = random.Random(3), time.monotonic(), 0
    workers = [
        lab.start("ab"[i % 2], write, getattr(lab, "ab"[i % 2]), i, seconds) for i in range(4)
    ]
    workers.append(lab.start("b", remove, lab.b, 9, seconds))
    workers.append(lab.start("a", sweep, lab.a, seconds))
    everybody, frozen, ds = list(workers), [], dataset("d", root=lab.a)
    while time.monotonic() - started < seconds:
        time.sleep(1.5)
        sleeper, victim = chance.sample(range(4), 2)
        workers[sleeper].freeze()  # for longer than the sweep waits
        if len(frozen) % 10 == 5:
            cuts += 1
            lab.cut("b")
            time.sleep(2)
            lab.heal("b")
        workers[victim].kill()
        client = "ab"[victim % 2]
        left = max(1.0, seconds - (time.monotonic() - started))
        workers[victim] = lab.start(client, write, getattr(lab, client), len(everybody), left)
        everybody.append(workers[victim])
        frozen.append(ds.freeze(f"run {len(frozen)}"))
        workers[sleeper].thaw()
    for worker in workers:
        worker.wait(timeout=90)
    printed = [line for worker in everybody for line in lines_of(worker)]
    sweeps = [int(count) for count, what in printed if what == "swept"]
    acknowledged = [(key, part) for key, part in printed if part != "swept"]
    removed = {key for key, part in acknowledged if part == "removed"}
    told = {}
    for key, part in acknowledged:
        if part not in ("removed", "-"):
            told.setdefault(key, set()).add(part)
    assert len(told) > 100 and removed
    wrong = dict.fromkeys(("lost", "a key twice", "snapshots that differ", "damaged"), 0)
    for root in (lab.a, lab.b):
        present = {part.name: part for part in dataset("d", root=root).parts()}
        for key, parts in told.items():
            wrong["a key twice"] += len(parts) > 1
            wrong["lost"] += not parts <= present.keys() and key not in removed
        wrong["a key twice"] += len(present) - len({part.key for part in present.values()})
        whole = dataset("d", root=root).freeze("all")
        wrong["damaged"] += len([what for _, what in whole.verify() if what != "removed"])
        for snapshot in frozen:
            here = dataset("d", root=root).at(snapshot.name).names
            wrong["snapshots that differ"] += here != snapshot.names
            wrong["lost"] += len({what for _, what in snapshot.verify()} - {"removed"})
    show(
        {
            "seconds": seconds,
            "kills": len(everybody) - len(workers),
            "frozen writers": len(frozen),
            "partitions": cuts,
            "removals": sum(part == "removed" for _, part in acknowledged),
            "sweeps": len(sweeps),
            "staged files swept": sum(sweeps),
            "acknowledged": sum(part != "removed" for _, part in acknowledged),
            "keys": len(told),
            "snapshots": len(frozen),
            **wrong,
        }
    )
    assert not any(wrong.values()), wrong


def show(row):
    """Print a row of the table of faults, with its head."""
    print(f"\n| {' | '.join(row)} |\n|{'---|' * len(row)}")
    print(f"| {' | '.join(str(value) for value in row.values())} |", flush=True)


def test_a_removed_part_is_told_from_a_lost_one(lab):
    """The other client finds the mark, whatever it remembers of the folder."""
    ds, other = dataset("d", root=lab.a), dataset("d", root=lab.b)
    gone, lost = ds.add(b"1", key="gone"), ds.add(b"2", key="lost")
    snapshot = other.freeze("s")
    assert [bytes(data) for _, data in snapshot.read()].__len__() == 2
    ds.remove("gone")
    os.unlink(lost.path)
    with pytest.raises(PartRemoved):
        list(snapshot.read([part for part in snapshot if part.name == gone.name]))
    with pytest.raises(CorruptEntryError, match="lost"):
        list(snapshot.read([part for part in snapshot if part.name == lost.name]))


def plant(folder, count):
    """Make parts as writers made them, but on the server's disk at once."""
    os.makedirs(folder, exist_ok=True)
    for i in range(count):
        name = layout.part_name(layout.key_digest(str(i), None), 0, f"{i:032x}", ".bin")
        os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY, 0o600))


def test_a_snapshot_of_ten_thousand_parts(lab):
    """Frozen in 18 requests after another host's add, opened elsewhere in 13, and again in 4."""
    requests = {client: Requests(getattr(lab, client)) for client in "ab"}
    if not requests["a"].counted:
        pytest.skip("these are no NFS mounts: requests cannot be counted")
    plant(f"{lab.a}/datasets/d/parts", 10_000)
    ds, other = dataset("d", root=lab.b), dataset("d", root=lab.a)
    ds.freeze("warm", [])
    dataset("d", root=lab.a).add(b"x", key="one more")
    before = requests["b"].settled()
    began = time.monotonic()
    snapshot = ds.freeze("run")
    seconds = time.monotonic() - began
    after = requests["b"].settled()
    spent = {
        name: after[name] - before.get(name, 0)
        for name in after
        if after[name] != before.get(name, 0)
    }
    assert len(snapshot) == 10_001
    assert sum(spent.values()) <= 19, (spent, seconds)
    other.snapshots()
    before = requests["a"].settled()
    assert other.at("run").names == snapshot.names
    after = requests["a"].settled()
    assert sum(after.values()) - sum(before.values()) <= 14
    assert count(requests["a"], lambda: other.at("run")) <= 5
    print(f"10,001 parts: frozen in {seconds:.2f} s by {spent}")


CRASHING = """
import sys
sys.path.insert(0, {source!r})
from efsstate import dataset
ds = dataset("d", root="/mnt/a")
for i in range(10**6):
    part = ds.add(b"%d" % i * 100, key=str(i))
    print(part.name, flush=True)
    if i % 20 == 0:
        print("frozen", len(ds.freeze("run %d" % i)), flush=True)
"""
CHECKING = """
import sys
sys.path.insert(0, {source!r})
from efsstate import dataset
ds = dataset("d", root="/mnt/b")
print(*[part.name for part in ds.parts()])
print(*["%s=%d" % (name, len(ds.at(name))) for name in sorted(ds.snapshots())], sep=",")
print(sorted({{what for _, what in ds.freeze("all").verify()}}))
"""


def test_acknowledged_parts_survive_a_power_cut(boot):
    """Kill the server while a client adds and freezes: what it acknowledged is there, and whole."""
    source = os.path.dirname(os.path.dirname(efsstate.__file__))
    lab = boot(disk=True)
    writer = lab.python(CRASHING.format(source=source))
    lines = [writer.readline().split() for _ in range(80)]
    lines += [line.split() for line in writer.lines()]
    lab.kill()
    lab.boot()
    parts, snapshots, bad = lab.python(CHECKING.format(source=source)).output().splitlines()
    acknowledged = {line[0] for line in lines if len(line) == 1}
    assert len(acknowledged) > 50 and acknowledged <= set(parts.split())
    frozen = sum(line[0] == "frozen" for line in lines if line)
    show(
        {
            "power cuts": 1,
            "acknowledged parts": len(acknowledged),
            "acknowledged snapshots": frozen,
            "lost": len(acknowledged - set(parts.split())),
            "damaged": bad,
        }
    )
    assert len(snapshots.split(",")) >= frozen >= 3
    assert bad == "[]"
