"""What is changed while its old value is being computed, or read, stays changed: in one process, and between hosts."""

import itertools
import os
import subprocess
import sys
import threading

import pytest

from efsstate import Cache, EncodeError, cached
from efsstate.cache import shelf
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
    """A process that is computing "old", with this call; its end is awaited by calling what this gives."""
    started = []

    def start(call):
        process = subprocess.Popen([sys.executable, "-c", COMPUTER.format(call=call)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
def test_what_another_process_was_computing_when_it_was_invalidated_is_not_kept(computing, call, before, entries):
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


@pytest.mark.parametrize("change", ["set", "set and expired", "delete"])
def test_a_value_that_was_set_or_deleted_is_not_undone_by_what_began_before(computing, change):
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


class Turns:
    """Has threads take single steps on the mount, in the order that is asked for."""

    STEPS = ("_write", "symlink", "stat", "rename", "remove", "refresh")

    def __init__(self, monkeypatch):
        self.gates = {}
        self.trace = []  # (whose, which) step
        for name in self.STEPS:
            monkeypatch.setattr(Mount, name, self._gated(name, getattr(Mount, name)))

    def _gated(self, name, real):
        def step(mount, *args, **options):
            gates = self.gates.get(threading.get_ident())
            if gates is not None:
                who, arrived, may = gates
                arrived.release()
                assert may.acquire(timeout=20)
                self.trace.append((who, name))
            return real(mount, *args, **options)

        return step

    def play(self, order, *actions):
        """Do the actions, the next step of the one that `order` names at a time; how many steps each took."""
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
        for thread in threads:
            thread.join()
        assert not errors, errors
        return taken


def orders(first, second):
    """All in which so many steps of 0 and so many of 1 can come."""
    for places in itertools.combinations(range(first + second), second):
        yield [int(i in places) for i in range(first + second)]


@pytest.fixture
def hosts(apart):
    """Two hosts' shelves of one namespace."""

    def make():
        from efsstate.mount import root

        apart()
        one = shelf.find(root.resolve(), "k")
        apart()
        return one, shelf.find(root.resolve(), "k")

    return make


@pytest.mark.parametrize("before", [False, True])
def test_a_removal_is_never_undone_whatever_the_order_of_the_steps(monkeypatch, hosts, before):
    """The computation began before the removal did: in no order of what follows may its result be there at the end."""
    turns, tried = Turns(monkeypatch), 0
    steps = None
    for order in itertools.chain([[0] * 9], orders(7, 5)):
        one, other = hosts()
        digest = f"{tried:03x}" + "0" * 45
        tried += 1
        if before:
            one.write(digest, b"older", codec_name="bytes", ttl=None, generation=0)
        else:
            one.mount.ask_time(one._folders["0"])  # a claim makes the folder
        start = one.start(digest)
        taken = turns.play(
            order,
            lambda: one.write(digest, b"old", codec_name="bytes", ttl=None, generation=0, start=start),
            lambda: other.remove(digest),
        )
        steps = steps or taken
        assert other.read(digest, "bytes", fresh=True) is None, order
    assert steps[0] <= 7 and steps[1] <= 5, f"there are orders that were not tried: {steps} steps"


def test_a_value_that_is_set_is_never_lost_with_what_is_taken_back(monkeypatch, hosts):
    """A removal, then a set, while an older computation ends: what was set is there, or (in the last moment) the older."""
    turns, lost = Turns(monkeypatch), 0
    for number, order in enumerate(orders(7, 3)):
        one, other = hosts()
        digest = f"{number:03x}" + "0" * 45
        one.mount.ask_time(one._folders["0"])
        start = one.start(digest)
        turns.play(
            order,
            lambda: one.write(digest, b"old", codec_name="bytes", ttl=None, generation=0, start=start),
            lambda: other.write(digest, b"new", codec_name="bytes", ttl=None, generation=0),
        )
        found = other.read(digest, "bytes", fresh=True)
        assert found is not None, order
        if bytes(found.payload) == b"old":
            (done,) = [i for i, step in enumerate(turns.trace) if step == (0, "rename")]
            look = max(i for i, step in enumerate(turns.trace[:done]) if step == (0, "stat"))
            assert look < turns.trace.index((1, "rename")) < done, order
            lost += 1
    assert lost


# In one process


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


@pytest.mark.parametrize("options", [{}, {"lock_timeout": 0}])
@pytest.mark.parametrize("call", ["refresh", "__call__"])
def test_every_computation_under_way_is_reached_by_a_change(options, call, entries):
    """Those that nobody waits for, too: a refresh, and one that did not wait."""
    inside, gate = threading.Semaphore(0), threading.Event()

    @cached(**options)
    def f(x):
        inside.release()
        gate.wait(10)
        return [x]

    threads = [threading.Thread(target=f, args=(1,)), threading.Thread(target=getattr(f, call), args=(1,))]
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
def test_a_refresh_whose_result_is_not_to_be_kept_ends_the_old_one(why, entries):
    new = object() if why == "unencodable" else "new"
    results = ["old", new, new]
    f = cached(cache_if=lambda value: why != "cache_if" or value == "old", ttl=lambda value: 0 if why == "ttl" and value == "new" else 60)(lambda: results.pop(0))
    assert f() == "old" and f.refresh() is new
    assert not entries() and f() is new


def test_a_refresh_that_fails_leaves_the_old_one():
    results = ["old"]
    f = cached(lambda: results.pop())
    assert f() == "old"
    with pytest.raises(IndexError):
        f.refresh()
    assert f() == "old"


def test_add_refuses_what_would_not_come_back():
    box = Cache("box")
    with pytest.raises(EncodeError, match="object"):
        box.add("k", object())
    assert "k" not in box and box.add("k", 1) is True and box.get("k") == 1


def test_a_file_system_that_is_full_does_not_bring_the_replaced_value_back(monkeypatch):
    box = Cache("box", memory=0)
    box.set("k", "old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Mount, "_write", full)
    box.set("k", "new")
    assert box.get("k") is None


def test_marks_are_few_and_go_with_the_sweep(root):
    from efsstate import sweep

    box = Cache("box")
    box.set_many({i: i for i in range(50)})
    for _ in range(3):
        for i in range(50):
            box.delete(i)
            box.set(i, i)
    marks = list(root.rglob(".tmp-changed-*"))
    assert 1 < len(marks) <= 50 and all(mark.is_symlink() for mark in marks)
    assert sweep().reasons.get("temporary", 0) == 0
    for mark in marks:
        os.utime(mark, (0, 0), follow_symlinks=False)
    assert sweep().reasons["temporary"] == len(marks) and sorted(box.keys()) == list(range(50))
