"""Runs under strace: one subject's operations, each kind between two marks."""

import sys

from benchmarks import checkpoints, subjects
from benchmarks.processes import mark

COUNT = 64


def traced(name, operation, arguments):
    mark(f"begin-{name}")
    for argument in arguments:
        operation(argument)
    mark(f"end-{name}")


def main(kind, name, folder):
    if kind == "cache":
        subject = subjects.BY_NAME[name]
        writer = subject(folder)
        for i in range(2 * COUNT):
            writer.put(f"key-{i}")
        reader = subject(folder)
        for i in range(COUNT):
            reader.hit(f"key-{i}")
        traced("hit", reader.hit, [f"key-{i}" for i in range(COUNT, 2 * COUNT)])
        writer.miss("warm")
        traced("put", writer.put, [f"put-{i}" for i in range(COUNT)])
        traced("miss", writer.miss, [f"miss-{i}" for i in range(COUNT)])
    else:
        checkpoints.trace(checkpoints.BY_NAME[name](folder), traced)


if __name__ == "__main__":
    main(*sys.argv[1:])
