# pyright: strict
"""Decorated functions as users write them; a line that is refused ends with `# error`.

Two lines are mypy's limits: it takes a static method that is called on an instance for a method,
and it does not match the items of `map` to the parameter.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from efsstate import AsyncCachedFunction, CachedFunction, CacheInfo, cached


@cached
def square(x: int) -> int:
    return x * x


@cached(
    name="labels",
    version=2,
    ttl="7d",
    stale=timedelta(hours=1),
    ignore=("verbose",),
    cache_if=bool,
    memory="16MiB",
    max_bytes=2**30,
    lock_timeout=2,
    io_timeout=0.5,
)
def labels(image: bytes, top: int = 5, *, verbose: bool = False) -> list[tuple[str, float]]:
    return [("cat", 0.9)][:top]


assert_type(square(1), int)
assert_type(square.refresh(x=1), int)
assert_type(square.peek(1), int)
assert_type(square.invalidate(1), bool)
assert_type(square.explain(1), str)
assert_type(square.cache_key(1), str)
assert_type(square.cache_info(), CacheInfo)
assert_type(square.cache_info().hits, int)
assert_type(square.map([1, 2]), list[int])
assert_type(square.__wrapped__(2), int)
assert_type(square.cache.name, str)
assert_type(labels(b"", verbose=True), list[tuple[str, float]])
assert_type(labels.map([b""]), list[list[tuple[str, float]]])
square.cache_clear()
square.set(4, 2)
square.cache.clear()

square("1")  # error
square()  # error
square(1, 2)  # error
square.invalidate("1")  # error
square.refresh()  # error
square.peek(y=1)  # error
square.explain(None)  # error
square.cache_key([])  # error
square.map(["1"])  # error: pyright
square.unknown()  # error
square.set(4, "2")  # error
labels(b"", verbos=True)  # error
cached(ttl=[])  # error
cached(stale=b"1h")  # error
cached(memory=1.5)  # error
cached(nme="x")  # error
cached(5)  # error

as_callable: Callable[[int], int] = square
as_cached: CachedFunction[[int], int] = square


def of_result(count: int) -> int | None:
    return count or None


def to_key(x: int) -> int:
    return x % 10


varying = cached(ttl=of_result, key=to_key)(square.__wrapped__)
assert_type(varying(3), int)


@cached
async def fetch(url: str, *, limit: float = 1.0) -> bytes:
    return url.encode()


@cached(ttl=60)
async def fetch_briefly(url: str) -> bytes:
    return url.encode()


async def use() -> None:
    assert_type(await fetch("a", limit=2), bytes)
    assert_type(await fetch_briefly("a"), bytes)
    assert_type(await fetch.refresh("a"), bytes)
    assert_type(await fetch.peek("a"), bytes)
    assert_type(await fetch.invalidate("a"), bool)
    assert_type(await fetch.explain("a"), str)
    assert_type(await fetch.map(["a"]), list[bytes])
    assert_type(fetch.cache_key("a"), str)
    assert_type(fetch.cache_info().waits, int)
    await fetch.cache_clear()
    await fetch.set(b"", "a")
    await fetch(1)  # error
    await fetch.invalidate(1)  # error
    await asyncio.gather(fetch("a"), fetch("b"))


as_coroutine: Coroutine[Any, Any, bytes] = fetch("a")
as_async: AsyncCachedFunction[[str], bytes] = fetch_briefly
invalidated: Awaitable[bool] = fetch.invalidate("a")


@dataclass(frozen=True)
class Shape:
    side: float

    @cached
    def area(self, factor: int) -> float:
        return self.side * factor

    @cached(ttl="1h")
    async def load(self, factor: int) -> float:
        return self.side * factor

    @classmethod
    @cached
    def named(cls, name: str) -> str:
        return cls.__name__ + name

    @staticmethod
    @cached
    def below(x: int) -> str:
        return str(x)

    @cached
    @staticmethod
    def above(x: int) -> str:
        return str(x)

    @cached(ttl=5)
    @staticmethod
    async def above_async(x: int) -> str:
        return str(x)


shape = Shape(2.0)
assert_type(shape.area(2), float)
assert_type(shape.area.peek(shape, 2), float)
assert_type(shape.area.invalidate(shape, factor=2), bool)
assert_type(Shape.area(shape, 2), float)
assert_type(Shape.area.refresh(shape, 2), float)
assert_type(Shape.named("a"), str)
assert_type(shape.named("a"), str)
assert_type(Shape.below(1), str)
assert_type(shape.below(1), str)  # error: mypy
assert_type(Shape.above(1), str)
assert_type(shape.above(1), str)  # error: mypy
assert_type(shape.above.invalidate(1), bool)  # error: mypy
assert_type(Shape.above.map([1]), list[str])
shape.area("2")  # error
shape.area.peek(2)  # error
shape.area.invalidate(shape, "2")  # error
Shape.above("1")  # error
Shape.below("1")  # error
Shape.named(1)  # error


async def use_methods() -> None:
    assert_type(await shape.load(2), float)
    assert_type(await shape.load.refresh(shape, 2), float)
    assert_type(await Shape.above_async(1), str)
    assert_type(await Shape.above_async.invalidate(1), bool)
    await shape.load("2")  # error
