"""`cached`, the decorator; and `Cache`, on which it is built."""

from __future__ import annotations

from efsstate.cache.cache import Cache
from efsstate.cache.calls import FunctionCache

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar, overload

    from efsstate.units import Duration, Size

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["Cache", "cached"]

if TYPE_CHECKING:

    @overload
    def cached(function: F, /) -> F: ...
    @overload
    def cached(
        *,
        name: str | None = None,
        version: object = None,
        ttl: Duration | Callable[[Any], Duration | None] | None = None,
        stale: Duration | None = None,
        key: Callable[..., object] | None = None,
        ignore: str | Iterable[str] = (),
        cache_if: Callable[[Any], bool] | None = None,
        codec: Any = "msgpack",
        memory: Size | None = None,
        max_bytes: Size | None = None,
        root: str | os.PathLike[str] | None = None,
        lock_timeout: Duration | None = None,
        io_timeout: Duration | None = None,
    ) -> Callable[[F], F]: ...


def cached(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    version: object = None,
    ttl: Any = None,
    stale: Any = None,
    key: Any = None,
    ignore: Any = (),
    cache_if: Any = None,
    codec: Any = "msgpack",
    memory: Any = None,
    max_bytes: Any = None,
    root: Any = None,
    lock_timeout: Any = None,
    io_timeout: Any = None,
) -> Any:
    """Keep what a function returns, `def` or `async def`, on the mount: it is worked out once for all hosts.

    `name`: functions with the same name share results; without one it is the module and the qualified name, within one
    Lambda function, and what has none (a partial, an object) is a `TypeError`, as generator functions are. `version`: raise it when the function changes; "source" takes the source in. `ttl`: how long a
    result counts, or a function of the result that says so (0: it is not kept). `stale`: how long after that one caller
    recomputes while the others get the old result. `key`: called with the arguments, returns what identifies the call.
    `ignore`: parameters that do not count. `cache_if`: called with the result, says whether it is kept. `codec`,
    `memory`, `max_bytes`, `root`, `io_timeout`: see `Cache`. `lock_timeout`: the longest that a call waits for another
    that computes the same; without it, the invocation's deadline, else 60 s; then it computes.

    Durations are seconds, a timedelta, or "90s" "15m" "6h" "7d"; sizes bytes or "64MiB". `ValueError` or `TypeError`
    for a bad option at once, `TypeError` for an argument that can't be part of a key at the call. Nothing that the
    mount does is raised.
    """

    def decorate(function: Any) -> Any:
        if (
            type(function) is staticmethod
        ):  # the class is to find one, or an instance would pass itself
            return staticmethod(decorate(function.__func__))
        calls = FunctionCache(
            function, name=name, version=version, ttl=ttl, stale=stale, key=key, ignore=ignore, cache_if=cache_if,
            codec=codec, memory=memory, max_bytes=max_bytes, root=root, lock_timeout=lock_timeout, io_timeout=io_timeout,
        )  # fmt: skip
        return calls.wrapper()

    return decorate if function is None else decorate(function)
