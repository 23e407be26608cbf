"""`Cache`: a map that every host shares."""

import copy
import datetime as dt
import errno
import gc
import os
import pickle
import shutil
import time

import numpy as np
import pytest
from tests.mount.alarms import Alarm

from efsstate import Cache, EncodeError, RootError, cached, on_event
from efsstate.cache import disk
from efsstate.errors import MountTimeout
from efsstate.format import codec
from efsstate.format.codec import msgpack
from efsstate.mount import byte_locks


@pytest.fixture
def cache():
    return Cache("box")


@pytest.fixture
def elsewhere(cache, apart):
    """As another process has it."""
    cache._results.disk()
    apart()
    other = Cache("box")
    other._results.disk()
    return other


KEYS = [
    "a",
    1,
    1.0,
    True,
    None,
    b"a",
    (1, "a"),
    ("a b", "c"),
    ("a", "b c"),
    frozenset({1, 2}),
    dt.date(2026, 1, 1),
    2**70,
    "é",
    "",
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_any_key_finds_its_own_value_and_no_other(cache, elsewhere, key):
    for i, other in enumerate(KEYS):
        cache.set(other, i)
    for i, other in enumerate(KEYS):
        if other == key and type(other) is type(key):
            assert cache.get(key) == elsewhere.get(key) == i


def test_get_set_delete_contains(cache, elsewhere):
    assert cache.get("k") is None and cache.get("k", 5) == 5 and "k" not in cache
    cache.set("k", None)
    assert cache.get("k", 5) is None and "k" in cache and "k" in elsewhere
    cache.set("k", [1])
    assert cache.get("k") == [1] and elsewhere.get("k", fresh=True) == [1]
    assert cache.delete("k") is True and cache.delete("k") is False
    assert "k" not in cache and elsewhere.get("k", 7, fresh=True) == 7


def test_each_caller_gets_a_copy(cache):
    value = {"a": np.zeros(3)}
    cache.set("k", value)
    value["a"][0] = 1
    cache.get("k")["a"][1] = 1
    assert not cache.get("k")["a"].any()


def test_add_keeps_only_what_is_not_there(cache, elsewhere):
    assert cache.add("k", 1) is True
    assert cache.add("k", 2) is False and elsewhere.add("k", 3) is False
    assert cache.get("k") == 1
    cache.delete("k")
    assert elsewhere.add("k", 4) is True and cache.get("k") == 4


def test_add_keeps_a_value_that_came_meanwhile(cache, elsewhere, monkeypatch):
    def find_and_interfere(*_, **__):
        elsewhere.set("k", 1)

    monkeypatch.setattr(cache, "_find", find_and_interfere)
    assert cache.add("k", 2) is False and elsewhere.get("k", fresh=True) == 1


def test_where_the_mount_cannot_lock_add_keeps_nothing(cache, monkeypatch):
    """Else two hosts add, and each goes on as the one."""

    def fail(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(byte_locks, "acquire", fail)
        assert cache.add("k", 1) is False
    assert "k" not in cache and cache.add("k", 2) is True


def test_what_add_does_not_keep_is_nowhere(cache, root):
    """Else this process alone would go on with a value, and the next `add` would replace it."""
    cache.add("k", 1)
    shutil.rmtree(root)
    assert [cache.add("y", 1), cache.get("y"), cache.add("y", 2), cache.get("y")] == [
        False,
        None,
        False,
        None,
    ]


def test_one_of_many_processes_adds(cache, tmp_path):
    import os

    for _ in range(5):
        pids = []
        for _ in range(8):
            if not (pid := os.fork()):
                os._exit(Cache("box").add("k", os.getpid()))
            pids.append(pid)
        assert sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids) == 1
        assert cache.delete("k")


def test_ttl_of_the_cache_and_of_a_value(monkeypatch):
    real, offset = time.time, [0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    cache = Cache("short", ttl="1m")
    cache.set("default", 1)
    cache.set("shorter", 1, ttl=10)
    cache.set("longer", 1, ttl="1h")
    assert cache.add("added", 1, ttl="1h")
    cache.set("none", 1, ttl=0)
    assert "none" not in cache and "shorter" in cache
    offset[0] = 11
    assert "shorter" not in cache and "default" in cache
    offset[0] = 61
    assert "default" not in cache and sorted(cache.keys()) == ["added", "longer"]
    offset[0] = 3601
    assert list(cache.keys()) == []
    with pytest.raises(ValueError, match="ttl"):
        cache.set("k", 1, ttl=-1)


def test_clear_forgets_everything_here_at_once(cache, elsewhere):
    cache.set_many({i: i for i in range(20)})
    cache.clear()
    assert cache.get_many(range(20)) == {} and list(cache.keys()) == [] and elsewhere.get(1) is None
    cache.set(1, "new")
    assert cache.get(1) == elsewhere.get(1, fresh=True) == "new" and list(cache.keys()) == [1]


def test_keys_gives_every_key_that_can_be_stored(cache):
    cache.set_many(dict.fromkeys(KEYS, 1))
    cache.set(np.zeros(3), 1)  # a key all the same, but not one that is listed
    assert sorted(map(repr, cache.keys())) == sorted({repr(key) for key in dict.fromkeys(KEYS, 1)})
    assert cache.get(np.zeros(3)) == 1


def test_many_at_once(cache, elsewhere):
    cache.set_many({i: [i] for i in range(100)})
    assert elsewhere.get_many(range(50, 150)) == {i: [i] for i in range(50, 100)}
    assert cache.get_many([]) == {} and cache.get_many(iter([3])) == {3: [3]}


def test_many_keys_that_one_dict_can_not_hold_are_refused(cache):
    cache.set(1, "int"), cache.set(True, "bool")
    for keys in ([1, True], [1.0, 1], [("a", 1), ("a", True)]):
        with pytest.raises(ValueError, match="one dict can't hold both"):
            cache.get_many(keys)
    assert cache.get_many([1, 1]) == {1: "int"} and cache.get_many([True]) == {True: "bool"}


def test_what_is_no_function_and_no_dict_is_refused_at_once(cache):
    cache.set("k", 1)
    for key in ("k", "other"):
        with pytest.raises(TypeError, match="get_or_compute: a function is needed, not 5"):
            cache.get_or_compute(key, 5)
    with pytest.raises(
        TypeError, match=r"set_many: a dict of keys and values is needed, not \[1, 2\]"
    ):
        cache.set_many([1, 2])


def test_get_or_compute_computes_once_and_keeps(cache, elsewhere):
    calls = []

    def work():
        calls.append(1)
        return [len(calls)]

    assert (
        cache.get_or_compute("k", work)
        == cache.get_or_compute("k", work)
        == elsewhere.get_or_compute("k", work)
        == [1]
    )
    assert list(cache.keys()) == ["k"]
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("bad", lambda: 1 / 0)
    assert "bad" not in cache


def test_what_would_not_come_back_is_refused_by_set(cache):
    for value in (object(), {1: object()}):
        with pytest.raises(EncodeError, match="codec='pickle'"):
            cache.set("k", value)
        with pytest.raises(EncodeError):
            cache.set_many({"a": 1, "k": value})
    assert "k" not in cache


def test_a_key_without_a_stable_form_is_a_type_error(cache):
    for call in (
        cache.get,
        cache.delete,
        cache.__contains__,
        lambda key: cache.set(key, 1),
        lambda key: cache.get_many([key]),
    ):
        with pytest.raises(TypeError, match="can't be part of a key"):
            call(object())


def test_codecs(root):
    import collections

    odd = Cache("odd", codec="pickle")
    odd.set("k", collections.Counter("aab"))
    assert Cache("odd", codec="pickle").get("k") == collections.Counter("aab")
    assert Cache("odd").get("k") is None  # another codec's: nothing of it runs

    class Mine:
        dumps, loads = staticmethod(pickle.dumps), staticmethod(pickle.loads)

    Cache("mine", codec=Mine()).set("k", {1})
    assert (
        Cache("mine", codec=Mine()).get("k") == {1}
        and Cache("mine", codec="pickle").get("k") is None
    )


def test_a_value_of_another_codec_is_not_lost():
    """It can't be read, and there is one all the same."""
    other, cache = Cache("odd", codec="pickle"), Cache("odd")
    other.set("k", 5)
    assert not cache.add("k", 1) and not cache.touch("k", "1h")
    for change in (cache.incr, cache.pop):
        with pytest.raises(ValueError, match="a value of the codec 'pickle' is there"):
            change("k")
    assert other.get("k", fresh=True) == 5
    cache.delete("k")
    assert cache.add("k", 1) and cache.incr("k") == 2


def test_an_addition_of_no_time_is_a_success_if_there_is_no_value(cache):
    assert cache.add("k", 1, ttl=0) and "k" not in cache
    cache.set("k", 2)
    assert not cache.add("k", 1, ttl=0) and cache.get("k") == 2


def test_names_that_look_like_paths_stay_below_the_root(root, tmp_path):
    for name in ("../../escape", "/etc/x", "a/b", "A", "a", "é" * 300, ".hidden"):
        Cache(name).set("k", name)
    for name in ("../../escape", "/etc/x", "a/b", "A", "a", "é" * 300, ".hidden"):
        assert Cache(name).get("k") == name
    assert [path.name for path in tmp_path.iterdir()] == ["root"] and len(
        list((root / "cache").iterdir())
    ) == 7


def test_events_are_told_of_a_map_too(cache):
    from efsstate import on_event

    seen = []
    end = on_event(lambda record: seen.append((record["event"], record["name"])))
    cache.get("k"), cache.set("k", 1), cache.get("k"), cache.get("k", fresh=True)
    end()
    assert seen == [(event, "box") for event in ("miss", "put", "hit", "hit")]


def test_disabled_it_forgets_everything(monkeypatch, root):
    monkeypatch.setenv("EFSSTATE_DISABLE", "true")
    cache = Cache("box")
    cache.set("k", 1), cache.clear()
    assert (
        cache.get("k", 5) == 5
        and "k" not in cache
        and not cache.delete("k")
        and not cache.add("k", 1)
    )
    assert (
        cache.get_many(["k"]) == {}
        and list(cache.keys()) == []
        and cache.get_or_compute("k", lambda: 9) == 9
    )
    with pytest.raises(TimeoutError, match="incr needs the mount, and EFSSTATE_DISABLE is set"):
        cache.incr("k")
    assert list(root.iterdir()) == []


@pytest.fixture
def told():
    """A function that returns (event, bytes, level) of each event so far."""
    seen = []
    end = on_event(seen.append)

    def look():
        assert all(record["name"] == "box" and record["seconds"] >= 0 for record in seen)
        found = [(record["event"], record.get("bytes"), record.get("level")) for record in seen]
        seen.clear()
        return found

    yield look
    end()


def test_every_value_of_many_at_once_is_reported(cache, elsewhere, told):
    cache.set_many({1: "one", 2: "two"})
    assert [(event, size > 0) for event, size, _ in told()] == [("put", True)] * 2
    cache.set(3, "three")
    assert [(event, size > 0) for event, size, _ in told()] == [("put", True)]
    assert elsewhere.get(1) == "one" and told()[0][0] == "hit"
    assert len(elsewhere.get_many([1, 2, 3, 4])) == 3
    found = told()
    assert [(event, level) for event, _, level in found] == [
        ("hit", "memory"),
        ("hit", "mount"),
        ("hit", "mount"),
        ("miss", None),
    ]
    assert all(size > 0 for event, size, _ in found if event == "hit")


@pytest.mark.parametrize("is_async", [False, True])
def test_every_result_of_a_map_is_told(told, is_async):
    import asyncio

    async def later(x):
        return x

    f = cached(name="box")(later if is_async else lambda x: x)
    run = (lambda items: asyncio.run(f.map(items))) if is_async else f.map
    run([1, 2])
    assert sorted(event for event, _, _ in told()) == ["miss", "miss", "put", "put"]
    f.cache._results.memory.drop(f.cache_key(2))
    run([1, 2])
    found = told()
    assert sorted((event, level) for event, _, level in found) == [
        ("hit", "memory"),
        ("hit", "mount"),
    ] and all(size > 0 for _, size, _ in found)


def test_one_computation_is_one_miss(cache, told):
    assert cache.get_or_compute("a", lambda: 1) == 1 and cache.add("b", 1) is True
    assert [event for event, _, _ in told()] == [
        "miss",
        "put",
    ] * 2 and cache._results.counts.computed == 2
    assert cache.get("c") is None
    assert [event for event, _, _ in told()] == ["miss"] and cache._results.counts.computed == 3


def test_of_many_values_those_that_can_be_encoded_are_kept(cache, elsewhere):
    with pytest.raises(EncodeError):
        cache.set_many({"bad": object()} | {i: i for i in range(50)} | {"worse": object()})
    assert len(elsewhere.get_many(range(50))) == 50


def test_a_copy_is_the_cache_itself_and_it_is_not_pickled(cache):
    """A second one, with the same descriptors, would close them at its end."""
    cache.set("k", 1)
    assert copy.copy(cache) is copy.deepcopy([cache])[0] is cache
    f = cached(name="box")(lambda x: x)
    assert copy.deepcopy({"f": f})["f"](1) == 1 and f.cache_info().misses == 1
    mount = cache._results.disk().mount
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cop"):
            duplicate(mount)
    with pytest.raises(TypeError, match=r"Cache\('box'\) can't be pickled"):
        pickle.dumps(cache)
    gc.collect()
    assert os.fstat(mount._top.fd).st_nlink


def test_a_root_that_is_removed_and_made_anew_is_used_again(cache, root):
    import shutil

    cache.set("k", 1)
    shutil.rmtree(root)
    lonely = Cache("box", memory=0)
    lonely.set("k", 2)
    assert (
        not root.exists() and lonely._results.counts.puts == 0
    )  # a mount point that is missing is not ours to make
    root.mkdir()
    before = cache._results.counts.errors
    cache.set("k", 3)
    assert (
        lonely.get("k") == Cache("box", memory=0).get("k") == 3
        and cache._results.counts.errors == before
    )


# More than get and set


def test_pop_gives_a_value_to_one_caller(cache, elsewhere):
    cache.set("k", [1])
    assert elsewhere.pop("k") == [1] and "k" not in elsewhere
    assert cache.pop("k", 5) == 5 and cache.get("k", fresh=True) is None
    with pytest.raises(KeyError, match="k"):
        cache.pop("k")


def test_of_many_processes_one_pops(cache):
    for _ in range(3):
        cache.set("k", 1)
        assert sum(forked(8, lambda: Cache("box").pop("k", 0))) == 1


def forked(count, work):
    """The exit codes of `count` children, each of which does the work."""
    pids = []
    for _ in range(count):
        if not (pid := os.fork()):
            os._exit(work() or 0)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_touch_lets_a_value_live_on(cache, elsewhere, later):
    for key in ("touched", "left"):
        cache.set(key, [key], ttl=60)
    assert not cache.touch("missing") and "missing" not in cache
    assert elsewhere.touch("touched", ttl="1h") and elsewhere.get("touched") == ["touched"]
    later(61)
    assert cache.get("touched", fresh=True) == ["touched"] and "left" not in elsewhere
    assert not cache.touch("left")
    assert sorted(cache.keys()) == ["touched"]
    assert cache.touch("touched", ttl=0) and "touched" not in cache  # as `set` with a ttl of 0
    assert not cache.touch("touched", ttl=0)


def test_incr_counts_from_nothing_by_any_step(cache, elsewhere):
    assert [cache.incr("n"), cache.incr("n"), elsewhere.incr("n", 5), cache.incr("n", -2)] == [
        1,
        2,
        7,
        5,
    ]
    assert cache.get("n") == elsewhere.get("n", fresh=True) == 5 and cache.incr("n", 2**70) > 2**70
    cache.set("text", "5")
    for delta in (1.5, "2", None):
        with pytest.raises(TypeError, match="incr by what is no int"):
            cache.incr("n", delta)
    assert type(cache.incr("numpy", np.int64(2))) is int and cache.incr("numpy") == 3
    assert cache.incr("numpy", ttl=0) == 4 and "numpy" not in cache  # as `set` with a ttl of 0
    with pytest.raises(TypeError, match="no int: '5'"):
        cache.incr("text")
    assert cache.get("text") == "5"


def test_incr_is_exact_across_processes_and_threads(cache):
    def work():
        import threading

        def add():
            for _ in range(10):
                Cache("box").incr("n")

        threads = [threading.Thread(target=add) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert forked(4, work) == [0] * 4
    assert cache.get("n", fresh=True) == 4 * 3 * 10


def test_incr_loses_no_set_that_comes_meanwhile(cache, monkeypatch):
    """A sum of the value before it would undo the set."""
    results = cache._results
    read, interfered = type(results).read_for_change, []

    def read_and_interfere(self, digest, **options):
        item = read(self, digest, **options)
        if not interfered:
            interfered.append(1)
            Cache("box").set("n", 100)
        return item

    cache.set("n", 1)
    monkeypatch.setattr(type(results), "read_for_change", read_and_interfere)
    assert cache.incr("n") == 101 and interfered and cache.get("n", fresh=True) == 101


@pytest.mark.parametrize("call", ["open", "writev", "rename"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_sum_that_cannot_be_stored_leaves_the_number(cache, elsewhere, monkeypatch, call, error):
    """Else the next incr would count from nothing, and touch would remove what it is to keep."""
    cache.set("n", 41, tags=["t"])
    real, is_failing = getattr(os, call), True

    def fail(*arguments, **options):
        is_draft = call != "open" or (options.get("flags") or arguments[1]) & os.O_CREAT
        if is_failing and is_draft and "LOCK" not in str(arguments[0]):
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, fail)
    for change in (cache.incr, cache.touch):
        try:
            assert not change("n"), f"{change.__name__} said that it was done"
        except (KeyboardInterrupt, MountTimeout):
            pass
    is_failing = False
    assert elsewhere.get("n", fresh=True) == cache.get("n") == 41
    assert [cache.incr("n"), elsewhere.incr("n")] == [42, 43]
    cache.invalidate_tag("t")
    assert cache.get("n") is None


def unreadable(*_, **__):
    raise OSError(errno.EIO, "Input/output error")


def test_what_cannot_be_read_is_not_replaced(cache, elsewhere, monkeypatch):
    """Else `incr` counts from nothing after one failed read, and `pop` says that there is none."""
    cache.set("n", 41)
    with monkeypatch.context() as patch:
        patch.setattr(disk.DiskTier, "read", unreadable)
        for change in (cache.incr, lambda key: cache.incr(key, ttl=0), cache.pop):
            with pytest.raises(OSError, match="Input/output error"):
                change("n")
        assert cache.touch("n") is False and cache.add("n", 0) is False
    assert elsewhere.get("n", fresh=True) == 41 and cache.incr("n") == 42


def test_what_cannot_be_decoded_is_not_replaced(monkeypatch):
    class Codec:
        name = "mine"
        dumps = staticmethod(pickle.dumps)
        loads = staticmethod(pickle.loads)

    box = Cache("mine", codec=Codec, memory=0)
    box.set("n", 41)
    with monkeypatch.context() as patch:
        patch.setattr(box._results, "loads", lambda _: codec.loads(b"\xc1"))
        for change in (box.incr, box.pop):
            with pytest.raises(ValueError, match="its payload can't be read"):
                change("n")
        assert box.touch("n") is False and box.add("n", 0) is False
    assert box.incr("n") == 42 and box.pop("n") == 42


def test_of_a_damaged_number_nothing_is_left_to_lose(cache, elsewhere, entries, caplog):
    cache.set("n", 41)
    (path,) = entries()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert elsewhere.incr("n") == 1 and "checksum" in caplog.text


def test_pop_gives_only_what_it_has_removed(cache, elsewhere, monkeypatch):
    """Else two callers get it."""
    cache.set("n", 41)
    with monkeypatch.context() as patch:
        patch.setattr(disk.DiskTier, "remove", unreadable)
        with pytest.raises(OSError, match="Input/output error"):
            cache.pop("n")
    assert elsewhere.pop("n") == 41 and cache.pop("n", None) is None


def test_a_handler_that_raises_loses_no_count(cache, monkeypatch):
    """A number is decoded as an alarm rings: it does not begin anew as if it were damaged."""
    unpack, rings = msgpack._unpack, [Alarm]

    def unpack_and_ring(*arguments, **options):
        number = unpack(*arguments, **options)
        if rings:
            raise rings.pop()
        return number

    cache.set("n", 41)
    monkeypatch.setattr(msgpack, "_unpack", unpack_and_ring)
    with pytest.raises(Alarm):
        cache.incr("n")
    assert cache.incr("n") == 42


def test_where_the_mount_fails_incr_does_not_go_on(cache, root):
    shutil.rmtree(root)
    root.touch()
    with pytest.raises(RootError, match="not a directory"):
        cache.incr("n")


def test_info_counts_as_cache_info_does(cache):
    cache.get("k"), cache.set("k", "v"), cache.get("k"), cache.get("k", fresh=True)
    info = cache.info()
    assert (info.hits, info.misses, info.puts, info.memory, info.mount) == (2, 1, 1, 1, 1)
    assert info.currsize > 0 and info._fields == cached(len).cache_info()._fields


def test_a_lock_excludes_processes_and_threads(cache, root):
    import threading

    path = root.parent / "log"
    path.touch()

    def work():
        def enter():
            for _ in range(5):
                with Cache("box").lock("k"):
                    with path.open("a") as file:
                        file.write("in\n")
                    time.sleep(0.002)
                    with path.open("a") as file:
                        file.write("out\n")

        threads = [threading.Thread(target=enter) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert forked(3, work) == [0] * 3
    assert path.read_text() == "in\nout\n" * 30


def test_a_lock_is_of_its_key_and_is_waited_for(cache):
    import threading

    errors = []

    def wait():
        try:
            with cache.lock("k", wait=0.05):
                errors.append(None)
        except TimeoutError as error:
            errors.append(str(error))

    with cache.lock("k"), cache.lock("other"), cache.lock("k"):  # again in this thread
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        cache.set("k", 1)
        assert cache.get_or_compute("new", lambda: 2) == 2
    wait()
    assert errors == ["Cache('box'): 'k': timed out waiting for the lock; pass wait=", None]


def test_a_lock_of_a_process_that_dies_is_free(cache):
    def work():
        cache.lock("k").__enter__()
        os._exit(0)

    assert forked(1, work) == [0]
    with cache.lock("k", wait=5):
        pass
