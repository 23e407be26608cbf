"""Work on several items of a loop at a time, on threads or in tasks.

Results are given in the items' order, or as they come. The loop's position is a watermark: it never
passes an item that is not done, that is, whose result was not given and asked beyond.
"""

from __future__ import annotations

import time
from functools import partial
from sys import _getframe as frame_above

from efsstate import deadline
from efsstate.callables import is_coroutine_function
from efsstate.checkpoints.consumer import Consumer
from efsstate.checkpoints.resume import Items, working

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Semaphore
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Any

    from efsstate.checkpoints.resume import Loop
    from efsstate.parallel import Workers

_AHEAD = 2  # items that are begun for each worker, while earlier results wait


class Task:
    """An item that was begun: its position and count once it is done, and its result to come."""

    __slots__ = ("future", "is_done", "item", "items", "position", "seconds")

    def __init__(self, item: Any, position: Any, items: int) -> None:
        self.item, self.position, self.items = item, position, items
        self.future: Any = None
        self.seconds = 0.0
        self.is_done = False


class Crew:
    """Several workers that call `function`: threads, or tasks if it is a coroutine function."""

    def __init__(self, function: Callable[[Any], Any], workers: int, *, ordered: bool) -> None:
        if not callable(function):
            raise TypeError(f"map: a function of an item is needed, not {function!r}")
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers: a whole number from 1 is needed, not {workers!r}")
        self._function, self._workers, self._ordered = function, workers, ordered
        self.is_async = is_coroutine_function(function)

    def _call(self, loop: Loop, task: Task) -> Any:
        working.set((loop, task.position))
        started = time.monotonic()
        try:
            result = self._function(task.item)
        finally:
            task.seconds = time.monotonic() - started
        # MUT: no-coroutine-is-taken-for-a-result
        if hasattr(result, "cr_await"):
            result.close()
            raise TypeError(
                "map: the function returned a coroutine, which does nothing until it is awaited;"
                " pass an `async def` function, or a partial or a method of one, with `async for`"
            )
        return result

    async def _call_async(self, loop: Loop, task: Task, turns: Semaphore) -> Any:
        working.set((loop, task.position))
        async with turns:
            started = time.monotonic()
            try:
                return await self._function(task.item)
            finally:
                task.seconds = time.monotonic() - started

    # On threads

    def run(self, loop: Loop) -> Iterator[Any]:
        """Return the results of the loop's items."""
        return Items(loop, lambda reader: self._run(loop, reader))

    def _run(self, loop: Loop, reader: Items[Any]) -> Iterator[Any]:
        from efsstate.parallel import Workers

        loop.require_reader(*reader.consumer(frame_above(1)), is_for=reader.is_for)
        del reader  # it has this generator, which must end with its last user
        loop.require_thread()
        loop.start()
        window = Window(loop, self._workers)
        workers = Workers(self._workers, "efsstate-map")
        try:
            yield from self._give_results(loop, window, workers, loop.remaining_items())
        finally:
            loop.running = False
            # A thread that went on would work on items that the next claim is given.
            workers.stop(wait=True)

    def _give_results(
        self, loop: Loop, window: Window, workers: Workers, items: Iterator[Any]
    ) -> Iterator[Any]:
        while True:
            while window.has_room():
                try:
                    item = next(items)
                except StopIteration:
                    window.is_at_end = True
                    break
                task = window.add(item)
                if task is not None:
                    task.future = workers.submit(partial(self._call, loop, task))
            if not window.tasks:
                break
            chosen = window.next_thread_task(workers, ordered=self._ordered)
            if chosen is None:
                # The deadline came: items under way are done again. The save comes first, because
                # the threads are waited for, perhaps beyond the deadline.
                # MUT: a-map-saves-before-it-waits-for-its-threads
                if loop.items > loop.saved_items:
                    loop.job.save(False)
                return
            window.hand_out(chosen)
            result = chosen.future.result()
            yield result
            loop.require_thread()
            loop.follow_reader(frame_above(2))
            window.finish(chosen)
        loop.exhausted = window.is_at_end
        if not loop.exhausted:
            loop.end()

    # In tasks

    async def run_async(self, loop: Loop) -> AsyncIterator[Any]:
        """Yield the results of the loop's items, computed in tasks of the event loop."""
        import asyncio

        loop.consumer = Consumer.of_async_for(frame_above(1))
        loop.start()
        window = Window(loop, self._workers)
        items, turns = _as_async(loop), asyncio.Semaphore(self._workers)
        try:
            while True:
                while window.has_room():
                    try:
                        item = await items.__anext__()
                    except StopAsyncIteration:
                        window.is_at_end = True
                        break
                    task = window.add(item)
                    if task is not None:
                        task.future = asyncio.ensure_future(self._call_async(loop, task, turns))
                if not window.tasks:
                    break
                chosen = await window.next_async_task(ordered=self._ordered)
                if chosen is None:
                    return
                window.hand_out(chosen)
                yield chosen.future.result()
                loop.follow_reader(frame_above(1))
                window.finish(chosen)
            loop.exhausted = window.is_at_end
            if not loop.exhausted:
                loop.end()
        finally:
            loop.running = False
            futures = [task.future for task in window.tasks if not task.future.done()]
            for future in futures:
                future.cancel()
            await asyncio.gather(*futures, return_exceptions=True)


async def _as_async(loop: Loop) -> AsyncIterator[Any]:
    """Yield the items that are not done yet, of a source of either kind."""
    from efsstate.checkpoints.source import is_async

    if is_async(loop.source):
        async for item in loop.remaining_items_async():
            yield item
    else:
        for item in loop.remaining_items():
            yield item


class Window:
    """The items of a loop that were begun and are not done, and those done above the watermark."""

    def __init__(self, loop: Loop, workers: int) -> None:
        self.tasks: list[Task] = []  # in the items' order, without those whose result was given
        self.is_at_end = False
        self._loop, self._workers = loop, workers
        self._items = loop.items  # that were begun
        self._open: list[Task] = []  # from the watermark on, done or not

    def has_room(self) -> bool:
        """Return True if another item may be begun."""
        loop = self._loop
        if self.is_at_end or loop.pace.is_over(time.monotonic()):
            return False
        # One at a time while each is noted before it is begun: the one that fails must be known.
        is_noting = loop.attempts is not None and loop.attempts.is_noting
        most = 1 if is_noting else _AHEAD * self._workers
        return len(self._open) < most

    def add(self, item: Any) -> Task | None:
        """Return a task for `item`; None if it may not be begun, or is skipped."""
        loop = self._loop
        if loop.pace.is_over(time.monotonic()):
            return None
        items = self._items + 1
        position = items if loop.options.cursor is None else loop.position_of(item)
        if loop.attempts is not None and not self._open:
            loop.next_position, loop.next_items = position, items
            if not loop.attempts.begin(item, loop):
                self._items = items
                return None
        self._items = items
        task = Task(item, position, items)
        self.tasks.append(task)
        self._open.append(task)
        return task

    def next_thread_task(self, workers: Workers, *, ordered: bool) -> Task | None:
        """Wait for the next task with a result; None if the deadline comes first."""
        calls = [task.future for task in (self.tasks[:1] if ordered else self.tasks)]
        call = workers.first(calls, _patience())
        return next((task for task in self.tasks if task.future is call), None)

    async def next_async_task(self, *, ordered: bool) -> Task | None:
        """Do as `next_thread_task`, for tasks of an event loop."""
        import asyncio

        futures = [task.future for task in (self.tasks[:1] if ordered else self.tasks)]
        done, _ = await asyncio.wait(
            futures, timeout=_patience(), return_when=asyncio.FIRST_COMPLETED
        )
        return next((task for task in self.tasks if task.future in done), None)

    def hand_out(self, task: Task) -> None:
        """Note that the result of `task` is given now."""
        loop = self._loop
        self.tasks.remove(task)
        loop.handed_out += 1
        loop.begun = time.monotonic()
        # A save in the loop's body counts the item only if none before it is open.
        is_first = self._open[0] is task
        loop.next_position = task.position if is_first else loop.position
        loop.next_items = task.items if is_first else loop.items
        loop.early_position = None if is_first else task.position
        loop.is_inside = is_first

    def finish(self, task: Task) -> None:
        """Note that `task` is done, and move the watermark past all that are."""
        loop = self._loop
        task.is_done, loop.early_position = True, None
        loop.pace.note_item(task.seconds)
        before = loop.items
        # MUT: the-watermark-passes-no-open-item
        while self._open and self._open[0].is_done:
            first = self._open.pop(0)
            loop.next_position, loop.next_items = first.position, first.items
            loop.position, loop.items = first.position, first.items
        if loop.items > before:
            loop.finish_item(time.monotonic())


def _patience() -> float | None:
    """Return how long to wait for a result: until shortly before the deadline."""
    remaining = deadline.remaining()
    return None if remaining is None else max(0.0, remaining - deadline.MARGIN)
