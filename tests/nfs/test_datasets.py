"""Datasets on two real NFS clients: requests, and no part lost under kills and removals."""

import os
import random
import time

import pytest
from benchmarks.measure import Requests

from efsstate import CorruptEntryError, EfsStateError, PartRemoved, dataset

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
    numbers = iter(range(10_000))
    assert count(requests["a"], lambda: ds.add(b"x" * 1024)) <= 4
    assert count(requests["a"], lambda: ds.add(b"x" * 1024, key=str(next(numbers)))) <= 5
    ds.freeze("run")
    assert count(requests["a"], lambda: ds.freeze("run")) <= 3
    assert count(requests["b"], lambda: other.at("run")) <= 3
    snapshot = other.at("run")
    parts = iter(snapshot)
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


def lines_of(worker):
    """Return the whole lines that a worker printed before it ended."""
    lines = []
    while line := worker.readline(timeout=60):
        if line.endswith("\n"):
            lines.append(line.split())
    return lines


def test_no_part_is_lost_or_doubled_under_kills(lab):
    """Writers of the same keys on both clients, killed at random, beside removals and snapshots."""
    seconds, chance, started = 14, random.Random(3), time.monotonic()
    workers = [
        lab.start("ab"[i % 2], write, getattr(lab, "ab"[i % 2]), i, seconds) for i in range(4)
    ]
    workers.append(lab.start("b", remove, lab.b, 9, seconds))
    everybody, frozen, ds = list(workers), [], dataset("d", root=lab.a)
    while time.monotonic() - started < seconds:
        time.sleep(1.5)
        victim = chance.randrange(4)
        workers[victim].kill()
        client = "ab"[victim % 2]
        left = max(1.0, seconds - (time.monotonic() - started))
        workers[victim] = lab.start(client, write, getattr(lab, client), len(everybody), left)
        everybody.append(workers[victim])
        frozen.append(ds.freeze(f"run {len(frozen)}"))
    for worker in workers:
        worker.wait(timeout=90)
    acknowledged = [line for worker in everybody for line in lines_of(worker)]
    removed = {key for key, part in acknowledged if part == "removed"}
    told = {}
    for key, part in acknowledged:
        if part not in ("removed", "-"):
            told.setdefault(key, set()).add(part)
    assert len(told) > 100 and removed
    for root in (lab.a, lab.b):
        present = {part.name: part for part in dataset("d", root=root).parts()}
        for key, parts in told.items():
            assert len(parts) == 1, f"{key}: two parts were acknowledged"
            assert (parts <= present.keys()) or key in removed, f"{key}: lost"
        assert len({part.key for part in present.values()}) == len(present), "a key twice"
        whole = dataset("d", root=root).freeze("all")
        assert [what for _, what in whole.verify() if what != "removed"] == []
        for snapshot in frozen:
            assert dataset("d", root=root).at(snapshot.name).names == snapshot.names
            assert {what for _, what in snapshot.verify()} <= {"removed"}


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
