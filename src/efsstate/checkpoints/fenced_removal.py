"""Remove a checkpoint so that no save is ever acknowledged in a folder that goes.

    fence    lock · claim an epoch, which fences every owner before it · judge the newest state
             make REMOVED, exclusively · list: a higher epoch means that the removal is given up
    remove   rename the folder away · list it: a higher epoch, or no REMOVED, means rename it back
             remove it piece by piece, REMOVED last: see `layout.removal_order`

Race with a claimant that does not see our lock, because we were frozen for longer than a lease:
1. It makes its epoch before we list: we see it, and give up.
2. It makes its epoch after we listed: it lists later than that, sees REMOVED, and does not go on
   unless it takes REMOVED away first, which we see after the rename.

A job with shards is fenced shard by shard, under the lock of the job: see `BeingRemoved`.
"""

from __future__ import annotations

import os
import time

from efsstate.checkpoints import claimant
from efsstate.checkpoints.newest import Listing
from efsstate.checkpoints.protocol import CheckpointFolder, Superseded
from efsstate.errors import ClaimedError, ForeignFilesError
from efsstate.eviction import removal
from efsstate.format import grammar, layout
from efsstate.mount import lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.checkpoints.saves import Save
    from efsstate.mount.files import Mount

    Judge = Callable[[Save | None], bool]


def remove(mount: Mount, folder: str, may_go: Judge | None = None) -> removal.Removal | None:
    """Remove the checkpoint in `folder`, with its shards; return what was removed.

    If `may_go` is given and returns False for the newest save of it or of a shard, return None and
    leave all as it was. Files that are not ours stay, and so does their folder. Raise ClaimedError
    if it or a shard is held, and OSError.
    """
    here = CheckpointFolder(mount, folder)
    with_lock = _lock(here)
    fenced: set[str] = set()  # shards
    try:
        names = mount.names(folder)
        if layout.SHARDS in names:
            epoch, is_fenced = 0, _fence_shards(here, may_go, fenced)
            if is_fenced:
                _mark(here)
        else:
            epoch = _fence(here, may_go)
            # A user's folder may have the name of a shard. It is fenced like one, so that the look
            # for new claims below does not take it for a shard that somebody has begun.
            is_fenced = epoch > 0 and _fence_shards(here, may_go, fenced)
        result = None
        if is_fenced:
            shards, fenced = fenced, set()  # from here on the removal is not taken back
            result = _remove_fenced(here, epoch, shards)
        if result is None and may_go is None:
            raise _claimed_error(here)
        return result
    finally:
        for shard in fenced:
            mount.remove(f"{folder}/{shard}", layout.REMOVED, quiet=True)
        with_lock.release()


def _lock(here: CheckpointFolder) -> lock.Lock:
    with_lock = lock.acquire(here.mount, here.folder, layout.LOCK, until=time.monotonic())
    if with_lock is None:
        raise _claimed_error(here)
    return with_lock


def _claimed_error(here: CheckpointFolder) -> ClaimedError:
    record = claimant.read(here, here.list().top)
    name = layout.readable(here.folder.removeprefix(f"{layout.CHECKPOINTS}/"))
    return ClaimedError(
        f"{here.path()}: claimed by {claimant.sentence(record)}, and not removed; wait for it, or"
        f" fence it by `efsstate checkpoint break {name}`",
        record,
    )


def _fence(here: CheckpointFolder, may_go: Judge | None) -> int:
    """Fence every owner of a checkpoint whose lock we hold; return our epoch, 0 if it stays."""
    record = claimant.describe(removes=True)
    try:
        epoch, newest = here.claim(record, accept_older=may_go is None, removing=True)
    except Superseded:
        return 0
    # MUT: a-removal-judges-under-its-fence
    if may_go is not None and not may_go(newest.save):
        return 0
    _mark(here)
    # MUT: a-removal-gives-up-for-a-later-claim
    if Listing(here.mount.names(here.folder)).top > epoch:
        here.mount.remove(here.folder, layout.REMOVED)
        return 0
    return epoch


def _mark(here: CheckpointFolder) -> None:
    """Create REMOVED in the folder; the caller holds its lock."""
    try:
        here.make_link(layout.REMOVED, "removed")
    except FileExistsError:
        pass  # of a remover that died: we have its lock


def _fence_shards(here: CheckpointFolder, may_go: Judge | None, fenced: set[str]) -> bool:
    """Fence each shard of a job whose lock we hold; return False if one stays."""
    known: set[str] = set()
    while True:
        begun = _begun(here.mount, here.folder) - known
        if not begun:
            return True
        for name in sorted(begun):
            shard = CheckpointFolder(here.mount, f"{here.folder}/{name}")
            with_lock = _lock(shard)
            try:
                if not _fence(shard, may_go):
                    return False
            finally:
                with_lock.release()
            fenced.add(name)
        known |= begun


def _begun(mount: Mount, folder: str) -> set[str]:
    """Return the folders in `folder` that have the name of a shard."""
    return {
        item.name
        for item in mount.scan(folder)
        if item.is_dir(follow_symlinks=False) and grammar.checkpoint(item.name, True) is not None
    }


def _remove_fenced(here: CheckpointFolder, epoch: int, shards: set[str]) -> removal.Removal | None:
    """Remove the folder, unless somebody has claimed it or a shard since it was fenced."""
    mount, folder = here.mount, here.folder
    try:
        removal.require_ours(mount, folder, grammar.checkpoint)
    except ForeignFilesError:  # which must not move with it
        # MUT: a-removal-in-place-looks-again
        if not _is_fenced(mount, folder, epoch, shards):
            return None
        return removal.remove_tree(mount, folder, grammar.checkpoint)
    parent, _, name = folder.rpartition("/")
    away = f"{layout.TEMPORARY}{os.urandom(12).hex()}"
    mount.rename(parent, name, parent, away)
    mount.forget(folder)
    # MUT: a-removal-looks-again-after-the-rename
    if not _is_fenced(mount, f"{parent}/{away}", epoch, shards):
        mount.rename(parent, away, parent, name)
        return None
    return removal.remove_tree(mount, f"{parent}/{away}", grammar.checkpoint)


def _is_fenced(mount: Mount, folder: str, epoch: int, shards: set[str]) -> bool:
    """Return True if nobody has claimed the checkpoint since it was fenced, nor a shard of it.

    `epoch` is the one that fences a checkpoint without shards. If we were frozen, and lost the
    lock, an owner or a worker may have removed REMOVED and claimed, or begun a shard that is not
    among `shards`, which we fenced.
    """
    listing = Listing(mount.names(folder))
    if layout.REMOVED not in listing.names or (epoch and listing.top > epoch):
        return False
    begun = _begun(mount, folder)
    # MUT: a-removal-looks-at-the-shards-again
    if not begun <= shards:
        return False
    return all(layout.REMOVED in mount.names(f"{folder}/{name}") for name in begun)
