"""The deadline of what runs now, and what must be given back when it ends."""

from __future__ import annotations

import contextvars
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, TypeVar, overload

    F = TypeVar("F", bound=Callable[..., Any])

_REMAINING = "get_remaining_time_in_millis"
_COROUTINE = 0x80  # inspect.CO_COROUTINE, without the import
WAIT = 60.0  # seconds that a wait lasts at the most where no deadline is known
_LONG = 3600.0  # seconds that one for another's long work lasts there
MARGIN = 0.25  # seconds before the deadline at which a wait that must tell of itself ends

_here: contextvars.ContextVar[Invocation | None] = contextvars.ContextVar(
    "efsstate_deadline", default=None
)
_running: list[Invocation] = []  # for threads, which start with an empty context
reserved: contextvars.ContextVar[float] = contextvars.ContextVar(
    "efsstate_reserved", default=0.0
)  # seconds


class Invocation:
    """One run of a handler: `deadline` (monotonic seconds, None where the context has none), and what it still holds."""

    def __init__(self, context: object) -> None:
        self.context = context
        self.deadline: float | None = None
        self._held: dict[int, Callable[[], None]] = {}
        self._token: contextvars.Token[Invocation | None] | None = None

    def __enter__(self) -> Invocation:  # noqa: PYI034 - not made to be subclassed
        remaining = getattr(self.context, _REMAINING, None)
        self.deadline = None if remaining is None else time.monotonic() + remaining() / 1000
        if remaining is None and self.context is not None:
            # A handler that is tried with a stand-in goes on; one whose arguments were swapped must not do so unseen.
            from efsstate import events

            events.log(
                "warning",
                "a handler runs without a deadline: its context, an object of type %s, has no %s(): call it as"
                " handler(event, context), or with None to try it",
                type(self.context).__name__,
                _REMAINING,
                once="context",
            )
        self._token = _here.set(self)
        reserved.set(0.0)  # a signal may have ended what would have given it back
        _running.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self in _running:
            _running.remove(self)
        if self._token is not None:
            _here.reset(self._token)
            self._token = None
        # A frozen environment renews no lease: nothing may stay claimed past the end of an invocation.
        for release in list(self._held.values()):
            try:
                release()
            except Exception as problem:
                from efsstate import events

                events.log(
                    "warning", "could not give back what the invocation still held: %r", problem
                )
        self._held.clear()

    def hold(self, owner: object, release: Callable[[], None]) -> None:
        """Have `release` called when the invocation ends, unless `owner` is dropped before."""
        self._held[id(owner)] = release

    def drop(self, owner: object) -> None:
        """`owner` gave back what it held."""
        self._held.pop(id(owner), None)


def current() -> Invocation | None:
    """The invocation that runs now, here or, from a thread of one's own, in this process."""
    found = _here.get()
    if found is None and _running:
        # Several at once are several handlers in threads: the earliest deadline is the one that harms nobody.
        found = min(
            _running, key=lambda one: one.deadline if one.deadline is not None else float("inf")
        )
    return found


def remaining() -> float | None:
    """Seconds until the deadline (never below 0), less what is `reserved` for later; None where none is known."""
    found = current()
    if found is None or found.deadline is None:
        return None
    return max(0.0, found.deadline - reserved.get() - time.monotonic())


def until(wait: float | None, *, margin: float = 0.0) -> float:
    """The monotonic time at which a wait must end: after `wait` seconds, or `margin` before the deadline, or 60 s."""
    left = remaining()
    limit = WAIT if left is None else max(0.0, left - margin)
    return time.monotonic() + (
        limit if wait is None else wait if left is None else min(wait, limit)
    )


def until_done() -> float:
    """The same for what another does and takes long, as a copy of gigabytes: shortly before the deadline, or after an hour."""
    return until(_LONG, margin=MARGIN)


if TYPE_CHECKING:

    @overload
    def invocation(target: F) -> F: ...  # type: ignore[overload-overlap]
    @overload
    def invocation(target: object) -> Invocation: ...


def invocation(target: Any) -> Any:
    """Give everything below it the deadline: it decorates a handler, or stands in a `with` around a context.

    `target` is the handler, `def` or `async def`, called as `handler(event, context)`; or the Lambda context object
    (anything with `get_remaining_time_in_millis()`), or None for no deadline. When it ends, what is still claimed is
    given back. `TypeError` for anything else. A handler that is called with another context runs without a deadline,
    with one warning.
    """
    if target is None or hasattr(target, _REMAINING):
        return Invocation(target)
    if not callable(target):
        demand_context(target, "invocation")
    code = getattr(target, "__code__", None)
    if code is not None and code.co_flags & _COROUTINE:

        async def run_async(event: Any, context: Any = None, *more: Any, **named: Any) -> Any:
            with Invocation(context):
                return await target(event, context, *more, **named)

        return _named_like(run_async, target)

    def run(event: Any, context: Any = None, *more: Any, **named: Any) -> Any:
        with Invocation(context):
            return target(event, context, *more, **named)

    return _named_like(run, target)


def demand_context(given: object, what: str) -> None:
    """`TypeError` for what is not a Lambda context: an event in its place would be taken for "no deadline"."""
    if not hasattr(given, _REMAINING):
        raise TypeError(
            f"{what}: the Lambda context, the second argument of a handler, is needed (it has {_REMAINING}()), not an"
            f" object of type {type(given).__name__}; pass None where there is no deadline"
        )


def _named_like(wrapper: Any, wrapped: Any) -> Any:
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        try:
            setattr(wrapper, attribute, getattr(wrapped, attribute))
        except AttributeError:
            pass
    wrapper.__wrapped__ = wrapped
    return wrapper
