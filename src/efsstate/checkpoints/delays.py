"""Find out whether a generator gives an item of an earlier turn of its loop: a delay line does.

It follows the values through the loop's bytecode, on the stack and in local variables. A value is
of one of four ages; an operation's result is as new as its newest operand.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from dis import Instruction

_NOTHING, _OUTER, OLD, NEW = range(4)
# _NOTHING: constants, globals, objects that were made in this turn without the item.
# _OUTER: a variable that the loop never assigns, such as an argument.
# OLD: what an earlier turn may have left, in a variable or in an object.
# NEW: this turn's item, and what was made of it.
_WORSE = {NEW: 0, _NOTHING: 1, _OUTER: 2, OLD: 3}  # where two ways meet
_NO_ITEM = ("LOAD_CONST", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_SMALL_INT", "LOAD_COMMON_CONSTANT",
            "LOAD_BUILD_CLASS", "PUSH_NULL", "PUSH_EXC_INFO")  # fmt: skip
# They take values off the stack and put none on it.
_DROPS = ("POP_", "STORE_", "DELETE_", "RETURN_", "RAISE_", "RERAISE", "END_", "JUMP_IF")
_FILLS = ("LIST_APPEND", "LIST_EXTEND", "SET_ADD", "SET_UPDATE", "MAP_ADD", "DICT_UPDATE",
          "DICT_MERGE")  # fmt: skip
# They leave the stack as it is.
_PLAIN = ("RESUME", "NOP", "JUMP", "CACHE", "EXTENDED_ARG", "KW_NAMES", "PRECALL", "NOT_TAKEN",
          "GET_ITER", "GET_YIELD", "GET_AWAITABLE", "MAKE_CELL", "COPY_FREE")  # fmt: skip


class Value(NamedTuple):
    """A value on the stack: its age, and the variable that it was read from."""

    age: int = _NOTHING
    name: str = ""


class Turn:
    """The values at one instruction of a turn: the stack's, and the ages of the variables."""

    def __init__(self, stack: Iterable[Value] = (), ages: dict[str, int] | None = None) -> None:
        self.stack = list(stack)
        self.ages = dict(ages or {})

    def pop(self) -> Value:
        """Take the uppermost value; below the loop's own are some that nobody asks for."""
        return self.stack.pop() if self.stack else Value()

    def merged(self, other: Turn) -> Turn:
        """Return what holds whichever of two ways was taken."""
        count = min(len(self.stack), len(other.stack))
        pairs = zip(self.stack[-count:], other.stack[-count:], strict=True) if count else ()
        stack = [max(pair, key=lambda value: _WORSE[value.age]) for pair in pairs]
        # A variable that one way left alone is old there, if the loop assigns it at all.
        ages = {
            name: max(self.ages.get(name, OLD), other.ages.get(name, OLD), key=_WORSE.__getitem__)
            for name in self.ages | other.ages
        }
        return Turn(stack, ages)

    def equals(self, other: Turn) -> bool:
        """Return True if `merged` added nothing."""
        return self.stack == other.stack and self.ages == other.ages


def uses(item: Instruction) -> list[tuple[str, str]]:
    """Return how an instruction uses variables of functions: pairs of LOAD or STORE and a name."""
    ways = [way for way in item.opname.split("_") if way in ("LOAD", "STORE")]
    if not ways or not any(kind in item.opname for kind in ("FAST", "DEREF", "CLOSURE")):
        return []
    names = item.argval if isinstance(item.argval, tuple) else (item.argval,)
    return list(zip(ways, names, strict=False))


def follow(turn: Turn, item: Instruction, assigned: set[str], *, jumps: bool) -> Turn:
    """Return the values after an instruction; `assigned` are the names that the loop assigns."""
    import dis

    after, name = Turn(turn.stack, turn.ages), item.opname
    arg = int(item.arg or 0)
    if name in ("SWAP", "COPY"):
        after.stack[:0] = [Value()] * (arg - len(after.stack))
        if name == "COPY":
            after.stack.append(after.stack[-arg])
        else:
            after.stack[-1], after.stack[-arg] = after.stack[-arg], after.stack[-1]
    elif variables := uses(item):
        for way, variable in variables:
            if way == "STORE":
                after.ages[variable] = after.pop().age
            else:
                age = after.ages.get(variable, OLD if variable in assigned else _OUTER)
                after.stack.append(Value(age, variable))
    elif name in _FILLS:
        value = after.pop()
        if arg <= len(after.stack):
            after.stack[-arg] = _newest([after.stack[-arg], value])
    else:
        effect = dis.stack_effect(item.opcode, item.arg, jump=jumps)
        _apply(after, name, effect, arg)
    return after


def _apply(turn: Turn, name: str, effect: int, arg: int) -> None:
    """Do what another instruction does with the stack, by its effect on the stack's height."""
    if name == "SEND":  # what an iterator or an awaited object gives is of its age
        turn.pop()
        value = _newest(turn.stack[-1:])
        if effect < 0:
            turn.pop()
        turn.stack.append(value)
    elif name == "YIELD_VALUE":
        turn.pop()
        turn.stack.append(Value())
    elif name in _NO_ITEM or (name.startswith("BUILD_") and arg == 0):
        turn.stack += [Value()] * effect
    elif name.startswith(_DROPS) or (name == "FOR_ITER" and effect < 0):
        _note_effect(turn, name, [turn.pop() for _ in range(-effect)])
    elif effect > 0:  # an item of an iterator, the parts of a value, a method and its object
        turn.stack += [_newest(turn.stack[-1:])] * effect
    elif effect < 0 or not name.startswith(_PLAIN):
        taken = [turn.pop() for _ in range(1 - effect)]
        turn.stack.append(_newest(reversed(taken)))


def _note_effect(turn: Turn, name: str, taken: list[Value]) -> None:
    """Count an object that was made in this turn as new once the item was put into it."""
    if name in ("STORE_SUBSCR", "STORE_ATTR") and len(taken) > 1:
        # The uppermost are the place, for an attribute the object alone, and then the value.
        holder, value = (taken[1], taken[2]) if name == "STORE_SUBSCR" else (taken[0], taken[1])
    elif name == "POP_TOP" and taken:
        holder = value = taken[0]
    else:
        return
    if value.age == NEW and turn.ages.get(holder.name, OLD) in (_NOTHING, NEW):
        turn.ages[holder.name] = NEW


def _newest(values: Iterable[Value]) -> Value:
    """Return the result of an operation on these."""
    values = list(values)
    name = next((value.name for value in values if value.name), "")
    ages = {value.age for value in values}
    # What is read of an object from before this turn may have been put there by an earlier one.
    age = NEW if NEW in ages else OLD if ages & {OLD, _OUTER} else _NOTHING
    return Value(age, name)
