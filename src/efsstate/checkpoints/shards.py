"""One job in n parts: each a checkpoint, claimed by whichever worker comes first, none finished twice."""

from __future__ import annotations

import os

from efsstate import deadline
from efsstate.checkpoints import protocol
from efsstate.errors import ClaimedError, ShardsError
from efsstate.format import layout
from efsstate.mount import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any

    from efsstate.checkpoints.checkpoint import Checkpoint

_MARGIN = 2.0  # seconds before the deadline in which no further shard is begun


class Progress:
    """How far all shards are: counts of `done`, `claimed` and `free`; `positions` and `owners` of those begun, by index.

    A position is shown as text. `finished` tells whether all are done.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = self.claimed = 0
        self.positions: dict[int, str] = {}
        self.owners: dict[int, dict[str, Any]] = {}

    @property
    def free(self) -> int:
        """Neither done nor claimed."""
        return self.total - self.done - self.claimed

    @property
    def finished(self) -> bool:
        """Whether all are done."""
        return self.done == self.total

    def __repr__(self) -> str:
        return (
            f"<Progress {self.done} of {self.total} done, {self.claimed} claimed, {self.free} free>"
        )


class Shards:
    """The shards that this worker can claim, one after the other; leaving the `with` gives back what is still claimed."""

    def __init__(self, parent: Checkpoint, n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"shards: a whole number from 1 is needed, not {n!r}")
        self._parent, self._n = parent, n
        self._folder: protocol.Folder | None = None
        self._current: Checkpoint | None = None
        self._done: set[int] = set()

    def _at(self) -> protocol.Folder:
        if self._folder is None:
            folder = self._parent._at()  # noqa: SLF001
            noted = self._noted(folder)
            if noted is None:
                try:
                    folder.write_note(layout.SHARDS, str(self._n))
                except FileExistsError:
                    folder.mount.refresh(folder.folder)
                noted = self._noted(folder)
            if noted != str(self._n):
                raise ShardsError(
                    f"{folder.path((0, 0))}: it has {noted} shards, not {self._n}: pass the same number, or use another name"
                )
            self._folder = folder
        return self._folder

    def _noted(self, folder: protocol.Folder) -> str | None:
        try:
            return folder.read_note(layout.SHARDS)
        except FileNotFoundError:
            return None

    def __enter__(self) -> Shards:  # noqa: PYI034 - not made to be subclassed
        self._parent._enter_run()  # noqa: SLF001
        try:
            self._at()
        except BaseException:
            self._parent._leave_run()  # noqa: SLF001
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._leave(kind, error, trace)
        finally:
            self._parent._leave_run()  # noqa: SLF001

    def __iter__(self) -> Iterator[Checkpoint]:
        """Each shard that is neither finished nor held by another, claimed; the one before is left first."""
        self._look()
        start = int.from_bytes(os.urandom(4), "little") % self._n  # so that workers begin apart
        for step in range(self._n):
            index = (start + step) % self._n
            if self._is_done(index):
                continue
            left = deadline.remaining()
            margin = self._parent._margin  # noqa: SLF001
            if left is not None and left <= (_MARGIN if margin is None else margin):
                return
            shard = self.shard(index)
            try:
                shard.__enter__()
            except ClaimedError:
                continue
            self._current = shard
            if not shard.finished:
                yield shard
            self._leave(None, None, None)

    def shard(self, index: int) -> Checkpoint:
        """The checkpoint of one shard, not claimed."""
        if not 0 <= index < self._n:
            raise ValueError(f"shard {index!r}: there are {self._n}, counted from 0")
        parent = self._parent
        made = type(parent)(parent.name, **{**parent._options, "context": None, "wait": 0})  # noqa: SLF001
        made._folder_name = layout.shard_folder(parent.name, index)  # noqa: SLF001
        made.name, made.index = f"{parent.name}[{index}]", index
        return made

    def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shard, self._current = self._current, None
        if shard is not None:
            shard.__exit__(kind, error, trace)
            if shard.finished and shard.index is not None:
                self._mark(shard.index)

    # Marks: that a shard is finished, which stays so, told in one name that needs no reading

    def _mark_name(self, index: int) -> str:
        folder = self._at()
        return links.mark(folder.mount, folder.folder, layout.shard_mark(index))

    def _mark(self, index: int) -> None:
        folder = self._at()
        try:
            folder.mount.symlink(folder.folder, self._mark_name(index), "finished")
        except FileExistsError:
            pass
        self._done.add(index)

    def _look(self) -> list[tuple[str, int, str]]:
        folder = self._at()
        found = [
            one
            for one in map(layout.parse_shard, folder.mount.names(folder.folder))
            if one and one[1] < self._n
        ]
        marks = {(index, signature) for kind, index, signature in found if kind == "d"}
        # MUT: a-shards-mark-is-signed
        self._done |= {
            i
            for i, signature in marks
            if self._mark_name(i) == f"{layout.shard_mark(i)}.{signature}"
        }
        return found

    def _is_done(self, index: int) -> bool:
        if index not in self._done:
            folder = self._at()
            folder.mount.refresh(folder.folder)
            try:
                folder.mount.stat(folder.folder, self._mark_name(index))
            except FileNotFoundError:
                return False
            self._done.add(index)
        return True

    def progress(self) -> Progress:
        """How far all shards are, by reading alone."""
        begun = {index for kind, index, _ in self._look() if kind == "s"}
        made = Progress(self._n)
        made.done = len(self._done)
        for index in sorted(begun - self._done):
            told = self.shard(index).status()
            if told["finished"]:
                made.done += 1
                continue
            made.claimed += told["claimed"]
            made.positions[index] = told["position"]
            if told["claimed"]:
                made.owners[index] = told["owner"]
        return made
