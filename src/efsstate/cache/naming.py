"""Name a decorated function's cache: its module and qualified name, within one Lambda function."""

from __future__ import annotations

import os
import sys
from functools import partial

from efsstate import events
from efsstate.callables import code_of
from efsstate.mount import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MAX_WRAPPED = 100  # functions inside each other: some objects have a `__wrapped__` without end
_MAINS = ("__main__", "__mp_main__")
_TYPED = ("<stdin>", "<python-input", "<ipython-input")  # how the code's file is called
_session = ""  # the name of this process's session, once there is a need for it
_decorated: dict[tuple[str, str], list[Any]] = {}  # the codes of the functions of a name, version
_MOST_DECORATED = 10_000  # names: a function that captures other values each time has many


def namespace(function: Any, version: object, mark: Callable[[str], str]) -> str:
    """Return the name of `function`'s cache, with the `mark` of the variables that it captures.

    Raises `TypeError` if the function has no name of its own.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if isinstance(function, partial) or not isinstance(module, str) or not isinstance(name, str):
        raise TypeError(
            f"cached: {function!r} has no __qualname__ to derive a cache name from; pass name="
        )
    # MUT: a-class-of-a-function-is-refused
    if isinstance(function, type) and "<locals>" in name:
        raise TypeError(
            f"cached: {function!r} is a class that a function makes, and what it captures can't be"
            " part of a key; give each such class a name= of its own"
        )
    namespace = f"{module_of(function)}.{name}"
    program = environment.function_name()
    if program:
        namespace = f"{program}/{namespace}"
    namespace += mark(namespace)
    _warn_of_twins(function, namespace, version)
    return namespace


def module_of(function: Any) -> str:
    """Return the name of the module that `function` is from; of a program's main, see `main_name`.

    Code that was typed in has no name that another process knows: it is this session's.
    """
    module = str(function.__module__)
    if module not in _MAINS:
        return module
    filename = getattr(code_of(function), "co_filename", "")
    return _session_name() if filename.startswith(_TYPED) else main_name(module)


def main_name(module: str = "__main__") -> str:
    """Return the name of the program: its module's, or the path of its file.

    On Lambda it is the file's name alone, since the function's name tells programs apart. A child
    that `multiprocessing` spawned has the program as `__mp_main__`: that is named as in the parent.
    """
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", "builtins"):
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    if environment.function_name():
        return os.path.basename(file or "__main__").removesuffix(".py")
    # MUT: a-script-is-named-by-its-path
    return os.path.abspath(file).removesuffix(".py") if file else _session_name()


def _session_name() -> str:
    """Return a name that no other session has; a forked child is of its parent's session."""
    global _session
    if not _session:
        _session = f"__main__@{os.urandom(6).hex()}"
    return _session


def _warn_of_twins(function: Any, namespace: str, version: object) -> None:
    key, codes = (namespace, repr(version)), _codes(function)
    # MUT: decorated-names-do-not-add-up
    if len(_decorated) < _MOST_DECORATED:
        _decorated.setdefault(key, codes)
    if _decorated.get(key, codes) != codes:
        events.log(
            "warning",
            "cached: two functions are called %s, and their code differs: they share results; give"
            " one of them name= or version=",
            namespace,
            once=f"two {namespace}",
            kind="cache",
            event="same_name",
            name=namespace,
        )


def _codes(function: Any) -> list[Any]:
    """Return the codes of `function` and of all functions that it wraps.

    A loop, or a call of the function around it, makes equal code again.
    """
    codes: list[Any] = []
    while function is not None and len(codes) < _MAX_WRAPPED:
        code = code_of(function)
        codes.append(type(function) if code is None else (code.co_filename, code))
        function = getattr(function, "__wrapped__", None)
    return codes


def source(function: Any) -> tuple[str, str]:
    """Return the text of `function`, as a version."""
    import inspect

    try:
        return "source", inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"version='source': {function!r} has no source to be read ({error}); pass a version"
        ) from None
