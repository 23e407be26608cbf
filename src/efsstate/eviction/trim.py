"""Opportunistic eviction: after a put, trim the namespace to its limits.

Across the fleet that happens at most once a minute for each namespace.
"""

from __future__ import annotations

import os
import time

from efsstate import process
from efsstate.errors import EfsStateError
from efsstate.eviction import limits
from efsstate.eviction.report import SweepReport
from efsstate.eviction.scan import BudgetExhausted, SweepOptions
from efsstate.format import layout
from efsstate.mount import clock, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.mount.files import Mount

PAUSE = 60.0  # seconds between two, in one process and, by the mark's time, in the fleet
_ENOUGH = 8192  # entries looked at: in a larger namespace some of its folders stand for all
_KIND = "trim"

_due: dict[tuple[str, str], float] = {}  # monotonic, by root and namespace
process.at_reset(_due.clear)


def trim(
    mount: Mount,
    namespace: str,
    max_bytes: int | None,
    max_entries: int | None = None,
    *,
    seconds: float = 1.0,
) -> int:
    """Remove the least recently used beyond the limits of `namespace`; return how many went.

    To be called after every put: it mostly returns at once, without a request. It works for
    `seconds` at most, and only if no process of the fleet has for a minute. The first time in a
    process comes after a random part of that minute, so that a thousand environments that start
    together do not all look. The sweep removes the rest. It raises nothing.
    """
    now, key = time.monotonic(), (mount.path, namespace)
    due = _due.get(key)
    if due is None:
        _due[key] = now + PAUSE * int.from_bytes(os.urandom(2), "little") / 65536
        return 0
    if now < due:
        return 0
    _due[key] = now + PAUSE
    try:
        return _trim_in_turn(mount, namespace, (max_bytes, max_entries), now + seconds)
    except (OSError, EfsStateError) as error:
        process.raise_of_handler(error)
        return 0  # a put must not fail for it; the sweep reports the error


def _trim_in_turn(
    mount: Mount, namespace: str, most: tuple[int | None, int | None], until: float
) -> int:
    marks, name = layout.sweep_marks(_KIND), layout.sweep_mark(f"{layout.CACHE}/{namespace}")
    try:
        mount.refresh(marks)
        if clock.now() - mount.stat(marks, name).st_atime < PAUSE:
            return 0
    except FileNotFoundError:
        pass
    turn = lock.attempt(mount, marks, name)
    if turn is None:
        return 0
    try:
        mount.touch(marks, name, mount.stat(marks, name))
        return _trim_some(mount, namespace, most, until)
    finally:
        turn.release()


def _trim_some(
    mount: Mount, namespace: str, most: tuple[int | None, int | None], until: float
) -> int:
    report, uses, options = SweepReport(), limits.Uses(), SweepOptions(clock.now(), until)
    folders = layout.entry_folders(namespace)
    # Digests are spread evenly, so any folder stands for any other.
    start = os.urandom(1)[0] % len(folders)
    seen: list[str] = []
    try:
        for folder in folders[start:] + folders[:start]:
            limits.survey(mount, [folder], options, uses)
            seen.append(folder)
            if uses.entries >= _ENOUGH:
                break
    except BudgetExhausted:
        return 0
    size, count = [None if limit is None else limit * len(seen) // len(folders) for limit in most]
    cut = uses.cut(count, size)
    if cut is not None:
        trim = limits.Trim(mount, options, uses, cut)
        for folder in seen:
            if not trim.sweep_folder(folder, report):
                break
    return report.removed
