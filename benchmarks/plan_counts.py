"""Count the requests, by kind, and the bytes on NFS of each operation that a plan knows.

    python -m tests.nfs.lab -- python -m benchmarks.plan_counts /mnt/a /mnt/b

Client a writes, client b reads what a wrote. The folders are known to both, and nothing is held in
memory. `python -m benchmarks.plan_against_reality --count` runs it in the lab.
"""

import json
import os
import sys
import tempfile

from benchmarks import measure

WARM = 128  # entries that are read and written before: each folder is known then
SIZES = {1 << 10: 64, 100 << 10: 16, 1 << 20: 8}  # bytes of an entry or a state: how many
MODELS = {1 << 20: 1, 16 << 20: 1}


def counted(requests, operation, arguments):
    """Return the requests by operation, and the bytes, of `operation` on each argument."""
    before, volume = requests.settled(), requests.volume()
    for argument in arguments:
        operation(argument)
    after, moved = requests.settled(), requests.volume()
    return {
        "operations": len(arguments),
        "by_operation": {
            name: after[name] - before.get(name, 0)
            for name in after
            if after[name] != before.get(name, 0)
        },
        "bytes": {name: moved[name] - volume[name] for name in moved},
    }


def entries(a, b, requests):
    """Yield the puts, hits and misses of entries of each size."""
    from efsstate import Cache, cached

    writer, reader = (Cache("entries", memory=0, root=root) for root in (a, b))
    compute = cached(name="computed", memory=0, root=a)(os.urandom)
    for number in range(WARM):
        writer.set(number, b"x")
        compute(number)
    for number in range(WARM):
        reader.get(number)
    for size, count in SIZES.items():
        values = {f"{size}-{number}": os.urandom(size) for number in range(count)}
        puts = counted(requests["a"], lambda key, of=values: writer.set(key, of[key]), [*values])
        yield {"field": "puts", "size": size, **puts}
        hits = counted(requests["b"], reader.get, [*values])
        yield {"field": "hits", "size": size, **hits}
        # Each length is a call of its own, and so a miss.
        misses = counted(requests["a"], compute, range(size, size - count, -1))
        yield {"field": "misses", "size": size, **misses}


def saves(a, requests):
    """Yield the saves of states of each size, each of which removes the oldest."""
    from efsstate import checkpoint

    for size, count in SIZES.items():
        with checkpoint(f"saves/{size}", root=a) as job:
            for _ in range(8):
                job.save(os.urandom(size))
            states = [os.urandom(size) for _ in range(count)]
            yield {"field": "saves", "size": size, **counted(requests["a"], job.save, states)}


def loads(a, b, requests):
    """Yield the first load of models of each size, by an environment that has just started."""
    from efsstate import model, publish

    for size in MODELS:
        with tempfile.NamedTemporaryFile(dir="/tmp") as file:  # on no NFS mount
            file.write(os.urandom(size))
            file.flush()
            publish(f"model-{size}", file.name, root=a)
        load = model(f"model-{size}", load=lambda files: len(files.read()), root=b)
        yield {
            "field": "cold_starts",
            "size": size,
            **counted(requests["b"], lambda _: load(), [0]),
        }


def main(a, b):
    """Print the counts as JSON."""
    folder = "plan-" + os.urandom(4).hex()
    a, b = f"{a}/{folder}", f"{b}/{folder}"
    os.mkdir(a)
    os.stat(b)
    requests = {"a": measure.Requests(a), "b": measure.Requests(b)}
    if not all(each.counted for each in requests.values()):
        sys.exit("plan_counts: these are no NFS mounts, so that requests cannot be counted")
    rows = [*entries(a, b, requests), *saves(a, requests), *loads(a, b, requests)]
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:3])
