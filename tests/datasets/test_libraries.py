"""The recipes of docs/datasets.md, each with the real library (`make test-heavy`)."""

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile

import pytest

import efsstate
from efsstate import checkpoint, dataset

pytestmark = pytest.mark.heavy

ROWS, PARTS = 20, 6


@pytest.fixture
def tables(tmp_path):
    """A dataset of parquet files; every row has a number of its own."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    ds = dataset("tables", root=tmp_path)
    for i in range(PARTS):
        with ds.part(".parquet", key=str(i)) as path:
            pq.write_table(pa.table({"n": list(range(i * ROWS, (i + 1) * ROWS))}), path)
    return ds.freeze("run")


def everything():
    return list(range(PARTS * ROWS))


# Readers


def test_pyarrow_reads_paths_and_the_folder(tables):
    arrow = pytest.importorskip("pyarrow.dataset")
    for source in (tables.paths, tables.dataset.path):
        rows = arrow.dataset(source).to_table()["n"].to_pylist()
        assert sorted(rows) == everything()


def test_pyarrow_reads_a_prefetched_buffer(tables):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = []
    for _part, data in tables.read(ahead=2):
        rows += pq.read_table(pa.BufferReader(data))["n"].to_pylist()
    assert sorted(rows) == everything()


def test_polars_scans_the_paths(tables):
    polars = pytest.importorskip("polars")
    assert sorted(polars.scan_parquet(tables.paths).collect()["n"].to_list()) == everything()


def test_duckdb_reads_the_paths_and_a_glob(tables):
    duckdb = pytest.importorskip("duckdb")
    for source in (tables.paths, tables.dataset.path + "/*.parquet"):
        with duckdb.connect() as connection:
            rows = connection.execute("select n from read_parquet(?)", [source]).fetchall()
        assert sorted(n for (n,) in rows) == everything()


def rows_of(snapshot, names):
    import pyarrow.parquet

    folder = snapshot.dataset.path
    for name in names:
        for n in pyarrow.parquet.read_table(f"{folder}/{name}")["n"].to_pylist():
            yield {"n": n}


@pytest.mark.parametrize("streaming", [True, False])
def test_hugging_face_loads_the_paths(tables, tmp_path, streaming, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hf = pytest.importorskip("datasets")
    loaded = hf.load_dataset(
        "parquet",
        data_files=tables.paths,
        split="train",
        streaming=streaming,
        cache_dir=str(tmp_path / "cache"),
    )
    assert sorted(row["n"] for row in loaded) == everything()


def test_hugging_face_resumes_a_generator(tables):
    """A snapshot goes into `gen_kwargs`; each part is a shard, and the state resumes exactly."""
    hf = pytest.importorskip("datasets")
    names = [part.name for part in tables.order(seed=1)]
    source = hf.IterableDataset.from_generator(
        rows_of, gen_kwargs={"snapshot": tables, "names": names}
    )
    first, state = [], None
    for row in source:
        first.append(row["n"])
        if len(first) == 50:
            state = source.state_dict()
            break
    source.load_state_dict(state)
    rest = [row["n"] for row in source]
    assert sorted(first + rest) == everything() and len(first + rest) == len(everything())


# WebDataset leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_paths(tmp_path):
    wds = pytest.importorskip("webdataset")
    ds = dataset("tars", root=tmp_path)
    for i in range(3):
        with ds.part(".tar", key=str(i)) as path, wds.TarWriter(path) as tar:
            for j in range(5):
                tar.write({"__key__": f"{i}-{j}", "json": {"n": i * 5 + j}})
    source = wds.WebDataset(ds.freeze("run").paths, shardshuffle=False)
    assert sorted(json.loads(sample["json"])["n"] for sample in source) == list(range(15))


def test_tarfile_reads_a_prefetched_buffer(tmp_path):
    ds = dataset("tars", root=tmp_path)
    with ds.part(".tar") as path, tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("a.txt")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    [(_part, data)] = ds.freeze("run").read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.extractfile("a.txt").read() == b"hello"


RAY = """
import json, sys
import ray
from efsstate import dataset
from pyarrow import BufferReader
from pyarrow.parquet import read_table

snapshot = dataset("tables", root=sys.argv[1]).at("run")
# Its processes have 30 s to start, which a busy machine may exceed.
for is_last in (False, False, True):
    try:
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20
        )
        break
    except Exception:
        ray.shutdown()
        if is_last:
            raise

@ray.remote
def work(snapshot, i):
    parts = snapshot.read(snapshot.order(shard=(i, 2)))
    tables = [read_table(BufferReader(data)) for _, data in parts]
    return [n for table in tables for n in table["n"].to_pylist()]

whole = sorted(row["n"] for row in ray.data.read_parquet(snapshot.paths).take_all())
shards = ray.get([work.remote(snapshot, i) for i in range(2)])
ray.shutdown()
print(json.dumps([whole, shards]))
"""


def test_ray_data_reads_the_paths_and_a_task_its_shard(tables, tmp_path):
    """A snapshot can be an argument of a task, because it can be pickled."""
    pytest.importorskip("ray.data")
    source = os.path.dirname(os.path.dirname(efsstate.__file__))
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RAY, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": source, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert out.returncode == 0, out.stderr[-3000:]
    whole, shards = json.loads(out.stdout.splitlines()[-1])
    assert whole == everything()
    assert all(shards) and sorted(n for shard in shards for n in shard) == everything()


# Training


def loader(snapshot, workers):
    """Return a loader whose state says how many parts and rows its workers have given."""
    from tests.datasets.rows import Rows
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(Rows(snapshot), batch_size=4, num_workers=workers)


def train(root, workers, kill_after):
    """Note each batch in a checkpoint beside the loader's state; die after some batches."""
    snapshot = dataset("tables", root=root).at("run")
    source = loader(snapshot, workers)
    with checkpoint("training", root=root, codec="pickle") as job:
        state = job.state or {"loader": None, "batches": []}
        if state["loader"] is not None:
            source.load_state_dict(state["loader"])
        for count, batch in enumerate(source):
            if count == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            state["batches"].append(batch.tolist())
            state["loader"] = source.state_dict()
            job.save(state)
        job.finish()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_every_row_once_across_kills(tables, tmp_path, workers):
    pytest.importorskip("torchdata")
    context = multiprocessing.get_context("spawn")
    for kill_after in (3, 5, 4, None):
        process = context.Process(target=train, args=(tmp_path, workers, kill_after))
        process.start()
        process.join(timeout=300)
        assert process.exitcode == (0 if kill_after is None else -signal.SIGKILL)
    state = checkpoint("training", root=tmp_path, codec="pickle").load()
    rows = [n for batch in state["batches"] for n in batch]
    assert sorted(rows) == everything() and len(rows) == len(everything())


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 1)])
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
def test_a_loader_with_other_workers_refuses_a_state(tables, before, after):
    """Its workers would have other shares of the order: that is an error, and no silent gap."""
    pytest.importorskip("torchdata")
    source = loader(tables, before)
    batches = iter(source)
    next(batches), next(batches)
    state = source.state_dict()
    del batches
    other = loader(tables, after)
    other.load_state_dict(state)
    with pytest.raises(AssertionError):
        list(other)
