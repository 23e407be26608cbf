"""What a run was made on and with: no names or paths of the machine."""

import datetime as dt
import importlib.metadata
import os
import platform
import sys

import efsstate
from benchmarks import checkpoints, subjects, ways


def describe():
    """Processor, cores, memory, kernel, Python, date."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            cpu = next(
                (line.split(":")[1].strip() for line in file if line.startswith("model name")), cpu
            )
    except FileNotFoundError:
        pass
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def versions():
    """The version of every package that takes part; None for one that is not installed."""
    packages = {s.package for s in [*subjects.ALL, *checkpoints.ALL]} | {
        package for _, package in ways.ALL.values()
    }
    found = {}
    for package in sorted(packages | {"cachetools", "numpy", "torch"} - {""}):
        if package:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = None
    return found | {
        "efsstate": efsstate.__version__
    }  # of the code that was measured, installed or not


def command():
    """The interpreter and arguments that run this package again."""
    return [sys.executable, "-m", "benchmarks"]
