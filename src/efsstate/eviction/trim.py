"""A little clean-up by whoever puts into a namespace that has a limit: at most once in a while for the whole fleet."""

from __future__ import annotations

import os
import time

from efsstate.eviction import limits
from efsstate.eviction.report import SweepReport
from efsstate.eviction.scan import SweepOptions, TimeUp
from efsstate.format import layout
from efsstate.mount import clock, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.mount.files import Mount

PAUSE = 60.0  # seconds between two, in one process and, by the mark's time, in the fleet
_ENOUGH = 8192  # entries looked at: if the namespace has more, some of its folders stand for all
_KIND = "trim"

_due: dict[tuple[str, str], float] = {}  # monotonic, by root and namespace


def trim(mount: Mount, namespace: str, max_bytes: int, *, seconds: float = 1.0) -> int:
    """Remove what was used least recently beyond `max_bytes` of `namespace` (a component); how many entries went.

    To be called after every put: it mostly returns at once, without a request. It works for `seconds` at most, and only
    if nobody in the fleet has for a minute; the first time in a process comes after a random part of that minute, so that
    a thousand environments that start together do not all look. What it leaves, the sweep removes. It raises nothing.
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
        return _turn(mount, namespace, max_bytes, now + seconds)
    except OSError:
        return 0  # a put must not fail for it; the sweep reports what is wrong


def _turn(mount: Mount, namespace: str, max_bytes: int, until: float) -> int:
    marks, name = layout.sweep_marks(_KIND), layout.sweep_mark(f"{layout.CACHE}/{namespace}")
    try:
        mount.refresh(marks)
        if clock.now() - mount.stat(marks, name).st_atime < PAUSE:
            return 0
    except FileNotFoundError:
        pass
    held = lock.attempt(mount, marks, name)
    if not isinstance(held, lock.Lock):
        os.close(held)
        return 0
    try:
        mount.touch(marks, name, mount.stat(marks, name))
        return _trim(mount, namespace, max_bytes, until)
    finally:
        held.release()


def _trim(mount: Mount, namespace: str, max_bytes: int, until: float) -> int:
    report, uses, wish = SweepReport(), limits.Uses(), SweepOptions(clock.now(), until)
    folders = layout.entry_folders(namespace)
    start = os.urandom(1)[0] % len(
        folders
    )  # digests are spread evenly: any folder stands for any other
    looked: list[str] = []
    try:
        for folder in folders[start:] + folders[:start]:
            limits.survey(mount, [folder], wish, uses)
            looked.append(folder)
            if uses.entries >= _ENOUGH:
                break
    except TimeUp:
        return 0
    cut = uses.cut(None, max_bytes * len(looked) // len(folders))
    if cut is not None:
        limits.trim(mount, looked, wish, report, uses, cut)
    return report.removed
