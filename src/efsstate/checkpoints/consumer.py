"""Find out who consumes a loop: whether it asks for an item only once the one before is done.

A `for` statement does, also through `enumerate` or a generator that wraps the loop. `list`,
`batched` and comprehensions take items before the ones before are done, and executors and pools
work on them at the same time as well. The difference shows in the frame that asks for the first
item: at which instruction it stands, and which iterators lie between it and the loop.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from sys import _getframe as frame_above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType, TracebackType
    from typing import Any

_GENERATOR = 0x20  # inspect.CO_GENERATOR
_COROUTINE = 0x80 | 0x200  # inspect.CO_COROUTINE, CO_ASYNC_GENERATOR
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
_APPENDS = ("LIST_APPEND", "SET_ADD", "MAP_ADD")
_DEEPEST = 20  # iterators between a loop and its consumer

_instructions: dict[CodeType, list[Any]] = {}


def _decoded(code: CodeType) -> list[Any]:
    """Return the instructions of `code`."""
    if code not in _instructions:
        import dis

        if len(_instructions) > 100:
            _instructions.clear()
        _instructions[code] = list(dis.get_instructions(code))
    return _instructions[code]


def _operation(frame: FrameType) -> Any:
    """Return the instruction at which the frame stands, None if it cannot be told."""
    at = frame.f_lasti
    return next((i for i in _decoded(frame.f_code) if i.offset == at), None)


def is_for_statement(frame: FrameType) -> bool:
    """Return True if `frame` asks for the iterator of a `for` statement."""
    operation = _operation(frame)
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
    """Return the iterator through which `iterator` is consumed; None if one reads ahead."""
    import gc

    lazy = _lazy_types()
    for _ in range(_DEEPEST):
        around = _iterators_around(iterator, gc.get_referrers)
        if not around:
            return iterator
        if not all(isinstance(other, lazy) for other in around):
            return None
        iterator = around[0]
    return None


def _iterators_around(iterator: object, referrers: Any) -> list[object]:
    around: list[object] = []
    for other in referrers(iterator):
        if type(other) is tuple:  # a zip's
            around += [owner for owner in referrers(other) if isinstance(owner, zip)]
        elif hasattr(type(other), "__next__") and type(other).__name__ not in (
            "generator",
            "Items",
        ):
            around.append(other)
    return around


class Consumer:
    """The consumer of a loop.

    `is_direct` is True if it asks for an item only once the one before is done; `is_pool` if it
    works on several at a time.
    """

    def __init__(self, frame: FrameType) -> None:
        self.is_direct = self.is_pool = False
        self._frame_id, self._code, self._body = id(frame), frame.f_code, (0, 0)

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
        consumer, code = cls(frame), frame.f_code
        instructions = _decoded(code)
        starts = [i.offset for i in instructions if i.opname == "GET_ANEXT"]
        start = max([offset for offset in starts if offset <= frame.f_lasti], default=None)
        if start is not None and code.co_name not in _COMPREHENSIONS:
            back = [i for i in instructions if "BACKWARD" in i.opname and i.argval == start]
            end = max([i.offset for i in back], default=start) + 1
            consumer._body = (start, end)
            consumer.is_direct = not _is_comprehension(code, start, end)
        return consumer

    def _judge(self, iterator: Any, frame: FrameType, *, is_for: bool) -> None:
        while True:
            if _is_pools(frame):
                self.is_pool = True
                return
            operation = _operation(frame)
            name = operation.opname if operation is not None else ""
            is_step = name in _STEP_BY_STEP and frame.f_code.co_name not in _COMPREHENSIONS
            if frame.f_code.co_flags & _GENERATOR == 0 or frame.f_back is None:
                break
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
            if _is_comprehension(frame.f_code, *self._body):  # inlined, from Python 3.12 on
                return
        else:
            self._body = (0, sys.maxsize)
        self.is_direct = is_for or _outermost(iterator) is not None

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


def _is_comprehension(code: CodeType, start: int, end: int) -> bool:
    """Return True if the loop from `start` to `end` only collects what it makes."""
    body = [i for i in _decoded(code) if start <= i.offset < end]
    return any(
        first.opname in _APPENDS and second.opname.startswith("JUMP") and second.argval == start
        for first, second in pairwise(body)
    )


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
