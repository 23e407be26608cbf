"""Copies on the local disk, shared by the processes of an environment: made by one of them, whole or absent, bounded."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading

from efsstate import deadline, events
from efsstate.errors import CorruptEntryError, DeadlineExceeded, EfsStateError
from efsstate.eviction import removal
from efsstate.format import grammar, layout
from efsstate.modelstore import reader
from efsstate.mount import lock
from efsstate.mount import root as roots
from efsstate.mount.drafts import PartialFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from efsstate.mount.files import Mount

_USES = "uses"  # a file for every copy, whose lock is shared by the processes that use it
_SPARE = 32 << 20  # bytes that stay free


class Staged:
    """A copy that is in use: `folder` on the local mount `mount`; `made` if it was made, and so compared, just now.

    It may go once this object is gone, here and in every forked child.
    """

    def __init__(self, mount: Mount, folder: str, use: lock.Lock) -> None:
        self.mount, self.folder, self._use = mount, folder, use
        self.made = False

    def __del__(self) -> None:
        try:
            self._use.release()
        except Exception as error:
            if sys.is_finalizing():
                return  # the lock goes with the process
            events.log(
                "warning", "%s: could not be given back: %s", self.mount.path_of(self.folder), error
            )


def stage(
    key: str,
    files: Mapping[str, tuple[int, str | None]],
    folders: list[str],
    opened: Callable[[str], reader.Opened],
) -> Staged:
    """The local copy `key` of `files` (path below it to bytes and SHA-256, None where there is none to compare).

    One process copies while the others wait, until the deadline. Raises `EfsStateError` (no room), `CorruptEntryError`
    (a file that is not what its digest says), `OutOfTime`, `OSError`.
    """
    local = roots.scratch("efsstate-models")
    until = deadline.until_done()
    # The use is told before the copy is looked at, so that nobody who makes room in between removes it.
    staged = Staged(local, key, _use(local, key, until))
    if not _is_whole(local, key, files):  # one that is there is used, whatever else is being copied
        held = _turn(local, key, until)
        try:
            local.forget(key)  # who copied while we waited has put another folder in its place
            if not _is_whole(local, key, files):
                _copy(local, key, files, folders, opened)
                staged.made = True
        finally:
            held.release()
    for name in folders:
        local.make(f"{key}/{name}")  # empty ones, which a cleaner of /tmp may have removed
    local.stamp("", key)
    return staged


def discard(key: str) -> bool:
    """Remove the copy `key`, which is damaged; False if somebody uses it."""
    local = roots.scratch("efsstate-models")
    held = _turn(local, key, deadline.until_done())
    try:
        alone = _alone(local, key)
        if alone is None:
            return False
        try:
            if key in local.names(""):
                _take_away(local, key)
        finally:
            alone.release(remove=True)
    finally:
        held.release()
    return True


def _turn(local: Mount, key: str, until: float) -> lock.Lock:
    """The right to copy and to remove; `DeadlineExceeded` if another process still has it then."""
    held = lock.acquire(local, "", layout.LOCK, until=until)
    if held is None:
        raise DeadlineExceeded(
            f"{local.path_of(key)}: another process was still copying a model here when the deadline came"
        )
    return held


def _use(local: Mount, key: str, until: float) -> lock.Lock:
    """A share of the copy's lock: as long as anybody has one the copy stays."""
    while True:
        got = lock.acquire(local, _USES, key, until=until, shared=True)
        if got is None:
            raise DeadlineExceeded(
                f"{local.path_of(key)}: another process was still removing it when the deadline came"
            )
        if got.is_current():
            return got
        got.release()  # who made room was faster, and has removed the file


def _alone(local: Mount, key: str) -> lock.Lock | None:
    """The copy's lock for ourselves; None if a process that lives uses the copy."""
    got = lock.attempt(local, _USES, key)
    if isinstance(got, lock.Lock):
        return got
    os.close(got)
    return None


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
    opened: Callable[[str], reader.Opened],
) -> None:
    _tidy(local, key)
    sizes = {name: size for name, (size, _) in files.items()}
    total, room = sum(sizes.values()), _on_disk(local, [*sizes.values(), *[1] * len(folders)])
    if key in local.names("") and _room(local) < room:
        _take_away(
            local, key
        )  # somebody damaged it; else it stays for those who use it until the new one is there
    _make_room(local, room)
    free = _room(local)
    making = layout.TEMPORARY + key
    count, words = reader.late(local.path_of(key), total)
    guard = threading.Lock()

    def copy(name: str, done: Callable[[int], None] | None) -> None:
        source = opened(name)
        folder, _, last = f"{making}/{name}".rpartition("/")
        with guard:
            target = PartialFile(local, folder, last)
        try:
            digest = reader.copy(source, target, late=words, done=done)
            target.finish(source.size)
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
        for _ in reader.every(sizes, copy, late=words, done=count):
            pass
        local.forget(making)
        if key in local.names(""):
            _take_away(local, key)
        local.rename("", making, "", key)
    except BaseException as error:
        removal.remove_tree(local, making, grammar.anything)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"{error.strerror} while it was written, though {reader.mib(free)} were free: something else fills the disk"
            raise _no_room(local, total, why) from error
        raise


def _tidy(local: Mount, key: str) -> None:
    """Remove a killed process's half, and the locks of copies that are gone."""
    there = local.names("")
    for name in there:
        if name.startswith(layout.TEMPORARY):
            _remove(local, name)
    for name in local.names(_USES):
        if name not in there and name != key and (alone := _alone(local, name)) is not None:
            alone.release(remove=True)


def _remove(local: Mount, name: str) -> None:
    if stat.S_ISDIR(local.stat("", name).st_mode):
        removal.remove_tree(local, name, grammar.anything)
    else:
        local.remove("", name)  # not ours, but it has a name that we need


def _take_away(local: Mount, key: str) -> None:
    gone = f"{layout.TEMPORARY}gone-{key}"
    local.forget(key)
    local.rename("", key, "", gone)  # first, so that no half of it is ever taken for the whole
    _remove(local, gone)


def _make_room(local: Mount, wanted: int) -> None:
    """Remove what was used least recently, and is not used now, until `wanted` bytes have room; else nothing."""
    free = _room(local)
    found = {
        name: local.stat("", name) for name in local.names("") if name not in (_USES, layout.LOCK)
    }
    copies = [name for name, about in found.items() if stat.S_ISDIR(about.st_mode)]
    going: dict[str, lock.Lock] = {}
    may_go = 0
    try:
        for name in sorted(copies, key=lambda name: found[name].st_mtime_ns):
            if free + may_go >= wanted:
                break
            alone = _alone(local, name)
            if alone is not None:
                going[name] = alone
                may_go += _size(local, name)
        if free + may_go < wanted:
            why = f"{reader.mib(max(0, free))} are free, and {reader.mib(may_go)} of copies that nobody uses may go"
            raise _no_room(local, wanted, why)
        for name in going:
            _take_away(local, name)
    finally:
        for alone in going.values():
            alone.release(remove=True)


def _size(local: Mount, folder: str) -> int:
    """Bytes that removing `folder` frees."""
    size = 0
    for found in local.scan(folder):
        if found.is_dir(follow_symlinks=False):
            size += _size(local, f"{folder}/{found.name}")
        else:
            size += found.stat(follow_symlinks=False).st_blocks * 512
    return size


def _on_disk(local: Mount, sizes: list[int]) -> int:
    """Bytes of disk that files of these sizes take: many small ones take far more than they have."""
    block = os.statvfs(local.path).f_frsize
    return sum([-(-size // block) * block for size in sizes])


def _room(local: Mount) -> int:
    found = os.statvfs(local.path)
    return found.f_bavail * found.f_frsize - _SPARE


def _no_room(local: Mount, wanted: int, why: str) -> EfsStateError:
    return EfsStateError(
        f"{local.path}: no room for a copy of {reader.mib(wanted)}: {why}: give the function more ephemeral storage, or"
        " use files.read() or files.mmap()"
    )
