"""Variables that change while the process lives, as tests set them: the next call goes by them."""

import asyncio
import os
import threading

import pytest

from efsstate import Cache, cached


@pytest.fixture
def another(tmp_path):
    folder = tmp_path / "another"
    folder.mkdir()
    return str(folder)


@pytest.mark.parametrize("memory", [0, None])
def test_a_changed_root_is_another_cache_at_once(monkeypatch, root, another, memory):
    """Else each test would get the results of the first test's root."""
    calls = []
    f = cached(name="f", memory=memory)(lambda x: calls.append(x) or f"{len(calls)}")
    assert [f(1), f(1)] == ["1", "1"]
    monkeypatch.setenv("EFSSTATE_ROOT", another)
    assert [f(1), f(1)] == ["2", "2"]
    monkeypatch.setenv("EFSSTATE_ROOT", str(root))
    assert [f(1), f(1)] == ["1", "1"] and calls == [1, 1]


def test_a_result_of_before_is_not_served_below_the_new_root(monkeypatch, root, another):
    """A computation that ends after the change keeps its result where it began."""
    begun, may_end, calls = threading.Event(), threading.Event(), []

    @cached(name="f")
    def f(x):
        calls.append(x)
        begun.set()
        assert may_end.wait(30)
        return f"{len(calls)}"

    thread = threading.Thread(target=f, args=(1,))
    thread.start()
    assert begun.wait(30)
    monkeypatch.setenv("EFSSTATE_ROOT", another)
    assert f.explain(1) == "miss: there is no result"
    may_end.set()
    thread.join()
    assert f.explain(1) == "miss: there is no result"
    assert [f(1), f(1)] == ["2", "2"]
    monkeypatch.setenv("EFSSTATE_ROOT", str(root))
    assert f(1) == "1" and calls == [1, 1]


def test_a_cache_with_a_root_of_its_own_stays_there(monkeypatch, root, another):
    f = cached(name="f", root=str(root))(lambda x: object)
    box = Cache("box", root=root)
    box.set("k", 1)
    monkeypatch.setenv("EFSSTATE_ROOT", another)
    assert box.get("k") == 1 and os.listdir(another) == []
    assert f.cache_info().currsize == 0


def test_a_changed_root_moves_a_map(monkeypatch, root, another):
    box = Cache("box")
    box.set("k", 1)
    monkeypatch.setenv("EFSSTATE_ROOT", another)
    assert box.get("k") is None
    box.set("k", 2)
    monkeypatch.setenv("EFSSTATE_ROOT", str(root))
    assert box.get("k") == 1


@pytest.mark.parametrize("memory", [0, None])
def test_disabling_and_enabling_take_effect_at_the_next_call(monkeypatch, memory):
    calls = []
    f = cached(name="f", memory=memory)(lambda x: calls.append(x) or "value")
    f(1), f(1)
    assert len(calls) == 1
    monkeypatch.setenv("EFSSTATE_DISABLE", "1")
    f(1), f(1)
    assert len(calls) == 3
    monkeypatch.delenv("EFSSTATE_DISABLE")
    f(1), f(1)
    assert len(calls) == 3


def test_awaited_calls_follow_too(monkeypatch, another):
    calls = []

    @cached(name="f")
    async def f(x):
        calls.append(x)
        return len(calls)

    async def both():
        first = await f(1), await f(1)
        monkeypatch.setenv("EFSSTATE_ROOT", another)
        return first, (await f(1), await f(1))

    assert asyncio.run(both()) == ((1, 1), (2, 2))


def test_a_variable_set_as_bytes_is_seen(root, another, monkeypatch):
    f = cached(name="f")(lambda x: os.environ["EFSSTATE_ROOT"])
    monkeypatch.setenv("EFSSTATE_ROOT", str(root))
    assert f(1) == f(1) == str(root)
    os.environb[b"EFSSTATE_ROOT"] = os.fsencode(another)
    assert f(1) == f(1) == another
