"""`async def`: the same function objects, and an event loop that never stalls."""

import asyncio
import functools
import inspect
import subprocess
import sys
import threading
import time

import pytest

from efsstate import cached, register
from efsstate.cache import io_threads
from efsstate.mount.files import Mount


def make(**options):
    calls = []

    @cached(**options)
    async def f(x, y=0):
        calls.append(x)
        await asyncio.sleep(0.01)
        if x == "bad":
            raise ValueError(x)
        if x == "stop":
            raise LookupError
        return [x, y]

    f.calls = calls
    return f


def test_the_same_things_stand_on_it():
    async def main():
        f = make(ttl="1h")
        assert inspect.iscoroutinefunction(f)
        assert await f(1) == await f(x=1) == [1, 0] and f.calls == [1]
        assert await f.peek(1) == [1, 0]
        assert (await f.explain(1)).startswith("hit: in memory")
        assert await f.refresh(1) == [1, 0] and f.calls == [1, 1]
        assert await f.invalidate(1) is True and await f.explain(1) == "miss: there is no result"
        assert await f.map([1, 2, 3, 1]) == [[1, 0], [2, 0], [3, 0], [1, 0]] and sorted(
            f.calls
        ) == [1, 1, 1, 2, 3]
        assert f.cache_info().hits == 2
        await f.cache_clear()
        assert await f.explain(1) == "miss: it was cleared" and f.cache_info().hits == 0
        with pytest.raises(KeyError):
            await f.peek(1)
        for _ in range(2):
            with pytest.raises(ValueError, match="bad"):
                await f("bad")
        assert f.calls.count("bad") == 2 and len(f.cache_key(1)) == 48
        with pytest.raises(TypeError):
            await f(1, 2, 3)

    asyncio.run(main())


def test_what_can_be_known_to_be_async_is():
    calls = []

    async def work(a, x):
        calls.append(x)
        return x

    class Service:
        async def __call__(self, x):
            return await work(0, x)

        async def method(self, x):
            return await work(0, x)

    def hidden(x):
        return work(0, x)

    made = [
        cached(name="partial")(functools.partial(work, 1)),
        cached(name="object")(Service()),
        cached(name="both")(functools.partial(Service())),
        cached(ignore="self")(Service().method),
    ]
    if hasattr(inspect, "markcoroutinefunction"):
        made.append(cached(inspect.markcoroutinefunction(hidden)))

    async def main():
        for f in made:
            calls.clear()
            assert await f(1) == await f(1) == 1 and calls == [1] and await f.map([1, 2]) == [1, 2]

    asyncio.run(main())


def test_an_awaitable_of_a_plain_function_is_warned_of_once(caplog):
    """An awaitable of a plain function is warned of once and says what to do."""

    async def work(x):
        return x

    @functools.wraps(work)
    def wrapper(x):
        return work(x)

    async def main():
        f = cached(wrapper)
        assert [await f(x) for x in (1, 1, 2)] == [1, 1, 2] and f.cache_info().unstored == 3

    asyncio.run(main())
    assert len(caplog.records) == 1 and "async def" in caplog.text and "pickle" not in caplog.text


def test_generator_functions_are_refused():
    def plain(x):
        yield x

    async def asynchronous(x):
        yield x

    for function in (plain, asynchronous, functools.partial(plain, 1)):
        with pytest.raises(TypeError, match="generator"):
            cached(name="items")(function)


def test_outside_of_a_loop_they_are_plain_calls():
    f = make()
    assert asyncio.run(f(1)) == [1, 0]
    assert f.peek(1) == [1, 0] and f.explain(1).startswith("hit") and f.invalidate(1) is True
    f.cache_clear()


def test_loops_and_plain_functions_share_results():
    """Results are shared between loops and with plain functions."""
    f = make(name="shared")
    assert asyncio.run(f(1)) == asyncio.run(f(1)) == [1, 0] and f.calls == [1]
    assert cached(name="shared")(lambda x, y=0: 1 / 0)(1) == [1, 0]


async def beat(stalls, limit):
    """Notes every time by which the loop was held up for longer than `limit` seconds."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        if time.perf_counter() - began > limit:
            stalls.append(time.perf_counter() - began)


@pytest.fixture
def slow_mount(monkeypatch):
    """Every open of a file below the root takes half a second; how many are under way at once."""
    now, most, lock = [0], [0], threading.Lock()

    def slowly(function):
        def run(*args, **kwargs):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.5)
            with lock:
                now[0] -= 1
            return function(*args, **kwargs)

        return run

    for name in ("read", "replace", "open", "refresh", "remove", "stat"):
        monkeypatch.setattr(Mount, name, slowly(getattr(Mount, name)))
    return most


def test_the_loop_never_stalls_while_the_mount_is_slow(slow_mount):
    stalls = []

    async def main():
        f = make(memory=0)
        heart = asyncio.create_task(beat(stalls, 0.4))
        await asyncio.gather(
            *[f(i % 4) for i in range(40)],
            f.map(range(4)),
            f.explain(1),
            f.invalidate(9),
            f.cache_clear(),
            f.refresh(7),
            return_exceptions=False,
        )
        heart.cancel()

    asyncio.run(main())
    assert stalls == [] and slow_mount[0] > 3


def test_the_loop_never_stalls_under_load():
    stalls = []

    async def main():
        f = make()
        heart = asyncio.create_task(beat(stalls, 2))
        for _ in range(3):
            await asyncio.gather(*[f(i % 50) for i in range(500)])
        heart.cancel()
        assert len(f.calls) == 50

    asyncio.run(main())
    assert stalls == []


def test_a_task_that_waits_for_a_process_leaves_the_loop_free(tmp_path):
    """A task that waits for another process does not hold up the loop."""
    import subprocess
    import sys

    code = (
        "from efsstate import cached\n@cached(name='k')\ndef f(x):\n"
        "    print('in', flush=True)\n    input()\n    return 'theirs'\nf(1)"
    )
    stalls = []

    async def main():
        with subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "in\n"
            heart = asyncio.create_task(beat(stalls, 0.5))

            @cached(name="k")
            async def f(x):
                return "ours"

            waiting = [asyncio.create_task(f(1)) for _ in range(5)]
            await asyncio.sleep(0.3)
            process.stdin.write("\n")
            process.stdin.close()
            assert await asyncio.gather(*waiting) == ["theirs"] * 5
            heart.cancel()

    asyncio.run(main())
    assert stalls == []


def test_a_cancelled_computation_gives_its_claim_back():
    async def main():
        started = asyncio.Event()

        @cached(name="f", lock_timeout=20)
        async def f(x):
            started.set()
            await asyncio.sleep(0 if len(calls) else 60)
            return x

        calls = []
        task = asyncio.create_task(f(1))
        await started.wait()
        other = asyncio.create_task(f(1))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        calls.append(1)
        began = time.monotonic()
        assert await other == 1 and time.monotonic() - began < 10

    asyncio.run(main())


def test_a_cancelled_waiter_leaves_the_others_alone():
    async def main():
        f = make()
        tasks = [asyncio.create_task(f(1)) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert (
            found[:2] == [[1, 0]] * 2
            and isinstance(found[2], asyncio.CancelledError)
            and found[3:] == [[1, 0]] * 2
        )

    asyncio.run(main())


def test_a_loop_that_ends_in_the_middle_leaves_nothing_behind():
    f = make()

    async def main():
        task = asyncio.create_task(f(1))
        await asyncio.sleep(0)
        return task

    asyncio.run(main())
    assert asyncio.run(f(1)) == [1, 0]


def test_stale_results_are_given_to_tasks_too(monkeypatch):
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    values = iter(range(10))

    @cached(name="f", ttl=60, stale=60)
    async def f():
        await asyncio.sleep(0.05)
        return next(values)

    async def main():
        assert await f() == 0
        offset[0] = 61
        assert sorted(await asyncio.gather(*[f() for _ in range(5)])) == [0, 0, 0, 0, 1]

    asyncio.run(main())


def test_more_maps_at_once_than_there_are_threads_end(monkeypatch):
    """And a call after them finds a thread."""
    read = Mount.read
    monkeypatch.setattr(
        Mount, "read", lambda *args, **more: time.sleep(0.003) or read(*args, **more)
    )

    async def main():
        f = make(memory=0)
        await f.map(range(100))
        maps = [asyncio.create_task(f.map(range(i, i + 20))) for i in range(2 * io_threads._MOST)]
        _, pending = await asyncio.wait(maps, timeout=60)
        assert not pending and [task.result() for task in maps] == [
            [[x, 0] for x in range(i, i + 20)] for i in range(len(maps))
        ]
        assert await asyncio.wait_for(f(1), 20) == [1, 0]

    asyncio.run(main())


def test_more_removals_than_threads_are_all_done(monkeypatch):
    """All of them take longer than the timeout, each of them a tenth of it."""
    remove = Mount.remove

    async def main():
        f = make(io_timeout=1)
        await f.map(range(400))
        monkeypatch.setattr(
            Mount, "remove", lambda *args, **more: time.sleep(0.1) or remove(*args, **more)
        )
        assert await asyncio.gather(*[f.invalidate(i) for i in range(400)]) == [True] * 400
        assert f.cache_info().errors == 0

    asyncio.run(main())


class Noting:
    """A codec, and the parts of an object, that note on which thread they are used."""

    def __init__(self):
        self.seen = []

    def dumps(self, value):
        return value[0]

    def loads(self, payload):
        self.seen.append(threading.get_ident())
        return [payload]

    def parts(self, one):
        self.seen.append(threading.get_ident())
        return one.data


@pytest.mark.parametrize(
    ("size", "memory", "on_the_loop"), [(1000, None, True), (2**21, None, False), (2**21, 0, False)]
)
def test_what_takes_long_to_decode_is_not_decoded_on_the_loop(size, memory, on_the_loop):
    """From memory, from the mount, and for those who waited for a computation."""
    codec = Noting()

    @cached(codec=codec, memory=memory)
    async def f(x):
        await asyncio.sleep(0.05)
        return [bytes(size)]

    async def main():
        for _ in range(3):
            assert (
                len({id(found) for found in await asyncio.gather(*[f(1) for _ in range(5)])}) == 5
            )
        assert await f.peek(1) == [bytes(size)]
        assert codec.seen and (threading.get_ident() in codec.seen) is on_the_loop

    asyncio.run(main())


class Image:
    def __init__(self, data):
        self.data = data


@pytest.mark.parametrize("key", [None, lambda x, ignored=None: x])
def test_what_takes_long_to_digest_is_not_digested_on_the_loop(key):
    """What does not count for the digest does not count here."""
    noting = Noting()
    register(Image, noting.parts)

    @cached(key=key, ignore=() if key else "ignored")
    async def f(x, ignored=None):
        return 1

    small, large = Image(bytes(1000)), Image(bytes(2**21))
    few, many = {"a": [1, "b"]}, [{"a": i} for i in range(20_000)]
    quick = [(small,), ([small, few],), (small, many)]
    slow = [
        (large,),
        ([small, large],),
        ((memoryview(bytes(2**21)), small),),
        ([small, many],),
        ({"a": {1: many}, "b": small},),
    ]

    async def main():
        for args in quick + slow:
            for call in (f, f.refresh, f.invalidate):
                noting.seen.clear()
                await call(*args)
                assert (
                    set(noting.seen) == {threading.get_ident()}
                    if args in quick
                    else threading.get_ident() not in noting.seen
                )
                assert noting.seen

    asyncio.run(main())


@pytest.mark.parametrize("end", ["raises", "is cancelled"])
def test_a_map_that_raised_calls_no_more(end):
    """The calls under way are cancelled, and the rest is not begun."""
    begun, finished = [], []

    @cached(name=f"map {end}")
    async def f(x):
        begun.append(x)
        if x == 3 and end == "raises":
            raise ValueError(x)
        await asyncio.sleep(0.1)
        finished.append(x)
        return x

    async def main():
        if end == "raises":
            with pytest.raises(ValueError, match="3"):
                await f.map(range(100))
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(f.map(range(100)), 0.05)
        await asyncio.sleep(0.5)

    asyncio.run(main())
    assert len(begun) <= 17 and not finished


def test_a_loop_that_ends_with_calls_under_way_prints_nothing():
    """What is under way is given back, and nobody is told of errors that are none."""
    code = """
import asyncio
from efsstate import cached

async def f(x):
    await asyncio.sleep(60)

f = cached(name="f")(f)
loop = asyncio.new_event_loop()
tasks = [loop.create_task(f(x)) for x in (1, 1, 2)]
loop.run_until_complete(asyncio.sleep(0.3))
for task in tasks:
    task._log_destroy_pending = False  # asyncio's own line
loop.close()
del loop, task, tasks
import gc
gc.collect()
g = cached(name="f", lock_timeout=5)(lambda x: x)
print(g(1), g(2))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1 2\n", "")


def test_without_an_asyncio_loop_the_error_names_asyncio():
    """As under trio, which drives a coroutine by itself."""

    @cached(name="trio")
    async def f(x):
        return x

    coroutine = f(1)
    with pytest.raises(RuntimeError, match="run it with asyncio") as caught:
        coroutine.send(None)
    assert caught.value.__suppress_context__
