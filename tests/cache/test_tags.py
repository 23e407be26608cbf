"""Tags: all results with one go out of reach at once, and a hit asks for nothing more."""

import asyncio
import gc
import os
import threading
import time

import pytest

from efsstate import Cache, cached, sweep
from efsstate.cache import clearing, disk
from efsstate.format import layout


@pytest.fixture
def f(apart):
    calls = []

    @cached(name="page", tags=lambda user, number: [f"user:{user}", "pages"])
    def page(user, number):
        calls.append((user, number))
        return [user, number]

    page.calls = calls
    return page


def test_an_invalidated_tag_takes_its_results_alone(f):
    for user in "ab":
        f(user, 1), f(user, 2)
    f.invalidate_tag("user:a")
    assert [f(user, number)[0] for user in "ab" for number in (1, 2)] == ["a", "a", "b", "b"]
    assert f.calls[4:] == [("a", 1), ("a", 2)]
    f("a", 1)
    assert len(f.calls) == 6
    f.invalidate_tag("pages")
    f("a", 1), f("b", 1)
    assert len(f.calls) == 8
    f.invalidate_tag("nobody's")
    f("a", 1)
    assert len(f.calls) == 8


def test_another_process_sees_it_at_once_if_it_asks_and_soon_if_not(f, another, monkeypatch):
    other = another(f, memory=0, tags=f.cache._results.options.tags)
    f("a", 1), f("b", 1)
    assert other.peek("a", 1) == ["a", 1]
    f.invalidate_tag("user:a")
    assert other.cache.get is not None
    assert other.explain("a", 1) == "miss: a tag of it was invalidated"
    assert other.explain("b", 1).startswith("hit")
    real = time.time
    later = another(f, tags=f.cache._results.options.tags)
    later("a", 1)
    f.invalidate_tag("user:a")
    monkeypatch.setattr(time, "time", lambda: real() + 2 * disk.MAX_STALENESS + 1)
    with pytest.raises(KeyError):
        later.peek("a", 1)


def test_a_computation_that_began_before_does_not_undo_it(apart):
    inside, gate, numbers = threading.Event(), threading.Event(), iter(range(9))

    @cached(name="slow", tags=["t"])
    def f():
        number = next(numbers)
        if not number:
            inside.set()
            gate.wait(30)
        return [number]

    thread = threading.Thread(target=f)
    thread.start()
    inside.wait(30)
    f.invalidate_tag("t")
    assert f() == [1]  # it does not join the earlier one
    gate.set()
    thread.join()
    assert f() == [1] and f.explain().startswith("hit")
    apart()
    assert cached(name="slow", memory=0, tags=["t"])(lambda: None).peek() == [1]


def test_another_hosts_computation_that_began_before_does_not_undo_it(f, apart):
    """It stores its result with the clear stamp that the tag had when it began."""
    here = f.cache._results.disk()
    tag = layout.tag_id("user:a")
    digest = f.cache_key("a", 1)
    apart()
    there = disk.find(here.mount, here.component)
    start = there.start(digest, None, changing=False, tags=[tag])
    f.invalidate_tag("user:a")
    meta = disk.pack_meta(start.clear_stamp, b"", "msgpack", tags=start.tags)
    assert there.write(digest, b"\x01", "msgpack", None, meta, start) is True
    assert here.read(digest, "msgpack", exact=True) is None
    assert f("a", 1) == ["a", 1] and f.calls == [("a", 1)]


def test_a_tag_may_be_any_text():
    cache = Cache("texts")
    for tag in ("", "\ud83d", "a\0b", "ü" * 3000):
        cache.set("key", 1, tags=[tag])
        cache.invalidate_tag(tag)
        assert cache.get("key") is None, tag


def test_a_value_that_is_set_has_tags(apart):
    cache = Cache("box")
    cache.set("x", [1], tags=["t"])
    cache.set("y", [2])
    cache.set("z", 3, ttl="1h", tags=("t", "u"))
    assert sorted(cache.keys()) == ["x", "y", "z"]
    cache.invalidate_tag("t")
    assert [cache.get(key) for key in "xyz"] == [None, [2], None]
    cache.set("x", [4], tags=["t"])
    apart()
    assert Cache("box", memory=0).get("x") == [4] == cache.get("x")
    f = cached(name="given", tags=["t"])(lambda x: x)
    f.set([5], 1)
    f.invalidate_tag("t")
    assert f(1) == 1


def test_a_coroutine_has_tags():
    numbers = iter(range(9))

    @cached(name="awaited", tags=lambda x: [x])
    async def f(x):
        return next(numbers)

    async def main():
        values = [await f("a"), await f("a")]
        await f.invalidate_tag("a")
        return [*values, await f("a")]

    assert asyncio.run(main()) == [0, 0, 1]


@pytest.mark.parametrize("tags", ["one", [1], [None], 5])
def test_tags_that_are_no_strings_are_refused(tags):
    with pytest.raises(TypeError, match="tags"):
        cached(name="bad", tags=lambda: tags)(lambda: 1)()
    with pytest.raises(TypeError):
        cached(name="bad", tags=tags)(lambda: 1)
    with pytest.raises(TypeError):
        Cache("bad").set("k", 1, tags=tags)
    with pytest.raises(ValueError, match="at most 64"):
        Cache("bad").set("k", 1, tags=map(str, range(65)))


def of_tags(folder):
    return [mark for mark in layout.cleared_marks(os.listdir(folder)) if mark[1]]


def test_the_marks_stay_few_and_a_clear_removes_them(root, monkeypatch):
    monkeypatch.setattr(clearing, "_MOST_TAG_MARKS", 8)
    cache = Cache("many")

    def marks():
        return of_tags(root / "cache/many")

    for number in range(30):
        cache.set(number, number, tags=[f"t{number}"])
        cache.invalidate_tag(f"t{number}")
        cache.invalidate_tag(f"t{number}")
        assert len(marks()) <= 9 and cache.get(number, fresh=True) is None
    cache.set("k", 1, tags=["t29"])
    cache.clear()
    assert not marks() and cache.get("k", fresh=True) is None
    cache.set("k", 1, tags=["t29"])
    assert cache.get("k", fresh=True) == 1
    assert sweep().foreign == 0


def test_a_forged_mark_clears_everything_and_heals(root):
    cache = Cache("forged", memory=0)
    cache.set("k", 1, tags=["t"])
    tag = layout.tag_id("t")
    os.symlink("x", root / f"cache/forged/CLEARED.5.{tag}.{'0' * 32}")
    assert cache.get("k", fresh=True) is None
    assert not of_tags(root / "cache/forged")
    cache.set("k", 2, tags=["t"])
    assert cache.get("k", fresh=True) == 2


@pytest.mark.parametrize("count", [255, 3])
def test_a_meta_that_is_cut_has_no_tags_to_crash_on(count):
    meta = disk.pack_meta(1, b"key", "msgpack", tags=[(b"12345678", 7)] * 2)
    assert disk.tags_of(meta) == [(b"12345678".hex(), 7)] * 2
    cut = meta[:9] + bytes([count]) + meta[10:30]
    assert len(disk.tags_of(cut)) <= 2 and disk.tags_of(meta[:9]) == []


def test_invalidating_a_tag_costs_the_same_among_many_entries(monkeypatch):
    """No request for an entry, and none for each tag."""
    from tests.calls import Calls

    counts = []
    for entries in (300, 900):
        cache = Cache(f"size {entries}", memory=0)
        cache.set_many({number: number for number in range(entries)})
        cache.set("k", 1, tags=["t"])
        cache.invalidate_tag("t")
        gc.collect()
        gc.disable()
        try:
            with Calls() as calls:
                cache.invalidate_tag("t")
        finally:
            gc.enable()
        names = [name for name in calls.names if name.startswith("mount/")]
        counts.append(len([name for name in names if "__del__" not in name]))
    assert abs(counts[0] - counts[1]) <= 4 and counts[0] < 120, counts


def test_touch_and_incr_keep_the_tags_of_a_value():
    box = Cache("box")
    box.set("n", 1, tags=["numbers"])
    box.set("text", "a", tags=["texts", "all"])
    assert box.incr("n") == 2 and box.touch("text", ttl="1h") and box.touch("text")
    box.invalidate_tag("numbers")
    assert box.get("n") is None and box.get("text") == "a"
    assert box.incr("n") == 1  # it counts from nothing, and has no tags
    box.invalidate_tag("numbers"), box.invalidate_tag("all")
    assert box.get("n") == 1 and box.get("text", fresh=True) is None


def test_a_touch_beside_an_invalidation_of_its_tag_undoes_nothing(monkeypatch):
    box = Cache("box")
    box.set("k", ["v"], tags=["t"])
    take = type(box.results).take

    def invalidate(results, item):
        box.invalidate_tag("t")
        return take(results, item)

    monkeypatch.setattr(type(box.results), "take", invalidate)
    box.touch("k")
    monkeypatch.undo()
    assert box.get("k") is None and box.get("k", fresh=True) is None
