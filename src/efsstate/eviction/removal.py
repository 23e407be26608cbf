"""Remove folders of ours: the only code that removes more than a single file by its exact name.

It removes by the grammar of the format and on the root's own file system. A name that the format
does not define stays, and so does the folder that holds it; `foreign` lists such paths.
"""

from __future__ import annotations

import stat
from itertools import islice

from efsstate.errors import ForeignFilesError
from efsstate.format import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from efsstate.format.grammar import Level
    from efsstate.mount.files import Mount

EVERY = 256  # names between looks at the time
BATCH = 4096  # names of a large folder that are held at a time


class Removal:
    """The result of a removal: counts, foreign paths that stayed, and if the time sufficed."""

    __slots__ = ("foreign", "is_complete", "removed", "size")

    def __init__(self) -> None:
        self.removed = self.size = 0
        self.foreign: list[str] = []
        self.is_complete = True


class Item:
    """A name below a folder that is walked; `is_ours` if the format defines it there."""

    __slots__ = ("folder", "is_folder", "is_ours", "name", "status")

    def __init__(self, folder: str, name: str, status: os.stat_result, *, is_ours: bool) -> None:
        self.folder, self.name, self.status = folder, name, status
        self.is_folder = stat.S_ISDIR(status.st_mode)
        self.is_ours = is_ours


def walk(mount: Mount, folder: str, level: Level) -> Iterator[Item]:
    """Yield each name below `folder`, a folder's contents before the folder itself.

    A folder that is not ours is yielded and not entered; so is `folder` itself if another file
    system is mounted there. Names of the NFS client's own are left out: they go by themselves.
    Raise OSError if a folder cannot be listed.
    """
    device = mount.stat("", ".").st_dev
    parent, _, name = folder.rpartition("/")
    try:
        status = mount.stat(parent, name)
    except FileNotFoundError:
        return
    if status.st_dev != device:
        yield Item(parent, name, status, is_ours=False)
        return
    # A stack instead of recursion: a planted tree may be deeper than Python's stack.
    stack: list[tuple[Item | None, Level, Iterator[Item]]] = [
        (None, level, _list(mount, folder, level, device))
    ]
    while stack:
        around, level, items = stack[-1]
        item = next(items, None)
        if item is None:
            stack.pop()
            if around is not None:
                yield around
            continue
        inside = level(item.name, True) if item.is_ours and item.is_folder else None
        if inside is None:
            yield item
        else:
            inner = _list(mount, f"{item.folder}/{item.name}", inside, device)
            stack.append((item, inside, inner))


def _list(mount: Mount, folder: str, level: Level, device: int) -> Iterator[Item]:
    for name in layout.removal_order(mount.names(folder)):
        try:
            status = mount.stat(folder, name)
        except FileNotFoundError:
            continue  # removed since it was listed
        if layout.is_foreign_nfs(name):
            continue
        # MUT: only-names-of-the-format-are-removed
        is_ours = level(name, stat.S_ISDIR(status.st_mode)) is not None and is_kept_kind(status)
        # MUT: another-file-system-is-not-entered
        is_ours = is_ours and status.st_dev == device
        yield Item(folder, name, status, is_ours=is_ours)


def is_kept_kind(status: os.stat_result) -> bool:
    """Return True for a folder, a regular file or a link: the format has nothing else."""
    mode = status.st_mode
    return stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def remove_tree(
    mount: Mount,
    folder: str,
    level: Level,
    *,
    is_over: Callable[[], bool] = bool,
) -> Removal:
    """Remove the names below `folder` that `level` defines, and `folder` if it is empty then.

    `is_over` is asked now and then; once it is true the rest stays, and `is_complete` is False.
    Raise OSError if something cannot be listed or removed.
    """
    result = Removal()
    for count, item in enumerate(walk(mount, folder, level), 1):
        if count % EVERY == 0 and is_over():
            result.is_complete = False
            return result
        path = f"{item.folder}/{item.name}"
        if not item.is_ours:
            result.foreign.append(mount.path_of(path))
        elif item.is_folder:
            mount.remove_folder(path)  # it stays while something foreign, or new, is in it
        elif mount.remove(item.folder, item.name):
            result.removed += 1
            result.size += item.status.st_size
    if not result.foreign:
        mount.remove_folder(folder)
    return result


def remove_flat(
    mount: Mount, folder: str, level: Level, *, is_over: Callable[[], bool] = bool
) -> Removal:
    """Remove the files in `folder` that `level` defines, and `folder` if it is empty then.

    For a folder of any number of files, without folders of ours: few names are held, and a link
    takes one request. `is_over` and the errors are as of `remove_tree`.
    """
    result = Removal()
    device, foreign = mount.stat("", ".").st_dev, set()
    status = mount.refresh(folder)
    if status is None:
        return result
    if status.st_dev != device:
        result.foreign.append(mount.path_of(folder))
        return result
    removed = -1
    # Batch by batch, because a listing that goes on during removals may leave names out.
    while removed != result.removed:
        removed = result.removed
        for count, (name, size) in enumerate(list(islice(_sizes(mount, folder), BATCH)), 1):
            if count % EVERY == 0 and is_over():
                result.is_complete = False
                return result
            # MUT: only-names-of-the-format-are-removed-from-a-large-folder
            if size is None or level(name, False) is None:
                foreign.add(name)
            elif mount.remove(folder, name):
                result.removed += 1
                result.size += size
    result.foreign += [mount.path_of(folder, name) for name in sorted(foreign)]
    if not result.foreign:
        mount.remove_folder(folder)
    return result


def _sizes(mount: Mount, folder: str) -> Iterator[tuple[str, int | None]]:
    """Yield each name in `folder` with its size: 0 for a link, None for what is no file either."""
    for item in mount.scan(folder):
        if layout.is_foreign_nfs(item.name):
            continue
        size = 0 if item.is_symlink() else None
        if item.is_file(follow_symlinks=False):
            size = item.stat(follow_symlinks=False).st_size
        yield item.name, size


def require_ours(mount: Mount, folder: str, level: Level) -> None:
    """Raise ForeignFilesError if anything below `folder` is not ours.

    For folders that are renamed before they are removed: a user's files must not move with them.
    """
    items = walk(mount, folder, level)
    paths = [mount.path_of(item.folder, item.name) for item in items if not item.is_ours]
    if paths:
        raise ForeignFilesError(mount.path_of(folder), sorted(paths))
