"""Metrics: what is counted, what it costs, and that EMF, Powertools and OpenTelemetry get it."""

import gc
import io
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from tests.calls import Calls
from tests.metrics.conftest import add_up, emf_lines, validate

from efsstate import (
    Cache,
    ClaimLost,
    cached,
    checkpoint,
    events,
    invocation,
    metrics,
    model,
    publish,
)
from efsstate import sweep as sweep_all
from efsstate.metrics import collector


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path))
    return tmp_path


def test_hits_misses_and_puts_are_counted(lines):
    stream = lines()

    @cached(ttl="1h")
    def double(number):
        return 2 * number

    with invocation():
        for number in (1, 2, 1, 1):
            double(number)
    with invocation():
        double(1)
    first, second = map(validate, emf_lines(stream.getvalue()))
    assert (first["CacheMiss"], first["CachePut"], first["CacheHit"]) == (2, 2, 2)
    assert len(first["CacheCompute"]) == 2 and second == {"CacheHit": 1}


def test_a_forked_child_gives_out_its_own_counts_alone(lines):
    """Those of before the fork are the parent's, which gives them out itself."""
    stream = lines()

    @cached(ttl="1h")
    def double(number):
        return 2 * number

    double(1), double(1)
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            double(1)
            metrics.flush()
            os.write(write, stream.getvalue().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        (line,) = emf_lines(file.read())
    os.waitpid(child, 0)
    assert validate(line) == {"CacheHit": 1}
    metrics.flush()
    (line,) = emf_lines(stream.getvalue())
    assert (validate(line)["CacheMiss"], validate(line)["CacheHit"]) == (1, 1)


def test_an_invocation_without_any_writes_no_line(lines):
    stream = lines()
    with invocation():
        pass
    assert stream.getvalue() == ""


def test_an_inner_deadline_ends_no_invocation(lines):
    """A checkpoint's own context within `@invocation` makes no second line."""

    class Context:
        def get_remaining_time_in_millis(self):
            return 60_000

    stream = lines()
    with invocation(Context()), checkpoint("job", context=Context()) as job:
        job.save(1)
        job.save(2)
    (line,) = emf_lines(stream.getvalue())
    values = validate(line)
    assert values["CheckpointSave"] == 2 and len(values["CheckpointSaveTime"]) == 2


def test_lost_claims_models_and_sweeps_are_counted(lines, root, tmp_path_factory):
    stream = lines()
    with checkpoint("job") as job:
        checkpoint("job").break_claim()
        with pytest.raises(ClaimLost):
            job.save(1)
    source = tmp_path_factory.mktemp("model") / "m.bin"
    source.write_bytes(b"x" * 1000)
    publish("m", source, version="v1")
    classify = model("m", load=lambda files: files.read(), check_every=0)
    classify()
    source.write_bytes(b"y" * 500)
    publish("m", source, version="v2")
    classify()
    Cache("old", ttl=1e-6).set("k", 1)
    report = sweep_all(older_than=0)
    metrics.flush()
    sums = add_up(stream.getvalue())
    assert sums["CheckpointClaimLost"] == 1
    assert (sums["ModelLoad"], sums["ModelBytes"], sums["ModelSwap"]) == (2, 2, 1)
    assert sums["SweepRemoved"] == report.removed > 0
    assert sums["SweepRemovedBytes"] == report.removed_bytes


def test_a_failed_load_is_counted(lines, tmp_path_factory):
    stream = lines()
    source = tmp_path_factory.mktemp("model") / "m.bin"
    source.write_bytes(b"x")
    publish("m", source)
    broken = model("m", load=lambda files: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken()
    metrics.flush()
    assert add_up(stream.getvalue())["ModelLoadFailed"] == 1


def test_a_cache_that_is_gone_is_still_counted(lines):
    stream = lines()
    for number in range(3):
        Cache("short-lived").set(number, number)
    metrics.flush()
    assert add_up(stream.getvalue())["CachePut"] == 3


def test_counters_that_begin_anew_are_not_negative(lines):
    stream = lines()

    @cached
    def double(number):
        return 2 * number

    double(1)
    metrics.flush()
    double.cache_clear()
    double(1)
    metrics.flush()
    sums = add_up(stream.getvalue())
    assert sums["CacheMiss"] == 2 and all(count >= 0 for count in sums.values())


def test_names_of_caches_are_a_dimension_only_if_asked(lines):
    stream = lines(cache_names=True, dimensions={"Stage": "test"})
    Cache("secret-1").set("key", 1)
    Cache("secret-2").set("key", 1)
    metrics.flush()
    total, *named = emf_lines(stream.getvalue())
    assert "secret" not in total and validate(total)["CachePut"] == 2
    assert [json.loads(line)["Cache"] for line in named] == ["secret-1", "secret-2"]
    for line in named:
        assert validate(line) == {"CachePut": 1} and '"Stage":"test"' in line


def test_keys_are_never_written(lines):
    stream = lines(cache_names=True)
    cache = Cache("c")
    cache.set("the-key-of-a-customer", 1)
    cache.get("the-key-of-a-customer")
    cache.delete("the-key-of-a-customer")
    metrics.flush()
    assert "customer" not in stream.getvalue()


def test_a_line_is_short(lines):
    """Five caches with a hundred misses each: under 2 KiB, and at most 20 metrics."""
    stream = lines(dimensions={"FunctionName": "a-function-with-a-long-name-" + "x" * 30})
    for name in "abcde":
        cache = Cache(f"cache-{name}")
        for number in range(100):
            cache.get_or_compute(number, lambda: "x")
            cache.get(number, fresh=True)
    with checkpoint("job") as job:
        for _ in range(30):
            job.save(1)
    metrics.flush()
    (line,) = emf_lines(stream.getvalue())
    values = validate(line)
    assert len(line) < 2048 and len(values) <= 20 and values["CacheMiss"] == 500
    assert len(collector.UNITS) <= 20


def test_many_values_keep_their_least_and_their_most(lines):
    stream = lines()
    for number in range(200):
        events.emit("checkpoint", "save", "job", seconds=number / 1000)
    metrics.flush()
    values = validate(emf_lines(stream.getvalue())[0])["CheckpointSaveTime"]
    assert values[0] == 0 and values[-1] == 199 and values == sorted(values)


def test_a_name_that_cloudwatch_lacks_is_spelled(root):
    """A dimension's value is printable ASCII (botocore 1.44.8); CloudWatch drops other lines."""
    stream = io.StringIO()
    stop = metrics.emf(stream=stream, cache_names=True)
    try:
        Cache("B\u00fccher \u65e5\n", root=root).set("k", 1)
        metrics.flush()
    finally:
        stop()
    _, line = emf_lines(stream.getvalue())
    assert json.loads(line)["Cache"] == "B\\xfccher \\u65e5\\n"


@pytest.mark.parametrize(
    "options",
    [
        {"namespace": ""},
        {"dimensions": {"": "x"}},
        {"dimensions": {"Stage": ""}},
        {"dimensions": {"CacheHit": "x"}},
        {"dimensions": {"_aws": "x"}},
        {"dimensions": {"Stage": "x" * 1025}},
        {"dimensions": {"Stage": "Entw\u00fcrfe"}},
        {"dimensions": {"Stage": "  "}},
        {"dimensions": {"Stage": "a\nb"}},
        {"dimensions": {":Stage": "x"}},
        {"dimensions": {"x" * 256: "x"}},
        {"namespace": "B\u00fccher"},
        {"namespace": ":shop"},
        {"dimensions": {f"d{number}": "x" for number in range(31)}},
        {"dimensions": {"Cache": "x"}, "cache_names": True},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="emf: "):
        metrics.emf(**options)
    assert not events.listeners


def test_a_hit_in_memory_costs_the_same_with_metrics(lines):
    """A remembered hit is one Python call, and no event."""

    @cached
    def double(number):
        return 2 * number

    lines()
    double(1)
    double(1)
    with Calls() as calls:
        double(1)
    assert len(calls) == 1


def test_without_metrics_no_module_of_theirs_is_loaded(root):
    code = (
        "import sys\nfrom efsstate import cached, checkpoint, invocation, metrics\n"
        "@cached\ndef f(x): return x\n"
        "with invocation(): f(1); f(1)\n"
        "mine = [m for m in sys.modules if m.startswith('efsstate.metrics.')]\n"
        "known = ('opentelemetry', 'aws_lambda_powertools')\n"
        "others = [m for m in sys.modules if m.split('.')[0] in known]\n"
        "assert not mine and not others, (mine, others)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_stream_that_fails_harms_nobody(caplog):
    class Broken(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    stop = metrics.emf(stream=Broken())
    try:
        with invocation():
            Cache("c").set(1, 1)
    finally:
        stop()
    assert "metrics could not be given out" in caplog.text


@pytest.mark.parametrize("names", [False, True])
def test_a_line_that_an_alarm_cuts_off_is_written_later(monkeypatch, names):
    """The collector logs the alarm as an error of its sink; no count is lost with it."""
    stream, alarms = io.StringIO(), [TimeoutError("an alarm")]
    stop = metrics.emf(stream=stream, cache_names=names)
    real = json.dumps

    def dumps(*args, **options):
        if alarms:
            raise alarms.pop()
        return real(*args, **options)

    monkeypatch.setattr(json, "dumps", dumps)
    try:
        with invocation():
            Cache("c").set(1, 1)
        assert not stream.getvalue() and not alarms
        with invocation():
            Cache("c").set(2, 2)
    finally:
        stop()
    puts = [json.loads(line).get("CachePut") for line in emf_lines(stream.getvalue())]
    assert puts == ([2, 1, 1] if names else [2])


def test_a_count_twice_is_noticed(lines, monkeypatch):
    """The check that the other tests rest on: with a bug put in, the sums differ."""
    real = collector.Collector._count
    monkeypatch.setattr(
        collector.Collector, "_count", lambda self, event: (real(self, event), real(self, event))
    )
    stream = lines()
    with checkpoint("job") as job:
        job.save(1)
    metrics.flush()
    assert add_up(stream.getvalue())["CheckpointSave"] == 2


# Powertools


def test_powertools_writes_them_with_its_own(capsys):
    powertools = pytest.importorskip("aws_lambda_powertools.metrics")
    shop = powertools.Metrics(namespace="Shop", service="web")
    stop = metrics.powertools(shop)

    @cached
    def double(number):
        return 2 * number

    class Context:
        function_name = "web"

        def get_remaining_time_in_millis(self):
            return 60_000

    @shop.log_metrics
    @invocation
    def handler(_event, _context):
        shop.add_metric(name="Orders", unit="Count", value=1)
        double(1)
        double(2)
        return double(1)

    try:
        handler({}, Context())
    finally:
        stop()
    (line,) = emf_lines(capsys.readouterr().out)
    values = validate(line)
    assert values["Orders"] == [1.0] and values["CacheMiss"] == [2.0]
    assert values["CacheHit"] == [1.0] and len(values["CacheCompute"]) == 2


def test_powertools_needs_its_metrics():
    with pytest.raises(TypeError, match="add_metric"):
        metrics.powertools(object())
    assert not events.listeners


# OpenTelemetry


@pytest.fixture
def otel():
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    meters, tracers = MeterProvider([reader]), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    stop = metrics.opentelemetry(meters, tracers)

    class Otel:
        tracer = tracers.get_tracer("test")

        @staticmethod
        def spans():
            return {span.name: span for span in exporter.get_finished_spans()}

        @staticmethod
        def points():
            data = reader.get_metrics_data()
            found = {}
            for metric in data.resource_metrics[0].scope_metrics[0].metrics:
                for point in metric.data.data_points:
                    count = getattr(point, "count", None)
                    value = point.value if count is None else count
                    found[metric.name] = found.get(metric.name, 0) + value
            return found

    yield Otel
    stop()
    meters.shutdown()
    tracers.shutdown()


def test_instruments_add_up(otel):
    cache = Cache("c")
    for number in (1, 2, 1):
        cache.get_or_compute(number, lambda: "x")
    with checkpoint("job") as job:
        job.save(1)
    metrics.flush()
    points = otel.points()
    assert (points["efsstate.cache.miss"], points["efsstate.cache.hit"]) == (2, 1)
    assert points["efsstate.cache.compute"] == 2 and points["efsstate.checkpoint.save"] == 1
    assert points["db.client.operation.duration"] >= 4  # two puts, a claim and a save


def test_a_miss_has_a_span_with_the_computation_within(otel):
    """What the function does itself is a child of the span, which is a child of the caller's."""

    @cached(name="work")
    def work(number):
        with otel.tracer.start_as_current_span("inside"):
            return number

    with otel.tracer.start_as_current_span("request"):
        work(1)
        work(1)
    spans = otel.spans()
    compute = spans["efsstate.cache.compute"]
    assert spans["inside"].parent.span_id == compute.context.span_id
    assert compute.parent.span_id == spans["request"].context.span_id
    assert spans["efsstate.cache.put"].parent.span_id == spans["request"].context.span_id
    assert compute.start_time <= spans["inside"].start_time
    assert compute.end_time >= spans["inside"].end_time


def test_a_computation_that_raises_ends_its_span(otel):
    @cached(name="work")
    def work(number):
        raise KeyError(number)

    with otel.tracer.start_as_current_span("request"):
        with pytest.raises(KeyError):
            work(1)
        with otel.tracer.start_as_current_span("after"):
            pass
    spans = otel.spans()
    assert spans["after"].parent.span_id == spans["request"].context.span_id
    assert "efsstate.cache.compute" in spans


def test_async_computations_have_spans_of_their_own(otel):
    import asyncio

    @cached(name="work")
    async def work(number):
        with otel.tracer.start_as_current_span(f"inside {number}"):
            await asyncio.sleep(0.01)
        return number

    async def main():
        with otel.tracer.start_as_current_span("request"):
            await asyncio.gather(work(1), work(2))

    asyncio.run(main())
    spans = otel.spans()
    parents = {spans[f"inside {number}"].parent.span_id for number in (1, 2)}
    assert len(parents) == 2 and spans["request"].context.span_id not in parents


def test_a_cache_that_is_collected_meanwhile_counts_once(lines, monkeypatch):
    """The garbage collector may run at any line, while the sums are added up, too."""
    caches = [Cache(f"gone {number}") for number in range(5)]
    caches[0].get_or_compute("key", lambda: 1)

    class Collecting(dict):
        def items(self):
            for item in super().items():
                if caches:  # once: a collection takes long in a process with much in it
                    caches.clear()
                    gc.collect()
                yield item

        def copy(self):
            return Collecting(self)

    events.totals()
    monkeypatch.setattr(events, "_retired", Collecting(events._retired, earlier={}))
    stream = lines()
    metrics.flush()
    other = Cache("other")
    with invocation():
        other.get_or_compute("key", lambda: 1)
    (counts,) = map(validate, emf_lines(stream.getvalue()))
    assert (counts["CacheMiss"], counts["CachePut"]) == (1, 1)


def test_sums_of_many_names_stay_small_and_exact(lines, monkeypatch):
    """A name for each tenant: beyond some, the caches that are gone are counted together."""
    monkeypatch.setattr(events, "_MOST_NAMES", len(events._retired) + 3)
    known = len(events._retired)
    stream = lines(cache_names=True)
    living = []
    for number in range(12):
        cache = Cache(f"tenant {number}")
        for key in range(2):
            with invocation():
                cache.get_or_compute(str(key), lambda: 1)
        living = [cache]  # the one before is gone now, and was counted under its name
    del cache, living
    gc.collect()
    with invocation():
        Cache("tenant 0").get_or_compute("another", lambda: 1)
    counted = Counter()
    for line in emf_lines(stream.getvalue()):
        counted[json.loads(line).get("Cache", "")] += validate(line).get("CacheMiss", 0)
    assert counted.pop("") == counted.total() == 25
    assert counted == {f"tenant {number}": 2 + (number == 0) for number in range(12)}
    assert len(events._retired) <= known + 4 and events.OTHERS in events.totals()
