"""Memory: one pool bounded by bytes, and no value that the mount has lost for long."""

import gc
import random
import sys
import threading
import time
import tracemalloc

import pytest
from tests.calls import Calls

from efsstate import Cache, cached
from efsstate.cache import disk, memory


def resize(monkeypatch, size):
    """Have the pool take `size` bytes, and be empty."""
    memory.pool.forget_size()
    monkeypatch.setattr(memory.pool, "_size", size)


@pytest.fixture
def small_pool(monkeypatch):
    resize(monkeypatch, 100_000)


def taken(work):
    """The bytes that `work` leaves in this process's memory."""
    work(range(3))  # what is imported and made once is not meant
    gc.collect()
    tracemalloc.start()
    try:
        work(range(10, 1500))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def held():
    return memory.pool.size


def test_the_pool_is_a_sixteenth_of_the_functions_memory(monkeypatch):
    for size, expected in (("1024", 64 * 2**20), ("512", 32 * 2**20), (None, 64 * 2**20)):
        memory.pool.forget_size()
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", size) if size else monkeypatch.delenv(
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", raising=False
        )
        assert memory.pool.maxsize == expected
    memory.pool.forget_size()


def test_all_caches_together_stay_within_the_pool(small_pool):
    caches = [Cache(f"c{i}") for i in range(3)]
    for i in range(300):
        caches[i % 3].set(i, "x" * 1000)
    assert (
        80_000 < held() <= 100_000 and sum(cache._results.memory.size for cache in caches) == held()
    )


def test_a_caches_cap_holds_and_leaves_the_others_alone(small_pool):
    one, other = Cache("one", memory=10_000), Cache("other")
    other.set("k", "x" * 100)
    for i in range(100):
        one.set(i, "x" * 1000)
    assert (
        one._results.memory.size <= 10_000
        and other._results.memory.get("?") is None
        and other._results.memory.size > 0
    )


def test_what_is_used_stays(small_pool):
    f = cached(name="used")(lambda x: "x" * 1000)
    for i in range(300):
        f("often"), f("often"), f(i)
    before = f.cache_info().memory
    f("often")
    assert f.cache_info().memory == before + 1


def test_a_value_too_large_for_a_quarter_is_not_kept(small_pool):
    f = cached(name="large")(lambda x: "x" * 30_000)
    f(1), f(1)
    assert f.cache_info().memory == 0 and f.cache_info().mount == 1 and held() == 0


def test_the_cost_of_shared_values_is_what_they_take():
    deep = tuple((i, str(i) * 50) for i in range(1000))
    size = memory.immutable_size(deep)
    assert size > sum(sys.getsizeof(text) for _, text in deep)
    for value in ([], {}, set(), bytearray(), ([],), object()):
        assert memory.immutable_size(value) is None


def test_the_plain_arguments_go_with_the_item(small_pool):
    f = cached(name="forms")(lambda x: "x" * 1000)
    for _ in range(2):
        for i in range(500):
            f(i), f(i)
    share = f.cache._results.memory
    assert (
        set(map(id, share.by_args.values())) <= set(map(id, share.by_digest.values()))
        and len(share.by_args) <= len(share.by_digest) * 4
    )
    f.cache_clear()
    assert not share.by_args and not share.by_digest and share.size == 0 and held() == 0


def test_long_arguments_are_not_kept_as_they_are():
    f = cached(name="long")(lambda x: 1)
    for x in ("x" * 1025, b"x" * 1025, "\U0001f600" * 300, 2**9000, 1 + 1j, ((1,),), [1]):
        f(x), f(x)
        assert not f.cache._results.memory.by_args and f.cache_info().memory > 0
    f("x" * 900), f("x" * 900)
    assert len(f.cache._results.memory.by_args) == 1
    g = cached(name="longs")(lambda *parts: 1)
    g(*["x" * 500] * 2), g(*["x" * 500] * 2)
    assert not g.cache._results.memory.by_args and g.cache_info().memory > 0


def remembers(f, *args, **kwargs):
    """Return True if memory serves the call's third time without a digest."""
    f(*args, **kwargs), f(*args, **kwargs)
    with Calls() as calls:
        f(*args, **kwargs)
    return not any("digest_call" in name for name in calls.names)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1.5,), {}),
        (("a", 2.5), {}),
        (((1, "a"),), {}),
        (((),), {}),
        ((("a", 1.5), ("b",)), {}),
        ((), {"x": 1}),
        ((1,), {"y": "b"}),
        ((), {"y": None, "x": 2.5}),
    ],
)
def test_calls_with_plain_arguments_are_remembered(args, kwargs):
    f = cached(name="plain")(lambda x, y=None: (x, y))
    assert remembers(f, *args, **kwargs) and f(*args, **kwargs) == f.__wrapped__(*args, **kwargs)


@pytest.mark.parametrize("value", [((1,),), ([1],), (0.0,), 0.0, -0.0, (1, -0.0)])
def test_calls_that_equality_can_not_tell_apart_are_digested(value):
    f = cached(name="digested")(lambda x: f"{x!r}")
    assert not remembers(f, value)


def test_zeros_of_two_signs_are_two_calls():
    """They are equal, of one type, and not the same argument."""
    f = cached(name="zeros")(lambda x: f"{x!r}")
    for _ in range(3):
        assert f(0.0) == "0.0" and f(-0.0) == "-0.0"
        assert f((0.0, 1)) == "(0.0, 1)" and f((-0.0, 1)) == "(-0.0, 1)"
        assert f(x=0.0) == "0.0" and f(x=-0.0) == "-0.0"


def test_equal_calls_of_other_types_are_not_confused():
    """Each is asked for after all others are remembered."""
    f = cached(name="types")(lambda *parts, **named: repr((parts, sorted(named.items()))))
    calls = [((value,), {}) for value in (1, 1.0, True, "1", b"1", None)]
    calls += [(((value,),), {}) for value in (1, 1.0, True, "1", b"1", None)]
    calls += [((value, value), {}) for value in (1, 1.0, True)]
    calls += [((), {"a": value}) for value in (1, 1.0, True)]
    calls += [((1,), {"a": 1}), ((1, "a"), {}), ((1, "a", 1), {}), ((), {"a": "b", "b": "a"})]
    calls += [((int,), {}), ((), {"a": int}), ((1, 2), {"a": 3}), (((1, 2), 3), {}), ((), {})]
    for _ in range(3):
        for args, kwargs in calls:
            assert f(*args, **kwargs) == f.__wrapped__(*args, **kwargs), (args, kwargs)


def test_a_remembered_result_that_may_change_is_each_callers_own():
    f = cached(name="copied")(lambda x: [x, {"a": [x]}])
    for _ in range(5):
        value = f(1)
        assert value == [1, {"a": [1]}]
        value[1]["a"].append(2)
        value.append(3)
    assert f.cache._results.memory.by_args and f.cache_info().memory == 4


def test_a_remembered_result_that_can_not_be_read_is_computed_again():
    """The codec is the user's: it may raise at any time."""

    class Codec:
        broken = False

        @staticmethod
        def dumps(value):
            return repr(value).encode()

        @classmethod
        def loads(cls, payload):
            if cls.broken:
                raise ValueError("broken")
            return eval(bytes(payload))

    calls = []
    f = cached(name="broken", codec=Codec())(lambda x: calls.append(x) or [x])
    f(1), f(1), f(1)
    assert calls == [1] and f.cache._results.memory.by_args
    Codec.broken = True
    assert f(1) == [1] and calls == [1, 1]


def test_accounts_stay_exact_under_threads(small_pool):
    caches = [Cache("a", memory=20_000), Cache("b")]

    def work(seed):
        choose = random.Random(seed)
        for _ in range(400):
            cache, key = choose.choice(caches), choose.randrange(60)
            choose.choice(
                [
                    lambda: cache.set(key, "x" * choose.randrange(3000)),
                    lambda: cache.get(key),
                    lambda: cache.delete(key),
                    lambda: cache.clear() if choose.random() < 0.02 else None,
                ]
            )()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (
        held()
        == sum(cache._results.memory.size for cache in caches)
        == sum(item.cost for cache in caches for item in cache._results.memory.by_digest.values())
        <= 100_000
    )


@pytest.mark.parametrize("change", ["delete", "set", "clear"])
def test_a_change_elsewhere_shows_within_the_reach(change, monkeypatch, apart):
    """Two caches in one process stand for two hosts: nothing of their memory is shared."""
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    here, there = Cache("k"), Cache("k")
    there.set("k", "old")
    apart()
    assert here.get("k") == "old"
    if change == "set":
        there.set("k", "new")
    elif change == "clear":
        there.clear()
    else:
        there.delete("k")
    assert here.get("k") == "old"  # from memory
    expected = "new" if change == "set" else None
    assert here.get("k", fresh=True) == expected and here.get("k") == expected
    here, there = Cache("k"), Cache("k")
    there.set("k", "old")
    apart()
    assert here.get("k") == "old"
    there.set(
        "k", "new"
    ) if change == "set" else there.clear() if change == "clear" else there.delete("k")
    offset[0] += 2 * disk.MAX_STALENESS + 1
    assert 2 * disk.MAX_STALENESS + 1 < 60 and here.get("k") == expected


def test_a_frozen_environment_asks_again_when_it_wakes(monkeypatch, apart):
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    here, there = Cache("k"), Cache("k")
    there.set("k", "old")
    apart()
    for jump in (3600, -7200):
        there.set("k", "old")
        assert here.get("k", fresh=True) == "old"
        there.set("k", "new")
        offset[0] += jump
        assert here.get("k") == "new"


def test_an_unchanged_entry_is_not_read_again(monkeypatch):
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    Cache("k").set("k", [1])
    here = Cache("k")
    first = here.get("k")
    from efsstate.mount.files import Mount

    offset[0] += 25
    here._results.disk().clear_stamp()
    monkeypatch.setattr(Mount, "read", lambda *a, **k: pytest.fail("it was read again"))
    assert here.get("k") == first


PARTS = {
    "ints": lambda i: (i,),
    "texts": lambda i: (f"{i}" + "x" * 600,),
    "long texts": lambda i: (f"{i}" + "x" * 1000,),
    "wide texts": lambda i: (f"{i}" + "\U0001f600" * 1000,),
    "many": lambda i: tuple(f"{i}-{j}" + "x" * 1000 for j in range(10)),
    "many short": lambda i: tuple(f"{i}-{j}" for j in range(10)),
}


@pytest.mark.parametrize("kind", PARTS)
def test_what_is_kept_of_calls_takes_no_more_than_the_pool(kind, monkeypatch):
    """As the process has it, not as we count it."""
    resize(monkeypatch, 2**19)
    f = cached(name="kept")(lambda *parts: None)

    def work(numbers):
        for i in numbers:
            f(*PARTS[kind](i)), f(*PARTS[kind](i))

    assert taken(work) < 1.15 * 2**19 and f.cache_info().memory > 1000


@pytest.mark.parametrize("of", ["computed", "read"])
def test_an_entry_takes_at_most_600_bytes_besides_its_value(of, another, monkeypatch):
    """Values of 16 characters, 65 bytes each, under texts, which are remembered, too.

    Time stands still: an entry that is read again is removed first, and then a dict grows sooner.
    """
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    f = cached(name="small")(lambda text: text[1:])
    reader = another(f) if of == "read" else f
    count = 1250  # which fill the dicts as far as 5,000 do
    texts = [f"-{i:016}" for i in range(count)]
    for text in ["warm", "warm", *(texts if of == "read" else ())]:
        f(text)
    reader("warm")
    memory.pool.empty()
    reader("warm")
    before_items = len(reader.cache._results.memory.by_digest)
    gc.collect()
    tracemalloc.start()
    try:
        for text in texts * 2:
            reader(text)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(reader.cache._results.memory.by_digest) - before_items == count
    assert taken / count - sys.getsizeof("0" * 16) <= 600
    assert memory._OVERHEAD >= 600


def test_forms_of_one_call_are_counted_too(small_pool):
    f = cached(name="forms")(lambda x, y=None, z=None, w=None: None)
    for i in range(300):
        for args in ((i,), (i, None), (i, None, None), (i, None, None, None)) * 2:
            f(*args)
    share = f.cache._results.memory
    assert held() == share.size == sum(item.cost for item in share.by_digest.values()) <= 100_000
    assert (
        all(
            item.cost > memory._OVERHEAD + sum(map(sys.getsizeof, item.raw_args))
            for item in share.by_digest.values()
        )
        and len(share.by_args) > 100
    )


@pytest.mark.parametrize("look", ["in", "get", "get_many", "add"])
def test_a_look_leaves_no_copy_for_nobody(look, monkeypatch):
    resize(monkeypatch, 2**20)
    Cache("lists", memory=0).set_many({i: [1] * 2000 for i in range(1500)})
    here = Cache("lists")
    ways = {
        "in": lambda i: i in here,
        "get": here.get,
        "get_many": lambda i: here.get_many([i, i]),
        "add": lambda i: here.add(i, 1),
    }

    def work(numbers):
        for i in numbers:
            ways[look](i)

    assert taken(work) < 1.15 * 2**20 and here._results.memory.size > 0


def test_a_map_that_raises_leaves_no_copy_for_nobody():
    f = cached(name="raising")(lambda x: [1 / x])
    f(1), f(2)
    again = cached(name="raising")(f.__wrapped__)
    with pytest.raises(ZeroDivisionError):
        again.map([0, 1, 2])
    items = again.cache._results.memory.by_digest.values()
    assert len(items) == 2 and not any(item.spare_copy for item in items)


def test_a_long_key_takes_no_memory(small_pool):
    """It is part of the entry, and of an entry's meta memory keeps the tags alone."""
    cache = Cache("keys")
    Cache("keys", memory=0).set_many({f"{i}" + "k" * 5000: i for i in range(50)})
    for i in range(50):
        assert cache.get(f"{i}" + "k" * 5000) == i
    items = cache._results.memory.by_digest.values()
    assert len(items) == 50 and not any(item.meta for item in items)
