"""Histories on this machine: many processes, kill -9, freezes, broken claims.

Tests/nfs/test_checkpoints.py has them on NFS.
"""

import os
import subprocess
import sys

import pytest
from tests.checkpoints import history

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


class Started:
    def __init__(self, where, function, *arguments):
        program = (
            f"from tests.checkpoints import history; history.{function.__name__}(*{arguments!r})"
        )
        self.process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
        self.pid = self.process.pid

    def kill(self):
        self.process.kill()
        self.process.wait()

    def wait(self, timeout):
        code = self.process.wait(timeout)
        assert code == 0


def play(tmp_path, seconds, **options):
    (tmp_path / "root").mkdir()
    (tmp_path / "records").mkdir()
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    roots = {"a": str(tmp_path / "root"), "b": str(tmp_path / "root") + "/."}
    running = history.Play(Started, roots, tmp_path / "records", seconds, seed, **options)
    counts, violations = running.run()
    print(dict(running.done), dict(counts), violations[:3])
    return running, counts, violations


def test_no_violation_among_kills_freezes_and_broken_claims(tmp_path):
    running, counts, violations = play(tmp_path, 8)
    assert not violations
    assert counts["save ok"] > 20 and counts["load ok"] > 20 and sum(running.done.values()) > 10


def violations_of(tmp_path, seconds, kinds, **options):
    """Play until one of `kinds` is seen: on a busy machine few seconds bring few chances."""
    for turn in range(5):
        folder = tmp_path / str(turn)
        folder.mkdir()
        _, _, violations = play(folder, seconds, **options)
        if seen := {kind for kind, *_ in violations} & kinds:
            return seen
    return set()


def test_a_bug_put_in_on_purpose_is_caught(tmp_path):
    """A save that is acknowledged without a look for a higher epoch.

    The holder of a broken claim goes on.
    """
    options = {"bug": "no look after a save", "faults": ("break",)}
    assert violations_of(tmp_path, 8, {"fork", "lost", "gone"}, **options)


def test_a_map_skips_no_item_among_kills_and_freezes(tmp_path):
    """Every item is done at least once, and what is counted was done."""
    running, counts, violations = play(tmp_path, 6, by_map=True)
    assert not violations
    last = str(tmp_path / "records" / "last.jsonl")
    assert history.finish_maps(str(tmp_path / "root"), last)
    counts, violations = history.check_maps(history.lines([*running.paths, last]))
    assert not violations
    assert counts["item ok"] > history.ITEMS and counts["load ok"] > 20


def test_a_map_that_counts_too_much_is_caught(tmp_path):
    """A bug on purpose: the watermark passes the items that were only begun."""
    options = {"bug": "a map counts what was begun", "faults": ("break",), "by_map": True}
    assert violations_of(tmp_path, 6, {"skipped", "early"}, **options)


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        (
            [
                ("save", "begin", "1", "start"),
                ("save", "begin", "2", "start"),
                ("save", "ok", "1", "start"),
                ("save", "ok", "2", "start"),
            ],
            "fork",
        ),
        (
            [
                ("save", "begin", "1", "start"),
                ("save", "ok", "1", "start"),
                ("load", "begin", "l"),
                ("load", "ok", "l", "start"),
            ],
            "lost",
        ),
        (
            [
                ("save", "begin", "1", "start"),
                ("load", "begin", "l"),
                ("load", "ok", "l", "1"),
                ("load", "begin", "m"),
                ("load", "ok", "m", "start"),
            ],
            "undone",
        ),
        (
            [("load", "begin", "l"), ("load", "ok", "l", "1"), ("save", "begin", "1", "start")],
            "unknown",
        ),
    ],
)
def test_the_check_sees_each_kind_of_violation(events, kind):
    made = [
        {
            "t": float(t),
            "op": op,
            "phase": phase,
            "id": name,
            **({"on": more[0]} if op == "save" else {"state": more[0]} if more else {}),
        }
        for t, (op, phase, name, *more) in enumerate(events)
    ]
    assert [found[0] for found in history.check(made)[1]] == [kind]


@pytest.mark.parametrize(
    ("progress", "kind"),
    [
        ({"items": 2, "finished": False, "state": [0, 1]}, "skipped"),
        ({"items": 1, "finished": True, "state": [0]}, "early"),
        ({"items": 1, "finished": False, "state": None}, "torn"),
    ],
)
def test_the_check_of_maps_sees_each_kind(progress, kind):
    records = [
        {"t": 1.0, "op": "item", "phase": "ok", "job": "map-0", "item": 0},
        {"t": 2.0, "op": "load", "phase": "ok", "job": "map-0", **progress},
    ]
    assert [violation[0] for violation in history.check_maps(records)[1]] == [kind]
