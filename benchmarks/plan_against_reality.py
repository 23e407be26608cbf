"""Print the requests and bytes that `efsstate plan` predicts beside those counted on NFS.

    python -m benchmarks.plan_against_reality [FIGURES]
    python -m benchmarks.plan_against_reality --count      count again, in the NFS lab

The requests are those of `benchmarks/figures.json`, or of a file that `python -m benchmarks --json`
wrote, of its runs on NFS. Reads and writes of data cost more than other requests on Elastic
throughput, so they are compared by kind.

The bytes are those of `benchmarks/plan_figures.json`, which `--count` writes: of data as READ and
WRITE moved them, of all that was on the wire, and metered by EFS's rules. The lab cannot tell two
things: the sizes of single requests (the mean stands for each), and which OPEN and CLOSE read and
which write (they are divided as in the plan). Last it times the simulation of a year of minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from benchmarks import machine, text
from efsstate.planning import bursting, cost, measured, rates
from efsstate.planning.workload import Workload

HERE = os.path.dirname(os.path.abspath(__file__))
FIGURES = os.path.join(HERE, "figures.json")
BYTES = os.path.join(HERE, "plan_figures.json")
# The row of the benchmarks, what is measured, and the field of a workload that stands for it.
ROWS = (
    ("hit", "efsstate `cached`", "hits"),
    ("put", "efsstate `Cache`", "puts"),
    ("miss", "efsstate `cached`", "misses"),
    ("save", "efsstate `checkpoint`", "saves"),
)
# The field with the bytes that each operation moves.
SIZES = {"hits": "entry", "puts": "entry", "misses": "entry", "saves": "state"}
SIZES |= {"cold_starts": "model"}


def by_kind(work):
    """Requests of a workload that read data, that write data, and others."""
    reads = sum(count for count, _ in work.data_reads)
    writes = sum(count for count, _ in work.data_writes)
    return reads, writes, work.metadata_reads + work.metadata_writes


def planned(field, count):
    """Requests that read data, that write data, and others, of `count` operations of a kind."""
    return by_kind(Workload(**{field: float(count)}))


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


def works(figure):
    """Return the workload that was planned for a count, and that of its requests and bytes."""
    field, operations = figure["field"], figure["operations"]
    plan = Workload(**{field: float(operations), SIZES[field]: figure["size"]})
    reads, writes, others = counted(figure)
    moved = figure["bytes"]
    read_only = plan.metadata_reads / (plan.metadata_reads + plan.metadata_writes)
    reality = Workload(
        reads=reads,
        read_size=moved["read"] // reads if reads else 0,
        writes=writes,
        write_size=moved["written"] // writes if writes else 0,
        other_reads=others * read_only,
        other_writes=others * (1 - read_only),
    )
    return plan, reality


def amounts(work):
    """Return the bytes of data of a workload, those that Elastic meters, and those of Bursting."""
    data = sum(count * size for count, size in [*work.data_reads, *work.data_writes])
    table = rates.shipped()
    return data, sum(cost.elastic_traffic(work, table)), cost.metered_bursting(work, table)


def compare_bytes(figures):
    """Yield (figure, planned, counted) of each count; the last two as of `amounts`."""
    for figure in figures:
        plan, reality = works(figure)
        data = figure["bytes"]["read"] + figure["bytes"]["written"]
        yield figure, amounts(plan), (data, *amounts(reality)[1:])


def year():
    """Return the seconds of CPU time to simulate a year of minutes, each unlike the others."""
    account = bursting.of_storage(100 << 30, rates.shipped())
    demand = [(minute * 7919 % 1009) * 600_000.0 for minute in range(525_600)]
    start = time.process_time()
    result = bursting.simulate(account, demand)
    assert len(result.balance) == 365 * 24
    return time.process_time() - start


def count():
    """Count in the NFS lab, and write the counts with the machine and the date."""
    command = [*machine.command()[:1], "-m", "benchmarks.plan_counts", "/mnt/a", "/mnt/b"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.nfs.lab", "--", *command],
        cwd=os.path.dirname(HERE),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if run.returncode:
        sys.exit(f"plan_against_reality: the lab's run ended with {run.returncode}")
    rows = next(line for line in run.stdout.splitlines() if line.startswith("[{"))
    lines = ",\n".join(f"  {json.dumps(row)}" for row in json.loads(rows))
    host = machine.describe()
    about = json.dumps(
        {"cpu": f"User Mode Linux on {host['cpu']}", "python": host["python"], "date": host["date"]}
    )
    with open(BYTES, "w") as file:
        file.write(f'{{\n "machine": {about},\n "figures": [\n{lines}\n ]\n}}\n')


def print_requests(runs):
    """Print the requests by kind."""
    rows = []
    for run in runs:
        for field, operations, plan, reality in compare(run["figures"]):
            name = f"{operations} {field}, {run['place']} {run.get('delay', '')}".rstrip()
            both = [f"{a:g} / {b:g}" for a, b in zip(plan, reality, strict=True)]
            total = f"{measured.REQUESTS[field] * operations:,} / {sum(reality):,}"
            rows.append([name, *both, total])
    heads = ["planned / counted", "reads of data", "writes of data", "other requests", "all"]
    print(text.table(heads, rows))


def print_bytes(result):
    """Print the bytes of data, those on the wire, and those that EFS would meter."""
    rows = []
    for figure, plan, reality in compare_bytes(result["figures"]):
        what = figure["field"].replace("_", " ")
        name = f"{figure['operations']} {what} of {figure['size'] >> 10:,} KiB"
        both = [f"{a:,.0f} / {b:,.0f}" for a, b in zip(plan, reality, strict=True)]
        off = f"{100 * (plan[1] / reality[1] - 1):+.1f} %"
        wire = figure["bytes"]["sent"] + figure["bytes"]["received"]
        rows.append([name, both[0], f"{wire:,}", both[1], off, both[2]])
    heads = ["planned / counted, bytes", "data", "on the wire", "metered on Elastic", "off"]
    print(text.table([*heads, "on Bursting"], rows))
    print(f"\ncounted on {result['machine']['date']}")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plan_against_reality", description=__doc__.splitlines()[0]
    )
    parser.add_argument("figures", nargs="?", default=FIGURES, help="of `python -m benchmarks`")
    parser.add_argument("--count", action="store_true", help="count the bytes again, in the lab")
    options = parser.parse_args()
    if options.count:
        count()
    with open(options.figures) as file:
        print_requests(json.load(file)["runs"])
    print()
    with open(BYTES) as file:
        print_bytes(json.load(file))
    print(f"a year of minutes, each of its own, is simulated in {year():.2f} s of CPU time")


if __name__ == "__main__":
    main()
