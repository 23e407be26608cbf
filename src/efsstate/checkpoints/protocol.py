"""The protocol of one checkpoint's folder: epochs fence, bases decide, generations carry.

    e<epoch>           exclusive create: a claim. The highest is the only one whose saves are acknowledged
    b<epoch>           exclusive create: what the epoch starts from, decided once by whoever comes first
    <epoch>-<number>   a save: appears whole, by a rename, and is never changed

    claim   list · make e<max+1> · list · read the newest state · make b<epoch> · (it is finished: list)
    save    make <epoch>-<number> · list: a higher epoch is ClaimLost, none is the acknowledgement
    load    list · read the newest state of the highest epoch (long folder: list; it has no base yet: list, make it, list)

Why each step is there, and what goes wrong without it, is in docs/guarantees.md; tests/checkpoints/model explores it.
"""

from __future__ import annotations

import errno
import time

from efsstate.checkpoints import saves as generations
from efsstate.errors import ClaimLost, CorruptEntryError
from efsstate.format import layout
from efsstate.mount import links as notes
from efsstate.mount import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.checkpoints.saves import Save
    from efsstate.mount.files import Buffer, Mount
    from efsstate.mount.readdir import FolderReader

    Key = tuple[int, int]

NOTHING: Key = (0, 0)  # what an epoch starts from where nothing was saved
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)
_PATIENCE = 2.0  # seconds that a reader who can't write waits for a claimant to make its base
_CLAIMS_KEPT = 2  # former claims whose links stay
_ONE_REPLY = (
    12  # names that a server gives in one reply, as they are at one moment; more may come in parts
)
_REPEATS = (
    5  # equal listings after which what they name is taken as gone, not as about to be replaced
)


class Again(Exception):  # noqa: N818 - not an error
    """What a listing named is gone: the listing is old."""


class Superseded(Exception):  # noqa: N818 - not an error
    """A higher epoch came while this one was claimed."""


class Listing:
    """The names in the folder at one moment: `top` is the highest epoch (0: none), `below` the items, newest first."""

    __slots__ = ("bases", "epochs", "generations", "names", "ours", "top")

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.ours = found = {one for one in map(layout.parse_claim, names) if one}
        self.epochs = {epoch for kind, epoch, _ in found if kind == "e"}
        self.bases = {epoch for kind, epoch, _ in found if kind == "b"}
        epochs = self.epochs | self.bases
        # A save without its epoch is of a holder that slept through the folder's removal: it never counts.
        self.generations = sorted(
            [(e, number) for kind, e, number in found if kind == "g" and e in epochs], reverse=True
        )
        self.top = max(epochs, default=0)

    def below(self, epoch: int) -> list[Key]:
        """The generations of `epoch` and lower ones, newest first; (e, 0) is the base of e."""
        items = [key for key in self.generations if key[0] <= epoch]
        return sorted(items + [(base, 0) for base in self.bases if base <= epoch], reverse=True)


class Found:
    """What `Folder.find` found: the state (None: nothing was saved), whether the epoch's base is `decided`, and `lost`.

    `lost` is the error of an acknowledged generation that is newer than the state, but damaged.
    """

    __slots__ = ("decided", "generation", "lost")

    def __init__(
        self, generation: Save | None, *, decided: bool, lost: CorruptEntryError | None
    ) -> None:
        self.generation = generation
        self.decided = decided
        self.lost = lost


class Folder:
    """A checkpoint's folder, and the steps of the protocol in it."""

    def __init__(self, mount: Mount, folder: str) -> None:
        self.mount = mount
        self.folder = folder
        self._watch: FolderReader | None = None  # of the claim's owner

    def look(self) -> Listing:
        """The names, as the server has them now."""
        return Listing(self.mount.names(self.folder))

    def _look_again(self, before: Listing | None, repeats: int) -> tuple[Listing, int]:
        """The names now, and how many listings before were the same: after one that was, there is a little pause."""
        if repeats:
            time.sleep(0.01)
        at = self.look()
        return at, repeats + 1 if before is not None and before.ours == at.ours else 0

    def path(self, key: Key) -> str:
        """The path of a generation, for messages."""
        return self.mount.path_of(self.folder, layout.generation_name(*key) if key[0] else "")

    # Notes: what a symbolic link holds, with its checksum

    def write_note(self, name: str, text: str) -> None:
        """Make the link `name` with `text`. Raises `FileExistsError`."""
        notes.create(self.mount, self.folder, name, text)

    def read_note(self, name: str) -> str:
        """The text of the link `name`. Raises `FileNotFoundError`, `CorruptEntryError`."""
        return notes.read(self.mount, self.folder, name)

    def base(self, epoch: int) -> Key:
        """What `epoch` starts from."""
        name = layout.base_name(epoch)
        text = self.read_note(name)
        if text == "-":
            return NOTHING
        found = layout.parse_claim(text)
        if found is None or found[0] != "g":
            raise CorruptEntryError(
                self.mount.path_of(self.folder, name), f"{text!r:.80} is not a generation"
            )
        return found[1:]

    def settle(self, epoch: int, target: Key) -> None:
        """Decide that `epoch` starts from `target`. Raises `FileExistsError` if that was decided already."""
        self.write_note(
            layout.base_name(epoch), layout.generation_name(*target) if target[0] else "-"
        )

    # Reading

    def read(self, key: Key) -> Save:
        """A generation, every byte checked. Raises `FileNotFoundError`, `CorruptEntryError`, `UnknownFormatError`."""
        found = store.read(self.mount, self.folder, layout.generation_name(*key))
        return generations.unpack(self.mount, self.folder, key, found)

    def find(self, at: Listing, epoch: int, repeats: int) -> Found:
        """The state under `epoch`: its newest valid generation, else what its base names, else the newest below it.

        `repeats`: how many listings before this one were the same. Raises `Again` where the listing is too old.
        """
        lost: CorruptEntryError | None = None
        limit: Key | None = None
        decided = False
        for key in at.below(epoch):
            # MUT: the-base-once-decided-counts
            if limit is not None and key >= limit:
                continue  # a base decided that these do not count
            target = key
            if key[1] == 0:
                try:
                    target = self.base(key[0])
                except FileNotFoundError:
                    raise Again from None
                decided = decided or key[0] == epoch
                if target == NOTHING:
                    return Found(None, decided=decided, lost=lost)
                limit = target
            else:
                decided = decided or key[0] == epoch  # nobody saves before the base is there
            try:
                return Found(self.read(target), decided=decided, lost=lost)
            except FileNotFoundError:
                if lost is None and repeats < _REPEATS:
                    raise Again from None
                lost = lost or CorruptEntryError(
                    self.path(target), "it was removed, though a claim started from it"
                )
            except CorruptEntryError as error:
                self._warn(error)
                lost = (
                    lost or error
                )  # it was whole once, for saves appear whole: it may have been acknowledged
        return Found(None, decided=decided, lost=lost)

    def _warn(self, error: CorruptEntryError) -> None:
        from efsstate import events

        events.log("warning", "%s; passed over for the save before it", error, once=error.path)

    def newest(self) -> tuple[Found, bool]:
        """The newest saved state, and whether it is settled: nobody will be told of an older one later.

        Raises `CorruptEntryError` where something was saved and all of it is damaged.
        """
        at: Listing | None = None
        repeats, until = 0, 0.0
        while True:
            before = at
            at, repeats = self._look_again(at, repeats)
            if not at.top:
                # That there is nothing is said twice: a listing in parts may miss a save that is being replaced.
                if repeats:
                    return Found(None, decided=True, lost=None), True
                continue
            try:
                found = self.find(at, at.top, repeats)
            except Again:
                continue
            if found.generation is None and found.lost is not None:
                raise found.lost
            if found.decided:
                if found.generation is None and not repeats:
                    continue
                if len(at.names) <= _ONE_REPLY or self.look().top <= at.top:
                    return found, True
                continue
            if found.lost is not None:
                return (
                    found,
                    False,
                )  # whether to go on from less than was acknowledged is the claimant's to say
            if before is None or before.top != at.top:
                continue  # what an epoch starts from is to be read from a listing later than the epoch
            try:
                # MUT: a-load-decides-what-is-open
                self.settle(at.top, found.generation.key if found.generation else NOTHING)
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                until = until or time.monotonic() + _PATIENCE
                if time.monotonic() >= until:
                    return found, False
                time.sleep(0.05)

    def glance(self, at: Listing) -> Save | None:
        """The newest generation whose first bytes are whole, for showing."""
        for key in at.generations:
            try:
                return generations.glance(self.mount, self.folder, key)
            except (FileNotFoundError, CorruptEntryError):
                continue
        return None

    # Claiming and saving

    def claim(self, note: str, *, accept_older: bool = False) -> tuple[int, Found]:
        """A new epoch with `note`, higher than all before it, and the state that it starts from.

        Raises `Superseded`, and `CorruptEntryError` for an acknowledged generation that is damaged.
        """
        self._watch = watch = self.mount.watch(self.folder)
        at = Listing(watch.names())
        epoch = at.top + 1 if at.top else self._first()
        while True:
            try:
                self.write_note(layout.epoch_name(epoch), note)
            except FileExistsError:
                epoch = max(self.look().top, epoch) + 1
            else:
                break
        now = self._look_after(layout.epoch_name(epoch))
        repeats = 0
        while True:
            if now.top > epoch:
                raise Superseded
            try:
                found = self.find(now, epoch, repeats)
            except Again:
                now, repeats = self._look_again(now, repeats)
                continue
            # MUT: a-claim-refuses-acknowledged-damage
            if found.lost is not None and not accept_older:
                raise found.lost
            if not found.decided:
                try:
                    self.settle(epoch, found.generation.key if found.generation else NOTHING)
                except FileExistsError:
                    now, repeats = self._look_again(now, repeats)
                    continue
            if (
                found.generation is not None
                and found.generation.finished
                and self.look().top > epoch
            ):
                raise Superseded
            return epoch, found

    def release(self) -> None:
        """The claim is over."""
        self._watch = None

    def _look_after(self, name: str) -> Listing:
        """A listing later than our own making of `name`."""
        if self._watch is not None:
            names = self._watch.names()
            if name in names:
                return Listing(names)
        return self.look()

    def _first(self) -> int:
        """The first epoch: when the lock file was made, in ms of the server's clock.

        So that numbers go on growing for those who compare them after this checkpoint was swept and begun anew, and a
        holder that slept through that is fenced as any other.
        """
        try:
            return max(1, int(self.mount.stat(self.folder, layout.LOCK).st_mtime * 1000))
        except FileNotFoundError:
            return int(time.time() * 1000)

    def save(
        self, key: Key, meta: bytes, payload: list[Buffer], *, codec: str, ttl: float | None
    ) -> Listing:
        """Write a generation, and look: a higher epoch is `ClaimLost`, none is the acknowledgement. Raises `OSError`."""
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
                at = self.look()
            except OSError:
                raise error from None
            self._demand_top(at, key, error)
            raise
        at = self._look_after(name)
        self._demand_top(at, key, None)
        return at

    def _demand_top(self, at: Listing, key: Key, error: OSError | None) -> None:
        # MUT: the-look-after-a-save
        if at.top == key[0] and key[0] in at.epochs:
            return
        why = (
            "another claim superseded it"
            if at.top > key[0]
            else "its folder was removed or replaced"
        )
        raise ClaimLost(
            f"{self.path(key)}: the claim is lost: {why}: this save counts only if the new owner started from it;"
            " leave the block and claim again"
        ) from error

    def prune(self, at: Listing, epoch: int, oldest: Key) -> None:
        """After an acknowledged save under `epoch`: remove the generations before `oldest`, and links of former claims.

        The oldest first, and no further after an error: a listing comes in parts, and whoever finds in it an older
        generation than was acknowledged must find that one removed.
        """
        links = [e for e in sorted(at.epochs | at.bases) if e < epoch]
        links = (
            [e for e in links[:-_CLAIMS_KEPT] if e < oldest[0]]
            if len(links) > 2 * _CLAIMS_KEPT
            else []
        )
        # A temporary is of a holder that died, or that was superseded: then its save can't be acknowledged anyhow.
        names = [name for name in at.names if layout.is_temporary(name)]
        names += [layout.generation_name(*key) for key in reversed(at.generations) if key < oldest]
        names += [layout.base_name(e) for e in links if e in at.bases]
        names += [layout.epoch_name(e) for e in links if e in at.epochs]
        try:
            for name in names:
                self.mount.remove(self.folder, name)
        except OSError as error:
            from efsstate import events

            events.log("warning", "an old save could not be removed: %s", error, once=self.folder)
