"""A failed load, remembered: its error for later callers, and when to try again."""

from __future__ import annotations

import time

from efsstate import errors
from efsstate.errors import DeadlineExceeded, EfsStateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RETRY, _LONGEST_RETRY = 30.0, 900.0  # seconds until a failed load is tried again, doubled each time


class LoadFailure:
    """A load of the version `identity` that failed with `error`; not tried again before `until`.

    `identity` is None if the version could not even be resolved.
    """

    __slots__ = ("_error", "_trace", "identity", "times", "until")

    def __init__(
        self, error: BaseException, identity: str | None, previous: LoadFailure | None
    ) -> None:
        import traceback

        # A copy, with its traceback as text: a traceback keeps the frames of all callers alive, and
        # with them the first caller's request.
        self._error, self.identity = copy_error(error), identity
        try:
            trace = "".join(traceback.format_exception(error)).rstrip()
        except Exception:
            trace = describe(error)
        self._trace = f"As it was when it was tried:\n{trace}"
        is_again = previous is not None and previous.identity == identity
        self.times: int = previous.times + 1 if previous is not None and is_again else 0
        self.until = time.monotonic() + min(_LONGEST_RETRY, RETRY * 2**self.times)

    def blocks(self, identity: str, now: float) -> bool:
        """Return True if the version `identity` failed, and is not to be tried yet."""
        return self.identity == identity and now < self.until

    def error(self) -> BaseException:
        """Return the error for one more caller: a copy, so that none gets another's traceback."""
        error = copy_error(self._error)
        error.__notes__ = [*getattr(error, "__notes__", ()), self._trace]
        return error


def copy_error(error: BaseException) -> BaseException:
    """Return a copy of the error without its traceback, cause and context.

    Only built-in exceptions and our own are rebuilt. A copy of any other class would run that
    class's code a second time, so it becomes an `EfsStateError` with its type and text.
    """
    if type(error).__module__ not in ("builtins", errors.__name__):
        return EfsStateError(f"{type(error).__name__}: {_text(error)}")
    reduced: Any = error.__reduce__()
    kind, arguments = reduced[:2]
    if isinstance(error, BaseExceptionGroup):
        arguments = (error.message, [copy_error(member) for member in error.exceptions])
    copy: BaseException = kind(*arguments)
    copy.__dict__.update(error.__dict__)
    for name in ("name", "path"):  # of NameError, AttributeError and ImportError: no arguments
        if (value := getattr(error, name, None)) is not None:
            setattr(copy, name, value)
    return copy


def describe(error: BaseException) -> str:
    """Return the error's `repr`, or its type if that fails."""
    try:
        return repr(error)
    except Exception:
        return type(error).__name__


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "it has no text: its __str__ fails"


def is_failure(error: BaseException) -> bool:
    """Return True if the error says that the version does not load.

    Any other `BaseException` says that the program is to end: Ctrl-C, a timeout's alarm. Rust's
    libraries raise their panics like that (pyo3's PanicException), and these are failures.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def is_late(error: BaseException) -> bool:
    """Return True if the deadline cut the load off."""
    return isinstance(error, DeadlineExceeded)


def free_frames(error: BaseException) -> None:
    """Clear the frames of the error and of its causes: they hold buffers as big as the model."""
    import traceback

    ahead, seen = [error], set()
    while ahead:
        current = ahead.pop()
        if id(current) in seen:  # an error may be its own cause
            continue
        seen.add(id(current))
        traceback.clear_frames(current.__traceback__)
        ahead += [e for e in (current.__cause__, current.__context__) if e is not None]
        if isinstance(current, BaseExceptionGroup):
            ahead += current.exceptions
