"""`cached`: what a call does, its options, and what stands on the function."""

import dataclasses
import datetime as dt
import logging
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import efsstate
from efsstate import cached, on_event
from efsstate.mount import clock
from efsstate.mount.files import Mount


def counting(**options):
    calls = []

    @cached(**options)
    def f(x, y=0):
        calls.append(x)
        return (x, y)

    f.calls = calls
    return f


def test_a_result_is_computed_once_and_comes_back_exactly(another):
    f = counting()
    assert f(1) == f(1) == (1, 0) and f.calls == [1]
    g = another(f)
    assert g(1) == (1, 0) and f.calls == [1]
    assert f.cache_info()[:2] == (1, 1) and g.cache_info()[:2] == (1, 0)
    assert (f.cache_info().memory, g.cache_info().mount) == (1, 1)


def test_without_parentheses_and_with_the_functions_names():
    @cached
    def f(x: int) -> int:
        """Doubles."""
        return 2 * x

    assert f(2) == f(x=2) == 4
    assert (f.__name__, f.__doc__, f.__wrapped__(3), f.__annotations__) == (
        "f",
        "Doubles.",
        6,
        {"x": int, "return": int},
    )


def test_none_is_kept_and_exceptions_are_not():
    calls = []

    @cached
    def f(x):
        calls.append(x)
        if x < 0:
            raise StopIteration(x)

    assert f(1) is None and f(1) is None and calls == [1]
    for _ in range(2):
        with pytest.raises(StopIteration) as caught:
            f(-1)
        assert caught.value.value == -1
    assert calls == [1, -1, -1]


def test_a_callers_change_never_reaches_another_caller(another):
    @cached
    def f(x):
        return {"a": [1, 2], "n": np.zeros(5)}

    for g in (f, f, another(f), another(f, memory=0)):
        for _ in range(3):
            found = g(1)
            assert found["a"] == [1, 2] and not found["n"].any()
            found["a"].append(3)
            found["n"][:] = 7


def test_a_callers_change_of_a_large_array_stays_its_own(another):
    @cached
    def f(x):
        return np.zeros(
            400_000
        )  # read into a buffer of its own, and small enough to stay in memory

    for g in (f, another(f), another(f, memory=0)):
        for _ in range(3):
            found = g(1)
            assert not found.any() and found.flags.writeable
            found[:] = 1


def test_immutable_results_are_handed_out_without_a_copy():
    f = counting()
    f(1)
    assert f(1) is f(1)

    @cached
    def g(x):
        return [x]

    g(1)
    assert g(1) is not g(1)


def test_equal_arguments_of_other_types_are_other_calls():
    f = counting()
    for x in (1, True, 1.0, "1", b"1", (1,), (True,), (1.0,), 0.0, -0.0, "é" * 2000):
        assert f(x)[0] is x or f(x)[0] == x
    assert len(f.calls) == 11
    for x in (1, True, 1.0, "1", b"1", (1,), (True,), (1.0,), 0.0, -0.0):
        assert repr(f(x)[0]) == repr(x)
    assert len(f.calls) == 11


def test_a_hostile_equality_does_not_reach_the_fast_path():
    class Odd(int):
        def __eq__(self, other):
            return True

        def __hash__(self):
            return hash(1)

    f = counting(ignore=("x",))
    g = counting()
    g(1), g(1)
    with pytest.raises(TypeError, match="Odd"):
        g(Odd(5))
    assert f(Odd(5)) == f(Odd(6))


# How long


def test_ttl_ends_a_result_in_memory_and_on_the_mount(another, later):
    f = counting(ttl="1m")
    f(1)
    later(59)
    f(1)
    assert f.calls == [1]
    later(2)
    assert another(f, ttl="1m").explain(1).startswith("miss: expired")
    f(1)
    assert f.calls == [1, 1]


def test_ttl_may_be_a_function_of_the_result(later):
    calls = []

    @cached(
        ttl=lambda value: {
            "short": 10,
            "timedelta": dt.timedelta(hours=1),
            "none": None,
            "zero": 0,
            "text": "2h",
        }[value]
    )
    def f(x):
        calls.append(x)
        return x

    for x in ("short", "timedelta", "none", "zero", "text"):
        f(x)
    later(11)
    for x in ("short", "timedelta", "none", "zero", "text"):
        f(x)
    assert calls == ["short", "timedelta", "none", "zero", "text", "short", "zero"]


def test_a_ttl_that_is_shortened_later_counts_for_old_entries(another, later):
    f = counting(ttl="1h")
    f(1)
    later(100)
    assert another(f, ttl="1h").explain(1).startswith("hit")
    assert another(f, ttl="1m").explain(1).startswith("miss: expired")
    assert another(f, ttl="2h").explain(1).startswith("hit: on the mount, for 3")


@pytest.mark.parametrize(
    "bad",
    [
        {"ttl": -1},
        {"ttl": "soon"},
        {"ttl": float("nan")},
        {"stale": -1},
        {"memory": -1},
        {"memory": "much"},
        {"lock_timeout": "x"},
        {"io_timeout": -1},
        {"io_timeout": 0},
        {"max_bytes": -5},
        {"name": ""},
        {"ignore": "nothing"},
    ],
)
def test_a_bad_option_is_an_error_at_once(bad):
    with pytest.raises(ValueError, match=r"\w"):
        cached(**bad)(lambda x: x)


@pytest.mark.parametrize(
    "bad",
    [
        {"ttl": True},
        {"ttl": []},
        {"memory": 1.5},
        {"name": 5},
        {"codec": "json"},
        {"codec": 5},
        {"codec": None},
        {"root": 5},
        {"root": b"/x"},
        {"io_timeout": True},
        {"key": "x"},
        {"cache_if": True},
        {"ignore": 5},
        {"lock_timeout": []},
        {"stale": True},
    ],
)
def test_an_option_of_a_wrong_type_is_an_error_at_once(bad):
    (option,) = bad
    with pytest.raises(TypeError, match=option):
        cached(**bad)(lambda x: x)
    if option in ("ttl", "codec", "memory", "root", "io_timeout"):
        with pytest.raises(TypeError, match=option):
            efsstate.Cache("box", **bad)


def test_a_ttl_of_ten_thousand_years_is_kept_like_any(another):
    f = counting(ttl=dt.timedelta.max)
    f(1)
    assert another(f, ttl="9999999999d").explain(1).startswith("hit")


@pytest.mark.parametrize("bad", [lambda value: -1, lambda value: "soon", lambda value: 1 / 0])
@pytest.mark.parametrize("option", ["ttl", "cache_if"])
def test_a_ttl_or_cache_if_that_fails_costs_the_entry(bad, option, entries, caplog):
    if option == "cache_if":
        bad = lambda value: 1 / 0  # noqa: E731
    f = counting(**{option: bad})
    assert f(1) == f(1) == (1, 0) and f.calls == [1, 1]
    assert not entries() and len(caplog.records) == 1 and f.cache_info().unstored == 2


def test_cache_if_decides_whether_to_keep():
    f = counting(cache_if=lambda value: value[0] > 1)
    f(1), f(1), f(2), f(2)
    assert f.calls == [1, 1, 2]


def test_a_clock_that_jumps_a_day_costs_a_computation_at_most(monkeypatch):
    real = time.time
    f = counting(ttl="1h")
    f(1)
    for jump in (86400, -86400, 0, 10 * 86400, -10 * 86400):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        clock._offset = 0.0
        assert f(1) == (1, 0) and f(2) == (2, 0)
        before = len(f.calls)
        f(1), f(2)
        assert len(f.calls) == before
    clock._offset = 0.0


# Stale


def test_after_the_ttl_the_next_caller_replaces_the_result(another, later):
    f = counting(ttl=60, stale=60)
    f(1)
    later(90)
    assert f(1) == (1, 0) and f.calls == [1, 1]
    later(30)
    f(1)
    assert f.calls == [1, 1]


def test_a_stale_result_is_given_while_another_recomputes(later):
    import threading

    gate, inside, values = threading.Event(), threading.Event(), iter([1, 2, 3])

    @cached(name="f", ttl=60, stale="1h")
    def f():
        value = next(values)
        if value == 2:
            inside.set()
            assert gate.wait(10)
        return value

    assert f() == 1
    later(61)
    found = []
    thread = threading.Thread(target=lambda: found.append(f()))
    thread.start()
    assert inside.wait(10)
    assert f() == 1 and f() == 1  # at once, while the other is computing
    gate.set()
    thread.join()
    assert found == [2] and f() == 2 and f.cache_info().stale == 2


def test_a_stale_result_that_grew_too_old_is_not_served(later):
    @cached(ttl=10, stale=10)
    def f():
        if done:
            later(10)
            raise LookupError("gone")
        done.append(1)
        return 1

    done = []
    assert f() == 1
    later(15)
    with pytest.raises(LookupError, match="gone"):
        f()


def test_if_recomputing_raises_the_stale_result_is_served(later):
    fail = []

    @cached(ttl=60, stale=60)
    def f():
        if fail:
            raise RuntimeError("no")
        return "old"

    assert f() == "old"
    fail.append(1)
    later(61)
    assert f() == "old" and f.cache_info().errors == 1
    later(60)
    with pytest.raises(RuntimeError):
        f()


# What stands on the function


def test_invalidate_refresh_and_clear_show_at_once(another):
    f = counting()
    f(1), f(2)
    assert f.invalidate(1) is True and f.invalidate(1) is False
    f(1)
    assert f.calls == [1, 2, 1]
    assert f.refresh(2) == (2, 0) and f.calls == [1, 2, 1, 2]
    f.cache_clear()
    assert f.explain(1) == "miss: it was cleared" and f.cache_info().currsize == 0
    assert another(f).explain(2) == "miss: it was cleared"
    f(1), f(1)
    assert f.calls == [1, 2, 1, 2, 1] and another(f)(1) == (1, 0)


def test_peek_gives_what_is_there_and_computes_nothing(another):
    f = counting()
    with pytest.raises(KeyError):
        f.peek(1)
    f(1)
    assert f.peek(1) == another(f).peek(x=1) == (1, 0) and f.calls == [1]


def test_explain_says_why():
    f = counting(ttl="1h")
    assert f.explain(1) == "miss: there is no result"
    f(1)
    assert f.explain(1) == "hit: in memory, for 3600 s more"
    f.cache._results.memory.clear()
    assert f.explain(1) == "hit: on the mount, for 3600 s more"
    assert (
        counting(name=f.cache.name, codec="pickle").explain(1)
        == "miss: it was stored with codec 'msgpack'"
    )
    assert f.explain(1, 2, 3) == "miss: the function does not take these arguments"


def test_cache_info_begins_as_in_functools():
    import functools

    f = counting(memory="1MiB")
    f(1), f(1), f(2)
    info = f.cache_info()
    assert info[:3] == (1, 2, 2**20) and 0 < info.currsize < 5000
    assert info._fields[:4] == functools.lru_cache(lambda: 0).cache_info()._fields


def test_map_gives_results_in_order_and_computes_what_is_missing(another):
    f = counting()
    assert f.map([3, 1, 2, 1]) == [(3, 0), (1, 0), (2, 0), (1, 0)] and f.calls == [3, 1, 2]
    assert another(f).map(range(5)) == [(i, 0) for i in range(5)] and f.map(iter([])) == []


def test_cache_is_the_cache_it_is_built_on():
    f = counting(name="shared")
    f(1)
    assert f.cache.name == "shared"
    f.cache.clear()
    f(1)
    assert f.calls == [1, 1]


def test_the_cache_key_is_the_files_name(entries):
    f = counting()
    f(1)
    assert [path.name for path in entries()] == [f.cache_key(1)] == [f.cache_key(x=1, y=0)]
    assert entries()[0].parent.name == f.cache_key(1)[0]


# Codec, memory, disabled, root


def test_a_dataclass_that_is_unknown_or_changed_is_a_miss(another):
    @dataclasses.dataclass
    class Result:
        x: int

    globals()["Result"] = Result
    Result.__qualname__, Result.__module__ = "Result", __name__
    sys.modules.setdefault(__name__, sys.modules.get(Result.__module__))
    calls = []

    @cached
    def f(x):
        calls.append(x)
        return Result(x)

    assert f(1) == f(1) == Result(1) and another(f)(1) == Result(1) and calls == [1]
    globals()["Result"] = dataclasses.make_dataclass("Result", ["y"])
    assert another(f)(1) == Result(1) and calls == [1, 1]


def test_an_unencodable_result_is_returned_and_counted(caplog, entries):
    @cached
    def f(x):
        return object()

    assert f(1) is not f(1)
    f(2)
    assert (
        f.cache_info().unstored == 3
        and len(caplog.records) == 1
        and "codec='pickle'" in caplog.text
        and not entries()
    )


def test_memory_zero_turns_memory_off(another):
    f = counting(memory=0)
    f(1), f(1)
    assert f.cache_info()[2:6] == (0, 0, 0, 1)


def test_efsstate_disable_makes_plain_calls(monkeypatch, root):
    monkeypatch.setenv("EFSSTATE_DISABLE", "1")
    f = counting()
    assert f(1) == f(1) == (1, 0) and f.calls == [1, 1]
    assert (
        f.refresh(1) == (1, 0)
        and f.map([1]) == [(1, 0)]
        and f.explain(1) == "miss: EFSSTATE_DISABLE is set"
    )
    f.invalidate(1), f.cache_clear()
    with pytest.raises(KeyError):
        f.peek(1)
    assert list(root.iterdir()) == []


def test_map_makes_plain_calls_where_it_is_disabled(monkeypatch):
    import asyncio

    monkeypatch.setenv("EFSSTATE_DISABLE", "1")
    things = [object(), object()]

    async def g(x):
        return x

    assert (
        cached(lambda x: x).map(things) == things and asyncio.run(cached(g).map(things)) == things
    )


def test_what_comes_from_memory_is_what_the_codec_gives_back(another):
    import json

    f = counting(codec=json)
    f(1)
    assert f(1) == another(f, codec=json)(1) == [1, 0] and f.cache_info().memory == 1


def test_a_static_method_is_decorated_below_or_above():
    calls = []

    class Service:
        @cached
        @staticmethod
        def above(x):
            calls.append(x)
            return x

        @staticmethod
        @cached
        def below(x):
            calls.append(x)
            return x

    assert (Service.above(1), Service().above(1), Service.below(2), Service().below(2)) == (
        1,
        1,
        2,
        2,
    )
    assert (
        calls == [1, 2] and Service.above.cache_info().hits == Service.below.cache_info().hits == 1
    )
    with pytest.raises(TypeError, match="below @classmethod"):
        cached(classmethod(lambda cls: 1))


def test_nothing_touches_the_mount_before_the_first_call(monkeypatch):
    monkeypatch.setenv("EFSSTATE_ROOT", "/does/not/exist")
    f = counting()
    f.cache_key(1), f.cache_info()
    assert not os.path.exists("/does")


def test_a_root_that_is_a_file_is_logged_once_and_calls_compute(monkeypatch, caplog, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "file"))
    f, g = counting(), counting(name="other")
    assert [f(1), f(1), g(1), g(1)] == [(1, 0)] * 4 and f.calls == g.calls == [1, 1]
    assert len(caplog.records) == 1 and "not a directory" in caplog.text
    f.invalidate(1), f.cache_clear(), f.refresh(1), f.map([1])


def test_the_log_names_the_cache_and_carries_plain_extras(monkeypatch, caplog, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "file"))
    counting(name="thumbs")(1)
    record = caplog.records[0]
    assert record.name == "efsstate" and record.levelno == logging.WARNING
    assert record.efsstate == {
        "kind": "cache",
        "event": "error",
        "name": "thumbs",
        "doing": "read a result",
        "error": "RootError",
    }


def test_two_roots_are_two_caches(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    f, g = (counting(name="same", root=tmp_path / name) for name in ("a", "b"))
    f(1), g(1)
    assert f.calls == g.calls == [1]


def test_events_are_small_plain_records():
    seen = []
    end = on_event(seen.append)
    try:
        f = counting(name="told")
        f(1), f(1)
        f.cache._results.memory.clear()
        f(1)
    finally:
        end()
    f(1)
    assert [(e["event"], e.get("level")) for e in seen] == [
        ("miss", None),
        ("put", None),
        ("hit", "memory"),
        ("hit", "mount"),
    ]
    assert all(e["name"] == "told" and e["seconds"] >= 0 for e in seen) and seen[1]["bytes"] > 0
    assert all(isinstance(value, (str, int, float)) for e in seen for value in e.values())


def test_waits_and_errors_are_told_too(monkeypatch, root):
    import threading

    seen, inside, gate = [], threading.Event(), threading.Event()
    end = on_event(seen.append)

    @cached(name="told", memory=0)
    def f(x):
        inside.set()
        assert gate.wait(10)
        return x

    try:
        first, second = (threading.Thread(target=f, args=(1,)) for _ in range(2))
        first.start()
        assert inside.wait(10)
        second.start()
        time.sleep(0.1)
        gate.set()
        first.join(), second.join()
        (path,) = (path for path in root.rglob("*") if len(path.name) == 48)
        path.write_bytes(b"damage")
        f(1)
    finally:
        end()
    (wait,) = (e for e in seen if e["event"] == "wait")
    (error,) = (e for e in seen if e["event"] == "error")
    assert wait["name"] == "told" and wait["seconds"] > 0
    assert error == {
        "kind": "cache",
        "event": "error",
        "name": "told",
        "error": "CorruptEntryError",
        "message": error["message"],
        "doing": "read a result",
    }
    assert str(path) in error["message"]


# LRU information, policy


def test_a_use_is_noted_at_most_once_a_day(entries, another, monkeypatch):
    from efsstate.format import entry

    touched = []
    touch = Mount.touch
    monkeypatch.setattr(
        Mount, "touch", lambda self, *args: touched.append(args[1]) or touch(self, *args)
    )
    f = counting()
    f(1)
    (path,) = entries()
    place = str(path).partition("/root/")[2]
    held = entry.decode(path.read_bytes(), place=place, root="")
    day, now = 86400 * 10**9, time.time_ns()
    for used, made, notes in ((0, 0, 0), (2, 2, 1), (0.5, 2, 0), (1.5, 3, 1)):  # days ago
        touched.clear()
        times = int(now - used * day), int(now - made * day)
        parts = entry.encode(
            held.payload,
            place=place,
            codec=held.codec,
            meta=held.meta,
            created=times[1] / 1e9,
            ttl=None,
        )
        path.write_bytes(b"".join(parts))
        os.utime(path, ns=times)
        assert another(f)(1) == (1, 0)
        assert len(touched) == notes, (used, made)
        assert path.stat().st_mtime_ns == times[1]
    assert abs(path.stat().st_atime_ns - now) < 60 * 10**9


def test_policy_tells_the_sweep_what_it_may_judge_by(root):
    from efsstate.eviction import policy
    from efsstate.mount import root as roots

    def told(name):
        return policy.read(roots.resolve(), name)[0]

    counting(name="a", ttl="1h", stale="30m", max_bytes="1GiB")(1)
    assert (told("a").shortest, told("a").longest, told("a").max_bytes) == (5400, 5400, 2**30)
    counting(name="a", ttl="2h")(2)
    assert (told("a").shortest, told("a").longest, told("a").max_bytes) == (5400, 7200, 2**30)
    counting(name="b")(1)
    assert told("b").shortest > 10**9 and told("b").longest is None
    counting(name="b", ttl=60)(2)
    assert (told("b").shortest, told("b").longest) == (60, None)
    counting(name="c", ttl=lambda value: 5)(1)
    assert (told("c").shortest, told("c").longest) == (0, None)


def test_a_policy_is_written_only_if_it_says_something_new(root):
    counting(name="a", ttl=60)(1)
    path = root / "cache" / "a" / "POLICY"
    before = path.stat()
    f = counting(name="a", ttl=60)
    for i in range(5):
        f(i)
    assert path.stat().st_ino == before.st_ino and path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("failures", [1, 2])
def test_a_policy_that_could_not_be_written_is_tried_again(root, entries, monkeypatch, failures):
    from efsstate.eviction import policy

    efsstate.Cache("n", ttl="1m").set("other", 1)
    real, attempts = policy.write, []

    def fail(*arguments):
        attempts.append(arguments)
        if len(attempts) <= failures:
            raise OSError(5, "Input/output error")
        real(*arguments)

    monkeypatch.setattr(policy, "write", fail)
    cache = efsstate.Cache("n", ttl="7d", memory=0)
    for _ in range(4):
        cache.incr("count")
    assert len(attempts) == 2  # by the next put, and not by each after it
    moment = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: moment() + 61)
    for _ in range(4):
        cache.incr("count")
    assert len(attempts) == failures + 1
    hour_ago = time.time() - 3600
    for path in entries():
        os.utime(path, (hour_ago, hour_ago))
    assert efsstate.sweep().removed == 0 and cache.incr("count") == 9


def test_max_bytes_removes_what_is_used_least_recently(root, entries, monkeypatch):
    from efsstate.eviction import trim

    monkeypatch.setattr(trim, "PAUSE", 0.0)
    f = counting(max_bytes="8KiB")
    calls = cached(name=f.cache.name, max_bytes="8KiB")(lambda x: "y" * 1000)
    for i in range(100):
        calls(i)
    assert sum(path.stat().st_size for path in entries()) < 30_000


def test_max_entries_removes_what_is_used_least_recently(root, entries, monkeypatch):
    from efsstate.eviction import policy, trim
    from efsstate.mount import root as roots

    monkeypatch.setattr(trim, "PAUSE", 0.0)
    f = cached(name="few", max_entries=32)(lambda x: "y" * 10)
    for i in range(200):
        f(i)
    assert 16 <= len(entries()) <= 100
    assert policy.read(roots.resolve(), "few")[0].max_entries == 32
    for wrong in (-1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="max_entries"):
            efsstate.Cache("few", max_entries=wrong)


LIGHT = """
import sys; sys.path[:] = {path!r}
from efsstate import cached
@cached(ttl='1h')
def f(x): return x
heavy = "filelock cachetools msgpack asyncio numpy inspect logging hashlib typing pathlib dis"
assert not set(heavy.split()) & set(sys.modules), sorted(set(heavy.split()) & set(sys.modules))
"""


def test_import_is_light():
    subprocess.run([sys.executable, "-S", "-c", LIGHT.format(path=sys.path)], check=True)


def test_the_public_names_are_these():
    assert efsstate.cached is cached and efsstate.Cache.__name__ == "Cache"


# Setting results


def test_set_keeps_a_result_without_computing(another, entries):
    f = counting()
    f.set("given", 1)
    assert f(1) == f(x=1, y=0) == another(f)(1) == "given" and f.calls == []
    f.set(("new", [1]), 1)
    assert f(1) == ("new", [1]) and len(entries()) == 1 and f.cache_info().puts == 2
    with pytest.raises(efsstate.EncodeError):
        f.set(object(), 2)
    with pytest.raises(TypeError, match="does not take these arguments"):
        f.set(1, 2, 3, 4)
    assert f(2) == (2, 0)


def test_who_leaves_out_a_methods_object_is_told_so(root):
    class Shape(str):
        __slots__ = ()

        @cached(name="area", root=root)
        def area(self, unit):
            return unit

        @classmethod
        @cached(name="count", root=root)
        def count(cls, unit):
            return unit

    for use in (lambda: Shape().area.peek("cm"), lambda: Shape.count.invalidate("cm")):
        with pytest.raises(TypeError, match="of a method, its object comes first"):
            use()
    with pytest.raises(TypeError, match=r"arguments$"):
        cached(lambda unit: unit, name="free", root=root).peek()


def test_set_counts_for_the_ttl_of_the_function(later):
    f = counting(ttl={"short": 10, "never": 0}.get)
    for value in ("short", "long", "never"):
        f.set(value, value)
    later(11)
    assert (f("long"), f("short"), f("never")) == ("long", ("short", 0), ("never", 0))


def test_set_of_an_async_function_is_awaited_and_takes_the_value_at_once():
    import asyncio

    @cached
    async def f(x):
        return x

    async def main():
        value = [1]
        task = f.set(value, 1)
        value.append(2)
        await task
        assert await f(1) == [1]
        with pytest.raises(efsstate.EncodeError):
            await f.set(object(), 2)

    asyncio.run(main())
    f.set("outside", 1)
    assert asyncio.run(f(1)) == "outside"


def test_cache_clear_starts_counting_again():
    f = counting()
    f(1), f(1)
    f.cache_clear()
    assert f.cache_info()[:2] == (0, 0) and f.cache_info().puts == f.cache_info().memory == 0
    f(1), f(1)
    assert f.cache_info()[:2] == (1, 1)


def test_set_where_nothing_is_kept(monkeypatch):
    monkeypatch.setenv("EFSSTATE_DISABLE", "1")
    f = counting()
    f.set("given", 1)
    assert f(1) == (1, 0)


class Unstorable:
    pass


@pytest.mark.parametrize("is_async", [False, True])
def test_on_unstored_raise_raises_instead_of_returning(is_async, caplog):
    import asyncio

    values = {1: Unstorable(), 2: [object()], 3: "fine", 4: None}

    @cached(name="f", on_unstored="raise")
    def f(x):
        return values[x]

    @cached(name="f", on_unstored="raise")
    async def g(x):
        return values[x]

    call = (lambda x: asyncio.run(g(x))) if is_async else f
    for _ in range(2):
        with pytest.raises(efsstate.EncodeError, match="Unstorable"):
            call(1)
    with pytest.raises(efsstate.EncodeError):
        call(2)
    assert call(3) == call(3) == "fine" and call(4) is None
    with pytest.raises(KeyError):
        call(5)
    with pytest.raises(ValueError, match="on_unstored"):
        cached(on_unstored="ignore")


def test_each_type_that_can_not_be_kept_is_warned_of_once(caplog):
    f = cached(name="f")(lambda x: [object, Unstorable][x % 2]())
    for number in range(6):
        f(number)
    assert len(caplog.records) == 2 and f.cache_info().unstored == 6
