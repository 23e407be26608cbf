"""Every public operation, small and repeatable; it checks its own answer.

For interrupts.py and growth.py.

An operation is a function of a `World`. It raises `Wrong` if an answer is not what was promised.
Two worlds on one root, in two processes, see the same: their names and values are the same.
"""

import asyncio
import collections
import fcntl
import io
import os
import time

import efsstate
from efsstate import (
    AsyncCache,
    Cache,
    ClaimedError,
    ClaimLost,
    cached,
    checkpoint,
    dataset,
    metrics,
)

KEYS = 8  # of each cache, so that hits, misses and changes meet
PARTS = 40  # of a dataset, until another one is begun


class Wrong(AssertionError):  # noqa: N818 - what it says of an answer
    """An answer that nobody may get."""


def require(condition, text):
    if not condition:
        raise Wrong(text)


def value(key):
    """Return the only value that is ever stored under `key`."""
    return {"key": key, "pad": f"{key}" * 300}


def work(key):
    """Compute it: the cached functions' own."""
    return value(key)


async def work_async(key):
    return value(key)


class World:
    """The caches, jobs and models of one root, and what their states may be."""

    def __init__(self, root, chance):
        self.root, self.chance = root, chance
        self.cache = Cache("values", root=root)
        self.disk = Cache("flat", root=root, memory=0)
        self.timed = Cache("timed", root=root, io_timeout="20s")
        self.function = cached(name="function", root=root)(work)
        self.task = cached(name="task", root=root)(work_async)
        self.fresh = cached(name="fresh", root=root, memory=0)(work)
        self.tagged = cached(name="tagged", tags=_tags, root=root)(work)
        self.tasks = AsyncCache("tasks", root=root, memory=0)
        self.numbers = Cache("numbers", root=root, memory=0)
        self.model = efsstate.model("m", load=_load, check_every=0.001, root=root)
        self.staged = efsstate.model("m", load=_load, label="next", check_every=0.001, root=root)
        self.is_alone = True  # on its root
        self.job = None  # that is claimed now
        self.states = collections.defaultdict(lambda: {None})  # job -> what a load may give
        self.count = int(time.time() * 1000) % 10**9

    def key(self):
        return self.chance.randrange(KEYS)

    def next(self):
        self.count += 1
        return self.count

    def acknowledge(self, name, state):
        """A load gives `state` from now on, and no other, until the next save begins."""
        self.states[name].intersection_update({state})
        self.states[name].add(state)

    def prepare(self):
        """Publish the model; the other operations make what they need."""
        source = f"{self.root}.source"
        os.makedirs(source, exist_ok=True)
        with open(f"{source}/weights", "w") as file:
            file.write("w" * 5000)
        for version in ("a", "b"):
            with open(f"{source}/version", "w") as file:
                file.write(version)
            efsstate.publish("m", source, version=version, root=self.root)
        efsstate.activate("m", "a", label="next", root=self.root)

    def parts(self):
        """Return a dataset that has not many parts yet."""
        return dataset(f"parts{self.next() // PARTS}", root=self.root)


def _tags(key):
    return [f"tag{key % 2}"]


def _load(files):
    version = bytes(files.read("version")).decode()
    require(len(files.read("weights")) == 5000, "the weights of a model are not whole")
    require(version == files.version, f"version {files.version} has the file of {version}")
    return version


# The cache


def hit(world):
    key = world.key()
    require(world.function(key) == value(key), "a cached function gave another value")


def miss(world):
    key = world.next()
    require(world.fresh(key) == value(key), "a miss gave another value")


def refresh(world):
    key = world.key()
    require(world.function.refresh(key) == value(key), "a refresh gave another value")


def invalidate(world):
    world.function.invalidate(world.key())


def clear(world):
    world.function.cache_clear()


def peek(world):
    key = world.key()
    try:
        require(world.function.peek(key) == value(key), "peek gave another value")
    except KeyError:
        pass


def explain(world):
    world.function.explain(world.key())


def map_many(world):
    keys = [world.key() for _ in range(4)]
    require(list(world.function.map(keys)) == list(map(value, keys)), "map gave other values")


def task(world):
    key = world.key()
    require(asyncio.run(world.task(key)) == value(key), "a task gave another value")


def tasks(world):
    async def main():
        return await asyncio.gather(*[world.task(key) for key in range(4)])

    require(asyncio.run(main()) == [value(key) for key in range(4)], "tasks gave other values")


def put(world):
    key = world.key()
    world.cache.set(key, value(key))


def get(world):
    key = world.key()
    require(world.cache.get(key) in (None, value(key)), "get gave another value")


def get_fresh(world):
    key = world.key()
    require(world.disk.get(key, fresh=True) in (None, value(key)), "a fresh get gave another")


def put_disk(world):
    key = world.key()
    world.disk.set(key, value(key))
    require(world.disk.get(key) in (None, value(key)), "a value that was set is another")


def put_timed(world):
    key = world.key()
    world.timed.set(key, value(key))
    require(world.timed.get(key) in (None, value(key)), "a value that was set is another")


def add(world):
    key = world.key()
    world.cache.add(key, value(key))


def delete(world):
    world.cache.delete(world.key())


def many(world):
    keys = [world.key() for _ in range(3)]
    world.cache.set_many({key: value(key) for key in keys})
    found = world.cache.get_many(keys)
    require(all(found[key] == value(key) for key in found), "get_many gave other values")


def compute(world):
    key = world.key()
    require(world.disk.get_or_compute(key, lambda: value(key)) == value(key), "computed another")


def keys(world):
    require(set(world.cache.keys()) <= set(range(KEYS)), "a key that nobody set")


def put_tagged(world):
    key = world.key()
    world.cache.set(key, value(key), tags=[f"tag{key % 2}", "every"])
    require(world.tagged(key) == value(key), "a cached function with tags gave another value")


def invalidate_tag(world):
    """No value with the tag is there afterwards, unless another process puts it."""
    key = world.key()
    world.disk.set(key, value(key), tags=["gone"])
    world.disk.invalidate_tag("gone")
    allowed = (None,) if world.is_alone else (None, value(key))
    require(world.disk.get(key) in allowed, "a value outlived its tag")


def set_result(world):
    key = world.key()
    world.function.set(value(key), key)
    require(world.function(key) == value(key), "a result that was set is another")


def touch(world):
    world.cache.touch(world.key(), ttl="1h")


def pop(world):
    key = world.key()
    require(world.disk.pop(key, None) in (None, value(key)), "pop gave another value")


def increment(world):
    """The number that is there and one more; of an increment that was cut off nobody knows."""
    now = world.numbers.incr("n", 1)
    before, world.states["n"] = world.states["n"], {now}
    expected = {(number or 0) + more for number in before for more in (1, 2)}
    require(not world.is_alone or now in expected, f"incr gave {now}, after one of {before}")


def mutex(world):
    """Nobody else is inside of the `with`: neither a thread nor a process."""
    key = world.chance.randrange(2)
    with world.cache.lock(key, wait=20), open(f"{world.root}.inside{key}", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Wrong("two are inside of one mutex") from None
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child that is forked now has the file, too


def info(world):
    counts = world.cache.info()
    require(counts.hits >= 0, f"the counters are {counts}")
    world.function.cache_info()


def task_cache(world):
    key = world.key()

    async def main():
        await world.tasks.set(key, value(key))
        found = await world.tasks.get(key)
        await world.tasks.touch(key, ttl="1h")
        await world.tasks.delete(key)
        again = await world.tasks.get_or_compute(key, lambda: work_async(key))
        async with world.tasks.lock(key, wait=20):
            pass
        return found, again

    found, again = asyncio.run(main())
    require(found in (None, value(key)) and again == value(key), "a task got another value")


def measured(world):
    """Metrics count what is done, and are written at the end of an invocation."""
    stream = io.StringIO()
    stop = metrics.emf(stream=stream)
    try:
        with efsstate.invocation(seconds=60):
            hit(world)
    finally:
        stop()
    require("efsstate" in stream.getvalue(), "no metrics were written")


# Checkpoints


def _check_state(world, name, state):
    allowed = world.states[name]
    require(state in allowed, f"{name}: {state} was loaded, and only {allowed} may be")
    world.acknowledge(name, state)


def save(world):
    name = f"job{world.chance.randrange(2)}"
    try:
        with checkpoint(name, root=world.root, wait=5) as job:
            world.job = job
            _check_state(world, name, job.state)
            for _ in range(2):
                state = world.next()
                world.states[name].add(state)
                job.save(state)
                world.acknowledge(name, state)
    finally:
        world.job = None


def load(world):
    name = f"job{world.chance.randrange(2)}"
    _check_state(world, name, checkpoint(name, root=world.root).load())


def update(world):
    name, state = "updated", world.next()
    allowed = world.states[name].copy()
    world.states[name].add(state)
    before = []

    def change(old):
        before.append(old)
        return state

    checkpoint(name, root=world.root, wait=5).update(change)
    require(before[-1] in allowed, f"{name}: {before} was loaded, and only {allowed} may be")
    world.acknowledge(name, state)


def resume(world):
    """A job from its beginning to its end: each item is done once or, if it was cut off, again."""
    name = f"loop{world.chance.randrange(2)}"
    with checkpoint(name, root=world.root, wait=5) as job:
        if job.finished:
            require(job.state == 10, f"{name}: finished with {job.state}")
        for item in job.resume(range(5), every=2) if not job.finished else ():
            job.state = (job.state or 0) + item
        require(job.state == 10, f"{name}: came to its end with {job.state}")
    if world.chance.random() < 0.5:
        checkpoint(name, root=world.root, wait=5).reset()


def map_items(world):
    """The same by several threads at once, each item with its attempts."""
    name = f"map{world.chance.randrange(2)}"
    with checkpoint(name, root=world.root, wait=5) as job:
        if job.finished:
            require(job.state == 20, f"{name}: finished with {job.state}")
        else:
            for twice in job.map(_double, range(5), workers=2, attempts=10**6):
                job.state = (job.state or 0) + twice
        require(job.state == 20, f"{name}: came to its end with {job.state}")
        require(not job.skipped, f"{name}: {job.skipped} were skipped")
    if world.chance.random() < 0.5:
        checkpoint(name, root=world.root, wait=5).reset()


def _double(item):
    return 2 * item


def finish(world):
    """A job that has a result keeps it until it is started over."""
    name = f"result{world.chance.randrange(2)}"
    with checkpoint(name, root=world.root, wait=5) as job:
        if job.finished:
            require(job.result == "done", f"{name}: finished with {job.result}")
        else:
            job.finish("done")
    job = checkpoint(name, root=world.root, wait=5)
    job.load()
    require(job.finished or not world.is_alone, f"{name}: it is not finished any more")
    if world.chance.random() < 0.5:
        job.reset()


def break_claim(world):
    """The owner of a broken claim saves no more; the next one goes on from what was kept."""
    name, state = "broken", world.next()
    world.states[name].add(state)
    try:
        with checkpoint(name, root=world.root, wait=5) as job:
            job.save(state)
            checkpoint(name, root=world.root).break_claim()
            job.save(-1)
            raise Wrong(f"{name}: the owner of a broken claim saved")
    except BUSY:
        pass
    if world.is_alone:
        _check_state(world, name, checkpoint(name, root=world.root).load())


def status(world):
    checkpoint("job0", root=world.root).status()


def shards(world):
    name = f"parts{world.chance.randrange(2)}"
    with checkpoint(name, root=world.root).shards(2) as parts:
        for part in parts:
            for item in part.resume(range(3)):
                part.state = (part.state or 0) + item
            require(part.state == 3, f"{name}: a shard came to its end with {part.state}")
    if parts.progress().finished and world.chance.random() < 0.5:
        checkpoint(name, root=world.root).reset()


def grow_shards(world):
    """A job that gets more shards keeps the results of those that it had."""
    name = f"grown{world.next() // PARTS}"
    size = world.chance.randrange(1, 4)
    try:
        checkpoint(name, root=world.root).shards(size).grow(size + 1)
    except efsstate.ShardsError:
        pass  # it has more already
    with checkpoint(name, root=world.root).shards() as parts:
        for part in parts:
            part.finish(part.index)
        if world.is_alone and parts.progress().finished:  # else another process adds shards
            require(parts.results() == list(range(len(parts))), f"{name}: {parts.results()}")


# Datasets


def add_part(world):
    """A key has one part, with the bytes of who was first."""
    data, key = world.parts(), f"{os.getpid()}-{world.next()}"
    part = data.add(key.encode() * 300, ".txt", key=key)
    require(key in data, f"{data.name}: a part that was added is missing")
    again = data.add(b"another", ".txt", key=key)
    require(not again.added and again.name == part.name, f"{data.name}: a key has two parts")


def write_part(world):
    """A part that another library writes by its path."""
    data = world.parts()
    with data.part(".bin") as path, open(path, "wb") as file:
        file.write(b"w" * 3000)
    require(os.path.getsize(path.part.path) == 3000, f"{data.name}: a part is not whole")


def freeze(world):
    """A snapshot has all parts that were there before, whole, and is the same for ever."""
    data, name = world.parts(), f"snapshot{world.chance.randrange(3)}"
    own = f"{os.getpid()}-{world.next()}"
    part = data.add(b"f" * 100, key=own)
    mine = data.freeze(own)
    require(part.name in mine.names, f"{data.name}: a part is missing in a snapshot")
    try:
        list(mine.read(mine.order(seed=1)[:3], ahead=2))
    except (
        efsstate.PartRemoved
    ) as error:  # another process adds a part, and removes it, beside the freeze
        require(not world.is_alone and part.name not in str(error), f"{data.name}: {error}")
    shared = data.freeze(name)
    require(data.at(name).names == shared.names, f"{data.name}: a snapshot has changed")
    require(name in data.snapshots(), f"{data.name}: a snapshot is not listed")
    require(data.forget(mine.name), f"{data.name}: a snapshot can't be forgotten")


def remove_part(world):
    """A key that was removed never comes back."""
    data, key = world.parts(), f"{os.getpid()}-{world.next()}"
    data.add(b"r" * 100, key=key)
    require(data.remove(key), f"{data.name}: a part that was added can't be removed")
    require(data.add(b"again", key=key).removed, f"{data.name}: a removed key came back")
    for part in data.prune(older_than="365d"):
        raise Wrong(f"{data.name}: a young part was pruned: {part}")


# Models and the sweep


def serve(world):
    require(world.model() in ("a", "b"), "a model that nobody published")


def activate(world):
    efsstate.activate("m", world.chance.choice("ab"), root=world.root)


def publish(world):
    source = f"{world.root}.source-{os.getpid()}"
    os.makedirs(source, exist_ok=True)
    for name in ("weights", "more"):
        with open(f"{source}/{name}", "w") as file:
            file.write(f"{os.getpid()}" * 1000)  # two publications of one content share a folder
    efsstate.publish("n", source, version=f"{os.getpid()}-{world.next()}", root=world.root)
    # Without a grace, a prune by another process takes a version before it is activated.
    efsstate.prune("n", keep=1, grace=0 if world.is_alone else "1h", root=world.root)


def label(world):
    efsstate.activate("m", world.chance.choice("ab"), label="next", root=world.root)
    require(world.staged() in ("a", "b"), "a label names what nobody published")


def canary(world):
    efsstate.activate("m", world.chance.choice("ab"), share=0.5, root=world.root)
    require(world.model() in ("a", "b"), "a share of the hosts has what nobody published")


def rollback(world):
    try:
        efsstate.rollback("m", root=world.root)
    except efsstate.EfsStateError:
        pass  # no other version was active before
    require(world.model() in ("a", "b"), "a roll-back to what nobody published")


def check(world):
    problems = efsstate.verify("m", root=world.root)
    require(not problems, f"a model is damaged: {problems}")
    require("m" in efsstate.models(root=world.root), "a model is not listed")


def remove_model(world):
    name, source = f"old{os.getpid()}", f"{world.root}.source"
    efsstate.publish(name, source, root=world.root)
    efsstate.remove(name, root=world.root)
    require(name not in efsstate.models(root=world.root), "a model was removed, and is listed")


def versions(world):
    there = {version.id for version in efsstate.versions("m", root=world.root)}
    require(there == {"a", "b"}, f"versions a and b are there, and {there} is listed")


def sweep(world):
    report = efsstate.sweep(root=world.root, budget="5s")
    require(report.errors == 0, f"a sweep met errors: {report.error_texts[:2]}")


OPERATIONS = {
    function.__name__: function
    for function in (
        hit, miss, refresh, invalidate, clear, peek, explain, map_many, task, tasks,
        put, get, get_fresh, put_disk, put_timed, add, delete, many, compute, keys,
        put_tagged, invalidate_tag, set_result, touch, pop, increment, mutex, info, task_cache,
        measured, save, load, update, resume, map_items, finish, break_claim, status, shards,
        grow_shards, add_part, write_part, freeze, remove_part,
        serve, activate, label, canary, rollback, check, publish, remove_model, versions, sweep,
    )
}  # fmt: skip
BUSY = (ClaimedError, ClaimLost)  # what an operation may raise while another process is at work
