"""The dataset as users see it: add parts, list them, freeze them, remove them."""

from __future__ import annotations

import time
from contextlib import contextmanager

from efsstate import events
from efsstate.datasets import freezing
from efsstate.datasets.base import DatasetBase
from efsstate.datasets.part import Part, PartPath
from efsstate.datasets.protocol import ADDED, REMOVED, PartFolders
from efsstate.datasets.snapshot import Snapshot
from efsstate.errors import CorruptEntryError, EfsStateError
from efsstate.format import dataset_layout as names
from efsstate.format import entry
from efsstate.mount.drafts import read_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator
    from typing import Any

    from efsstate.units import Duration

    Buffer = bytes | bytearray | memoryview
    Key = str | bytes


def dataset(name: str, *, root: str | os.PathLike[str] | None = None) -> Dataset:
    """Return the dataset `name`: immutable parts that many functions write and many read.

    Nothing is read or written before a method is called. `name` may have letters, digits,
    `. _ -`, and `/` between its parts; raise `ValueError` for another.
    """
    return Dataset(name, root=root)


class Dataset(DatasetBase):
    """Immutable parts under one name, on the mount; made by `dataset`.

    A part is a file of your own format. It is whole or absent, on every host, and never changes.
    With a `key`, the first writer's part stays, and later calls return that part.

    Every method raises `RootError` if no root is named, and `OSError` as the mount raises it.
    """

    def __repr__(self) -> str:
        return f"dataset({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.name, self._root)

    # Adding

    def add(
        self, data: Buffer | Iterable[Buffer], suffix: str = "", *, key: Key | None = None
    ) -> Part:
        """Add one part with the bytes `data`; once this returns, every host can read it.

        `suffix` is the end of its file name, such as ".json". With `key` (a string or bytes) the
        dataset has at most one part of that key; if it is there already, or was removed, the
        returned part has `added=False`. Without a key every call adds a part.
        """
        began, content = time.monotonic(), _content(data)
        size = sum(map(len, content))
        folders = self.folders(reading=False)
        digest_of = self._key_digest(folders, key)
        claim = folders.stage(digest_of, names.check_suffix(suffix))
        checksum = entry.digest(folders.mount.key, f"{folders.parts}/{digest_of}", *content).hex()
        claim.part = names.part_name(digest_of, size, checksum, suffix)
        try:
            folders.mount.create(folders.staging(claim.process), claim.staged, lambda _now: content)
            return self._publish(folders, digest_of, claim, began, exclusive=key is not None)
        except BaseException:
            # MUT: a-part-that-failed-leaves-no-file
            folders.discard(claim)
            raise

    @contextmanager
    def part(self, suffix: str = "", *, key: Key | None = None) -> Iterator[PartPath]:
        """Give a path, a `str`, at which the block writes one part with any library.

        When the block ends, the file is digested and becomes a part; `path.part` describes it, as
        `add` does. When the block raises, the file is removed. Close the file within the block.
        """
        folders = self.folders(reading=False)
        digest_of = self._key_digest(folders, key)
        claim = folders.stage(digest_of, names.check_suffix(suffix))
        staging = folders.staging(claim.process)
        folders.mount.make(staging)
        path = PartPath(folders.mount.path_of(staging, claim.staged))
        try:
            yield path
            began = time.monotonic()
            size, checksum = self._digest_file(folders, staging, claim.staged, digest_of)
            claim.part = names.part_name(digest_of, size, checksum, suffix)
            path.part = self._publish(folders, digest_of, claim, began, exclusive=key is not None)
        except BaseException:
            folders.discard(claim)
            raise

    def _key_digest(self, folders: PartFolders, key: Key | None) -> str:
        return names.random_key() if key is None else self._digest_key(folders, key)

    def _digest_key(self, folders: PartFolders, key: Key) -> str:
        """Return the digest of `key`; raise `SignatureError` for another signing key."""
        digest = names.key_digest(key, folders.mount.key)
        folders.require_key()
        return digest

    def _publish(
        self, folders: PartFolders, key: str, claim: Any, began: float, *, exclusive: bool
    ) -> Part:
        name, outcome = folders.publish(key, claim, exclusive=exclusive)
        added, removed = outcome is ADDED, outcome is REMOVED
        part = Part(name, folders.mount.path_of(folders.parts), added=added, removed=removed)
        if events.listeners:
            seconds = time.monotonic() - began
            events.emit("dataset", "add", self.name, seconds=seconds, bytes=part.size, added=added)
        return part

    def _digest_file(
        self, folders: PartFolders, staging: str, name: str, key: str
    ) -> tuple[int, str]:
        """Return the size and the checksum of a file that a library wrote, and have it on disk."""
        checksum = Checksum(folders.mount.key)
        try:
            read_back(folders.mount, staging, name, checksum.update)
        except FileNotFoundError:
            beside = [other for other in folders.mount.names(staging) if other.startswith(name)]
            hint = f"; it wrote {beside[0]!r}: pass that suffix" if beside else ""
            raise EfsStateError(
                f"{folders.mount.path_of(staging, name)}: nothing was written at this path{hint}"
            ) from None
        except CorruptEntryError as error:
            raise EfsStateError(
                f"{error.path}: no regular file was written at this path; a part is one file; pack"
                " a folder, as with tarfile"
            ) from None
        return checksum.size, checksum.finish(f"{folders.parts}/{key}")

    # Looking

    def __contains__(self, key: Key) -> bool:
        """Return True if a part of `key` is there or was removed, as the server has it now."""
        folders = self.folders()
        return folders.find(self._digest_key(folders, key)) is not None

    # Snapshots

    def freeze(
        self, name: str, parts: Iterable[Part] | None = None, *, ttl: Duration | None = None
    ) -> Snapshot:
        """Return the snapshot `name`, making it from the parts of now if there is none.

        Every part that was acknowledged before the call is in a new snapshot. `parts` makes it of
        exactly these. All hosts that freeze the same name get the same list. `ttl` says after how
        long the sweep forgets it; without it the snapshot stays until `forget`.
        """
        began, folders = time.monotonic(), self.folders(reading=False)
        chosen = None
        if parts is not None:
            chosen = sorted({folders.require_own(part).name for part in parts})
        folders.require_key()
        frozen = freezing.freeze(folders, name, chosen, ttl)
        folders.note_key()
        if events.listeners:
            seconds, parts_frozen = time.monotonic() - began, len(frozen.names)
            events.emit(
                "dataset",
                "freeze",
                self.name,
                seconds=seconds,
                snapshot=name,
                parts=parts_frozen,
            )
        return Snapshot(self, frozen)

    def at(self, name: str) -> Snapshot:
        """Return the snapshot `name`; raise `SnapshotNotFound` (a `LookupError`) if none.

        Raise `CorruptEntryError` if it is there and cannot be read.
        """
        return Snapshot(self, freezing.read(self.folders(), name))

    def snapshots(self) -> list[str]:
        """Return the names of all snapshots, sorted; a damaged one may show as its file name."""
        return freezing.snapshot_names(self.folders())

    def forget(self, name: str) -> bool:
        """Remove the snapshot `name`, and none of its parts; return True if it was there."""
        was_there = freezing.forget(self.folders(reading=False), name)
        if events.listeners and was_there:
            events.emit("dataset", "forget", self.name, snapshot=name)
        return was_there

    # Removing

    def remove(self, key: Key | Part) -> bool:
        """Remove the part of `key` for good; return True if there was one.

        The key can never be added again. Snapshots that name the part report it as removed. Pass a
        `Part` to remove a part that was added without a key. After an `OSError` call it again: the
        part may still be there, or may still be added by a writer that has begun.
        """
        folders = self.folders(reading=False)
        folders.require_key()
        if isinstance(key, Part):
            digest_of, part_name = folders.require_own(key).key, key.name
        else:
            digest_of, part_name = self._digest_key(folders, key), ""
        was_there = folders.remove(digest_of, part_name)
        if events.listeners:
            events.emit("dataset", "remove", self.name, key=digest_of)
        return was_there

    def prune(self, *, older_than: Duration, dry_run: bool = False) -> list[Part]:
        """Remove the parts that are in no snapshot and are older than `older_than`; return them.

        Nothing else removes parts, because a part that is yet to be frozen looks the same as one
        that is not needed. As with `remove`, a pruned key can never be added again, and a snapshot
        that was being made meanwhile reports its parts as removed.

        Raise `CorruptEntryError`, and remove no part, if a snapshot cannot be read.
        """
        folders = self.folders(reading=dry_run)
        above = folders.mount.path_of(folders.parts)
        pruned = freezing.prune(folders, older_than, dry_run=dry_run)
        if events.listeners and not dry_run:
            events.emit("dataset", "prune", self.name, parts=len(pruned))
        return [Part(name, above, added=False, removed=not dry_run) for name in pruned]


class Checksum:
    """The checksum of a part, taken in pieces."""

    def __init__(self, secret: bytes | None) -> None:
        self._hash = entry.blake2b()(digest_size=16, key=secret or b"")
        self.size = 0

    def update(self, chunk: Buffer) -> None:
        """Add the next bytes."""
        self._hash.update(chunk)
        self.size += len(chunk)

    def finish(self, place: str) -> str:
        """Return the checksum in hex; it is bound to the place of the part."""
        self._hash.update(f"\0{place}".encode())
        return str(self._hash.hexdigest())


def _content(data: Buffer | Iterable[Buffer]) -> list[bytes]:
    """Return copies of the bytes of a buffer, or of each buffer of an iterable.

    The copies are made at once, so a buffer that changes later does not change the part.
    """
    whole = _bytes_of(data)
    # Neither a text's letters nor a mapping's keys are its content.
    # MUT: a-mappings-keys-are-no-content
    is_one = whole is not None or isinstance(data, str) or hasattr(data, "keys")
    pieces = [whole] if is_one else list(map(_bytes_of, _iterable(data)))
    content = [piece for piece in pieces if piece is not None]
    if len(content) < len(pieces):
        raise TypeError(
            f"data: bytes, or an iterable of bytes, are needed, not {type(data).__name__!r}"
        )
    return content


def _bytes_of(value: Any) -> bytes | None:
    """Return the bytes of a buffer; None if `value` is no buffer, or holds Python objects."""
    if type(value) is bytes:
        return value
    try:
        view = memoryview(value)
    except (TypeError, ValueError, BufferError):
        return None
    # Not bytes(value): of a numpy integer, the item of an array, that is so many zeros.
    # MUT: a-parts-bytes-are-those-of-its-buffer
    return None if "O" in view.format else view.tobytes()


def _iterable(value: Any) -> Iterable[Any]:
    return value if hasattr(value, "__iter__") else [value]


def _reopen(name: str, root: str | None) -> Dataset:
    return Dataset(name, root=root)
