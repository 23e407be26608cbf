"""Budgets in time: a sweep of very many folders, or of a very large one, ends when it was told to.

Each call makes progress, so that a janitor with a small budget comes to the end of any root.

python -m tests.torture.budgets COUNT [namespaces shards models parts datasets]
"""

import logging
import os
import shutil
import sys
import tempfile
import time

import efsstate
import efsstate.process
from efsstate import Cache, checkpoint, dataset
from tests.torture import MEMORY

BUDGET = 0.2  # seconds of a call
LATE = 0.5  # seconds of the processor by which a call may be late: one folder's work
EXPIRED = 0.001  # seconds


def namespaces(root, count):
    """Make namespaces that have an expired entry each; return how many files are to go."""
    for number in range(count):
        Cache(f"n{number}", ttl=EXPIRED, memory=0, root=root).set("k", number)
        if not number % 500:
            efsstate.process.reset()  # descriptors: nobody has so many caches in a process
    return count


def shards(root, count):
    """Make a job whose shards have saves that are to go, and are not finished."""
    with checkpoint("job", root=root).shards(count) as parts:
        for part in parts:
            part.save(1)
            if part.index % 50 == 49 or count < 1000:
                part.save(2)
            efsstate.process.reset() if not part.index % 500 else None
    return 0


def models(root, count):
    """Make models of one file each, with a version beyond those that are kept."""
    source = f"{root}.source"
    os.makedirs(source, exist_ok=True)
    for number in range(count):
        with open(f"{source}/w", "w") as file:
            file.write(str(number))
        efsstate.publish(f"m{number}", source, version="a", root=root)
    shutil.rmtree(source)
    return 0


def parts(root, count):
    """Make a dataset of so many parts, with snapshots: one of all, others that have expired."""
    data = dataset("data", root=root)
    first = data.add(b"0", key="0")
    for number in range(1, count):
        data.add(b"%d" % number, key=f"{number}")
    data.freeze("all")
    for number in range(count // 10):
        data.freeze(f"passing {number}", parts=[first], ttl=EXPIRED)
    return count // 10


def datasets(root, count):
    """Make datasets of one part, each with a snapshot that has expired."""
    for number in range(count):
        data = dataset(f"d{number}", root=root)
        data.freeze("passing", parts=[data.add(b"1")], ttl=EXPIRED)
        if not number % 500:
            efsstate.process.reset()
    return count


KINDS = {function.__name__: function for function in (namespaces, shards, models, parts, datasets)}


def play(kind, count):
    """Return (figures, what is wrong) of sweeps over `count` of a kind."""
    wrong, longest, calls, removed, folders = [], 0.0, 0, 0, 0
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        root = f"{folder}/root"
        os.makedirs(root, 0o700)
        going = KINDS[kind](root, count)
        time.sleep(2 * EXPIRED)
        started = time.monotonic()
        efsstate.sweep(root=root, dry_run=True)
        whole = time.monotonic() - started
        most = 50 + int(20 * whole / BUDGET)
        while calls < most:
            # Of the processor's time: nothing waits here, and others may use the machine.
            began = time.process_time()
            report = efsstate.sweep(root=root, budget=BUDGET)
            took = time.process_time() - began
            calls, longest = calls + 1, max(longest, took)
            removed, folders = removed + report.removed, folders + report.folders
            if report.errors:
                wrong.append(f"{kind}: errors: {report.error_texts[:2]}")
            if not (report.folders or report.finished):
                wrong.append(f"{kind}: call {calls} did nothing in {took:.2f} s")
            if took > BUDGET + LATE:
                wrong.append(f"{kind}: call {calls} took {took:.2f} s of a budget of {BUDGET} s")
            if report.finished or len(wrong) > 5:
                break
        else:
            wrong.append(f"{kind}: not at its end after {calls} calls of {BUDGET} s")
        if removed < going:
            wrong.append(f"{kind}: {removed} of {going} expired entries went")
        efsstate.process.reset()
    figures = {"count": count, "calls": calls, "longest": round(longest, 3), "folders": folders}
    return figures | {"removed": removed, "whole": round(whole, 2)}, wrong


def run(_seconds, _seed, count=10_000):
    """All kinds."""
    logging.disable(logging.CRITICAL)
    rows, wrong = {}, []
    for kind in KINDS:
        rows[kind], texts = play(kind, count)
        wrong += texts
    for text in wrong:
        print(f"budgets: VIOLATION: {text}", flush=True)
    longest = max(row["longest"] for row in rows.values())
    return {"violations": len(wrong), "count": count, "longest_s": longest, "rows": rows}


def main(count, *kinds):
    logging.disable(logging.CRITICAL)
    bad = False
    for kind in kinds or KINDS:
        figures, wrong = play(kind, int(count))
        print(kind, figures, *wrong[:6], sep="\n  ", flush=True)
        bad = bad or bool(wrong)
    sys.exit(bad)


if __name__ == "__main__":
    main(*sys.argv[1:])
