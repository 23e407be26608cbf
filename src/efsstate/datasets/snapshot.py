"""A snapshot: a list of parts that never changes, in an order that can be resumed."""

from __future__ import annotations

import operator
import time
from collections import deque
from functools import partial

from efsstate import events
from efsstate.datasets import freezing
from efsstate.datasets.part import Part
from efsstate.errors import CorruptEntryError, EfsStateError, PartRemoved
from efsstate.format import dataset_layout as layout
from efsstate.format import entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Literal

    from efsstate.datasets.base import DatasetBase
    from efsstate.datasets.freezing import Frozen
    from efsstate.datasets.protocol import PartFolders
    from efsstate.parallel import Call
    from efsstate.units import Size

    Loaded = tuple[Part, memoryview, float]  # with the seconds that it took


class Snapshot:
    """Parts as they were when they were frozen, under a name; made by `freeze` or `at`.

    It is the same on every host and for ever. It can be pickled: the copy reads the list again. If
    the snapshot of that name below the copy's root has other parts, loading raises `EfsStateError`.
    """

    def __init__(self, dataset: DatasetBase, frozen: Frozen) -> None:
        self.dataset = dataset
        self.name = frozen.name
        self.names = frozen.names
        """The file names of its parts, sorted."""

    def __repr__(self) -> str:
        count = len(self.names)
        plural = "" if count == 1 else "s"
        return f"<Snapshot {self.name!r} of {self.dataset.name!r}: {count} part{plural}>"

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Part]:
        folder = self.dataset.path
        return (Part(name, folder) for name in self.names)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.dataset, self.name, _fingerprint(self.names))

    @property
    def paths(self) -> list[str]:
        """The full paths of its parts, for pyarrow, polars, duckdb, WebDataset and the like."""
        folder = self.dataset.path
        return [f"{folder}/{name}" for name in self.names]

    @property
    def bytes(self) -> int:
        """The sum of the parts' sizes."""
        return sum(part.size for part in self)

    # Order

    def order(
        self,
        *,
        seed: int = 0,
        epoch: int = 0,
        after: int | str = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> list[Part]:
        """Return the parts in a random order that is the same everywhere.

        `seed` and `epoch` choose the order. A snapshot with more parts keeps the order of the old
        ones among themselves. `shard=(i, n)` takes every n-th part, for worker i of n. `after`
        leaves out the parts that are done: a number of parts, or up to the part of this name.
        """
        try:
            index, count = map(operator.index, shard)
        except (TypeError, ValueError):
            index, count = 0, 0
        if not 0 <= index < count:
            raise ValueError(f"shard={shard!r}: pass (i, n), with i from 0 to n - 1")
        blake2b = entry.blake2b()
        salt = f"{seed}\0{epoch}\0".encode()
        ranked = sorted(
            self.names, key=lambda name: blake2b(salt + name.encode(), digest_size=16).digest()
        )[index::count]
        if not isinstance(after, int):
            if after not in ranked:
                raise ValueError(
                    f"{self!r}: it has no part {after!r} in shard {shard!r}; resume with the"
                    " snapshot, seed, epoch and shard that the position was saved with"
                )
            after = ranked.index(after) + 1
        if after < 0:
            raise ValueError(f"after={after!r}: a number of parts that are done, or a part's name")
        folder = self.dataset.path
        return [Part(name, folder) for name in ranked[after:]]

    # Reading

    def read(
        self,
        parts: Iterable[Part] | None = None,
        *,
        ahead: int = 1,
        verify: bool = True,
        missing: Literal["raise", "skip"] = "raise",
    ) -> Iterator[tuple[Part, memoryview]]:
        """Yield each part with its bytes, reading the next `ahead` parts meanwhile.

        Each buffer is the caller's own and may be written to; at most `ahead + 2` are in memory if
        the caller keeps none. `verify` checks every byte, and raises `CorruptEntryError` for a part
        that is damaged or lost. A part that was removed on purpose raises `PartRemoved`, or is left
        out with `missing="skip"`.
        """
        if missing not in ("raise", "skip"):
            raise ValueError(f"missing={missing!r}: it is 'raise' or 'skip'")
        if not isinstance(ahead, int):
            raise TypeError(f"ahead={ahead!r}: a number of parts is needed")
        if ahead < 0:
            raise ValueError(f"ahead={ahead!r}: a number of parts, from 0, is needed")
        from efsstate.parallel import Workers

        def load(part: Part) -> Loaded:
            began = time.monotonic()
            data = self._load(part, verify=verify)
            return part, data, time.monotonic() - began

        # While the caller waits for a part, the one behind it is opened and begun, too.
        workers = Workers(ahead + 1, "efsstate-read")
        waiting: deque[Call] = deque()
        source = iter(self if parts is None else parts)
        try:
            while True:
                while len(waiting) <= ahead and (part := next(source, None)) is not None:
                    waiting.append(workers.submit(partial(load, part)))
                if not waiting:
                    return
                try:
                    # No local name keeps the buffer once the caller asks for the next one.
                    workers.first([waiting[0]], None)
                    yield self._hand_out(waiting.popleft())
                except PartRemoved:
                    if missing == "raise":
                        raise
        finally:
            workers.stop(wait=False)

    def _hand_out(self, call: Call) -> tuple[Part, memoryview]:
        """Return a part with its bytes, which are there, and emit an event about it."""
        try:
            part, data, seconds = call.result()
        except CorruptEntryError as error:
            if events.listeners:
                kind, message = type(error).__name__, str(error)
                events.emit("dataset", "error", self.dataset.name, error=kind, message=message)
            raise
        if events.listeners:
            name, size = self.dataset.name, len(data)
            events.emit("dataset", "read", name, seconds=seconds, bytes=size)
        return part, data

    def _load(self, part: Part, *, verify: bool) -> memoryview:
        """Return the bytes of a part, in a buffer of its own."""
        from efsstate.modelstore import reader
        from efsstate.modelstore.open_file import OpenFile

        folders = self._folders()
        folders.require_own(part)
        try:
            file = OpenFile(folders.mount, folders.parts, part.name)
            data = reader.whole(file, advice="read it by its path, in pieces")
        except FileNotFoundError:
            raise self._missing(folders, part) from None
        place = f"{folders.parts}/{part.key}"
        secret = folders.mount.key
        is_checked = verify or secret is not None
        # MUT: a-parts-bytes-are-checked
        if is_checked and entry.digest(secret, place, data).hex() != part.digest:
            raise CorruptEntryError(part.path, "its bytes are not those that were added")
        return data

    def _missing(self, folders: PartFolders, part: Part) -> Exception:
        if folders.is_gone(part.key):
            return PartRemoved(f"{part.path}: this part was removed on purpose")
        return CorruptEntryError(part.path, "the part is lost: its file is not there any more")

    def _folders(self) -> PartFolders:
        return self.dataset.folders()

    # Checking

    @property
    def missing(self) -> list[Part]:
        """The parts that are not there any more because they were removed on purpose."""
        folders = self._folders()
        absent = self._absent(folders)
        gone = folders.gone() if absent else set()
        return [part for part in absent if part.key in gone]

    def _absent(self, folders: PartFolders) -> list[Part]:
        present = set(folders.mount.names(folders.parts))
        return [part for part in self if part.name not in present]

    def verify(self) -> list[tuple[Part, str]]:
        """Read every byte of every part; return the bad parts, each with its fault.

        A part is "removed" (on purpose), "lost", or "damaged". Raise `SignatureError` if the
        dataset was signed with another key than this process has.
        """
        folders, bad = self._folders(), []
        folders.require_key()
        for part in self:
            try:
                self._load(part, verify=True)
            except PartRemoved:
                bad.append((part, "removed"))
            except CorruptEntryError:
                exists = part.name in folders.mount.names(folders.parts)
                bad.append((part, "damaged" if exists else "lost"))
        return bad

    # From one dataset to the next

    def todo(self, results: DatasetBase, step: str = "") -> Iterator[Part]:
        """Yield the parts that have no result of `step` in the dataset `results` yet.

        Parts that were removed are left out, and so are those with a result that was removed.
        Add each result with `key=part.result_key(step)`. Two workers may compute the same result;
        the key keeps one of them.
        """
        from efsstate.datasets.base import DatasetBase

        if not isinstance(results, DatasetBase):
            raise TypeError(f"results: a dataset is needed, not {results!r:.80}")
        folders = results.folders()
        folders.require_key()
        settled, missing = folders.settled(), set(self.missing)
        for part in self:
            key = layout.key_digest(part.result_key(step), folders.mount.key)
            if key not in settled and part not in missing:
                yield part

    def groups(
        self, size: Size, *, since: Snapshot | None = None
    ) -> Iterator[tuple[str, list[Part]]]:
        """Yield groups of parts of about `size` bytes, each with a key for their compaction.

        The same parts give the same groups and keys on every host, so a part that is made of a
        group is added once. `since` leaves out the parts of an earlier snapshot.
        """
        from efsstate import units

        limit = units.size(size, "size")
        known = set(since.names) if since is not None else set()
        group: list[Part] = []
        total = 0
        for part in self:
            if part.name in known:
                continue
            if group and total + part.size > limit:
                yield _group_key(group), group
                group, total = [], 0
            group.append(part)
            total += part.size
        if group:
            yield _group_key(group), group


def _group_key(group: list[Part]) -> str:
    names = "\n".join(part.name for part in group)
    return "group\0" + str(entry.blake2b()(names.encode(), digest_size=16).hexdigest())


def _fingerprint(names: tuple[str, ...]) -> str:
    hasher = entry.blake2b()(digest_size=16)
    for name in names:
        hasher.update(f"{name}\n".encode())
    return str(hasher.hexdigest())


def _reopen(dataset: DatasetBase, name: str, fingerprint: str) -> Snapshot:
    folders = dataset.folders()
    snapshot = Snapshot(dataset, freezing.read(folders, name))
    # MUT: a-snapshot-of-another-root-is-not-taken-for-this
    if _fingerprint(snapshot.names) != fingerprint:
        raise EfsStateError(
            f"{folders.mount.path}: its snapshot {name!r} of {dataset.name!r} has other parts than"
            " the one that was pickled; give this process the same root"
        )
    return snapshot
