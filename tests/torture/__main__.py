"""The command: `python -m tests.torture [--only NAME,…] [--minutes N] [--seed S] [--json FILE]`.

Each part is a module here, of its name, with `run(seconds, seed) -> dict`: figures by name, of
which `violations` is what has to be 0. What a part finds it prints, with what reproduces it; what
it can't run on this machine it raises as `Skip`.

A part runs in a process of its own, beside those that do not want the same cores (PLAN); one that
does not come to an end is killed, and that is a violation. So is one that was interrupted. A run of
all parts writes the figures into the documentation, as `python -m tests.torture.figures` does.
"""

import argparse
import atexit
import datetime as dt
import importlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from tests.torture import Skip

# What each part shows.
PARTS = {
    "power": "the server or a client loses power, at any moment",
    "load": "200 processes on two clients: memory, descriptors, errors, fairness",
    "partitions": "a mixed load on two clients, cut off, frozen and restarted; its history checked",
    "syscalls": "process death, and errors, at every system call of every writing operation",
    "fuzz": "every parser of bytes that come from the mount, guided by coverage; bombs",
    "hostile": "files, links and names that somebody planted; an attacker without the key",
    "clocks": "clients hours apart, clocks that jump",
    "interrupts": "every operation cut off by alarms and forks at random moments",
    "growth": "each operation in each of its states, a hundred thousand times",
    "budgets": "a sweep's budget among ten thousand namespaces, shards, models, datasets, parts",
    "model": "the checkpoints' protocol, every order of its steps",
    "mutation": "each safety measure switched off: which test goes red",
}
# Groups, one after the other; of each, lanes side by side; of each, parts with their minutes, one
# after the other. Two cores carry it.
PLAN = [
    [
        [("power", 12), ("hostile", 2), ("clocks", 0.5)],
        [("mutation", 9), ("budgets", 3), ("model", 1)],
    ],
    [[("growth", 12.5)]],
    [[("load", 7)], [("syscalls", 5), ("fuzz", 2.5)]],
    [[("partitions", 6)], [("interrupts", 8)]],
]


def machine():
    """What the figures were made on, and of."""
    with open("/proc/cpuinfo") as file:
        model = next(
            (line.partition(":")[2].strip() for line in file if line.startswith("model name")),
            platform.machine(),
        )
    with open("/proc/meminfo") as file:
        memory = int(next(line.split()[1] for line in file if line.startswith("MemTotal"))) >> 20
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": git.stdout.strip() or "unknown",
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def run(name, seconds, seed):
    """One part's figures, here; an exception is a violation."""
    started = time.monotonic()
    try:
        figures = dict(importlib.import_module(f"tests.torture.{name}").run(seconds, seed))
        figures.setdefault("violations", 0)
    except Skip as reason:
        figures = {"skipped": str(reason), "violations": 0}
    except Exception as error:
        traceback.print_exc()
        figures = {"error": f"{type(error).__name__}: {error}", "violations": 1}
    return figures | {"seconds": round(time.monotonic() - started, 1), "seed": seed}


def end(process):
    """It, and what it started, if it has not ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def aside(name, seconds, seed):
    """The same in a process of its own, which gets twice the time and ten minutes."""
    with tempfile.NamedTemporaryFile("r") as told:
        words = [
            sys.executable,
            "-u",
            "-m",
            "tests.torture",
            "--part",
            name,
            str(seconds),
            str(seed),
            told.name,
        ]
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        atexit.register(end, process)
        started, late = time.monotonic(), []
        watch = threading.Timer(
            2 * seconds + 600, lambda: (late.append(1), os.killpg(process.pid, signal.SIGKILL))
        )
        watch.start()
        try:
            for line in process.stdout:
                print(f"{name}: {line.removeprefix(f'{name}: ')}", end="", flush=True)
            process.wait()
        finally:
            watch.cancel()
            end(process)
        try:
            return json.load(told)
        except ValueError:
            why = "it did not come to an end" if late else ended(process.returncode)
            return {
                "error": why,
                "violations": 1,
                "seconds": round(time.monotonic() - started, 1),
                "seed": seed,
            }


def ended(status):
    """Say how a part's process ended that told no figures."""
    return f"interrupted by signal {-status}" if status < 0 else f"its process ended with {status}"


def table(results):
    """The figures as lines of text."""
    yield f"{'part':<12}{'violations':>11}{'seconds':>9}{'seed':>12}  figures"
    for name in PARTS:
        if name not in results:
            continue
        figures = results[name]
        rest = {
            k: v
            for k, v in figures.items()
            if k not in ("violations", "seconds", "seed") and not isinstance(v, (dict, list))
        }
        said = ", ".join(
            f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in rest.items()
        )
        fixed = f"{figures['violations']:>11}{figures['seconds']:>9}{figures['seed']:>12}"
        yield f"{name:<12}{fixed}  {said}"


def planned(names):
    """The groups with these parts alone, and how many minutes they take."""
    groups = [[[one for one in lane if one[0] in names] for lane in group] for group in PLAN]
    groups = [[lane for lane in group if lane] for group in groups if any(group)]
    return groups, sum(
        max(sum(minutes for _, minutes in lane) for lane in group) for group in groups if any(group)
    )


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description="The long tests of what efsstate promises."
    )
    parser.add_argument(
        "--only", metavar="NAME,…", default=",".join(PARTS), help=f"some of {','.join(PARTS)}"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="all parts together, in proportion (default: as planned, about 44 for all)",
    )
    parser.add_argument(
        "--seed", type=int, help="repeats what another run did, as far as a schedule can"
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        default="torture.json",
        help="where the figures go too (default: torture.json)",
    )
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        name, seconds, seed, told = options.part
        with open(told, "w") as file:
            json.dump(run(name, float(seconds), int(seed)), file, default=str)
        return
    names = options.only.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"no part is called {unknown[0]!r}: there are {', '.join(PARTS)}")
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    groups, minutes = planned(names)
    scale = (options.minutes or minutes) / minutes
    about = machine() | {"seed": seed, "minutes": round(scale * minutes, 1)}
    results, guard, started = {}, threading.Lock(), time.monotonic()

    def go(lane):
        for name, minutes in lane:
            print(
                f"== {name}: {PARTS[name]}; {scale * minutes:.1f} minutes, seed {seed}", flush=True
            )
            found = aside(name, scale * minutes * 60, seed)
            with guard:
                results[name] = found
                print("\n".join(list(table({name: found}))[1:]), flush=True)
                about["took_minutes"] = round((time.monotonic() - started) / 60, 1)
                with open(options.json, "w") as file:
                    json.dump(
                        {
                            "machine": about,
                            "parts": {name: results[name] for name in PARTS if name in results},
                        },
                        file,
                        indent=1,
                    )

    try:
        for group in groups:
            lanes = [threading.Thread(target=go, args=(lane,), daemon=True) for lane in group]
            for lane in lanes:
                lane.start()
            for lane in lanes:
                lane.join()
    except KeyboardInterrupt:
        print("\n".join(table(results)))
        missing = ", ".join(name for name in names if name not in results)
        sys.exit(f"interrupted: {missing} did not come to an end, and no page was written")
    print(", ".join(f"{k} {v}" for k, v in about.items()))
    print("\n".join(table(results)))
    if names == list(PARTS) and options.minutes is None:
        importlib.import_module("tests.torture.figures").main(options.json)
    sys.exit(any(own["violations"] for own in results.values()))


if __name__ == "__main__":
    main()
