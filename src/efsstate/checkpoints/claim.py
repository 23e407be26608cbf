"""Hold the claim of a checkpoint: its lock, its epoch, and the saves that are made under it."""

from __future__ import annotations

import os
import threading
import time
from _weakref import ref  # built in: the public module would be one more import

from efsstate import process
from efsstate.checkpoints import claimant, protocol, saves
from efsstate.checkpoints.newest import NOTHING
from efsstate.errors import ClaimedError, ClaimLost, NotClaimed
from efsstate.format import layout
from efsstate.mount import lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.checkpoints.protocol import CheckpointFolder
    from efsstate.checkpoints.saves import Key, Save
    from efsstate.mount.readdir import FolderReader

_LOST = "its claim was lost to another"
_REOPEN = 1.0  # seconds after which a waiter opens the lock file again

# The claims of this process, by root and folder. The references are weak: a claim that an
# asynchronous exception left behind goes with its last user, and its lock with it.
_claims: dict[tuple[str, str], ref[HeldClaim]] = {}


@process.after_fork
def _forget_claims() -> None:
    """Close the parent's locks in a forked child, where they would outlive the parent."""
    for reference in list(_claims.values()):
        claim = reference()
        if claim is not None:
            claim.close_lock()
    _claims.clear()


class HeldClaim:
    """The claim of one checkpoint, from `acquire` to `release`.

    `epoch` is its fencing number, `newest` the state that it started from, `ended` why nothing can
    be saved under it any more ("" while it can).
    """

    def __init__(self, folder: CheckpointFolder, keep: int) -> None:
        self.folder = folder
        self.epoch = 0
        self.newest: Save | None = None
        self.moved = 0  # the epoch in which the position last moved
        self.ended = "it is not claimed"
        self.pid, self.thread = os.getpid(), threading.get_ident()
        self._keep = keep
        self._kept: list[Key] = []  # the valid saves, newest first
        self._number = 0  # of the last save under this epoch
        self._lock: lock.Lock | None = None
        self._reader: FolderReader | None = None

    # Claiming

    def acquire(self, until: float, *, accept_older: bool) -> bool:
        """Claim the checkpoint, waiting until the monotonic time `until` for another owner.

        Returns True if it had to wait. Raises `ClaimedError`, the errors of
        `CheckpointFolder.claim`, and `OSError`.
        """
        folder = self.folder
        here = (folder.mount.path, folder.folder)
        if self._is_held_by_thread(here):
            import gc

            gc.collect()  # an alarm may have left it behind in a loop, which is a cycle
        if self._is_held_by_thread(here):
            raise ClaimedError(
                f"{folder.path()}: already claimed by this thread, in an enclosing block; use that"
                " claim, or leave it first"
            )
        try:
            waited = self._acquire_epoch(until, accept_older=accept_older)
        except BaseException:
            self.release()
            raise
        self._kept = [self.newest.key, *self.newest.behind][: self._keep] if self.newest else []
        self.ended = ""
        _claims[here] = ref(self)
        return waited

    def _is_held_by_thread(self, here: tuple[str, str]) -> bool:
        """Return True if this thread holds a claim of this checkpoint already."""
        other = _claims.get(here, _nothing)()
        return other is not None and other.is_held() and other.thread == self.thread

    def _acquire_epoch(self, until: float, *, accept_older: bool) -> bool:
        """Take the lock and make an epoch; return True if another owner had to be waited for."""
        folder, has_waited = self.folder, False
        while True:
            if not self._acquire_lock(until, has_waited=has_waited):
                raise self._claimed_error()
            assert self._lock is not None
            has_waited = has_waited or self._lock.waited
            self._reader = folder.mount.watch(folder.folder)
            try:
                self.epoch, newest = folder.claim(
                    claimant.describe(folder.name), accept_older=accept_older, reader=self._reader
                )
            except (protocol.Superseded, protocol.BeingRemoved) as signal:
                if isinstance(signal, protocol.BeingRemoved) and self._may_claim_again():
                    self.close_lock()
                    continue
                self.close_lock()
                if time.monotonic() >= until:
                    raise self._claimed_error() from None
                time.sleep(0.01)
                continue
            self.newest = newest.save
            self.moved = newest.save.moved if newest.save else newest.first - 1
            return has_waited

    def _acquire_lock(self, until: float, *, has_waited: bool) -> bool:
        """Wait for the lock until the monotonic time `until`; return True if it is held then.

        Race with break_claim(), which removes the lock file of a hung holder:
        1. We wait for the lock of the old file. Another claimant makes a new file and locks it.
        2. The hung holder dies: we have the old file's lock, which excludes nobody, and would take
           the claim from the healthy owner.
        So the file is opened again now and then, and after a wait it must still have its name.
        """
        mount, name = self.folder.mount, self.folder.folder
        while True:
            patience = min(until, time.monotonic() + _REOPEN)
            self._lock = lock.acquire(mount, name, layout.LOCK, until=patience)
            if self._lock is not None:
                if not (has_waited or self._lock.waited) or self._lock.is_current():
                    self._lock.waited = self._lock.waited or has_waited
                    return True
                self.close_lock()
            elif patience >= until:
                return False
            has_waited = True

    def _may_claim_again(self) -> bool:
        """Return True if another try of the claim may succeed, after REMOVED was listed.

        If the file of our lock is not the one with the name, a removal has renamed our folder away,
        and the next try opens the new folder. Else end the removal if the remover died, or return
        False if it is still at work.
        """
        folder, our_lock = self.folder, self._lock
        folder.mount.forget(folder.folder)
        # MUT: no-claim-in-a-folder-that-was-removed
        if our_lock is not None and not our_lock.is_current():
            return True
        return self._end_dead_removal()

    def _end_dead_removal(self) -> bool:
        """Take back a removal whose remover died; return False if it is still at work.

        A remover holds the lock of the job until the folder is gone. For a job without shards that
        is the lock that we hold.
        """
        folder, job = self.folder, self.folder.job_folder()
        remover_lock = None
        if job != folder.folder:
            remover_lock = lock.attempt(folder.mount, job, layout.LOCK)
            if remover_lock is None:
                return False
        try:
            folder.mount.remove(folder.folder, layout.REMOVED)
            if remover_lock is not None:
                folder.mount.remove(job, layout.REMOVED)
        finally:
            if remover_lock is not None:
                remover_lock.release()
        return True

    def _claimed_error(self) -> ClaimedError:
        record = claimant.read(self.folder, self.folder.list().top)
        return ClaimedError(
            f"{self.folder.path()}: claimed by {claimant.sentence(record)}; wait for it (wait=), or"
            " fence it with break_claim()",
            record,
        )

    def is_held(self) -> bool:
        """Return True if this process holds the claim, as far as it knows."""
        return self._lock is not None and self.pid == os.getpid()

    def is_valid(self) -> bool:
        """Return True if saves under this claim may still count, as far as it knows."""
        return not self.ended and self.pid == os.getpid()

    def require(self) -> None:
        """Raise `ClaimLost` unless this process holds the claim."""
        if self.ended:
            kind = ClaimLost if self.ended == _LOST else NotClaimed
            raise kind(
                f"{self.folder.path()}: {self.ended}; use it inside `with checkpoint(...) as job:`"
            )
        if self.pid != os.getpid():
            raise ClaimLost(
                f"{self.folder.path()}: claimed by process {self.pid}, before a fork: a child holds"
                " nothing; claim in it"
            )

    def release(self) -> None:
        """End the claim. Calling it again does nothing."""
        self.ended = self.ended or "its claim has ended"
        self._reader = None
        here = (self.folder.mount.path, self.folder.folder)
        if _claims.get(here, _nothing)() is self:
            del _claims[here]
        self.close_lock()

    def close_lock(self) -> None:
        """Give the lock back; in a forked child, only close it."""
        held_lock, self._lock = self._lock, None
        if held_lock is None:
            return
        try:
            held_lock.release()
        except OSError as error:
            # After any other error there is no lock to give back: the server took it long ago.
            process.raise_of_handler(error)

    # Saving

    def crashes(self) -> int:
        """Return how many claims since the newest save ended without order, as far as is known."""
        save = self.newest
        last = save.key[0] if save is not None else self.moved
        began_an_item = save is not None and not (save.left or save.empty or save.finished)
        return protocol.claims_between(last, self.epoch - 1 + began_an_item)

    def new_save(self) -> Save:
        """Return a save with the next key under this epoch, to be filled."""
        # MUT: a-saves-name-is-never-used-twice
        self._number += 1  # whatever happens to this save
        save = saves.Save((self.epoch, self._number))
        save.behind = self._kept[: self._keep - 1]
        return save

    def save(self, save: Save, *, codec: str, ttl: float | None) -> None:
        """Write a save; return once it is acknowledged.

        Raises `ClaimLost`, `OSError` and `EncodeError`, as `Checkpoint.save` says.
        """
        folder = self.folder
        meta, payload = saves.pack(folder.mount, folder.folder, save)
        try:
            listing = folder.save(
                save.key, meta, payload, codec=codec, ttl=ttl, reader=self._reader
            )
        except ClaimLost:
            self.ended = _LOST
            raise
        self._kept = [save.key, *save.behind]
        is_full = len(self._kept) == self._keep
        folder.prune(listing, self.epoch, self._kept[-1] if is_full else NOTHING)


def _nothing() -> None:
    """Stand for the reference to a claim that does not exist."""
