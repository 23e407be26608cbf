"""What may be judged without opening an entry, and when POLICY itself is no help."""

import os
import types

import msgpack
import pytest

from efsstate.errors import UnknownFormatError
from efsstate.eviction.policy import LIVE, LOOK, Policy, read
from efsstate.format import layout
from efsstate.mount import store


def found(age, unused=None, now=1000.0):
    at, used = int((now - age) * 1e9), int((now - (age if unused is None else unused)) * 1e9)
    return types.SimpleNamespace(st_mtime=at / 1e9, st_mtime_ns=at, st_atime_ns=used)


@pytest.mark.parametrize(
    ("policy", "age", "verdict"),
    [
        (Policy("f", 60, 60), 59, LIVE),
        (Policy("f", 60, 60), 60, "expired"),
        (Policy("f", 60, 600), 59, LIVE),
        (Policy("f", 60, 600), 61, LOOK),
        (Policy("f", 60, 600), 600, "expired"),
        (Policy("f", 60, None), 1e9, LOOK),
        (Policy("f"), 0, LOOK),
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
    store.write(tree.mount, "cache/f", layout.POLICY, payload, codec="msgpack")
    policy, problem = read(tree.mount, "f")
    assert "POLICY" in str(problem)
    assert policy.judge(found(1e9), 1000.0, None, None) == LOOK


def test_without_a_policy_headers_decide(tree):
    policy, problem = read(tree.mount, "f")
    assert problem is None and policy.judge(found(1e9), 1000.0, None, None) == LOOK


def test_a_newer_releases_policy_is_said_to_be_so(tree):
    tree.policy("f", shortest=60)
    with open(tree.full("cache/f/POLICY"), "r+b") as file:
        file.seek(4)
        file.write(bytes([9]))
    with pytest.raises(UnknownFormatError):
        read(tree.mount, "f")
