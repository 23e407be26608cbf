"""EMF under the real runtime client: the lines are valid, and add up to what happened."""

import json
import os
from collections import Counter

import pytest
from tests.metrics.conftest import add_up, emf_lines

import efsstate
from efsstate.testing import Function

pytestmark = pytest.mark.runtime
HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(efsstate.__file__))


@pytest.fixture
def function(tmp_path):
    made = []

    def make(handler="handlers.handler", **options):
        environment = {"EFSSTATE_ROOT": str(tmp_path), "PYTHONPATH": SOURCE}
        environment |= options.pop("environment", {})
        made.append(Function(handler, path=HERE, environment=environment, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def assert_it_adds_up(results, text):
    """Compare the lines with what the handlers said that they did."""
    done = Counter()
    for result in results:
        assert result.error is None, result.error
        done.update(result.value)
    sums = add_up(text)
    assert (sums["CacheHit"], sums["CacheMiss"]) == (done["hits"], done["misses"])
    assert sums["CheckpointSave"] == sums["CheckpointSaveTime"] == done["saves"]
    assert sums["CachePut"] == sums["CacheCompute"] == done["misses"]


def test_one_line_an_invocation_adds_up(function):
    f = function()
    results = [f.invoke({"numbers": [1, 2, 1, 2, 1]}) for _ in range(4)]
    results.append(f.invoke({"numbers": [3], "save": "job"}))
    assert [len(emf_lines(result.logs)) for result in results] == [1] * 5
    assert_it_adds_up(results, "".join(result.logs for result in results))
    assert all(len(line) < 2048 for result in results for line in emf_lines(result.logs))


def test_several_environments_add_up(function):
    f = function()
    results = f.map([{"numbers": [n % 3, n % 5], "sleep": 0.1} for n in range(12)])
    assert len(f.environments) > 1
    assert_it_adds_up(results, "".join(result.logs for result in results))


def test_a_frozen_environment_loses_no_count(function):
    f = function(freeze=True)
    results = [f.invoke({"numbers": [1, 2, 3]}) for _ in range(3)]
    assert_it_adds_up(results, "".join(result.logs for result in results))


def test_a_timeout_costs_its_own_line_alone(function):
    """The counts of an invocation that is killed go with its process."""
    f = function(timeout=2)
    results = [f.invoke({"numbers": [1, 2]})]
    killed = f.invoke({"numbers": [3], "sleep": 30})
    assert killed.timed_out and emf_lines(killed.logs) == []
    results.append(f.invoke({"numbers": [1, 2, 3]}))
    assert_it_adds_up(results, "".join(result.logs for result in results))


def test_managed_instances_add_up(function):
    f = function(max_concurrency=3, timeout=20)
    results = f.map([{"numbers": [n, 0], "sleep": 0.2} for n in range(9)])
    f.environments[0].invoke({"numbers": []})
    text = "".join({line: None for r in results for line in r.logs.splitlines(keepends=True)})
    assert_it_adds_up(results, text)


def test_lines_are_whole_with_json_logs(function):
    f = function(environment={"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"})
    results = [f.invoke({"numbers": [1, 1]})]
    assert_it_adds_up(results, results[0].logs)


def records(text):
    """Return the records of our logger in a log of JSON lines."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("logger") == "efsstate"]


def test_records_are_objects_with_json_logs(function):
    """Each has the runtime's fields and ours; the lines of metrics are no records."""
    log = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"}
    result = function("handlers.complaining", environment=log).invoke({})
    assert result.error is None
    own = records(result.logs)
    assert [record["efsstate"] for record in own] == [
        {"kind": "cache", "event": "not_kept", "name": "unstorable", "error": "EncodeError"},
        {
            "kind": "cache",
            "event": "error",
            "name": "broken",
            "doing": "read a result",
            "error": "RootError",
        },
    ]
    for record in own:
        assert record["level"] == "WARNING" and record["requestId"] == result.value["request"]
        assert record["message"].startswith("cache ") and record["timestamp"].endswith("Z")
    assert len(emf_lines(result.logs)) == 1


def test_records_are_lines_with_text_logs(function):
    result = function("handlers.complaining").invoke({})
    lines = [line for line in result.logs.splitlines() if line.startswith("[WARNING]")]
    assert len(lines) == 2 and all(result.value["request"] in line for line in lines)
