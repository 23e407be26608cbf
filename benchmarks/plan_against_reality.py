"""Print the requests that `efsstate plan` predicts, beside those that the benchmarks counted.

    python -m benchmarks.plan_against_reality [FIGURES]

The counts are those of `benchmarks/figures.json`, or of a file that `python -m benchmarks --json`
wrote, of its runs on NFS. Reads and writes of data cost more than other requests on Elastic
throughput, so they are compared by kind. Last it times the simulation of a year of minutes.
"""

import json
import os
import sys
import time

from benchmarks import text
from efsstate.planning import bursting, measured, rates
from efsstate.planning.workload import Workload

FIGURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "figures.json")
# The row of the benchmarks, what is measured, and the field of a workload that stands for it.
ROWS = (
    ("hit", "efsstate `cached`", "hits"),
    ("put", "efsstate `Cache`", "puts"),
    ("miss", "efsstate `cached`", "misses"),
    ("save", "efsstate `checkpoint`", "saves"),
)


def planned(field, count):
    """Requests that read data, that write data, and others, of `count` operations of a kind."""
    work = Workload(**{field: float(count)})
    reads = sum(each for each, _ in work.data_reads)
    writes = sum(each for each, _ in work.data_writes)
    return reads, writes, work.metadata_reads + work.metadata_writes


def counted(figure):
    """The same, as the client's kernel counted them."""
    operations = figure["by_operation"]
    reads, writes = operations.get("READ", 0), operations.get("WRITE", 0)
    return reads, writes, sum(operations.values()) - reads - writes


def compare(figures):
    """Yield (operation, count, planned, counted); the last two by kind, in all three parts."""
    for row, subject, field in ROWS:
        for figure in figures:
            if (figure["row"], figure.get("subject")) == (row, subject) and "requests" in figure:
                count = figure["operations"]
                yield field, count, planned(field, count), counted(figure)


def year():
    """Return the seconds to simulate a year of minutes, none of which is like another."""
    account = bursting.of_storage(100 << 30, rates.shipped())
    demand = [(minute * 7919 % 1009) * 600_000.0 for minute in range(525_600)]
    start = time.perf_counter()
    result = bursting.simulate(account, demand)
    assert len(result.balance) == 365 * 24
    return time.perf_counter() - start


def main(path=FIGURES):
    with open(path) as file:
        runs = json.load(file)["runs"]
    rows = []
    for run in runs:
        for field, count, plan, reality in compare(run["figures"]):
            name = f"{count} {field}, {run['place']} {run.get('delay', '')}".rstrip()
            both = [f"{a:g} / {b:g}" for a, b in zip(plan, reality, strict=True)]
            total = f"{measured.REQUESTS[field] * count:,} / {sum(reality):,}"
            rows.append([name, *both, total])
    heads = ["planned / counted", "reads of data", "writes of data", "other requests", "all"]
    print(text.table(heads, rows))
    print(f"\na year of minutes, each of its own, is simulated in {year():.2f} s")


if __name__ == "__main__":
    main(*sys.argv[1:2])
