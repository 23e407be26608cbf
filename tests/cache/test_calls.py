"""The calls of the package's own functions that an operation makes, warm: exact on any machine."""

import gc

import pytest
from tests.calls import Calls

import efsstate
from efsstate import Cache, cached

VALUE = [1]


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
    assert counted(f, 1).names == ["cache/decorator.py:_wrapper.<locals>.wrapper"]


def test_a_listener_costs_a_remembered_hit_one_call_more():
    f = cached(name="heard")(lambda x: "value")
    f(1), f(1)
    events = []
    end = efsstate.on_event(events.append)
    try:
        names = counted(f, 1).names
    finally:
        end()
    assert names == [
        "cache/decorator.py:_wrapper.<locals>.wrapper", "events.py:emit_memory_hit",
    ]  # fmt: skip
    assert [event["level"] for event in events] == ["memory"] and f.cache_info().memory == 2


def test_a_miss_is_at_most_170_calls():
    assert len(counted(function(memory=0), "new")) <= 170


def test_a_miss_passes_twelve_modules_of_the_cache():
    """From the arguments to the entry; the mount and the format come below."""
    files = [name for name in counted(function(memory=0), "new").files if "cache/" in name]
    assert len(files) <= 12, files


def test_an_invalidate_is_at_most_57_calls():
    assert len(counted(function(memory=0).invalidate, 1)) <= 57


@pytest.mark.parametrize(("memory", "most"), [(0, 73), (None, 96)])
def test_a_set_is_at_most_96_calls(memory, most):
    cache = Cache("box", memory=memory)
    for i in range(48):
        cache.set(i, VALUE)
    assert len(counted(cache.set, 1, VALUE)) <= most


def test_memory_is_dropped_once_before_and_once_after_a_change():
    f = function()
    names = counted(f.invalidate, 1).names
    assert names.count("cache/memory.py:Changes.record") == 2
