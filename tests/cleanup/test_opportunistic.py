"""The trim after a put: rare, once in the fleet, bounded, and least recently used first."""

import os
import time

import pytest

from efsstate.eviction import trim
from efsstate.format import layout

from .conftest import HOUR


@pytest.fixture
def due(tree, monkeypatch):
    """Whether this process has waited long enough: `due()` makes it so."""
    monkeypatch.setattr(trim, "_due", {})

    def make():
        trim._due[tree.mount.path, "f"] = 0.0

    return make


def calls(tree, monkeypatch):
    """How often any folder is scanned from now on."""
    counted = []
    real = tree.mount.scan
    monkeypatch.setattr(tree.mount, "scan", lambda folder: counted.append(folder) or real(folder))
    return counted


def test_the_first_put_of_a_process_does_nothing_nor_do_the_next(tree, monkeypatch, due):
    """Of a thousand environments that start together, each waits a random part of the pause."""
    for i in range(20):
        tree.entry("f", i)
    looked = calls(tree, monkeypatch)
    for _ in range(1000):
        assert trim.trim(tree.mount, "f", 100) == 0
    assert not looked and not tree.there(layout.SWEEPS)
    wait = trim._due[tree.mount.path, "f"] - time.monotonic()
    assert wait <= trim.PAUSE


def test_when_it_is_due_the_least_recently_used_go(tree, due):
    names = [tree.entry("f", i, age=90 * HOUR, unused=i * HOUR, size=1000) for i in range(40)]
    limit = 10 * os.path.getsize(tree.full(names[0]))
    due()
    assert trim.trim(tree.mount, "f", limit) == 30 and tree.there(*names) == names[:10]


def test_within_the_limit_nothing_goes(tree, due):
    names = [tree.entry("f", i, size=10) for i in range(40)]
    due()
    assert trim.trim(tree.mount, "f", 10**6) == 0 and tree.there(*names) == names


def test_the_fleet_does_it_once_in_a_while_not_every_environment(tree, monkeypatch, due):
    names = [tree.entry("f", i, size=1000) for i in range(40)]
    due()
    assert trim.trim(tree.mount, "f", 20_000) > 0
    tree.entry("f", 99, size=50_000)
    looked = calls(tree, monkeypatch)
    for _ in range(5):  # five more environments, each due
        due()
        assert trim.trim(tree.mount, "f", 20_000) == 0
    assert not looked
    mark = tree.full(f"{layout.sweep_marks('trim')}/{layout.sweep_mark('cache/f')}")
    os.utime(mark, (time.time() - 2 * trim.PAUSE,) * 2)
    due()
    assert trim.trim(tree.mount, "f", 20_000) > 0 and len(tree.there(*names)) < 20


def test_while_another_does_it_nobody_else_does(tree, due):
    from efsstate.mount import lock

    for i in range(10):
        tree.entry("f", i)
    marks, mark = layout.sweep_marks("trim"), layout.sweep_mark("cache/f")
    held = lock.attempt(tree.mount, marks, mark)
    os.utime(tree.full(f"{marks}/{mark}"), (1, 1))
    due()
    assert trim.trim(tree.mount, "f", 1) == 0 and tree.entries("f") == 10
    held.release()
    due()
    assert trim.trim(tree.mount, "f", 1) == 10


def test_a_part_of_a_large_namespace_stands_for_all(tree, monkeypatch, due):
    monkeypatch.setattr(trim, "_ENOUGH", 200)
    for i in range(1600):
        tree.entry("f", i, age=90 * HOUR, unused=i)
    looked = calls(tree, monkeypatch)
    size = os.path.getsize(tree.full(tree.entry("f", 0)))
    due()
    gone = trim.trim(tree.mount, "f", 800 * size)
    assert len(set(looked)) < 6 and 50 < gone < 200


def test_without_time_nothing_is_removed(tree, due):
    for i in range(600):
        tree.entry("f", i)
    due()
    assert trim.trim(tree.mount, "f", 1, seconds=0) == 0 and tree.entries("f") == 600


def test_it_raises_nothing(tree, monkeypatch, due):
    tree.entry("f", 1)
    monkeypatch.setattr(
        tree.mount, "scan", lambda _folder: (_ for _ in ()).throw(PermissionError(13, "no"))
    )
    due()
    assert trim.trim(tree.mount, "f", 1) == 0
