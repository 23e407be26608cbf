"""Bring parts into a dataset and take them out: each key once, each part whole or absent.

1. Write the content under a new name in this process's staging folder, and close it.
2. Claim the key: an exclusive link that names the staged file and its part.
3. Rename the staged file into `parts`. It is visible now, and acknowledged.

A writer that finds the key claimed takes step 3 for the claimant: its content was whole before
the claim was made. If the staged file is gone and the part is not there, the claim is dead: its
names are never used again, so it is passed over and the next slot is claimed. A dead claim is
never removed, because a late writer could then take its place.

A removal marks the key as gone first. A process that misses the part afterwards finds the mark.
`tests/datasets/explorer.py` tries every order of these steps, with crashes.
"""

from __future__ import annotations

import os
from itertools import islice

from efsstate import process
from efsstate.errors import CorruptEntryError, EfsStateError, SignatureError
from efsstate.format import dataset_layout as names
from efsstate.mount import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.datasets.part import Part
    from efsstate.mount.files import Mount

ADDED, PRESENT, REMOVED = "added", "present", "removed"
_DEAD = "dead"
_NOTHING = "-"  # in a claim that a removal made: it names no file
_SAMPLE = 16  # links of a dataset that are read before its signing key counts as another one
_of_our_key: set[tuple[str, str, bytes | None]] = set()  # datasets: root, folder and signing key

_process_id = ""


def _staging_id() -> str:
    """Return the name of this process's staging folder: no other host changes the folder."""
    global _process_id
    if not _process_id:
        _process_id = os.urandom(8).hex()
    return _process_id


@process.after_fork
def _forget_staging() -> None:
    global _process_id
    _process_id = ""


class Claim:
    """The text of a claim: where the part was staged, and its name once it is visible."""

    __slots__ = ("part", "process", "staged")

    def __init__(self, process_id: str, staged: str, part: str) -> None:
        self.process, self.staged, self.part = process_id, staged, part

    def text(self) -> str:
        """Return the text for the link."""
        return f"{self.process} {self.staged} {self.part}"

    @property
    def is_block(self) -> bool:
        """Return True if a removal made it, to keep the key from being added."""
        return self.part == _NOTHING


class PartFolders:
    """The folders of one dataset on the mount."""

    def __init__(self, mount: Mount, folder: str) -> None:
        self.mount, self.folder = mount, folder
        self.parts, self.keys = f"{folder}/parts", f"{folder}/keys"
        self.snapshots = f"{folder}/snapshots"

    def staging(self, process_id: str) -> str:
        """Return the staging folder of a process."""
        return f"{self.folder}/staging/{process_id}"

    def require_own(self, part: Part) -> Part:
        """Return `part`; raise `ValueError` if it is of another dataset, `TypeError` if it is none.

        The same key may be in both, so another dataset's part must not be taken for one of this.
        Another host may have the mount at another path.
        """
        if not hasattr(part, "path"):
            raise TypeError(f"{part!r}: a Part is needed, as add() and parts() give it")
        # MUT: a-part-of-another-dataset-is-refused
        if not part.path.endswith(f"/{self.parts}/{part.name}"):
            raise ValueError(f"{part.path}: this part is not of the dataset at {self.folder!r}")
        return part

    def require_key(self) -> None:
        """Raise `SignatureError` if the dataset is signed with another key than this process has.

        The names of the claims depend on the key, so with another one a key would seem to be free.
        Any link that can be read tells. That is looked for once in a process.
        """
        place = self.mount.path, self.folder, self.mount.key
        if place in _of_our_key:
            return
        refused = ""
        for folder in (self.keys, self.snapshots):
            for item in islice(self.mount.scan(folder), _SAMPLE):
                # A prune makes marks of removal without the key.
                if not item.is_symlink() or item.name.endswith(names.GONE):
                    continue
                try:
                    links.read(self.mount, folder, item.name)
                except FileNotFoundError:
                    continue
                except CorruptEntryError as error:
                    refused = refused or error.path
                else:
                    _of_our_key.add(place)
                    return
        # MUT: a-dataset-of-another-signing-key-is-refused
        if refused:
            raise SignatureError(
                refused,
                "or the dataset is signed with another key than this process has; set"
                " EFSSTATE_SIGNING_KEY to that of its writers",
            )

    def note_key(self) -> None:
        """Remember that a link of the dataset has this process's key: we have just made it."""
        _of_our_key.add((self.mount.path, self.folder, self.mount.key))

    # Adding

    def stage(self, key: str, suffix: str) -> Claim:
        """Return a claim for a new part of `key`; its content is yet to be written."""
        return Claim(_staging_id(), names.staged_name(key, suffix), "")

    def publish(self, key: str, claim: Claim, *, exclusive: bool) -> tuple[str, str]:
        """Make a staged file a part; return the part's name, and ADDED, PRESENT or REMOVED.

        With `exclusive`, `key` gets one part, however many writers add it. Raise `EfsStateError` if
        the staged file is gone, and `OSError`; then nothing is acknowledged.
        """
        slot = 0
        while exclusive:
            holder = self._claim(key, slot, claim)
            if holder is claim:
                break
            outcome = self._settle(key, holder)
            if outcome is not _DEAD:
                self.discard(claim)
                return (claim.part if holder.is_block else holder.part), outcome
            slot += 1
        if self._reveal(claim):
            return claim.part, ADDED
        # MUT: a-part-whose-staged-file-is-gone-is-no-success
        return claim.part, self._explain(key, claim)

    def discard(self, claim: Claim) -> None:
        """Remove a staged file that is not going to be a part; a claim that names it is dead."""
        self.mount.remove(self.staging(claim.process), claim.staged, quiet=True)

    def _claim(self, key: str, slot: int, claim: Claim) -> Claim:
        """Claim `key` in `slot`; return `claim`, or the claim that was there before."""
        name = names.claim_name(key, slot)
        # MUT: a-key-is-claimed-before-its-part-is-visible
        try:
            links.create(self.mount, self.keys, name, claim.text())
        except FileExistsError:
            holder = self.read_claim(key, slot)
            if holder is None:
                raise CorruptEntryError(
                    self.mount.path_of(self.keys, name), "it comes and goes"
                ) from None
            # After a lost reply the link that is there is our own.
            return claim if holder.text() == claim.text() else holder
        return claim

    def read_claim(self, key: str, slot: int) -> Claim | None:
        """Return the claim of `key` in `slot`, as this host's client knows it; None if none."""
        name = names.claim_name(key, slot)
        try:
            fields = links.read(self.mount, self.keys, name).split(" ")
        except FileNotFoundError:
            return None
        if len(fields) == 3 and self._is_well_formed(key, *fields):
            return Claim(*fields)
        raise CorruptEntryError(
            self.mount.path_of(self.keys, name), "its text is not a claim of this key; remove it"
        )

    def _is_well_formed(self, key: str, process_id: str, staged: str, part: str) -> bool:
        # A claim is followed to files: its names must not lead anywhere else.
        if process_id == staged == part == _NOTHING:
            return True
        fields = names.parse_part(part)
        named = fields is not None and fields[0] == key
        return named and names.is_process(process_id) and names.is_staged(staged)

    def _settle(self, key: str, claim: Claim) -> str:
        """Finish the claimant's work; return PRESENT, REMOVED, or _DEAD if that cannot be done."""
        for is_last in (False, True):
            if not claim.is_block and self.is_visible(claim.part):
                return PRESENT
            # MUT: a-removed-key-does-not-come-back
            if self.is_gone(key):
                return REMOVED
            if is_last:
                break
            if not claim.is_block and self._reveal(claim):
                return PRESENT
        return _DEAD

    def _reveal(self, claim: Claim) -> bool:
        """Rename a staged file into `parts`; return False if it is not there any more."""
        staging = self.staging(claim.process)
        try:
            inode = self.mount.stat(staging, claim.staged).st_ino
            self.mount.rename(
                staging, claim.staged, self.parts, claim.part, inode=inode, durable=True
            )
        except FileNotFoundError:
            return False
        return True

    def _explain(self, key: str, claim: Claim) -> str:
        """Return how our own claim ended, if its staged file is gone."""
        if self.is_visible(claim.part):
            return ADDED  # another writer of the key took the last step for us
        if self.is_gone(key):
            return REMOVED
        raise EfsStateError(
            f"{self.mount.path_of(self.staging(claim.process), claim.staged)}: the part was removed"
            " while it was being written, as the sweep does after a day; add it again"
        )

    # Looking

    def is_visible(self, part: str) -> bool:
        """Return True if the part is there, as the server has it now."""
        self.mount.refresh(self.parts)
        return self._exists(self.parts, part)

    def is_gone(self, key: str) -> bool:
        """Return True if the key was removed, as the server has it now."""
        self.mount.refresh(self.keys)
        return self._exists(self.keys, names.gone_name(key))

    def _exists(self, folder: str, name: str) -> bool:
        try:
            self.mount.stat(folder, name)
        except FileNotFoundError:
            return False
        return True

    def find(self, key: str) -> str | None:
        """Return the part of `key`, or None if there is none yet; "" if the key was removed."""
        self.mount.refresh(self.keys)
        slot = 0
        while (claim := self.read_claim(key, slot)) is not None:
            if not claim.is_block and self.is_visible(claim.part):
                return claim.part
            slot += 1
        return "" if slot and self._exists(self.keys, names.gone_name(key)) else None

    def settled(self) -> set[str]:
        """Return the keys that have a part or were removed: nothing can be added under them."""
        fields = map(names.parse_part, self.listing())
        return self.gone() | {each[0] for each in fields if each is not None}

    def gone(self) -> set[str]:
        """Return the keys that were removed."""
        marks = map(names.parse_key, self.mount.names(self.keys))
        return {key for key, slot in filter(None, marks) if slot is None}

    # Removing

    def remove(self, key: str, part: str = "") -> bool:
        """Remove the part of `key` for good; return True if there was one.

        `part` is the name of a part that was added without a key. After an `OSError` the removal
        may be half done; another call finishes it.
        """
        # MUT: a-removal-marks-the-key-before-it-unlinks
        self._mark_gone(key)
        self.mount.refresh(self.keys)
        was_there = bool(part) and self.mount.remove(self.parts, part)
        slot = 0
        while not was_there:
            claim = self.read_claim(key, slot)
            if claim is None:
                if self._block(key, slot):
                    break
                self.mount.refresh(self.keys)
                continue
            if claim.is_block:
                break
            was_there = self._unlink(claim)
            slot += 1
        return was_there

    def _mark_gone(self, key: str) -> None:
        try:
            links.create(self.mount, self.keys, names.gone_name(key), "removed")
        except FileExistsError:
            pass  # an earlier removal that did not come to its end is finished now

    def _block(self, key: str, slot: int) -> bool:
        """Occupy a free slot; return False if a writer claimed it meanwhile."""
        claim = Claim(_NOTHING, _NOTHING, _NOTHING)
        return self._claim(key, slot, claim) is claim

    def _unlink(self, claim: Claim) -> bool:
        """Remove the file of a claim, staged or visible; return True if it was visible."""
        if self.mount.remove(self.parts, claim.part):
            return True
        # Staged first: once that is gone, no rename can bring the part back after our second look.
        # If it cannot be removed, this raises, and another call finishes the removal.
        # MUT: a-removal-that-leaves-the-staged-file-fails
        self.mount.remove(self.staging(claim.process), claim.staged)
        self.mount.refresh(self.parts)
        return self.mount.remove(self.parts, claim.part)

    def listing(self) -> list[str]:
        """Return the names of all parts as the server has them now, sorted."""
        listed = self.mount.names(self.parts)
        listed.sort()
        return listed if names.are_parts(listed) else list(filter(names.is_part, listed))
