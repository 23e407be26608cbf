"""Types that are registered with `from_parts`: kept, and rebuilt where they are registered."""

import subprocess
import sys

import pytest

from efsstate import Cache, EncodeError, cached, register
from efsstate.format import codec


class Grid:
    """A class of a user's, with attributes that no table knows."""

    def __init__(self, width, cells):
        self._width, self.cells = width, cells


class Wide(Grid):
    """A subclass."""


class Name:
    """A class with a hash of its own."""

    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return self.text == other.text

    def __hash__(self):
        return hash(self.text)


def parts_of(grid):
    return grid._width, grid.cells


def grid_of(parts):
    return Grid(*parts)


@pytest.fixture(autouse=True)
def registered():
    register(Grid, parts_of, grid_of)
    yield
    register(Grid, parts_of)


def packed(value):
    parts = codec.dumps(value)
    return b"".join(bytes(part) for part in parts) if isinstance(parts, list) else bytes(parts)


@pytest.mark.parametrize("memory", [0, None])
def test_a_registered_result_is_kept_and_each_caller_has_its_own(memory):
    calls = []

    @cached(name="grid", memory=memory)
    def make(width):
        calls.append(width)
        return {"grids": [Grid(width, [(1, 2.5), b"x"]), Grid(0, None)]}

    results = [make(3)["grids"][0] for _ in range(3)]
    assert calls == [3] and len({id(grid) for grid in results}) == 3
    for grid in results:
        assert type(grid) is Grid and vars(grid) == {"_width": 3, "cells": [(1, 2.5), b"x"]}
        grid.cells.clear()
    assert make(3)["grids"][0].cells == [(1, 2.5), b"x"] and calls == [3]


def test_a_registered_type_may_hold_another():
    outer = codec.loads(packed(Grid(1, [Grid(2, {3})])))
    assert outer.cells[0].cells == {3}


def test_a_subclass_is_refused_as_a_result():
    with pytest.raises(EncodeError, match="Wide can't be stored"):
        codec.dumps(Wide(1, []))


def test_registered_again_without_from_parts_it_is_no_longer_kept():
    data = packed(Grid(1, []))
    register(Grid, parts_of)
    with pytest.raises(EncodeError, match="Grid can't be stored"):
        codec.dumps(Grid(1, []))
    with pytest.raises(ValueError, match="Grid is not registered with from_parts"):
        codec.loads(data)


def test_what_is_not_registered_is_a_miss():
    cache = Cache("grids", memory=0)
    cache.set("k", Grid(1, [2]))
    assert cache.get("k").cells == [2]
    register(Grid, parts_of)
    assert cache.get("k") is None


def test_bytes_run_nothing_in_a_process_that_registered_nothing(tmp_path):
    (tmp_path / "trap.py").write_text("print('imported')\n")
    data = packed(Grid(1, [])).replace(__name__.encode(), b"trap".ljust(len(__name__)))
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from efsstate.format import codec
for data in ({data!r}, {packed(Grid(1, []))!r}):
    try:
        codec.loads(data)
    except ValueError as error:
        print("registered" in str(error), "trap" in sys.modules, "test_registered" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True False False\n" * 2, done.stderr


def test_from_parts_that_makes_another_type_is_a_miss():
    data = packed(Grid(1, []))
    register(Grid, parts_of, lambda parts: Wide(*parts))
    with pytest.raises(ValueError, match="returned a Wide"):
        codec.loads(data)


def test_from_parts_that_raises_costs_a_computation():
    calls = []

    @cached(name="broken", memory=0)
    def make():
        calls.append(1)
        return Grid(1, [])

    make()
    register(Grid, parts_of, lambda parts: parts["no such"])
    assert type(make()) is Grid and len(calls) == 2


def test_to_parts_that_raises_costs_the_entry_alone():
    register(Grid, lambda grid: grid.missing, grid_of)
    with pytest.raises(EncodeError, match="AttributeError"):
        codec.dumps(Grid(1, []))


def test_a_hash_of_its_own_never_runs_on_what_is_read():
    register(Name, lambda name: name.text, Name)
    assert codec.loads(packed([Name("a")])) == [Name("a")]
    for value in ({Name("a")}, {Name("a"): 1}):
        with pytest.raises(EncodeError, match="__hash__"):
            codec.dumps(value)
    register(Name, lambda name: name.text)


def test_another_class_of_the_same_name_is_refused():
    other = type("Grid", (), {"__module__": Grid.__module__, "__qualname__": Grid.__qualname__})
    register(other, lambda value: 1, lambda parts: other())
    with pytest.raises(EncodeError, match="another class was registered under its name"):
        codec.dumps(Grid(1, []))
    register(other, lambda value: 1)
    with pytest.raises(EncodeError, match="another class was registered under its name"):
        codec.dumps(Grid(1, []))


def test_from_parts_is_a_function():
    with pytest.raises(TypeError, match="a function of the parts"):
        register(Grid, parts_of, "Grid")
