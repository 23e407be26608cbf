"""Loop over the items that are not done yet: count them, save now and then, end in time."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from sys import _getframe as frame_above

from efsstate.checkpoints import source as sources
from efsstate.checkpoints.consumer import Consumer, is_for_statement
from efsstate.checkpoints.pace import Kept
from efsstate.checkpoints.saves import own
from efsstate.errors import EfsStateError
from efsstate.generic import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from typing import Any

    from efsstate.checkpoints.attempts import Attempts
    from efsstate.checkpoints.pace import Job, Pace

T = TypeVar("T")
_READS_AHEAD = (
    "resume is read ahead, so its items would count as done before they are; use"
    " job.map(function, source, workers=8) to work on several at a time, or resume(..., batch=n)"
    " for lists of items"
)
# The loop and the position of the item that a worker of `map` works on, in the worker's context.
working: ContextVar[tuple[Any, Any]] = ContextVar("efsstate_working", default=(None, None))


class Options:
    """The options of one loop, checked once."""

    __slots__ = ("batch", "cursor", "finish", "name")

    def __init__(
        self,
        *,
        position: Callable[[Any], Any] | None = None,
        batch: int | None = None,
        finish: bool = True,
        name: str | None = None,
    ) -> None:
        if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int)):
            raise TypeError(f"batch: a number of items is needed, not {batch!r}")
        if batch is not None and batch < 1:
            raise ValueError(f"batch: at least 1 item is needed, not {batch!r}")
        if name is not None and (not isinstance(name, str) or not name):
            raise TypeError(f"name: a name of the loop, a string, is needed, not {name!r}")
        self.cursor, self.batch, self.finish, self.name = position, batch, finish, name


class Loop:
    """One `resume`: `position` and `items` are those of the last item that is done.

    `exhausted` tells that the source came to its end, `running` that the loop did not end yet.
    `of_claim` are all loops of the claim.
    """

    def __init__(
        self, job: Job, source: Any, pace: Pace, options: Options, of_claim: Sequence[Loop]
    ) -> None:
        sources.check(source, options.cursor)
        self._of_claim = of_claim
        self.job, self.source, self.pace, self.options = job, source, pace, options
        self.consumer: Consumer | None = None
        self.attempts: Attempts | None = None
        self.position: Any = None
        self.items = self.saved_items = 0
        self.handed_out = 0
        self.is_inside = False  # an item is handed out and not done
        self.next_position: Any = None
        self.next_items = 0
        self.early_position: Any = None  # of an item that is handed out before an earlier one
        self.kept = Kept(job, None, 0)
        self.running = self.exhausted = False
        self.ended: EfsStateError | None = None  # why no further item may be given
        self._started = 0.0
        self.begun = 0.0  # when the item was handed out
        self._thread = threading.get_ident()

    def begin(self, position: Any, items: int) -> None:
        """Start after `items` items, of which the last has `position`."""
        self.position, self.items, self.saved_items = position, items, items
        self.kept = Kept(self.job, position, items)
        self.kept.keep(position, items, time.monotonic(), 0.0)

    @property
    def is_direct(self) -> bool:
        """Return True if its reader takes an item only once the one before is done."""
        return self.consumer is None or self.consumer.is_direct

    @property
    def may_count(self) -> bool:
        """Return True if the items that were taken are done, though the block goes on."""
        return self.is_direct or self.exhausted

    # The steps of a loop, for `run` and its variants

    def start(self) -> None:
        """Begin to run."""
        self.require_block()
        for loop in self._of_claim:
            # MUT: loops-that-begin-together-run-in-turn
            loop.require_rest()
        self.running = True
        self._started = now = time.monotonic()
        self.pace.start(now)

    def require_rest(self) -> None:
        """Raise if this loop is running, so that another may not begin."""
        if self.running:
            path = self.job.name
            raise EfsStateError(f"{path}: resume is running already; one loop at a time in a claim")

    def require_block(self) -> None:
        """Raise if the block that holds the claim was left, or the job was reset."""
        # MUT: no-items-after-the-block
        if self.ended is not None:
            raise self.ended

    def remaining_items(self) -> Iterator[Any]:
        """Return an iterator over the items that are not done yet."""
        skipping = self.skipping()
        position = self.position_for_source()
        return sources.remaining(self.source, position, skipping, self.options.cursor)

    def skipping(self) -> sources.Skipping:
        """Return the items that are done already, as they pass."""
        name, cursor, stop_at = self.job.name, self.options.cursor, self.pace.stop_at
        return sources.Skipping(name, self.position, self.items, cursor, stop_at)

    def position_for_source(self) -> Any:
        """Return the position for the source, which may change it in place as it goes on."""
        # MUT: a-source-gets-a-position-of-its-own
        return own(self.position)

    def position_of(self, item: Any) -> Any:
        """Return the position once `item` is done, if it has one of its own."""
        position = self.options.cursor(item)  # type: ignore[misc]
        # MUT: none-is-no-position
        if position is None:
            raise ValueError(
                f"position: it returned None for the item {item!r:.200}; None means that nothing is"
                " done, so the job would start over: return another value for it"
            )
        # MUT: a-position-is-found-again
        if not _equals_itself(position):
            raise ValueError(
                f"position: it returned {position!r:.200} for the item {item!r:.200}, which does"
                " not equal itself, as NaN, so the next claim could not find it: return a number or"
                " a text that no other item has"
            )
        # MUT: a-position-is-the-loops-own
        return own(position)

    def require_reader(self, generator: Any, frame: Any, *, is_for: bool) -> None:
        """Find out who reads the loop; refuse a reader that works on several items at a time."""
        consumer = Consumer.of_for(generator, frame, is_for=is_for)
        # MUT: pools-are-refused
        if consumer.is_pool:
            raise EfsStateError(f"{self.job.name}: {_READS_AHEAD}")
        self.consumer = consumer

    def follow_reader(self, frame: Any) -> None:
        """Notice a body that takes further items while it has one."""
        consumer = self.consumer
        # MUT: an-item-taken-in-the-body-is-read-ahead
        if consumer is not None and consumer.is_direct and not consumer.keeps_step(frame):
            consumer.is_direct = False

    def require_thread(self) -> None:
        """Refuse another thread than the one that called `resume`."""
        # MUT: other-threads-are-refused
        if threading.get_ident() != self._thread:
            raise EfsStateError(f"{self.job.name}: another thread reads it: {_READS_AHEAD}")

    def finish_item(self, now: float) -> None:
        """Count the item that was handed out as done, and save if it is time."""
        if self.ended is not None:
            self.require_block()
        self.is_inside = False
        self.position, self.items = self.next_position, self.next_items
        if self.consumer is None or self.consumer.is_direct:
            self.kept.keep(self.position, self.items, now, now - self._started)
        if self.attempts is not None:
            self.attempts.finish(self)
        pace = self.pace
        if now - self.begun > pace.slowest_item:
            pace.note_item(now - self.begun)
        if now >= pace.save_at or self.items - self.saved_items >= pace.items:
            self._save_in_time(now)

    def _save_in_time(self, now: float) -> None:
        pace = self.pace
        # MUT: what-is-read-ahead-is-not-saved
        if self.consumer is not None and not self.consumer.is_direct:
            self._warn_of_reading_ahead()
            pace.save_at = now + pace.seconds
            return
        self.job.save(False)
        saved = time.monotonic()
        pace.slowest_save = max(pace.slowest_save, saved - now)
        pace.save_at = saved + pace.seconds
        pace.plan_stop()

    def _warn_of_reading_ahead(self) -> None:
        from efsstate import events

        text = "checkpoint %s: %s; now it saves only when the block ends, or by job.save()"
        events.log(
            "warning",
            text,
            self.job.name,
            _READS_AHEAD,
            kind="checkpoint",
            event="reads_ahead",
            name=self.job.name,
            once=f"reads ahead {self.job.name}",
        )

    def end(self) -> None:
        """Save at the loop's end before the deadline."""
        if self.is_direct and self.items > self.saved_items:
            self.job.save(True)

    def save_before_item(self) -> None:
        """Save with the note that the next item is begun."""
        self.job.save(False)

    def skip_item(self) -> None:
        """Count the next item as done, though it was not, and save that it was skipped."""
        self.position, self.items = self.next_position, self.next_items
        self.kept.keep(self.position, self.items, time.monotonic(), float("inf"))
        self.job.save(False)

    # Running

    def run(self, reader: Items[Any]) -> Iterator[Any]:
        """Yield the items, as `Checkpoint.resume` says."""
        pace, cursor, batch = self.pace, self.options.cursor, self.options.batch
        monotonic, thread, get_ident = time.monotonic, self._thread, threading.get_ident
        self.require_reader(*reader.consumer(frame_above(1)), is_for=reader.is_for)
        del reader  # it has this generator, which must end with its last user
        self.require_thread()
        self.start()
        try:
            if pace.is_over(monotonic()):
                return
            units = self.remaining_items()
            if batch is not None:
                units = sources.batches(units, batch, lambda: not pace.is_over(monotonic()))
            while True:
                try:
                    unit = next(units)
                except StopIteration:
                    self.exhausted = True
                    return
                now = monotonic()
                # MUT: no-item-is-begun-after-the-margin
                if pace.is_over(now):
                    break
                self.next_items = self.items + (1 if batch is None else len(unit))
                if cursor is None:
                    self.next_position = self.next_items
                else:
                    self.next_position = self.position_of(unit if batch is None else unit[-1])
                if self.attempts is not None and not self.attempts.begin(unit, self):
                    continue
                self.begun, self.is_inside = now, True
                self.handed_out += 1
                yield unit
                if get_ident() != thread:
                    self.require_thread()
                self.follow_reader(frame_above(1))
                now = monotonic()
                self.finish_item(now)
                if pace.is_over(now):
                    break
            self.end()
        finally:
            self.running = False

    async def run_async(self) -> AsyncIterator[Any]:
        """Yield the items of an async source, as `run` does."""
        pace, batch = self.pace, self.options.batch
        self.start()
        try:
            if pace.is_over(time.monotonic()):
                return
            async for unit in self._units_async():
                now = time.monotonic()
                if self.consumer is None:
                    self.consumer = Consumer.of_async_for(frame_above(1))
                if pace.is_over(now):
                    break
                last = unit if batch is None else unit[-1]
                self.next_items = self.items + (1 if batch is None else len(unit))
                self.next_position = (
                    self.next_items if self.options.cursor is None else self.position_of(last)
                )
                if self.attempts is not None and not self.attempts.begin(unit, self):
                    continue
                self.begun, self.is_inside = now, True
                self.handed_out += 1
                yield unit
                self.follow_reader(frame_above(1))
                now = time.monotonic()
                self.finish_item(now)
                if pace.is_over(now):
                    break
            else:
                self.exhausted = True
                return
            self.end()
        finally:
            self.running = False

    async def remaining_items_async(self) -> AsyncIterator[Any]:
        """Yield the items of an async source that are not done yet."""
        source, skipping = self.source, self.skipping()
        if callable(source):
            source = source(self.position_for_source())
            skipping.is_over = True
        async for item in source:
            if skipping.is_over:
                yield item
            else:
                skipping.passes(item)
        skipping.end()

    async def _units_async(self) -> AsyncIterator[Any]:
        batch, units = self.options.batch, []
        async for item in self.remaining_items_async():
            if batch is None:
                yield item
                continue
            units.append(item)
            if len(units) == batch:
                yield units
                units = []
        if units:
            yield units

    # What its checkpoint asks

    def is_current_done(self) -> bool:
        """Return True if a save now counts the item that is handed out as done.

        In the body of the loop it does. After a `break` it does not, though the loop may be kept in
        a variable and go on later.
        """
        if not self.is_inside:
            return False
        consumer = self.consumer
        # MUT: a-broken-item-does-not-count
        return consumer is None or (consumer.is_in_body() if consumer.is_direct else self.running)

    def count_current(self) -> tuple[Any, int]:
        """Return the position and the count of a save."""
        if self.is_current_done():
            return self.next_position, self.next_items
        return self.position, self.items

    def current(self) -> Any:
        """Return the position of the item that is being done, else of the last one."""
        loop, position = working.get()
        # MUT: each-item-of-a-map-has-its-own-token
        if loop is self:
            return position
        if self.early_position is not None:
            return self.early_position
        return self.next_position if self.is_inside else self.position

    def leave(self, error: BaseException | None) -> None:
        """Save at the end of the block what was done, with the state as it was then.

        If the block raised in its loop's body, the items before count, and the state is that of
        their end. If it raised elsewhere, what the loop did may have been for nothing, as if its
        items were only collected there: nothing beyond the last save counts.
        """
        consumer, kept, is_direct = self.consumer, self.kept, self.is_direct
        if error is not None:
            # MUT: an-error-outside-the-loop-counts-nothing
            is_in_loop = consumer is None or consumer.raised_in_body(error.__traceback__)
            if self.exhausted or not is_direct or not is_in_loop:
                return
        elif not is_direct:
            self.is_inside = False  # the item that was handed out last is not done
            if self.items > self.saved_items:
                self.job.save(True)
            return
        if self._leave_attempts(error) or kept.items > self.saved_items:
            self.job.save_kept(kept.encoded(), kept.position, kept.items)

    def _leave_attempts(self, error: BaseException | None) -> bool:
        """Note how the item ended that was handed out last; return True if that must be saved."""
        attempts = self.attempts
        if attempts is None:
            return False
        if self.saved_items > self.items:
            return False  # a save in the body counted the item as done
        if self.kept.items != self.items:
            attempts.tries = 0  # the state that is saved is from before an item that is done
        elif error is not None and self.is_inside:
            attempts.fail(error)
        elif self.is_inside:
            attempts.leave()
        return self.handed_out > 0


class Items(Generic[T]):
    """The items of a loop, to be read by one `for` statement."""

    def __init__(
        self, loop: Loop, run: Callable[[Items[Any]], Iterator[Any]] | None = None
    ) -> None:
        self._generator: Any = loop.run(self) if run is None else run(self)
        self._name = loop.job.name
        self._loop = loop if run is None else None  # None for the results of a `map`
        self.is_for = False  # True once a `for` statement asked for the iterator

    def __repr__(self) -> str:
        return f"<items of {self._name!r}, to be read by one for statement>"

    def consumer(self, frame: Any) -> tuple[Any, Any]:
        """Return the iterator that is read, and the frame that reads it."""
        is_own = frame.f_code is Items.__next__.__code__
        return (self, frame.f_back) if is_own else (self._generator, frame)

    def __iter__(self) -> Iterator[T]:
        self.is_for = is_for_statement(frame_above(1))
        return self._generator  # type: ignore[no-any-return]

    def __aiter__(self) -> AsyncIterator[T]:
        """Return the items of a source that only its call shows to be async, such as a partial."""
        if self._loop is None:
            raise TypeError(
                f"{self._name}: `async for` needs a coroutine function for map; this one is plain:"
                " write `for`, or make it an `async def`"
            )
        return self._loop.run_async()

    def __next__(self) -> T:
        return next(self._generator)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the loop."""
        self._generator.close()


def _equals_itself(value: Any) -> bool:
    try:
        return bool(value == value)  # noqa: PLR0124 - that is the question
    except (TypeError, ValueError):  # an array
        return False
