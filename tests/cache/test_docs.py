"""docs/cache.md: every example runs, in order, and the options it names are there."""

import contextvars
import inspect
import os
import pathlib
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from efsstate import Cache, cached, sweep

TEXT = (pathlib.Path(__file__).parents[2] / "docs" / "cache.md").read_text()


def test_every_example_runs():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 5
    space = {"__name__": "documented"}
    for block in blocks:
        exec(compile(block, "docs/cache.md", "exec"), space)


def test_every_option_is_documented():
    options = {*inspect.signature(cached).parameters, *inspect.signature(Cache).parameters} - {
        "function",
        "codec",
    }
    assert not [name for name in options if f"`{name}" not in TEXT]
    info = cached(lambda x: x).cache_info()
    assert not [name for name in info._fields if name not in TEXT]


def test_what_a_function_captures_makes_another_cache():
    def capturing(n, **options):
        @cached(**options)
        def f(x):
            return n, x

        return f

    def passing(n):
        @cached
        def g(x, n=n):
            return n, x

        return g

    for make in (capturing, passing):
        assert [make(n)(1) for n in (1, 2)] == [(1, 1), (2, 1)]
    assert [capturing(n, name="one")(1) for n in (1, 2)] == [(1, 1), (1, 1)]


class Shape:
    @cached(ignore="self")
    def area(self, x):
        return x

    @classmethod
    @cached(ignore="cls")
    def ignored(cls, x):
        return cls.__name__, x

    @classmethod
    @cached
    def apart(cls, x):
        return cls.__name__, x


class Square(Shape): ...


def test_methods():
    shape = Shape()
    assert shape.area(1) == shape.area.peek(shape, 1) == 1
    for call in (
        lambda: shape.area.peek(1),
        lambda: shape.area.invalidate(1),
        lambda: shape.area.map([1]),
    ):
        with pytest.raises(TypeError):
            call()
    assert shape.area.invalidate(shape, 1) and Shape.ignored(1) == Square.ignored(
        1
    ) == Shape.ignored.peek(Shape, 1) == ("Shape", 1)
    assert (Shape.apart(1), Square.apart(1)) == (("Shape", 1), ("Square", 1))


@pytest.mark.parametrize("seen", [True, False])
def test_a_function_that_reaches_itself_through_a_pool(seen):
    with ThreadPoolExecutor(1) as pool:

        @cached(name="f", lock_timeout=0.3)
        def f(x):
            depth.append(x)
            if len(depth) > 1:
                return x
            return (
                pool.submit(contextvars.copy_context().run, f, x) if seen else pool.submit(f, x)
            ).result()

        depth = []
        assert f(1) == 1 and len(depth) == 2 and (f.cache_info().waits == 0) == seen


def test_what_is_set_before_a_clear_was_seen_goes_with_it(apart):
    here = Cache("box")
    here.set(1, 1)
    apart()
    elsewhere = Cache("box")
    elsewhere.clear()
    here.set(2, 2)
    assert elsewhere.get(2) is None and here.add(2, 3) and elsewhere.get(2, fresh=True) == 3


def test_a_result_whose_file_a_sweep_took_is_not_kept(root):
    @cached(name="slow")
    def f(x):
        for path in root.rglob(".tmp-*"):
            os.utime(path, (time.time() - 90_000,) * 2)
        assert sweep().removed == 1
        return x

    assert f(1) == 1
    with pytest.raises(KeyError):
        f.peek(1)


@pytest.mark.parametrize("how", ["disabled", "no root"])
def test_where_nothing_is_kept(how, root, monkeypatch, caplog):
    (root / "file").write_text("")
    no_root = "EFSSTATE_ROOT", f"{root}/file/none"  # which can't be created
    monkeypatch.setenv(*("EFSSTATE_DISABLE", "1") if how == "disabled" else no_root)
    calls, box = [], Cache("box")
    f, g = cached(name="f")(calls.append), cached(name="g")(calls.append)
    assert [f(1), f(1), *f.map([1]), g(1)] == [None] * 4 and len(calls) == 4 and not f.invalidate(1)
    assert box.set(1, 1) is None and box.get(1) is None and box.get_many([1]) == {} and 1 not in box
    assert not box.add(1, 1) and not box.delete(1) and box.get_or_compute(1, lambda: 2) == 2
    assert len(caplog.records) == (how == "no root") and (f.cache_info().errors > 0) == (
        how == "no root"
    )


def test_stale_without_a_ttl_does_nothing():
    f = cached(stale="1h")(lambda x: x)
    f(1)
    assert f.explain(1) == "hit: in memory, for ever"


def test_every_hit_is_what_the_codec_gives():
    import json

    class Json:
        dumps, loads = (
            staticmethod(lambda value: json.dumps(value).encode()),
            staticmethod(lambda data: json.loads(bytes(data))),
        )

    f = cached(codec=Json)(lambda x: (x,))
    assert [f(1), f(1)] == [(1,), [1]] and f.cache_info().memory == 1
