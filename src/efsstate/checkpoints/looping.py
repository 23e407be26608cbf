"""Offer a checkpoint's loops to its user: `resume`, `map`, and how far they are."""

from __future__ import annotations

from efsstate import deadline
from efsstate.checkpoints.protocol import claims_between
from efsstate.checkpoints.saves import own
from efsstate.checkpoints.saving import Saving
from efsstate.generic import TypeVar
from efsstate.mount import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
    )
    from typing import Any, overload

    from efsstate.checkpoints.resume import Loop, Options
    from efsstate.units import Duration

    OnSkip = Callable[[Any, str], object]

S = TypeVar("S", default="Any")
T = TypeVar("T")
R = TypeVar("R")


class Looping(Saving[S]):
    """The loops of a checkpoint, and its progress; see `Checkpoint`."""

    # Progress

    @property
    def position(self) -> Any:
        """The position of the last item that is done; None at the beginning."""
        loop = self._loop
        is_ahead = loop is not None and loop.items >= loop.saved_items
        # MUT: a-position-that-is-given-is-a-copy
        return own(loop.position if loop is not None and is_ahead else self._position)

    @property
    def items(self) -> int:
        """The count of items that are done."""
        loop = self._loop
        return self._items if loop is None else max(loop.items, loop.saved_items)

    @property
    def token(self) -> tuple[str, Any]:
        """(name, position): equal when an item is done again, so a key for idempotent effects."""
        loop = self._loop
        return self.name, own(loop.current() if loop else self._position)

    @property
    def complete(self) -> bool:
        """True if the job is finished, or its loops came to their sources' ends in this claim."""
        return self.finished or (self._loops is not None and self._loops.is_complete)

    @property
    def attempts(self) -> int:
        """The count of claims since the position last moved, this one included."""
        if self.epoch is None or self._moved >= self.epoch:
            return 1
        return claims_between(self._moved, self.epoch)

    # Loops

    if TYPE_CHECKING:

        @overload
        def resume(
            self,
            source: AsyncIterable[T] | Callable[[Any], AsyncIterable[T]],
            *,
            every: Duration | int = "10s",
            position: Callable[[T], Any] | None = None,
            batch: None = None,
            attempts: int | None = None,
            on_skip: OnSkip | None = None,
            finish: bool = True,
            name: str | None = None,
        ) -> AsyncIterator[T]: ...
        @overload
        def resume(
            self,
            source: Iterable[T] | Callable[[Any], Iterable[T]],
            *,
            every: Duration | int = "10s",
            position: Callable[[T], Any] | None = None,
            batch: None = None,
            attempts: int | None = None,
            on_skip: OnSkip | None = None,
            finish: bool = True,
            name: str | None = None,
        ) -> Iterator[T]: ...
        @overload
        def resume(
            self,
            source: Iterable[T] | Callable[[Any], Iterable[T]],
            *,
            every: Duration | int = "10s",
            position: Callable[[T], Any] | None = None,
            batch: int,
            attempts: int | None = None,
            on_skip: OnSkip | None = None,
            finish: bool = True,
            name: str | None = None,
        ) -> Iterator[list[T]]: ...

    def resume(
        self,
        source: Any,
        *,
        every: Duration | int = "10s",
        position: Callable[[Any], Any] | None = None,
        batch: int | None = None,
        attempts: int | None = None,
        on_skip: OnSkip | None = None,
        finish: bool = True,
        name: str | None = None,
    ) -> Any:
        """Return the items of `source` that are not done yet, for one `for` statement.

        An item is done when the next one is asked for. Within the margin of the deadline the loop
        saves and ends: look at `complete`. Coming to its end finishes the checkpoint when the
        `with` is left without an error. For an async source, use `async for`.

        source: an iterable that gives the same items in the same order, or a function of the last
            position (None at first).
        every: how often to save, an int of items, or a time ("10s", a timedelta).
        position: a function of an item that gives its position, unique and not None, such as its
            id; without it, positions count items.
        batch: give lists of so many items, which are done as a whole.
        attempts: hand an item that failed so often to `skipped` and go on; a crash, a timeout and
            an error count alike.
        on_skip: a function of a skipped item and its last error.
        finish: False leaves the job open at the source's end, for sources that grow.
        name: the loop's name, needed for several loops in one job; each has its own position.

        Raises `TypeError` or `ValueError` for a bad argument at once. Later it raises
        `SourceChanged` if the source no longer begins with the items that were done, and
        `EfsStateError` if the items are taken by an executor, a pool or another thread: see `map`.
        """
        from efsstate.checkpoints.resume import Items, Options
        from efsstate.checkpoints.source import is_async

        options = Options(position=position, batch=batch, finish=finish, name=name)
        loop = self._begin_loop(source, every, options, attempts, on_skip)
        if loop is None:
            return _Nothing()
        return loop.run_async() if is_async(source) else Items(loop)

    if TYPE_CHECKING:

        @overload
        def map(  # type: ignore[overload-overlap]
            self,
            function: Callable[[T], Awaitable[R]],
            source: Iterable[T]
            | AsyncIterable[T]
            | Callable[[Any], Iterable[T] | AsyncIterable[T]],
            *,
            workers: int = 8,
            every: Duration | int = "10s",
            position: Callable[[T], Any] | None = None,
            ordered: bool = True,
            attempts: int | None = None,
            on_skip: OnSkip | None = None,
            finish: bool = True,
            name: str | None = None,
        ) -> AsyncIterator[R]: ...
        @overload
        def map(
            self,
            function: Callable[[T], R],
            source: Iterable[T] | Callable[[Any], Iterable[T]],
            *,
            workers: int = 8,
            every: Duration | int = "10s",
            position: Callable[[T], Any] | None = None,
            ordered: bool = True,
            attempts: int | None = None,
            on_skip: OnSkip | None = None,
            finish: bool = True,
            name: str | None = None,
        ) -> Iterator[R]: ...

    def map(
        self,
        function: Callable[[Any], Any],
        source: Any,
        *,
        workers: int = 8,
        every: Duration | int = "10s",
        position: Callable[[Any], Any] | None = None,
        ordered: bool = True,
        attempts: int | None = None,
        on_skip: OnSkip | None = None,
        finish: bool = True,
        name: str | None = None,
    ) -> Any:
        """Return `function(item)` of the items that are not done yet, several at a time.

        The function runs in `workers` threads, or, if it is a coroutine function, in as many tasks:
        then use `async for`. An item is done when the result after its own is asked for, and a save
        counts the items before the first that is not done. So after a crash the items beyond that
        are done again: at least once.

        ordered: False gives results as they come.

        The other options are those of `resume`. An error of the function is raised in its item's
        place.
        """
        from efsstate.checkpoints import crew as pools
        from efsstate.checkpoints.resume import Options

        crew = pools.Crew(function, workers, ordered=ordered)
        options = Options(position=position, finish=finish, name=name)
        loop = self._begin_loop(source, every, options, attempts, on_skip)
        if loop is None:
            return _Nothing()
        return crew.run_async(loop) if crew.is_async else crew.run(loop)

    def _begin_loop(
        self,
        source: Any,
        every: Duration | int,
        options: Options,
        attempts: int | None,
        on_skip: OnSkip | None,
    ) -> Loop | None:
        """Return a new loop; None if there is nothing left to do for it."""
        from efsstate.checkpoints.attempts import Attempts
        from efsstate.checkpoints.loops import Loops
        from efsstate.checkpoints.pace import Job, Pace

        claim = self._require_claim()
        if on_skip is not None and attempts is None:
            raise TypeError("on_skip: it is never called without attempts=; pass a number of them")
        if environment.on_lambda():
            deadline.warn_if_unknown(f"checkpoint {self.name}: resume")
        pace = Pace(every, self._margin)
        notes = self._newest.notes if self._newest is not None else {}
        if self._loops is None:
            state, encode = lambda: self._state, self._states.encode
            job = Job(claim.folder.path(), state, encode, self._save_loop, self._save_kept)
            self._loops = Loops(job, notes.get("phases", {}))
        loop = self._loops.begin(source, pace, options, *self._start())
        if attempts is not None:
            tries = self._newest.tries if self._newest is not None else 0
            crashes, error = claim.crashes(), str(notes.get("error", ""))
            if self._attempts is not None:  # a second loop in this claim
                tries, crashes, error = 0, 0, ""
            self._attempts = Attempts(attempts, tries, crashes, self.skipped, error, on_skip)
        loop.attempts = self._attempts if attempts is not None else None
        if self.finished or self._loops.has_ended(options.name):
            loop.exhausted = not self.finished
            return None
        return loop

    def _start(self) -> tuple[Any, int]:
        """Return the position and the count of items from which the next loop goes on."""
        loop = self._loop
        # MUT: a-second-loop-repeats-items-read-ahead
        if loop is not None and not loop.may_count:
            return self._position, self._items
        return self.position, self.items

    def _leave_loops(self, error: BaseException | None) -> None:
        """Save the progress of the loops, and finish the job if they came to their ends.

        A failure here never hides the error of the block.
        """
        loops = self._loops
        if loops is None or loops.current is None or self.finished:
            return
        try:
            if error is None and loops.may_finish:
                self.finish()
            else:
                self._warn_of_standstill(loops.current, error)
                loops.current.leave(error)
        except Exception as problem:
            if error is None:
                raise
            note = f"efsstate: the progress before this could not be saved: {problem!r}"
            # Not by `add_note`: a class may refuse attributes, such as a frozen dataclass.
            vars(error).setdefault("__notes__", []).append(note)

    def _warn_of_standstill(self, loop: Loop, error: BaseException | None) -> None:
        """Warn if this claim, like the one before, handed out one item and did not come to its end.

        A loop that takes the first item alone, by `break` or `islice`, never goes on.
        """
        is_first = loop.handed_out == 1 and loop.is_inside and loop.items == loop.saved_items
        if error is None and is_first and self.attempts > 1:
            from efsstate import events

            text = (
                "checkpoint %s: again its only item was left before it was done, by a break or an"
                " islice; call job.save() at the end of the loop's body to count it"
            )
            events.log(
                "warning",
                text,
                self.name,
                kind="checkpoint",
                event="standstill",
                name=self.name,
                once=f"standstill {self.name}",
            )


class _Nothing:
    """No items, for a `for` statement or an `async for`."""

    def __iter__(self) -> _Nothing:
        return self

    def __next__(self) -> Any:
        raise StopIteration

    def __aiter__(self) -> _Nothing:
        return self

    async def __anext__(self) -> Any:
        raise StopAsyncIteration
