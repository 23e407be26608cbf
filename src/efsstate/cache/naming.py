"""Name a decorated function's cache: its module and qualified name, within one Lambda function."""

from __future__ import annotations

import os
import sys
from functools import partial

from efsstate import events
from efsstate.cache.signature import code_of
from efsstate.mount import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_WRAPPED = 100  # functions inside each other: some objects have a `__wrapped__` without end
_SIMPLE = frozenset((bool, int, float, str, bytes))
_decorated: dict[tuple[str, str], list[Any]] = {}  # the codes of the functions of a name, version


def namespace(function: Any, version: object) -> str:
    """Return the name of `function`'s cache; raise `TypeError` if it has no name of its own."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if isinstance(function, partial) or not isinstance(module, str) or not isinstance(name, str):
        raise TypeError(
            f"cached: {function!r} has no __qualname__ to derive a cache name from; pass name="
        )
    namespace = f"{main_name() if module == '__main__' else module}.{name}"
    program = environment.function_name()
    if program:
        namespace = f"{program}/{namespace}"
    _warn_of_twins(function, namespace, version)
    return namespace


def _warn_of_twins(function: Any, namespace: str, version: object) -> None:
    codes = _codes(function)
    if _decorated.setdefault((namespace, repr(version)), codes) != codes:
        events.log(
            "warning",
            "cached: two functions are called %s, and their code or what it captures differs: they"
            " share results; give one of them name= or version=, or pass what it captures as a"
            " parameter",
            namespace,
            once=f"two {namespace}",
            cache=namespace,
        )


def main_name() -> str:
    """Return the name of the program `__main__`: its module's or its file's."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", "builtins"):
        return str(spec.name).removesuffix(".__main__")
    return os.path.basename(getattr(main, "__file__", None) or "__main__").removesuffix(".py")


def _codes(function: Any) -> list[Any]:
    """Return what tells functions of one name apart: their codes and the values these capture.

    It goes through all functions that `function` wraps. A loop, or a call of the function around
    it, makes equal code again.
    """
    codes: list[Any] = []
    while function is not None and len(codes) < _MAX_WRAPPED:
        code = code_of(function)
        captured = _captured_values(function)
        codes.append(type(function) if code is None else (code.co_filename, code, *captured))
        function = getattr(function, "__wrapped__", None)
    return codes


def _captured_values(function: Any) -> list[Any]:
    """Return the simple values of a closure, each with its type."""
    captured = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            value = cell.cell_contents
        except ValueError:  # it is not set yet
            continue
        if type(value) in _SIMPLE:
            captured.append((type(value), value))
    return captured


def source(function: Any) -> tuple[str, str]:
    """Return the text of `function`, as a version."""
    import inspect

    try:
        return "source", inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"version='source': {function!r} has no source to be read ({error}); pass a version"
        ) from None
