"""The caches in memory: a hit's time by its argument and result, and its wrong answers.

And how much memory an entry takes.
"""

import gc
import hashlib
import os
import shutil
import sys
import tempfile

from benchmarks import kinds, measure
from benchmarks.processes import isolated

COUNT = 10_000
_computed = []


def value(key):
    """Return 16 bytes, other bytes for each key."""
    return hashlib.shake_128(key.encode()).digest(16)


def work(key):
    """Compute a value; `_computed` says how often."""
    _computed.append(1)
    return value(key)


def key_of(number):
    """Return a key that no other object is shared with: an entry's key is its cache's to keep."""
    return f"key-{number:06d}"


def _ours(folder, function):
    from efsstate import cached

    return cached(name="memory", root=folder, memory="256MiB")(function)


def _lru_cache(folder, function):
    import functools

    return functools.lru_cache(2 * COUNT)(function)


def _cachetools(folder, function):
    import threading

    import cachetools

    return cachetools.cached(cachetools.LRUCache(2 * COUNT), lock=threading.Lock())(function)


def _cachebox(folder, function):
    import cachebox

    return cachebox.cached(cachebox.LRUCache(2 * COUNT))(function)


def _moka(folder, function):
    import moka_py

    return moka_py.cached(maxsize=2 * COUNT)(function)


def _cachau(folder, function):
    import cachau

    return cachau.cache(max_memory="256MB", namespace="memory")(function)


CACHES = {
    "efsstate `cached`": _ours,
    "functools `lru_cache`": _lru_cache,
    "cachetools `cached` with a lock": _cachetools,
    "cachebox `cached`": _cachebox,
    "moka-py `cached`": _moka,
    "cachau `cache`": _cachau,
}


TEXTS = [f"key-{number}" for number in range(100)]
FLOATS = [number + 0.5 for number in range(100)]
TUPLES = [(number, "key") for number in range(100)]
# Kinds of calls: how each is made of a number, and the result of its function.
CALLS = {
    "a string": (lambda call, number: call(TEXTS[number]), kinds.value.__wrapped__),
    "a keyword": (lambda call, number: call(key=TEXTS[number]), kinds.value.__wrapped__),
    "a float": (lambda call, number: call(FLOATS[number]), lambda key: kinds.value(str(key))),
    "a tuple": (lambda call, number: call(TUPLES[number]), lambda key: kinds.value(str(key))),
    "a string, a list": (lambda call, number: call(TEXTS[number]), lambda key: [key] * 10),
}
BESIDE = "cachetools `cached` with a lock"


def hits(name, *, rounds=100):
    """Yield the time of a hit by each kind of call, beside that of `cachetools` with a lock."""
    for kind, (make, function) in CALLS.items():
        folder = tempfile.mkdtemp()
        try:
            call, beside = CACHES[name](folder, function), CACHES[BESIDE](folder, function)
            numbers = list(range(100))
            expected = [make(function, number) for number in numbers]
            for number in numbers * 2:
                make(call, number), make(beside, number)
            figure = measure.run(
                lambda number, call=call, make=make: make(call, number),
                numbers * rounds,
                batch=1000,
                beside=lambda number, beside=beside, make=make: make(beside, number),
                check=lambda number, got, expected=expected: (
                    None if got == expected[number] else "wrong"
                ),
            )
            yield {"row": "memory", "kind": kind, **figure}
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def answers(name):
    """Yield the arguments that a cache confuses, and whether callers get its own object."""
    folder = tempfile.mkdtemp()
    try:
        typed = CACHES[name](folder, lambda number: type(number).__name__)
        wrong = sum(typed(number) != type(number).__name__ for number in (1, True, 1.0))
        given = CACHES[name](folder, lambda number: [number])
        given(2).append("changed"), given(2).append("changed")
        yield {"row": "memory answers", "confused": wrong, "shared": given(2) != [2]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def footprint(name, folder, *, count=COUNT):
    """Yield the bytes of memory an entry takes: of 16 bytes, under a short string.

    That is the growth of the process's memory over many entries. Ours is filled by hits, from a
    folder that another process filled.
    """
    os.makedirs(folder, exist_ok=True)
    if name.startswith("efsstate"):
        isolated(_fill, name, folder, count)
    call = CACHES[name](folder, work)
    call("warm")
    gc.collect()
    before = measure.resident()
    for _ in range(2):  # ours remembers a call at its second time
        for number in range(count):
            call(key_of(number))
    gc.collect()
    grown = measure.resident() - before
    shutil.rmtree(folder)  # what is answered now is answered from memory
    _computed.clear()
    right = all(call(key_of(number)) == value(key_of(number)) for number in range(count))
    yield {
        "row": "footprint",
        "entries": count,
        "bytes_each": grown / count,
        "objects": sys.getsizeof(key_of(0)) + sys.getsizeof(value("")),
        "kept": count - len(_computed),
    } | ({} if right else {"wrong": 1})


def _fill(name, folder, count):
    call = CACHES[name](folder, work)
    for number in range(count):
        call(key_of(number))
    yield {}
