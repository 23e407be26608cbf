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


def test_a_hit_on_the_mount_is_at_most_28_calls():
    assert len(counted(function(memory=0), 1)) <= 28


def test_a_remembered_hit_in_memory_is_one_call():
    f = cached(name="g")(lambda x: "value")
    f(1), f(1)
    assert counted(f, 1).names == [WRAPPER]


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


@pytest.mark.parametrize(("memory", "most"), [(0, 136), (None, 157)])
def test_a_miss_is_at_most_157_calls(memory, most):
    """Without memory, 136; to keep the result there as well, 21 more."""
    assert len(counted(function(memory=memory), "new")) <= most


def test_a_miss_passes_twelve_modules_of_the_cache():
    """From the arguments to the entry; the mount and the format come below."""
    files = [name for name in counted(function(memory=0), "new").files if "cache/" in name]
    assert len(files) <= 12, files


@pytest.mark.parametrize(("memory", "most"), [(0, 45), (None, 53)])
def test_an_invalidate_is_at_most_53_calls(memory, most):
    """Without memory, 45; to forget a result there, 8 more."""
    assert len(counted(function(memory=memory).invalidate, 1)) <= most


@pytest.mark.parametrize(("memory", "most"), [(0, 65), (None, 87)])
def test_a_set_is_at_most_87_calls(memory, most):
    cache = Cache("box", memory=memory)
    for i in range(48):
        cache.set(i, VALUE)
    assert len(counted(cache.set, 1, VALUE)) <= most


def test_memory_is_dropped_once_before_and_once_after_a_change():
    f = function()
    names = counted(f.invalidate, 1).names
    assert names.count("cache/memory.py:Changes.record") == 2
