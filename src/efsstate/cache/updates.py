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

_ADDS = 3  # tries of `add`, which may fail
_TRIES = 100  # of an addition; each is lost to a `set` at the same time, or to a failing mount


class Update:
    """A replacement of one value.

    `make` gets the item of the present value and returns the new one; without a present value it
    gets None if `create`, else nothing is done. The new value counts for `ttl` seconds, which the
    cache's ttl does not shorten if `own_ttl`. `key` is as an entry stores it. `adding`: `make`
    raises if there is a value.
    """

    def __init__(
        self,
        make: Callable[[Any], Any],
        *,
        key: bytes,
        ttl: float | None,
        own_ttl: bool,
        create: bool = False,
        adding: bool = False,
    ) -> None:
        self.make, self.create, self.adding = make, create, adding
        self.key, self.ttl, self.own_ttl = key, ttl, own_ttl

    def run(self, results: TieredCache, digest: str) -> bool:
        """Replace the value; return False if there is none, or if it was changed meanwhile.

        Raise the errors of `TieredCache.read_for_change`.
        """
        if not results.enabled:
            return False

        def compute() -> Any:
            # `Cache.add` asked the server about clears before it took the key's lock.
            item = results.read_for_change(digest, exact=not self.adding)
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
            adding=self.adding,
            keeps_old=True,
        )
        results.begin_change(digest)
        try:
            singleflight.run(results, singleflight.compute(results, digest, request, None))
        except _NoValueError:
            return False
        if request.refusal is not None:
            raise request.refusal
        return request.was_kept


class _NoValueError(Exception):
    """There is no value to replace."""


class _HasValueError(Exception):
    """There is a value already."""


def add(
    results: TieredCache,
    digest: str,
    value: Any,
    *,
    key: bytes,
    ttl: float | None,
    own_ttl: bool,
) -> bool:
    """Keep `value` unless there is one; return True if it was kept.

    The caller holds the key's lock. Raise `EncodeError`, and as `TieredCache.read_for_change`.
    """

    def make(item: Item | None) -> Any:
        # MUT: add-replaces-nothing
        if item is not None:
            raise _HasValueError
        return value

    update = Update(make, key=key, ttl=ttl, own_ttl=own_ttl, create=True, adding=True)
    try:
        # Again, since a `delete` of no value at the same time removes the draft, too.
        return any(update.run(results, digest) for _ in range(_ADDS))
    except _HasValueError:
        return False


def increment(
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
        make(results.read_for_change(digest))
        puts.remove(results, digest)
        return sums[-1]
    update = Update(make, key=key, ttl=ttl, own_ttl=own_ttl, create=True)
    for _ in range(_TRIES):
        if update.run(results, digest):
            return sums[-1]
    raise MountTimeout(f"{place}: the sum could not be stored; see the log")
