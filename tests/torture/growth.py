"""Growth: each operation again and again, in each of its states; nothing may grow with the number.

What is measured, for each state, at its beginning and at its end: descriptors, memory, files on the
mount, threads, and system calls of one operation (exactly, by os's functions that it calls).

Each state has a process and a root of its own, two of them at once.

python -m tests.torture.growth TIMES [STATE …]
"""

import asyncio
import collections
import gc
import json
import logging
import os
import random
import select
import sys
import tempfile
import time

import efsstate
from efsstate import Cache, ClaimedError, cached, checkpoint, dataset
from tests.torture import MEMORY, operations
from tests.torture.operations import World

ROOM = 3 << 20  # bytes that the heap may grow by, whatever the number
LEAST = 200  # operations, at the least, before anything is compared
FOLDERS = 40  # descriptors that may be opened meanwhile: of folders, to a bound
CALLS = 1.1  # times as many system calls as at the beginning, and two more
LANES = 2  # processes at once, each with a root of its own


class Stop(Exception):  # noqa: N818 - what ends a loop
    """What a user's code raises."""


def expect(error, function, *arguments, **options):
    """Call `function`, which must raise `error`."""
    try:
        function(*arguments, **options)
    except error:
        return
    raise AssertionError(f"no {error} was raised")


def fail(*_):
    raise Stop


# The states: functions of a world, each of which leaves the state as it was. The cache:


def hit_in_memory(world):
    operations.require(world.function(1) == operations.value(1), "another value")


def hit_on_disk(world):
    operations.require(world.fresh(1) == operations.value(1), "another value")


def set_again(world):
    world.cache.set(1, operations.value(1))


def set_with_timeout(world):
    world.timed.set(1, 1)


def set_and_deleted(world):
    world.cache.set(3, 3)
    world.cache.delete(3)


def set_and_popped(world):
    world.cache.set(4, 4)
    world.cache.pop(4)


def added_again(world):
    operations.require(not world.disk.add("added", 1), "a key was added twice")


def touched(world):
    operations.require(world.disk.touch("added", ttl="1h"), "nothing was touched")


def counted(world):
    world.numbers.incr("n")


def counted_what_is_no_number(world):
    expect(TypeError, world.disk.incr, "text")


def locked(world):
    with world.cache.lock("k"):
        pass


def locked_and_raised(world):
    def enter():
        with world.cache.lock("k"):
            raise Stop

    expect(Stop, enter)


def refused_as_a_value(world):
    expect(efsstate.EncodeError, world.cache.set, "odd", world)


def tag_invalidated(world):
    world.cache.set(5, 5, tags=["t"])
    world.cache.invalidate_tag("t")


def computed_and_raised(world):
    """A computation that fails leaves nothing: no draft, no lock, no flight."""
    expect(Stop, world.disk.get_or_compute, "never", fail)


def computed_and_not_stored(world):
    world.unstored(1)


def invalidated_and_computed(world):
    world.fresh.invalidate(2)
    world.fresh(2)


def cleared(world):
    world.cleared.clear()


def hit_in_a_task(world):
    asyncio.run(world.task(1))


def failed_in_a_task(world):
    expect(Stop, asyncio.run, world.failing_task(1))


def set_and_locked_in_a_task(world):
    async def main():
        await world.tasks.set(1, 1)
        async with world.tasks.lock("k"):
            pass

    asyncio.run(main())


def measured(world):
    operations.measured(world)


# Checkpoints


def saved(world):
    with checkpoint("saved", root=world.root) as job:
        job.save((job.state or 0) + 1)


def never_saved(world):
    """Claimed and given back, as by a handler that fails before its first save."""
    with checkpoint("never", root=world.root):
        pass


def broken(world):
    """The claim is broken after a save; its holder notices at the next."""
    try:
        with checkpoint("broken", root=world.root) as job:
            job.save(1)
            checkpoint("broken", root=world.root).break_claim()
            job.save(2)
    except operations.BUSY:
        pass


def refused(world):
    """Claimed by another, as long as the world lasts."""
    expect(ClaimedError, checkpoint("held", root=world.root).__enter__)


def finished(world):
    """A finished job that a schedule goes on calling."""
    with checkpoint("finished", root=world.root) as job:
        if not job.finished:
            job.finish("done")


def started_over(world):
    job = checkpoint("over", root=world.root)
    with job:
        job.save(1)
    job.reset()


def updated(world):
    checkpoint("updated", root=world.root).update(lambda old: (old or 0) + 1)


def update_raised(world):
    expect(Stop, checkpoint("updated", root=world.root).update, fail)


def loaded(world):
    checkpoint("saved", root=world.root).load()


def loaded_of_nobody(world):
    checkpoint("nobody", root=world.root).load()


def looked_at(world):
    checkpoint("saved", root=world.root).status()


def looped_and_not_finished(world):
    """An open cursor, as of an hourly job: each time it finds the next items."""
    with checkpoint("cursor", root=world.root) as job:
        for _ in job.resume(lambda position: range(2), position=_same, finish=False):
            pass


def _same(_item):
    return 1


def looped_and_raised(world):
    """An item that fails, whatever is tried, and is not skipped yet."""

    def loop():
        with checkpoint("failing", root=world.root) as job:
            for _ in job.resume(range(3), attempts=10**9):
                raise Stop

    expect(Stop, loop)


def mapped_and_raised(world):
    def loop():
        with checkpoint("mapping", root=world.root) as job:
            for _ in job.map(fail, range(3), workers=1):
                pass

    expect(Stop, loop)


def all_shards_finished(world):
    with checkpoint("parts", root=world.root).shards(2) as parts:
        for part in parts:
            part.finish()
    parts.results()


def shards_grown_no_further(world):
    checkpoint("parts", root=world.root).shards().grow(2)


def shard_that_fails(world):
    def loop():
        with checkpoint("failing parts", root=world.root).shards(1) as parts:
            for _ in parts:
                raise Stop

    expect(Stop, loop)


# Datasets


def part_added_again(world):
    operations.require(not world.data.add(b"d", key="k").added, "a key has two parts")


def part_that_fails(world):
    def write():
        with world.data.part(".bin"):
            raise Stop

    expect(Stop, write)


def part_removed_again(world):
    operations.require(not world.data.remove("gone"), "a part was removed twice")


def frozen_again(world):
    world.data.freeze("snapshot")


def frozen_and_forgotten(world):
    world.data.freeze("passing")
    world.data.forget("passing")


def snapshot_read(world):
    list(world.data.at("snapshot").read())


# Models and the sweep


def model_served(world):
    world.model()


def model_missing(world):
    expect(
        efsstate.ModelNotFound,
        efsstate.model("missing", load=operations.work, root=world.root),
    )


def activated_again(world):
    efsstate.activate("m", "a", root=world.root)


def labelled_again(world):
    efsstate.activate("m", "b", label="next", root=world.root)


def shared_again(world):
    efsstate.activate("m", "b", share=0.5, root=world.root)


def rolled_back(world):
    efsstate.rollback("m", root=world.root)


def verified(world):
    efsstate.verify("m", root=world.root)


def published_and_pruned(world):
    source = f"{world.root}.one"
    with open(f"{source}/version", "w") as file:
        file.write(f"{world.next()}")
    efsstate.publish("n", source, root=world.root)
    efsstate.prune("n", keep=1, grace=0, root=world.root)


def published_the_same(world):
    efsstate.publish("same", f"{world.root}.source", version="a", root=world.root)


def swept_again(world):
    efsstate.sweep(root=world.swept, budget="5s")


# Those that take longest come last: what the others leave of the time is theirs.
STATES = {
    function.__name__: function
    for function in (
        model_served, hit_in_memory, hit_on_disk, refused, part_removed_again, part_that_fails,
        frozen_again, snapshot_read, part_added_again, set_with_timeout, locked, never_saved,
        locked_and_raised, refused_as_a_value, set_again, added_again, frozen_and_forgotten,
        loaded, counted_what_is_no_number, measured, failed_in_a_task, loaded_of_nobody,
        shards_grown_no_further, shared_again, labelled_again, activated_again, rolled_back,
        looked_at, all_shards_finished, hit_in_a_task, mapped_and_raised, computed_and_raised,
        saved, set_and_deleted, computed_and_not_stored, model_missing, invalidated_and_computed,
        set_and_locked_in_a_task, shard_that_fails, touched, update_raised, counted,
        set_and_popped, finished, published_the_same, updated, verified, looped_and_raised,
        swept_again, cleared, looped_and_not_finished, broken, started_over, tag_invalidated,
        published_and_pruned,
    )
}  # fmt: skip


async def _fail_in_task(_key):
    raise Stop


def prepare(world):
    """Make the states that the operations begin from; return what has to be kept until the end."""
    world.prepare()
    root = world.root
    world.unstored = cached(name="unstored", cache_if=lambda _: False, root=root)(operations.work)
    world.failing_task = cached(name="failing", root=root)(_fail_in_task)
    world.cleared = Cache("cleared", root=root)
    world.cleared.set(1, 1)
    world.disk.set("added", 1)
    world.disk.set("text", "text")
    world.data = dataset("data", root=root)
    for key in ("k", "gone"):
        world.data.add(b"d" * 100, key=key)
    world.data.remove("gone")
    world.data.freeze("snapshot")
    os.makedirs(f"{root}.one")
    world.swept = f"{root}.swept"
    os.makedirs(world.swept, 0o700)
    Cache("swept", root=world.swept).set(1, 1)
    with checkpoint("swept", root=world.swept) as job:
        job.save(1)
    with checkpoint("parts", root=root).shards(2):
        pass
    holder = checkpoint("held", root=root)
    holder.__enter__()
    return holder


def calls(operation, world):
    """Return how many of os's functions one operation calls."""
    count = collections.Counter()

    def note(_frame, event, function):
        if event == "c_call" and getattr(function, "__module__", "") in ("posix", "fcntl"):
            count[function.__name__] += 1

    sys.setprofile(note)
    try:
        operation(world)
    finally:
        sys.setprofile(None)
    return count


def files(root):
    """Return how many files, folders and links there are."""
    return sum(len(folders) + len(names) for _, folders, names in os.walk(root))


def heap():
    """Return the bytes of this process's own memory."""
    with open("/proc/self/smaps_rollup") as file:
        lines = dict(line.split()[:2] for line in file if line.startswith("Private_Dirty"))
    return int(lines["Private_Dirty:"]) << 10


def measured_now(operation, world):
    """Return the figures of this moment."""
    gc.collect()
    counts = [calls(operation, world) for _ in range(5)]
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "files": files(world.root),
        "calls": min(sum(count.values()) for count in counts),
        "heap": heap(),
    }


def grown(name, before, after):
    """Yield what has grown."""
    if after["descriptors"] > before["descriptors"] + FOLDERS:
        yield f"{name}: {before['descriptors']} → {after['descriptors']} descriptors"
    if after["files"] > before["files"] + 4:
        yield f"{name}: {before['files']} → {after['files']} files on the mount"
    if after["calls"] > before["calls"] * CALLS + 2:
        yield f"{name}: {before['calls']} → {after['calls']} system calls an operation"
    if after["heap"] > before["heap"] + ROOM:
        yield f"{name}: {(after['heap'] - before['heap']) >> 10} KiB more memory"


def state_of(name, times, until=float("inf"), least=LEAST):
    """Return (figures, what has grown) of one state, on a root of its own."""
    operation = STATES[name]
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        os.makedirs(f"{folder}/root", 0o700)
        world = World(f"{folder}/root", random.Random(0))
        holder = prepare(world)
        for _ in range(least):
            operation(world)
        began, before = time.monotonic(), measured_now(operation, world)
        count = 0
        while count < times and time.monotonic() < until:
            for _ in range(50):
                operation(world)
            count += 50
        after = measured_now(operation, world)
        holder.__exit__(None, None, None)
    seconds = round(time.monotonic() - began, 1)
    wrong = list(grown(name, before, after))
    return {"times": count, "seconds": seconds, "before": before, "after": after}, wrong


class Lane:
    """A state in a process of its own, whose answer comes by a pipe."""

    def __init__(self, name, *arguments):
        self.name = name
        self.read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            answer = None
            try:
                os.close(self.read)
                answer = state_of(name, *arguments)
            except BaseException as error:
                answer = {"times": 0}, [f"{name}: {type(error).__name__}: {error}"]
            finally:
                with os.fdopen(write, "w") as file:
                    json.dump(answer, file)
                os._exit(0)
        os.close(write)

    def answer(self):
        """Return (figures, what has grown), after waiting for them."""
        with os.fdopen(self.read) as file:
            text = file.read()
        _, status = os.waitpid(self.pid, 0)
        if not text:
            return {"times": 0}, [f"{self.name}: its process ended with {status}"]
        return json.loads(text)


def play(times, seconds=float("inf"), names=(), lanes=LANES, least=LEAST):
    """Return ({state: figures}, what has grown): each state so often, and all within `seconds`."""
    until = time.monotonic() + seconds
    waiting = list(names or STATES)
    running, found, wrong = {}, {}, []
    while waiting or running:
        while waiting and len(running) < lanes:
            name = waiting.pop(0)
            share = lanes * (until - time.monotonic()) / (len(waiting) + 1 + len(running))
            lane = Lane(name, times, time.monotonic() + max(share, 0), least)
            running[lane.read] = lane
        for read in select.select(running, [], [])[0]:
            lane = running.pop(read)
            figures, texts = lane.answer()
            found[lane.name] = figures
            wrong += texts
    return {name: found[name] for name in STATES if name in found}, wrong


def run(seconds, _seed):
    """A hundred thousand times each, if there is time for so many."""
    found, wrong = play(100_000, seconds)
    for text in wrong:
        print(f"growth: VIOLATION: {text}", flush=True)
    return {
        "violations": len(wrong),
        "states": len(found),
        "operations": sum(figures["times"] for figures in found.values()),
        "rows": {name: figures for name, figures in found.items() if "after" in figures},
    }


def main(times, *names):
    found, wrong = play(int(times), names=names)
    for name, figures in found.items():
        if "after" in figures:
            print(f"{name:<26} {figures['times']:>7} in {figures['seconds']} s")
            print(f"    {figures['before']}\n    {figures['after']}")
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
