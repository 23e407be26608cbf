"""Read bytecode: find a frame's present instruction, and loops that may keep items for later."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dis import Instruction
    from types import CodeType, FrameType

    from efsstate.checkpoints.delays import Flow, Turn

_ASYNC_GENERATOR = 0x200  # inspect.CO_ASYNC_GENERATOR
_GENEXPR = "<genexpr>"
_APPENDS = ("LIST_APPEND", "SET_ADD", "MAP_ADD")
_ENDS = ("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE")
_REMEMBERED = 100  # code objects of which the decoded instructions are cached

_instructions: dict[CodeType, list[Instruction]] = {}


def instructions(code: CodeType) -> list[Instruction]:
    """Return the instructions of `code`, without their inline caches."""
    if code not in _instructions:
        import dis

        if len(_instructions) > _REMEMBERED:
            _instructions.clear()
        _instructions[code] = list(dis.get_instructions(code))
    return _instructions[code]


def instruction_at(code: CodeType, offset: int) -> Instruction | None:
    """Return the instruction that `offset` belongs to: its own, or that of one of its caches."""
    decoded = instructions(code)
    # A specialised instruction leaves the frame at one of the caches after it.
    number = bisect_right(decoded, offset, key=attrgetter("offset")) - 1
    return decoded[number] if number >= 0 else None


def current_instruction(frame: FrameType) -> Instruction | None:
    """Return the instruction at which the frame stands; None if it did not begin."""
    return instruction_at(frame.f_code, frame.f_lasti)


def is_comprehension(code: CodeType, start: int, end: int) -> bool:
    """Return True if the loop from offset `start` to `end` only collects what it makes."""
    body = [item for item in instructions(code) if start <= item.offset < end]
    return any(
        first.opname in _APPENDS and second.opname.startswith("JUMP") and second.argval == start
        for first, second in pairwise(body)
    )


def holds_items_back(code: CodeType, head: int) -> bool:
    """Return True if the generator's loop at offset `head` may keep an item and yield nothing.

    Then it asks for the next item while nobody worked on this one: generators that make batches,
    look ahead or shuffle do so. One that leaves items out, because of a condition, does not. In
    doubt it is True: an assignment of what is read in a later turn, or a call for its effect, as in
    `batch.append(item)`, on a way through the loop's body that passes no `yield`.

    So does a generator that gives each item late: its `yield` gives an item that an earlier turn
    put into a variable or an object, in place of this turn's.
    """
    if code.co_name == _GENEXPR:  # it has no place to keep an item
        return False
    loop = _Loop(code, head)
    # MUT: a-delay-line-holds-items-back
    return loop.holds_items_back() or loop.gives_earlier_items()


class _Loop:
    """The body of a `for` or an `async for`, and the ways through it."""

    def __init__(self, code: CodeType, head: int) -> None:
        from efsstate.checkpoints import delays

        self._delays = delays
        self._is_async = bool(code.co_flags & _ASYNC_GENERATOR)
        self._items = instructions(code)
        self._index = {item.offset: number for number, item in enumerate(self._items)}
        self._head = self._index[head]
        self._following = [self._followers(number) for number in range(len(self._items))]
        self._raises: set[tuple[int, int]] = set()
        # MUT: an-except-clause-may-hold-items-back
        self._add_handlers(code)
        self._body = self._body_start()

    def holds_items_back(self) -> bool:
        silent = self._walk([self._body], self._yields)
        return any(self._keeps(number) and self._goes_on_silently(number) for number in silent)

    def gives_earlier_items(self) -> bool:
        """Return True if a `yield` before another turn may give an item of an earlier one."""
        delays, uses = self._delays, self._delays.uses
        inside = self._walk([self._body], lambda _: False)
        assigned = {name for n in inside for how, name in uses(self._items[n]) if how == "STORE"}
        begin = delays.Turn()
        for item in self._items[self._head + 1 : self._body]:
            begin.ages |= {name: delays.NEW for how, name in uses(item) if how == "STORE"}
        flow, before = delays.Flow(assigned), ""
        while before != repr(flow.filled):  # once more with the objects that the last look found
            before = repr(flow.filled)
            turns = self._follow(flow, begin)
        late = (delays.OLD, delays.TAKEN)
        return any(
            turn.stack and turn.stack[-1].age in late and self._gives(number)
            for number, turn in turns.items()
        )

    def _follow(self, flow: Flow, begin: Turn) -> dict[int, Turn]:
        """Return the values before each instruction of the body, which begins with `begin`."""
        turns, waiting = {self._body: begin}, [self._body]
        while waiting:
            number = waiting.pop()
            for following in self._following[number]:
                if following == self._head:
                    after = None
                elif (number, following) in self._raises:
                    after = self._delays.Turn(ages=turns[number].ages)
                else:
                    jumps = following != number + 1
                    after = flow.after(turns[number], self._items[number], jumps=jumps)
                before = turns.get(following)
                if after is not None and before is not None:
                    after = before.merged(after)
                if after is not None and (before is None or not before.equals(after)):
                    turns[following] = after
                    waiting.append(following)
        return turns

    def _gives(self, number: int) -> bool:
        """Return True for a `yield`, not an `await`, after which another turn may come."""
        before = self._items[number - 1].opname
        is_await = self._is_async and before not in ("ASYNC_GEN_WRAP", "CALL_INTRINSIC_1")
        return (
            self._yields(number)
            and not is_await
            and self._head in self._walk(self._following[number], lambda _: False)
        )

    def _followers(self, number: int) -> list[int]:
        """Return the instructions that may come next, but for those that handle exceptions."""
        import dis

        item = self._items[number]
        if item.opname in _ENDS:
            return []
        following = [number + 1] if number + 1 < len(self._items) else []
        if item.opcode in dis.hasjrel or item.opcode in dis.hasjabs:
            target = self._index[item.argval]
            is_certain = item.opname.startswith("JUMP_") and "_IF_" not in item.opname
            return [target] if is_certain else [target, *following]
        return following

    def _add_handlers(self, code: CodeType) -> None:
        """Let each instruction of a `try` lead to its `except` clauses, too.

        The end of a `with` is left out: it hands exceptions on, but for the few that suppress them.
        """
        import dis

        for entry in getattr(dis.Bytecode(code), "exception_entries", ()):
            handler = self._index.get(entry.target)
            if handler is None or self._items[handler + 1].opname == "WITH_EXCEPT_START":
                continue
            for number, item in enumerate(self._items):
                if entry.start <= item.offset < entry.end and not self._yields(number):
                    self._following[number].append(handler)
                    self._raises.add((number, handler))

    def _body_start(self) -> int:
        """Return the first instruction after those that assign the item to its names."""
        number = self._head + 1
        if self._items[self._head].opname != "FOR_ITER":  # an async for: where its await ends
            while self._items[number].opname != "SEND":
                number += 1
            number = self._index[self._items[number].argval]
            number += self._items[number].opname == "END_SEND"
        targets = 1
        while targets > 0 and number < len(self._items):
            item = self._items[number]
            if item.opname.startswith("UNPACK"):
                targets += int(item.arg or 1) - 1
            elif item.opname.startswith(("STORE", "POP_TOP")):
                targets -= 1 + (item.opname == "STORE_FAST_STORE_FAST")
            number += 1
        return number

    def _walk(self, starts: list[int], ends: Callable[[int], bool]) -> set[int]:
        """Return the instructions on the ways from `starts`, each up to the head or an end."""
        seen: set[int] = set()
        waiting = list(starts)
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            if number != self._head and not ends(number):
                waiting += self._following[number]
        return seen

    def _yields(self, number: int) -> bool:
        return self._items[number].opname == "YIELD_VALUE"

    def _goes_on_silently(self, number: int) -> bool:
        """Return True if a way from this instruction to the next item passes no `yield`."""
        return self._head in self._walk(self._following[number], self._yields)

    def _keeps(self, number: int) -> bool:
        """Return True if this instruction may keep something beyond this turn of the loop."""
        item = self._items[number]
        if item.opname.startswith("STORE_FAST"):
            uses = self._delays.uses(item)
            return any(self._is_read_later(name) for how, name in uses if how == "STORE")
        if item.opname == "POP_TOP":  # the result of a call is dropped: it was made for its effect
            before = self._items[number - 1].opname
            is_awaited = before in ("END_SEND", "JUMP_BACKWARD_NO_INTERRUPT")
            return before.startswith("CALL") or (self._is_async and is_awaited)
        return item.opname.startswith("STORE") or item.opname in _APPENDS

    def _is_read_later(self, name: str) -> bool:
        """Return True if a later turn, or the code after the loop, reads this value of `name`."""
        first_use = {
            number: next((how for how, used in self._delays.uses(item) if used == name), "")
            for number, item in enumerate(self._items)
        }
        ends = [n for n, item in enumerate(self._items) if item.opname == "END_ASYNC_FOR"]
        starts = [self._body, *self._following[self._head], *ends]
        reached = self._walk(starts, lambda number: first_use[number] == "STORE")
        return any(first_use[number] == "LOAD" for number in reached)
