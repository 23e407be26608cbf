"""Print the walk of a hit, a miss, a save, a load and a publish: each call of our own functions.

Usage: python scripts/walks.py [WALK ...]     with --count, only the numbers

They are the calls, the files that a reader opens, and those of them that call into another one.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from tests.calls import Calls

from efsstate import Cache, cached, checkpoint, model, publish


def walks(root: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each walk's name with a function that takes it once; each was taken once before."""
    square = cached(name="square", root=root)(lambda number: number * number)
    lean = cached(name="lean", root=root, memory=0)(lambda number: [number])
    lists = cached(name="lists", root=root)(lambda number: [number])
    store = Cache("store", root=root)
    for function in (square, lean, lists):
        function(0), function(0)
    store.set("key", "value")
    yield "memory-hit", lambda: square(0)
    yield "mount-hit", lambda: lean(0)
    yield "miss", lambda: lists(1)
    yield "invalidate", lambda: lists.invalidate(1)
    yield "set", lambda: store.set("key", "value")
    with checkpoint("job", root=root) as job:
        job.save({"rows": 1})
        yield "save", lambda: job.save({"rows": 2})
    yield "load", lambda: checkpoint("job", root=root).load()
    source = os.path.join(root, "weights.bin")
    for version in range(3):
        pathlib.Path(source).write_bytes(b"weights" * (version + 1))
        if version < 2:
            publish("net", source, root=root)
    yield "publish", lambda: publish("net", source, root=root)
    network = model("net", load=lambda files: files.names, root=root)
    yield "model", network


def main() -> None:
    """Print the walks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("walk", nargs="*", help="the walks to print; all of them if none is named")
    parser.add_argument("--count", action="store_true", help="print only the numbers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        for name, walk in walks(root):
            with Calls() as calls:
                walk()
            if options.walk and name not in options.walk:
                continue
            directors = len(calls.directors)
            print(f"{name}: {len(calls)} calls in {len(calls.files)} files, {directors} direct it")
            if not options.count:
                print("".join(f"    {call}\n" for call in calls.names), end="")


if __name__ == "__main__":
    main()
