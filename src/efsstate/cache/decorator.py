"""`cached`, the decorator."""

from __future__ import annotations

from efsstate.cache.attributes import Attributes, FunctionResults
from efsstate.cache.cache import Cache
from efsstate.cache.function_cache import FunctionCache
from efsstate.cache.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

    from efsstate.cache.function_types import (
        AsyncCachedClassFunction,
        AsyncCachedFunction,
        AsyncCachedStaticMethod,
        CachedClassFunction,
        CachedFunction,
        CachedStaticMethod,
        Decorator,
    )
    from efsstate.units import Duration, Size

    P = ParamSpec("P")
    R = TypeVar("R")
    T = TypeVar("T")

__all__ = ["Cache", "cached"]
_COPIED = ("__module__", "__name__", "__qualname__", "__doc__", "__type_params__")


if TYPE_CHECKING:

    @overload
    def cached(  # type: ignore[overload-overlap]
        function: staticmethod[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCachedStaticMethod[P, R]: ...
    @overload
    def cached(  # type: ignore[overload-overlap]
        function: staticmethod[P, R], /
    ) -> CachedStaticMethod[P, R]: ...
    @overload
    def cached(  # type: ignore[overload-overlap]
        function: Callable[Concatenate[type[T], P], Coroutine[Any, Any, R]], /
    ) -> AsyncCachedClassFunction[T, P, R]: ...
    @overload
    def cached(
        function: Callable[Concatenate[type[T], P], R], /
    ) -> CachedClassFunction[T, P, R]: ...
    @overload
    def cached(  # type: ignore[overload-overlap]
        function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def cached(function: Callable[P, R], /) -> CachedFunction[P, R]: ...
    @overload
    def cached(
        *,
        name: str | None = None,
        version: object = None,
        ttl: Duration | Callable[[Any], Duration | None] | None = None,
        stale: Duration | None = None,
        key: Callable[..., object] | None = None,
        ignore: str | Iterable[str] = (),
        tags: Callable[..., Iterable[str]] | Iterable[str] | None = None,
        cache_if: Callable[[Any], bool] | None = None,
        codec: Any = "msgpack",
        memory: Size | None = None,
        max_bytes: Size | None = None,
        max_entries: int | None = None,
        root: str | os.PathLike[str] | None = None,
        lock_timeout: Duration | None = None,
        io_timeout: Duration | None = None,
        on_unstored: Literal["warn", "raise"] = "warn",
    ) -> Decorator: ...


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
    tags: Any = None,
    cache_if: Any = None,
    codec: Any = "msgpack",
    memory: Any = None,
    max_bytes: Any = None,
    max_entries: Any = None,
    root: Any = None,
    lock_timeout: Any = None,
    io_timeout: Any = None,
    on_unstored: Any = "warn",
) -> Any:
    """Keep the results of a function, `def` or `async def`, on the mount: computed once for all.

    Durations are seconds, a timedelta, or "90s" "15m" "6h" "7d"; sizes are bytes or "64MiB".

    - `name`: functions with one name share results. Default: the module and the qualified name,
      within one Lambda function; a partial or an object has none, and needs this option.
    - `version`: raise it when the function changes; "source" takes its source text in. Or a
      `Model`, for its active version, or a function without arguments that returns the version.
    - `ttl`: how long a result counts, or a function of the result that says so (0: not kept).
    - `stale`: how long after the ttl one caller recomputes while others get the old result.
    - `key`: a function of the arguments that returns the call's key in their place.
    - `ignore`: names of parameters that do not count.
    - `tags`: strings, or a function of the arguments that returns them, for `invalidate_tag`.
    - `cache_if`: called with the result, returns whether it is kept.
    - `lock_timeout`: how long a call waits for another that computes the same; then it computes.
      Default: until the invocation's deadline, else 60 s.
    - `on_unstored`: "raise" raises `EncodeError` for a result that can't be kept; by default it is
      returned, counted and warned about once for each type.
    - `codec`, `memory`, `max_bytes`, `max_entries`, `root`, `io_timeout`: see `Cache`.

    Raises `ValueError` or `TypeError` for a bad option at once, and `TypeError` at the call for an
    argument that can't be part of a key. Failures of the mount are never raised.
    """
    options = Options(
        name=name,
        version=version,
        ttl=ttl,
        stale=stale,
        key=key,
        ignore=ignore,
        tags=tags,
        cache_if=cache_if,
        codec=codec,
        memory=memory,
        max_bytes=max_bytes,
        max_entries=max_entries,
        root=root,
        lock_timeout=lock_timeout,
        io_timeout=io_timeout,
        on_unstored=on_unstored,
    )

    def decorate(function: Any) -> Any:
        if type(function) is staticmethod:  # the class must find one, or an instance passes itself
            return staticmethod(decorate(function.__func__))
        return _dress(FunctionCache(function, options))

    return decorate if function is None else decorate(function)


def _dress(owner: FunctionCache) -> Any:
    """Return the owner's wrapper, with the function's names and a cached function's attributes."""
    wrapper, function = owner.wrapper(), owner.function
    # Since 3.14 annotations are evaluated when they are read: reading them now might fail.
    is_lazy = hasattr(function, "__annotate__")
    annotations = "__annotate__" if is_lazy else "__annotations__"
    for name in (*_COPIED, annotations):
        if hasattr(function, name):
            setattr(wrapper, name, getattr(function, name))
    wrapper.__dict__.update(getattr(function, "__dict__", {}))
    wrapper.__wrapped__ = function
    wrapper.cache = FunctionResults(owner)
    wrapper.__dict__.update(Attributes(owner).all())
    return wrapper
