"""A cached function travels: by import, or by cloudpickle as the function with its options."""

import os
import pickle
import subprocess
import sys

import pytest

import efsstate
from efsstate import cached

SOURCE = os.path.dirname(os.path.dirname(efsstate.__file__))


@cached(name="imported")
def imported(x):
    return os.getpid(), x


def test_a_function_of_a_module_is_pickled_by_its_name():
    data = pickle.dumps(imported)
    assert len(data) < 200 and pickle.loads(data) is imported


SCRIPT = """
import os, subprocess, sys
import cloudpickle
from efsstate import cached

factor = 3

@cached(ttl=lambda result: 60, memory=0, stale="1h")
def f(x, y=1):
    return factor * x * y, os.getpid()

def make(captured):
    @cached(cache_if=lambda result: result)
    def g(x):
        return captured, late, x, os.getpid()
    late = "late"
    return g

class Shape:
    @cached(ignore="self")
    def area(self, x):
        return x, os.getpid()

@cached
async def h(x):
    return x, os.getpid()

CHILD = '''
import asyncio, pickle, sys
f, g, bound, h, attributes = pickle.load(open(sys.argv[1], "rb"))
print(f(2, y=5), g(1), bound(4), asyncio.run(h(7)))
print(f.cache_info().hits, g.cache_info().hits, g.cache.name, f.explain(2, 5)[:4], h.cache)
print(f.__wrapped__(1, 1)[0], g.peek(1)[0], attributes[0](2, 5)[:4], attributes[1]().hits)
'''
g, shape = make([1, "a"]), Shape()
ours = f(2, 5), g(1), shape.area(4)
import asyncio
ours += (asyncio.run(h(7)),)
with open(sys.argv[1], "wb") as file:
    cloudpickle.dump((f, g, shape.area, h, (f.explain, f.cache_info)), file)
theirs = subprocess.run([sys.executable, "-c", CHILD, sys.argv[1]], capture_output=True, text=True)
print(theirs.stderr)
lines = theirs.stdout.splitlines()
assert lines[0] == " ".join(map(str, ours)), (lines, ours)
assert lines[1] == f"1 1 {g.cache.name} hit: {h.cache!r}", lines
assert lines[2] == "3 [1, 'a'] hit: 1", lines
print("fine")
"""


def test_cloudpickle_takes_the_function_with_its_options(tmp_path):
    """In another process its results are found under the name that it has in this one."""
    pytest.importorskip("cloudpickle")
    (tmp_path / "job.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "job.py", tmp_path / "pickled"],
        env=os.environ | {"PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("fine\n"), done.stdout + done.stderr


def test_what_stands_for_it_says_what_it_is():
    assert repr(imported).startswith("<function imported at ")
    assert repr(imported.cache) == "Cache('imported')"
    assert "peek" in repr(imported.peek) and "Return the result" in imported.peek.__doc__
