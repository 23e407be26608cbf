"""The budgets that are counts of requests, on two real clients, measured as in the benchmarks."""

import os
import time

import pytest
from benchmarks.budgets import REQUESTS
from benchmarks.measure import Requests

from benchmarks import caches, checkpoints, subjects

pytestmark = pytest.mark.nfs


def hold(figures):
    """Each figure's requests are within its budget, and its answers were right."""
    kept = 0
    for figure in figures:
        most = REQUESTS.get(figure["row"], (None, None))[1]
        if most is not None:
            kept += 1
            assert round(figure["requests"], 2) <= most, (
                f"{figure['row']}: {figure['requests']}: {figure['by_operation']}"
            )
        assert (
            not figure.get("wrong") and not figure.get("missed") and not figure.get("recomputed")
        ), figure
    return kept


@pytest.fixture(autouse=True)
def counted(lab):
    if not Requests(lab.b).counted:
        pytest.skip("these are no NFS mounts: requests cannot be counted")


@pytest.mark.parametrize("subject", subjects.OURS, ids=lambda subject: subject.__name__)
def test_hits_of_another_clients_entries(lab, subject):
    """3 requests in a warm folder; 3.5 each for the first 256 of a fresh environment."""
    assert hold(caches.hits(subject, f"{lab.a}/c", f"{lab.b}/c", Requests(lab.b))) == 2


def test_a_hit_of_an_old_entry_costs_no_more(lab):
    """After a day its use is looked up, from what the client has just learned.

    Noting it is a request.
    """
    from efsstate import Cache
    from efsstate.format import entry
    from efsstate.mount.files import Mount

    writer, reader = (Cache("old", memory=0, root=lab.path(client)) for client in "ab")
    keys = [f"key {i}" for i in range(12)]
    writer.set_many(dict.fromkeys(keys, "value"))
    now, mount = time.time(), Mount(lab.a)
    for index, key in enumerate(keys):
        digest = writer._keys.digest(key)
        folder = f"cache/old/{digest[0]}"
        held = entry.decode(mount.read(folder, digest), place=f"{folder}/{digest}", root="")
        mount.replace(
            folder,
            digest,
            lambda _: entry.encode(
                held.payload,
                place=f"{folder}/{digest}",
                codec=held.codec,
                meta=held.meta,
                created=now - 3 * 86400,
                ttl=None,
            ),
        )
        used = now - (0.5 if index % 2 else 2) * 86400
        os.utime(f"{lab.a}/{folder}/{digest}", (used, now - 3 * 86400))
    assert len([reader.get(f"nothing {i}") for i in range(200)]) == 200  # its folders are known
    requests = Requests(lab.b)
    counts = []
    for key in keys:
        before = requests.settled()
        assert reader.get(key) == "value"
        after = requests.settled()
        counts.append(sum(after.values()) - sum(before.values()))
    assert counts == [4, 3] * 6, counts


@pytest.mark.parametrize("subject", subjects.OURS, ids=lambda subject: subject.__name__)
def test_puts_and_misses(lab, subject):
    """4 requests for a put, 12 for a miss with its claim."""
    assert hold(caches.writes(subject, f"{lab.a}/c", Requests(lab.a))) == (
        2 if subject is subjects.OurCache else 1
    )


def test_saves_and_loads(lab):
    """A save costs 5 requests, 6 with a removal; a load 3, 6 after another host's save.

    No load gives an older state, open files or not.
    """
    requests = {"a": Requests(lab.a), "b": Requests(lab.b)}
    figures = list(
        checkpoints.rows(checkpoints.Ours, f"{lab.a}/c", f"{lab.b}/c", requests, count=16)
    )
    assert hold(figures) == 4
    assert [(f["closed"], f["open"]) for f in figures if f["row"] == "stale"] == [(0, 0)]


def test_the_recipe_loads_older_states(lab):
    """The measurement can see it: with the old file open, the recipe's loads are all old."""
    requests = {"a": Requests(lab.a), "b": Requests(lab.b)}
    figures = list(
        checkpoints.rows(checkpoints.Recipe, f"{lab.a}/c", f"{lab.b}/c", requests, count=8)
    )
    assert [f["open"] for f in figures if f["row"] == "stale"] == [8]
