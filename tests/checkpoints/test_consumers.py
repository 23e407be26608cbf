"""Consumers that take items before those before are done: none may count them as done."""

import asyncio
import heapq
import itertools
import random
import time
import types
from collections import defaultdict, deque

import pytest

from efsstate import checkpoint
from efsstate.checkpoints import bytecode

COUNT = 9


class Stop(Exception):  # noqa: N818 - the work failed, and no error of ours
    """The work on an item failed."""


# Built-in iterators that take several items for each that they give


def zipped_with_itself(items):
    items = iter(items)
    return zip(items, items, items, strict=False)


def zipped_long_with_itself(items):
    items = iter(items)
    return itertools.zip_longest(items, items, items)


def mapped_with_itself(items):
    items = iter(items)
    return map(lambda *several: several, items, items, items)


def zipped_through_a_map(items):
    mapped = map(int, items)
    return zip(mapped, mapped, mapped, strict=False)


def zipped_through_two_maps(items):
    items = iter(items)
    maps = [map(int, items) for _ in range(3)]
    return zip(*maps, strict=False)


def chained_from_zips(items):
    items = iter(items)
    zipped = zip(items, items, items, strict=False)
    return ([item] for item in itertools.chain.from_iterable(zipped))


def called_by_two(items):
    items = iter(items)
    calls = [iter(items.__next__, None) for _ in range(3)]
    return zip(*calls, strict=False)


def teed(items):
    ahead, behind = itertools.tee(items)
    for _ in ahead:
        pass
    return ([item] for item in behind)


# Generators that keep items


def in_batches(items):
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == 3:
            yield batch
            batch = []


def in_batches_by_adding(items):
    batch = []
    for item in items:
        batch += [item]
        if len(batch) < 3:
            continue
        yield batch
        batch = []


class Batches:
    """A class whose iterator makes batches, as data loaders do."""

    def __init__(self, items):
        self.items, self.batch = items, []

    def __iter__(self):
        for item in self.items:
            self.batch.append(item)
            if len(self.batch) == 3:
                yield from [self.batch]
                self.batch = []


def one_late(items):
    before = nothing = object()
    for item in items:
        if before is not nothing:
            yield [before]
        before = item
    yield [before]


def marked_as_last(items):
    items = iter(items)
    for item in items:
        for following in items:
            yield [item]
            item = following  # noqa: PLW2901 - as people write it
        yield [item]


def shuffled(items):
    buffer = []
    for item in items:
        if len(buffer) < 3:
            buffer.append(item)
            continue
        place = random.randrange(3)
        yield [buffer[place]]
        buffer[place] = item
    for item in buffer:
        yield [item]


def grouped(items):
    groups = defaultdict(list)
    for item in items:
        groups[item % 3].append(item)
        if len(groups[item % 3]) == 3:
            yield groups.pop(item % 3)


# Delay lines: generators that give an earlier item in each turn


def one_turn_late(items):
    pending = None
    for item in items:
        current, pending = pending, item
        yield [current]
    yield [pending]


def swapped(items):
    before = None
    for item in items:
        before, item = item, before  # noqa: PLW2901 - as people write it
        yield [item]
    yield [before]


def late_by_a_queue(items):
    queue = deque([None] * 2)
    for item in items:
        queue.append(item)
        yield [queue.popleft()]
    yield list(queue)


def late_by_an_attribute(items):
    line = types.SimpleNamespace(value=None)
    for item in items:
        late, line.value = line.value, item
        yield [late]
    yield [line.value]


def late_by_a_ring(items):
    ring, place = [None] * 3, 0
    for item in items:
        ring[place] = item
        place = (place + 1) % 3
        yield [ring[place]]
    yield ring


def late_by_a_closure(items):
    kept = None

    def shift(item):
        nonlocal kept
        late, kept = kept, item
        return late

    for item in items:
        late, kept = kept, item
        yield [late]
    yield [shift(None)]


def late_after_an_error(items):
    value = None
    for item in items:
        try:
            late, value = value, int(item)
        except TypeError:
            late = None
        yield [late]
    yield [value]


def late_through_yield_from(items):
    line = [None]
    for item in items:
        line.append(item)
        yield from [[line.pop(0)]]
    yield line


# Bodies that take further items while they have one


def by_next(items):
    items = iter(items)
    return ([item, next(items), next(items)] for item in items)


def by_islice(items):
    items = iter(items)
    return ([item, *itertools.islice(items, 2)] for item in items)


def late_by_a_heap(items):
    heap = [-2, -1]
    for item in items:
        yield [heapq.heappushpop(heap, item)]
    yield heap


def late_by_a_dict(items):
    earlier = {}
    for index, item in enumerate(items):
        earlier[index] = item
        yield [earlier.pop(index - 1, None)]
    yield list(earlier.values())


def late_by_a_key(items):
    earlier = {}
    for index, item in enumerate(items):
        earlier[index] = item
        yield [earlier[index - 1]] if index else []
    yield [earlier[index]]


def late_by_a_slot(items):
    slots, place = [None] * 2, 0
    for item in items:
        slots[place], item = item, slots[place]  # noqa: PLW2901 - as people write it
        place = 1 - place
        yield [item]
    yield slots


KEPT, QUEUE, last = {"item": None}, deque([None] * 2), None


def late_by_a_global_variable(items):
    global last
    for item in items:
        late, last = last, item
        yield late


def late_by_a_global_dict(items):
    for item in items:
        late = KEPT["item"]
        KEPT["item"] = item
        yield late


def late_by_a_global_queue(items):
    for item in items:
        QUEUE.append(item)
        yield QUEUE.popleft()


DELAYING = [
    late_by_a_heap,
    late_by_a_dict,
    late_by_a_key,
    late_by_a_slot,
    one_turn_late,
    swapped,
    late_by_a_queue,
    late_by_an_attribute,
    late_by_a_ring,
    late_by_a_closure,
    late_after_an_error,
    late_through_yield_from,
]
READING_AHEAD = [
    zipped_with_itself,
    zipped_long_with_itself,
    mapped_with_itself,
    zipped_through_a_map,
    zipped_through_two_maps,
    chained_from_zips,
    called_by_two,
    teed,
    in_batches,
    in_batches_by_adding,
    Batches,
    one_late,
    marked_as_last,
    shuffled,
    grouped,
    *DELAYING,
    by_next,
    by_islice,
]


@pytest.mark.parametrize("every", [1, "1h"])
@pytest.mark.parametrize("consume", READING_AHEAD, ids=lambda consume: consume.__name__)
def test_items_that_are_kept_for_later_do_not_count(root, consume, every):
    """Neither in a save of the loop, nor at the end of a block that raises."""
    done = set()
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        for number, items in enumerate(consume(job.resume(range(COUNT), every=every))):
            if number == 1:
                raise Stop
            done.update(items)
    with checkpoint("job", root=root) as job:
        done.update(job.resume(range(COUNT)))
    assert done - {None, -2, -1} == set(range(COUNT))
    assert job.finished


def test_a_body_that_takes_another_item_reads_ahead(root, warned):
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        items = iter(job.resume(range(COUNT), every=1))
        for first in items:
            second = next(items)
            if second == 3:
                assert first == 2
                raise Stop
    assert checkpoint("job", root=root).load() is None
    assert any("read ahead" in line for line in warned())


def test_a_map_is_read_ahead_by_a_body_too(root):
    done = []
    with pytest.raises(Stop), checkpoint("job", root=root) as job:  # noqa: PT012
        results = iter(job.map(lambda item: item, range(COUNT), workers=2, every=1))
        for first in results:
            second = next(results)
            if second == 3:
                raise Stop
            done += [first, second]
    with checkpoint("job", root=root) as job:
        done += job.resume(range(COUNT))
    assert set(done) == set(range(COUNT))


# Async generators


async def source(position):
    for item in range(position or 0, COUNT):
        yield item


async def async_batches(items):
    batch = []
    async for item in items:
        batch.append(item)
        if len(batch) == 3:
            yield batch
            batch = []


async def async_one_late(items):
    before = None
    async for item in items:
        if before is not None:
            yield [before]
        before = item
    yield [before]


async def async_one_turn_late(items):
    pending = None
    async for item in items:
        await asyncio.sleep(0)
        current, pending = pending, item
        yield [current]
    yield [pending]


async def async_queued(items):
    queue = asyncio.Queue()
    async for item in items:
        await queue.put(item)
        if queue.qsize() == 3:
            yield [queue.get_nowait() for _ in range(3)]


async def async_pairs(items):
    async for item in items:
        others = [await anext(items) for _ in range(2)]
        yield [item, *others]


async def fail_at_second(items):
    done, number = [], 0
    async for several in items:
        if number == 1:
            raise Stop
        number += 1
        done += several
    return done


@pytest.mark.parametrize("every", [1, "1h"])
@pytest.mark.parametrize(
    "consume",
    [async_batches, async_one_late, async_one_turn_late, async_queued, async_pairs],
    ids=lambda f: f.__name__,
)
def test_async_generators_that_keep_items_do_not_count(root, consume, every):
    async def run():
        async with checkpoint("job", root=root) as job:
            await fail_at_second(consume(job.resume(source, every=every)))

    with pytest.raises(Stop):
        asyncio.run(run())
    with checkpoint("job", root=root) as job:
        assert next(iter(job.resume(range(COUNT)))) == 0


async def async_through(items):
    async for item in items:
        if item is None:
            continue
        yield [item]


@pytest.mark.parametrize("every", [1, "1h"])
def test_an_async_generator_that_keeps_nothing_is_fine(root, every):
    async def run():
        async with checkpoint("job", root=root) as job:
            await fail_at_second(async_through(job.resume(source, every=every)))

    with pytest.raises(Stop):
        asyncio.run(run())
    with checkpoint("job", root=root) as job:
        assert next(iter(job.resume(range(COUNT)))) == 1


# Generators that take one item for each that they give, or leave some out


def through(items):
    for item in items:  # noqa: UP028 - as people write it
        yield item


def parsed(items):
    for item in items:
        value = item.strip()
        if not value:
            continue
        yield value


def counted(items):
    number = 0
    for item in items:
        number += 1  # noqa: SIM113 - as people write it
        yield number, item


def flat(items):
    for item in items:
        for part in item:  # noqa: UP028 - as people write it
            yield part


def flat_by_delegation(items):
    for item in items:
        yield from item


def guarded(items):
    for item in items:
        try:
            value = int(item)
        except ValueError:
            continue
        yield value


def unpacked(items):
    for _, (first, second) in items:
        if first is not second:
            yield second


def with_default(items, default=None):
    for item in items:
        try:
            value = int(item)
        except ValueError:
            value = default
        yield value


def tried_again(items, fetch):
    for item in items:
        while True:
            try:
                found = fetch(item, timeout=3)
                break
            except TimeoutError:
                continue
        yield found


def collected(items):
    for item in items:
        parts = []
        for part in item:
            parts.append(part * 2)  # noqa: PERF401 - as people write it
        yield parts


def noted(items, seen, log):
    total = 0
    for item in items:
        total += len(item)
        seen.add(item)
        log.info("%s of %s", item, total)
        yield {"item": item, "total": total}


class Readers:
    """Methods that convert items with what the object has."""

    def converted(self, items):
        for item in items:
            self.last = item
            if item is None:
                break
            with self.lock:
                yield self.convert(item, unit=self.unit)
        yield self.last

    def looked_up(self, items):
        for index, (key, *_rest) in enumerate(items):
            record = self.table[key]
            record.index = index
            message = f"{key}: {record!r:>20}" if record else "none"
            print(message)
            yield record or (key, [value for value in _rest if value])


PRICES = {}


def remembered(items, load):
    for item in items:
        if item not in PRICES:
            PRICES[item] = load(item)
        yield PRICES[item]


def remembered_by_get(items, load, known):
    for item in items:
        value = known.get(item)
        if value is None:
            value = known[item] = load(item)
        yield value


def looked_up_by_get(items, prices):
    for item in items:
        price = prices.get(item["sku"], 0)
        if price:
            yield item["sku"], price


def summed(items, totals):
    for item in items:
        totals[item.kind] = totals.get(item.kind, 0) + 1
        yield item


def with_progress(items):
    began = time.time()
    for number, item in enumerate(items, 1):
        yield item
        if number % 10 == 0:
            print(number, time.time() - began)


def filled(items):
    for item in items:
        row = types.SimpleNamespace()
        row.item = item
        yield row


def of_a_closure(items, unit):
    for item in items:
        yield lambda: item * unit


def marked(items, end):
    for item in items:
        if item == end:
            yield None
            continue
        yield item


@pytest.mark.parametrize(
    "generator",
    [
        through,
        parsed,
        counted,
        flat,
        flat_by_delegation,
        guarded,
        unpacked,
        with_default,
        tried_again,
        collected,
        noted,
        Readers.converted,
        Readers.looked_up,
        filled,
        remembered,
        remembered_by_get,
        looked_up_by_get,
        summed,
        with_progress,
        of_a_closure,
        marked,
    ],
    ids=lambda f: f.__name__,
)
def test_generators_that_keep_nothing_are_known(generator):
    code = generator.__code__
    head = next(item.offset for item in bytecode.instructions(code) if item.opname == "FOR_ITER")
    assert not bytecode.holds_items_back(code, head)


@pytest.mark.parametrize(
    "generator",
    [
        in_batches,
        in_batches_by_adding,
        one_late,
        shuffled,
        grouped,
        Batches.__iter__,
        late_by_a_global_variable,
        late_by_a_global_dict,
        late_by_a_global_queue,
        *DELAYING,
    ],
)
def test_generators_that_keep_items_are_known(generator):
    code = generator.__code__
    head = next(item.offset for item in bytecode.instructions(code) if item.opname == "FOR_ITER")
    assert bytecode.holds_items_back(code, head)


def test_a_long_loop_through_a_generator_saves_all_the_way(root):
    """Code that is specialised while it runs stands at other offsets, and is the same reader."""
    with checkpoint("job", root=root) as job:
        for _ in through(job.resume(range(3000), every=300)):
            pass
    assert job.saves == 11
