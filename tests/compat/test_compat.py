"""A root that an earlier state of the project wrote is read: entries, checkpoints, models.

`root-2026-11-27.tar.gz` was written by the code of that day: a `Cache` called settings, a cached
function square, a finished checkpoint, an open one, a sharded one, and a model with two versions.
"""

import datetime as dt
import pathlib
import tarfile

import numpy as np
import pytest

import efsstate
from efsstate import Cache, UnknownFormatError, cached, checkpoint, model, versions
from efsstate.checkpoints import saves
from efsstate.mount.files import Mount

ARCHIVE = pathlib.Path(__file__).with_name("root-2026-11-27.tar.gz")


@pytest.fixture
def root(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="tar")
    return tmp_path


def test_entries_of_a_cache_are_read(root):
    cache = Cache("settings", root=root)
    assert cache.get("plain") == {
        "a": [1, 2.5, None, True, b"x"],
        "t": (1, 2),
        "s": {1, 2},
        "d": dt.datetime(2026, 11, 29, tzinfo=dt.UTC),
    }
    assert cache.get("array").tolist() == np.arange(12).reshape(3, 4).tolist()
    assert cache.get("array").dtype == np.dtype("<f4")
    assert {"array", "plain"} <= set(cache.keys())  # "old" had a ttl of an hour


def test_results_of_a_function_are_read(root):
    computed = []

    @cached(name="square", root=root)
    def square(n, scale=1):
        computed.append(n)
        return {"n": n * n * scale}

    assert square(3) == {"n": 9} and square(4, scale=2) == {"n": 32}
    assert computed == []


def test_checkpoints_are_read_and_go_on(root):
    assert checkpoint("import/2026-11-01", root=root).load() == 45
    with checkpoint("import/2026-11-01", root=root) as job:
        assert job.finished and list(job.resume(range(10))) == []
    with checkpoint("open", root=root) as job:
        assert job.state == {"rows": [1, 2, 3]}
        job.save({"rows": [1, 2, 3, 4]})
    assert checkpoint("open", root=root).load() == {"rows": [1, 2, 3, 4]}


def test_shards_go_on(root):
    left = []
    for shard in checkpoint("parts", root=root).shards(3):
        left.append(shard.index)
        for n in shard.resume(range(4)):
            shard.state = (shard.state or 0) + n
    assert 0 < len(left) <= 3
    assert checkpoint("parts", root=root).shards(3).progress().done == 3


def test_models_are_read(root):
    assert [version.active for version in versions("net", root=root)].count(True) == 1
    network = model("net", load=lambda files: bytes(files.read(files.names[0])), root=root)
    assert network() == b"weights 1"


def test_the_sweep_takes_nothing_for_strange(root):
    report = efsstate.sweep(root=root)
    assert report.foreign == report.newer == report.damaged == report.errors == 0


def test_a_save_of_a_newer_release_is_told(root):
    """It is not called damaged: the message says to upgrade."""
    mount, folder = Mount(str(root)), "checkpoints/new"
    save = saves.Save((1, 1))
    meta, _ = saves.pack(mount, folder, save)
    head = bytes([99]) + meta[1:-16]
    sealed = head + saves.entry.digest(mount.key, saves.place(folder, (1, 1)), head)
    stored = saves.entry.Entry(b"", "msgpack", sealed, 0.0, None)
    with pytest.raises(UnknownFormatError, match="upgrade efsstate"):
        saves.unpack(mount, folder, (1, 1), stored)
