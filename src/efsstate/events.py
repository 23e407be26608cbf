"""Call listeners with each event, a small plain record; and write the log."""

from __future__ import annotations

from _weakref import ref

from efsstate import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    Kind = Literal["cache", "checkpoint", "model", "dataset", "record", "sweep", "durable"]
    LogKind = Kind | Literal["invocation", "metrics", "root", "events"]
    Event = dict[str, Any]
    Listener = Callable[[Event], object]
    Tracer = Callable[[str], Callable[[], object]]

# Callers make a record only if there is a listener. Collectors of metrics are not called for a hit
# in memory: they would cost more than it does, and read the counters instead.
listeners: tuple[Listener, ...] = ()
hit_listeners: tuple[Listener, ...] = ()
tracers: tuple[Tracer, ...] = ()  # called around each computation of a cache
_logged: set[str] = set()
_counted: dict[int, tuple[ref[Any], str, Any]] = {}  # of living caches: see `count_for`
_ended: list[int] = []  # the keys in `_counted` of caches that are gone
_retired: dict[str, dict[str, int]] = {}  # sums of the caches that are gone, by name
OTHERS = "(others)"  # the name under which `totals` counts further caches that are gone
_MOST_NAMES = 1000  # names of caches that are gone, before others are counted together
_lock = process.lock()
process.at_reset(_logged.clear)


def on_event(function: Listener) -> Callable[[], None]:
    """Call `function` with each event from now on; return a function that ends that.

    An event is a dict of plain values. It has `kind` ("cache", "checkpoint", "model", "dataset",
    "record", "sweep"), `event` ("hit", "miss", "save", …) and `name` (of the cache, checkpoint,
    model, dataset or records; of the root for a sweep); most have `seconds` and `bytes`.
    docs/observability.md lists them all. The function runs in the thread of the call that the event
    is about, so keep it short. Its errors are logged and go no further. Raise TypeError if
    `function` is not callable.
    """
    if not callable(function):
        raise TypeError(f"on_event: a function is needed, not {function!r}")
    return _listen(function, to_hits=True)


def collect(function: Listener) -> Callable[[], None]:
    """Call `function` as `on_event` does, but not for hits in memory, which `totals` counts."""
    return _listen(function, to_hits=False)


def _listen(function: Listener, *, to_hits: bool) -> Callable[[], None]:
    global listeners, hit_listeners
    with _lock:
        listeners = (*listeners, function)
        if to_hits:
            hit_listeners = (*hit_listeners, function)

    def end() -> None:
        global listeners, hit_listeners
        with _lock:
            listeners = tuple(kept for kept in listeners if kept is not function)
            hit_listeners = tuple(kept for kept in hit_listeners if kept is not function)

    return end


def count_for(owner: object, name: str, counts: Any) -> None:
    """Have `totals` include `counts`, an object of integers in slots, as long as `owner` lives.

    After that its last values stay in the sum.
    """
    key = id(counts)

    def retire(_dead: ref[Any]) -> None:
        # The garbage collector may call this at any line, of `totals` too: it changes no sum.
        # MUT: a-collected-cache-counts-once
        _ended.append(key)

    with _lock:
        _add_ended()
        _counted[key] = ref(owner, retire), name, counts


def _add_ended() -> None:
    """Add the counts of the caches that are gone to `_retired`; call it with `_lock`."""
    while _ended:
        _, name, counts = _counted.pop(_ended.pop())
        _add(_sums_of(name), counts)


def _sums_of(name: str) -> dict[str, int]:
    """Return the sums of the caches called `name` that are gone."""
    # MUT: names-of-caches-do-not-add-up
    if len(_retired) >= _MOST_NAMES and name not in _retired:
        name = OTHERS
    return _retired.setdefault(name, {})


def restart(counts: Any, fields: tuple[str, ...]) -> None:
    """Set these fields of `counts` to 0, without a loss to `totals`."""
    with _lock:
        known = _counted.get(id(counts))
        sums = {} if known is None else _sums_of(known[1])
        for field in fields:
            sums[field] = sums.get(field, 0) + getattr(counts, field)
            setattr(counts, field, 0)


def totals() -> dict[str, dict[str, int]]:
    """Return the sums of the counters (memory, mount, computed, …) by the name of the cache.

    When a cache is gone, its counts may move from its own name to the name `OTHERS`.
    """
    with _lock:
        _add_ended()
        sums = {name: dict(fields) for name, fields in _retired.copy().items()}
        for _, name, counts in list(_counted.values()):
            _add(sums.setdefault(name, {}), counts)
    return sums


def _add(fields: dict[str, int], counts: Any) -> None:
    for field in counts.__slots__:
        fields[field] = fields.get(field, 0) + getattr(counts, field)


def trace(begin: Tracer) -> Callable[[], None]:
    """Call `begin` with a cache's name before it computes, and its result after; return how to end.

    Both run in the context of the computation. An error of `begin` is logged.
    """
    global tracers
    with _lock:
        tracers = (*tracers, begin)

    def end() -> None:
        global tracers
        with _lock:
            tracers = tuple(kept for kept in tracers if kept is not begin)

    return end


def begin_span(name: str) -> Callable[[], None]:
    """Have the tracers begin a span around a computation; return how to end it."""
    ends: list[Callable[[], object]] = []
    for begin in tracers:
        try:
            ends.append(begin(name))
        except Exception as error:
            _report(begin, error)

    def end() -> None:
        for function in reversed(ends):
            try:
                function()
            except Exception as error:
                _report(function, error)

    return end


def emit(kind: Kind, event: str, name: str, **values: object) -> None:
    """Call the listeners, if there are any, with one event."""
    in_memory = event == "hit" and values.get("level") == "memory"
    for listener in hit_listeners if in_memory else listeners:
        try:
            listener({"kind": kind, "event": event, "name": name, **values})
        except Exception as error:
            _report(listener, error)


def emit_memory_hit(name: str, size: int) -> None:
    """Call the listeners with a hit in memory that took no time that could be measured."""
    for listener in hit_listeners:
        try:
            listener({
                "kind": "cache", "event": "hit", "name": name, "seconds": 0.0, "bytes": size,
                "level": "memory",
            })  # fmt: skip
        except Exception as error:
            _report(listener, error)


def _report(function: object, error: Exception) -> None:
    log(
        "warning",
        "a listener to events raised %r: %r",
        error,
        function,
        kind="events",
        event="listener_failed",
        error=type(error).__name__,
        once=f"listener {function!r}",
    )


def log(
    level: str,
    message: str,
    *values: object,
    kind: LogKind,
    event: str,
    once: str | None = None,
    **fields: object,
) -> None:
    """Log under `efsstate`, with `kind`, `event` and `fields` as the record's `efsstate` dict.

    A message with the same `once` is logged a single time in a process. docs/observability.md lists
    all records.
    """
    if once is not None:
        if once in _logged:
            return
        _logged.add(once)
    try:
        import logging
    except (ImportError, OSError):
        return  # no descriptor is free, or the interpreter shuts down
    record = {"kind": kind, "event": event, **fields}
    getattr(logging.getLogger("efsstate"), level)(message, *values, extra={"efsstate": record})
