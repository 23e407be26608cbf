"""Replace a value by one that is made of it, unless it is changed meanwhile."""

from __future__ import annotations

from operator import index

from efsstate.cache import puts, singleflight
from efsstate.errors import MountTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.cache.memory import Item
    from efsstate.cache.tiers import TieredCache

_TRIES = 100  # of an addition; each is lost to a `set` at the same time, or to a failing mount


class Update:
    """A replacement of one value.

    `make` gets the item of the present value and returns the new one; without a present value it
    gets None if `create`, else nothing is done. The new value counts for `ttl` seconds, which the
    cache's ttl does not shorten if `own_ttl`. `key` is as an entry stores it.
    """

    def __init__(
        self,
        make: Callable[[Any], Any],
        *,
        key: bytes,
        ttl: float | None,
        own_ttl: bool,
        create: bool = False,
    ) -> None:
        self.make, self.create = make, create
        self.key, self.ttl, self.own_ttl = key, ttl, own_ttl

    def run(self, results: TieredCache, digest: str) -> bool:
        """Replace the value; return False if there is none, or if it was changed meanwhile."""
        if not results.enabled:
            return False

        def compute() -> Any:
            item = results.read(digest, exact=True)
            if item is not None and results.remaining(item) <= 0:
                item = None
            if item is None and not self.create:
                raise _NoValueError
            request.replaced = item
            return self.make(item)

        request = singleflight.ComputeRequest(
            compute,
            key=self.key,
            ttl=self.ttl,
            own_ttl=self.own_ttl,
            forced=True,
            keeps_old=True,
        )
        results.begin_change(digest)
        try:
            singleflight.run(results, singleflight.compute(results, digest, request, None))
        except _NoValueError:
            return False
        return request.was_kept


class _NoValueError(Exception):
    """There is no value to replace."""


def add(
    results: TieredCache,
    digest: str,
    delta: int,
    place: str,
    *,
    key: bytes,
    ttl: float | None,
    own_ttl: bool,
) -> int:
    """Add `delta` to the int that is the value (0 if there is none), and return the sum.

    Raise TypeError if it or `delta` is no int, MountTimeout if the sum could not be stored; both
    name `place`.
    """
    try:
        delta = index(delta)  # of numpy's, too: the sum would be one, which the next call refuses
    except TypeError:
        raise TypeError(f"{place}: incr by what is no int: {delta!r:.80}") from None
    sums: list[int] = []

    def make(item: Item | None) -> int:
        value = 0 if item is None else results.take(item)
        if type(value) is not int:
            raise TypeError(f"{place}: incr of a value that is no int: {value!r:.80}")
        sums.append(value + delta)
        return sums[-1]

    if not results.enabled:
        raise MountTimeout(f"{place}: incr needs the mount, and EFSSTATE_DISABLE is set; unset it")
    if ttl == 0:  # the sum is not kept, as of `set`
        item = results.read(digest, exact=True)
        make(item if item is not None and results.remaining(item) > 0 else None)
        puts.remove(results, digest)
        return sums[-1]
    update = Update(make, key=key, ttl=ttl, own_ttl=own_ttl, create=True)
    for _ in range(_TRIES):
        if update.run(results, digest):
            return sums[-1]
    raise MountTimeout(f"{place}: the sum could not be stored; see the log")
