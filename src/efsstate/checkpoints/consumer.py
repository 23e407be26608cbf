"""Find out who consumes a loop: whether it asks for an item only once the one before is done.

A `for` statement does, also through `enumerate` or a generator that wraps the loop. `list`,
`batched` and comprehensions take items before the ones before are done, and executors and pools
work on them at the same time as well. The difference shows in the frame that asks for the first
item: at which instruction it stands, and which iterators lie between it and the loop.
"""

from __future__ import annotations

import sys
from sys import _getframe as frame_above

from efsstate.checkpoints import bytecode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType, TracebackType
    from typing import Any

_GENERATOR = 0x20  # inspect.CO_GENERATOR
_ASYNC_GENERATOR = 0x200  # inspect.CO_ASYNC_GENERATOR
_COROUTINE = 0x80 | _ASYNC_GENERATOR  # inspect.CO_COROUTINE
# Modules whose code takes items for workers of theirs.
_POOLS = tuple(
    f"{name}."
    for name in (
        "concurrent.futures",
        "multiprocessing",
        "joblib",
        "asyncio",
        "dask",
        "distributed",
    )
)
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")
_STEP_BY_STEP = ("FOR_ITER", "SEND", "YIELD_FROM", "RESUME", "YIELD_VALUE")
# Types of an iterator's bound `__next__`, which is called from anywhere.
_CALLERS = ("method", "method-wrapper", "builtin_function_or_method", "partial")
_DEEPEST = 20  # iterators between a loop and its consumer


def is_for_statement(frame: FrameType) -> bool:
    """Return True if `frame` asks for the iterator of a `for` statement."""
    operation = bytecode.current_instruction(frame)
    return operation is not None and operation.opname == "GET_ITER"


def _lazy_types() -> tuple[type, ...]:
    """Return the iterators of the standard library that take one item for each that they give."""
    import itertools as tools

    return (
        enumerate,
        zip,
        map,
        filter,
        tools.chain,
        tools.starmap,
        tools.takewhile,
        tools.dropwhile,
        tools.filterfalse,
        tools.compress,
        tools.accumulate,
        tools.zip_longest,
        tools.islice,
    )


def _outermost(iterator: object) -> object | None:
    """Return the iterator through which `iterator` is consumed; None if one may read ahead."""
    lazy = _lazy_types()
    for _ in range(_DEEPEST):
        around = _iterators_around(iterator)
        if not around:
            return iterator
        # MUT: iterators-that-take-several-read-ahead
        if len(around) > 1 or not isinstance(around[0], lazy):
            return None
        iterator = around[0]
    return None


def _iterators_around(iterator: object) -> list[object]:
    """Return the iterators that take items of `iterator`, or what else may take them.

    One that takes several in each step, as `zip(items, items)` does, comes several times.
    """
    from gc import get_referrers
    from types import GeneratorType

    around: list[object] = []
    for other in get_referrers(iterator):
        kind = type(other)
        if kind is tuple or kind is list:
            # A zip, a map or a chain has its iterators in a tuple; a chain has that in an iterator.
            times = sum(item is iterator for item in other)
            for owner in get_referrers(other):
                if type(owner) is type(iter(())):
                    around += [chain for chain in get_referrers(owner) if _is_iterator(chain)]
                elif _is_iterator(owner) and not isinstance(owner, GeneratorType):
                    around += [owner] * times
        elif isinstance(other, GeneratorType) or kind.__name__ == "Items":
            continue
        elif _is_iterator(other) or kind.__module__ == "itertools" or kind.__name__ in _CALLERS:
            around.append(other)
    return around


def _is_iterator(value: object) -> bool:
    return hasattr(type(value), "__next__")


class Consumer:
    """The consumer of a loop.

    `is_direct` is True if it asks for an item only once the one before is done; `is_pool` if it
    works on several at a time.
    """

    def __init__(self, frame: FrameType) -> None:
        self.is_direct = self.is_pool = False
        self._frame_id, self._code, self._body = id(frame), frame.f_code, (0, 0)
        # The frames between the loop and its consumer, by id, and the place in each.
        self._places: list[tuple[int, int]] = []

    @classmethod
    def of_for(cls, generator: Any, frame: FrameType, *, is_for: bool) -> Consumer:
        """Return the consumer of a generator that `frame` reads.

        `is_for` tells that a `for` statement asked for the iterator.
        """
        consumer = cls(frame)
        consumer._judge(generator, frame, is_for=is_for)
        return consumer

    @classmethod
    def of_async_for(cls, frame: FrameType) -> Consumer:
        """Return the consumer of an async generator that `frame` reads."""
        consumer = cls(frame)
        while True:
            code, at = frame.f_code, frame.f_lasti
            consumer._places.append((id(frame), at))
            start, end = _async_for_around(code, at)
            if start == end or code.co_name in _COMPREHENSIONS:
                return consumer
            # MUT: generators-that-hold-items-back-read-ahead
            if code.co_flags & _ASYNC_GENERATOR and bytecode.holds_items_back(code, start):
                return consumer
            if not code.co_flags & _ASYNC_GENERATOR or frame.f_back is None:
                break
            frame = frame.f_back
        consumer._code, consumer._frame_id, consumer._body = code, id(frame), (start, end)
        consumer.is_direct = not bytecode.is_comprehension(code, start, end)
        return consumer

    def _judge(self, iterator: Any, frame: FrameType, *, is_for: bool) -> None:
        while True:
            if _is_pools(frame):
                self.is_pool = True
                return
            self._places.append((id(frame), frame.f_lasti))
            operation: Any = bytecode.current_instruction(frame)
            name = operation.opname if operation is not None else ""
            is_step = name in _STEP_BY_STEP and frame.f_code.co_name not in _COMPREHENSIONS
            if frame.f_code.co_flags & _GENERATOR == 0 or frame.f_back is None:
                break
            # MUT: a-loop-in-a-generator-may-hold-items-back
            if name == "FOR_ITER" and bytecode.holds_items_back(frame.f_code, operation.offset):
                is_step = False
            iterator = _generator_of(frame) if is_step and _outermost(iterator) else None
            is_for, frame = False, frame.f_back
            if iterator is None:
                is_step = False
                self.is_pool = _is_pools(frame)
                break
        if not is_step:
            self.is_pool = self.is_pool or _is_in_event_loop(frame)
            return
        self._code, self._frame_id = frame.f_code, id(frame)
        if name == "FOR_ITER":
            self._body = (operation.offset, operation.argval)
            if bytecode.is_comprehension(frame.f_code, *self._body):  # inlined, from 3.12 on
                return
        else:
            self._body = (0, sys.maxsize)
        self.is_direct = is_for or _outermost(iterator) is not None

    def keeps_step(self, frame: FrameType) -> bool:
        """Return True if `frame` asks for the next item where the first one was asked for.

        A body that calls `next` on its own loop works on several items at a time.
        """
        reader: FrameType | None = frame
        for place in self._places:
            if reader is None or (id(reader), reader.f_lasti) != place:
                return self._has_same_instructions(frame)
            reader = reader.f_back
        return True

    def _has_same_instructions(self, frame: FrameType) -> bool:
        """Return True if the readers differ from before only in how far specialised code is."""
        reader: FrameType | None = frame
        places = []
        for frame_id, at in self._places:
            if reader is None or id(reader) != frame_id:
                return False
            now = bytecode.current_instruction(reader)
            if now is None or now is not bytecode.instruction_at(reader.f_code, at):
                return False
            places.append((frame_id, reader.f_lasti))
            reader = reader.f_back
        self._places = places
        return True

    def is_in_body(self) -> bool:
        """Return True if this is called from the body of the consumer's loop."""
        frame: FrameType | None = frame_above(1)
        while frame is not None:
            if id(frame) == self._frame_id and frame.f_code is self._code:
                return self._is_inside(frame.f_lasti)
            frame = frame.f_back
        return False

    def raised_in_body(self, trace: TracebackType | None) -> bool:
        """Return True if the traceback passes through the body of the consumer's loop."""
        while trace is not None:
            if id(trace.tb_frame) == self._frame_id and trace.tb_frame.f_code is self._code:
                return self._is_inside(trace.tb_lasti)
            trace = trace.tb_next
        return False

    def _is_inside(self, offset: int) -> bool:
        start, end = self._body
        return start <= offset < end


def _is_pools(frame: FrameType) -> bool:
    return f"{frame.f_globals.get('__name__')}.".startswith(_POOLS)


def _generator_of(frame: FrameType) -> Any:
    """Return the generator that runs in `frame`."""
    import gc

    return next((o for o in gc.get_referrers(frame) if type(o).__name__ == "generator"), None)


def _async_for_around(code: CodeType, offset: int) -> tuple[int, int]:
    """Return the offsets of the `async for` that stands at `offset`: its start, and its end."""
    decoded = bytecode.instructions(code)
    starts = [item.offset for item in decoded if item.opname == "GET_ANEXT"]
    start = max([start for start in starts if start <= offset], default=None)
    if start is None:
        return 0, 0
    back = [item for item in decoded if "BACKWARD" in item.opname and item.argval == start]
    return start, max([item.offset for item in back], default=start) + 1


def _is_in_event_loop(frame: FrameType) -> bool:
    """Return True if items are collected in an event loop: for `gather`, in all likelihood."""
    events = sys.modules.get("asyncio.events")
    if events is None or frame.f_code.co_flags & _COROUTINE:
        return False
    try:
        events.get_running_loop()
    except RuntimeError:
        return False
    return True
