"""Tests that set the clock by freezegun or time-machine see a ttl pass."""

import subprocess
import sys

import pytest

CODE = """
import datetime
from efsstate import Cache, cached

numbers = iter(range(100))
f = cached(name="f", ttl="1h", memory={memory})(lambda x: next(numbers))
cache = Cache("c", ttl="1h", memory={memory})

def steps(advance):
    seen = [f(1), f(1)]
    cache.set("k", 1)
    advance(59 * 60)
    f("another key")  # a put must not set the clock right
    seen += [f(1), cache.get("k")]
    advance(2 * 60)
    seen += [f(1), cache.get("k")]
    advance(3 * 3600)
    seen += [f(1), f(1)]
    return seen

f("before")
"""
FREEZEGUN = """
from freezegun import freeze_time
with freeze_time("{start}") as frozen:
    print(steps(lambda seconds: frozen.tick(datetime.timedelta(seconds=seconds))))
"""
TIME_MACHINE = """
import time_machine
with time_machine.travel("{start}", tick=False) as travel:
    print(steps(travel.shift))
"""


@pytest.mark.parametrize("memory", [0, None])
@pytest.mark.parametrize("start", ["2020-01-01 00:00:00", "2031-05-05 12:00:00"])
@pytest.mark.parametrize(
    ("library", "code"), [("freezegun", FREEZEGUN), ("time_machine", TIME_MACHINE)]
)
def test_a_ttl_passes_with_the_clock_that_a_test_sets(library, code, start, memory):
    pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(memory=memory) + code.format(start=start)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "[1, 1, 1, 1, 3, None, 4, 4]\n", done.stderr
