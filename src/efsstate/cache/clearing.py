"""Clear the entries of a namespace, all of them or those with a tag, without touching any entry.

A namespace has a number, its clear stamp, and each entry carries the stamp of its time. `clear`
raises the namespace's stamp, and an entry with a lower one is a miss from then on. Each tag has a
stamp of its own, which `invalidate_tag` raises. The stamps are in the names of links in the
namespace's folder, so that a clear takes as many requests among a million entries as among ten.
"""

from __future__ import annotations

import time

from efsstate import process
from efsstate.errors import EfsStateError
from efsstate.format import layout
from efsstate.mount import clock, links

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from efsstate.mount.files import Mount

# Staleness budget in seconds, spent twice: by the NFS client's name cache and by our memory tier.
# The sum must stay below the documented 60 s.
MAX_STALENESS = 20.0
MOST = 2**62  # clear stamps are milliseconds since the epoch, and never come near
_DAY = 86_400_000  # milliseconds
_MOST_TAG_MARKS = 1024  # of a namespace; with more, everything is cleared, and they are removed


class ClearStamps:
    """The clear stamps of one namespace: its links are in `folder`, and its entries in `folders`.

    `stamp` is the namespace's own, as this process knows it. `looked` is the wall clock's time when
    it was read, or 0 before the first time. A caller reads it again after `MAX_STALENESS` seconds.
    """

    def __init__(self, mount: Mount, folder: str, folders: Iterable[str]) -> None:
        self.mount, self.folder, self._folders = mount, folder, folders
        self.stamp = 0
        self.looked = 0.0
        self._lock = process.lock()
        self._tag_stamps: dict[str, int] = {}  # of the tags that were invalidated
        # The stamps of marks that cannot be verified without the signing key, by the mark's name.
        self._guesses: dict[str, int] = {}
        # The folder's status and names then; no status if it could not show the next change.
        self._status: os.stat_result | None = None
        self._names: list[str] = []
        # The mtime of folders since which the stamp is known to be the same.
        self._settled: dict[str, int] = {}

    def _list_folder(self) -> list[str] | None:
        """Return the names in the namespace's folder now, or None if it does not exist.

        That is one request if nothing has changed there since the last time, else two.
        """
        listing = self.mount.look(self.folder, self._status)
        if listing is None:
            self._status = None
            return None
        status, names = listing
        if names is not None:
            self._names = names
        # A change right after this look may leave the folder's mtime as it is: then list it again.
        self._status = status if clock.tells(status.st_mtime) else None
        return self._names

    def read(self) -> list[str]:
        """Read the clear stamp, and return the names in the namespace's folder."""
        now = time.time()
        names = self._list_folder() or []
        stamps, unsound = {"": 0}, []  # by the tag; "": of all entries
        for name, tag, number in layout.cleared_marks(names):
            if self._is_mark(name, tag, number):
                stamps[tag] = max(number, stamps.get(tag, 0))
            else:
                unsound.append((name, number))
        stamp = stamps.pop("")
        # MUT: without-the-key-nothing-is-cleared-for-others
        if unsound and self._may_be_signed():
            stamp = max(stamp, *self._guess_stamps(unsound))
        elif unsound:
            # Damaged or forged: clearing once more is safe, trusting the rest is not.
            # MUT: a-damaged-cleared-clears-once-more
            stamp = self._write(max(stamp, self.stamp))
        # A clear removes the marks of tags: all that they put out of reach is so by the clear.
        if stamp <= self.stamp:
            for tag, number in list(self._tag_stamps.items()):
                stamps[tag] = max(number, stamps.get(tag, 0))
        self._tag_stamps = stamps
        if stamp > self.stamp:
            self.raise_to(stamp)
        self.looked = now
        return names

    def _may_be_signed(self) -> bool:
        """Return True if marks that do not match their checksum may be signed.

        A process that has the signing key can tell. If a process without a key can verify POLICY,
        the namespace is not signed, and neither are its marks.
        """
        if self.mount.key:
            return False
        from efsstate.eviction import policy

        try:
            return policy.load(self.mount, self.folder.rpartition("/")[2]) is None
        except EfsStateError:
            return True

    def _guess_stamps(self, marks: list[tuple[str, int]]) -> Iterable[int]:
        """Return a stamp for each mark, a name and its number, that cannot be verified here.

        It is the server's time when the mark was made, or a little more: never below the stamp of a
        sound mark.
        """
        guesses = {}
        for name, number in marks:
            guess = self._guesses.get(name)
            if guess is None:
                guess = int(self.mount.stat(self.folder, name).st_mtime * 1000) + 1
                guess = max(guess, number if number < guess + _DAY else 0)
            guesses[name] = guess
        self._guesses = guesses
        return guesses.values()

    def raise_to(self, number: int) -> None:
        """Raise the stamp, unless it is above `number` already."""
        with self._lock:  # of two clears at once here the later counts, whichever returns last
            self.stamp = max(self.stamp, number)

    def _is_mark(self, name: str, tag: str, stamp: int) -> bool:
        return stamp < MOST and name == links.mark(
            self.mount, self.folder, layout.cleared_mark(stamp, tag)
        )

    def of_tags(self, tags: Iterable[str]) -> list[tuple[bytes, int]]:
        """Return the tags (ids) with their clear stamps now, for the meta of a value."""
        return [(bytes.fromhex(tag), self._tag_stamps.get(tag, 0)) for tag in tags]

    def is_stale(self, tags: Iterable[tuple[str, int]]) -> bool:
        """Return True if any of an entry's tags, with its stamp then, was invalidated since."""
        for tag, stamp in tags:
            known = self._tag_stamps.get(tag, 0)
            # MUT: a-tags-clear-stamp
            if stamp < known:
                return True
            if stamp > known:  # its writer knows of an invalidation that we have not seen yet
                self._tag_stamps[tag] = stamp
        return False

    def invalidate_tag(self, tag: str) -> None:
        """Put every entry with the tag (its id) out of reach, as `clear` does for all entries.

        It takes as many requests among a million entries as among ten.
        """
        marks = layout.cleared_marks(self.read())
        if len({other for _, other, _ in marks} - {tag, ""}) >= _MOST_TAG_MARKS:
            self.clear()
            return
        stamp = self._create_mark(self._tag_stamps.get(tag, 0), tag)
        self._tag_stamps[tag] = max(stamp, self._tag_stamps.get(tag, 0))
        for name, other, number in marks:
            if other == tag and number < stamp:
                self.mount.remove(self.folder, name, quiet=True)
        self._touch_folders()

    def _create_mark(self, known: int, tag: str = "") -> int:
        """Create the mark of a new clear stamp above `known`, of a tag or of all; return it."""
        # By a clock that is behind, and with the last number lost, a new one might be below one
        # that was cleared long ago.
        self.mount.ask_time(self.folder)
        stamp = max(known + 1, int(clock.now() * 1000))
        while True:
            try:
                own = links.mark(self.mount, self.folder, layout.cleared_mark(stamp, tag))
                self.mount.symlink(self.folder, own, "cleared")
            except FileExistsError:
                stamp += 1
            else:
                return stamp

    def _touch_folders(self) -> None:
        """Have every host that refreshes a folder see that it must read the clear stamps."""
        for folder in self._folders:
            self.mount.touch_folder(folder)

    def _write(self, known: int) -> int:
        stamp = self._create_mark(known)
        names = self.mount.names(self.folder)
        for name, tag, number in layout.cleared_marks(names):
            if number < stamp or not self._is_mark(name, tag, number):
                self.mount.remove(self.folder, name, quiet=True)
        return stamp

    def clear(self) -> None:
        """Put every entry out of reach: here and for exact reads at once, elsewhere within 60 s."""
        marks = layout.cleared_marks(self.read())
        # The clear's number is above those of all marks of tags, which may be ahead of the clock:
        # so the clear removes every mark that we have just listed.
        known = [number for name, tag, number in marks if self._is_mark(name, tag, number)]
        stamp = self._write(max([self.stamp, *known]))
        self._tag_stamps = {tag: old for tag, old in self._tag_stamps.items() if old >= stamp}
        self.raise_to(stamp)
        self.looked = time.time()
        self._touch_folders()

    def refresh_exactly(self, folder: str) -> None:
        """Ask for the names in `folder` and for clears: one request if nothing has changed there.

        A clear touches the folders after it has raised the stamp. So if a folder has the mtime that
        it had when we read the stamp, no clear has come since. An mtime of the current second
        tells nothing: a touch might not change it.
        """
        status = self.mount.refresh(folder)
        if status is None or self._settled.get(folder) != status.st_mtime_ns:
            self.read()
            if status is not None and clock.now() - status.st_mtime > 1:
                self._settled[folder] = status.st_mtime_ns
