"""Growth: each operation again and again, in each of its states; nothing may grow with the number.

What is measured, for each state, at its beginning and at its end: descriptors, memory, files on the
mount, threads, and system calls of one operation (exactly, by os's functions that it calls).

python -m tests.torture.growth TIMES [STATE …]
"""

import collections
import gc
import logging
import os
import random
import sys
import tempfile
import time

import efsstate
from efsstate import ClaimedError, checkpoint, process
from tests.torture import operations
from tests.torture.operations import OPERATIONS, World

ROOM = 3 << 20  # bytes that the heap may grow by, whatever the number
LEAST = 200  # operations, at the least, before anything is compared
FOLDERS = 40  # descriptors that may be opened meanwhile: of folders, to a bound
CALLS = 1.1  # times as many system calls as at the beginning, and two more


class Stop(Exception):  # noqa: N818 - what ends a loop
    """What a user's code raises."""


# The states: functions of a world, each of which leaves the state as it was


def hit_in_memory(world):
    operations.require(world.function(1) == operations.value(1), "another value")


def hit_on_disk(world):
    operations.require(world.fresh(1) == operations.value(1), "another value")


def set_again(world):
    world.cache.set(1, operations.value(1))


def computed_and_raised(world):
    """A computation that fails leaves nothing: no draft, no lock, no flight."""

    def fail():
        raise Stop

    try:
        world.disk.get_or_compute("never", fail)
    except Stop:
        pass


def computed_and_not_stored(world):
    world.unstored(1)


def invalidated_and_computed(world):
    world.fresh.invalidate(2)
    world.fresh(2)


def cleared(world):
    world.cleared.clear()


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
    try:
        with checkpoint("held", root=world.root):
            raise AssertionError("two have one claim")
    except ClaimedError:
        pass


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


def loaded(world):
    checkpoint("saved", root=world.root).load()


def loaded_of_nobody(world):
    checkpoint("nobody", root=world.root).load()


def all_shards_finished(world):
    with checkpoint("parts", root=world.root).shards(2) as parts:
        for part in parts:
            part.finish()


def model_served(world):
    world.model()


def model_missing(world):
    try:
        efsstate.model("missing", load=operations.work, root=world.root)()
    except efsstate.ModelNotFound:
        pass


def activated_again(world):
    efsstate.activate("m", "a", root=world.root)


def published_again(world):
    operations.publish(world)


def swept_again(world):
    efsstate.sweep(root=world.root, budget="5s")


# state: how many of the whole number, for those that take long
STATES = {
    hit_in_memory: 1, hit_on_disk: 1, set_again: 1, computed_and_raised: 1,
    computed_and_not_stored: 1, invalidated_and_computed: 1, cleared: 1,
    saved: 1, never_saved: 1, broken: 1, refused: 1, finished: 1, started_over: 0.3,
    loaded: 1, loaded_of_nobody: 1, all_shards_finished: 0.3,
    model_served: 1, model_missing: 1, activated_again: 0.3, published_again: 0.1,
    swept_again: 0.02,
}  # fmt: skip


def prepare(world):
    """Make the states that the operations begin from; return what has to be kept until the end."""
    world.prepare()
    world.unstored = efsstate.cached(name="unstored", cache_if=lambda _: False, root=world.root)(
        operations.work
    )
    world.cleared = efsstate.Cache("cleared", root=world.root)
    world.cleared.set(1, 1)
    holder = checkpoint("held", root=world.root)
    holder.__enter__()
    for name in ("put", "hit"):
        OPERATIONS[name](world)
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


def measured(operation, world):
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


def state_of(operation, world, times, until=float("inf")):
    """Return (figures, what has grown) of one state."""
    name, rows = operation.__name__, []
    for _ in range(LEAST):
        operation(world)
    before = measured(operation, world)
    count = 0
    while count < times and time.monotonic() < until:
        for _ in range(50):
            operation(world)
        count += 50
    after = measured(operation, world)
    rows += grown(name, before, after)
    return {"times": count, "before": before, "after": after}, rows


def play(times, seconds=float("inf"), names=()):
    """Return ({state: figures}, what has grown): each state so often, and all within `seconds`."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    logging.disable(logging.CRITICAL)
    until = time.monotonic() + seconds
    chosen = {
        state: share for state, share in STATES.items() if not names or state.__name__ in names
    }
    found, wrong = {}, []
    try:
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            os.makedirs(f"{folder}/root", 0o700)
            world = World(f"{folder}/root", random.Random(0))
            holder = prepare(world)
            for number, (state, share) in enumerate(chosen.items()):
                remaining = (until - time.monotonic()) / (len(chosen) - number)
                figures, texts = state_of(state, world, times * share, time.monotonic() + remaining)
                found[state.__name__] = figures
                wrong += texts
            holder.__exit__(None, None, None)
            process.reset()
    finally:
        logging.disable(logging.NOTSET)
    return found, wrong


def run(seconds, _seed):
    """A hundred thousand times each, if there is time for so many."""
    found, wrong = play(100_000, seconds)
    for text in wrong:
        print(f"growth: VIOLATION: {text}", flush=True)
    return {
        "violations": len(wrong),
        "states": len(found),
        "operations": sum(figures["times"] for figures in found.values()),
        "rows": found,
    }


def main(times, *names):
    found, wrong = play(int(times), names=names)
    for name, figures in found.items():
        print(f"{name:<26} {figures['times']:>7}  {figures['before']}\n{'':<35} {figures['after']}")
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
