"""Tell from a wrapper's code whether it hands on all of its arguments unchanged.

A wrapper made with `functools.wraps` has the signature of the function inside, but its code may
add an argument, fill in other defaults, or look at the arguments. This module reads the bytecode:
the arguments must be used for calls of the form `function(first, *args, **kwargs)` and for nothing
else. It is imported for wrappers alone, since `dis` costs a cold start.
"""

from __future__ import annotations

import dis

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Instructions = list[tuple[str, Any]]

# Functions that see the arguments without naming them.
_SPIES = frozenset(("locals", "vars", "eval", "exec", "_getframe", "currentframe", "stack"))
_NO_EFFECT = frozenset(("RESUME", "NOP", "CACHE", "EXTENDED_ARG", "COPY_FREE_VARS", "RETURN_VALUE"))
_VARIABLES = ("FAST", "DEREF", "CLOSURE", "CELL")  # in the names of operations on variables


def hands_on(wrapper: Any) -> bool:
    """Return True if every argument of `wrapper` goes to the function it wraps, as it came."""
    code = wrapper.__code__
    if not _SPIES.isdisjoint(code.co_names):
        return False
    body = list(_instructions(code))
    arguments = code.co_varnames[: code.co_argcount + 2]
    names = set(arguments)
    inner = _name_of_wrapped(wrapper)
    if inner is not None:
        body = _without(body, _call_of(inner, arguments))
        names.add(inner)
    return not any(_touches(operation, name, names) for operation, name in body)


def _name_of_wrapped(wrapper: Any) -> str | None:
    cells = zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            if cell.cell_contents is wrapper.__wrapped__:
                return str(name)
        except ValueError:  # it is not set yet
            continue
    return None


def _call_of(inner: str, arguments: tuple[str, ...]) -> Instructions:
    """Return the instructions of a call that hands on `arguments`, in this Python's bytecode."""
    *first, rest, named = arguments
    parameters = ", ".join([*first, f"*{rest}", f"**{named}"])
    text = (
        f"def make({inner}):\n"
        f"    def wrapper({parameters}):\n"
        f"        return {inner}({parameters})\n"
        "    return wrapper\n"
    )
    space: dict[str, Any] = {}
    exec(compile(text, "<wrapper>", "exec"), space)  # noqa: S102 - the names are those of variables
    return list(_instructions(space["make"](None).__code__))


def _instructions(code: Any) -> Iterator[tuple[str, Any]]:
    """Yield (operation, argument), with the variants of one operation under one name."""
    for instruction in dis.get_instructions(code):
        operation, argument = instruction.opname, instruction.argval
        if operation in _NO_EFFECT:
            continue
        if isinstance(argument, tuple) and "FAST" in operation:  # two operations in one
            kinds = [word for word in operation.split("_") if word in ("LOAD", "STORE")]
            yield from ((f"{kind}_FAST", name) for kind, name in zip(kinds, argument, strict=True))
        elif operation.startswith("LOAD_FAST"):  # some check whether the variable is set
            yield "LOAD_FAST", argument
        else:
            yield operation, argument


def _without(body: Instructions, call: Instructions) -> Instructions:
    rest: Instructions = []
    position = 0
    while position < len(body):
        if body[position : position + len(call)] == call:
            position += len(call)
        else:
            rest.append(body[position])
            position += 1
    return rest


def _touches(operation: str, name: object, names: set[str]) -> bool:
    return isinstance(name, str) and name in names and any(k in operation for k in _VARIABLES)
