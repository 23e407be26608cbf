"""How much memory this process can still take: a file that does not fit is refused, not what kills the process half way."""

from __future__ import annotations

import os

from efsstate.errors import EfsStateError
from efsstate.mount import root as roots
from efsstate.mount.files import Mount

_SMALL = 16 << 20  # bytes below which nobody asks
_GROUPS = {  # of control groups, version 2 and 1: the top folder, the files with the limit and what is used, names in memory.stat
    "": ("/sys/fs/cgroup", "memory.max", "memory.current", ""),
    "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


def kernel(top: str, folder: str, name: str) -> str:
    """What a file of the kernel's own says: its size is told as 0, so it is read until it ends."""
    fd = Mount(top).open(folder, name)
    try:
        text = b""
        while more := os.read(fd, 1 << 20):
            text += more
    finally:
        os.close(fd)
    return text.decode(errors="replace")


def demand(size: int, path: str, advice: str) -> None:
    """`EfsStateError` if `size` bytes for the file at `path` are more than what is free."""
    if size < _SMALL:
        return
    left = free()
    if left is not None and size > left:
        raise EfsStateError(
            f"{path}: not read: it has {size / 2**20:.0f} MiB, and {left / 2**20:.0f} MiB of memory are free: give the"
            f" function more memory, or {advice}"
        )


def free() -> int | None:
    """The least of what the machine, the control group and the function's memory leave; None where nothing tells."""
    found = [left for left in (_machine(), _group(), _function()) if left is not None]
    return max(0, min(found)) if found else None


def _machine() -> int | None:
    try:
        for line in kernel("/proc", "", "meminfo").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, EfsStateError, ValueError):
        pass
    return None


def _group() -> int | None:
    try:
        lines = kernel("/proc", str(os.getpid()), "cgroup").splitlines()
    except (OSError, EfsStateError):
        return None
    found = []
    for line in lines:
        _, kinds, path = line.split(
            ":", 2
        )  # "0::/a/b" with version 2, "4:memory:/a/b" with version 1
        kind = "memory" if "memory" in kinds.split(",") else kinds
        parts = [part for part in path.split("/") if part]
        # A limit above holds too. A container may see a path that its own tree does not have: then the top is its own.
        for depth in range(len(parts) + 1 if kind in _GROUPS else 0):
            left = _limit("/".join(parts[:depth]), *_GROUPS[kind])
            if left is not None:
                found.append(left)
    return min(found) if found else None


def _limit(folder: str, top: str, limit: str, used: str, prefix: str) -> int | None:
    try:
        free = int(kernel(top, folder, limit)) - int(
            kernel(top, folder, used)
        )  # "max" where there is no limit
        stat = dict(line.split(" ", 1) for line in kernel(top, folder, "memory.stat").splitlines())
        return (
            free
            + int(stat.get(f"{prefix}inactive_file", 0))
            + int(stat.get(f"{prefix}active_file", 0))
        )
    except (OSError, EfsStateError, ValueError):
        return None


def _function() -> int | None:
    memory = roots.function_memory()
    if memory is None:
        return None
    try:
        pages = kernel("/proc", str(os.getpid()), "statm").split()
        return memory - (int(pages[1]) - int(pages[2])) * os.sysconf(
            "SC_PAGESIZE"
        )  # without what is shared with files
    except (OSError, EfsStateError, ValueError, IndexError):
        return memory
