"""Every public operation, small and repeatable; it checks its own answer.

For interrupts.py and growth.py.

An operation is a function of a `World`. It raises `Wrong` if an answer is not what was promised.
Two worlds on one root, in two processes, see the same: their names and values are the same.
"""

import asyncio
import collections
import os
import time

import efsstate
from efsstate import Cache, ClaimedError, ClaimLost, cached, checkpoint

KEYS = 8  # of each cache, so that hits, misses and changes meet


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
        self.model = efsstate.model("m", load=_load, check_every=0.001, root=root)
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
        save, load, update, resume, status, shards,
        serve, activate, publish, versions, sweep,
    )
}  # fmt: skip
BUSY = (ClaimedError, ClaimLost)  # what an operation may raise while another process is at work
