"""A decorated function: what its calls do, and what stands on it."""

from __future__ import annotations

import time

from efsstate import deadline, events, units
from efsstate.cache import flight, keys, signature
from efsstate.cache.cache import Cache, fetch_all, make_results
from efsstate.cache.tiers import FAILURES, MISSING
from efsstate.errors import EncodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from efsstate.cache.memory import Item
    from efsstate.cache.singleflight import Steps


class FunctionCache:
    """One decorated function."""

    def __init__(
        self, function: Any, *, name: Any, version: Any, ttl: Any, stale: Any, key: Any, ignore: Any, cache_if: Any,
        codec: Any, memory: Any, max_bytes: Any, root: Any, lock_timeout: Any, io_timeout: Any,
    ) -> None:  # fmt: skip
        if not callable(function):
            below = ": put @cached below @classmethod" if type(function) is classmethod else ""
            raise TypeError(f"cached: a function is needed, not {function!r}{below}")
        for option, given in (("key", key), ("cache_if", cache_if)):
            if given is not None and not callable(given):
                raise TypeError(f"{option}: a function is needed, not {given!r}")
        self.function = function
        self.signature = signature.Signature(function, ignore)
        self.is_async = signature.is_async(function)
        namespace = signature.namespace(function, version) if name is None else name
        stale_for = 0.0 if stale is None else units.seconds(stale, "stale")
        self.results = make_results(
            namespace, ttl, stale_for, codec, memory, max_bytes, root, io_timeout
        )
        self.keyer = keys.KeyBuilder(
            namespace, signature.source(function) if version == "source" else version
        )
        self.cache = Cache.__new__(Cache)
        self.cache.name, self.cache._results, self.cache._keyer = (
            namespace,
            self.results,
            self.keyer,
        )
        self.key, self.cache_if = key, cache_if
        # What a method is bound to counts too, and may change: then plain arguments alone are not the call.
        self.has_forms = (
            key is None
            and self.signature.owner is None
            and not self.is_async
            and self.results.share.limit != 0
        )  # see Share.remember
        self.lock_timeout = (
            None if lock_timeout is None else units.seconds(lock_timeout, "lock_timeout")
        )
        fixed = self.results.ttl
        self.ttl_of = (lambda value: _life(ttl(value))) if callable(ttl) else (lambda _: fixed)

    # A call

    def digest(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The call's digest; None if the function would not take the arguments."""
        if self.key is not None:
            return self._digest_made(self.key(*args, **kwargs))
        bound = self.signature.bind(args, kwargs)
        return None if bound is None else self.keyer.digest_call(bound)

    async def digest_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The same, on a thread where there is much to digest; what the user's `key` does stays on the loop."""
        from efsstate.cache import aio

        if self.key is not None:
            return await aio.digest(self._digest_made, self.key(*args, **kwargs))
        bound = self.signature.bind(args, kwargs)
        return None if bound is None else await aio.digest(self.keyer.digest_call, tuple(bound))

    def _digest_made(self, key: object) -> str:
        return self.keyer.digest(key, "what key= returned")

    def need(self, digest: str | None) -> str:
        """The digest; `TypeError` if the function would not take the arguments."""
        if digest is None:
            raise TypeError(f"{self.results.name}: the function does not take these arguments")
        return digest

    def steps(
        self,
        digest: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        old: Item | None,
        *,
        forced: bool = False,
    ) -> Steps:
        """The way of a miss."""
        from efsstate.cache import singleflight

        order = singleflight.ComputeRequest(
            lambda: self.function(*args, **kwargs),
            ttl_of=self.ttl_of, cache_if=self.wanted, lock_timeout=self.lock_timeout, forced=forced,
        )  # fmt: skip
        return singleflight.steps(self.results, digest, order, old)

    def wanted(self, value: Any) -> bool:
        """Whether a result is to be kept; `EncodeError` for what is still to be awaited."""
        if hasattr(type(value), "__await__"):
            raise EncodeError(
                "it is to be awaited: put @cached on the `async def` itself, below what hides it, or mark what hides it with"
                " inspect.markcoroutinefunction (Python 3.12)"
            )
        return self.cache_if is None or bool(self.cache_if(value))

    def hit(
        self,
        item: Item,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        began: float,
        level: str,
        value: Any = MISSING,
    ) -> Any:
        """The item's value, unless it was taken already, counted; or MISSING."""
        results = self.results
        if value is MISSING:
            try:
                value = results.take(item)
            except (ValueError, *FAILURES) as error:
                results.unreadable(item, error)
                return MISSING
        counts = results.counts
        if level == "memory":
            counts.memory += 1
            if self.has_forms and not kwargs:
                results.share.remember(args, item)
        else:
            counts.mount += 1
        if began and events.listeners:
            events.emit(
                "hit", results.name, seconds=time.monotonic() - began, bytes=item.cost, level=level
            )
        return value

    async def hit_async(self, item: Item, began: float, level: str) -> Any:
        """The same for a task."""
        from efsstate.cache import aio

        try:
            value = await aio.take(self.results, item)
        except (ValueError, *FAILURES) as error:
            self.results.unreadable(item, error)
            return MISSING
        return self.hit(item, (), {}, began, level, value)

    def old(self, item: Item | None) -> Item | None:
        """The item, if it is expired but may be given while another is computed."""
        return (
            item
            if item is not None
            and self.results.stale
            and self.results.left(item) > -self.results.stale
            else None
        )

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a `def`."""
        results = self.results
        digest = self.digest(args, kwargs) if results.known_enabled or results.enabled else None
        if digest is None:
            return self.function(*args, **kwargs)
        began = time.monotonic() if events.listeners else 0.0
        item = results.recall(digest) if results.share.limit != 0 else None
        if item is not None:
            value = self.hit(item, args, kwargs, began, "memory")
            if value is not MISSING:
                return value
        item = (
            results.fetch(digest) if results.io_timeout is None else results.fetch_in_time(digest)
        )
        if item is not None and results.left(item) > 0:
            value = self.hit(item, args, kwargs, began, "mount")
            if value is not MISSING:
                return value
        from efsstate.cache import singleflight

        return singleflight.run(results, self.steps(digest, args, kwargs, self.old(item)))

    async def call_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of an `async def`."""
        from efsstate.cache import aio

        results = self.results
        digest = await self.digest_async(args, kwargs) if results.enabled else None
        if digest is None:
            return await self.function(*args, **kwargs)
        began = time.monotonic()
        item = results.recall(digest)
        if item is not None:
            value = await self.hit_async(item, began, "memory")
            if value is not MISSING:
                return value
        try:
            item = await aio.call(results, lambda: results.fetch(digest))
        except FAILURES as error:
            results.failed(error, "read a result")
            item = None
        if item is not None and results.left(item) > 0:
            value = await self.hit_async(item, began, "mount")
            if value is not MISSING:
                return value
        return await aio.run(results, self.steps(digest, args, kwargs, self.old(item)))

    # What stands on the function

    def wrapper(self) -> Any:
        """The function that takes the decorated one's place."""
        forms, counts, now, plain = (
            self.results.share.forms,
            self.results.counts,
            time.time,
            self.call,
        )

        if self.is_async:

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                return await self.call_async(args, kwargs)

        else:

            def wrapper(*args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
                if forms and not kwargs:
                    try:
                        item = forms.get((*map(type, args), *args))
                    except Exception:  # an argument that has no hash, or one of its own
                        item = None
                    if (
                        item is not None
                        and item.since <= now() < item.until
                        and not events.listeners
                    ):
                        item.used = True
                        counts.memory += 1
                        return item.value
                return plain(args, kwargs)

        made: Any = deadline._named_like(wrapper, self.function)  # noqa: SLF001
        # From 3.14 on annotations are worked out when somebody asks: to ask now might fail.
        for name in (
            "__annotate__" if hasattr(self.function, "__annotate__") else "__annotations__",
            "__type_params__",
        ):
            if hasattr(self.function, name):
                setattr(made, name, getattr(self.function, name))
        made.__dict__.update(getattr(self.function, "__dict__", {}))
        made.__wrapped__ = self.function
        made.cache = self.cache
        made.cache_info, made.cache_key = self.cache_info, self.cache_key
        made.peek, made.invalidate, made.explain = (
            self._either(self.peek),
            self._either(self.invalidate),
            self._either(self.explain),
        )
        made.cache_clear = self._either(self.clear, keyed=False)
        made.refresh = self.refresh_async if self.is_async else self.refresh
        made.map = self.map_async if self.is_async else self.map
        return made

    def _either(
        self, steps: Callable[[str | None], Steps], *, keyed: bool = True
    ) -> Callable[..., Any]:
        """Does the steps, which get the call's digest if `keyed`.

        Of an async function, in an event loop, it returns a task, which runs even if nobody awaits it.
        """

        def plain(*args: Any, **kwargs: Any) -> Any:
            from efsstate.cache import singleflight

            return singleflight.run(
                self.results, steps(self.digest(args, kwargs) if keyed else None)
            )

        async def task(*args: Any, **kwargs: Any) -> Any:
            from efsstate.cache import aio

            return await aio.run(
                self.results, steps(await self.digest_async(args, kwargs) if keyed else None)
            )

        def either(*args: Any, **kwargs: Any) -> Any:
            import asyncio

            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return plain(*args, **kwargs)
            return loop.create_task(task(*args, **kwargs))

        made = either if self.is_async else plain
        made.__doc__ = steps.__doc__
        return made

    def _ask(self, doing: str, function: Callable[[], Any]) -> Steps:
        from efsstate.cache import singleflight

        return singleflight._attempt(self.results, doing, function)  # noqa: SLF001

    def cache_info(self) -> Any:
        """(hits, misses, maxsize, currsize, …): calls and bytes in memory, as `functools` has it, and more."""
        counts, share = self.results.counts, self.results.share
        return _info_type()(
            counts.memory + counts.mount + counts.stale, counts.computed, 0 if share.limit == 0 else share.limits(),
            share.size, counts.memory, counts.mount, counts.stale, counts.puts, counts.waits, counts.errors,
            counts.damaged, counts.unstored,
        )  # fmt: skip

    def cache_key(self, *args: Any, **kwargs: Any) -> str:
        """The digest of a call, 48 hex digits: the name of its file."""
        return self.need(self.digest(args, kwargs))

    def peek(self, digest: str | None) -> Steps:
        """The result if there is one; `KeyError` if not. Nothing is computed."""
        digest, results = self.need(digest), self.results
        item = results.recall(digest) if results.enabled else None
        if item is None and results.enabled:
            item = yield from self._ask("read a result", lambda: results.fetch(digest))
        from efsstate.cache import singleflight

        value = (
            MISSING
            if item is None or results.left(item) <= 0
            else (yield from singleflight.take(results, item))
        )
        if value is MISSING:
            raise KeyError(f"{results.name}: no result for these arguments")
        return value

    def invalidate(self, digest: str | None) -> Steps:
        """Have the next call compute, here at once and elsewhere within 60 s; whether there was a result."""
        digest, results = self.need(digest), self.results
        if not results.enabled:
            return False
        flight.doom(results, digest)
        return bool((yield from self._ask("remove a result", lambda: results.remove(digest))))

    def clear(self, _: str | None) -> Steps:
        """Forget everything: see `Cache.clear`."""
        if self.results.enabled:
            flight.doom(self.results)
            yield from self._ask("clear", self.results.clear)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute now and keep the result in place of the one there is; the new one."""
        digest = self.digest(args, kwargs) if self.results.enabled else None
        if digest is None:
            return self.function(*args, **kwargs)
        flight.doom(self.results, digest)
        from efsstate.cache import singleflight

        return singleflight.run(self.results, self.steps(digest, args, kwargs, None, forced=True))

    async def refresh_async(self, *args: Any, **kwargs: Any) -> Any:
        """The same of an async function."""
        digest = await self.digest_async(args, kwargs) if self.results.enabled else None
        if digest is None:
            return await self.function(*args, **kwargs)
        flight.doom(self.results, digest)
        from efsstate.cache import aio

        return await aio.run(self.results, self.steps(digest, args, kwargs, None, forced=True))

    def map(self, iterable: Iterable[Any]) -> list[Any]:
        """The results of a call with each item, in order; what is on the mount is read many at once."""
        items = list(iterable)
        found = fetch_all(self.results, self._digests(items))
        return [
            self.call((item,), {}) if value is MISSING else value
            for item, value in zip(items, found, strict=True)
        ]

    async def map_async(self, iterable: Iterable[Any]) -> list[Any]:
        """The same of an async function: 16 at a time, and what is missing is computed so, too."""
        import asyncio

        items = list(iterable)
        values = [None] * len(items)
        rest = iter(range(len(items)))

        async def some() -> None:
            for index in rest:
                values[index] = await self.call_async((items[index],), {})

        await asyncio.gather(*[some() for _ in range(min(16, len(items)))])
        return values

    def _digests(self, items: list[Any]) -> list[str]:
        # Where nothing is kept nothing needs a key: the calls are plain ones.
        return (
            [self.need(self.digest((item,), {})) for item in items]
            if self.results.enabled
            else [""] * len(items)
        )

    def explain(self, digest: str | None) -> Steps:
        """Why a call with these arguments would hit or miss, as the server has it now."""
        from efsstate.cache import singleflight

        results = self.results
        if not results.enabled:
            return "miss: EFSSTATE_DISABLE is set"
        if digest is None:
            return "miss: the function does not take these arguments"
        held = results.recall(digest)
        if held is not None:
            return f"hit: in memory, {_life_left(results.left(held))}"
        try:
            return str((yield singleflight.IO, lambda: results.explain(digest), None))
        except (ValueError, *FAILURES) as error:
            return f"miss: {error}"


def _life_left(left: float) -> str:
    return "for ever" if left == float("inf") else f"for {left:.0f} s more"


def _life(value: Any) -> float | None:
    return None if value is None else units.seconds(value, "ttl")


_info: Any = None


def _info_type() -> Any:
    global _info
    if _info is None:
        from collections import namedtuple

        _info = namedtuple(  # type: ignore[name-match]  # noqa: PYI024 - typing costs a cold start
            "CacheInfo",
            "hits misses maxsize currsize memory mount stale puts waits errors damaged unstored",
        )
    return _info
