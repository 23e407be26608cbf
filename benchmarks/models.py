"""The model rows: one large file, written by a, read by b into memory in every way there is.

The cache is cold each time.
"""

import contextlib
import gc
import importlib
import os
import random
import resource
import statistics
import time

from benchmarks import measure, processes, ways

SIZE, TENSORS = 128 << 20, 8
LONGEST = 300  # seconds of one read, on a machine that has other work
TAKING_PART = (
    "torch",
    "safetensors.torch",
    "safetensors.numpy",
    "runai_model_streamer",
    "fastsafetensors",
)


def write(path):
    """Make a safetensors file of SIZE bytes of tensors, which every reader can read.

    And publish it.
    """
    from safetensors.numpy import save_file

    from efsstate import publish

    save_file(_tensors(), path)
    publish(ways.NAME, path, root=os.path.dirname(path))
    yield {}


def import_all(names):
    """Import modules; one that is missing fails at its turn."""
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def prepare(folder):
    """Import all that takes part before the clock starts."""
    import_all(TAKING_PART)
    from efsstate import model, publish

    with open(f"{folder}/small", "wb") as file:
        file.write(b"x")
    publish("small", f"{folder}/small", root=folder)
    model("small", load=lambda files: (files.read(), files.mmap()), root=folder)()


def cold(path):
    """Have nothing of the file in this host's page cache."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("1")
    except OSError:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def one(name, path, requests):
    """One read of the file in a process of its own: rate, memory, requests."""
    read = (ways.ALL | ways.BY_HAND)[name][0]
    cold(path)
    before, memory = requests.settled(), measure.resident()
    start = time.perf_counter()
    kept = read(path)
    seconds = kept.seconds if isinstance(kept, ways.Timed) else time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    after = requests.settled()
    yield {
        "seconds": seconds,
        "copies": (peak - memory) / SIZE,
        "requests": sum(after.values()) - sum(before.values()),
        "kept": bool(len(kept)),
        "usable": read not in ways.TENSORS or _usable(kept),
    }


def _usable(kept):
    """Whether every tensor is there, and the first and the last byte for byte what was written."""
    import numpy as np

    if sorted(kept) != sorted(f"t{i}" for i in range(TENSORS)):
        return False
    tensors = _tensors()
    return all(
        np.array_equal(np.asarray(kept[name]), tensors[name]) for name in ("t0", f"t{TENSORS - 1}")
    )


def _tensors():
    import numpy as np

    random = np.random.default_rng(1)
    return {
        f"t{i}": random.integers(0, 255, SIZE // TENSORS, dtype=np.uint8) for i in range(TENSORS)
    }


def rows(a, b, requests, *, rounds=12):
    """Measure each way `rounds` times, in an order that changes, each in a process of its own.

    The slow ones run in one round, and those that take seconds in every fourth.

    Rate and ratio (to `read()`) are of the best round. `of_tuned`, where a way was read in every
    round: the median of the rounds' ratios to the mix of threads and ranges by hand to which that
    median is the lowest.
    """
    written = processes.isolated(
        write, f"{a}/model.safetensors", timeout=LONGEST
    )  # elsewhere: nothing of it may lie in the readers' memory
    if "failed" in written[-1]:
        yield {"row": "model", "subject": "all", **written[-1]}
        return
    prepare(a)
    gc.collect()
    gc.freeze()
    every = ways.ALL | ways.BY_HAND
    found = {name: [] for name in every}
    failed = {}
    for turn in range(rounds):
        for name, (read, _) in random.sample(
            list(every.items()), len(every)
        ):  # in turn, each would follow the same one
            every_so_many = rounds if read in ways.SLOW else 4 if read in ways.PLAIN else 1
            if name not in failed and turn % every_so_many == 0:
                items = processes.isolated(
                    one, name, f"{b}/model.safetensors", requests, timeout=LONGEST
                )
                if "failed" in items[-1]:
                    failed[name] = items[-1]["failed"]
                elif not items[-1]["usable"]:
                    failed[name] = "its tensors are not those that were written"
                else:
                    found[name].append(items[-1])
    hands = [
        samples
        for name, samples in found.items()
        if name in ways.BY_HAND and len(samples) == rounds
    ]
    for name, samples in found.items():
        if name in failed:
            yield {"row": "model", "subject": name, "failed": failed[name]}
            continue
        # The best of each: another's work on this machine takes time from what is bound by the
        # processor, not from what waits.
        best = min(s["seconds"] for s in samples)
        yield {
            "row": "model by hand" if name in ways.BY_HAND else "model",
            "subject": name,
            "time": measure.spread([s["seconds"] for s in samples]),
            "rate": SIZE / best,
            "copies": max(s["copies"] for s in samples),
            "ratio": min(s["seconds"] for s in found["`read()`"]) / best,
            "of_tuned": min((_median_ratio(hand, samples) for hand in hands), default=None)
            if len(samples) == rounds
            else None,
            "requests": statistics.median(s["requests"] for s in samples)
            if requests.counted
            else None,
        }


def _median_ratio(samples, others):
    return statistics.median(
        one["seconds"] / other["seconds"] for one, other in zip(samples, others, strict=False)
    )
