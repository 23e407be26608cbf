"""Fence every owner from before a failover, and examine the replica or the backup.

A replica is a state of the past: its highest epoch was used again by owners that the replica does
not know, and a claim of the next number would be theirs too. A rebase claims an epoch above all of
them: epochs begin at the time of a lock file and grow by one, so that the server's time now is
above every epoch of a checkpoint that is older.

A replica is not of one moment either: a save may be there without its claim, a base without its
save, and the mark of a finished shard without its last save.
"""

from __future__ import annotations

from efsstate.checkpoints import claimant
from efsstate.checkpoints.newest import Newest
from efsstate.checkpoints.protocol import BeingRemoved, CheckpointFolder, Superseded
from efsstate.checkpoints.shards import ShardFolder
from efsstate.errors import CorruptEntryError, ShardsError
from efsstate.format import layout
from efsstate.mount import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from efsstate.checkpoints.newest import Listing
    from efsstate.checkpoints.saves import Key, Save
    from efsstate.mount.files import Mount


class Rebased:
    """A checkpoint or a shard, as a rebase found it and left it.

    `before` is the highest epoch that it had, `epoch` the one that it has now, `save` the newest
    state that can be read, `damage` why a newer one cannot be ("" if there is none), `strays` the
    saves that do not count because their claim is missing. `is_mark_wrong` tells that a shard was
    marked as finished without a finished state, `is_count_missing` that a job's number of shards
    cannot be read.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.before = self.epoch = 0
        self.save: Save | None = None
        self.damage = ""
        self.strays: list[Key] = []
        self.is_mark_wrong = self.is_count_missing = False

    @property
    def is_finished(self) -> bool:
        """True if it is finished, so that no acknowledged save is missing."""
        return self.save is not None and self.save.finished and not self.damage


def rebase(
    mount: Mount, folder: str, *, accept_older: bool = False, dry_run: bool = False
) -> Iterator[Rebased]:
    """Raise the epoch of the checkpoint in `folder`, or of each of its shards, above all that ran.

    Each owner is fenced, also one that works on: its next save is `ClaimLost`. The state under the
    new epoch is the newest that can be read. If an acknowledged one is damaged, that is left to the
    next claim, which refuses, unless `accept_older` is True. The mark of a shard without a
    finished state is removed. With `dry_run` nothing is changed. Raises `OSError` and
    `UnknownFormatError`.
    """
    least = 0 if dry_run else _server_epoch(mount)
    names = mount.names(folder)
    shards = {parsed[1] for parsed in filter(None, map(layout.parse_shard, names))}
    if layout.SHARDS not in names and not shards:
        yield _rebase_one(CheckpointFolder(mount, folder), least, accept_older=accept_older)
        return
    job = CheckpointFolder(mount, folder)
    if job.list().top:
        yield _rebase_one(job, least, accept_older=accept_older)
    marks, trouble = _read_marks(job)
    if trouble is not None:
        yield trouble
    for index in sorted(shards):
        result = Rebased(f"{folder}/s{index}")
        if f"s{index}" in names:
            shard = CheckpointFolder(mount, result.folder)
            result = _rebase_one(shard, least, accept_older=accept_older)
        if marks is not None and index in marks.marked and not result.is_finished:
            result.is_mark_wrong = True
            # MUT: a-shards-mark-needs-its-last-save
            if not dry_run:
                marks.unmark(index)
        yield result


def _server_epoch(mount: Mount) -> int:
    """Return the server's time as an epoch."""
    mount.ask_time("")
    return int(clock.now() * 1e6)


def _read_marks(job: CheckpointFolder) -> tuple[ShardFolder | None, Rebased | None]:
    """Return the folder with its marks read; without the number of shards, why there is none."""
    try:
        marks = ShardFolder(job, None, make=False)
    except (ShardsError, CorruptEntryError) as error:
        trouble = Rebased(job.folder)
        trouble.damage, trouble.is_count_missing = str(error), True
        return None, trouble
    marks.begun()
    return marks, None


def _rebase_one(here: CheckpointFolder, least: int, *, accept_older: bool) -> Rebased:
    """Look at one folder of claims and saves, and raise its epoch to `least`, if that is not 0."""
    result = Rebased(here.folder)
    listing, newest = _peek(here)
    result.before = result.epoch = listing.top
    result.strays = sorted(listing.ours["g"].difference(listing.saves), reverse=True)
    if least:
        name = claimant.read(here, listing.top).get("name") if listing.top else None
        record = claimant.describe(name if isinstance(name, str) else "", rebased=True)
        try:
            result.epoch, newest = here.claim(record, accept_older=accept_older, least=least)
        except (Superseded, BeingRemoved, CorruptEntryError):
            # Its new epoch fences all the same; the next claim decides which state counts.
            listing, newest = _peek(here)
            result.epoch = listing.top
    result.save = newest.save
    result.damage = str(newest.lost) if newest.lost is not None else ""
    return result


def _peek(here: CheckpointFolder) -> tuple[Listing, Newest]:
    """Return the names and the newest state; a base that cannot be read is a damage too."""
    try:
        return here.peek()
    except CorruptEntryError as error:
        return here.list(), Newest(None, decided=False, lost=error)
