"""`io_timeout`: a mount that hangs is given up, then not called until it answers."""

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from efsstate import Cache, cached
from efsstate.cache import io_threads
from efsstate.errors import MountTimeout
from efsstate.mount.files import Mount


@pytest.fixture
def hang(monkeypatch):
    """`hang()` makes every call hang, `hang(False)` ends that; `hang.calls` counts them."""
    open_again = threading.Event()
    open_again.set()

    def switch(on=True):
        open_again.clear() if on else open_again.set()

    switch.calls = 0

    def blocking(function):
        def run(*args, **kwargs):
            if not open_again.is_set():
                switch.calls += 1
                open_again.wait(60)
            return function(*args, **kwargs)

        return run

    for name in ("read", "replace", "open", "refresh", "remove", "stat", "names"):
        monkeypatch.setattr(Mount, name, blocking(getattr(Mount, name)))
    yield switch
    open_again.set()
    until(lambda: not io_threads.breaker.count())  # what hung must not count against the next test


def be_patient(*caches, seconds=20):
    """Change the io_timeout: a short one is for a mount that hangs, as a busy machine seems to."""
    for cache in caches:
        cache._results.io_timeout = seconds


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_circuit_opens_and_closes_with_the_mount(hang):
    """A mount that hangs is left and then left alone and used again when it answers."""
    calls = []
    f = cached(io_timeout=20, memory=0)(lambda x: calls.append(x) or x)
    f(1)
    hang()
    be_patient(f.cache, seconds=0.1)
    for _ in range(30):
        assert f(1) == 1
    assert len(calls) == 31 and hang.calls == 3  # three hang, and nobody asks any more
    for i in range(200):
        f(i)
    assert hang.calls == 3
    hang(False)
    be_patient(f.cache)
    until(lambda: not io_threads.breaker.is_open(f.cache._results.root_path))
    assert f(1) == 1
    before = len(calls)
    assert f(1) == 1 and f(1) == 1 and len(calls) == before
    assert f.cache_info().errors > 3


def test_the_other_calls_are_left_too(hang):
    f = cached(io_timeout=20, memory=0)(lambda x: x)
    cache = Cache("box", io_timeout=20, memory=0)
    f(1), cache.set("k", 1)
    hang()
    be_patient(f.cache, cache, seconds=0.1)
    assert f.map([1, 2, 3]) == [1, 2, 3] and f.refresh(1) == 1
    f.invalidate(1), f.cache_clear()
    assert f.explain(1).startswith("miss")
    with pytest.raises(KeyError):
        f.peek(1)
    assert cache.get("k", 5) == 5 and cache.get_many(["k"]) == {} and list(cache.keys()) == []
    cache.set("k", 2), cache.clear(), cache.delete("k"), cache.set_many({"a": 1}), cache.add("k", 1)
    assert cache.get_or_compute("k", lambda: 7) == 7


def test_memory_still_serves_while_the_mount_hangs(hang):
    calls = []
    f = cached(io_timeout=20)(lambda x: calls.append(x) or x)
    f(1)
    hang()
    be_patient(f.cache, seconds=0.1)
    assert [f(1) for _ in range(100)] == [1] * 100 and calls == [1] and hang.calls == 0


def test_a_claim_that_comes_late_is_given_back(hang):
    f = cached(io_timeout=20, memory=0, name="late")(lambda x: x)
    f(1)
    from efsstate.mount import byte_locks

    hang()
    be_patient(f.cache, seconds=0.2)
    assert f(2) == 2
    hang(False)
    until(lambda: not io_threads.breaker._hanging.get(f.cache._results.root_path))
    until(lambda: not any(file.users for file in byte_locks._shared_files.values()))


def test_with_io_timeout_no_lock_file_stays_open():
    """A process with a file open on a mount that is cut off cannot end."""
    from efsstate.mount import byte_locks

    inside, gate = threading.Event(), threading.Event()

    @cached(io_timeout=5, memory=0, name="open", ttl=0.05, stale=60)
    def f(x):
        if x == 0:
            inside.set()
            assert gate.wait(10)
        return x

    f(1), f(2)
    assert not byte_locks._shared_files
    thread = threading.Thread(target=f, args=(0,))
    thread.start()
    assert inside.wait(10)
    code = (
        "from efsstate import cached\n"
        "f = cached(name='open', io_timeout=5, memory=0, lock_timeout=0.05)(lambda x: x)\n"
        "from efsstate.mount import byte_locks\n"
        "print(f(0), f.cache_info().waits, byte_locks._shared_files)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    gate.set()
    thread.join()
    assert done.stdout == "0 1 {}\n" and not byte_locks._shared_files


def test_without_io_timeout_no_thread_is_started():
    before = set(threading.enumerate())
    f = cached(memory=0)(lambda x: x)
    f(1), f(1), f.refresh(1), f.invalidate(1)
    assert set(threading.enumerate()) <= before  # those of earlier tests may end


def test_tasks_leave_a_mount_that_hangs_too(hang):
    calls = []

    @cached(io_timeout=0.1, memory=0)
    async def f(x):
        calls.append(x)
        return x

    async def main():
        await f(1)
        hang()
        assert [await f(1) for _ in range(10)] == [1] * 10
        assert await asyncio.gather(*[f(i) for i in range(100)]) == list(range(100))

    asyncio.run(main())
    assert len(calls) == 111 and hang.calls <= 4


def test_a_process_ends_although_threads_hang():
    code = """
import time
from efsstate import cached
from efsstate.mount.files import Mount
f = cached(io_timeout=0.1, memory=0)(lambda x: x)
f(1)
Mount.read = lambda *a, **k: time.sleep(1000)
print([f(1) for _ in range(5)])
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (
        done.returncode == 0
        and done.stdout == "[1, 1, 1, 1, 1]\n"
        and time.monotonic() - began < 55
    ), done.stderr


def test_threads_survive_a_fork():
    f = cached(io_timeout=5, memory=0)(lambda x: x)
    f(1)
    pid = os.fork()
    if not pid:
        os._exit(0 if f(1) == 1 and f(2) == 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert f(2) == 2


def test_many_jobs_are_done_by_a_bounded_number_of_threads():
    """Many jobs at once are done by a bounded number of threads."""
    most, now, lock = [0], [0], threading.Lock()

    def work():
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.002)
        with lock:
            now[0] -= 1
        return 1

    jobs = [io_threads.submit(work) for _ in range(300)]
    assert (
        all(job.wait(30) for job in jobs)
        and sum(job.outcome() for job in jobs) == 300
        and 4 < most[0] <= 32
    )


def test_as_many_calls_are_under_way_as_were_asked_for():
    """A thread that is about to be free must not count for two jobs."""
    for _ in range(100):
        gate = threading.Barrier(16, timeout=10)
        assert len(io_threads.spread("x", lambda _: gate.wait() >= 0, range(64), None)) == 64


def test_what_a_job_raises_is_raised_to_who_waits():
    with pytest.raises(ZeroDivisionError):
        io_threads.call("x", lambda: 1 / 0, 5)
    with pytest.raises(ZeroDivisionError):
        io_threads.spread("x", lambda n: 1 / n, [1, 0, 2], None)


def test_map_reads_many_at_once(monkeypatch):
    f = cached(memory=0)(lambda x: x)
    f.map(range(64))
    now, most, lock, read = [0], [0], threading.Lock(), Mount.read

    def slow(*args, **kwargs):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return read(*args, **kwargs)

    monkeypatch.setattr(Mount, "read", slow)
    assert f.map(range(64)) == list(range(64)) and most[0] >= 12
    most[0] = 0
    assert len(f.cache.get_many([("x", 1)])) == 0


@pytest.fixture
def all_hang():
    """Every thread of the pool is in a call that hangs, of calls without a timeout."""
    gate, inside = threading.Event(), threading.Semaphore(0)
    jobs = [
        io_threads.submit(lambda: inside.release() or gate.wait(60))
        for _ in range(io_threads._MOST)
    ]
    for _ in jobs:
        assert inside.acquire(timeout=20)
    yield
    gate.set()
    assert all(job.wait(20) for job in jobs)
    until(lambda: not io_threads.breaker.count())


def test_nobody_waits_for_the_threads_on_one_of_them():
    """Jobs that each need another job, more than threads: those run where they are asked for."""

    def nested():
        return io_threads.call(
            "x", lambda: sum(io_threads.spread("x", lambda n: n, range(20), None)), 60
        )

    jobs = [io_threads.submit(nested) for _ in range(100)]
    assert all(job.wait(30) for job in jobs) and {job.outcome() for job in jobs} == {190}


def test_many_at_once_end_though_their_turn_never_comes(all_hang):
    found = []
    many = threading.Thread(
        target=lambda: found.extend(io_threads.spread("x", lambda n: n, range(64), None)),
        daemon=True,
    )
    many.start()
    many.join(20)
    assert found == list(range(64))


def test_a_call_whose_turn_never_comes_is_given_up(all_hang):
    """A call whose turn never comes is left and the next has a thread."""
    begun = []
    with pytest.raises(MountTimeout):
        io_threads.call("y", lambda: begun.append(1), 0.2)
    until(lambda: not io_threads.breaker._hanging["y"])
    assert io_threads.call("y", lambda: 1, 20) == 1 and not begun


def test_a_call_that_waits_for_its_turn_does_not_hang(monkeypatch):
    """All 1,200 writes take longer than the timeout, each of them a twentieth of it."""
    replace = Mount.replace
    monkeypatch.setattr(
        Mount, "replace", lambda *args, **more: time.sleep(0.05) or replace(*args, **more)
    )
    cache = Cache("box", io_timeout=1)
    writers = [
        threading.Thread(target=cache.set_many, args=({(i, j): j for j in range(400)},))
        for i in range(3)
    ]
    [writer.start() for writer in writers], [writer.join() for writer in writers]
    assert cache._results.counts.errors == 0 and cache._results.counts.puts == 1200


def test_many_calls_at_once_let_others_have_their_turn():
    done, width = [], io_threads._MOST
    many = threading.Thread(
        target=io_threads.spread,
        args=("x", lambda n: time.sleep(0.005) or done.append(n), range(4000), 20, width),
    )
    many.start()
    until(lambda: len(done) > width)
    assert io_threads.call("y", lambda: len(done), 20) < 2000
    many.join()
    assert sorted(done) == list(range(4000))


def test_of_many_at_once_the_one_that_hangs_is_left():
    gate = threading.Event()
    found = io_threads.spread("x", lambda n: gate.wait(60) if n == 7 else n, range(64), 0.3)
    assert (
        found == [None if n == 7 else n for n in range(64)]
        and len(io_threads.breaker._hanging["x"]) == 1
    )
    gate.set()
    until(lambda: not io_threads.breaker._hanging["x"])


def test_a_waiting_call_is_not_begun_on_an_open_circuit(hang):
    """What waits for its turn is not begun on a mount that is left alone."""
    f = cached(io_timeout=20, memory=0)(lambda x: x)
    f(0)
    hang()
    be_patient(f.cache, seconds=0.3)
    callers = [threading.Thread(target=f, args=(i,)) for i in range(150)]
    [caller.start() for caller in callers], [caller.join() for caller in callers]
    assert hang.calls <= io_threads._MOST + io_threads._MOST_HANGING


def test_writes_that_were_not_done_are_counted(hang):
    cache = Cache("box", io_timeout=20)
    cache.set("k", 1)
    hang()
    be_patient(cache, seconds=0.2)
    cache.set_many({i: i for i in range(50)})
    assert cache._results.counts.errors >= 50 and cache._results.counts.puts == 1


def test_a_late_result_leaves_no_spare_copy_in_memory(hang):
    """What came too late leaves no copy for a caller in memory."""
    Cache("box").set("k", [1])
    cache = Cache("box", io_timeout=0.2)
    hang()
    assert cache.get("k") is None and cache.get_many(["k"]) == {}
    hang(False)
    until(lambda: not io_threads.breaker.count() and cache._results.memory.by_digest)
    assert not any(item.spare_copy for item in cache._results.memory.by_digest.values())


def test_without_any_thread_the_mount_counts_as_failing():
    """Where no thread can be started the mount counts as failing."""
    code = """
import resource
from efsstate import Cache
Cache("box").set_many({i: i for i in range(50)})
cache = Cache("box", io_timeout=5, memory=0)
cache.get_many([])
from efsstate.cache import io_threads
io_threads._pool = None
for line in open("/proc/self/status"):
    if line.startswith("VmSize:"):
        most = int(line.split()[1]) * 1024 + 2**22  # the stack of a thread takes twice as much
resource.setrlimit(resource.RLIMIT_AS, (most, most))
cache.set("k", 1)
cache.set_many({1: 1, 2: 2})
print(cache.get_many([1, 2]), cache.get("k"), cache._results.counts.errors)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "{} None 4\n", done.stderr
