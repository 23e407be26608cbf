"""Work that goes to a thread has no references to the caller's values: the call may be given up."""

import asyncio
import threading
import time

import numpy as np
import pytest

from efsstate import Cache, cached
from efsstate.cache import io_threads
from efsstate.mount.files import Mount


class Link:
    """A link to the server that can be cut: on it, writing a file hangs."""

    def __init__(self, monkeypatch):
        self.is_up, self.hanging = threading.Event(), threading.Event()
        self.is_up.set()
        real = Mount.create_open

        def create_open(*arguments, **options):
            if not self.is_up.is_set():
                self.hanging.set()
                assert self.is_up.wait(30)
            return real(*arguments, **options)

        monkeypatch.setattr(Mount, "create_open", create_open)

    def heal(self):
        self.is_up.set()
        until = time.monotonic() + 20
        while io_threads.breaker.count() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.05)


@pytest.fixture
def link(monkeypatch):
    return Link(monkeypatch)


def stored(name, key, apart):
    """The value that another host reads."""
    apart()
    return Cache(name, memory=0).get(key, fresh=True)


LARGE = 3_000_000  # numbers: too many for memory, so that no copy is made for that


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("many", [False, True])
def test_a_set_that_was_given_up_stores_what_was_passed(link, apart, size, many):
    cache, frame = Cache("frames", io_timeout=0.2), np.ones(size)
    cache.set("warm", 1)
    link.is_up.clear()
    cache.set_many({"frame 1": frame, "frame 2": [frame]}) if many else cache.set("frame 1", frame)
    frame[:] = 2
    link.heal()
    value = stored("frames", "frame 1", apart)
    assert value is None or (value == 1).all()


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_result_that_was_given_up_is_stored_as_it_was(link, apart, size):
    frame = np.ones(size)

    @cached(name="camera", io_timeout=0.2, key=lambda: 1)
    def read():
        link.is_up.clear()
        return frame

    assert read() is frame
    frame[:] = 2
    link.heal()
    value = stored("camera", 1, apart)
    assert value is None or (value == 1).all()


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_result_of_a_cancelled_task_is_stored_as_it_was(monkeypatch, apart, size):
    """The cancelled task's thread goes on; its caller uses the buffer again."""
    from efsstate.mount import files

    frame, gate, writing = np.ones(size), threading.Event(), threading.Event()
    real = files.PendingFile.commit

    def commit(*arguments, **options):
        writing.set()
        assert gate.wait(30)
        return real(*arguments, **options)

    monkeypatch.setattr(files.PendingFile, "commit", commit)

    @cached(name="camera", key=lambda: 1)
    async def read():
        return frame

    async def main():
        task = asyncio.create_task(read())
        while not writing.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        frame[:] = 2
        gate.set()

    asyncio.run(main())
    time.sleep(0.3)
    value = stored("camera", 1, apart)
    assert value is None or (value == 1).all()


class Slow:
    """A codec that takes its time, as one that compresses does."""

    name = "slow"

    def dumps(self, value):
        time.sleep(0.6)
        return repr(value).encode()

    def loads(self, data):
        return int(bytes(data))


def test_slow_encoding_is_no_hanging_mount():
    cache = Cache("slow", io_timeout=0.3, codec=Slow())
    cache.set("k", 7)
    cache.set_many({"a": 1, "b": 2})
    f = cached(name="slower", io_timeout=0.3, codec=Slow())(lambda x: x)
    assert f(3) == 3 and f.cache_info().puts == 1
    assert cache.get("k") == 7 and cache.get("b") == 2
    assert f.cache_info().errors == cache._results.counts.errors == 0


def test_an_exception_of_an_encoder_leaves_the_result():
    """Any exception of an encoder leaves the caller the result."""

    class Broken:
        name = "broken"

        def dumps(self, value):
            raise OverflowError("too large")

        def loads(self, data):
            raise AssertionError

    f = cached(name="broken", codec=Broken())(lambda x: x)
    assert f(1) == 1 and f.cache_info().unstored == 1
