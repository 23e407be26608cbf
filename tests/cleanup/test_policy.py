"""What may be judged without opening an entry, and when POLICY itself is no help."""

import itertools
import os
import pathlib
import threading
import types

import msgpack
import pytest
from tests.cleanup.conftest import DAY

from efsstate.errors import UnknownFormatError
from efsstate.eviction import policy as policies
from efsstate.eviction.policy import LIVE, UNSURE, Policy, read
from efsstate.format import layout
from efsstate.mount import lock
from efsstate.mount.files import Mount


def found(age, unused=None, now=1000.0):
    at, used = int((now - age) * 1e9), int((now - (age if unused is None else unused)) * 1e9)
    return types.SimpleNamespace(st_mtime=at / 1e9, st_mtime_ns=at, st_atime_ns=used)


@pytest.mark.parametrize(
    ("policy", "age", "verdict"),
    [
        (Policy("f", 60, 60), 59, LIVE),
        (Policy("f", 60, 60), 60, "expired"),
        (Policy("f", 60, 600), 59, LIVE),
        (Policy("f", 60, 600), 61, UNSURE),
        (Policy("f", 60, 600), 600, "expired"),
        (Policy("f", 60, None), 1e9, UNSURE),
        (Policy("f"), 0, UNSURE),
        (Policy("f", float("inf"), None), 1e9, LIVE),
        (Policy("f", 60, 60, cleared=900), 101, "cleared"),
        (Policy("f", 60, 60, cleared=900), 100, "expired"),
        (Policy("f", 60, 60, cleared=990), 10, LIVE),
    ],
)
def test_age_alone_tells_outside_of_shortest_and_longest(policy, age, verdict):
    assert policy.judge(found(age), 1000.0, None, None) == verdict


def test_older_than_and_unused_for():
    ever = Policy("f", 1e9, None)
    assert ever.judge(found(50), 1000.0, 50, None) == "old"
    assert ever.judge(found(49), 1000.0, 50, None) == LIVE
    assert ever.judge(found(500, unused=50), 1000.0, None, 50) == "unused"
    assert ever.judge(found(500, unused=49), 1000.0, None, 50) == LIVE


def test_what_must_stay_is_not_unused(tree):
    kept, other = Policy("f", 1e9, None), Policy("f", 1e9, None)
    kept.keeps_unused = True
    for merged in (kept, kept.widened(other), other.widened(kept)):
        policies.write(tree.mount, "f", merged)
        stored, _ = read(tree.mount, "f")
        assert stored == merged
        assert stored.judge(found(500), 1000.0, None, 50) == LIVE
        assert stored.judge(found(500), 1000.0, 500, 50) == "old"
    assert b"keeps_unused" not in other.encode()


def test_a_policy_is_read_with_when_it_was_cleared(tree):
    tree.policy("f", shortest=60, longest=90, max_bytes=7, max_entries=3, later_key=[1, 2])
    mark = tree.cleared("f", age=100)
    tree.file(f"cache/f/CLEARED.{10**15}.{'0' * 32}", age=1)  # not signed
    policy, problem = read(tree.mount, "f")
    assert problem is None
    assert (policy.shortest, policy.longest, policy.max_bytes, policy.max_entries) == (60, 90, 7, 3)
    assert policy.cleared == os.lstat(tree.full(mark)).st_mtime


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgpack.packb([1]),
        msgpack.packb({"shortest": "x"}),
        msgpack.packb({"longest": -1}),
        msgpack.packb({"longest": float("nan")}),
        msgpack.packb({"max_bytes": True}),
        b"\x93" * 60,
    ],
)
def test_a_policy_that_is_none_lets_headers_decide(tree, payload):
    tree.mount.write_entry("cache/f", layout.POLICY, payload, codec="msgpack")
    policy, problem = read(tree.mount, "f")
    assert "POLICY" in str(problem)
    assert policy.judge(found(1e9), 1000.0, None, None) == UNSURE


@pytest.mark.parametrize("fault", ["damaged", "signed", "EIO"])
def test_what_a_policy_cannot_tell_stays(tree, monkeypatch, fault):
    """It may say that entries stay unused, as those of durable functions do."""
    tree.policy("f", keeps_unused=True)
    entry = tree.entry("f", "k", age=40 * DAY)
    if fault == "damaged":
        with open(tree.full("cache/f/POLICY"), "r+b") as file:
            file.truncate(60)
    elif fault == "signed":
        monkeypatch.setattr(tree.mount, "key", b"k" * 32)
    else:
        real = Mount.read_entry

        def fail(mount, folder, name, **options):
            if name == layout.POLICY:
                raise OSError(5, "Input/output error")
            return real(mount, folder, name, **options)

        monkeypatch.setattr(Mount, "read_entry", fail)
    report = tree.sweep(unused_for="30d")
    assert tree.there(entry) and report.removed == 0 and report.errors == 1
    assert tree.sweep(older_than="30d").reasons == {"old": 1}


def test_without_a_policy_headers_decide(tree):
    policy, problem = read(tree.mount, "f")
    assert problem is None and policy.judge(found(1e9), 1000.0, None, None) == UNSURE


def test_a_newer_releases_policy_is_said_to_be_so(tree):
    tree.policy("f", shortest=60)
    with open(tree.full("cache/f/POLICY"), "r+b") as file:
        file.seek(4)
        file.write(bytes([9]))
    with pytest.raises(UnknownFormatError):
        read(tree.mount, "f")


def test_a_policy_widens_and_never_narrows(tree):
    stored = policies.widen(tree.mount, "f", Policy("f", 60, 600))
    assert stored == Policy("f", 60, 600)
    assert policies.widen(tree.mount, "f", Policy("f", 30, 90)) == Policy("f", 30, 600)
    assert policies.widen(tree.mount, "f", Policy("f", 90, None)) == Policy("f", 30, None)
    assert policies.load(tree.mount, "f") == Policy("f", 30, None)


@pytest.mark.parametrize("cut", [False, True])
def test_a_policy_that_may_be_signed_is_left_as_it_is(tree, monkeypatch, cut):
    """Without the key a sound POLICY looks damaged; one that is cut off is damaged."""
    monkeypatch.setattr(tree.mount, "key", b"k" * 32)
    policies.widen(tree.mount, "f", Policy("f", 60, 600, max_entries=5000))
    path, stranger = pathlib.Path(tree.full("cache/f/POLICY")), Policy("f", 30, 30)
    if cut:
        os.truncate(path, 60)
    before = path.read_bytes()
    monkeypatch.setattr(tree.mount, "key", None)
    assert policies.widen(tree.mount, "f", stranger) == stranger
    assert (path.read_bytes() == before) != cut
    monkeypatch.setattr(tree.mount, "key", b"another key")
    assert policies.widen(tree.mount, "f", stranger) == stranger
    assert policies.load(tree.mount, "f") == stranger


def test_a_policy_that_says_nothing_is_replaced(tree):
    tree.mount.write_entry("cache/f", layout.POLICY, b"\xc1", codec="msgpack")
    policies.widen(tree.mount, "f", Policy("f", 60, 60))
    assert policies.load(tree.mount, "f") == Policy("f", 60, 60)


@pytest.mark.parametrize("error", [TimeoutError, ValueError])
@pytest.mark.parametrize("nth", [1, 2])
def test_an_alarm_is_no_damage_of_a_policy(tree, monkeypatch, error, nth):
    """It comes in the first reading of POLICY, or in that of the writer whose turn it is."""
    policies.widen(tree.mount, "f", Policy("f", 60, 600, max_entries=5000))
    before = policies.load(tree.mount, "f")
    real, count = msgpack.unpackb, itertools.count(1)

    def unpack(payload):
        if next(count) == nth:
            raise error("alarm")
        return real(payload)

    monkeypatch.setattr(msgpack, "unpackb", unpack)
    with pytest.raises(error, match="alarm"):
        policies.widen(tree.mount, "f", Policy("f", 30, 30))
    assert policies.load(tree.mount, "f") == before


def test_a_covered_policy_is_not_written_again(tree):
    policies.widen(tree.mount, "f", Policy("f", 60, 600, 1000))
    before = os.stat(tree.full("cache/f/POLICY"))
    policies.widen(tree.mount, "f", Policy("f", 60, 60))
    after = os.stat(tree.full("cache/f/POLICY"))
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_limit_stays_until_another_is_given(tree):
    """A program that opens the namespace without naming its limit does not lift it (I18)."""
    policies.widen(tree.mount, "f", Policy("f", 60, 60, 1000, 10))
    policies.widen(tree.mount, "f", Policy("f", 60, 60))
    stored = policies.load(tree.mount, "f")
    assert (stored.max_bytes, stored.max_entries) == (1000, 10)
    policies.widen(tree.mount, "f", Policy("f", 60, 60, 2000))
    assert policies.load(tree.mount, "f").max_bytes == 2000


def test_two_writers_at_once_lose_no_entry_of_either(tree, monkeypatch):
    """The second writer read POLICY before the first wrote it, and keeps the first's time (I18)."""
    has_read, has_written = threading.Event(), threading.Event()
    real = policies._merge

    def merge_late(mount, namespace, wanted):
        result = real(mount, namespace, wanted)
        if wanted.longest == 60 and not has_read.is_set():
            has_read.set()
            assert has_written.wait(10)
        return result

    monkeypatch.setattr(policies, "_merge", merge_late)
    short = threading.Thread(
        target=policies.widen, args=(tree.mount, "f", Policy("f", 60, 60)), daemon=True
    )
    short.start()
    assert has_read.wait(10)
    policies.widen(tree.mount, "f", Policy("f", 600, 600))
    has_written.set()
    short.join(10)
    assert policies.load(tree.mount, "f") == Policy("f", 60, 600)


def test_a_writer_waits_for_the_one_that_is_writing(tree, monkeypatch):
    """Between the second read and the write nobody else writes."""
    real, writing, go = policies.write, threading.Event(), threading.Event()

    def write_slowly(mount, namespace, policy):
        if policy.longest == 60:
            writing.set()
            assert go.wait(10)
        real(mount, namespace, policy)

    monkeypatch.setattr(policies, "write", write_slowly)
    monkeypatch.setattr(policies, "_WAIT", 30.0)
    wanted = [Policy("f", 60, 60), Policy("f", 600, 600)]
    threads = [
        threading.Thread(target=policies.widen, args=(tree.mount, "f", policy), daemon=True)
        for policy in wanted
    ]
    threads[0].start()
    assert writing.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    assert threads[1].is_alive()
    go.set()
    for thread in threads:
        thread.join(10)
    assert policies.load(tree.mount, "f") == Policy("f", 60, 600)


def test_a_mount_without_locks_has_policies_all_the_same(tree, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock, "acquire", refuse)
    policies.widen(tree.mount, "f", Policy("f", 60, 60))
    assert policies.load(tree.mount, "f") == Policy("f", 60, 60)


def test_a_newer_releases_policy_is_not_written(tree):
    tree.policy("f", shortest=60)
    path = pathlib.Path(tree.full("cache/f/POLICY"))
    stored = path.read_bytes()
    path.write_bytes(stored[:4] + bytes([9]) + stored[5:])
    before = path.stat()
    wanted = Policy("f", 1, 1)
    assert policies.widen(tree.mount, "f", wanted) == wanted
    assert path.stat().st_ino == before.st_ino
