"""What a test run recorded predicts the bill: events, metrics, and the log of a real function."""

import io
import json

import pytest

from efsstate import Cache, checkpoint, metrics, model, publish
from efsstate.errors import EfsStateError
from efsstate.planning import measured
from efsstate.testing import Function, isolated


def recorded(work):
    """Return the lines that `work` records, on a root of its own."""
    stream = io.StringIO()
    with isolated():
        stop = metrics.record(stream)
        try:
            work()
        finally:
            stop()
    return stream.getvalue()


def test_a_run_is_counted():
    """10 puts, 10 hits on the mount, 5 in memory and 3 saves, and their bytes."""

    def work():
        Cache("labels").set_many({f"k{i}": "x" * 1000 for i in range(10)})
        reader = Cache("labels", memory=1 << 20)
        for i in range(10):
            reader.get(f"k{i}")
        for i in range(5):
            reader.get(f"k{i}")
        with checkpoint("job") as job:
            for i in range(3):
                job.save(i)

    text = recorded(work)
    figures = measured.read(text.splitlines(), "run", covering=60)
    saves = sum('"save"' in line for line in text.splitlines())
    assert (figures.puts, figures.hits + figures.memory_hits) == (10, 15)
    assert figures.saves == saves >= 3
    assert figures.put_bytes > 10_000
    assert figures.requests() == 3 * figures.hits + 4 * 10 + 6 * saves
    work = figures.workload()
    assert work.puts == pytest.approx(10 * 1440)
    assert work.entry == (figures.put_bytes + figures.hit_bytes) // (10 + figures.hits)


def test_the_time_is_from_the_first_to_the_last():
    lines = [
        json.dumps({"time": 1000 + 60 * i, "kind": "cache", "event": "hit", "level": "mount"})
        for i in range(11)
    ]
    figures = measured.read(lines, "run")
    assert figures.seconds == 600 and figures.workload().hits == pytest.approx(11 * 144)


def test_metrics_of_a_real_function_are_read(tmp_path):
    """The log of the harness, with Lambda's own lines in it, is passed on as it is."""
    (tmp_path / "handler.py").write_text(
        "from efsstate import cached, invocation, metrics\n"
        "metrics.emf(namespace='Shop')\n"
        "@cached(ttl='1h')\n"
        "def double(n):\n    return 2 * n\n"
        "@invocation\n"
        "def serve(event, context):\n    return double(event)\n"
    )
    root = tmp_path / "mount"
    root.mkdir()
    variables = {"EFSSTATE_ROOT": str(root)}
    with Function("handler.serve", path=tmp_path, environment=variables, timeout=30) as function:
        log = "".join(function.invoke(event).log_stream for event in (1, 2, 1))
    figures = measured.read(log.splitlines(), "log", covering=3)
    assert (figures.misses, figures.puts, figures.memory_hits + figures.hits) == (2, 2, 1)


def test_model_loads_are_cold_starts(tmp_path):
    source = tmp_path / "weights.bin"
    source.write_bytes(b"w" * 50_000)

    def work():
        publish("net", source)
        model("net", load=lambda files: bytes(files.read()))()

    figures = measured.read(recorded(work).splitlines(), "run", covering=3600)
    assert (figures.loads, figures.load_bytes) == (1, 50_000)
    assert figures.workload().cold_starts == 24 and figures.workload().model == 50_000


def test_lines_of_one_cache_are_not_counted_twice():
    total = {"_aws": {"Timestamp": 1}, "CacheHit": 3, "CachePut": 2, "MountRead": [1.0, 2.0]}
    lines = [json.dumps(total), json.dumps(total | {"Cache": "labels"})]
    figures = measured.read(lines, "log", covering=1)
    assert (figures.hits, figures.memory_hits, figures.puts) == (2, 1, 2)


@pytest.mark.parametrize(
    "line",
    [
        "START RequestId: 1",
        "{",
        "[]",
        '{"kind": "cache"}',
        '{"_aws": 5}',
        '"text"',
        "\x00\xff",
    ],
)
def test_other_lines_are_passed_over(line):
    event = '{"kind": "cache", "event": "put", "name": "a", "bytes": 10}'
    figures = measured.read([line, event, ""], "log", covering=1)
    assert (figures.puts, figures.lines, figures.unknown) == (1, 1, 1)


@pytest.mark.parametrize("value", ["-5", '"many"', "null", "true", "1e300", "[1]", "NaN"])
def test_a_strange_number_counts_as_none(value):
    line = f'{{"kind": "cache", "event": "put", "name": "a", "bytes": {value}}}'
    assert measured.read([line], "log", covering=1).put_bytes == 0


def test_a_file_without_events_is_told():
    with pytest.raises(EfsStateError, match="no line of it is an event"):
        measured.read(["START", "END"], "log", covering=1)


def test_a_run_without_times_needs_to_be_told_its_length():
    with pytest.raises(EfsStateError, match="--covering"):
        measured.read(['{"kind": "cache", "event": "hit"}'], "log")


def test_the_command_plans_from_events(run, tmp_path):
    path = tmp_path / "run.jsonl"
    line = {"kind": "cache", "event": "hit", "level": "mount", "bytes": 8192}
    path.write_text((json.dumps(line) + "\n") * 100)
    text = run("--from-events", str(path), "--covering", "1h", "--stored", "10GiB")
    assert "100 hits on the mount" in text and "300 requests and 800.0 KiB of data" in text
    document = json.loads(run("--from-events", str(path), "--covering", "1h", "--json"))
    assert document["workload"]["hits"] == 2400 and document["workload"]["entry"] == 8192
    assert document["measured"]["requests"] == 300
    assert run("--from-events", str(path), code=3)
