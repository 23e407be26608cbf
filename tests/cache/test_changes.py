"""A change during a computation or a read stays, in one process and between hosts."""

import asyncio
import gc
import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from efsstate import Cache, EncodeError, cached, sweep
from efsstate.cache import clearing, disk, memory, puts, tiers
from efsstate.cache import flight as flights
from efsstate.mount.files import Mount

COMPUTER = """
from efsstate import Cache, cached
def work(x=0):
    print("in", flush=True)
    input()
    return "old"
{call}
"""


@pytest.fixture
def computing():
    """A process that computes "old" with a call, and ends it when the returned is called."""
    started = []

    def start(call):
        process = subprocess.Popen(
            [sys.executable, "-c", COMPUTER.format(call=call)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "in\n"

        def end():
            process.communicate("\n", timeout=30)
            assert process.returncode == 0

        return end

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close(), process.stdout.close()


@pytest.mark.parametrize("call", ["cached(name='k')(work)(1)", "cached(name='k')(work).refresh(1)"])
@pytest.mark.parametrize("before", ["nothing", "a result"])
def test_anothers_computation_that_was_invalidated_is_not_kept(computing, call, before, entries):
    """What another process was computing when it was invalidated is not kept."""
    f = cached(name="k", memory=0)(lambda x: "new")
    if before == "a result" and "refresh" in call:
        f(1)
    end = computing(call)
    assert f.invalidate(1) is (before == "a result" and "refresh" in call)
    end()
    assert not entries() and f(1) == "new"


@pytest.mark.parametrize("call", ["cached(name='k')(work)(1)", "cached(name='k')(work).refresh(1)"])
def test_a_refresh_is_not_undone_by_what_began_before_it(computing, call):
    f = cached(name="k", memory=0)(lambda x: "new")
    end = computing(call)
    assert f.refresh(1) == "new"
    end()
    assert f.peek(1) == "new"


def test_of_two_refreshes_the_one_that_began_later_is_kept(computing):
    """The other removes the old result, which must not keep the later from being stored."""
    f = cached(name="k", memory=0)(lambda x: "older")
    for first in (0, 1):
        f(1)
        ends = [computing("cached(name='k')(work).refresh(1)") for _ in range(2)]
        ends[first]()
        ends[1 - first]()
        assert f.peek(1) == "old"
        f.invalidate(1)


@pytest.mark.parametrize("change", ["set", "set and expired", "delete"])
def test_a_set_or_delete_is_not_undone_by_an_earlier_computation(computing, change):
    """A value that was set or deleted is not undone by what began before."""
    box = Cache("box")
    end = computing("Cache('box').get_or_compute('k', work)")
    box.set("k", "new", ttl=0.001 if change == "set and expired" else None)
    if change == "delete":
        assert box.delete("k") is True
    end()
    assert box.get("k", fresh=True) == ("new" if change == "set" else None)


def test_a_result_that_began_after_a_change_is_kept_at_once(another):
    f = cached(name="k", memory=0)(lambda x: [x])
    for change in (f.invalidate, f.refresh, f.invalidate):
        change(1)
        f(1)
        assert f.peek(1) == [1]


# Every order in which the steps of two hosts can come


class SweepRound:
    """Has threads take single steps on the mount, in the order that is asked for."""

    STEPS = ("create_open", "find", "remove", "refresh")

    def __init__(self, monkeypatch):
        self.gates = {}
        self.trace = []  # (whose, which) step
        for name in self.STEPS:
            monkeypatch.setattr(Mount, name, self._gated(name, getattr(Mount, name)))
        monkeypatch.setattr(os, "rename", self._gated("os.rename", os.rename))

    def _gated(self, name, real):
        def step(*args, **options):
            gates = self.gates.get(threading.get_ident())
            if gates is not None:
                who, arrived, may = gates
                arrived.release()
                assert may.acquire(timeout=20)
                self.trace.append((who, name))
            return real(*args, **options)

        return step

    def play(self, order, *actions, look=lambda: None):
        """Do the actions step by step in `order`, `look` after each; return the steps of each."""
        gates = [(i, threading.Semaphore(0), threading.Semaphore(0)) for i in range(len(actions))]
        self.trace.clear()
        over, taken, errors = [False] * len(actions), [0] * len(actions), []

        def run(i):
            self.gates[threading.get_ident()] = gates[i]
            try:
                actions[i]()
            except Exception as error:  # told by the test's own thread
                errors.append(error)
            finally:
                del self.gates[threading.get_ident()]
                over[i] = True
                gates[i][1].release()

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(actions))]
        for i, thread in enumerate(threads):
            thread.start()
            assert gates[i][1].acquire(timeout=20)
        for i in itertools.chain(order, itertools.cycle(range(len(actions)))):
            if all(over):
                break
            if not over[i]:
                taken[i] += 1
                gates[i][2].release()
                assert gates[i][1].acquire(timeout=20)
                look()
        for thread in threads:
            thread.join()
        assert not errors, errors
        return taken


def orders(first, second):
    """All in which so many steps of 0 and so many of 1 can come."""
    for places in itertools.combinations(range(first + second), second):
        yield [int(i in places) for i in range(first + second)]


def put(tier, digest, payload, start=None):
    """Store an entry as `TieredCache.store` does."""
    return tier.write(digest, payload, "bytes", None, disk.pack_meta(0, b"", "bytes"), start)


@pytest.fixture
def hosts(apart):
    """Two hosts' shelves of one namespace."""

    def make():
        from efsstate.mount import root

        apart()
        one = disk.find(root.resolve(), "k")
        apart()
        return one, disk.find(root.resolve(), "k")

    return make


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("change", ["remove", "refresh"])
def test_a_change_is_never_undone_in_any_order_of_the_steps(monkeypatch, hosts, before, change):
    """The computation began before the change, so its result is never there after it."""
    turns, steps, again = SweepRound(monkeypatch), None, []
    for number, order in enumerate(
        itertools.chain([[0] * 9], orders(6, 4 if change == "remove" else 5))
    ):
        one, other = hosts()
        digest = f"{number:03x}" + "0" * 45
        if before:
            put(one, digest, b"older")
        start, seen = one.start(digest, None, changing=False), []

        def find(other=other, digest=digest):
            item = other.read(digest, "bytes", fresh=True)
            return item and item.payload

        def make(other=other, digest=digest, seen=seen, find=find):
            again.append(
                other.start(digest, None, changing=True)
            ) if change == "refresh" else other.remove(digest)
            seen.append(find())

        def look(seen=seen, order=order, find=find):
            # A refresh that is not over yet leaves what was there when it began.
            assert not seen or find() in ((None,) if change == "remove" else (None, seen[0])), order

        def write(one=one, digest=digest, start=start):
            return put(one, digest, b"old", start)

        taken = turns.play(order, write, make, look=look)
        steps = steps or taken
        if change == "refresh":
            put(other, digest, b"new", again[-1])
            assert find() == b"new", order
    assert steps[0] <= 6 and steps[1] <= 5, f"there are orders that were not tried: {steps} steps"


def test_the_draft_of_a_refresh_is_not_stored_by_another(hosts, entries):
    """Who was overtaken does not put the draft of a refresh that goes on."""
    one, other = hosts()
    start = one.start("0" * 48, None, changing=False)
    later = other.start("0" * 48, None, changing=True)
    assert put(one, "0" * 48, b"old", start) is False and not entries()
    assert put(other, "0" * 48, b"new", later) is True


def test_the_later_refresh_is_kept_in_any_order_of_the_steps(monkeypatch, hosts):
    """Of two that refresh the one that began later is kept whatever the order of the steps."""
    turns = SweepRound(monkeypatch)
    for number, order in enumerate(orders(6, 6)):
        one, other = hosts()
        digest = f"{number:03x}" + "0" * 45
        starts = [disk.start(digest, None, changing=True) for disk in (one, other)]
        turns.play(
            order,
            *[lambda i=i: put((one, other)[i], digest, b"%d" % i, starts[i]) for i in (0, 1)],
        )
        assert bytes(other.read(digest, "bytes", fresh=True).payload) == b"1", order


def test_what_is_set_is_overwritten_only_in_the_last_moment(monkeypatch, hosts):
    """After the computation's last look, and before its rename."""
    turns, lost = SweepRound(monkeypatch), 0
    for number, order in enumerate(orders(6, 3)):
        one, other = hosts()
        digest = f"{number:03x}" + "0" * 45
        start = one.start(digest, None, changing=False)
        turns.play(
            order,
            lambda: put(one, digest, b"old", start),
            lambda: put(other, digest, b"new"),
        )
        if bytes(other.read(digest, "bytes", fresh=True).payload) == b"old":
            look = max(i for i, step in enumerate(turns.trace) if step == (0, "find"))
            done = turns.trace.index((0, "os.rename"))
            assert look < turns.trace.index((1, "os.rename")) < done, order
            lost += 1
        else:
            start.discard()
    assert lost


def test_two_without_a_claim_do_not_keep_each_other_from_storing(hosts):
    """Else many who waited too long would keep each other from ever storing a result."""
    one, other = hosts()
    first, second = (tier.start("0" * 48, None, changing=False) for tier in (one, other))
    assert put(other, "0" * 48, b"x", second) is True
    assert put(one, "0" * 48, b"y", first) is False  # another's is there since
    first, killed = (tier.start("1" * 48, None, changing=False) for tier in (one, other))
    assert put(one, "1" * 48, b"z", first) is True and killed.has_draft


def test_a_computation_that_forks_puts_its_result_once(root):
    """The child has the draft open too: both would write into one file."""

    @cached(name="f")
    def f(x):
        assert drafts()
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        else:
            status.write_text(str(drafts()))
        return "child" if not pid else "parent"

    def drafts():
        paths = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        return [path for path in paths if path.startswith(f"{root}/") and "/.tmp-" in path]

    ours, status = os.getpid(), root / "child"
    value = f(1)
    if os.getpid() != ours:
        os._exit(0)
    assert status.read_text() == "[]"
    assert (
        value == "parent" and cached(name=f.cache.name, memory=0)(f.__wrapped__).peek(1) == "parent"
    )


def test_under_load_nothing_older_than_a_change_is_seen(tmp_path):
    """Processes and threads change and compute the same few keys, whose truth only grows."""
    truth = [multiprocessing.Value("q", 0) for _ in range(3)]
    wrong = multiprocessing.Value("q", 0)

    def work(k):
        found = truth[k].value
        time.sleep(random.choice([0, 0, 0.001, 0.005]))
        return found

    def run(seed):
        choose = random.Random(seed)
        f = cached(name="f", memory=0, key=lambda k: k)(work)
        changes = [f.invalidate, f.refresh, f.cache.delete, lambda _: f.cache_clear()]
        for _ in range(150):
            k = choose.randrange(3)
            if choose.random() < 0.5:
                f(k)
                continue
            with truth[k].get_lock():
                truth[k].value += 1
                least = truth[k].value
            choose.choice(changes)(k)
            found = f.cache.get(k, fresh=True)
            wrong.value += found is not None and found < least

    def start(seed):
        threads = [threading.Thread(target=run, args=(f"{seed} {i}",)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=start, args=(seed,)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4 and wrong.value == 0


# In one process


def test_caches_of_one_name_may_come_and_go_while_others_change(monkeypatch):
    """In one thread and another; and what is gone leaves nothing."""
    interval, wrong = sys.getswitchinterval(), []
    sys.setswitchinterval(1e-5)

    def work(number):
        for i in range(300):
            try:
                Cache("n", memory=None if number else 0).set(i % 5, i)
            except Exception as error:
                wrong.append(error)

    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    gc.collect()
    assert wrong == [] and disk._tiers == {}


def test_two_caches_of_one_name_see_each_others_changes_at_once(root):
    one, other = Cache("k"), Cache("k", root=root / ".." / root.name)
    one.set("a", 1)
    assert other.get("a") == 1
    one.set("a", 2)
    assert other.get("a") == 2
    one.delete("a")
    assert other.get("a") is None
    other.set("b", 1)
    one.clear()
    assert other.get("b") is None


def test_a_set_in_this_process_is_never_overwritten(monkeypatch):
    """What is set in this process is not even overwritten in the last moment."""
    box, real, calls = Cache("k"), os.rename, []

    def rename(*given, **more):
        if not calls:
            calls.append(1)
            box.set("a", "new")  # the computation has looked, and is about to rename
        return real(*given, **more)

    monkeypatch.setattr(os, "rename", rename)
    assert box.get_or_compute("a", lambda: "old") == "old"
    assert calls == [1] and box.get("a") == box.get("a", fresh=True) == "new"


@pytest.mark.parametrize("change", ["invalidate", "cache_clear"])
def test_a_change_right_after_a_put_keeps_it_out_of_memory(monkeypatch, change):
    """What is changed between a put and its remembering is not remembered."""
    f, g = cached(name="k")(lambda x: [x]), cached(name="k", memory=0)(lambda x: [x])
    real, done = memory.Changes.record, []

    def record(self, digest=None, since=None):
        if since is not None and not done:  # the put is done, and is about to be remembered
            done.append(1)
            getattr(g, change)(*[1] * (change == "invalidate"))
        return real(self, digest, since)

    monkeypatch.setattr(memory.Changes, "record", record)
    assert f(1) == [1] and done and f.cache_info().currsize == 0


def test_of_two_that_set_at_once_memory_has_what_the_mount_has():
    box = Cache("k")

    def work(i):
        for n in range(100):
            box.set("a", [i, n])

    for _ in range(5):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert box.get("a") == box.get("a", fresh=True)


@pytest.mark.parametrize("change", ["invalidate", "delete", "set", "cache_clear"])
def test_memory_forgets_although_the_mount_hangs(monkeypatch, change):
    f = cached(io_timeout=0.2, key=lambda x: x)(lambda x: [x])
    assert f(1) == [1] and f.cache_info().currsize > 0
    gate, calls = threading.Event(), []

    def hang(*_, **__):
        calls.append(1)
        gate.wait(20)
        raise OSError(5, "Input/output error")

    for name in ("refresh", "create_open", "symlink", "look"):
        monkeypatch.setattr(Mount, name, hang)
    {
        "invalidate": f.invalidate,
        "delete": f.cache.delete,
        "set": lambda k: f.cache.set(k, 5),
        "cache_clear": lambda _: f.cache_clear(),
    }[change](*[1] * (change != "cache_clear") or [None])
    assert calls and f.cache_info().currsize == 0
    gate.set()


def test_who_waited_with_another_codec_computes_for_himself():
    class Json:
        name = "json"

        @staticmethod
        def dumps(value):
            return json.dumps(value).encode()

        @staticmethod
        def loads(data):
            return json.loads(bytes(data))

    inside, gate, found = threading.Event(), threading.Event(), []

    def work(x):
        inside.set()
        gate.wait(10)
        return ["a", x]

    f, g = cached(name="k")(work), cached(name="k", codec=Json)(lambda x: ["b", x])
    thread = threading.Thread(target=f, args=(1,))
    thread.start()
    inside.wait(10)
    other = threading.Thread(target=lambda: found.append(g(1)))
    other.start()
    while not [flight for flight in flights._joinable.values() if flight.callbacks]:
        time.sleep(0.01)
    gate.set()
    thread.join(), other.join()
    assert found == [["b", 1]]


def test_a_signals_handler_may_change_what_its_thread_is_at():
    """It comes between any two instructions, even while its thread holds the lock."""
    f = cached(lambda x: x)
    for x in range(10):
        f(x)
    count = [0]

    def handle(*_):
        count[0] += 1
        f.invalidate(count[0] % 10)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        until = time.monotonic() + 60
        while count[0] < 2000 and time.monotonic() < until:
            f(count[0] % 10)
            f.invalidate(count[0] % 7)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count[0] >= 2000


def test_a_task_that_outlives_its_computation_may_join_another():
    """A task that outlives its computation computes nothing itself."""
    calls = []

    @cached
    async def f(x):
        calls.append(x)
        if len(calls) == 1:
            rest.append(asyncio.create_task(later()))
        await asyncio.sleep(0.05)
        return [x]

    async def later():
        await asyncio.sleep(0.2)
        await f.invalidate(1)
        return await asyncio.gather(*[f(1) for _ in range(5)])

    async def main():
        await f(1)
        return await rest[0]

    rest = []
    assert asyncio.run(main()) == [[1]] * 5 and calls == [1, 1]


@pytest.mark.parametrize("options", [{}, {"lock_timeout": 0}])
@pytest.mark.parametrize("call", ["refresh", "__call__"])
def test_every_computation_under_way_is_reached_by_a_change(options, call, entries):
    """Those that nobody waits for, too: a refresh, and one that did not wait."""
    inside, gate = threading.Semaphore(0), threading.Event()

    @cached(name="f", **options)
    def f(x):
        inside.release()
        gate.wait(10)
        return [x]

    threads = [
        threading.Thread(target=f, args=(1,)),
        threading.Thread(target=getattr(f, call), args=(1,)),
    ]
    for thread in threads[: 1 if call == "__call__" and not options else 2]:
        thread.start()
        assert inside.acquire(timeout=10)
    f.invalidate(1)
    gate.set()
    for thread in threads:
        if thread.ident:
            thread.join()
    assert not entries()


@pytest.mark.parametrize("why", ["cache_if", "unencodable", "ttl"])
def test_a_refresh_that_is_not_kept_removes_the_old_result(why, entries):
    """A refresh whose result is not to be kept ends the old one."""
    new = object() if why == "unencodable" else "new"
    tiers = ["old", new, new]
    f = cached(
        name="f",
        cache_if=lambda value: why != "cache_if" or value == "old",
        ttl=lambda value: 0 if why == "ttl" and value == "new" else 60,
    )(lambda: tiers.pop(0))
    assert f() == "old" and f.refresh() is new
    assert not entries() and f() is new


def test_a_refresh_that_fails_leaves_the_old_one():
    tiers = ["old"]
    f = cached(lambda: tiers.pop())  # noqa: PLW0108 - a method of a list has no signature
    assert f() == "old"
    with pytest.raises(IndexError):
        f.refresh()
    assert f() == "old"


def test_add_refuses_what_would_not_come_back():
    box = Cache("box")
    with pytest.raises(EncodeError, match="object"):
        box.add("k", object())
    assert "k" not in box and box.add("k", 1) is True and box.get("k") == 1


def test_a_full_file_system_does_not_bring_a_value_back(monkeypatch):
    """A file system that is full does not bring the replaced value back."""
    box = Cache("box", memory=0)
    box.set("k", "old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Mount, "_write", full)
    box.set("k", "new")
    assert box.get("k") is None


@pytest.mark.parametrize(
    "end", ["kept", "raised", "not kept", "not encoded", "invalidated", "cancelled", "killed"]
)
def test_only_a_killed_process_leaves_its_draft_to_the_sweep(root, end):
    """No draft is left behind but a killed ones which goes with the sweep."""

    @cached(cache_if=lambda value: end != "not kept")
    def f(x):
        assert len(list(root.rglob(".tmp-*"))) == 1
        if end == "killed":
            os.kill(os.getpid(), 9)
        if end == "raised":
            raise ValueError
        if end == "invalidated":
            f.invalidate(1)
        return object() if end == "not encoded" else x

    @cached
    async def g(x):
        await asyncio.sleep(60)

    async def cancel():
        task = asyncio.create_task(g(1))
        while not list(root.rglob(".tmp-*")):  # noqa: ASYNC110 - a file tells no event
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    if end == "cancelled":
        asyncio.run(cancel())
        until = time.monotonic() + 60
        while list(root.rglob(".tmp-*")) and time.monotonic() < until:
            time.sleep(0.01)
    elif end == "killed":
        pid = os.fork()
        if not pid:
            f(1)
        os.waitpid(pid, 0)
        (left,) = root.rglob(".tmp-*")
        assert sweep().reasons == {}
        os.utime(left, (0, 0))
        assert sweep().reasons == {"temporary": 1}
    elif end == "raised":
        with pytest.raises(ValueError, match=r"^$"):
            f(1)
    else:
        f(1)
    assert not list(root.rglob(".tmp-*"))


# What a change must not leave in this process, in the moment that it takes


def gate(monkeypatch, kind, name, thread="other"):
    """Have `kind.name`, called by that thread, wait: return (it is there, let it go on)."""
    there, go_on, real = threading.Event(), threading.Event(), getattr(kind, name)

    def gated(self, *args, **kwargs):
        found = real(self, *args, **kwargs)
        if threading.current_thread().name == thread and not there.is_set():
            there.set()
            assert go_on.wait(30)
        return found

    monkeypatch.setattr(kind, name, gated)
    return there, go_on


def started(function, name="other"):
    thread = threading.Thread(target=function, name=name)
    thread.start()
    return thread


@pytest.mark.parametrize("change", ["invalidate", "delete", "clear"])
def test_a_call_after_a_change_joins_no_earlier_flight(monkeypatch, computing, change):
    """The flight begins after the change has, and reads the result before it is removed."""
    f = cached(name="k", memory=0)(lambda x: "new")
    end = computing("cached(name='k')(work)(1)")
    change_is, go_on = gate(
        monkeypatch,
        *(clearing.ClearStamps, "read") if change == "clear" else (disk.DiskTier, "read_head"),
        "change",
    )
    way = {
        "invalidate": lambda: f.invalidate(1),
        "delete": lambda: puts.remove(f.cache._results, f.cache_key(1)),
        "clear": f.cache_clear,
    }
    changing = started(way[change], "change")
    assert change_is.wait(30)
    flight_is, fly = gate(
        monkeypatch, tiers.TieredCache, "get_from_memory", "flight"
    )  # after its first look, which found nothing
    flying = started(lambda: f(1), "flight")
    assert flight_is.wait(30)
    end()
    found, land = gate(monkeypatch, tiers.TieredCache, "take", "flight")
    fly.set()
    assert found.wait(30)
    told = []
    go_on.set()
    changing.join(30)
    last = started(lambda: told.append(f(1)), "last")
    last.join(1)  # it computes; or, if it were to join, it would wait for the flight
    land.set()
    flying.join(30), last.join(30)
    assert told == ["new"]


def test_what_was_read_before_a_change_is_in_memory_at_no_moment(monkeypatch):
    f = cached(name="k")(lambda x: 1)
    f(1)
    f.cache._results.memory.clear()
    read, go_on = gate(monkeypatch, disk.DiskTier, "read")
    kept, end = gate(monkeypatch, memory.MemoryTier, "put")
    reading = started(lambda: f(1))
    assert read.wait(30)
    f.invalidate(1)
    go_on.set()
    while reading.is_alive() and not kept.is_set():
        reading.join(0.01)
    assert f.cache._results.memory.get(f.cache_key(1)) is None
    end.set()
    reading.join(30)


def test_of_two_clears_at_once_the_later_counts(monkeypatch):
    cache = Cache("k", memory=0)
    cache.set("x", 1)
    written, go_on = gate(monkeypatch, clearing.ClearStamps, "_write")
    first = started(cache.clear)
    assert written.wait(30)
    cache.clear()
    go_on.set()
    first.join(30)
    cache.set("a", "after both")
    assert cache.get("a") == "after both" == cache.get("a", fresh=True)


def test_each_waiter_gets_an_array_of_its_own(computing):
    """Of another process's result, that memory has no room for."""
    import numpy as np

    f = cached(name="k", memory=0)(lambda x: None)
    end = computing("import numpy\ncached(name='k')(lambda x: numpy.zeros(len(work()) * 2**19))(1)")
    got = []
    waiting = [started(lambda: got.append(f(1))) for _ in range(4)]
    while f.cache._results.disk().clears.looked == 0:
        time.sleep(0.01)
    end()
    for thread in waiting:
        thread.join(30)
    got[0][:] = 7
    assert len(got) == 4 and [array[0] for array in got[1:]] == [0, 0, 0]
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(got, 2))


def test_a_signal_handler_may_enter_a_change_of_memory(monkeypatch):
    """A signals handler may change what its thread is changing."""
    f = cached(name="k")(lambda x: x)
    real, nested = memory.MemoryTier.forget, []

    def forget(self, item):
        if not nested:
            nested.append(1)
            f.invalidate(1)  # as a handler that runs here
            nested.append(f.cache._results.get_from_memory(f.cache_key(1)))
        real(self, item)

    monkeypatch.setattr(memory.MemoryTier, "forget", forget)
    f(1)
    f.invalidate(1)  # the handler removed it before
    assert nested == [1, None]
    assert [f(1), f(1), f.refresh(1), f.cache_clear(), f(1), f.invalidate(1)] == [
        1,
        1,
        1,
        None,
        1,
        True,
    ]


def test_memory_that_an_exception_left_half_changed_begins_anew(monkeypatch):
    f, other = cached(name="k")(lambda x: x), cached(name="other")(lambda x: x)
    other(1)

    def forget(self, item):
        raise KeyboardInterrupt

    f(1)
    with monkeypatch.context() as patch:
        patch.setattr(memory.MemoryTier, "forget", forget)
        with pytest.raises(KeyboardInterrupt):
            f.invalidate(1)
    for one in (f, other):
        assert [one(1), one(1), one.refresh(1), one.invalidate(1), one(1)] == [1, 1, 1, True, 1]
        assert one.cache_info().currsize > 0


def test_an_interrupt_between_two_steps_leaves_nothing_behind(root):
    """A signal handler raises at each line of the loop that performs a miss's steps."""
    from efsstate.cache import steps
    from efsstate.mount import byte_locks

    f = cached(name="k")(lambda x: x)
    f(0)
    at, interrupted = 0, True
    while interrupted:
        at, interrupted, lines = at + 1, False, 0

        def trace(frame, event, _):
            nonlocal lines, interrupted
            if frame.f_code is not steps.run.__code__:
                return None
            if event == "line":
                lines += 1
                if lines == at and lines > 6:  # once it has begun
                    interrupted = True
                    raise KeyboardInterrupt
            return trace

        interrupted = at <= 6

        def call(at=at, trace=trace):
            sys.settrace(trace)
            try:
                f(at)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)

        # A thread of its own: where a trace function raises within an `except`, CPython may go on
        # handling that exception for the rest of the thread.
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert not flights.in_flight and not flights._joinable, at
        gc.collect()
        assert not any(file.holders for file in byte_locks._shared_files.values()), at
    assert at > 20  # lines that the loop comes to


def test_a_draft_whose_write_failed_half_way_is_removed(root):
    """On a disk that is full it would keep it full for a day."""
    code = """
import os, resource, signal
from efsstate import cached
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
f = cached(name="k")(lambda x: b"x" * 200_000)
f(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))
assert f(1) == f(2) == b"x" * 200_000 and f.cache_info().errors == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    files = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size]
    assert len([path for path in files if len(path.name) == 48]) == 1 and not [
        path for path in files if path.name.startswith(".tmp-")
    ]


def test_a_refresh_that_can_make_no_file_removes_the_old_result(monkeypatch):
    f = cached(name="k", memory=0)(lambda x: next(numbers))
    numbers = itertools.count()
    assert f(1) == 0 == f(1)

    def full(self, file, folder, name, flags=0):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Mount, "create_open", full)
        assert f.refresh(1) == 1
    assert f(1) == 2


def test_where_nothing_can_be_claimed_each_may_keep_its_result(monkeypatch, root):
    """A draft of another, who computes or was killed, keeps nobody from storing."""
    from efsstate.cache import singleflight

    def no_locks(results, digest):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(singleflight, "_try_claim", no_locks)
    f = cached(name="k", memory=0)(lambda x: x)
    there = f.cache._results.disk()
    theirs = there.start(f.cache_key(1), None, changing=False)
    assert f(1) == 1 and f.cache_info().puts == 1 and theirs.has_draft
    assert [path.name for path in root.rglob(".tmp-*")] == [theirs.draft.name]
    assert put(there, f.cache_key(1), b"late", theirs) is False and f(1) == 1


def test_what_can_not_be_read_is_removed_all_the_same(monkeypatch, entries):
    f = cached(name="k", memory=0)(lambda x: x)
    f(1)

    def broken(self, digest, codec_name):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk.DiskTier, "read_head", broken)
    f.invalidate(1)
    assert entries() == []
