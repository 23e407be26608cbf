"""Call listeners with each event, a small plain record; and write the log."""

from __future__ import annotations

from efsstate import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    Kind = Literal["cache", "checkpoint", "model", "sweep"]
    Event = dict[str, Any]
    Listener = Callable[[Event], object]

listeners: tuple[Listener, ...] = ()  # callers make a record only if there is a listener
_logged: set[str] = set()
process.at_reset(_logged.clear)


def on_event(function: Listener) -> Callable[[], None]:
    """Call `function` with each event from now on; return a function that ends that.

    An event is a dict of plain values. It has `kind` ("cache", "checkpoint", "model", "sweep"),
    `event` ("hit", "miss", "save", …) and `name` (of the cache, checkpoint or model; of the root
    for a sweep); most have `seconds` and `bytes`. docs/observability.md lists them all. The
    function runs in the thread of the call that the event is about, so keep it short. Its errors
    are logged and go no further. Raise TypeError if `function` is not callable.
    """
    global listeners
    if not callable(function):
        raise TypeError(f"on_event: a function is needed, not {function!r}")
    listeners = (*listeners, function)

    def end() -> None:
        global listeners
        listeners = tuple(kept for kept in listeners if kept is not function)

    return end


def emit(kind: Kind, event: str, name: str, **values: object) -> None:
    """Call the listeners, if there are any, with one event."""
    for listener in listeners:
        try:
            listener({"kind": kind, "event": event, "name": name, **values})
        except Exception as error:
            log("warning", "an on_event function raised %r", error, once=f"listener {listener!r}")


def log(
    level: str, message: str, *values: object, once: str | None = None, **extra: object
) -> None:
    """Log under `efsstate`, with `extra` as the record's `efsstate` attribute.

    A message with the same `once` is logged a single time in a process.
    """
    if once is not None:
        if once in _logged:
            return
        _logged.add(once)
    try:
        import logging
    except (ImportError, OSError):
        return  # no descriptor is free, or the interpreter shuts down
    getattr(logging.getLogger("efsstate"), level)(message, *values, extra={"efsstate": extra})
