"""What happens, told to whoever wants to know: one hook with small plain records, and the log."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

listeners: tuple[
    Callable[[dict[str, object]], None], ...
] = ()  # a record is made only where there is one
_said: set[str] = set()


def on_event(function: Callable[[dict[str, object]], None]) -> Callable[[], None]:
    """Have `function` called with each event, a dict of plain values; returns a function that ends it.

    Every record has `event` (`"hit"`, `"miss"`, `"put"`, `"wait"`, `"error"`, `"save"`, `"claim"`, `"load"`, …) and `name`
    (the namespace, checkpoint or model); most have `seconds` and `bytes`. It runs in the thread of the call that it
    tells of: keep it short. What it raises is logged and goes no further. `TypeError` for what is no function.
    """
    global listeners
    if not callable(function):
        raise TypeError(f"on_event: a function is needed, not {function!r}")
    listeners = (*listeners, function)

    def end() -> None:
        global listeners
        listeners = tuple(kept for kept in listeners if kept is not function)

    return end


def emit(event: str, name: str, **values: object) -> None:
    """Tell the listeners, if there are any."""
    for listener in listeners:
        try:
            listener({"event": event, "name": name, **values})
        except Exception as error:
            log("warning", "an on_event function raised %r", error, once=f"listener {listener!r}")


def log(
    level: str, message: str, *values: object, once: str | None = None, **extra: object
) -> None:
    """Log under `efsstate`; `extra` goes into the record's `efsstate` attribute. `once`: not again in this process."""
    if once is not None:
        if once in _said:
            return
        _said.add(once)
    import logging

    getattr(logging.getLogger("efsstate"), level)(message, *values, extra={"efsstate": extra})
