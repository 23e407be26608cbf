"""`lock`: a mutex is free after alarms, cancellations and loops that end, for every thread."""

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.mount import alarms

from efsstate import AsyncCache, Cache, process
from efsstate.cache import mutex


@pytest.fixture
def cache():
    return Cache("box")


def is_free(cache):
    """Return True if another thread gets the mutex at once, or nearly."""

    def enter():
        with cache.lock("k", wait=10):
            return True

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(enter).result()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_after_an_alarm_at_any_moment_it_is_free(cache):
    """A signal's handler may raise as soon as the lock is taken, and before anybody knows."""
    results = cache._results
    key = (results.root_path, results.component, cache.lock("k")._digest)
    lock = mutex._thread_locks[key] = process.lock()  # as who waits has it: it outlives the frame

    def run():
        with cache.lock("k"):
            pass

    run()
    moments = 0
    gc.freeze()  # only what is made from here on is collected, at each moment
    try:
        for moment in alarms.at_each_moment(run):
            moments += 1
            assert is_free(cache), moment
    finally:
        gc.unfreeze()
    assert moments > 10 and lock is mutex._thread_locks[key]


async def entered_and_left(lock):
    async with lock:
        pass


def test_a_task_that_is_interrupted_as_its_thread_begins_lets_go(cache, monkeypatch):
    """The thread would wait in the mutex for ever, to be told that the block was left."""
    assert is_free(cache)  # the root is open: entering is quick

    class Interrupted(threading.Thread):
        def start(self):
            super().start()
            if self.name == "efsstate-lock":
                time.sleep(0.2)  # it has entered
                raise TimeoutError("an alarm")

    monkeypatch.setattr(threading, "Thread", Interrupted)
    with pytest.raises(TimeoutError, match="an alarm"):
        asyncio.run(entered_and_left(AsyncCache("box").lock("k")))
    monkeypatch.undo()
    assert is_free(cache)


def test_a_lock_that_timed_out_can_be_entered_again(cache):
    """Its first thread, still waiting, gets the mutex next, and must not wait for the second."""

    async def main():
        lock = AsyncCache("box").lock("k", wait=20)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(entered_and_left(lock), 0.05)
        again = asyncio.create_task(entered_and_left(lock))
        await asyncio.sleep(0.05)
        leave.set()
        await asyncio.wait_for(again, 10)

    def hold():
        with cache.lock("k"):
            held.set()
            leave.wait()

    held, leave = threading.Event(), threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        asyncio.run(main())
    finally:
        leave.set()
        holder.join()


def test_a_loop_that_ended_is_told_nothing(cache, monkeypatch):
    """The thread gets the mutex after the loop of who wanted it was closed."""
    errors = []
    monkeypatch.setattr(threading, "excepthook", errors.append)

    async def main():
        await asyncio.wait_for(entered_and_left(AsyncCache("box").lock("k", wait=20)), 0.05)

    with cache.lock("k"), pytest.raises(TimeoutError):
        asyncio.run(main())
    assert is_free(cache)
    until = time.monotonic() + 60
    while any(thread.name == "efsstate-lock" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert errors == []
