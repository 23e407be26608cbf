"""Find the code behind a callable, and whether it is async, without importing `inspect`.

A callable is a function, a method, a `functools.partial`, or an object with `__call__`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COROUTINE = 0x80  # a flag of code objects


def code_of(function: Any) -> Any:
    """Return the code that a call of `function` runs; None if it is not Python's."""
    functools = sys.modules.get("functools")  # without it there are no partials
    while functools is not None and isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__code__"):
        function = getattr(type(function), "__call__", None)  # noqa: B004 - the method is needed
    return getattr(function, "__code__", None)


def is_coroutine_function(function: Any) -> bool:
    """Return True if a call's result is awaited."""
    # Constraint: a function is marked as async by `inspect`, which is imported if one was.
    inspect = sys.modules.get("inspect")
    is_marked = inspect is not None and inspect.iscoroutinefunction(function)
    return bool(getattr(code_of(function), "co_flags", 0) & _COROUTINE) or is_marked
