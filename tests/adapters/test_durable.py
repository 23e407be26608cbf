"""AWS durable functions: payloads on the mount, under the SDK's own runner and beside its own."""

import dataclasses
import datetime as dt
import decimal
import errno
import json
import os
import pathlib
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from efsstate import on_event, sweep

pytest.importorskip("aws_durable_execution_sdk_python", reason="needs the SDK")

from aws_durable_execution_sdk_python.exceptions import (
    RetryableSerDesError,
    SerDesError,
)
from aws_durable_execution_sdk_python.filesystem_serdes import FileSystemSerDes
from aws_durable_execution_sdk_python.serdes import (
    SerDesContext,
    deserialize,
    serialize,
)

from efsstate.adapters.durable import EfsSerDes
from efsstate.adapters.durable_events import EventsFactory
from efsstate.eviction import policy
from efsstate.mount.files import Mount

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:etl:1/durable-execution/{}/1"
FIRST, SECOND = (SerDesContext("step-1", ARN.format(name)) for name in ("first", "second"))
LARGE, OTHER = list(range(20_000)), list(range(20_000, 0, -1))


@dataclasses.dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, 2**70, -0.0, 1e300, float("inf"), "", "é\ud7ff", b"\0", [], {}, (), (1, [2]),
        {1: "a", "1": "b"}, {"a": (1,)}, {3, 4}, decimal.Decimal("1.10"), Point(1, 2),
        dt.datetime(2026, 1, 2, tzinfo=dt.UTC), [{"deep": [{"er": [None]}]}],
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("inline", ["32KiB", 0])
def test_a_value_comes_back_with_its_types(value, inline, entries):
    serdes = EfsSerDes(inline=inline)
    back = serdes.deserialize(serdes.serialize(value, FIRST), FIRST)
    assert repr(back) == repr(value) and type(back) is type(value)
    assert len(entries()) == (inline == 0)


def test_a_small_json_value_can_be_read_in_the_console(entries):
    text = EfsSerDes().serialize({"order": "A-1", "lines": [1, 2.5, None]}, FIRST)
    value = {"order": "A-1", "lines": [1, 2.5, None]}
    assert json.loads(text) == {"efsstate": 1, "value": value}
    assert entries() == []


def test_a_large_value_leaves_a_short_envelope(entries):
    array = np.arange(500_000, dtype="f4").reshape(1000, 500)
    serdes = EfsSerDes()
    text = serdes.serialize(array, FIRST)
    assert len(text) < 100 and len(entries()) == 1
    back = EfsSerDes().deserialize(text, FIRST)
    assert back.dtype == array.dtype and np.array_equal(back, array)


def test_one_payload_is_stored_once_and_never_changed(entries):
    serdes = EfsSerDes()
    first = serdes.serialize(LARGE, FIRST)
    (path,) = entries()
    assert serdes.serialize(LARGE, FIRST) == first and entries() == [path]
    assert serdes.serialize(OTHER, FIRST) != first
    assert len(entries()) == 2 and path in entries()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def attacks(serdes, files):
    """Return what each of the three attacks on `serdes` gives: a value, or the error."""

    def read(text, context):
        try:
            return serdes.deserialize(text, context)
        except SerDesError as error:
            return error

    text = serdes.serialize(LARGE, FIRST)
    serdes.serialize(OTHER, FIRST)
    second = read(text, FIRST)
    other = read(text, SECOND)
    text = serdes.serialize("a" * 50_000, SECOND)
    for path in files():
        flip(path)
    return {"flipped": read(text, SECOND), "second": second, "other": other}


def test_three_attacks_fail(entries):
    results = attacks(EfsSerDes(), entries)
    assert results["second"] == LARGE
    assert isinstance(results["other"], SerDesError)
    assert "another execution's or operation's" in str(results["other"])
    assert isinstance(results["flipped"], SerDesError)
    assert "its checksum does not match" in str(results["flipped"])


def test_the_same_attacks_on_the_sdks_own_succeed(tmp_path):
    """If this fails, theirs has become better: the page's comparison is out of date."""
    folder = tmp_path / "theirs"
    results = attacks(FileSystemSerDes(str(folder)), lambda: list(folder.rglob("*.json")))
    assert results["second"] == OTHER
    assert results["other"] == OTHER
    flipped = results["flipped"]
    assert isinstance(flipped, str) and flipped != "a" * 50_000


@pytest.mark.parametrize("context", [SECOND, SerDesContext("step-2", FIRST.durable_execution_arn)])
def test_an_entry_is_of_one_operation(context):
    serdes = EfsSerDes()
    text = serdes.serialize(LARGE, FIRST)
    with pytest.raises(SerDesError, match="operation step-"):
        serdes.deserialize(text, context)


def test_an_entry_under_a_wrong_name_is_refused(monkeypatch):
    """Its digest is compared too: a checksum without a key only shows damage."""
    serdes = EfsSerDes()
    text = serdes.serialize(LARGE, FIRST)
    place = serdes._place(FIRST, json.loads(text)["entry"])
    serdes._write(place, b"\x01")
    with pytest.raises(SerDesError, match="is not on the mount"):
        serdes.deserialize(text, FIRST)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no envelope"), ("7", "is no envelope"), ('{"file": "/etc/passwd"}', "no envelope"),
        ('{"efsstate": 2, "value": 1}', "update efsstate"), ('{"efsstate": 1}', "can't be read"),
        ('{"efsstate": 1, "entry": 7}', "not on the mount"),
        ('{"efsstate": 1, "entry": "../../x"}', "not on the mount"),
        ('{"efsstate": 1, "packed": "!"}', "can't be read"),
    ],
)  # fmt: skip
def test_what_is_no_envelope_is_a_permanent_error(text, words):
    with pytest.raises(SerDesError, match=words):
        deserialize(EfsSerDes(), text, "step-1", ARN)


def test_a_value_that_cannot_be_kept_is_a_permanent_error():
    with pytest.raises(SerDesError, match="the value can't be kept"):
        serialize(EfsSerDes(), lambda: 1, "step-1", ARN)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EIO, RetryableSerDesError), (errno.ESTALE, RetryableSerDesError),
     (errno.EROFS, SerDesError), (errno.EACCES, SerDesError)],
)  # fmt: skip
def test_a_failing_mount_is_retried_if_that_helps(number, kind, monkeypatch):
    serdes = EfsSerDes()
    text = serdes.serialize(LARGE, FIRST)

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Mount, "write_entry", fail)
    monkeypatch.setattr(Mount, "find_entry", fail)
    with pytest.raises(kind, match="the mount failed"):
        serialize(serdes, OTHER, "step-1", ARN)
    with pytest.raises(kind, match="the mount failed"):
        deserialize(serdes, text, FIRST.operation_id, FIRST.durable_execution_arn)


def test_a_hung_mount_is_retried(monkeypatch):
    serdes = EfsSerDes(io_timeout=0.2)
    write = Mount.write_entry

    def hang(*arguments, **options):
        time.sleep(1)
        return write(*arguments, **options)

    monkeypatch.setattr(Mount, "write_entry", hang)
    with pytest.raises(RetryableSerDesError, match="the mount failed"):
        serdes.serialize(LARGE, FIRST)


def test_no_mount_is_a_permanent_error(monkeypatch, tmp_path):
    (tmp_path / "file").touch()  # below it nothing can be made, whatever is mounted there
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "file" / "folder"))
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "etl")
    with pytest.raises((SerDesError, RetryableSerDesError)):
        EfsSerDes().serialize(LARGE, FIRST)


def test_the_sweep_leaves_an_entry_until_its_ttl(entries, root):
    serdes = EfsSerDes(ttl="100d")
    serdes.serialize(LARGE, FIRST)
    (path,) = entries()
    for days, remains in ((99, True), (101, False)):
        moment = time.time() - days * 86400
        os.utime(path, (moment, moment))
        sweep(root=root, unused_for="30d")
        assert path.exists() == remains


def test_no_entry_is_acknowledged_without_its_policy(entries, root, monkeypatch):
    """After one failed write the retry, in the same process, writes it."""
    real, serdes, attempts = policy.write, EfsSerDes(), []

    def fail_twice(*arguments):
        attempts.append(arguments)
        if len(attempts) < 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(*arguments)

    monkeypatch.setattr(policy, "write", fail_twice)
    for _ in range(2):
        with pytest.raises(RetryableSerDesError):
            serdes.serialize(LARGE, FIRST)
        assert entries() == []
    text = serdes.serialize(LARGE, FIRST)
    (path,) = entries()
    moment = time.time() - 40 * 86400
    os.utime(path, (moment, moment))
    sweep(root=root, unused_for="30d")
    assert serdes.deserialize(text, FIRST) == LARGE
    serdes.serialize(OTHER, FIRST)
    assert len(attempts) == 3


def test_the_pages_example_has_this_serialiser():
    page = pathlib.Path(__file__).parents[2] / "docs" / "adapters.md"
    if not page.exists():
        pytest.skip("only in the source tree")
    names = {"extract": list}
    exec(page.read_text().split("```python\n")[1].split("```")[0], names)
    assert isinstance(names["config"].serdes, EfsSerDes) and callable(names["handler"])


@pytest.mark.heavy
def test_a_handler_runs_and_replays_under_the_sdks_runner(entries):
    pytest.importorskip("aws_durable_execution_sdk_python_testing", reason="make test-heavy")
    script = os.path.join(os.path.dirname(__file__), "durable_handler.py")
    process = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, timeout=120
    )
    outcome = json.loads(process.stdout.splitlines()[-1])
    assert outcome["status"] == "SUCCEEDED", outcome
    total = sum(range(30_000))
    assert json.loads(outcome["result"]) == {
        "sums": [total, 2 * total, 3 * total], "large": 300_000, "state": "('x', 'x')"
    }  # fmt: skip
    assert outcome["loads"] == 1 and outcome["starts"] == 4
    assert len(entries()) >= 4
    hold_the_events(outcome["events"])


def hold_the_events(events):
    """Each step ends once, each attempt is told, and each of the four invocations ends."""
    told = {}
    for event in events:
        told.setdefault(event["event"], []).append(event)
        assert event["seconds"] >= 0 and event["name"]
    steps = [event for event in told["operation"] if event["name"] == "load"]
    assert [(step["type"], step["status"]) for step in steps] == [("Step", "SUCCEEDED")]
    runs = [event for event in told["attempt"] if event["name"] == "load"]
    assert [(run["outcome"], run["attempt"]) for run in runs] == [("SUCCEEDED", 1)]
    waits = [event for event in told["operation"] if event["type"] == "Wait"]
    assert len(waits) == 2 and all(wait["seconds"] >= 0.5 for wait in waits)
    ends = [(end["status"], end["first"]) for end in told["invocation"]]
    assert ends == [("PENDING", True)] + [("PENDING", False)] * 2 + [("SUCCEEDED", False)]


def test_events_are_emitted_and_metrics_written(monkeypatch):
    seen, flushed = [], []
    metrics = types.SimpleNamespace(flush=lambda: flushed.append(len(seen)))
    monkeypatch.setitem(sys.modules, "efsstate.metrics", metrics)
    start = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    info = types.SimpleNamespace(
        name=None, operation_id="1", sub_type="Step", attempt=None, is_replayed=False,
        start_time=start, end_time=start + dt.timedelta(seconds=2), execution_arn=ARN,
        status=types.SimpleNamespace(value="SUCCEEDED"), is_first_invocation=True,
        outcome=types.SimpleNamespace(value="FAILED"),
    )  # fmt: skip
    plugin, end = EventsFactory().create_plugin(None), on_event(seen.append)
    try:
        plugin.on_user_function_end(info)
        plugin.on_operation_end(info)
        plugin.on_invocation_end(info)
    finally:
        end()
    assert [event["name"] for event in seen] == ["1", "1", ARN] and flushed == [3]
    assert [event["seconds"] for event in seen[:2]] == [2, 2] and seen[0]["attempt"] == 1
