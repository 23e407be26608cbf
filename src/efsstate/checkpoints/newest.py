"""Find the newest state that counts in a checkpoint's folder: by its names, bases and saves.

docs/guarantees-checkpoints.md tells why each step is there; the protocol's other half, claims and
saves, is in protocol.py.
"""

from __future__ import annotations

import errno
import time
from itertools import repeat
from operator import itemgetter

from efsstate import process
from efsstate.checkpoints import saves
from efsstate.errors import CorruptEntryError
from efsstate.format import layout
from efsstate.mount import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.checkpoints.saves import Key, Save
    from efsstate.mount.files import Mount

NOTHING: Key = (0, 0)  # the save that an epoch starts from if there is none
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)
_PATIENCE = 2.0  # seconds that a reader who can't write waits for a claimant to make its base
_ONE_REPLY = 12  # names that a server gives in one reply, of one moment; more may come in parts
_REPEATS = 5  # equal listings after which a missing name is gone, and not about to be replaced
_REMEMBERED = 1000  # folders of which `_settled` knows a save

_ZEROS = repeat(0)
epoch_of = itemgetter(0)
# The save that the last load of a folder returned, by root and folder. It counts for good.
_settled: dict[tuple[str, str], Key] = {}
process.at_reset(_settled.clear)


class StaleListing(Exception):  # noqa: N818 - not an error
    """A name in the listing is gone: list again."""


class Listing:
    """The names in the folder at one moment; `top` is the highest epoch, 0 if there is none."""

    __slots__ = ("bases", "epochs", "names", "ours", "saves", "top")

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.ours = ours = layout.parse_claims(names)
        self.epochs: set[int] = ours["e"]
        self.bases: set[int] = ours["b"]
        claimed = self.epochs | self.bases
        # Ignore a save without an epoch link: the checkpoint was swept while the owner of the save
        # was frozen.
        self.saves: list[Key] = sorted(ours["g"], reverse=True)
        if not claimed.issuperset(map(epoch_of, self.saves)):
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


class StateFolder:
    """A checkpoint's folder, as a reader needs it.

    `name` is the checkpoint's if the folder's cannot give it back.
    """

    def __init__(self, mount: Mount, folder: str, name: str = "") -> None:
        self.mount = mount
        self.folder = folder
        self.name = name

    def list(self) -> Listing:
        """List the names, as the server has them now."""
        names = self.mount.names(self.folder)
        # A removal renames the folder away, and the folder that we have open follows the rename.
        # So list the folder that has the name by now.
        # MUT: a-folder-that-was-removed-is-not-read
        if layout.REMOVED in names:
            self.mount.forget(self.folder)
            names = self.mount.names(self.folder)
        return Listing(names)

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
        for is_last in (False, True):
            try:
                stored = self.mount.read_entry(self.folder, layout.generation_name(*key))
                return saves.unpack(self.mount, self.folder, key, stored)
            except CorruptEntryError:
                # A signal handler's exception in a decoder looks like damage, once.
                # MUT: damage-is-looked-at-twice
                if is_last:
                    raise
        raise AssertionError

    def read_header(self, listing: Listing) -> Save | None:
        """Return the header of the newest save whose header can be read, for status reports."""
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

    def _list_before(self) -> Listing | None:
        """Return the NFS client's cached listing, before a process's first load; else None."""
        if (self.mount.path, self.folder) in _settled:
            return None
        names = self.mount.names_of_some_time_ago(self.folder)
        return None if names is None else Listing(names)

    def _is_whole(self, listing: Listing, newest: Newest, earlier: Listing | None) -> bool:
        """Return True unless a claim came while a long folder was listed in parts.

        Then a save that does not count can be in the last part, and the claim not in the first. Two
        listings that agree tell that none came: a claim comes before such a save, so the later
        listing has the claim of each save in the earlier one, however old that is. Without an
        earlier one a later look at the folder tells, unless the state is the one that the last load
        returned: a state that counts once counts for good.
        """
        is_known = _settled.get((self.mount.path, self.folder)) == newest.key
        is_known = is_known or (earlier is not None and earlier.ours == listing.ours)
        # MUT: a-long-listing-is-looked-at-twice
        return is_known or self.list().top <= listing.top

    def _settle(self, newest: Newest) -> None:
        """Note that the state counts for good."""
        if newest.save is not None:
            if len(_settled) >= _REMEMBERED:
                _settled.clear()
            _settled[self.mount.path, self.folder] = newest.key

    def newest(self) -> tuple[Newest, bool]:
        """Return the newest state, and if it is settled: no later load can return an older one.

        Raises `CorruptEntryError` if something was saved and all of it is damaged.
        """
        listing: Listing | None = None
        earlier = self._list_before()
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
                is_long = len(listing.names) > _ONE_REPLY
                if is_long and not self._is_whole(listing, newest, earlier):
                    continue
                self._settle(newest)
                return newest, True
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
