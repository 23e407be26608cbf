"""The calls of the package's own functions that an operation makes, warm: exact on any machine."""

import gc

import pytest
from tests.calls import Calls

import efsstate
from efsstate import Cache, cached

VALUE = [1]
WRAPPER = "cache/function_cache.py:FunctionCache.wrapper.<locals>.wrapper"


def function(**options):
    """A cached function, warm: its modules are loaded, its folders open, its policy written."""
    f = cached(name="f", **options)(lambda x: VALUE)
    for i in range(48):
        f(i), f(i), f.invalidate(i), f(i)
    return f


def counted(operation, *arguments):
    """The calls of one operation, without those of what is collected meanwhile."""
    gc.collect()
    gc.disable()
    try:
        with Calls() as calls:
            operation(*arguments)
    finally:
        gc.enable()
    return calls


def test_a_hit_on_the_mount_is_at_most_14_calls():
    assert len(counted(function(memory=0), 1)) <= 14


def test_a_remembered_hit_in_memory_is_one_call():
    f = cached(name="g")(lambda x: "value")
    f(1), f(1)
    assert counted(f, 1).names == [WRAPPER]


@pytest.mark.parametrize("value", [[1, "a"], {"a": [1.5]}])
def test_a_remembered_hit_with_a_copy_is_two_calls(value):
    """The second decodes the caller's own copy."""
    f = cached(name="g")(lambda x, y=0: value)
    for arguments in ((1,), (1.5,), ((1, "a"),)):
        f(*arguments), f(*arguments)
        assert counted(f, *arguments).names == [WRAPPER, "format/codec/msgpack.py:loads"]


def test_a_listener_costs_a_remembered_hit_one_call_more():
    f = cached(name="heard")(lambda x: "value")
    f(1), f(1)
    events = []
    end = efsstate.on_event(events.append)
    try:
        names = counted(f, 1).names
    finally:
        end()
    assert names == [WRAPPER, "events.py:emit_memory_hit"]
    assert [event["level"] for event in events] == ["memory"] and f.cache_info().memory == 2


@pytest.mark.parametrize(("memory", "most"), [(0, 120), (None, 140)])
def test_a_miss_is_at_most_140_calls(memory, most):
    """Without memory, 120; to keep the result there as well, 20 more."""
    assert len(counted(function(memory=memory), "new")) <= most


def test_a_miss_passes_17_modules_of_which_9_direct_it():
    """A reader who follows a miss opens 17 modules; 8 of them call into no other one."""
    calls = counted(function(), "new")
    assert len(calls.files) == 17, calls.files
    assert len(calls.directors) == 9, calls.directors


def test_the_directors_of_a_walk_are_those_that_call_another_module():
    """A hit of memory is one call of one module, which calls into no other."""
    f = cached(name="d")(lambda x: "value")
    f(1), f(1)
    calls = counted(f, 1)
    assert calls.files == ["cache/function_cache.py"] and calls.directors == []
    assert counted(f.cache_key, 1).directors == [
        "cache/attributes.py",
        "cache/function_cache.py",
        "cache/keys.py",
    ]


@pytest.mark.parametrize(("memory", "most"), [(0, 41), (None, 45)])
def test_an_invalidate_is_at_most_45_calls(memory, most):
    """Without memory, 41; to forget a result there, 4 more."""
    assert len(counted(function(memory=memory).invalidate, 1)) <= most


@pytest.mark.parametrize(("memory", "most"), [(0, 56), (None, 72)])
def test_a_set_is_at_most_72_calls(memory, most):
    cache = Cache("box", memory=memory)
    for i in range(48):
        cache.set(i, VALUE)
    assert len(counted(cache.set, 1, VALUE)) <= most


def test_memory_is_dropped_once_before_and_once_after_a_change():
    f = function()
    names = counted(f.invalidate, 1).names
    assert names.count("cache/memory.py:Changes.record") == 2
