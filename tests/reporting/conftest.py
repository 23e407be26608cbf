"""A root with something of everything, the events of a day, and a workload."""

import json

import pytest
from tests.cleanup.conftest import DAY, Tree
from tests.documents import checked_documents  # noqa: F401 - a fixture

from efsstate import checkpoint, dataset, publish
from efsstate.planning.history import History

START = 1_795_900_000  # 2026-11-28 21:06:40 UTC


def plant(root, tmp_path):
    tree = Tree(root)
    tree.policy("thumbnails", shortest=7 * DAY, longest=7 * DAY)
    for i in range(12):
        tree.entry("thumbnails", i, age=(i + 0.5) * DAY, ttl=7 * DAY, size=1024 * (i + 1))
    reviews = dataset("reviews/raw", root=root)
    reviews.add(b'{"text": "good"}', ".json", key="event-1")
    with checkpoint("import/2026-11-01", root=root) as job:
        for number in job.resume(range(10)):
            job.state = number
    with checkpoint("resize", root=root).shards(4) as shards:
        for shard in shards:
            if shard.index < 3:
                shard.finish(shard.index)
    source = tmp_path / "model.bin"
    source.write_bytes(b"w" * 5000)
    for label in (b"a", b"b"):
        source.write_bytes(label * 5000)
        publish("resnet50", str(source), root=root)


def events():
    """100 calls of one cache: 60 hits in memory, 30 on the mount in 2 ms, 10 misses; two sweeps."""
    for i in range(100):
        kind = "memory" if i % 10 < 6 else "mount" if i % 10 < 9 else None
        event = {"event": "hit", "level": kind, "seconds": 0.002 if kind == "mount" else 0.0}
        event = event if kind else {"event": "miss", "seconds": 0.5}
        yield {"time": START + 60 * i, "kind": "cache", "name": "thumbnails", "bytes": 1, **event}
    for i in range(2):
        sums = {"removed": 40 + i, "removed_bytes": 2**20, "looked": 500, "errors": 0}
        yield {
            "time": START + 3600 * i, "kind": "sweep", "event": "sweep", "name": "/mnt/efs",
            "seconds": 1.5, "reasons": {"expired": 40 + i}, **sums,
        }  # fmt: skip


def history(file_system, days, region):
    """Two days of a file system, as CloudWatch would tell them: the first is without data."""
    seen = History(file_system, region or "us-east-1", START - START % 86_400, 2880, mode="elastic")
    evening = range(1440, 1500)
    seen.sums["MeteredIOBytes"] = dict.fromkeys(evening, 2.0 * 2**20)
    seen.sums["DataReadIOBytes"] = dict.fromkeys(evening, 2.0**30)
    seen.counts["DataReadIOBytes"] = dict.fromkeys(evening, 1024.0)
    seen.sums["DataWriteIOBytes"] = dict.fromkeys(evening, 1024.0)
    seen.counts["DataWriteIOBytes"] = dict.fromkeys(evening, 16_384.0)
    seen.sums["BurstCreditBalance"] = {1440: 2.0**41, 1499: 2.0**40}
    seen.stored = {"Total": 2.0**36, "Standard": 2.0**36}
    return seen


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The root, which no test of a module changes."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "root").mkdir()
    plant(str(folder / "root"), folder)
    return folder / "root"


def write_inputs(folder):
    """Write the events, with a line of a log before them, and the workload."""
    lines = [json.dumps(event) for event in events()]
    (folder / "run.jsonl").write_text("\n".join(["START RequestId: 1", *lines]))
    (folder / "plan.toml").write_text(
        'stored = "100GiB"\nhits = "1M/day"\nmodel = "2GiB"\nenvironments = 20\n'
    )


@pytest.fixture
def files(tmp_path, planted):
    """The root, the events and the workload of a report."""
    (tmp_path / "root").symlink_to(planted)
    write_inputs(tmp_path)
    return tmp_path
