"""The janitor and ops as Lambda functions."""

import json

import pytest

from efsstate import janitor, ops
from efsstate.format import layout

from .conftest import DAY, HOUR


class Context:
    def __init__(self, seconds):
        self.seconds = seconds

    def get_remaining_time_in_millis(self):
        return int(self.seconds * 1000)


@pytest.fixture
def root(tree, monkeypatch):
    monkeypatch.setenv("EFSSTATE_ROOT", tree.path)
    tree.policy("f", shortest=90 * DAY)
    return tree


def test_it_sweeps_returns_and_logs_what_it_did(root, capsys):
    idle, used = root.entry("f", 1, age=40 * DAY), root.entry("f", 2, age=40 * DAY, unused=DAY)
    told = janitor.handler({}, Context(60))
    assert root.there(idle, used) == [used], "30 days is what it has where nothing is asked"
    assert (
        told["finished"]
        and told["reasons"] == {"unused": 1}
        and json.loads(capsys.readouterr().out) == told
    )


def test_a_schedules_event_is_no_option(root):
    event = {
        "version": "0",
        "id": "x",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "1",
        "time": "t",
        "region": "r",
        "resources": [],
        "detail": {},
    }
    assert janitor.handler(event, Context(60))["finished"]


def test_options_come_with_the_event(root):
    name = root.entry("f", 1, age=40 * DAY)
    assert janitor.handler({"unused_for": None}, None)["removed"] == 0
    assert janitor.handler({"older_than": "39d", "dry_run": True}, None)[
        "removed"
    ] == 1 and root.there(name)
    assert janitor.handler({"max_entries": 0}, None)["removed"] == 1


def test_an_option_that_there_is_not_is_refused(root):
    name = root.entry("f", 1, age=40 * DAY)
    with pytest.raises(ValueError, match="unused_four"):
        janitor.handler({"unused_four": "1d"}, None)
    assert root.there(name)


def test_it_ends_before_its_deadline_and_goes_on_the_next_time(root):
    for i in range(100):
        root.entry("f", i, age=40 * DAY)
    told = janitor.handler({}, Context(0))
    assert not told["finished"] and told["removed"] == 0
    assert janitor.handler({}, Context(60))["finished"] and root.entries("f") == 0


def test_shards_together_do_all(root):
    for i in range(100):
        root.entry("f", i, age=40 * DAY)
    told = [janitor.handler({"shard": shard, "of": 4}, Context(60)) for shard in range(4)]
    assert sum(one["removed"] for one in told) == 100 and [one["shard"] for one in told] == [
        0,
        1,
        2,
        3,
    ]


def test_ops_returns_the_commands_document(root):
    root.entry("f", 1, age=HOUR)
    told = ops.handler({"argv": ["stat"]}, Context(60))
    assert (
        told["schema"] == "efsstate.stat" and told["exit"] == 0 and told["rows"][0]["entries"] == 1
    )
    assert json.dumps(told)


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"argv": "stat"},
        {"argv": [1]},
        {"argv": ["nope"]},
        {"argv": ["gc"]},
        {"argv": ["ls", "--limit", "x"]},
    ],
)
def test_ops_errors_are_documents(root, event):
    root.entry("f", 1, age=100 * DAY)
    if event == {"argv": ["gc"]}:
        event = {"argv": ["gc", "--older-than", "1d"]}
    told = ops.handler(event)
    assert told["schema"] == "efsstate.error" and told["exit"] == 2 and told["error"]["message"]
    assert root.entries("f") == 1


def test_ops_removes_with_a_yes_alone(root):
    root.entry("f", 1, age=100 * DAY)
    assert ops.handler({"argv": ["gc", "-y", "--older-than", "1d"]})["removed"] == 1


def test_ops_help_is_a_text_and_nothing_goes_to_the_log(root, capsys):
    told = ops.handler({"argv": ["--help"]})
    assert told["exit"] == 0 and "Usage: efsstate" in told["text"] and capsys.readouterr().out == ""
    assert not root.there(layout.SWEEPS)
