"""The page for users of other caches: its code runs, and the names on both sides exist."""

import functools
import importlib
import pathlib
import re

import pytest

import efsstate
from efsstate import Cache, cached

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "coming-from.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="only in the source tree")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path))
    return tmp_path


def rows():
    """Return (theirs, ours) of each row of the table."""
    found = re.findall(r"^\| (.*) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    return [row for row in found if row[0] != "you know"]


def test_the_code_of_the_page_runs(root):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(code, PAGE.name, "exec"), {"__name__": "page"})


def test_the_names_of_ours_exist(root):
    @cached(name="f")
    def f(x):
        return x

    text = " ".join(ours for _, ours in rows())
    names = re.findall(r"`f\.(\w+)", text)
    assert len(names) >= 4 and [name for name in names if not callable(getattr(f, name))] == []
    names = re.findall(r"`(cached|sweep)\(", text)
    assert names and [name for name in names if not hasattr(efsstate, name)] == []


def test_the_methods_that_are_the_same_are_there(root):
    (row,) = [row for row in rows() if "`pop`" in row[0]]
    names = re.findall(r"`(?:diskcache\.Cache\.)?(\w+)`", row[0])
    assert len(names) == 5 and all(callable(getattr(Cache, name)) for name in names)
    assert not hasattr(Cache, "__setitem__")


@pytest.mark.parametrize("library", ["functools", "joblib", "diskcache"])
def test_the_names_of_theirs_exist(library):
    module = pytest.importorskip(library)
    names = re.findall(rf"{library}\.([\w.]+)", " ".join(theirs for theirs, _ in rows()))
    assert names
    for name in names:
        functools.reduce(getattr, name.split("."), module)


def test_joblib_computes_again_when_the_source_changes(root, tmp_path, monkeypatch):
    """And `cached` does with `version="source"` alone, as the page says."""
    joblib = pytest.importorskip("joblib")
    monkeypatch.syspath_prepend(str(tmp_path))
    memory = joblib.Memory(tmp_path / "joblib", verbose=0)
    values = []
    for factor in (2, 3):
        name = f"changing_{factor}"
        (tmp_path / f"{name}.py").write_text(f"def f(x):\n    return x * {factor}\n")
        function = importlib.import_module(name).f
        function.__module__ = "changing"
        plain = cached(name="plain")(function)(5)
        source = cached(name="source", version="source")(function)(5)
        values.append((memory.cache(function)(5), plain, source))
    assert values == [(10, 10, 10), (15, 10, 15)]


def test_a_result_that_msgpack_cannot_hold_is_returned(root, caplog):
    class Strange:
        pass

    @cached(name="strange")
    def make():
        return Strange()

    assert isinstance(make(), Strange) and isinstance(make(), Strange)
    assert make.cache_info().unstored == 2 and len(caplog.records) == 1
