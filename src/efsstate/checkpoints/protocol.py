"""The protocol of one checkpoint's folder: epochs fence, bases decide, saves carry.

    e<epoch>           exclusive create: a claim. Saves are acknowledged under the highest alone
    b<epoch>           exclusive create: what the epoch starts from, decided once by the first
    <epoch>-<number>   a save: appears whole, by a rename, and is never changed

    claim   list · make e<max+1> · list · read the newest state · make b<epoch> · (finished: list)
    save    make <epoch>-<number> · list: a higher epoch is ClaimLost, none is the acknowledgement
    load    list · read the newest state of the highest epoch (newest.py)
            (long folder, new state: list again; the epoch has no base yet: list, make it, list)

docs/guarantees-checkpoints.md tells why each step is there and what goes wrong without it;
tests/checkpoints/model explores it.
"""

from __future__ import annotations

import time
from operator import methodcaller

from efsstate import process
from efsstate.checkpoints.newest import Listing, StaleListing, StateFolder, epoch_of
from efsstate.errors import ClaimLost
from efsstate.format import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.checkpoints.newest import Newest
    from efsstate.checkpoints.saves import Key
    from efsstate.mount.files import Buffer
    from efsstate.mount.readdir import FolderReader

    Payload = list[Buffer]
    Names = list[str]

_CLAIMS_KEPT = 2  # former claims whose links stay
_MOST_CLAIMS = 2**16  # claims without progress that are counted; a wider gap is a rebase

_is_temporary = methodcaller("startswith", layout.TEMPORARY)


def claims_between(earlier: int, later: int) -> int:
    """Return how many claims were made after the epoch `earlier`, up to `later`.

    A rebase leaves a gap: then it is 1, because the claims before it cannot be counted.
    """
    count = later - earlier
    # MUT: a-rebase-is-no-crash
    return count if count < _MOST_CLAIMS else 1


class Superseded(Exception):  # noqa: N818 - not an error
    """A higher epoch appeared while this one was claimed."""


class BeingRemoved(Exception):  # noqa: N818 - not an error
    """The folder, or that of the shard's job, is about to be removed by the holder of its lock."""


class CheckpointFolder(StateFolder):
    """A checkpoint's folder, and the steps of the protocol in it."""

    def claim(
        self,
        record: str,
        *,
        accept_older: bool = False,
        reader: FolderReader | None = None,
        removing: bool = False,
        least: int = 0,
    ) -> tuple[int, Newest]:
        """Make a new epoch with the claimant's `record`, higher than all before it.

        Returns it with the state that it starts from. `reader` lists the folder for the claim's
        owner; `removing` says that it claims to remove the folder; the epoch is `least` or higher,
        with a gap before it that no claims leave. Raises `Superseded`, `BeingRemoved`, and
        `CorruptEntryError` for an acknowledged save that is damaged.
        """
        listing = Listing(reader.names()) if reader else self.list()
        epoch = self._make_epoch(listing, record, least)
        listing = self._list_after(layout.epoch_name(epoch), reader)
        repeats = 0
        while True:
            if listing.top > epoch:
                raise Superseded
            # MUT: no-claim-in-a-folder-that-goes
            if layout.REMOVED in listing.names and not removing:
                raise BeingRemoved
            try:
                newest = self.find(listing, epoch, repeats)
            except StaleListing:
                listing, repeats = self._list_again(listing, repeats)
                continue
            # MUT: a-claim-refuses-acknowledged-damage
            if newest.lost is not None and not accept_older:
                raise newest.lost
            if not newest.decided:
                try:
                    self.decide_base(epoch, newest.key)
                except FileExistsError:
                    listing, repeats = self._list_again(listing, repeats)
                    continue
            if newest.save is not None and newest.save.finished and self.list().top > epoch:
                raise Superseded
            newest.first = min(listing.epochs, default=epoch)
            self._prune_claims(listing, epoch, keep_first=newest.save is None)
            return epoch, newest

    def _make_epoch(self, listing: Listing, record: str, least: int) -> int:
        epoch = listing.top + 1 if listing.top else self._first_epoch()
        if least:
            # MUT: a-rebase-is-above-all-that-ran
            epoch = max(epoch + _MOST_CLAIMS, least)
        while True:
            try:
                self.make_link(layout.epoch_name(epoch), record)
            except FileExistsError:
                epoch = max(self.list().top, epoch) + 1
            else:
                return epoch

    def _first_epoch(self) -> int:
        """Return the first epoch: when the lock file was made, in µs by the server's clock.

        So epochs go on growing after this checkpoint was swept and begun again: an owner that was
        frozen meanwhile is fenced like any other, and users may compare them.
        """
        try:
            # Microseconds: claims come more slowly, so epochs never run ahead of the clock.
            # MUT: epochs-grow-after-a-removal
            return max(1, self.mount.stat(self.folder, layout.LOCK).st_mtime_ns // 1000)
        except FileNotFoundError:
            return int(time.time() * 1e6)

    def _list_after(self, name: str, reader: FolderReader | None) -> Listing:
        """List the folder later than our own making of `name`."""
        if reader is not None:
            names = reader.names()
            if name in names:
                return Listing(names)
        return self.list()

    def save(
        self,
        key: Key,
        meta: bytes,
        payload: Payload,
        *,
        codec: str,
        ttl: float | None,
        reader: FolderReader | None = None,
    ) -> Listing:
        """Write a save, and list: no higher epoch is the acknowledgement.

        Raises `ClaimLost` for a higher epoch, and `OSError`.
        """
        name = layout.generation_name(*key)
        try:
            self.mount.write_entry(
                self.folder,
                name,
                payload,
                codec=codec,
                meta=meta,
                ttl=ttl,
                durable=True,
            )
        except OSError as error:
            process.raise_of_handler(error)
            try:
                listing = self.list()
            except OSError:
                raise error from None
            self._require_top(listing, key, error)
            raise
        listing = self._list_after(name, reader)
        self._require_top(listing, key, None)
        return listing

    def _require_top(self, listing: Listing, key: Key, error: OSError | None) -> None:
        # MUT: the-look-after-a-save
        if listing.top == key[0] and key[0] in listing.epochs:
            return
        why = (
            "another claim superseded it"
            if listing.top > key[0]
            else "its folder was removed or replaced"
        )
        raise ClaimLost(
            f"{self.path(key)}: the claim is lost: {why}: this save counts only if the new owner"
            " started from it; leave the block and claim again"
        ) from error

    def prune(self, listing: Listing, epoch: int, oldest: Key) -> None:
        """After an acknowledged save under `epoch`, remove saves before `oldest`, and old links.

        The oldest go first, and none after an error: a listing may come in parts, and a reader that
        finds in it an older save than was acknowledged must find that save removed.
        """
        # A temporary belongs to an owner that died or was superseded; its save can't be
        # acknowledged any more.
        names = list(filter(_is_temporary, listing.names))
        for key in reversed(listing.saves):
            if key >= oldest:
                break
            names.append(layout.generation_name(*key))
        if len(listing.epochs) + len(listing.bases) > 2 * _CLAIMS_KEPT:
            names += _former_claims(listing, epoch, lambda e: e < oldest[0])
        if names:
            self._remove(names)

    def _prune_claims(self, listing: Listing, epoch: int, *, keep_first: bool) -> None:
        """Once the base of `epoch` is decided, remove the links of former claims without a save.

        `keep_first`: the first claim's tells how many there were, while no save does.

        A claim need not end in a save, so that saves alone would let the folder grow. A late save
        of such a claim does not count: its epoch's link is missing, or its key is above the base.
        """
        # MUT: claims-without-a-save-go
        saved = set(map(epoch_of, listing.saves))
        if keep_first:
            saved.add(min(listing.epochs, default=epoch))
        self._remove(_former_claims(listing, epoch, lambda e: e not in saved))

    def _remove(self, names: Names) -> None:
        try:
            for name in names:
                self.mount.remove(self.folder, name)
        except OSError as error:
            process.raise_of_handler(error)
            from efsstate import events

            text = "an old save could not be removed: %s"
            events.log(
                "warning",
                text,
                error,
                kind="checkpoint",
                event="not_removed",
                path=self.path(),
                error=type(error).__name__,
                once=self.folder,
            )


def _former_claims(listing: Listing, epoch: int, has_ended: Callable[[int], bool]) -> Names:
    """Return the links of the claims before `epoch` that may go, once there are many.

    A base goes before its epoch: an epoch without its base would be one that died in its claim.
    """
    claims = listing.epochs | listing.bases
    if len(claims) <= 2 * _CLAIMS_KEPT + 1:  # `epoch` is one of them
        return []
    former = sorted(e for e in claims if e < epoch)[:-_CLAIMS_KEPT]
    ended = [e for e in former if has_ended(e)]
    names = [layout.base_name(e) for e in ended if e in listing.bases]
    return names + [layout.epoch_name(e) for e in ended if e in listing.epochs]
