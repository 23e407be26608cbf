"""`job.map`: several items of one claim at a time, and a watermark that passes none undone."""

import asyncio
import functools
import os
import random
import subprocess
import sys
import threading
import time

import pytest
from tests.checkpoints.test_checkpoint import Context
from tests.mount.alarms import at_each_moment, succeeds_in_child

from efsstate import EfsStateError, checkpoint


class Stop(Exception):  # noqa: N818 - the work failed, and no error of ours
    """The work failed."""


def square(item):
    time.sleep(random.random() / 500)
    return item * item


def test_results_come_in_order(root):
    with checkpoint("job", root=root) as job:
        assert list(job.map(square, range(40), workers=4)) == [n * n for n in range(40)]
        assert job.complete
    assert (job.finished, job.position) == (True, 40)


def test_results_come_as_they_are_done_if_order_does_not_matter(root):
    def slow_first(item):
        time.sleep(0.3 if item == 0 else 0)
        return item

    with checkpoint("job", root=root) as job:
        results = []
        for result in job.map(slow_first, range(12), workers=4, ordered=False):
            results.append(result)
            if len(results) == 3:
                assert job.position is None  # the first item is not done: nothing may pass it
    assert sorted(results) == list(range(12))
    assert results[0] != 0
    assert job.finished


@pytest.mark.parametrize("position", [None, lambda item: f"id {item}"])
@pytest.mark.parametrize("ordered", [True, False])
def test_each_item_has_its_own_token_in_a_map(root, ordered, position):
    """In the function and in the loop's body: effects that share a key would be lost."""
    given, asked = {}, {}

    def slow_first(item):
        time.sleep(0.2 if item == 0 else 0)
        asked[item] = job.token
        return item

    with checkpoint("job", root=root) as job:
        for item in job.map(slow_first, range(9), workers=3, ordered=ordered, position=position):
            given[item] = job.token
    wanted = {n: ("job", n + 1 if position is None else position(n)) for n in range(9)}
    assert given == asked == wanted


def test_each_item_has_its_own_token_in_an_async_map(root):
    given, asked = {}, {}

    async def work(item):
        await asyncio.sleep(0.1 if item == 0 else 0)
        asked[item] = job.token
        return item

    async def main():
        async for item in job.map(work, range(9), workers=3, ordered=False):
            given[item] = job.token

    with checkpoint("job", root=root) as job:
        asyncio.run(main())
    assert given == asked == {n: ("job", n + 1) for n in range(9)}


def test_a_map_saves_before_it_waits_for_a_slow_item(root):
    """At the deadline: the slow item may outlive it, and the function is killed there."""
    seen = []

    def work(item):
        if item == 5:
            until = time.monotonic() + 20
            while time.monotonic() < until and not seen:
                seen.extend(n for n in [checkpoint("job", root=root).status()["items"]] if n)
                time.sleep(0.02)
        return item

    with checkpoint("job", root=root, context=Context(3), margin=0.5) as job:
        for _ in job.map(work, range(10), workers=2):
            pass
    assert seen == [5]


def test_as_many_items_are_under_way_as_there_are_workers(root):
    """Eight meet at a barrier, again and again: less would wait for ever."""
    barrier = threading.Barrier(8)

    def meet(item):
        barrier.wait(timeout=30)
        return item

    with checkpoint("job", root=root) as job:
        assert list(job.map(meet, range(80), workers=8)) == list(range(80))


@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_loses_no_item(root, ordered):
    done = []

    def work(item):
        if item == 5:
            raise Stop
        return item

    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for item in job.map(work, range(12), workers=3, ordered=ordered, every=1):
            done.append(item)  # noqa: PERF402 - one by one
    with checkpoint("job", root=root) as job:
        assert job.items <= 5
        done += list(job.map(lambda item: item, range(12), workers=3))
    assert set(done) == set(range(12))
    assert job.finished


def test_the_state_belongs_to_the_watermark(root):
    """A result that was not given yet is no part of the state, so its item is done again."""
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for item in job.map(square, range(20), workers=4, every=1):
            if item == 49:
                raise Stop
            job.state = (job.state or 0) + item
    with checkpoint("job", root=root) as job:
        assert (job.position, job.state) == (7, sum(n * n for n in range(7)))
        for item in job.map(square, range(20), workers=4):
            job.state += item
    assert job.state == sum(n * n for n in range(20))


def test_a_kill_loses_no_item(root, tmp_path):
    program = f"""
import os, sys, time
from efsstate import checkpoint
def work(item):
    time.sleep(0.01)
    with open({str(tmp_path / "done")!r}, "a") as file:
        file.write(f"{{item}}\\n")
    if item == int(sys.argv[1]):
        os.kill(os.getpid(), 9)
    return item
with checkpoint("job", root={root!r}) as job:
    for _ in job.map(work, range(30), workers=4, every=1):
        pass
"""
    for bad in (7, 13, 22, -1):
        subprocess.run([sys.executable, "-c", program, str(bad)], check=False)
    done = [int(line) for line in (tmp_path / "done").read_text().split()]
    job = checkpoint("job", root=root)
    job.load()
    assert job.finished
    assert set(done) == set(range(30))
    assert len(done) < 30 + 3 * 8 + 1  # what was under way is done again, and no more


def test_no_more_items_are_under_way_than_workers(root):
    count, most, guard = 0, 0, threading.Lock()

    def work(item):
        nonlocal count, most
        with guard:
            count += 1
            most = max(most, count)
        time.sleep(0.005)
        with guard:
            count -= 1
        return item

    with checkpoint("job", root=root) as job:
        for _ in job.map(work, range(60), workers=3):
            pass
    assert most == 3


def test_the_source_is_not_read_far_ahead(root):
    taken = []

    def source():
        for item in range(1000):
            taken.append(item)
            yield item

    with checkpoint("job", root=root) as job:
        for item in job.map(square, source(), workers=2):
            assert len(taken) <= item**0.5 + 6
            if item == 100:
                break


def test_it_stops_in_time_and_goes_on(root):
    def work(item):
        time.sleep(0.05)
        return item

    seen = []
    with checkpoint("job", root=root, context=Context(3), margin=2.5) as job:
        seen += list(job.map(work, range(200), workers=4))
        assert not job.complete
    assert 4 < len(seen) < 100
    with checkpoint("job", root=root) as job:
        assert job.items == len(seen)


def test_positions_and_functions_as_sources(root):
    rows = [{"id": n} for n in (3, 5, 9, 12)]

    def after(last):
        return [row for row in rows if last is None or row["id"] > last]

    with checkpoint("job", root=root) as job:
        for row_id in job.map(lambda row: row["id"], after, position=lambda row: row["id"]):
            if row_id == 9:
                break
    with checkpoint("job", root=root) as job:
        assert job.position == 5
        results = list(job.map(lambda r: r["id"], after, position=lambda r: r["id"], workers=2))
        assert results == [9, 12]


def test_an_item_that_raises_is_skipped_after_its_attempts(root):
    def work(item):
        if item == 4:
            raise Stop("again")
        return item

    seen = []
    for _ in range(3):
        try:
            with checkpoint("job", root=root) as job:
                for item in job.map(work, range(9), workers=3, attempts=2):
                    seen.append(item)  # noqa: PERF402 - one by one
        except Stop:
            pass
    assert job.finished
    assert job.skipped == [{"item": 4, "position": 5, "error": "Stop: again"}]
    assert set(seen) == set(range(9)) - {4}


def test_results_may_not_be_read_ahead_by_pools(root):
    from concurrent.futures import ThreadPoolExecutor

    with checkpoint("job", root=root) as job, ThreadPoolExecutor(2) as pool:  # noqa: SIM117
        with pytest.raises(EfsStateError, match=r"job\.map"):
            list(pool.map(str, job.map(square, range(9))))


@pytest.mark.parametrize("bad", [0, -1, True, 2.0])
def test_a_bad_number_of_workers_is_refused(root, bad):
    with checkpoint("job", root=root) as job, pytest.raises(ValueError, match="workers"):
        job.map(square, [], workers=bad)


@pytest.mark.parametrize("source", ["sync", "async"])
def test_coroutines_run_as_tasks(root, source):
    most = count = 0

    async def work(item):
        nonlocal most, count
        count += 1
        most = max(most, count)
        try:
            await asyncio.sleep(0.002)
        finally:
            count -= 1
        if item == 7 and not again:
            raise Stop
        return item

    async def items():
        for item in range(20):
            yield item

    async def run():
        seen = []
        async with checkpoint("job", root=root) as job:
            given = items() if source == "async" else range(20)
            async for item in job.map(work, given, workers=5):
                seen.append(item)
                job.state = (job.state or 0) + item
        return seen, job.finished

    again = False
    with pytest.raises(Stop):
        asyncio.run(run())
    again = True
    assert asyncio.run(run()) == (list(range(7, 20)), True)
    assert checkpoint("job", root=root).load() == sum(range(20))
    assert most == 5


@pytest.mark.parametrize("form", ["partial", "object", "method"])
def test_what_calls_a_coroutine_function_runs_as_tasks(root, form):
    class Fetcher:
        async def __call__(self, item):
            return item * 10

        async def fetch(self, item):
            return item * 10

    async def fetch(factor, item):
        return factor * item

    functions = {
        "partial": functools.partial(functools.partial(fetch), 10),
        "object": Fetcher(),
        "method": Fetcher().fetch,
    }

    async def work():
        with checkpoint("job", root=root) as job:
            return [result async for result in job.map(functions[form], [1, 2, 3])]

    assert asyncio.run(work()) == [10, 20, 30]


def test_a_coroutine_is_no_result(root):
    """Nobody can tell from a lambda what it returns: the first result does."""

    async def fetch(item):
        return item

    with checkpoint("job", root=root) as job, pytest.raises(TypeError, match="a coroutine"):
        list(job.map(lambda item: fetch(item + 1), [1, 2]))
    with checkpoint("job", root=root) as job:
        assert job.items == 0


def test_an_alarm_among_the_threads_of_a_map_hangs_nothing(root):
    """One that cuts off a `Condition` as it is entered leaves its lock taken for ever."""

    def work(item):
        done.append(item)
        return item

    def act():
        with checkpoint("job", root=root) as job:
            job.reset()
            for _ in job.map(work, range(3), workers=2):
                pass

    def try_each():
        for moment in at_each_moment(act, "threading.py"):
            count = len(done)
            time.sleep(0.001)
            late.append(len(done) - count)
            assert moment < 1000
        act()
        assert done[-1] == 2 and len(late) > 20
        assert not any(late), "a thread went on after the block was left"

    done, late = [], []
    assert succeeds_in_child(try_each)


def test_a_forked_child_waits_for_no_thread_of_a_map(root):
    with checkpoint("job", root=root) as job:
        items = iter(job.map(square, range(30), workers=2))
        next(items)
        child = os.fork()
        if not child:
            items.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        items.close()


def test_context_variables_reach_the_workers(root):
    import contextvars

    variable = contextvars.ContextVar("variable", default="none")
    variable.set("here")
    with checkpoint("job", root=root) as job:
        assert list(job.map(lambda _: variable.get(), range(3))) == ["here"] * 3
