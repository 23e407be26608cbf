"""The protocol of one checkpoint's folder: epochs fence, bases decide, saves carry.

    e<epoch>           exclusive create: a claim. Saves are acknowledged under the highest alone
    b<epoch>           exclusive create: what the epoch starts from, decided once by the first
    <epoch>-<number>   a save: appears whole, by a rename, and is never changed

    claim   list · make e<max+1> · list · read the newest state · make b<epoch> · (finished: list)
    save    make <epoch>-<number> · list: a higher epoch is ClaimLost, none is the acknowledgement
    load    list · read the newest state of the highest epoch
            (long folder: list again; the epoch has no base yet: list, make it, list)

docs/guarantees-checkpoints.md tells why each step is there and what goes wrong without it;
tests/checkpoints/model explores it.
"""

from __future__ import annotations

import errno
import time
from itertools import repeat
from operator import itemgetter, methodcaller

from efsstate.checkpoints import saves
from efsstate.errors import ClaimLost, CorruptEntryError
from efsstate.format import layout
from efsstate.mount import links, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from efsstate.checkpoints.saves import Key, Save
    from efsstate.mount.files import Buffer, Mount
    from efsstate.mount.readdir import FolderReader

    Payload = list[Buffer]
    Names = list[str]

NOTHING: Key = (0, 0)  # the save that an epoch starts from if there is none
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)
_PATIENCE = 2.0  # seconds that a reader who can't write waits for a claimant to make its base
_CLAIMS_KEPT = 2  # former claims whose links stay
_ONE_REPLY = 12  # names that a server gives in one reply, of one moment; more may come in parts
_MOST_CLAIMS = 2**16  # claims without progress that are counted; a wider gap is a rebase
_REPEATS = 5  # equal listings after which a missing name is gone, and not about to be replaced


_ZEROS = repeat(0)
_epoch_of = itemgetter(0)
_is_temporary = methodcaller("startswith", layout.TEMPORARY)


def claims_between(earlier: int, later: int) -> int:
    """Return how many claims were made after the epoch `earlier`, up to `later`.

    A rebase leaves a gap: then it is 1, because the claims before it cannot be counted.
    """
    count = later - earlier
    # MUT: a-rebase-is-no-crash
    return count if count < _MOST_CLAIMS else 1


class StaleListing(Exception):  # noqa: N818 - not an error
    """A name in the listing is gone: list again."""


class Superseded(Exception):  # noqa: N818 - not an error
    """A higher epoch appeared while this one was claimed."""


class BeingRemoved(Exception):  # noqa: N818 - not an error
    """The folder, or that of the shard's job, is about to be removed by the holder of its lock."""


class Listing:
    """The names in the folder at one moment; `top` is the highest epoch, 0 if there is none."""

    __slots__ = ("bases", "epochs", "names", "ours", "saves", "top")

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.ours = ours = layout.parse_claims(names)
        self.epochs: set[int] = ours["e"]
        self.bases: set[int] = ours["b"]
        claimed = self.epochs | self.bases
        # Ignore saves whose epoch link is missing: their owner was frozen while the checkpoint was
        # swept.
        self.saves: list[Key] = sorted(ours["g"], reverse=True)
        if not claimed.issuperset(map(_epoch_of, self.saves)):
            self.saves = [key for key in self.saves if key[0] in claimed]
        self.top = max(claimed, default=0)

    def below(self, epoch: int) -> list[Key]:
        """Return the saves and bases of `epoch` and lower, newest first; (e, 0) is e's base."""
        keys = [*self.saves, *zip(self.bases, _ZEROS)]  # noqa: B905 - as long as the bases
        keys.sort(reverse=True)
        return keys if epoch >= self.top else [key for key in keys if key[0] <= epoch]


class Newest:
    """The newest state that counts.

    `save` is None if nothing was saved; `decided` tells if the epoch's base is; `lost` is the error
    of an acknowledged save that is newer but damaged; `first` the lowest epoch that is known.
    """

    __slots__ = ("decided", "first", "lost", "save")

    def __init__(self, save: Save | None, *, decided: bool, lost: CorruptEntryError | None) -> None:
        self.save = save
        self.decided = decided
        self.lost = lost
        self.first = 0

    @property
    def key(self) -> Key:
        """The save's key, or `NOTHING`."""
        return NOTHING if self.save is None else self.save.key


class CheckpointFolder:
    """A checkpoint's folder, and the steps of the protocol in it.

    `name` is the checkpoint's if the folder's cannot give it back.
    """

    def __init__(self, mount: Mount, folder: str, name: str = "") -> None:
        self.mount = mount
        self.folder = folder
        self.name = name

    def list(self) -> Listing:
        """List the names, as the server has them now."""
        return Listing(self.mount.names(self.folder))

    def _list_again(self, before: Listing | None, repeats: int) -> tuple[Listing, int]:
        """List again, and count the equal listings before; pause if there was one."""
        if repeats:
            time.sleep(0.01)
        listing = self.list()
        same = before is not None and before.ours == listing.ours
        return listing, repeats + 1 if same else 0

    def path(self, key: Key | None = None) -> str:
        """Return the path of a save, or of the folder, for messages."""
        return self.mount.path_of(self.folder, layout.generation_name(*key) if key else "")

    def job_folder(self) -> str:
        """Return the job's folder: this one, or the one around it for a shard."""
        parent, _, _ = self.folder.rpartition("/")
        return self.folder if parent == layout.CHECKPOINTS else parent

    # Links: symbolic links that hold a text with its checksum

    def make_link(self, name: str, text: str) -> None:
        """Make the link `name` with `text`. Raises `FileExistsError`."""
        links.create(self.mount, self.folder, name, text)

    def read_link(self, name: str) -> str:
        """Return the text of the link `name`. Raises `FileNotFoundError`, `CorruptEntryError`."""
        return links.read(self.mount, self.folder, name)

    def base(self, epoch: int) -> Key:
        """Return the key of the save that `epoch` starts from."""
        name = layout.base_name(epoch)
        text = self.read_link(name)
        if text == "-":
            return NOTHING
        parsed = layout.parse_claim(text)
        if parsed is None or parsed[0] != "g":
            raise CorruptEntryError(
                self.mount.path_of(self.folder, name), f"{text!r:.80} is not a save"
            )
        return parsed[1:]

    def decide_base(self, epoch: int, target: Key) -> None:
        """Decide that `epoch` starts from `target`.

        Raises `FileExistsError` if that was decided already.
        """
        text = layout.generation_name(*target) if target != NOTHING else "-"
        self.make_link(layout.base_name(epoch), text)

    # Reading

    def read(self, key: Key) -> Save:
        """Read a save and check every byte.

        Raises `FileNotFoundError`, `CorruptEntryError`, `UnknownFormatError`.
        """
        stored = store.read(self.mount, self.folder, layout.generation_name(*key))
        return saves.unpack(self.mount, self.folder, key, stored)

    def read_header(self, listing: Listing) -> Save | None:
        """Read the first bytes of the newest save whose first bytes are whole, for showing."""
        for key in listing.saves:
            try:
                return saves.read_header(self.mount, self.folder, key)
            except (FileNotFoundError, CorruptEntryError):
                continue
        return None

    def find(self, listing: Listing, epoch: int, repeats: int) -> Newest:
        """Find the state under `epoch`.

        It is the epoch's newest valid save; else the save that its base names; else the newest
        below it. `repeats` counts the equal listings before this one. Raises `StaleListing` if the
        listing is too old.
        """
        lost: CorruptEntryError | None = None
        limit: Key | None = None
        decided = False
        for key in listing.below(epoch):
            # MUT: the-base-once-decided-counts
            if limit is not None and key >= limit:
                continue  # a base decided that these do not count
            target = key
            decided = decided or key[0] == epoch  # an epoch has saves only once it has its base
            if key[1] == 0:
                try:
                    target = self.base(key[0])
                except FileNotFoundError:
                    raise StaleListing from None
                if target == NOTHING:
                    return Newest(None, decided=decided, lost=lost)
                limit = target
            try:
                return Newest(self.read(target), decided=decided, lost=lost)
            except FileNotFoundError:
                if lost is None and repeats < _REPEATS:
                    raise StaleListing from None
                lost = lost or CorruptEntryError(
                    self.path(target), "it was removed, though a claim started from it"
                )
            except CorruptEntryError as error:
                _warn_of_damage(error)
                # Saves appear whole, so this one was whole once: it may have been acknowledged.
                lost = lost or error
        return Newest(None, decided=decided, lost=lost)

    def peek(self) -> tuple[Listing, Newest]:
        """Return the names, and the newest state under the highest epoch; decide nothing."""
        listing, repeats = self._list_again(None, 0)
        while True:
            try:
                return listing, self.find(listing, listing.top, repeats)
            except StaleListing:
                listing, repeats = self._list_again(listing, repeats)

    def newest(self) -> tuple[Newest, bool]:
        """Return the newest state, and if it is settled: no later load can return an older one.

        Raises `CorruptEntryError` if something was saved and all of it is damaged.
        """
        listing: Listing | None = None
        repeats, until = 0, 0.0
        while True:
            before = listing
            listing, repeats = self._list_again(listing, repeats)
            if not listing.top:
                # A listing in parts may miss a save that is being replaced; "nothing was saved"
                # needs two.
                if repeats:
                    return Newest(None, decided=True, lost=None), True
                continue
            try:
                newest = self.find(listing, listing.top, repeats)
            except StaleListing:
                continue
            if newest.save is None and newest.lost is not None:
                raise newest.lost
            if newest.decided:
                if newest.save is None and not repeats:
                    continue
                if len(listing.names) <= _ONE_REPLY or self.list().top <= listing.top:
                    return newest, True
                continue
            if newest.lost is not None:
                # To go on from less than was acknowledged is the claimant's decision.
                return newest, False
            if before is None or before.top != listing.top:
                continue  # an epoch's start is read from a listing later than the epoch
            try:
                # MUT: a-load-decides-what-is-open
                self.decide_base(listing.top, newest.key)
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                until = until or time.monotonic() + _PATIENCE
                if time.monotonic() >= until:
                    return newest, False
                time.sleep(0.05)

    # Claiming and saving

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
            store.write(
                self.mount,
                self.folder,
                name,
                payload,
                codec=codec,
                meta=meta,
                ttl=ttl,
                durable=True,
            )
        except OSError as error:
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
        saved = set(map(_epoch_of, listing.saves))
        if keep_first:
            saved.add(min(listing.epochs, default=epoch))
        self._remove(_former_claims(listing, epoch, lambda e: e not in saved))

    def _remove(self, names: Names) -> None:
        try:
            for name in names:
                self.mount.remove(self.folder, name)
        except OSError as error:
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


def _warn_of_damage(error: CorruptEntryError) -> None:
    from efsstate import events

    events.log(
        "warning",
        "%s; passed over for the save before it",
        error,
        kind="checkpoint",
        event="damaged",
        path=error.path,
        once=error.path,
    )
