"""What a run was made on and with: no names or paths of the machine."""

import datetime as dt
import importlib.metadata
import mmap
import os
import platform
import sys
import time

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
        "fresh_page": fresh_page(),
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def fresh_page(chunks=64, count=64):
    """Return the seconds that the kernel takes to give this process a page of memory.

    Of the fastest of some chunks of pages: other work on this machine delays the others.
    """
    times = []
    for _ in range(chunks):
        pages = mmap.mmap(-1, count * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = time.perf_counter()
        for at in range(0, len(pages), mmap.PAGESIZE):
            pages[at] = 1
        times.append(time.perf_counter() - start)
        pages.close()
    return min(times) / count


def versions():
    """The version of every package that takes part; None for one that is not installed."""
    packages = {s.package for s in [*subjects.ALL, *checkpoints.ALL]} | {
        package for _, package in ways.ALL.values()
    }
    found = {}
    for package in sorted(packages | {"cachebox", "cachetools", "moka-py", "numpy", "torch"}):
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
