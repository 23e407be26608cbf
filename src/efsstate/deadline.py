"""Know the deadline of the running invocation, and release its claims and locks when it ends."""

from __future__ import annotations

import contextvars
import time
from _weakref import ref  # built in: the public module would be one more import

from efsstate.units import seconds as to_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Protocol, TypeVar, overload

    from efsstate.units import Duration

    F = TypeVar("F", bound=Callable[..., Any])

    class LambdaContext(Protocol):
        """The second argument of a handler."""

        def get_remaining_time_in_millis(self) -> float:
            """Return the milliseconds until the function is stopped."""


_REMAINING = "get_remaining_time_in_millis"
WAIT = 60.0  # the most seconds that a wait lasts if no deadline is known
_LONG = 3600.0  # and a wait for another process's long work
MARGIN = 0.25  # seconds before the deadline at which a wait that must report ends

# The references are weak: a signal handler may raise as an invocation is entered or left, and its
# deadline, which soon is over, would count for ever. So it goes with its frame, as its claims do.
_here: contextvars.ContextVar[ref[Invocation] | None] = contextvars.ContextVar(
    "efsstate_deadline", default=None
)
_at_end: list[Callable[[], None]] = []
running: list[ref[Invocation]] = []  # for threads, which start with an empty context
reserved: contextvars.ContextVar[float] = contextvars.ContextVar(
    "efsstate_reserved", default=0.0
)  # seconds


class Invocation:
    """One run of a handler.

    `deadline` is in seconds of `time.monotonic`, None if none is known; `context` is the Lambda
    context, if there is one.
    """

    def __init__(self, context: object = None, *, limit: float | None = None) -> None:
        self.context = context
        self.deadline: float | None = None
        self._limit = limit
        self._releases: dict[int, Callable[[], None]] = {}
        self._token: contextvars.Token[ref[Invocation] | None] | None = None

    def __enter__(self) -> Invocation:  # noqa: PYI034 - not made to be subclassed
        remaining = getattr(self.context, _REMAINING, None)
        if remaining is not None:
            self.deadline = time.monotonic() + remaining() / 1000
        elif self._limit is not None:
            self.deadline = time.monotonic() + self._limit
        elif self.context is not None:
            self._warn_of_stand_in()
        # MUT: an-interrupted-invocation-ends
        own = ref(self)
        self._token = _here.set(own)
        reserved.set(0.0)  # a signal may have ended the code that would have given it back
        running.append(own)
        return self

    def _warn_of_stand_in(self) -> None:
        """Warn of a context without a deadline: its arguments may have been swapped."""
        from efsstate import events

        events.log(
            "warning",
            "a handler runs without a deadline: its context, an object of type %s, has no %s();"
            " call it as handler(event, context), or with None to try it",
            type(self.context).__name__,
            _REMAINING,
            kind="invocation",
            event="strange_context",
            context=type(self.context).__name__,
            once="context",
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for own in [known for known in running if known() in (None, self)]:
            running.remove(own)
        token, self._token = self._token, None
        if token is not None:
            try:
                _here.reset(token)
            except ValueError:  # entered in another context, as a framework's dependencies are
                pass
        # A frozen environment renews no lease: nothing may stay claimed after an invocation.
        for release in list(self._releases.values()):
            try:
                release()
            except Exception as problem:
                from efsstate import events

                text = "could not give back what the invocation still held: %r"
                events.log(
                    "warning",
                    text,
                    problem,
                    kind="invocation",
                    event="not_released",
                    error=type(problem).__name__,
                )
        self._releases.clear()
        around = _here.get()
        if around is None or around() is None:  # else it ends within another one
            for function in _at_end:
                function()

    def __repr__(self) -> str:
        if self._token is None:
            return "<Invocation, not running>"
        if self.deadline is None:
            return "<Invocation without a deadline>"
        return f"<Invocation, {self.deadline - time.monotonic():.1f} s left>"

    def end_soon(self, seconds: Duration = 0) -> None:
        """Move the deadline to `seconds` from now, unless it comes sooner.

        A SIGTERM handler calls it, so that loops end after their current item and save.
        """
        deadline = time.monotonic() + to_seconds(seconds, "seconds")
        if self.deadline is None or deadline < self.deadline:
            self.deadline = deadline

    def hold(self, owner: object, release: Callable[[], None]) -> None:
        """Call `release` when the invocation ends, unless `owner` is dropped before."""
        self._releases[id(owner)] = release

    def drop(self, owner: object) -> None:
        """Forget `owner`, which has released its claims or locks itself."""
        self._releases.pop(id(owner), None)


def at_end(function: Callable[[], None]) -> Callable[[], None]:
    """Call `function`, which must not raise, at the end of each invocation; return how to stop."""
    _at_end.append(function)

    def stop() -> None:
        if function in _at_end:
            _at_end.remove(function)

    return stop


def current() -> Invocation | None:
    """Return the running invocation: of this context, else of this process, else None."""
    own = _here.get()
    invocation = None if own is None else own()
    if invocation is None and running:
        # Several are several handlers in threads: the earliest deadline harms none of them.
        alive = [known for known in [reference() for reference in running] if known is not None]
        invocation = min(alive, key=_deadline_of, default=None)
    return invocation


def _deadline_of(invocation: Invocation) -> float:
    return float("inf") if invocation.deadline is None else invocation.deadline


def remaining() -> float | None:
    """Return the seconds until the deadline, less those `reserved`; None if none is known.

    It is never below 0.
    """
    invocation = current()
    if invocation is None or invocation.deadline is None:
        return None
    return max(0.0, invocation.deadline - reserved.get() - time.monotonic())


def until(wait: float | None, *, margin: float = 0.0) -> float:
    """Return the monotonic time at which a wait must end.

    That is after `wait` seconds or `margin` before the deadline, whichever comes first; without
    either, after 60 s.
    """
    seconds = remaining()
    limit = WAIT if seconds is None else max(0.0, seconds - margin)
    if wait is not None:
        limit = wait if seconds is None else min(wait, limit)
    return time.monotonic() + limit


def until_done() -> float:
    """Return the time at which a wait for another's long work must end.

    That is shortly before the deadline, or after an hour: a copy of gigabytes takes long.
    """
    return until(_LONG, margin=MARGIN)


def warn_if_unknown(what: str) -> None:
    """Log one warning if `what` runs on Lambda without a deadline."""
    invocation = current()
    if invocation is None or (invocation.deadline is None and invocation.context is None):
        from efsstate import events

        events.log(
            "warning",
            "%s runs without a deadline, so a timeout may end it in the middle; pass context=, or"
            " decorate the handler with @invocation",
            what,
            kind="invocation",
            event="no_deadline",
            doing=what,
            once="no deadline",
        )


if TYPE_CHECKING:

    @overload
    def invocation(target: F) -> F: ...
    @overload
    def invocation(
        target: LambdaContext | None = None, *, seconds: Duration | None = None
    ) -> Invocation: ...


def invocation(target: Any = None, *, seconds: Duration | None = None) -> Any:
    """Let everything below know the deadline: decorate a handler, or enter it as a context.

    target: the handler, `def` or `async def`, called as `handler(event, context)`; or the Lambda
        context (any object with `get_remaining_time_in_millis()`); or None for no deadline.
    seconds: outside Lambda, how long the `with` block may take.

    When it ends, claims that are still held are given back. Raises `TypeError` for another target.
    A handler that is called with another context runs without a deadline, with one warning.
    """
    if seconds is not None:
        if target is not None:
            raise TypeError("invocation: pass a context or seconds=, not both")
        return Invocation(limit=to_seconds(seconds, "seconds"))
    if target is None or hasattr(target, _REMAINING):
        return Invocation(target)
    if not callable(target):
        demand_context(target, "invocation")
    from efsstate.callables import is_coroutine_function

    if is_coroutine_function(target):

        async def run_async(event: Any, context: Any = None, *more: Any, **named: Any) -> Any:
            with Invocation(context):
                return await target(event, context, *more, **named)

        return copy_names(run_async, target)

    def run(event: Any, context: Any = None, *more: Any, **named: Any) -> Any:
        with Invocation(context):
            return target(event, context, *more, **named)

    return copy_names(run, target)


def demand_context(value: object, what: str) -> None:
    """Raise `TypeError` unless `value` is a Lambda context.

    An event in its place would be taken for "no deadline".
    """
    if not hasattr(value, _REMAINING):
        raise TypeError(
            f"{what}: the Lambda context, the second argument of a handler, is needed (it has"
            f" {_REMAINING}()), not an object of type {type(value).__name__}; pass None if there is"
            " no deadline"
        )


def copy_names(wrapper: Any, wrapped: Any) -> Any:
    """Give a wrapper the names of the function it wraps: `functools` would be one more import."""
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        try:
            setattr(wrapper, attribute, getattr(wrapped, attribute))
        except AttributeError:
            pass
    wrapper.__wrapped__ = wrapped
    return wrapper
