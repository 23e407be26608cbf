"""The command: `python -m benchmarks --all`, or `--root PATH` for any mount."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from benchmarks import machine, report, suite

HERE = os.path.dirname(os.path.abspath(__file__))
LAB_PARTS = {
    "300us": ["caches", "flat", "answers", "survival", "checkpoints", "updates", "sweep"],
    "3ms": ["many", "large", "models"],
}


def measured(root, other, parts, options):
    """Return one run on one root: the machine it was made on, and its figures.

    The file of `--json` has them after each part, so that a run that is ended early leaves some.
    """
    places = suite.Places(root, other, peers=not options.ours, words=options.subjects)
    run = {
        "machine": machine.describe(),
        "round_trip": suite.round_trip(places.b),
        "place": places.name,
        "figures": [],
    }
    started = time.monotonic()
    try:
        for part in parts:
            run["figures"] += suite.run(places, [part])
            run["seconds"] = time.monotonic() - started
            if options.json:
                save({"versions": machine.versions(), "runs": [run]}, options.json)
        return run
    finally:
        places.close()


def save(result, path):
    """Write the figures as JSON."""
    with open(path, "w") as file:
        json.dump(result, file, indent=1)


def in_lab(delay, parts, options):
    """The same in the NFS lab, with a delay."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/figures.json"
        ours = [*machine.command(), "--root", "/mnt/a", "--other", "/mnt/b", "--quiet"]
        ours += ["--only", ",".join(parts), "--json", out] + ["--ours"] * options.ours
        ours += [f"--subjects={','.join(options.subjects)}"] if options.subjects else []
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.nfs.lab",
                "--delay",
                delay,
                "--mem",
                "5G",
                "--writable",
                folder,
                "--",
                *ours,
            ],
            cwd=os.path.dirname(HERE),
        )
        if done.returncode:
            sys.exit(f"benchmarks: the lab's run ended with {done.returncode}")
        with open(out) as file:
            run = json.load(file)["runs"][0] | {"delay": delay}
        run["machine"]["cpu"] = f"User Mode Linux on {machine.describe()['cpu']}"
        return run


def runs(options, parts):
    """Yield the runs that were asked for: of one root, or in memory and in the lab."""
    if options.root:
        paths = [path and os.path.abspath(path) for path in (options.root, options.other)]
        yield measured(*paths, parts, options)
        return
    if not options.lab:
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            yield measured(folder, None, parts, options)
    for delay, lab_parts in LAB_PARTS.items():
        some = [part for part in lab_parts if part in parts]
        if some and options.lab in (None, delay):
            yield in_lab(delay, some, options)


def updated(old, new):
    """Return the old result with the figures of the parts that were measured again replaced."""
    fresh = {
        (run["place"], run.get("delay"), figure["part"])
        for run in new["runs"]
        for figure in run["figures"]
    }
    kept = []
    for run in old["runs"]:
        place = run["place"], run.get("delay")
        figures = [f for f in run["figures"] if (*place, f["part"]) not in fresh]
        kept += [run | {"figures": figures}] * bool(figures)
    return {"versions": old["versions"] | new["versions"], "runs": kept + new["runs"]}


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What each operation costs, beside bare system calls and the peers.",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="on a file system in memory and in the NFS lab; about half an hour",
    )
    parser.add_argument(
        "--root", metavar="PATH", help="a folder on any file system: tmpfs, the lab, real EFS"
    )
    parser.add_argument(
        "--other", metavar="PATH", help="the same folder through a second client's mount"
    )
    parser.add_argument(
        "--only",
        metavar="PARTS",
        default=",".join(suite.PARTS),
        help=f"some of {','.join(suite.PARTS)}",
    )
    parser.add_argument("--ours", action="store_true", help="leave the peers out")
    parser.add_argument(
        "--subjects",
        metavar="WORDS",
        default=[],
        type=lambda words: words.split(","),
        help="only those that have one of these words in their name",
    )
    parser.add_argument(
        "--lab",
        metavar="DELAY",
        choices=LAB_PARTS,
        help=f"only in the NFS lab, with that delay: {', '.join(LAB_PARTS)}",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--update",
        action="store_true",
        help="keep the figures of benchmarks/figures.json that are not measured again",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="write benchmarks/README.md, benchmarks/figures.json and docs/img/bench.svg",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="measure nothing: report on the figures in FILE",
    )
    parser.add_argument("--quiet", action="store_true", help="print no table")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(suite.PARTS):
        parser.error(
            f"--only: {', '.join(sorted(unknown))}: the parts are {', '.join(suite.PARTS)}"
        )
    if options.source:
        with open(options.source) as file:
            result = json.load(file)
    elif options.all or options.root or options.lab:
        result = {"versions": machine.versions(), "runs": list(runs(options, parts))}
    else:
        parser.error("--all, or --root PATH, or --lab DELAY, or --from FILE")
    if options.update:
        with open(os.path.join(HERE, "figures.json")) as file:
            result = updated(json.load(file), result)
    if options.json:
        save(result, options.json)
    if not options.quiet:
        print(report.markdown(result))
    if options.write:
        report.write(result, os.path.dirname(HERE))


if __name__ == "__main__":
    main()
