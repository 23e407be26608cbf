# pyright: strict
"""`Cache` as users write it; a line that is refused ends with `# error`."""

import json
from collections.abc import Iterator
from typing import Any, assert_type

from efsstate import AsyncCache, Cache, EncodeError, on_event, register

plain = Cache("plain", ttl="30m", codec=json)
assert_type(plain.get("k"), Any | None)
plain.set(("user", 7), {"name": "Ada"}, ttl=5)

ages = Cache[str, int]("ages", memory=0, root="/mnt/efs", io_timeout="2s")
assert_type(ages, Cache[str, int])
assert_type(ages.get("a"), int | None)
assert_type(ages.get("a", 0), int)
assert_type(ages.get("a", "none", fresh=True), int | str)
assert_type(ages.get_many(["a", "b"]), dict[str, int])
assert_type(ages.get_or_compute("a", lambda: 5), int)
assert_type(ages.add("a", 1), bool)
assert_type(ages.delete("a"), bool)
assert_type("a" in ages, bool)
assert_type(ages.keys(), Iterator[str])
ages.set_many({"a": 1}, ttl="5m")
ages.clear()
assert_type(ages.pop("a"), int)
assert_type(ages.pop("a", None), int | None)
assert_type(ages.touch("a", ttl="1h"), bool)
assert_type(ages.incr("a", 2), int)
assert_type(ages.info().hits, int)
with ages.lock("a", wait="2s"):
    pass

ages.get(1)  # error
ages.set("a", "1")  # error
ages.set_many([("a", 1)])  # error
ages.get_or_compute("a", lambda: "5")  # error
ages.add("a", 1, ttl=[])  # error
Cache(ttl=5)  # error
Cache("x", lock_timeout=5)  # error


async def fetch() -> int:
    return 5


async def use() -> None:
    box = AsyncCache[str, int]("box", ttl="1h")
    await box.set("a", 1)
    assert_type(await box.get("a"), int | None)
    assert_type(await box.get("a", "none", fresh=True), int | str)
    assert_type(await box.pop("a"), int)
    assert_type(await box.pop("a", None), int | None)
    assert_type(await box.get_or_compute("a", fetch), int)
    assert_type(await box.get_many(["a"]), dict[str, int])
    assert_type(await box.incr("a"), int)
    assert_type([key async for key in box.keys()], list[str])  # noqa: SIM118
    async with box.lock("a"):
        pass
    await box.set("a", "1")  # error
    await box.get(1)  # error
    await box.pop(1)  # error


class Image:
    def __init__(self, size: int) -> None:
        self.size = size


def parts(image: Image) -> int:
    return image.size


register(Image, parts)
register(Image, lambda image: image.size)
register(5, parts)  # error
register(str, parts)  # error


def watch(record: dict[str, object]) -> None:
    print(record["event"])


end = on_event(watch)
end()
on_event(5)  # error

try:
    ages.set("a", 1)
except EncodeError as error:
    print(error)
