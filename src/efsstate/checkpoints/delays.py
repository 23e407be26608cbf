"""Find generators that give each item some turns late, as a delay line does.

Each value on the stack and in a variable has an age, which is followed through the bytecode of the
generator's loop. A `yield` of a value that is OLD may give an item of an earlier turn.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from dis import Instruction

# The ages of values:
NOTHING = 0  # a constant, a global variable, or an object made in this turn without the item
OUTER = 1  # a variable that the loop never assigns, such as an argument
OLD = 2  # a variable that an earlier turn assigned, or content of an object from before this turn
NEW = 3  # the item of this turn, or the result of an operation on it
TAKEN = 4  # the result of a method that takes a value out of an object that holds items

# If two branches give a variable two ages, the one that is further to the right here holds.
_WORSE = (NEW, NOTHING, OUTER, OLD, TAKEN)
# Methods that return a value that was put into the object before, whatever their arguments.
_TAKING = frozenset(("get", "pop", "popitem", "popleft", "get_nowait", "setdefault"))
_EXCHANGING = frozenset(("heappushpop", "heapreplace"))  # functions that do so with an argument
_NO_ITEM = ("LOAD_CONST", "LOAD_NAME", "LOAD_SMALL_INT", "LOAD_COMMON_CONSTANT",
            "LOAD_BUILD_CLASS", "PUSH_NULL", "PUSH_EXC_INFO")  # fmt: skip
# They take values off the stack and put none on it.
_DROPS = ("POP_", "STORE_", "DELETE_", "RETURN_", "RAISE_", "RERAISE", "END_", "JUMP_IF")
_FILLS = ("LIST_APPEND", "LIST_EXTEND", "SET_ADD", "SET_UPDATE", "MAP_ADD", "DICT_UPDATE",
          "DICT_MERGE")  # fmt: skip
# They leave the stack as it is.
_PLAIN = ("RESUME", "NOP", "JUMP", "CACHE", "EXTENDED_ARG", "KW_NAMES", "PRECALL", "NOT_TAKEN",
          "GET_ITER", "GET_YIELD", "GET_AWAITABLE", "MAKE_CELL", "COPY_FREE")  # fmt: skip

# A value on the stack: its age, and the variable through which it was read, or "".
Value = namedtuple("Value", ("age", "name"), defaults=(NOTHING, ""))  # noqa: PYI024 - lighter


class Turn:
    """The values before one instruction: those on the stack, and the ages of the variables.

    `ages` has the variables that were assigned in this turn of the loop.
    """

    def __init__(self, stack: Iterable[Value] = (), ages: dict[str, int] | None = None) -> None:
        self.stack = list(stack)
        self.ages = dict(ages or {})

    def pop(self) -> Value:
        """Take the uppermost value; what the stack held before the loop's body has no age."""
        return self.stack.pop() if self.stack else Value()

    def merged(self, other: Turn) -> Turn:
        """Return the values where two branches meet."""
        count = min(len(self.stack), len(other.stack))
        pairs = zip(self.stack[-count:], other.stack[-count:], strict=True) if count else ()
        stack = [max(pair, key=lambda value: _WORSE.index(value.age)) for pair in pairs]
        # A variable that only one branch assigned has the value of an earlier turn in the other.
        ages = {
            name: max(self.ages.get(name, OLD), other.ages.get(name, OLD), key=_WORSE.index)
            for name in self.ages | other.ages
        }
        return Turn(stack, ages)

    def equals(self, other: Turn) -> bool:
        """Return True if both have the same values."""
        return self.stack == other.stack and self.ages == other.ages


def uses(item: Instruction) -> list[tuple[str, str]]:
    """Return how an instruction uses variables: pairs of LOAD or STORE and a name."""
    ways = [way for way in item.opname.split("_") if way in ("LOAD", "STORE")]
    kinds = ("FAST", "DEREF", "CLOSURE", "GLOBAL")
    if not ways or not any(kind in item.opname for kind in kinds):
        return []
    names = item.argval if isinstance(item.argval, tuple) else (item.argval,)
    return list(zip(ways, names, strict=False))


class Flow:
    """The way of values through the instructions of a loop.

    `assigned` are the variables that the loop assigns. `filled` are the variables from before this
    turn into whose objects it puts items, as far as `after` has seen such an instruction, each with
    the variables that were the items' keys.
    """

    def __init__(self, assigned: set[str]) -> None:
        self._assigned = assigned
        self.filled: dict[str, set[str]] = {}

    def after(self, turn: Turn, item: Instruction, *, jumps: bool) -> Turn:
        """Return the values after an instruction; `jumps`: as it is when it jumps."""
        import dis

        after, name = Turn(turn.stack, turn.ages), item.opname
        arg = int(item.arg or 0)
        effect = dis.stack_effect(item.opcode, item.arg, jump=jumps)
        if name in ("SWAP", "COPY"):
            after.stack[:0] = [Value()] * (arg - len(after.stack))
            if name == "COPY":
                after.stack.append(after.stack[-arg])
            else:
                after.stack[-1], after.stack[-arg] = after.stack[-arg], after.stack[-1]
        elif name == "LOAD_GLOBAL":
            after.stack += [self._load(after, item.argval, NOTHING)] * effect
        elif variables := uses(item):
            for way, variable in variables:
                if way == "STORE":
                    after.ages[variable] = after.pop().age
                else:
                    after.stack.append(self._load(after, variable, OUTER))
        elif name in _FILLS:
            value = after.pop()
            if arg <= len(after.stack):
                after.stack[-arg] = _newest([after.stack[-arg], value])
        elif name in ("LOAD_ATTR", "LOAD_METHOD"):
            value = self._attribute(after.pop(), item.argval)
            after.stack += [value] * (1 + effect)
        else:
            self._apply(after, item, effect, arg)
        return after

    def _load(self, turn: Turn, name: str, otherwise: int) -> Value:
        if name in _EXCHANGING:
            return Value(TAKEN, name)
        age = OLD if name in self._assigned else OUTER if name in self.filled else otherwise
        return Value(turn.ages.get(name, age), name)

    def _attribute(self, value: Value, name: str) -> Value:
        is_taking = name in _TAKING and value.name in self.filled
        if is_taking or name in _EXCHANGING:
            return Value(TAKEN, value.name)
        return _newest([value])

    def _apply(self, turn: Turn, item: Instruction, effect: int, arg: int) -> None:
        """Change the stack as another instruction does; `effect` is the change of its height."""
        name = item.opname
        if name == "SEND":  # the result of an iterator, or of an awaitable, has its age
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
            self._note_filled(turn, name, [turn.pop() for _ in range(-effect)])
        elif effect > 0:  # an iterator and its item, or the parts of a value
            turn.stack += [_newest(turn.stack[-1:])] * effect
        elif effect < 0 or not name.startswith(_PLAIN):
            taken = [turn.pop() for _ in range(1 - effect)]
            turn.stack.append(self._result(item, taken[::-1]))

    def _result(self, item: Instruction, operands: list[Value]) -> Value:
        """Return the result of an operation that takes `operands` off the stack."""
        holder, *others = operands
        keys = {holder.name, *self.filled.get(holder.name, ())}
        is_of_this_turn = any(value.age == NEW and value.name in keys for value in others)
        is_subscript = item.opname == "BINARY_SUBSCR" or item.argrepr == "[]"
        if holder.age == TAKEN or (is_subscript and holder.name in self.filled):
            # Another key may be that of an earlier item.
            return Value(NEW if is_of_this_turn else TAKEN, holder.name)
        result = _newest(operands)
        is_part = item.opname.startswith(("CALL", "PRECALL")) or is_subscript
        return result if is_part else Value(result.age)

    def _note_filled(self, turn: Turn, name: str, taken: list[Value]) -> None:
        """Note the object into which an item is put.

        If it was made in this turn, it is NEW from here on; else it may hold earlier items, too.
        """
        key = ""
        if name == "STORE_SUBSCR" and len(taken) > 2:
            key, holder, value = taken[0].name, taken[1], taken[2]
        elif name == "STORE_ATTR" and len(taken) > 1:
            holder, value = taken
        elif name == "POP_TOP" and taken:  # a method was called for its effect
            holder = value = taken[0]
        else:
            return
        if value.age != NEW or not holder.name:
            return
        if turn.ages.get(holder.name) in (NOTHING, NEW):
            turn.ages[holder.name] = NEW
        else:
            self.filled.setdefault(holder.name, set()).update(filter(None, [key]))


def _newest(values: Iterable[Value]) -> Value:
    """Return the result of an operation on `values`."""
    values = list(values)
    name = next((value.name for value in values if value.name), "")
    ages = {value.age for value in values}
    if ages & {TAKEN, NEW}:
        return Value(max(ages), name)
    # The content of an object from before this turn may be an earlier item.
    return Value(OLD if ages & {OLD, OUTER} else NOTHING, name)
