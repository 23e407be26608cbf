"""Tell how much memory this process can still take, so that a file too large for it is refused.

Otherwise reading that file would kill the process half way.
"""

from __future__ import annotations

import os

from efsstate.errors import EfsStateError
from efsstate.mount import environment

_SMALL = 16 << 20  # bytes; below that the memory is not asked for
# Control groups, version 2 and 1: the top folder, the files with the limit and the use, and the
# prefix of names in memory.stat.
_GROUPS = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current", ""),
    "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


def read_text(path: str) -> str:
    """Return the text of a file of the kernel's, below /proc or /sys."""
    with open(path, errors="replace") as file:
        return file.read()


def require(size: int, path: str, advice: str) -> None:
    """Raise `EfsStateError` if the file at `path` has more than the free memory."""
    if size < _SMALL:
        return
    remaining = free()
    if remaining is not None and size > remaining:
        raise EfsStateError(
            f"{path}: not read: it has {size / 2**20:.0f} MiB, and {remaining / 2**20:.0f} MiB of"
            f" memory are free; give the function more memory, or {advice}"
        )


def free() -> int | None:
    """Return the least of the machine's, the control group's and the function's free memory.

    None if none of them is known.
    """
    known = [size for size in (_of_machine(), _of_group(), _of_function()) if size is not None]
    return max(0, min(known)) if known else None


def _of_machine() -> int | None:
    try:
        for line in read_text("/proc/meminfo").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _of_group() -> int | None:
    try:
        lines = read_text(f"/proc/{os.getpid()}/cgroup").splitlines()
    except OSError:
        return None
    known = []
    for line in lines:
        # "0::/a/b" with version 2, "4:memory:/a/b" with version 1
        _, kinds, path = line.split(":", 2)
        kind = "memory" if "memory" in kinds.split(",") else kinds
        parts = [part for part in path.split("/") if part]
        # A limit above counts too. A container may see a path that its own tree does not have:
        # then only the top is its own.
        for depth in range(len(parts) + 1 if kind in _GROUPS else 0):
            size = _below_limit("/".join(parts[:depth]), *_GROUPS[kind])
            if size is not None:
                known.append(size)
    return min(known) if known else None


def _below_limit(folder: str, top: str, limit: str, used: str, prefix: str) -> int | None:
    group = f"{top}/{folder}".rstrip("/")
    try:
        # The limit is "max" if there is none.
        size = int(read_text(f"{group}/{limit}")) - int(read_text(f"{group}/{used}"))
        lines = read_text(f"{group}/memory.stat").splitlines()
        pages = dict(line.split(" ", 1) for line in lines)
        names = f"{prefix}inactive_file", f"{prefix}active_file"
        return size + sum([int(pages.get(name, 0)) for name in names])
    except (OSError, ValueError):
        return None


def _of_function() -> int | None:
    memory = environment.function_memory()
    if memory is None:
        return None
    try:
        pages = read_text(f"/proc/{os.getpid()}/statm").split()
        # Without the pages that are shared with files.
        return memory - (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return memory
