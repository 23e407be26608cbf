"""One computation per key, across threads, tasks and processes, and no deadlock."""

import asyncio
import itertools
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from tests.mount.alarms import at_each_moment, succeeds_in_child

from efsstate import Cache, cached, invocation
from efsstate.cache import flight


def together(count, function):
    """`function(i)` in so many threads that start at once; what they returned or raised."""
    gate, found = threading.Barrier(count), [None] * count

    def run(i):
        gate.wait()
        try:
            found[i] = function(i)
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return found


def children(count, code, *arguments):
    """So many fresh processes of `code` that begin together; their outputs."""
    script = "import os, sys, time\nfrom efsstate import cached, Cache\n" + textwrap.dedent(code)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.close()
    outputs = []
    for process in started:
        with process:
            outputs.append(process.stdout.read())
    assert [process.returncode for process in started] == [0] * count
    return outputs


@pytest.mark.parametrize("memory", [None, 0])
def test_threads_compute_once(memory):
    calls = []

    @cached(memory=memory)
    def f(x):
        calls.append(x)
        time.sleep(0.05)
        return [x]

    found = together(32, lambda i: f(7))
    assert calls == [7] and found == [[7]] * 32 and len({id(one) for one in found}) == 32


def test_sixty_four_processes_compute_once(tmp_path):
    @cached
    def f(x):
        (tmp_path / str(os.getpid())).touch()
        time.sleep(0.3)
        return x * 2

    f.cache_key(1)
    read, write = os.pipe()
    pids = []
    for _ in range(64):
        if not (pid := os.fork()):
            os.close(write)
            os.read(read, 1)  # they go when the parent closes its end
            os._exit(0 if f(21) == 42 else 1)
        pids.append(pid)
    os.close(read), os.close(write)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 64
    assert len([path for path in tmp_path.iterdir() if path.name.isdigit()]) == 1


def test_processes_that_have_nothing_in_common_compute_once(tmp_path):
    outputs = children(
        4,
        """
        @cached(name="cold")
        def f(x):
            open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
            time.sleep(0.3)
            return x * 2
        print("ready", flush=True); sys.stdin.read()
        print(f(21))
        """,
        tmp_path,
    )
    assert outputs == ["42\n"] * 4
    assert len([name for name in os.listdir(tmp_path) if name.isdigit()]) == 1


def test_different_keys_are_computed_at_the_same_time():
    gate = threading.Barrier(8, timeout=10)

    @cached(name="f")
    def f(x):
        gate.wait()
        return x

    assert together(8, f) == list(range(8))


def test_lock_files_do_not_pile_up(root):
    @cached
    def f(x):
        return x

    for i in range(300):
        f(i)
    others = [path for path in root.rglob("*") if path.is_file() and len(path.name) != 48]
    assert len(others) <= 16 + 2  # a LOCK in each of the 16 folders, POLICY, and its LOCK


def test_the_computers_death_frees_the_key_at_once(tmp_path):
    victim = subprocess.Popen(
        [
            sys.executable,
            "-c",
            ("from efsstate import cached\nimport time\n@cached(name='k')\ndef f(x):\n"
            "    print('in', flush=True)\n    time.sleep(60)\nf(1)"),
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert victim.stdout.readline() == "in\n"
    threading.Timer(0.3, victim.send_signal, [signal.SIGKILL]).start()
    began = time.monotonic()
    assert cached(name="k")(lambda x: x)(1) == 1
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL and 0.2 < time.monotonic() - began < 20


def test_a_fork_during_a_computation_does_not_hang_the_child():
    """A fork while another thread computes does not hang the child."""
    inside, gate = threading.Event(), threading.Event()

    @cached(name="f", lock_timeout=0.2)
    def f(x):
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            gate.wait(30)
        return x

    f(0)
    thread = threading.Thread(target=f, args=(1,))
    thread.start()
    inside.wait(10)
    pid = os.fork()
    if not pid:
        # What it computes beside its parent counts, until it is removed with the parent's draft.
        os._exit(0 if f(1) == 1 and f.invalidate(1) is True and f(2) == 2 and f(0) == 0 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    # The child's end must not have given back the parent's claim.
    other = children(
        1,
        "f = cached(name=sys.argv[1], lock_timeout=0.1)(lambda x: os.getpid())\n"
        "print('ready', flush=True); sys.stdin.read()\nbegan = time.monotonic(); f(1)\n"
        "print(time.monotonic() - began >= 0.1, f.cache_info().waits)",
        f.cache.name,
    )
    gate.set()
    thread.join()
    assert other == ["True 1\n"]


def test_waiting_ends_at_lock_timeout_and_then_it_computes():
    gate, calls = threading.Event(), []

    @cached(name="f", lock_timeout=0.2)
    def f(x):
        calls.append(x)
        if len(calls) == 1:
            gate.wait(30)
        return x

    thread = threading.Thread(target=f, args=(1,))
    thread.start()
    while not calls:
        time.sleep(0.01)
    began = time.monotonic()
    assert f(1) == 1 and time.monotonic() - began >= 0.2 and calls == [1, 1]
    gate.set()
    thread.join()


def test_waiting_ends_at_the_invocations_deadline():
    gate, calls = threading.Event(), []

    @cached(name="f")
    def f(x):
        calls.append(x)
        if len(calls) == 1:
            gate.wait(30)
        return x

    thread = threading.Thread(target=f, args=(1,))
    thread.start()
    while not calls:
        time.sleep(0.01)

    class Context:
        def get_remaining_time_in_millis(self):
            return 300

    began = time.monotonic()
    with invocation(Context()):
        assert f(1) == 1
    assert 0.2 < time.monotonic() - began < 20
    gate.set()
    thread.join()


def test_a_call_of_itself_does_not_deadlock():
    """A call of itself with the same arguments does not deadlock."""
    depth = []

    @cached(lock_timeout=30)
    def f(x):
        depth.append(x)
        return x if len(depth) > 1 else f(x) + 1

    began = time.monotonic()
    assert f(1) == 2 and time.monotonic() - began < 10


def test_a_child_forked_by_a_computation_does_not_wait_for_it():
    """The parent's claim is held until the child has ended: who waits for both waits for ever."""

    @cached(lock_timeout=30)
    def f(x):
        if os.getpid() == parent:
            pid = os.fork()
            if not pid:
                began = time.monotonic()
                os._exit(0 if f(x) == "child" and time.monotonic() - began < 10 else 1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return "child"

    parent = os.getpid()
    assert f(1) == 0


def test_of_two_that_would_wait_for_each_other_one_does():
    """Of two that are to wait for each other at one moment only one does."""
    for _ in range(200):
        flights, gate, let = (
            [flight.Flight(("", "", str(i))) for i in range(2)],
            threading.Barrier(2),
            [],
        )

        def wait(i, flights=flights, gate=gate, let=let):
            flight.computing.set((flights[i],))
            gate.wait()
            let.append(flight.begin_wait(flights[1 - i]) is not None)

        threads = [threading.Thread(target=wait, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(let) == [False, True]


def test_a_flight_with_several_waits_waits_until_the_last_ends():
    """A computation with several waits is seen to wait until the last is over."""
    first, second, third = (flight.Flight(("", "", name)) for name in "abc")
    token = flight.computing.set((first,))
    waits = [flight.begin_wait(other) for other in (second, second, third)]
    flight.end_wait(waits[0], second)
    flight.computing.reset(token)
    flight.computing.set((second,))
    assert flight.begin_wait(first) is None
    flight.end_wait(waits[1], second)
    assert flight.begin_wait(first) is not None
    flight.computing.set(())


def test_recursion_is_cached():
    calls = []

    @cached
    def fibonacci(n):
        calls.append(n)
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(30) == 832040 and len(calls) == 31
    depth = cached(lambda n: 0 if not n else depth(n - 1) + 1)
    assert depth(sys.getrecursionlimit() // 8) == sys.getrecursionlimit() // 8


def test_two_threads_that_need_each_others_key_do_not_deadlock():
    gate = threading.Barrier(2, timeout=10)

    @cached(name="h", lock_timeout=30)
    def h(x):
        if threading.current_thread().name == f"start-{x}":
            gate.wait()
            h(1 - x)
        return x

    found = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(h(i)), name=f"start-{i}") for i in (0, 1)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(25)
    assert sorted(found) == [0, 1] and time.monotonic() - began < 20


def test_if_the_first_fails_each_waiter_gets_its_own_error():
    """Where the first fails each of the others gets its own error."""
    numbers = itertools.count(1)

    @cached(name="f")
    def f(x):
        number = next(numbers)
        time.sleep(0.01)
        raise ValueError(number)

    found = together(8, lambda i: f(1))
    assert sorted(error.args[0] for error in found) == list(range(1, 9))


def test_results_that_are_not_kept_are_not_queued_for():
    """Results that are not kept are not waited for one after another."""
    gate = threading.Barrier(7, timeout=20)
    calls = []

    @cached(name="f", cache_if=lambda value: False)
    def f(x):
        calls.append(x)
        if len(calls) > 1:
            gate.wait()  # all seven others at the same time
        else:
            time.sleep(0.2)
        return x

    assert together(8, lambda i: f(1)) == [1] * 8


def test_one_unstorable_result_costs_other_keys_nothing():
    """One result that can not be stored does not let others be computed twice."""
    calls = []

    @cached
    def f(x):
        calls.append(x)
        time.sleep(0.1)
        return object() if x == "bad" else x

    f("bad")
    assert together(8, lambda i: f(1)) == [1] * 8 and calls == ["bad", 1]
    gate = threading.Barrier(4, timeout=20)
    g = cached(name=f.cache.name)(lambda x: (gate.wait(), object()))
    cached(name=f.cache.name)(lambda x: object())("bad")
    g.cache._results.unstorable.update(f.cache._results.unstorable)
    assert len(together(4, lambda i: g("bad"))) == 4  # all at the same time


def test_two_functions_of_one_name_share_a_computation():
    """Two functions of one name in one process share a computation."""
    calls = []

    def work(x):
        calls.append(x)
        time.sleep(0.05)
        return x

    functions = [cached(name="shared")(work), cached(name="shared")(work)]
    assert together(8, lambda i: functions[i % 2](1)) == [1] * 8 and calls == [1]


def test_get_or_compute_computes_once_too():
    cache, calls = Cache("box"), []

    def work():
        calls.append(1)
        time.sleep(0.05)
        return {"x": 1}

    assert together(8, lambda i: cache.get_or_compute("k", work)) == [{"x": 1}] * 8 and calls == [1]


@pytest.mark.parametrize("what", ["invalidate", "cache_clear"])
def test_a_computation_that_was_invalidated_is_not_kept(what, entries):
    """What was being computed when it was invalidated is not kept."""
    inside, gate, calls = threading.Event(), threading.Event(), []

    @cached(name="f")
    def f(x):
        calls.append(x)
        inside.set()
        gate.wait(10)
        return len(calls)

    thread = threading.Thread(target=f, args=(1,))
    thread.start()
    inside.wait(10)
    getattr(f, what)(*[1] * (what == "invalidate"))
    gate.set()
    thread.join()
    assert not entries() and f(1) == 2 and f(1) == 2


def test_anothers_computation_that_was_cleared_is_a_miss(tmp_path):
    """What another process was computing when it was cleared is a miss."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            ("from efsstate import cached\n@cached(name='k')\ndef f(x):\n"
            "    print('in', flush=True)\n    input()\n    return 'old'\nf(1)"),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "in\n"
    f = cached(name="k")(lambda x: "new")
    f.cache_clear()
    process.communicate("\n")
    assert process.returncode == 0
    assert (
        f.explain(1) == "miss: it was cleared" and f(1) == "new" and f.explain(1).startswith("hit")
    )


def test_nothing_is_left_of_flights_and_claims():
    @cached
    def f(x):
        if x % 3 == 0:
            raise ValueError
        return x

    together(30, lambda i: f(i % 10))
    assert not flight._joinable and not flight.in_flight
    from efsstate.mount import byte_locks

    assert {key: file.users for key, file in byte_locks._shared_files.items() if file.users} == {}


def test_a_namespace_deleted_meanwhile_costs_computations_only(root):
    """A namespace that is deleted under way costs computations only."""
    import shutil

    calls = []

    @cached(memory=0)
    def f(x):
        calls.append(x)
        if x == "delete":
            shutil.rmtree(root / "cache")
        return x

    for x in ("a", "delete", "a", "b", "a", "b"):
        assert f(x) == x
    assert calls == ["a", "delete", "a", "b"]


def claims(root, count):
    """The lock files of so many folders of `root`, opened and given back."""
    from efsstate.mount import byte_locks
    from efsstate.mount.files import Mount

    mount = Mount(str(root))
    for i in range(count):
        byte_locks.acquire(mount, f"cache/{i}", "0" * 48).release()
    return mount


def test_a_claim_that_closes_its_lock_file_holds_nobody_up(tmp_path, monkeypatch):
    """A close is a request: on a mount that is cut off it hangs, and everybody else must go on."""
    from efsstate.mount import byte_locks

    for name in "ab":
        (tmp_path / name).mkdir()
    cut = claims(tmp_path / "a", byte_locks._MAX_OPEN)
    hanging, gate, close = threading.Event(), threading.Event(), byte_locks._SharedLockFile.close

    def hangs(file):
        if file.file.is_open:
            hanging.set()
            gate.wait(30)
        close(file)

    monkeypatch.setattr(byte_locks._SharedLockFile, "close", hangs)
    good = claims(tmp_path / "b", byte_locks._MAX_OPEN)
    assert not hanging.is_set()
    stuck = threading.Thread(
        target=lambda: byte_locks.acquire(cut, "cache/one more", "0" * 48).release()
    )
    stuck.start()
    assert hanging.wait(10)
    byte_locks.acquire(good, "cache/1", "0" * 48).release()
    byte_locks.acquire(cut, "cache/5", "0" * 48).release()
    gate.set()
    stuck.join(10)
    assert not stuck.is_alive()


def test_lock_files_that_come_and_go_still_exclude(tmp_path):
    """A second descriptor of a lock file, when closed, would release the first's bytes."""
    code = """
        import errno, random, threading
        from efsstate.mount import byte_locks
        from efsstate.mount.files import Mount
        byte_locks._MAX_OPEN, byte_locks._CHECK = 2, 0.001
        let_go = byte_locks._close_unused
        # Another thread comes first, now and then.
        byte_locks._close_unused = lambda key: (time.sleep(0.0002), let_go(key))
        mount, inside = Mount(sys.argv[1]), [threading.Lock() for _ in range(12)]
        met, taken = [], []

        def work(seed):
            choose = random.Random(seed)
            for _ in range(400):
                i = choose.randrange(12)
                if not inside[i].acquire(blocking=False):
                    continue
                try:
                    name = f"{i % 2:048x}"[::-1]  # two keys a file
                    held = byte_locks.acquire(mount, f"cache/{i // 2}", name)
                    if held is not None:
                        taken.append(i)
                        try:
                            os.mkdir(f"{sys.argv[1]}/in-{i}")
                        except FileExistsError:
                            met.append(i)
                        else:
                            time.sleep(0.0002)
                            os.rmdir(f"{sys.argv[1]}/in-{i}")
                        held.release()
                finally:
                    inside[i].release()

        print("ready", flush=True); sys.stdin.read()
        threads = [threading.Thread(target=work, args=(os.getpid() * 10 + i,)) for i in range(6)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        open_files = len(os.listdir("/proc/self/fd"))
        print(len(met), len(taken) > 100, len(byte_locks._shared_files) <= 8, open_files < 50)
        """
    assert children(2, code, tmp_path) == ["0 True True True\n"] * 2


def test_tasks_compute_once():
    calls = []

    @cached
    async def f(x):
        calls.append(x)
        await asyncio.sleep(0.05)
        return [x]

    async def main():
        return await asyncio.gather(*[f(1) for _ in range(50)])

    assert asyncio.run(main()) == [[1]] * 50 and calls == [1]


def test_an_alarm_of_a_waiter_does_not_stop_who_computes():
    """The computing thread tells the waiter; a lock that the waiter left taken would hang it."""

    def try_each():
        begun, keys, numbers = queue.SimpleQueue(), queue.SimpleQueue(), itertools.count()
        cache = Cache("box")

        def compute():
            begun.put(True)
            time.sleep(0.005)
            return 1

        def lead():
            while (key := keys.get()) is not None:
                cache.get_or_compute(key, compute)

        def act():
            key = next(numbers)
            keys.put(key)
            begun.get()
            cache.get_or_compute(key, lambda: pytest.fail("it is being computed"))

        leader = threading.Thread(target=lead, daemon=True)
        leader.start()
        for _ in range(3):  # what is met in a moment is not always the same
            for _ in at_each_moment(act, "threading.py"):
                pass
        keys.put(None)
        leader.join(20)
        assert not leader.is_alive()

    assert succeeds_in_child(try_each)


def test_an_alarm_leaves_no_flight():
    """No flight stays registered: not in the process, and not in the context of the call."""
    work, numbers = cached(name="work")(lambda x: x), itertools.count()
    work(next(numbers))
    count = 0
    for _ in range(2):
        for moment in at_each_moment(lambda: work(next(numbers))):
            assert not flight.in_flight, moment
            assert len(flight.computing.get()) <= 1, moment  # the next one takes it away
            count += 1
    assert count > 200
