"""The command: `python -m tests.torture [--only NAME,…] [--minutes N] [--seed S] [--json FILE]`.

Each part is a module here, of its name, with `run(seconds, seed) -> dict`: figures by name, of which `violations` is what
has to be 0. What a part finds it prints, with what reproduces it; what it can't run on this machine it raises as `Skip`.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import random
import sys
import time
import traceback

from tests.torture import Skip

# A part, its share of the time, and what it shows.
PARTS = {
    "syscalls": (3, "process death, and errors, at every system call of every writing operation"),
    "clocks": (1, "clients hours apart, clocks that jump"),
    "hostile": (2, "files, links and names that somebody planted; an attacker without the key"),
    "fuzz": (4, "every parser of bytes that come from the mount, guided by coverage; bombs"),
    "mutation": (3, "each safety measure switched off: which test goes red"),
    "power": (8, "the server or a client loses power, at any moment"),
    "partitions": (5, "a mixed load on two clients, cut off, frozen and restarted; its history checked"),
    "load": (4, "200 processes on two clients: memory, descriptors, errors, fairness"),
}


def machine():
    """What the figures were made on."""
    with open("/proc/cpuinfo") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), platform.machine())
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def run(name, seconds, seed):
    """One part's figures; an exception is a violation."""
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


def table(results):
    """The figures as lines of text."""
    yield f"{'part':<12}{'violations':>11}{'seconds':>9}{'seed':>12}  figures"
    for name, figures in results.items():
        rest = {k: v for k, v in figures.items() if k not in ("violations", "seconds", "seed") and not isinstance(v, (dict, list))}
        said = ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in rest.items())
        yield f"{name:<12}{figures['violations']:>11}{figures['seconds']:>9}{figures['seed']:>12}  {said}"


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="The long tests of what efsstate promises.")
    parser.add_argument("--only", metavar="NAME,…", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=30, help="all parts together, in proportion (default: 30)")
    parser.add_argument("--seed", type=int, help="repeats what another run did, as far as a schedule can")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    names = options.only.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"no part is called {unknown[0]!r}: there are {', '.join(PARTS)}")
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    shares, results = sum(PARTS[name][0] for name in names), {}
    about = machine() | {"seed": seed, "minutes": options.minutes}
    for name in names:
        print(f"== {name}: {PARTS[name][1]}; seed {seed}", flush=True)
        results[name] = run(name, options.minutes * 60 * PARTS[name][0] / shares, seed)
        if options.json:
            with open(options.json, "w") as file:
                json.dump({"machine": about, "parts": results}, file, indent=1, default=str)
    print(", ".join(f"{k} {v}" for k, v in about.items()))
    print("\n".join(table(results)))
    sys.exit(any(figures["violations"] for figures in results.values()))


if __name__ == "__main__":
    main()
