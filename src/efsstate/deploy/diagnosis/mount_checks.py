"""What can be said of a mount and of its surroundings without a call on it, which may hang."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from efsstate.deploy.findings import Hit

MIB = 1 << 20


class Entry(NamedTuple):
    """A line of the kernel's table of mounts."""

    device: str
    point: str
    kind: str
    options: frozenset[str]


def table(text: str | None = None) -> list[Entry]:
    """The kernel's table of mounts; empty where there is none (macOS)."""
    if text is None:
        try:
            with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError:
            return []
    lines = [line.split(" ") for line in text.splitlines()]
    return [
        Entry(one[0], one[1].replace("\\040", " "), one[2], frozenset(one[3].split(",")))
        for one in lines
        if len(one) > 3
    ]


def table_entry(path: str, text: str | None = None) -> Entry | None:
    """The mount that a path is on, by the kernel's table: the innermost, and of several at one place the last."""
    best = None
    for one in table(text):
        inside = path == one.point or path.startswith(one.point.rstrip("/") + "/")
        if inside and (best is None or len(one.point) >= len(best.point)):
            best = one
    return best


def mounted(path: str, *, on_lambda: bool, entry: Entry | None) -> Iterator[tuple[str, Hit]]:
    """What the kernel's table says of the mount: no call on the mount itself, which may hang."""
    if entry is None:
        return
    device, point, kind, options = entry

    def hit(evidence: str, severity: str = "") -> Hit:
        return Hit(path, evidence, severity=severity)

    if not kind.startswith("nfs"):
        severity = "error" if on_lambda else "warning"
        yield "EFS102", hit(f"it is on {point}, a {kind} file system of {device}", severity)
        return
    version = next((one.partition("=")[2] for one in options if one.startswith("vers=")), "?")
    if version != "4.1":
        yield "EFS103", hit(f"NFS version {version}")
    bad = sorted(
        options & {"soft", "softerr", "nolock", "nocto", "noac", "lookupcache=none", "sync"}
    )
    bad += sorted(
        one for one in options if one.startswith("local_lock=") and not one.endswith("none")
    )
    for name in ("rsize", "wsize"):
        size = next((one.partition("=")[2] for one in options if one.startswith(f"{name}=")), "")
        if size.isdigit() and int(size) < MIB:
            bad.append(f"{name}={size}")
    if bad:
        yield "EFS104", hit(", ".join(bad))
    if "ro" in options:
        yield "EFS107", hit("it is mounted read-only (ro)")


def surroundings(
    variable: Callable[[str], str | None], temporary: str = "/tmp"
) -> Iterator[tuple[str, Hit]]:
    """What the execution environment brings: SnapStart, Managed Instances, memory, /tmp, descriptors."""
    kind = variable("AWS_LAMBDA_INITIALIZATION_TYPE")
    name = variable("AWS_LAMBDA_FUNCTION_NAME") or "this process"
    if kind == "snap-start":
        yield "EFS117", Hit(name, "AWS_LAMBDA_INITIALIZATION_TYPE is snap-start", severity="error")
    several = variable("AWS_LAMBDA_MAX_CONCURRENCY")
    if several is not None and several.isdigit() and int(several) > 1:
        evidence = f"Managed Instances: up to {several} requests at once in this environment, in several processes with one /tmp"
        yield "EFS117", Hit(name, evidence, severity="note")
    memory = variable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
    if memory is not None and memory.isdigit() and int(memory) < 256:
        yield "EFS118", Hit(name, f"{memory} MiB of memory")
    try:
        space = os.statvfs(temporary)
        free = space.f_bavail * space.f_frsize
        if free < 64 * MIB:
            yield "EFS118", Hit(name, f"{temporary}: {free // MIB} MiB free")
    except OSError as error:
        yield "EFS118", Hit(name, f"{temporary}: {error.strerror}")
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        used = len(os.listdir("/proc/self/fd"))
        if used > limit * 0.8:
            yield "EFS120", Hit(name, f"{used} of {limit} descriptors are open")
    except (ImportError, OSError):
        pass
