"""The model of the loops explored, each rule broken in turn, and random programs against it."""

import asyncio
import itertools
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.checkpoints.model.explore import explore
from tests.checkpoints.model.loops import BROKEN, SPACES, Loops, Rules

from efsstate import EfsStateError, checkpoint


@pytest.mark.parametrize("name", SPACES)
def test_no_order_of_steps_loses_an_item(name):
    result = explore(Loops(Rules(**SPACES[name])), limit=200_000)
    assert result.complete, result
    assert not result.found, result


@pytest.mark.parametrize("name", BROKEN)
def test_without_any_one_rule_an_item_is_lost(name):
    assert explore(Loops(Rules(**BROKEN[name])), limit=200_000).found


# Random programs: every consumer that Python has, with errors and kills at any item


class Failed(Exception):  # noqa: N818 - the work failed
    """The work on an item failed."""


class Killed(BaseException):
    """The process ends here: nothing of the block runs any more."""


class Work:
    """The work on items: it records those it did, and fails or dies at some."""

    def __init__(self, failing, killing):
        self.done, self._failing, self._killing = [], set(failing), set(killing)
        self._guard = threading.Lock()

    def __call__(self, item):
        with self._guard:
            if item in self._failing:
                self._failing.discard(item)
                raise Failed
            if item in self._killing:
                self._killing.discard(item)
                raise Killed
            self.done.append(item)
        return item


def batched(items, n):
    items = iter(items)
    while batch := tuple(itertools.islice(items, n)):
        yield batch


def by_for(job, work, source, options):
    for item in job.resume(source, **options):
        work(item)


def by_for_with_saves(job, work, source, options):
    for item in job.resume(source, **options):
        work(item)
        if item % 3 == 0:
            job.save()


def by_break(job, work, source, options):
    for item in job.resume(source, **options):
        work(item)
        if item % 4 == 3:
            break
    job.save()


def by_kept_iterator(job, work, source, options):
    items = iter(job.resume(source, **options))
    for item in items:
        if item % 5 == 4:
            work(item)
            job.save()
            break
        work(item)


def by_enumerate(job, work, source, options):
    for _, item in enumerate(job.resume(source, **options)):
        work(item)


def by_zip(job, work, source, options):
    for item, _ in zip(job.resume(source, **options), range(7), strict=False):
        work(item)


def by_islice(job, work, source, options):
    for item in itertools.islice(job.resume(source, **options), 3):
        work(item)
        job.save()


def by_builtin_map(job, work, source, options):
    for _ in map(work, job.resume(source, **options)):
        pass


def by_generator(job, work, source, options):
    for _ in (work(item) for item in job.resume(source, **options)):
        pass


def by_closed_generator(job, work, source, options):
    items = job.resume(source, **options)
    for item in items:
        work(item)
        if item % 3 == 2:
            items.close()
            break


def by_yield_from(job, work, source, options):
    def wrapped():
        yield from job.resume(source, **options)

    for item in wrapped():
        work(item)


def by_list(job, work, source, options):
    for item in list(job.resume(source, **options)):
        work(item)


def by_sorted(job, work, source, options):
    for item in sorted(job.resume(source, **options), reverse=True):
        work(item)


def by_comprehension(job, work, source, options):
    results = [work(item) for item in job.resume(source, **options)]
    assert len(results) <= len(source)


def by_batched(job, work, source, options):
    for batch in batched(job.resume(source, **options), 3):
        for item in batch:
            work(item)


def by_own_batches(job, work, source, options):
    def batches(items):
        batch = []
        for item in items:
            batch.append(item)
            if len(batch) == 3:
                yield batch
                batch = []
        yield batch

    for batch in batches(job.resume(source, **options)):
        for item in batch:
            work(item)


def by_one_late(job, work, source, options):
    def late(items):
        before = None
        for item in items:
            if before is not None:
                yield before
            before = item
        if before is not None:
            yield before

    for item in late(job.resume(source, **options)):
        work(item)


def by_next_in_the_body(job, work, source, options):
    items = iter(job.resume(source, **options))
    for item in items:
        following = next(items, None)
        work(item)
        if following is not None:
            work(following)


def by_pairwise(job, work, source, options):
    last = None
    for first, last in itertools.pairwise(job.resume(source, **options)):  # noqa: B007
        work(first)
    if last is not None:
        work(last)
    elif job.complete:
        for item in range(len(source)):
            work(item)


def by_groupby(job, work, source, options):
    for _, group in itertools.groupby(job.resume(source, **options), key=lambda n: n // 3):
        for item in list(group):
            work(item)


def by_next(job, work, source, options):
    items = iter(job.resume(source, **options))
    while (item := next(items, None)) is not None:
        work(item)


def by_collecting(job, work, source, options):
    collected = []
    for item in job.resume(source, every="1h"):
        collected.append(item)  # noqa: PERF402 - as people write it
    for item in collected:
        work(item)


def by_batch(job, work, source, options):
    for batch in job.resume(source, batch=3, **options):
        for item in batch:
            work(item)


def by_job_map(job, work, source, options):
    for _ in job.map(work, source, workers=3, **options):
        pass


def by_unordered_job_map(job, work, source, options):
    for _ in job.map(work, source, workers=3, ordered=False, **options):
        pass


def by_executor(job, work, source, options):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, job.resume(source, **options)))


def by_gather(job, work, source, options):
    async def run(item):
        work(item)

    async def main():
        await asyncio.gather(*[run(item) for item in job.resume(source, **options)])

    asyncio.run(main())


def by_task_group(job, work, source, options):
    async def run(item):
        work(item)

    async def main():
        try:
            async with asyncio.TaskGroup() as tasks:
                for task in [run(item) for item in job.resume(source, **options)]:
                    tasks.create_task(task)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    asyncio.run(main())


def by_async_for(job, work, source, options):
    async def items(position):
        for item in source[position or 0 :]:
            yield item

    async def main():
        async for item in job.resume(items, **options):
            work(item)

    asyncio.run(main())


def by_async_job_map(job, work, source, options):
    async def run(item):
        await asyncio.sleep(0)
        return work(item)

    async def main():
        async for _ in job.map(run, source, workers=3, **options):
            pass

    asyncio.run(main())


CONSUMERS = [consume for name, consume in sorted(globals().items()) if name.startswith("by_")]
RAN = Counter()  # programs, their claims, items and failures, for the output of a test
REFUSED = {by_executor, by_gather, by_task_group}


def run_program(root, name, chance, consume):
    """Run a random program to its end; return what its work did."""
    count = chance.choice([0, 1, 2, 5, 8, 12])
    items = range(count)
    failing = [n for n in items if chance.random() < 0.2]
    killing = [n for n in items if chance.random() < 0.15]
    options = {"every": chance.choice([1, 2, "0s", "1h"])}
    work = Work(failing, killing)
    for claims in range(1, 61):  # noqa: B007 - counted below
        job = checkpoint(name, root=root)
        claim = job.__enter__()
        try:
            consume(claim, work, list(items), options)
        except Killed:
            job._release()  # as the kernel does for a process that dies: nothing is saved
            continue
        except (Failed, EfsStateError) as error:
            job.__exit__(type(error), error, error.__traceback__)
        else:
            job.__exit__(None, None, None)
        if job.finished:
            break
        if consume in REFUSED:
            consume = by_for
        if consume in (by_islice, by_zip, by_break, by_kept_iterator, by_closed_generator):
            consume = chance.choice([consume, by_for])
    RAN.update(programs=1, claims=claims, items=count, done=len(work.done))
    RAN.update({f"programs, last {consume.__name__}": 1, "failures": len(failing + killing)})
    return items, work.done, job


@pytest.mark.parametrize("consume", CONSUMERS, ids=lambda consume: consume.__name__)
def test_whatever_consumes_it_every_item_is_done(tmp_path, consume):
    """Each item is done at least once, and the job is finished only when all are."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(12):
        items, done, job = run_program(str(tmp_path), f"job {number}", chance, consume)
        assert job.finished
        assert set(items) <= set(done), (sorted(set(items) - set(done)), number)


@pytest.mark.slow
def test_thousands_of_random_programs(tmp_path):
    """The same, with consumers that change from claim to claim."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(5000):
        consume = chance.choice(CONSUMERS)
        items, done, job = run_program(str(tmp_path), f"job {number}", chance, consume)
        assert job.finished
        assert set(items) <= set(done), (consume, sorted(set(items) - set(done)), number)
    print(dict(RAN))
