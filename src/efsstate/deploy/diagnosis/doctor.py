"""The doctor: examines the mount that a process has, within a time limit even where the mount hangs."""

from __future__ import annotations

import os
import threading
from typing import Any

from efsstate.deploy.diagnosis.mount_checks import Entry, mounted, surroundings, table, table_entry
from efsstate.deploy.diagnosis.mount_rules import RULES
from efsstate.deploy.diagnosis.probe import MIB, Look
from efsstate.deploy.findings import Finding, Hit
from efsstate.mount import environment

_RULES = {rule.code: rule for rule in RULES}
_ORDER = {"error": 0, "warning": 1, "note": 2}


def doctor(
    *, root: str | os.PathLike[str] | None = None, timeout: float = 30.0, size: int = 8 * MIB
) -> list[Finding]:
    """What is wrong with the mount of this process, worst first; the last is always EFS100, what was seen and measured.

    `root`: the folder, else as everywhere (EFSSTATE_ROOT, /mnt/efs, the only mount). `timeout`: seconds after which a call
    that hangs is given up. `size`: bytes of a file to measure throughput with, 0 for none. It makes a folder of its own
    below the root, and removes it. Never raises: what goes wrong is a finding.
    """
    hits: list[tuple[str, Hit]] = list(surroundings(environment.variable))
    seen: dict[str, str] = {}
    path = _named(root)
    if path is None:
        hits.append(
            (
                "EFS101",
                Hit(
                    "root",
                    "no root is named, and neither /mnt/efs nor one folder alone below /mnt is a mount",
                ),
            )
        )
    else:
        entry = table_entry(path)
        if entry is not None:
            known = ",".join(
                sorted(
                    one
                    for one in entry.options
                    if one.startswith(("vers", "rsize", "wsize", "hard", "soft"))
                )
            )
            seen["mount"] = f"{entry.kind} {entry.device} on {entry.point} {known}".rstrip()
        hits += mounted(path, on_lambda=environment.on_lambda(), entry=entry)
        hits += _examine(path, timeout, size, seen, entry)
    what = "; ".join(f"{name}: {value}" for name, value in seen.items()) or "nothing"
    hits.append(("EFS100", Hit(path or "root", what)))
    found = [_RULES[code].finding(hit) for code, hit in dict.fromkeys(hits)]
    return sorted(found, key=lambda one: (_ORDER[one.severity], one.code == "EFS100", one.code))


def handler(event: dict[str, Any] | None, context: object = None) -> dict[str, Any]:
    """The doctor as a Lambda function: `{"size": bytes, "timeout": seconds}` or nothing; returns the findings as objects."""
    asked = event if isinstance(event, dict) else {}
    left = getattr(context, "get_remaining_time_in_millis", None)
    timeout = float(asked.get("timeout", 30.0 if left is None else max(1.0, left() / 1000 - 5)))
    findings = doctor(timeout=min(timeout, 60.0), size=int(asked.get("size", 8 * MIB)))
    return {
        "schema": "efsstate.doctor",
        "version": 1,
        "findings": [one._asdict() for one in findings],
    }


def _named(root: str | os.PathLike[str] | None) -> str | None:
    """The root's path, without a call on the mount where it is named."""
    given = root if root is not None else environment.variable("EFSSTATE_ROOT")
    if given is not None:
        return os.path.abspath(os.fspath(given))
    points = [one.point for one in table() if one.point.startswith("/mnt/")]
    if "/mnt/efs" in points:
        return "/mnt/efs"
    return points[0] if environment.on_lambda() and len(points) == 1 else None


def _examine(
    path: str, timeout: float, size: int, seen: dict[str, str], entry: Entry | None
) -> list[tuple[str, Hit]]:
    """The checks on a daemon thread: a call on a dead mount never returns, and can only be left."""
    look = Look(path, size)
    failed: list[Exception] = []

    def run() -> None:
        try:
            if not os.path.isdir(path):
                what = (
                    "is not a folder"
                    if os.path.exists(path)
                    else "does not exist, or may not be looked at"
                )
                look.hits.append(("EFS101", Hit(path, f"{path} {what}")))
            else:
                look.run()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="efsstate-doctor", daemon=True)
    thread.start()
    thread.join(timeout)
    seen.update(look.seen)
    hits = list(look.hits)
    if thread.is_alive():
        hits.append(
            ("EFS105", Hit(path, f"{look.step}: no answer within {timeout:g} s{_port(entry)}"))
        )
    hits += [
        ("EFS109", Hit(path, f"{look.step}: {type(error).__name__}: {error}")) for error in failed
    ]
    return hits


def _port(entry: Entry | None) -> str:
    """Whether the server's port answers, for the evidence."""
    import socket

    address = next(
        (one[5:] for one in (entry.options if entry else ()) if one.startswith("addr=")), None
    )
    if address is None:
        return ""
    try:
        socket.create_connection((address, 2049), timeout=2).close()
    except OSError as error:
        return f"; {address}:2049 does not answer ({error.strerror or error})"
    return f"; {address}:2049 accepts connections: the server is there, and slow or waiting for its clients"
