"""Hits of a cache that keeps nothing in memory: no item is built, and every check is made."""

import os

import pytest

import efsstate
from efsstate import cached
from efsstate.cache import tiers


@pytest.fixture
def plain():
    """A cached function without memory, and the arguments that it computed."""
    calls = []

    def make(**options):
        function = cached(**{"name": "plain", "memory": 0, **options})(
            lambda x: calls.append(x) or f"result {x}"
        )
        return function, calls

    return make


def built(monkeypatch):
    """Return the list of the items that are decoded for one caller from now on."""
    items, real = [], tiers.TieredCache._decode_for_one

    def decode(cache, item):
        items.append(item)
        return real(cache, item)

    monkeypatch.setattr(tiers.TieredCache, "_decode_for_one", decode)
    return items


@pytest.mark.parametrize("options", [{}, {"ttl": "1h"}, {"stale": "1h", "ttl": "1h"}])
def test_no_item_is_built(plain, monkeypatch, options):
    function, calls = plain(**options)
    function(1)
    items = built(monkeypatch)
    assert function(1) == "result 1" and calls == [1] and items == []


@pytest.mark.parametrize("options", [{"tags": ["t"]}, {"ttl": "1h", "tags": ["t"]}])
def test_an_item_is_built_where_there_is_more_to_tell(plain, monkeypatch, options):
    function, calls = plain(**options)
    function(1)
    items = built(monkeypatch)
    assert function(1) == "result 1" and calls == [1] and len(items) == 1


def test_a_cleared_result_is_computed_again(plain, apart):
    """By another cache of this name, which has told the first one nothing."""
    function, calls = plain()
    function(1)
    apart()
    plain()[0].cache_clear()
    function.cache._results.disk().clear_stamp(older_than=0)
    assert function(1) == "result 1" and calls == [1, 1]


def test_a_result_with_an_invalidated_tag_is_computed_again(plain):
    function, calls = plain(tags=lambda x: [f"tag {x}"])
    function(1), function(2)
    function.invalidate_tag("tag 1")
    assert (function(1), function(2)) == ("result 1", "result 2") and calls == [1, 2, 1]


class Sevens:
    """A codec whose bytes are sound as msgpack too, where they are another value."""

    @staticmethod
    def dumps(_value):
        return b"\x07"

    @staticmethod
    def loads(_payload):
        return "result 1"


def test_a_result_of_another_codec_is_computed_again(plain):
    plain(codec=Sevens())[0](1)
    function, calls = plain()
    assert function(1) == "result 1" and calls == [1, 1]


def test_an_expired_result_is_computed_again(plain, later):
    """Whether the entry says so, or a shorter ttl of this cache."""
    function, calls = plain(ttl="1h")
    shorter = plain(ttl="1m")[0]
    assert function(1) == shorter(1) == "result 1" and calls == [1]
    later(61)
    assert function(1) == "result 1" and calls == [1]
    assert shorter(1) == "result 1" and calls == [1, 1]
    later(3600)
    assert function(1) == "result 1" and calls == [1, 1, 1]


def test_other_code_is_warned_about(plain, caplog):
    plain()[0](1)
    other = cached(name="plain", memory=0)(lambda x: [x, "other"])
    assert other(1) == other(1) == "result 1"
    assert len([record for record in caplog.records if "version=" in record.getMessage()]) == 1


@pytest.mark.parametrize("at", [0, 4, 10, 30, 61, -1])
def test_a_flipped_byte_is_a_miss(plain, entries, at):
    function, calls = plain()
    function(1)
    (path,) = entries()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert function(1) == "result 1" and function.cache_info().damaged + calls.count(1) >= 2


def test_a_hit_is_counted_and_reported(plain):
    function, _ = plain()
    function(1)
    events = []
    end = efsstate.on_event(events.append)
    try:
        function(1)
    finally:
        end()
    (event,) = events
    assert (event["event"], event["level"], event["name"]) == ("hit", "mount", "plain")
    assert event["bytes"] == len("result 1") + 1 and event["seconds"] > 0
    assert function.cache_info().mount == 1


def test_a_missing_result_is_looked_up_once_before_the_claim(plain, monkeypatch):
    """The plain look is no request more: a miss goes on from it."""
    function, _ = plain()
    for other in range(2, 80):  # all 16 folders are open
        function(other)
    opened, real = [], os.open

    def count(path, *arguments, **options):
        if isinstance(path, str) and len(path) == 48:
            opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", count)
    function(1)
    assert len(opened) == 2  # and once more under the claim
