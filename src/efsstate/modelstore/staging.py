"""Copies on the local disk, shared by the processes of an environment: made by one of them, whole or absent, bounded."""

from __future__ import annotations

import errno
import os
import sys
import threading

from efsstate import deadline, events
from efsstate.errors import CorruptEntryError, EfsStateError
from efsstate.modelstore import reading
from efsstate.mount import layout, lock
from efsstate.mount import root as roots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from efsstate.mount.files import Mount

_USES = "uses"  # a file for every process that uses a copy, locked as long as it does
_SPARE = 32 << 20  # bytes that stay free
_WAIT = 3600.0  # seconds for which the one waits for the other's copy, where no deadline is known


class Staged:
    """A copy that is in use: `folder` on the local mount `mount`. It may go once this object is gone."""

    def __init__(self, mount: Mount, folder: str, use: lock.Lock) -> None:
        self.mount, self.folder, self._use = mount, folder, use

    def __del__(self) -> None:
        try:
            self._use.release(remove=True)
        except Exception as error:
            if sys.is_finalizing():
                return  # the lock goes with the process, and whoever looks next removes its file
            events.log("warning", "%s: could not be given back: %s", self.mount.where(self.folder), error)


def stage(
    key: str,
    files: Mapping[str, tuple[int, str | None]],
    folders: list[str],
    opened: Callable[[str], reading.Opened],
) -> Staged:
    """The local copy `key` of `files` (path below it to bytes and SHA-256, None where there is none to compare).

    One process copies while the others wait, until the deadline. Raises `EfsStateError` (no room), `CorruptEntryError`
    (a file that is not what its digest says), `OutOfTime`, `OSError`.
    """
    local = roots.scratch("efsstate-models")
    # The use is told before the copy is looked at, so that nobody who makes room in between removes it.
    staged = Staged(local, key, _use(local, key))
    held = lock.acquire(local, "", layout.LOCK, until=deadline.until(_WAIT))
    if held is None:
        raise reading.OutOfTime(
            f"{local.where(key)}: another process was still copying a model here when the deadline came"
        )
    try:
        if not _is_whole(local, key, files):
            _copy(local, key, files, folders, opened)
        local.stamp("", key)
    finally:
        held.release()
    return staged


def _use(local: Mount, key: str) -> lock.Lock:
    while True:
        got = lock.attempt(local, _USES, f"{key}.{os.getpid()}.{os.urandom(4).hex()}")
        if not isinstance(got, lock.Lock):
            os.close(got)  # who makes room was faster, and takes it for a dead process's
        elif got.is_current():
            return got
        else:
            got.release()


def _is_whole(local: Mount, key: str, files: Mapping[str, tuple[int, str | None]]) -> bool:
    for name, (size, _) in files.items():
        folder, _, last = f"{key}/{name}".rpartition("/")
        try:
            if local.stat(folder, last).st_size != size:
                return False
        except (OSError, CorruptEntryError):
            return False
    return True


def _copy(
    local: Mount,
    key: str,
    files: Mapping[str, tuple[int, str | None]],
    folders: list[str],
    opened: Callable[[str], reading.Opened],
) -> None:
    for name in local.names(""):
        if layout.is_temporary(name) or name == key:
            local.remove_tree(name)  # a killed process's half, or a copy that somebody damaged
    sizes = {name: size for name, (size, _) in files.items()}
    total = sum(sizes.values())
    _make_room(local, total, key)
    making = layout.TEMPORARY + key
    count, words = reading.late(local.where(key), total)
    guard = threading.Lock()

    def copy(name: str, done: Callable[[int], None] | None) -> None:
        source = opened(name)
        folder, _, last = f"{making}/{name}".rpartition("/")
        with guard:
            target = local.begin(folder, last)
        try:
            digest = reading.copy(source, target, late=words, done=done)
            target.end(source.size)
        finally:
            target.close()
        size, wanted = files[name]
        if source.size != size or wanted not in (None, digest):
            raise CorruptEntryError(
                source.path,
                "its SHA-256 is not the one in the manifest: activate another version, or publish it under a new id",
            )

    try:
        for name in folders:
            local.make(f"{making}/{name}")
        for _ in reading.every(sizes, copy, late=words, done=count):
            pass
        local.forget(making)
        local.rename("", making, "", key)
    except BaseException as error:
        local.remove_tree(making)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(local, total) from error
        raise


def _make_room(local: Mount, wanted: int, key: str) -> None:
    """Remove what was used least recently, and is not used now, until `wanted` bytes have room."""
    if _room(local) >= wanted:
        return
    copies = [name for name in local.names("") if name not in (_USES, layout.LOCK, key)]
    for name in sorted(copies, key=lambda name: local.stat("", name).st_mtime_ns):
        if not _in_use(local, name):
            gone = layout.TEMPORARY + name
            local.forget(name)
            local.rename("", name, "", gone)  # first, so that no half of it is ever taken for the whole
            local.remove_tree(gone)
        if _room(local) >= wanted:
            return
    raise _no_room(local, wanted)


def _room(local: Mount) -> int:
    found = os.statvfs(local.path)
    return found.f_bavail * found.f_frsize - _SPARE


def _no_room(local: Mount, wanted: int) -> EfsStateError:
    return EfsStateError(
        f"{local.path}: no room for a copy of {reading.mib(wanted)}: {reading.mib(max(0, _room(local)))} are free, and"
        " what else is staged is in use: give the function more ephemeral storage, or use files.read() or files.mmap()"
    )


def _in_use(local: Mount, key: str) -> bool:
    """Whether a process that lives holds the copy; what dead ones left is removed."""
    for name in local.names(_USES):
        if name.startswith(key + "."):
            got = lock.attempt(local, _USES, name)
            if not isinstance(got, lock.Lock):
                os.close(got)
                return True
            got.release(remove=True)
    return False
