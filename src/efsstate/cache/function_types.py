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
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

if TYPE_CHECKING:
    from typing import Self

    from efsstate.cache.cache import Cache
    from efsstate.cache.info import CacheInfo

P = ParamSpec("P")  # the parameters of the function
Q = ParamSpec("Q")  # those of a method: all but its first
T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class _Common(Generic[P]):
    __name__: str
    __qualname__: str

    @property
    def cache(self) -> Cache[Any, Any]:
        """Return the cache of the results."""
        raise NotImplementedError

    def cache_info(self) -> CacheInfo:
        """Return the counters of this process."""
        raise NotImplementedError

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the digest of a call, 48 hex digits: the name of its file."""
        raise NotImplementedError


class _Attributes(_Common[P], Generic[P, R_co]):
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Compute now, and keep the result in place of the present one."""
        raise NotImplementedError

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result if there is one, else raise `KeyError`; nothing is computed."""
        raise NotImplementedError

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Have the next call compute; return True if there was a result."""
        raise NotImplementedError

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return why a call would hit or miss."""
        raise NotImplementedError

    def set(self, value: Any, *args: P.args, **kwargs: P.kwargs) -> None:
        """Keep `value` as the result of a call with these arguments; nothing is computed."""
        raise NotImplementedError

    def cache_clear(self) -> None:
        """Forget all results, and start counting again."""
        raise NotImplementedError

    def invalidate_tag(self, tag: str) -> None:
        """Forget all results with this tag."""
        raise NotImplementedError


class _AsyncAttributes(_Common[P], Generic[P, R_co]):
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Compute now, and keep the result in place of the present one."""
        raise NotImplementedError

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]:
        """Return the result if there is one, else raise `KeyError`; nothing is computed."""
        raise NotImplementedError

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[bool]:
        """Have the next call compute; return True if there was a result."""
        raise NotImplementedError

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[str]:
        """Return why a call would hit or miss."""
        raise NotImplementedError

    def set(self, value: Any, *args: P.args, **kwargs: P.kwargs) -> Awaitable[None]:
        """Keep `value` as the result of a call with these arguments; nothing is computed."""
        raise NotImplementedError

    def cache_clear(self) -> Awaitable[None]:
        """Forget all results, and start counting again."""
        raise NotImplementedError

    def invalidate_tag(self, tag: str) -> Awaitable[None]:
        """Forget all results with this tag."""
        raise NotImplementedError


class CachedMethod(_Attributes[P, R_co], Generic[Q, P, R_co]):
    """A cached method of an instance; its attributes are the function's and take `self` too."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
        """Return the result of the call, computed once for all hosts."""
        raise NotImplementedError


class AsyncCachedMethod(_AsyncAttributes[P, R_co], Generic[Q, P, R_co]):
    """A cached `async def` method of an instance; its attributes take `self` too."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> Coroutine[Any, Any, R_co]:
        """Return the result of the call, computed once for all hosts."""
        raise NotImplementedError


class CachedFunction(_Attributes[P, R_co], Generic[P, R_co]):
    """A function that `cached` has decorated: called as before, with these methods besides."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """Return the function itself."""
        raise NotImplementedError

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result of the call, computed once for all hosts."""
        raise NotImplementedError

    def map(self: CachedFunction[Concatenate[T, Q], R], iterable: Iterable[T]) -> list[R]:
        """Return the results of a call with each item, in order."""
        raise NotImplementedError

    @overload
    def __get__(self, instance: None, owner: object, /) -> Self: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[T, Q], R], instance: T, owner: object = None, /
    ) -> CachedMethod[Q, Concatenate[T, Q], R]: ...
    @overload
    def __get__(self, instance: object, owner: object = None, /) -> Self: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        """Bind a method to its instance, and a class method to its class."""
        raise NotImplementedError


class AsyncCachedFunction(_AsyncAttributes[P, R_co], Generic[P, R_co]):
    """An `async def` function that `cached` has decorated; the methods beside it are awaited."""

    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R_co]]:
        """Return the function itself."""
        raise NotImplementedError

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Return the result of the call, computed once for all hosts."""
        raise NotImplementedError

    def map(
        self: AsyncCachedFunction[Concatenate[T, Q], R], iterable: Iterable[T]
    ) -> Coroutine[Any, Any, list[R]]:
        """Return the results of a call with each item, in order."""
        raise NotImplementedError

    @overload
    def __get__(self, instance: None, owner: object, /) -> Self: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[T, Q], R], instance: T, owner: object = None, /
    ) -> AsyncCachedMethod[Q, Concatenate[T, Q], R]: ...
    @overload
    def __get__(self, instance: object, owner: object = None, /) -> Self: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        """Bind a method to its instance, and a class method to its class."""
        raise NotImplementedError


class CachedClassFunction(CachedFunction[Concatenate[type[T], Q], R_co], Generic[T, Q, R_co]):
    """A function of a class that `cached` has decorated, such as the one of a class method."""

    def __get__(  # type: ignore[override]
        self, instance: T | None, owner: type[T] | None = None, /
    ) -> CachedMethod[Q, Concatenate[type[T], Q], R_co]:
        """Bind it to the class."""
        raise NotImplementedError


class AsyncCachedClassFunction(
    AsyncCachedFunction[Concatenate[type[T], Q], R_co], Generic[T, Q, R_co]
):
    """An `async def` function of a class that `cached` has decorated."""

    def __get__(  # type: ignore[override]
        self, instance: T | None, owner: type[T] | None = None, /
    ) -> AsyncCachedMethod[Q, Concatenate[type[T], Q], R_co]:
        """Bind it to the class."""
        raise NotImplementedError


class CachedStaticMethod(_Attributes[P, R_co], Generic[P, R_co]):
    """A static method below `cached`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result of the call, computed once for all hosts."""
        raise NotImplementedError

    def __get__(self, instance: object, owner: object = None, /) -> CachedFunction[P, R_co]:
        """Return the function."""
        raise NotImplementedError


class AsyncCachedStaticMethod(_AsyncAttributes[P, R_co], Generic[P, R_co]):
    """An `async def` static method below `cached`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Return the result of the call, computed once for all hosts."""
        raise NotImplementedError

    def __get__(self, instance: object, owner: object = None, /) -> AsyncCachedFunction[P, R_co]:
        """Return the function."""
        raise NotImplementedError


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
        self, function: Callable[Concatenate[type[T], Q], Coroutine[Any, Any, R]], /
    ) -> AsyncCachedClassFunction[T, Q, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[type[T], Q], R], /
    ) -> CachedClassFunction[T, Q, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
