"""The types of decorated functions: for type checkers, and for annotations in users' code.

At run time a decorated function is a function with these attributes. This module is imported when
one of its names is asked for, since `typing` costs a cold start 5 ms.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

if TYPE_CHECKING:
    from typing import Self

    from efsstate.cache.cache import Cache

P = ParamSpec("P")  # the parameters of the function
Q = ParamSpec("Q")  # those of a method: all but its first
T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class CacheInfo(NamedTuple):
    """Count calls by their outcome, and bytes in memory: as `functools` does, and more."""

    hits: int
    misses: int
    maxsize: int
    currsize: int
    memory: int
    mount: int
    stale: int
    puts: int
    waits: int
    errors: int
    damaged: int
    unstored: int


class _Common(Protocol[P]):
    __name__: str
    __qualname__: str

    @property
    def cache(self) -> Cache[Any, Any]:
        """Return the cache of the results."""

    def cache_info(self) -> CacheInfo:
        """Return the counters of this process."""

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the digest of a call, 48 hex digits: the name of its file."""


class _Attributes(_Common[P], Protocol[P, R_co]):
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Compute now, and keep the result in place of the present one."""

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result if there is one, else raise `KeyError`; nothing is computed."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Have the next call compute; return True if there was a result."""

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return why a call would hit or miss."""

    def cache_clear(self) -> None:
        """Forget all results."""


class _AsyncAttributes(_Common[P], Protocol[P, R_co]):
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Compute now, and keep the result in place of the present one."""

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]:
        """Return the result if there is one, else raise `KeyError`; nothing is computed."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[bool]:
        """Have the next call compute; return True if there was a result."""

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[str]:
        """Return why a call would hit or miss."""

    def cache_clear(self) -> Awaitable[None]:
        """Forget all results."""


class CachedMethod(_Attributes[P, R_co], Protocol[Q, P, R_co]):
    """A cached method of an instance; its attributes are the function's and take `self` too."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
        """Return the result of the call, computed once for all hosts."""


class AsyncCachedMethod(_AsyncAttributes[P, R_co], Protocol[Q, P, R_co]):
    """A cached `async def` method of an instance; its attributes take `self` too."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> Coroutine[Any, Any, R_co]:
        """Return the result of the call, computed once for all hosts."""


class CachedFunction(_Attributes[P, R_co], Protocol[P, R_co]):
    """A function that `cached` has decorated."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """Return the function itself."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result of the call, computed once for all hosts."""

    def map(self: CachedFunction[Concatenate[T, ...], R], iterable: Iterable[T]) -> list[R]:
        """Return the results of a call with each item, in order."""

    @overload
    def __get__(self, instance: None, owner: object, /) -> Self: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[T, Q], R], instance: T, owner: object = None, /
    ) -> CachedMethod[Q, Concatenate[T, Q], R]: ...


class AsyncCachedFunction(_AsyncAttributes[P, R_co], Protocol[P, R_co]):
    """An `async def` function that `cached` has decorated."""

    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R_co]]:
        """Return the function itself."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Return the result of the call, computed once for all hosts."""

    def map(
        self: AsyncCachedFunction[Concatenate[T, ...], R], iterable: Iterable[T]
    ) -> Coroutine[Any, Any, list[R]]:
        """Return the results of a call with each item, in order."""

    @overload
    def __get__(self, instance: None, owner: object, /) -> Self: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[T, Q], R], instance: T, owner: object = None, /
    ) -> AsyncCachedMethod[Q, Concatenate[T, Q], R]: ...


class CachedStaticMethod(_Attributes[P, R_co], Protocol[P, R_co]):
    """A static method below `cached`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result of the call, computed once for all hosts."""

    def __get__(self, instance: object, owner: object = None, /) -> CachedFunction[P, R_co]: ...


class AsyncCachedStaticMethod(_AsyncAttributes[P, R_co], Protocol[P, R_co]):
    """An `async def` static method below `cached`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Return the result of the call, computed once for all hosts."""

    def __get__(
        self, instance: object, owner: object = None, /
    ) -> AsyncCachedFunction[P, R_co]: ...


class Decorator(Protocol):
    """The decorator that `cached` with options returns."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: staticmethod[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCachedStaticMethod[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: staticmethod[P, R], /
    ) -> CachedStaticMethod[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
