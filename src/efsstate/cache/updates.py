"""Replace a value by one that is made of it, unless it is changed meanwhile."""

from __future__ import annotations

from operator import index

from efsstate.cache import puts, singleflight
from efsstate.cache.namespace import ENDLESS
from efsstate.cache.tiers import MISSING
from efsstate.errors import MountTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from efsstate.cache.memory import Item
    from efsstate.cache.mutex import Mutex
    from efsstate.cache.tiers import TieredCache
    from efsstate.units import Duration

    class Cache(Protocol):
        """The methods of a `Cache` that an update calls."""

        @property
        def results(self) -> TieredCache:
            """The tiers below."""

        def digest(self, key: Any) -> str:
            """Return the digest of `key`."""

        def life(self, ttl: Duration | None) -> float | None:
            """Return the life in seconds of a value that is set with `ttl`."""

        def lock(self, key: Any) -> Mutex:
            """Return the mutex of `key`."""


_ADDS = 3  # tries of `add`, which may fail
_TRIES = 100  # of an addition; each is lost to a `set` at the same time, or to a failing mount


class Update:
    """A replacement of one value.

    `make` gets the item of the present value and returns the new one; without a present value it
    gets None if `create`, else nothing is done. The new value counts for `ttl` seconds, which the
    cache's ttl does not shorten if `own_ttl`. `key` is as an entry stores it. `adding`: `make`
    raises if there is a value. `keeps_expiry`: the new value expires when the present one would.
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
        keeps_expiry: bool = False,
    ) -> None:
        self.make, self.create, self.adding = make, create, adding
        self.keeps_expiry = keeps_expiry
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
            if self.keeps_expiry and item is not None:
                seconds = results.remaining(item)
                # MUT: a-counter-expires-when-it-would-have
                request.ttl = None if seconds == ENDLESS else seconds
                request.own_ttl = request.ttl is not None
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


def increment(cache: Cache, key: Any, delta: int, ttl: Duration | None) -> int:
    """Add `delta` to the int that is the value (0 if there is none), and return the sum.

    Raise TypeError if the value or `delta` is no int, and the errors of `change`. Each message
    names the key.
    """
    place = _place(cache, key)
    try:
        delta = index(delta)  # of numpy's, too: the sum would be one, which the next call refuses
    except TypeError:
        raise TypeError(f"{place}: incr by what is no int: {delta!r:.80}") from None

    def add_delta(value: Any) -> int:
        if value is MISSING:
            return delta
        if type(value) is not int:
            raise TypeError(f"{place}: incr of a value that is no int: {value!r:.80}")
        return value + delta

    result: int = change(cache, key, add_delta, ttl)
    return result


def change(
    cache: Cache,
    key: Any,
    function: Callable[[Any], Any],
    ttl: Duration | None = None,
    *,
    keeps_expiry: bool = False,
) -> Any:
    """Replace the value by `function(value)` under the key's lock, and return the new one.

    `function` gets MISSING if there is none. The new value counts for `ttl`; with `keeps_expiry`
    for as long as the old one would have, if there was one. Raise the errors of `function` and of
    the mount, and MountTimeout if the new value could not be stored.
    """
    results, digest, seconds = cache.results, cache.digest(key), cache.life(ttl)
    values: list[Any] = []

    def make(item: Item | None) -> Any:
        values.append(function(MISSING if item is None else results.take(item)))
        return values[-1]

    with cache.lock(key):
        if not results.enabled:
            raise MountTimeout(
                f"{_place(cache, key)}: incr needs the mount, and EFSSTATE_DISABLE is set; unset it"
            )
        if seconds == 0:  # the new value is not kept, as of `set`
            make(results.read_for_change(digest))
            puts.remove(results, digest)
            return values[-1]
        update = Update(
            make,
            key=puts.pack_key(key),
            ttl=seconds,
            own_ttl=ttl is not None,
            create=True,
            keeps_expiry=keeps_expiry,
        )
        for _ in range(_TRIES):
            if update.run(results, digest):
                return values[-1]
    raise MountTimeout(f"{_place(cache, key)}: the sum could not be stored; see the log")


def _place(cache: Cache, key: object) -> str:
    return f"{cache!r}[{key!r:.80}]"
