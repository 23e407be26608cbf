"""Copies on the local disk, shared by an environment's processes: whole or absent, and bounded."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading

from efsstate import deadline, events, process
from efsstate.errors import CorruptEntryError, DeadlineExceeded, EfsStateError
from efsstate.eviction import removal
from efsstate.format import grammar, layout
from efsstate.modelstore import reader
from efsstate.modelstore.open_file import OpenFile
from efsstate.modelstore.progress import SUFFIX, Progress
from efsstate.mount import lock
from efsstate.mount import root as roots
from efsstate.mount.drafts import PartialFile
from efsstate.parallel import each, mib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.modelstore.manifest import Manifest
    from efsstate.mount.files import Mount

    OpenSource = Callable[[str], OpenFile]
    Begun = tuple[str, memoryview]

_SCRATCH = "efsstate-models"
_USES = "uses"  # a file for every copy; the processes that use the copy share its lock
_SPARE = 32 << 20  # bytes that stay free


class StagedCopy:
    """A copy in use: `folder` on the local mount `mount`; `is_new` if it was made just now.

    It may be removed once this object is gone, here and in every forked child.
    """

    def __init__(self, mount: Mount, folder: str, use: lock.Lock) -> None:
        self.mount, self.folder, self._use = mount, folder, use
        self.is_new = False

    def __del__(self) -> None:
        try:
            self._use.release()
        except Exception as error:
            if sys.is_finalizing():
                return  # the lock ends with the process
            path = self.mount.path_of(self.folder)
            events.log(
                "warning",
                "%s: the lock of its use was not released: %s",
                path,
                error,
                kind="model",
                event="not_released",
                path=path,
                error=type(error).__name__,
            )


def stage(
    name: str, manifest: Manifest, open_source: OpenSource, begun: Begun | None = None
) -> StagedCopy:
    """Return the local copy `name` of the manifest's files; make it if it is missing.

    One process copies while the others wait, until the deadline. A copy that was cut off is
    continued. `begun` is a file's name, and its first bytes, if these were read before. Raises
    `EfsStateError` if there is no room, `CorruptEntryError` if a file differs from its digest,
    `DeadlineExceeded`, `OSError`.
    """
    local = roots.scratch(_SCRATCH)
    until = deadline.until_done()
    # The use is announced before the copy is looked at: no process that makes room in between
    # removes it.
    staged = StagedCopy(local, name, _announce_use(local, name, until))
    if not _is_whole(local, name, manifest):
        claim = _claim(local, name, until)
        try:
            local.forget(name)  # the process we waited for has put another folder in its place
            if not _is_whole(local, name, manifest):
                _copy(local, name, manifest, open_source, begun)
                staged.is_new = True
        finally:
            claim.release()
    for folder in manifest.folders:
        local.make(f"{name}/{folder}")  # empty ones, which a cleaner of /tmp may have removed
    local.stamp("", name)
    return staged


def discard(name: str) -> bool:
    """Remove the damaged copy `name`; return False if another process uses it."""
    local = roots.scratch(_SCRATCH)
    claim = _claim(local, name, deadline.until_done())
    try:
        use = _claim_unused(local, name)
        if use is None:
            return False
        try:
            if name in local.names(""):
                _remove_copy(local, name)
        finally:
            use.release(remove=True)
    finally:
        claim.release()
    return True


def _claim(local: Mount, name: str, until: float) -> lock.Lock:
    """Return the right to copy and to remove."""
    claim = lock.acquire(local, "", layout.LOCK, until=until)
    if claim is None:
        path = local.path_of(name)
        raise DeadlineExceeded(
            f"{path}: another process was still copying a model here when the deadline came"
        )
    return claim


def _announce_use(local: Mount, name: str, until: float) -> lock.Lock:
    """Return a share of the copy's lock: the copy stays while any process has one."""
    while True:
        use = lock.acquire(local, _USES, name, until=until, shared=True)
        if use is None:
            path = local.path_of(name)
            raise DeadlineExceeded(
                f"{path}: another process was still removing it when the deadline came"
            )
        if use.is_current():
            return use
        use.release()  # a process that made room has removed the lock's file meanwhile


def _claim_unused(local: Mount, name: str) -> lock.Lock | None:
    """Return the copy's lock for this process alone; None if a living process uses the copy."""
    return lock.attempt(local, _USES, name)


def _is_whole(local: Mount, name: str, manifest: Manifest) -> bool:
    for file, (size, _) in manifest.files.items():
        folder, _, last = f"{name}/{file}".rpartition("/")
        try:
            if local.stat(folder, last).st_size != size:
                return False
        except (OSError, CorruptEntryError) as error:
            process.raise_of_handler(error)
            return False
    return True


def begun() -> frozenset[str]:
    """Return the names of the copies that an earlier attempt made, wholly or in part."""
    try:
        names = roots.scratch(_SCRATCH).names("")
    except (OSError, EfsStateError) as error:
        process.raise_of_handler(error)
        return frozenset()
    start, end = len(layout.TEMPORARY), -len(SUFFIX)
    return frozenset([name[start:end] if name.endswith(SUFFIX) else name for name in names])


def has_room(name: str, manifest: Manifest) -> bool:
    """Return True if the copy `name` fits without removing any other."""
    try:
        local = roots.scratch(_SCRATCH)
        return _free(local) + _size(local, layout.TEMPORARY + name) >= _room(local, manifest)
    except (OSError, EfsStateError) as error:
        process.raise_of_handler(error)
        return False


def _room(local: Mount, manifest: Manifest) -> int:
    """Return the bytes of disk that the copy takes."""
    sizes = [size for size, _ in manifest.files.values()]
    return _disk_usage(local, [*sizes, *[1] * len(manifest.folders)])


def _copy(
    local: Mount, name: str, manifest: Manifest, open_source: OpenSource, begun: Begun | None
) -> None:
    _remove_remains(local, name)
    making = layout.TEMPORARY + name
    room = _room(local, manifest) - _size(local, making)
    if name in local.names("") and _free(local) < room:
        _remove_copy(local, name)  # damaged; if there is room, it stays until the new one is there
    _make_room(local, room, making)
    free, progress = _free(local), Progress(local, name)
    try:
        _copy_files(local, making, manifest, open_source, progress, begun)
        local.forget(making)
        if name in local.names(""):
            _remove_copy(local, name)
        progress.remove()
        local.rename("", making, "", name)
    except BaseException as error:
        if isinstance(error, DeadlineExceeded) or not isinstance(error, Exception):
            progress.save()  # the next attempt continues
            raise
        progress.remove()
        removal.remove_tree(local, making, grammar.anything)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = (
                f"{error.strerror} while it was written, though {mib(free)} were free: something"
                " else fills the disk"
            )
            raise _no_room(local, manifest.size, why) from error
        raise


def _copy_files(
    local: Mount,
    making: str,
    manifest: Manifest,
    open_source: OpenSource,
    progress: Progress,
    begun: Begun | None,
) -> None:
    batch = reader.read_batch(local.path_of(making), manifest.size)
    opening = threading.Lock()

    def copy_once(name: str, source: OpenFile, start: int) -> str:
        """Copy the file from `start` on, and return the digest of all of it."""
        folder, _, last = f"{making}/{name}".rpartition("/")
        with opening:
            target = PartialFile(local, folder, last, executable=name in manifest.executables)
        try:
            if begun is not None and begun[0] == name and len(begun[1]) > start:
                for offset, length in reader.ranges(len(begun[1])):
                    target.put(begun[1][offset : offset + length], offset)
                    progress.note(name, offset + length)
                progress.save()
                start = len(begun[1])
            elif start > target.present:  # a cleaner of /tmp has cut it
                start = 0
            prefix = (OpenFile(local, folder, last), start) if start else None
            digest = reader.copy(
                source,
                target,
                late=batch.late,
                advance=batch.add,
                note=lambda offset: progress.note(name, offset),
                prefix=prefix,
            )
            target.finish(source.size)
        finally:
            target.close()
        return digest

    def copy_file(name: str) -> None:
        source, (size, digest) = open_source(name), manifest.files[name]
        # Without a digest, a part of an earlier attempt may be another file's.
        start = min(progress.start(name), size) if digest else 0
        actual = copy_once(name, source, start)
        # MUT: a-continued-copy-is-compared-as-a-whole
        if start and actual != digest and source.size == size:
            batch.add(-size)
            actual = copy_once(name, source, 0)
        if source.size != size or (digest and digest != actual):
            raise CorruptEntryError(source.path, reader.WRONG_DIGEST)
        progress.note(name, size)

    for folder in manifest.folders:
        local.make(f"{making}/{folder}")
    small = [name for name, (size, _) in manifest.files.items() if size <= reader.RANGE]
    for _ in each(copy_file, small, threads=reader.THREADS, late=batch.late):
        pass
    for name, (size, _) in manifest.files.items():
        if size > reader.RANGE:  # several threads are in each of them
            copy_file(name)


def _remove_remains(local: Mount, name: str) -> None:
    """Remove parts that cannot be continued, and the locks of lost copies."""
    names = set(local.names(""))
    for each_name in names:
        partial = each_name.removesuffix(SUFFIX)
        is_partial = {partial, partial + SUFFIX} <= names or partial == layout.TEMPORARY + name
        if each_name.startswith(layout.TEMPORARY) and not is_partial:
            _remove(local, each_name)
    for each_name in local.names(_USES):
        if each_name in names or each_name == name:
            continue
        use = _claim_unused(local, each_name)
        if use is not None:
            use.release(remove=True)


def _remove(local: Mount, name: str) -> None:
    if stat.S_ISDIR(local.stat("", name).st_mode):
        removal.remove_tree(local, name, grammar.anything)
    else:
        local.remove("", name)  # not ours, but it has a name that we need


def _remove_copy(local: Mount, name: str) -> None:
    """Rename the copy, so that no half of it is ever taken for the whole, and remove it."""
    aside = f"{layout.TEMPORARY}gone-{name}"
    local.forget(name)
    local.rename("", name, "", aside)
    _remove(local, aside)


def _make_room(local: Mount, wanted: int, making: str) -> None:
    """Remove unused copies, least recently used first, until `wanted` bytes fit.

    Parts of other copies go first. If all of them would not make room enough, remove none and raise
    EfsStateError.
    """
    free, freed = _free(local), 0
    stats = {n: local.stat("", n) for n in local.names("") if n not in (_USES, layout.LOCK, making)}
    copies = [name for name, status in stats.items() if stat.S_ISDIR(status.st_mode)]
    claimed: dict[str, lock.Lock | None] = {}
    try:
        for name in sorted(copies, key=lambda n: (n[0] != ".", stats[n].st_mtime_ns)):
            if free + freed >= wanted:
                break
            # We alone may copy now, so no process works on a part.
            is_part = name.startswith(layout.TEMPORARY)
            use = None if is_part else _claim_unused(local, name)
            if is_part or use is not None:
                claimed[name] = use
                freed += _size(local, name)
        if free + freed < wanted:
            unused = f"{mib(freed)} of copies that nobody uses may go"
            raise _no_room(local, wanted, f"{mib(max(0, free))} are free, and {unused}")
        for name in claimed:
            _remove_copy(local, name)
            local.remove("", name + SUFFIX, quiet=True)
    finally:
        for use in claimed.values():
            if use is not None:
                use.release(remove=True)


def _size(local: Mount, folder: str) -> int:
    """Return the bytes that removing `folder` frees."""
    size = 0
    for item in local.scan(folder):
        if item.is_dir(follow_symlinks=False):
            size += _size(local, f"{folder}/{item.name}")
        else:
            size += item.stat(follow_symlinks=False).st_blocks * 512
    return size


def _disk_usage(local: Mount, sizes: list[int]) -> int:
    """Return the bytes of disk that files of these sizes take: many small ones take far more."""
    block = os.statvfs(local.path).f_frsize
    return sum([-(-size // block) * block for size in sizes])


def _free(local: Mount) -> int:
    status = os.statvfs(local.path)
    return status.f_bavail * status.f_frsize - _SPARE


def _no_room(local: Mount, wanted: int, why: str) -> EfsStateError:
    return EfsStateError(
        f"{local.path}: no room for a copy of {mib(wanted)}: {why}; give the function more"
        " ephemeral storage, or use files.read() or files.mmap()"
    )
