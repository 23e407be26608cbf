"""aiocache: its own acceptance tests on our cache, and what they leave out."""

import asyncio
import enum
import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest

aiocache = pytest.importorskip("aiocache", reason="pip install aiocache")

from aiocache.lock import OptimisticLock, OptimisticLockError, RedLock  # noqa: E402

from efsstate.adapters.aiocache import EfsCache  # noqa: E402
from efsstate.cache.cache import Cache  # noqa: E402
from efsstate.mount.files import Mount  # noqa: E402


def run(function):
    """The coroutine function's result, given a cache."""

    async def main():
        async with EfsCache(namespace="test") as cache:
            return await function(cache)

    return asyncio.run(main())


CONFTEST = """
import pytest
from efsstate.adapters.aiocache import EfsCache


@pytest.fixture
async def cache():
    async with EfsCache(namespace="test") as cache:
        await cache.clear()
        yield cache
"""
# The other modules and classes are of the other backends.
TESTS = ["test_base.py::TestCache", "test_lock.py::TestRedLock", "test_lock.py::TestOptimisticLock"]


@pytest.mark.heavy
def test_aiocaches_own_tests_pass(source_package, environment):
    pytest.importorskip("pytest_asyncio")
    pytest.importorskip("pytest_mock")
    folder = source_package(f"aiocache=={version('aiocache')}", "aiocache-*")
    shutil.rmtree(f"{folder}/aiocache")  # the installed one is tested
    os.unlink(f"{folder}/setup.cfg")
    with open(f"{folder}/tests/acceptance/conftest.py", "w") as file:
        file.write(CONFTEST)
    process = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
            "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function",
            *(f"tests/acceptance/{name}" for name in TESTS),
        ],
        cwd=folder, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert "36 passed" in process.stdout, process.stdout


def test_values_keep_their_types():
    async def use(cache):
        await cache.set("key", {"a": {1, 2}, "b": (1,)}, ttl=60)
        await cache.multi_set([("x", 1), ("y", None)])
        return await cache.get("key"), await cache.multi_get(["x", "y", "z"])

    assert run(use) == ({"a": {1, 2}, "b": (1,)}, [1, None, None])


def test_the_decorator_computes_once():
    calls = []

    @aiocache.cached(cache=EfsCache, key="price", name="shop")
    async def price():
        calls.append(1)
        return 7

    async def use():
        return [await price() for _ in range(3)]

    assert asyncio.run(use()) == [7, 7, 7] and calls == [1]
    assert Cache("shop").get("price") == 7


def test_a_clear_of_a_namespace_leaves_the_others():
    async def use(cache):
        await cache.set("key", 1)
        await cache.set("key", 2, namespace="other")
        await cache.clear(namespace="test")
        kept = await cache.get("key", namespace="other")
        return await cache.get("key"), kept

    assert run(use) == (None, 2)


def test_a_lock_lets_one_compute():
    """Many times: a task that adds or releases in another's turn would wait for no event."""

    async def use(cache):
        calls = []

        async def compute(key):
            async with RedLock(cache, key, lease=20):
                value = await cache.get(key)
                if value is None:
                    calls.append(key)
                    await cache.set(key, value := 5)
                return value

        for key in map(str, range(20)):
            assert await asyncio.gather(*(compute(key) for _ in range(5))) == [5] * 5
        return calls

    assert run(use) == [str(number) for number in range(20)]


def test_an_optimistic_lock_sees_anothers_set():
    async def use(cache):
        await cache.set("key", 1)
        async with OptimisticLock(cache, "key") as lock:
            Cache("aiocache").set(cache.build_key("key"), 2)  # as another host
            with pytest.raises(OptimisticLockError):
                await lock.cas(3)
        async with OptimisticLock(cache, "key") as lock:
            await lock.cas(4)
        return await cache.get("key")

    assert run(use) == 4


def same(function, **options):
    """What the coroutine function returns, given our cache; aiocache's own must agree."""
    ours = run(lambda _: function(EfsCache(**options)))
    assert ours == run(lambda _: function(aiocache.SimpleMemoryCache(**options)))
    return ours


def test_an_increment_leaves_the_ttl():
    """Rate limiters count on it."""
    results = Cache("aiocache").results

    def seconds(key):
        digest = Cache("aiocache").digest(f"test{key}")
        return results.remaining(results.read(digest, exact=True))

    async def use(cache):
        await cache.set("set", 1, ttl=3600)
        await cache.add("add", 1, ttl=3600)
        await cache.multi_set([("multi_set", 1)], ttl=3600)
        await cache.increment("expire")
        assert seconds("expire") == float("inf")
        await cache.expire("expire", 3600)
        for key in ("set", "add", "multi_set", "expire"):
            assert await cache.increment(key) == 2
            assert 0 < seconds(key) <= 3600, key
        await cache.expire("expire", 0)
        assert await cache.increment("expire") == 3 and seconds("expire") == float("inf")

    run(use)


def test_a_counter_is_what_int_makes_a_number_of():
    async def use(cache):
        answers = []
        for value in ("5", 1.5, True, 7, None, [1], "five"):
            await cache.set("n", value)
            for delta in (1, -2, 0.5):
                try:
                    answers.append(await cache.increment("n", delta))
                except TypeError:
                    answers.append("TypeError")
            answers.append(await cache.get("n"))
        return answers

    assert same(use)[:4] == [6, 4, 4.5, 4.5]


def test_a_number_that_json_wrote_counts():
    async def use(cache):
        await cache.set("n", 5)
        return await cache.increment("n")

    assert same(use, serializer=aiocache.serializers.JsonSerializer()) == 6


def test_a_negative_ttl_is_over():
    async def use(cache):
        answers = []
        for ttl in (-1, -0.5):
            await cache.set("key", 1)
            answers.append(await cache.set("key", 2, ttl=ttl))
            answers.append(await cache.multi_set([("a", 1), ("b", 2)], ttl=ttl))
            await asyncio.sleep(0)
            answers.append(await cache.multi_get(["key", "a", "b"]))
            answers.append(await cache.add("key", 1, ttl=ttl))
            await asyncio.sleep(0)
            answers.append(await cache.get("key"))
            await cache.set("key", 1)
            with pytest.raises(ValueError, match="already exists"):
                await cache.add("key", 2, ttl=ttl)
            answers.append(await cache.expire("key", ttl))
            await asyncio.sleep(0)
            answers.append(await cache.exists("key"))
        return answers

    same(use)


class Key(str, enum.Enum):  # noqa: UP042 - its str() is not its text
    CART = "cart"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("namespace", [None, "shop:"])
def test_a_key_of_a_subclass_of_str_is_its_text(namespace):
    async def use(cache):
        answers = []
        for key in (Key.CART, Text("cart"), "cart"):
            await cache.set("cart", 1)
            answers += [await cache.get(key), await cache.exists(key), await cache.increment(key)]
            answers += [await cache.multi_get([key, "cart"]), await cache.delete(key)]
            answers += [await cache.get("cart"), await cache.add(key, 3), await cache.get("cart")]
            await cache.multi_set([(key, 4)])
            answers += [await cache.expire(key, 60), await cache.get("cart")]
        return answers

    same(use, namespace=namespace)


def test_a_url_names_it():
    assert EfsCache.parse_uri_path("/shop") == {"name": "shop"} and not EfsCache.parse_uri_path("/")
    with pytest.raises(TypeError):
        EfsCache(no_such="option")


def test_a_failing_mount_is_a_miss(monkeypatch):
    def fail(*_, **__):
        raise OSError(30, "Read-only file system")

    async def use(cache):
        monkeypatch.setattr(Mount, "write_entry", fail)
        stored = await cache.set("key" * 3_000, 1)
        return stored, await cache.get("key" * 3_000)

    assert run(use) in ((True, None), (True, 1))
