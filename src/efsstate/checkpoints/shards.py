"""Share one job among workers in n parts: each is a checkpoint, and none is finished twice."""

from __future__ import annotations

import os
from functools import partial

from efsstate import deadline
from efsstate.errors import ClaimedError, ShardsError
from efsstate.format import layout
from efsstate.generic import Generic, TypeVar
from efsstate.mount import environment, links, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, Protocol

    from efsstate.checkpoints.claimant import Status
    from efsstate.checkpoints.protocol import CheckpointFolder

    class Claimable(Protocol):
        """A shard's checkpoint, as the workers' loop needs it."""

        index: int
        finished: bool
        on_finished: Callable[[], None] | None

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

        def load(self, default: Any = None) -> Any:
            """Return its newest state."""

        @property
        def result(self) -> Any:
            """Its result, once it is loaded."""


C = TypeVar("C", bound="Claimable")

_STALE = 1000  # shards for which one lookup of a finished one is worth less than a listing
_MARGIN = 2.0  # seconds before the deadline in which no further shard is begun


def _shuffled(n: int) -> list[int]:
    """Return the numbers below n in an order of this worker's own, so that workers seldom meet.

    In a common order, those that meet would compete for each following shard.
    """
    noise = os.urandom(4 * n)
    return sorted(range(n), key=lambda index: noise[4 * index : 4 * index + 4])


_MOST_SHOWN = 20  # shards of a table


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

    def _repr_html_(self) -> str:
        from efsstate.notebook import table

        rows: list[tuple[str, object]] = [
            (name, getattr(self, name)) for name in ("total", "done", "claimed", "free")
        ]
        positions = sorted(self.positions.items())[:_MOST_SHOWN]
        rows += [(f"shard {index}", position) for index, position in positions]
        return table("Shards", rows)


class ShardFolder:
    """The parent's folder of a sharded job: how many shards it has, and which are marked finished.

    A mark is a name that holds a signature, so one listing tells of all finished shards.
    """

    def __init__(self, folder: CheckpointFolder, n: int | None, *, make: bool = True) -> None:
        self.folder = folder
        self.marked: set[int] = set()
        stored = self._stored_count()
        if stored is None and n is None:
            raise ShardsError(
                f"{folder.path()}: it has no shards; pass their number to begin it, or check the"
                " name"
            )
        if stored is None and make:
            try:
                folder.make_link(layout.SHARDS, str(n))
            except FileExistsError:
                folder.mount.refresh(folder.folder)
            stored = self._stored_count()
        if n is None and stored is not None and stored.isdigit():
            n = int(stored)
        if n is None or stored not in ((str(n),) if make else (str(n), None)):
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

    def count(self) -> int:
        """Return the number of shards that the job has now, and know it."""
        self.folder.mount.refresh(self.folder.folder)
        stored = self._stored_count()
        if stored is None or not stored.isdigit():
            raise ShardsError(
                f"{self.folder.path()}: it has no shards; it was removed, so begin it again"
            )
        self.n = int(stored)
        return self.n

    def grow(self, n: int) -> None:
        """Store a larger number of shards, in place of the one before.

        Under the lock of the job: of two that grow it, one may know a number of before, and the
        shards that the other one has added would be lost. Raise ShardsError for fewer shards.
        """
        folder = self.folder
        self.count()  # taking the lock would create the folder of a job that was removed
        turn = lock.acquire(folder.mount, folder.folder, layout.LOCK, until=deadline.until(None))
        if turn is None:
            raise ClaimedError(f"{folder.path()}: it is being removed, or grown; try again")
        try:
            # MUT: a-job-never-shrinks
            if n < self.count():
                raise ShardsError(
                    f"{folder.path()}: it has {self.n} shards and can't have {n!r}; shards can"
                    " only be added"
                )
            links.replace(folder.mount, folder.folder, layout.SHARDS, str(n))
            self.n = n
        finally:
            turn.release()

    def unmark(self, index: int) -> None:
        """Remove the mark that a shard is finished."""
        self.folder.mount.remove(self.folder.folder, self._mark_name(index))
        self.marked.discard(index)

    def begun(self, *, working: bool = False) -> set[int]:
        """List the folder: learn which shards are marked, and return those that have a folder.

        A shard that was reset is not marked any more. `working`: the caller goes on to claim a
        shard, so raise ShardsError if the job was removed.
        """
        names = self.folder.list().names
        # MUT: no-shard-of-a-job-that-was-removed
        if working and layout.SHARDS not in names:
            self.count()  # raises
        begun, self.marked = set(), set()
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


class Shards(Generic[C]):
    """The shards that this worker can claim, one after the other.

    Leaving the `with` gives back the shard that is still claimed.
    """

    def __init__(
        self,
        n: int | None,
        open_folder: Callable[..., ShardFolder],
        make_shard: Callable[[int], C],
        invocation: deadline.Invocation | None,
        margin: float | None,
    ) -> None:
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
            raise ValueError(f"shards: a whole number from 1 is needed, not {n!r}")
        self._asked = n
        self._open_folder, self._make_shard = open_folder, make_shard
        self._invocation = invocation
        self._margin = _MARGIN if margin is None else margin
        self._folder: ShardFolder | None = None
        self._claimed: dict[int, C] = {}  # by index
        self._abandoned: list[int] = []  # claimed in a loop that was broken out of
        self.claims = 0
        """How many shards this object's loops were given: 0 for a worker that only looked."""

    def _opened(self) -> ShardFolder:
        if self._folder is None:
            self._folder = self._open_folder(self._asked)
        return self._folder

    def _looked_at(self) -> ShardFolder:
        """Return the folder for reading alone: a mistyped name must not become a job."""
        return self._folder or self._open_folder(self._asked, make=False)

    def __len__(self) -> int:
        return self._looked_at().n if self._asked is None else self._asked

    def __repr__(self) -> str:
        n = self._asked if self._folder is None else self._folder.n
        return f"<Shards {'of the job' if n is None else n}, {len(self._claimed)} claimed here>"

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
            for index in list(self._claimed):
                self._leave(index, kind, error, trace)
        finally:
            self._leave_invocation()

    def _leave_invocation(self) -> None:
        if self._invocation is not None:
            self._invocation.__exit__(None, None, None)

    def __iter__(self) -> Iterator[C]:
        """Yield each shard that is neither finished nor held elsewhere, claimed.

        The one before is left first.
        """
        for index in self._abandoned:
            self._leave(index)
        self._abandoned.clear()
        if environment.on_lambda():
            deadline.warn_if_unknown("the loop over shards")
        folder = self._opened()
        folder.begun(working=True)
        stale = 0
        for index in _shuffled(folder.n):
            is_known = index in folder.marked
            if folder.is_marked(index):
                stale += not is_known
                # Others finish shards meanwhile. A listing tells of all of them: without it each
                # of w workers would ask for each shard, which is w lookups a shard.
                if stale > folder.n // _STALE:
                    folder.begun(working=True)
                    stale = 0
                continue
            remaining = deadline.remaining()
            if remaining is not None and remaining <= self._margin:
                return
            shard = self._make_shard(index)
            try:
                shard.__enter__()
            except ClaimedError:
                continue
            self._claimed[index] = shard
            shard.on_finished = partial(folder.mark, index)
            if not shard.finished:
                self.claims += 1
                try:
                    yield shard
                except GeneratorExit:  # a break: the shard can be used until the block is left
                    self._abandoned.append(index)
                    raise
            self._leave(index)

    def shard(self, index: int) -> C:
        """Return the checkpoint of one shard, not claimed."""
        if not 0 <= index < len(self):
            raise ValueError(f"shard {index!r}: there are {len(self)}, counted from 0")
        return self._make_shard(index)

    def _leave(
        self,
        index: int,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Give back the claim of a shard, which marks the shard if it is finished."""
        shard = self._claimed.pop(index, None)
        if shard is not None:
            shard.__exit__(kind, error, trace)

    def results(self) -> list[Any]:
        """Return the results of all shards, as `finish` was given them, by index.

        Raises `ShardsError` unless all are finished.
        """
        folder = self._looked_at()
        # MUT: results-are-of-all-shards
        folder.count()
        folder.begun()
        missing = folder.n - len(folder.marked)
        if missing:
            raise ShardsError(
                f"{folder.folder.path()}: {missing} of {folder.n} shards are not finished, so"
                " there are no results yet; look at progress()"
            )
        results = []
        for index in range(folder.n):
            shard = self._make_shard(index)
            shard.load()
            # MUT: a-shard-that-was-reset-has-no-result
            if not shard.finished:
                raise ShardsError(
                    f"{folder.folder.path()}: shard {index} was reset, so there are no results yet;"
                    " look at progress()"
                )
            results.append(shard.result)
        return results

    def grow(self, n: int) -> None:
        """Give the job `n` shards, more than it has: those that are there stay as they are.

        Workers that run already go on with the number they know. Raises `ShardsError` for fewer.
        """
        folder = self._opened()
        if isinstance(n, bool) or not isinstance(n, int):
            raise ShardsError(f"{folder.folder.path()}: a whole number is needed, not {n!r}")
        folder.grow(n)
        self._asked = n

    def unfinished(self) -> int:
        """Return how many shards are not finished, by one listing of the job's folder.

        A worker may die between the last save of a shard and its mark. The shard then counts as
        unfinished until the next loop over the shards passes it.
        """
        folder = self._looked_at()
        folder.begun()
        return folder.n - len(folder.marked)

    @property
    def finished(self) -> bool:
        """True if all shards are finished, as the server has it now."""
        return self.unfinished() == 0

    def begun(self) -> list[int]:
        """Return the indexes of the shards that were ever claimed or finished."""
        folder = self._looked_at()
        return sorted(folder.begun() | folder.marked)

    def progress(self) -> Progress:
        """Return how far all shards are, by reading alone."""
        folder = self._looked_at()
        begun = folder.begun()
        progress = Progress(folder.n)
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
