"""`AsyncCache`: the methods of `Cache`, awaited."""

import asyncio
import inspect
import threading
import time

import pytest

from efsstate import AsyncCache, Cache, EncodeError


@pytest.fixture
def box():
    return AsyncCache("box")


def test_it_has_the_methods_of_a_cache():
    public = {name for name in vars(Cache) if not name.startswith("_")}
    missing = public - set(vars(AsyncCache)) - {"results", "digest", "is_in_memory", "life"}
    assert missing == set()
    for name in public & set(vars(AsyncCache)):
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (Cache, AsyncCache))
        assert list(ours.parameters) == list(theirs.parameters), name


def test_every_method_does_as_the_cache_does(box):
    async def main():
        value = [1]
        setting = box.set("k", value)
        value.append(2)
        await setting
        assert await box.get("k") == [1] and await box.get("k", fresh=True) == [1]
        assert await box.get("missing", 5) == 5 and await box.contains("k")
        assert await box.add("k", 2) is False and await box.add("new", 2) is True
        await box.set_many({i: str(i) for i in range(20)}, ttl="5m")
        assert await box.get_many(range(18, 25)) == {18: "18", 19: "19"}
        keys = [str(key) async for key in box.keys()]  # noqa: SIM118 - it is no dict
        assert sorted(keys)[-2:] == ["k", "new"]
        await box.set("tagged", 1, tags=["red"])
        await box.invalidate_tag("red")
        assert await box.get("tagged", fresh=True) is None and await box.get(5) == "5"
        assert await box.pop("new") == 2 and await box.pop("new", None) is None
        with pytest.raises(KeyError):
            await box.pop("new")
        assert [await box.incr("n"), await box.incr("n", 4)] == [1, 5]
        assert await box.touch("n", ttl="1h") and not await box.touch("missing")
        with pytest.raises(EncodeError):
            await box.set("k", object())
        await box.set("n", 1, ttl=0)
        assert not await box.contains("n") and await box.delete("k") is True
        await box.clear()
        assert await box.get(1) is None and box.info().puts > 20

    asyncio.run(main())
    assert repr(box) == "AsyncCache('box')" and Cache("box").get(19) is None


def test_get_or_compute_awaits_once_for_all_tasks(box):
    calls = []

    async def work():
        calls.append(1)
        await asyncio.sleep(0.05)
        return [len(calls)]

    async def main():
        results = await asyncio.gather(*[box.get_or_compute("k", work) for _ in range(8)])
        assert results == [[1]] * 8 and calls == [1]
        assert await box.get_or_compute("k", work) == [1]
        with pytest.raises(ZeroDivisionError):
            await box.get_or_compute("bad", fail)
        with pytest.raises(TypeError, match="a function is needed"):
            await box.get_or_compute("bad", 5)

    async def fail():
        return 1 / 0

    asyncio.run(main())


def test_a_plain_call_does_not_wait_for_a_task_of_its_thread(box):
    """The task could not go on: the loop would stand still until the end of the wait."""

    async def main():
        inside, end = asyncio.Event(), asyncio.Event()

        async def compute():
            inside.set()
            await end.wait()
            return "the task's"

        task = asyncio.create_task(box.get_or_compute("k", compute))
        await inside.wait()
        plain = Cache("box").get_or_compute("k", lambda: "plain")
        end.set()
        return plain, await task

    began = time.monotonic()
    assert asyncio.run(main()) == ("plain", "the task's")
    assert time.monotonic() - began < 30  # and not the 60 s of a wait


def test_a_lock_excludes_tasks_and_threads(box):
    log = []

    async def enter(number):
        async with box.lock("k"):
            log.append(number)
            await asyncio.sleep(0.01)
            log.append(number)

    def enter_in_thread():
        with Cache("box").lock("k"):
            log.extend(["thread"] * 2)

    async def main():
        thread = threading.Thread(target=enter_in_thread)
        thread.start()
        await asyncio.gather(*[enter(number) for number in range(5)])
        thread.join()
        assert len(log) == 12 and log[::2] == log[1::2]
        async with box.lock("k"):
            with pytest.raises(TimeoutError):
                async with box.lock("k", wait=0.05):
                    pass
            task = asyncio.create_task(enter("cancelled"))
            await asyncio.sleep(0.05)
            task.cancel()
        async with box.lock("k", wait=5):
            pass
        assert "cancelled" not in log

    asyncio.run(main())


def test_where_nothing_is_kept_it_computes(box, monkeypatch):
    async def work():
        return 2

    async def main():
        await box.set("k", 1)
        assert await box.get("k") is None and await box.get_or_compute("k", work) == 2

    monkeypatch.setenv("EFSSTATE_DISABLE", "1")
    asyncio.run(main())
