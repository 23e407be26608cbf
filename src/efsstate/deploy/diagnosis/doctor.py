"""The doctor: examines the mount of a process, within a time limit even if the mount hangs."""

from __future__ import annotations

import os
import threading
from typing import Any

from efsstate.deploy.diagnosis.mount_checks import (
    Entry,
    check_entry,
    check_surroundings,
    table,
    table_entry,
)
from efsstate.deploy.diagnosis.mount_rules import RULES
from efsstate.deploy.diagnosis.probe import MIB, Probe
from efsstate.deploy.findings import Finding, Hit
from efsstate.mount import environment

_RULES = {rule.code: rule for rule in RULES}
_ORDER = {"error": 0, "warning": 1, "note": 2}
_SHOWN = ("vers", "rsize", "wsize", "hard", "soft")
NFS_PORT = 2049


def doctor(
    *, root: str | os.PathLike[str] | None = None, timeout: float = 30.0, size: int = 8 * MIB
) -> list[Finding]:
    """Return the faults of this process's mount, worst first; the last, EFS100, has the numbers.

    `root` is the folder, by default as everywhere: EFSSTATE_ROOT, /mnt/efs, the only mount.
    A call that hangs is given up after `timeout` seconds. `size` is the number of bytes of a file
    to measure the throughput with, 0 for none. It creates a folder below the root, and removes it.
    It never raises: any error is a finding.
    """
    hits: list[tuple[str, Hit]] = list(check_surroundings(environment.variable))
    seen: dict[str, str] = {}
    path = _root_path(root)
    if path is None:
        evidence = "no root is named, and neither /mnt/efs nor one folder alone below /mnt"
        hits.append(("EFS101", Hit("root", f"{evidence} is a mount")))
    else:
        entry = table_entry(path)
        if entry is not None:
            options = ",".join(sorted(each for each in entry.options if each.startswith(_SHOWN)))
            mount = f"{entry.kind} {entry.device} on {entry.point} {options}"
            seen["mount"] = mount.rstrip()
        hits += check_entry(path, on_lambda=environment.on_lambda(), entry=entry)
        hits += _examine(path, timeout, size, seen, entry)
    summary = "; ".join(f"{name}: {value}" for name, value in seen.items()) or "nothing"
    hits.append(("EFS100", Hit(path or "root", summary)))
    findings = [_RULES[code].finding(hit) for code, hit in dict.fromkeys(hits)]
    return sorted(
        findings, key=lambda each: (_ORDER[each.severity], each.code == "EFS100", each.code)
    )


def handler(event: dict[str, Any] | None, context: object = None) -> dict[str, Any]:
    """Run the doctor as a Lambda function, and return its findings as objects.

    The event is `{"size": bytes, "timeout": seconds}`, or nothing.
    """
    options = event if isinstance(event, dict) else {}
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    default = 30.0 if remaining is None else max(1.0, remaining() / 1000 - 5)
    timeout = float(options.get("timeout", default))
    findings = doctor(timeout=min(timeout, 60.0), size=int(options.get("size", 8 * MIB)))
    return {
        "schema": "efsstate.doctor",
        "version": 1,
        "findings": [finding._asdict() for finding in findings],
    }


def _root_path(root: str | os.PathLike[str] | None) -> str | None:
    """Return the root's path, without a call on the mount if it is named."""
    path = root if root is not None else environment.variable("EFSSTATE_ROOT")
    if path is not None:
        return os.path.abspath(os.fspath(path))
    points = [entry.point for entry in table() if entry.point.startswith("/mnt/")]
    if "/mnt/efs" in points:
        return "/mnt/efs"
    return points[0] if environment.on_lambda() and len(points) == 1 else None


def _examine(
    path: str, timeout: float, size: int, seen: dict[str, str], entry: Entry | None
) -> list[tuple[str, Hit]]:
    """Run the probe on a daemon thread: a call on a dead mount never returns."""
    probe = Probe(path, size)
    errors: list[Exception] = []

    def run() -> None:
        try:
            if os.path.isdir(path):
                probe.run()
            else:
                missing = "does not exist, or may not be looked at"
                state = "is not a folder" if os.path.exists(path) else missing
                probe.hits.append(("EFS101", Hit(path, f"{path} {state}")))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="efsstate-doctor", daemon=True)
    thread.start()
    thread.join(timeout)
    seen.update(probe.seen)
    hits = list(probe.hits)
    if thread.is_alive():
        evidence = f"{probe.step}: no answer within {timeout:g} s{_try_port(entry)}"
        hits.append(("EFS105", Hit(path, evidence)))
    hits += [
        ("EFS109", Hit(path, f"{probe.step}: {type(error).__name__}: {error}")) for error in errors
    ]
    return hits


def _try_port(entry: Entry | None) -> str:
    """Return whether the server's port answers, or that of the TLS proxy before it."""
    import socket

    address = entry.option("addr") if entry else None
    if address is None:
        return ""
    port = int((entry.option("port") if entry else None) or NFS_PORT)
    is_proxy = address.startswith("127.") or address == "::1"
    name = f"the TLS proxy {address}:{port}" if is_proxy else f"{address}:{port}"
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError as error:
        return f"; {name} does not answer ({error.strerror or error})"
    if is_proxy:
        return f"; {name} accepts connections: it runs, and the server behind it is not known"
    return f"; {name} accepts connections: the server is there, and slow or waiting for its clients"
