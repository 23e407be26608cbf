"""Share one job among workers in n parts: each is a checkpoint, and none is finished twice."""

from __future__ import annotations

import os

from efsstate import deadline
from efsstate.errors import ClaimedError, ShardsError
from efsstate.format import layout
from efsstate.mount import links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, Generic, Protocol, TypeVar

    from efsstate.checkpoints.claimant import Status
    from efsstate.checkpoints.protocol import CheckpointFolder

    class Claimable(Protocol):
        """A shard's checkpoint, as the workers' loop needs it."""

        index: int
        finished: bool

        def __enter__(self) -> Any: ...
        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
            /,
        ) -> None: ...
        def status(self) -> Status:
            """Return how far it is."""
            ...

    C = TypeVar("C", bound=Claimable)

    class _Of(Generic[C]):
        """Give the shards the type of one, for type checkers alone."""

else:
    C = None

    class _Of:
        """Ignore the type of one shard: `typing` would be one more import."""

        def __class_getitem__(cls, _shard: object) -> type:
            return cls


_MARGIN = 2.0  # seconds before the deadline in which no further shard is begun


class Progress:
    """How far all shards are.

    `done`, `claimed` and `free` are counts of the `total`; `positions` (as text) and `owners` are
    those of the shards begun, by index.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = self.claimed = 0
        self.positions: dict[int, str] = {}
        self.owners: dict[int, dict[str, Any]] = {}

    @property
    def free(self) -> int:
        """The count of shards that are neither done nor claimed."""
        return self.total - self.done - self.claimed

    @property
    def finished(self) -> bool:
        """True if all shards are done."""
        return self.done == self.total

    def __repr__(self) -> str:
        return (
            f"<Progress {self.done} of {self.total} done, {self.claimed} claimed, {self.free} free>"
        )


class ShardFolder:
    """The parent's folder of a sharded job: how many shards it has, and which are marked finished.

    A mark is a name that holds a signature, so one listing tells of all finished shards.
    """

    def __init__(self, folder: CheckpointFolder, n: int) -> None:
        self.folder = folder
        self.marked: set[int] = set()
        stored = self._stored_count()
        if stored is None:
            try:
                folder.make_link(layout.SHARDS, str(n))
            except FileExistsError:
                folder.mount.refresh(folder.folder)
            stored = self._stored_count()
        if stored != str(n):
            raise ShardsError(
                f"{folder.path()}: it has {stored} shards, not {n}; pass the same number, or use"
                " another name"
            )
        self.n = n

    def _stored_count(self) -> str | None:
        try:
            return self.folder.read_link(layout.SHARDS)
        except FileNotFoundError:
            return None

    def _mark_name(self, index: int) -> str:
        return links.mark(self.folder.mount, self.folder.folder, layout.shard_mark(index))

    def mark(self, index: int) -> None:
        """Mark a shard as finished."""
        try:
            self.folder.mount.symlink(self.folder.folder, self._mark_name(index), "finished")
        except FileExistsError:
            pass
        self.marked.add(index)

    def begun(self) -> set[int]:
        """List the folder: learn which shards are marked, and return those that have a folder."""
        names = self.folder.mount.names(self.folder.folder)
        begun = set()
        for kind, index, signature in filter(None, map(layout.parse_shard, names)):
            if index >= self.n:
                continue
            if kind == "s":
                begun.add(index)
            # MUT: a-shards-mark-is-signed
            elif self._mark_name(index) == f"{layout.shard_mark(index)}.{signature}":
                self.marked.add(index)
        return begun

    def is_marked(self, index: int) -> bool:
        """Return True if the shard is finished, as the server has it now."""
        if index not in self.marked:
            self.folder.mount.refresh(self.folder.folder)
            try:
                self.folder.mount.stat(self.folder.folder, self._mark_name(index))
            except FileNotFoundError:
                return False
            self.marked.add(index)
        return True


class Shards(_Of[C]):
    """The shards that this worker can claim, one after the other.

    Leaving the `with` gives back the shard that is still claimed.
    """

    def __init__(
        self,
        n: int,
        open_folder: Callable[[int], ShardFolder],
        make_shard: Callable[[int], C],
        invocation: deadline.Invocation | None,
        margin: float | None,
    ) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"shards: a whole number from 1 is needed, not {n!r}")
        self._n = n
        self._open_folder, self._make_shard = open_folder, make_shard
        self._invocation = invocation
        self._margin = _MARGIN if margin is None else margin
        self._folder: ShardFolder | None = None
        self._current: C | None = None

    def _opened(self) -> ShardFolder:
        if self._folder is None:
            self._folder = self._open_folder(self._n)
        return self._folder

    def __enter__(self) -> Shards[C]:
        if self._invocation is not None:
            self._invocation.__enter__()
        try:
            self._opened()
        except BaseException:
            self._leave_invocation()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._leave_current(kind, error, trace)
        finally:
            self._leave_invocation()

    def _leave_invocation(self) -> None:
        if self._invocation is not None:
            self._invocation.__exit__(None, None, None)

    def __iter__(self) -> Iterator[C]:
        """Yield each shard that is neither finished nor held elsewhere, claimed.

        The one before is left first.
        """
        folder = self._opened()
        folder.begun()
        start = int.from_bytes(os.urandom(4), "little") % self._n  # so that workers begin apart
        for step in range(self._n):
            index = (start + step) % self._n
            if folder.is_marked(index):
                continue
            remaining = deadline.remaining()
            if remaining is not None and remaining <= self._margin:
                return
            shard = self._make_shard(index)
            try:
                shard.__enter__()
            except ClaimedError:
                continue
            self._current = shard
            if not shard.finished:
                yield shard
            self._leave_current(None, None, None)

    def shard(self, index: int) -> C:
        """Return the checkpoint of one shard, not claimed."""
        if not 0 <= index < self._n:
            raise ValueError(f"shard {index!r}: there are {self._n}, counted from 0")
        return self._make_shard(index)

    def _leave_current(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shard, self._current = self._current, None
        if shard is not None:
            shard.__exit__(kind, error, trace)
            if shard.finished:
                self._opened().mark(shard.index)

    def progress(self) -> Progress:
        """Return how far all shards are, by reading alone."""
        folder = self._opened()
        begun = folder.begun()
        progress = Progress(self._n)
        progress.done = len(folder.marked)
        for index in sorted(begun - folder.marked):
            status = self.shard(index).status()
            if status["finished"]:
                progress.done += 1
                continue
            progress.claimed += status["claimed"]
            progress.positions[index] = status["position"]
            if status["claimed"]:
                progress.owners[index] = status["owner"]
        return progress
