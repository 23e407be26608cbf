"""The memory that an environment's processes hold, measured against the function's memory.

A memory cgroup would count what is written to /tmp, which is in memory here and is not on Lambda,
so the processes are looked at instead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

INTERVAL = 0.02  # seconds between two looks
_PAGE = os.sysconf("SC_PAGE_SIZE")


def watch(pid: int, limit: int, ended: threading.Event, exceeded: Callable[[], None]) -> None:
    """Call `exceeded` once if a process and its children hold over `limit` MB; until `ended`.

    Files that are mapped do not count: the kernel can drop their pages, as on Lambda.
    """
    while not ended.wait(INTERVAL):
        pids = list(_family(pid))
        # Processes share pages after a fork, so that the quick sum may be too high.
        if sum(map(_anonymous, pids)) <= limit << 20:
            continue
        if len(pids) == 1 or sum(map(_proportional, pids)) > limit << 20:
            exceeded()
            return


def _family(pid: int) -> Iterator[int]:
    """Yield a process and the processes that descend from it."""
    yield pid
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                children += map(int, file.read().split())
    except (OSError, ValueError):  # it has ended, or the kernel lacks the list
        return
    for child in children:
        yield from _family(child)


def _anonymous(pid: int) -> int:
    """Return the bytes of a process's pages that belong to no file."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            _, resident, of_files, *_ = file.read().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(of_files)) * _PAGE


def _proportional(pid: int) -> int:
    """Return the same with each shared page divided by the processes that share it."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("Pss_Anon:")]
    except OSError:
        return 0
    return int(lines[0][1]) << 10 if lines else 0
