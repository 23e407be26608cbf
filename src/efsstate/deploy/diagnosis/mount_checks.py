"""Checks of a mount and of its surroundings that make no call on the mount, which may hang."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from efsstate.deploy.findings import Hit

MIB = 1 << 20
_VERSIONS = ("4.1", "4.2")
_HARMFUL = {"soft", "softerr", "nolock", "nocto", "noac", "lookupcache=none", "sync"}


class Entry(NamedTuple):
    """A line of the kernel's table of mounts."""

    device: str
    point: str
    kind: str
    options: frozenset[str]

    def option(self, name: str) -> str | None:
        """Return the value of the option `name=VALUE`, or None if it is not set."""
        prefix = f"{name}="
        values = (each[len(prefix) :] for each in self.options if each.startswith(prefix))
        return next(values, None)


def table(text: str | None = None) -> list[Entry]:
    """Return the kernel's table of mounts; empty if there is none (macOS)."""
    if text is None:
        try:
            with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError:
            return []
    rows = [line.split(" ") for line in text.splitlines()]
    return [
        Entry(row[0], row[1].replace("\\040", " "), row[2], frozenset(row[3].split(",")))
        for row in rows
        if len(row) > 3
    ]


def table_entry(path: str, text: str | None = None) -> Entry | None:
    """Return the mount that a path is on: the innermost, and the last of several at one place."""
    best = None
    for entry in table(text):
        inside = path == entry.point or path.startswith(entry.point.rstrip("/") + "/")
        if inside and (best is None or len(entry.point) >= len(best.point)):
            best = entry
    return best


def check_entry(path: str, *, on_lambda: bool, entry: Entry | None) -> Iterator[tuple[str, Hit]]:
    """Yield the faults that the kernel's table shows, without a call on the mount."""
    if entry is None:
        return
    if not entry.kind.startswith("nfs"):
        evidence = f"it is on {entry.point}, file system {entry.kind} of {entry.device}"
        yield "EFS102", Hit(path, evidence, severity="error" if on_lambda else "warning")
        return
    version = entry.option("vers") or "?"
    if version not in _VERSIONS:
        yield "EFS103", Hit(path, f"NFS version {version}")
    harmful = sorted(entry.options & _HARMFUL)
    local_lock = entry.option("local_lock")
    if local_lock not in (None, "none"):
        harmful.append(f"local_lock={local_lock}")
    for name in ("rsize", "wsize"):
        size = entry.option(name) or ""
        if size.isdigit() and int(size) < MIB:
            harmful.append(f"{name}={size}")
    if harmful:
        yield "EFS104", Hit(path, ", ".join(harmful))
    if "ro" in entry.options:
        yield "EFS107", Hit(path, "it is mounted read-only (ro)")


def check_surroundings(
    variable: Callable[[str], str | None],
    temporary: str = "/tmp",  # noqa: S108 - Lambda's own folder
) -> Iterator[tuple[str, Hit]]:
    """Yield the faults of the execution environment: its kind, memory, /tmp, descriptors."""
    name = variable("AWS_LAMBDA_FUNCTION_NAME") or "this process"
    if variable("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        evidence = "AWS_LAMBDA_INITIALIZATION_TYPE is snap-start"
        yield "EFS117", Hit(name, evidence, severity="error")
    concurrency = variable("AWS_LAMBDA_MAX_CONCURRENCY") or ""
    if concurrency.isdigit() and int(concurrency) > 1:
        evidence = f"Managed Instances: up to {concurrency} requests at once in this environment"
        evidence += ", in several processes with one /tmp"
        yield "EFS117", Hit(name, evidence, severity="note")
    memory = variable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE") or ""
    if memory.isdigit() and int(memory) < 256:
        yield "EFS118", Hit(name, f"{memory} MiB of memory")
    try:
        space = os.statvfs(temporary)
        free = space.f_bavail * space.f_frsize
        if free < 64 * MIB:
            yield "EFS118", Hit(name, f"{temporary}: {free // MIB} MiB free")
    except OSError as error:
        yield "EFS118", Hit(name, f"{temporary}: {error.strerror}")
    yield from _check_descriptors(name)


def _check_descriptors(name: str) -> Iterator[tuple[str, Hit]]:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        used = len(os.listdir("/proc/self/fd"))
    except (ImportError, OSError):
        return  # another system than Linux
    if used > limit * 0.8:
        yield "EFS120", Hit(name, f"{used} of {limit} descriptors are open")
