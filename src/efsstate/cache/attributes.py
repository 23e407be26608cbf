"""The attributes of a decorated function: `peek`, `invalidate`, `refresh`, `map` and the others."""

from __future__ import annotations

import time
from functools import partial

from efsstate import process
from efsstate.cache import puts
from efsstate.cache.cache import Cache, fetch_many
from efsstate.cache.namespace import FAILURES
from efsstate.cache.options import tag_ids
from efsstate.cache.tiers import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from efsstate.cache.function_cache import FunctionCache
    from efsstate.cache.info import CacheInfo
    from efsstate.cache.steps import Steps

_MAP_TASKS = 16  # calls that `map` of an async function has under way at once


class FunctionResults(Cache):
    """The results of a decorated function, as a `Cache`."""

    def __init__(self, owner: FunctionCache) -> None:
        self._owner = owner
        self._open(owner.results, owner.keys)

    def __reduce__(self) -> Any:
        return FunctionResults, (self._owner,)


class Attributes:
    """The functions that a decorated function has as attributes: see `cache.function_types`."""

    def __init__(self, owner: FunctionCache) -> None:
        self._owner, self._results = owner, owner.results

    def __reduce__(self) -> Any:
        return Attributes, (self._owner,)

    @property
    def function(self) -> Any:
        """Return the function that was decorated."""
        return self._owner.function

    def all(self) -> dict[str, Callable[..., Any]]:
        """Return the functions with their names."""
        owner = self._owner
        return {
            "cache_info": self.cache_info,
            "cache_key": self.cache_key,
            "cache_clear": self.cache_clear,
            "invalidate_tag": self.invalidate_tag,
            "peek": self.peek,
            "invalidate": self.invalidate,
            "explain": self.explain,
            "set": self.set,
            "refresh": self.refresh_async if owner.is_async else self.refresh,
            "map": self.map_async if owner.is_async else self.map,
        }

    def cache_info(self) -> CacheInfo:
        """Return the counters of this process: calls by their outcome, and bytes in memory."""
        from efsstate.cache.info import info_of

        return info_of(self._results)

    def cache_key(self, *args: Any, **kwargs: Any) -> str:
        """Return the digest of a call, 48 hex digits: the name of its file."""
        owner = self._owner
        digest = owner.digest(args, kwargs)
        if digest is None:
            owner.demand_taken(args, kwargs)
            raise LookupError(
                f"{owner.name}: the call has no key now; see the log, or activate a version of the"
                " model that is its version="
            )
        return digest

    def peek(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result if there is one, else raise `KeyError`; nothing is computed."""
        return self._run(partial(self._peek, args, kwargs), args, kwargs)

    def _peek(self, args: tuple[Any, ...], kwargs: dict[str, Any], digest: str | None) -> Steps:
        results, value = self._results, MISSING
        if digest is None:
            self._owner.demand_taken(args, kwargs)
        if digest is not None and results.enabled:
            from efsstate.cache.steps import CallMount, TakeValue

            item = results.get_from_memory(digest)
            if item is None:
                item = yield CallMount("read a result", partial(results.read, digest))
            if item is not None and results.remaining(item) > 0:
                value = yield TakeValue(item)
        if value is MISSING:
            raise KeyError(f"{results.name}: no result for these arguments")
        return value

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Have the next call compute; return True if there was a result.

        It shows at once in this process, and within 60 s elsewhere.
        """
        return self._run(partial(self._invalidate, args, kwargs), args, kwargs)

    def _invalidate(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], digest: str | None
    ) -> Steps:
        results = self._results
        if digest is None:
            self._owner.demand_taken(args, kwargs)
        if digest is None or not results.enabled:
            return False
        from efsstate.cache.steps import CallMount

        results.begin_change(digest)
        return bool((yield CallMount("remove a result", partial(results.remove, digest))))

    def explain(self, *args: Any, **kwargs: Any) -> Any:
        """Return why a call would hit or miss, as the server has it now."""
        return self._run(partial(self._explain, args, kwargs), args, kwargs)

    def _explain(self, args: tuple[Any, ...], kwargs: dict[str, Any], digest: str | None) -> Steps:
        results = self._results
        if not results.enabled:
            return "miss: EFSSTATE_DISABLE is set"
        if digest is None and not self._owner.takes(args, kwargs):
            return "miss: the function does not take these arguments"
        if digest is None:
            return (
                "miss: the call has no key now: no version of its model is active, or see the log"
            )
        from efsstate.cache import looking
        from efsstate.cache.steps import CallMount

        item = results.get_from_memory(digest)
        if item is not None:
            return f"hit: in memory, {looking.describe_remaining(results.remaining(item))}"

        def explain() -> str:
            try:
                return looking.explain(results, digest)
            except (ValueError, *FAILURES) as error:
                process.raise_of_handler(error)
                return f"miss: {error}"

        return (yield CallMount("explain a call", explain)) or "miss: the mount does not answer"

    def cache_clear(self) -> Any:
        """Forget all results: here at once, elsewhere within 60 s; and start counting again."""
        self._results.counts.reset()
        return self._run(self._clear)

    def _clear(self, _: str | None) -> Steps:
        if self._results.enabled:
            self._results.begin_change()
            from efsstate.cache.steps import CallMount

            yield CallMount("clear", self._results.clear)

    def invalidate_tag(self, tag: str) -> Any:
        """Forget all results with this tag: here at once, elsewhere within 60 s."""
        (tag,) = tag_ids([tag])
        return self._run(partial(self._invalidate_tag, tag))

    def _invalidate_tag(self, tag: str, _: str | None) -> Steps:
        if self._results.enabled:
            self._results.begin_change(tag=tag)
            from efsstate.cache.steps import CallMount

            yield CallMount("invalidate a tag", partial(self._results.invalidate_tag, tag))

    def set(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep `value` as the result of a call with these arguments; nothing is computed.

        Raises `EncodeError` for a value that would not come back as it is.
        """
        owner, results = self._owner, self._results
        digest = owner.digest(args, kwargs)
        if digest is None:
            owner.demand_taken(args, kwargs)
        entry = digest or "", value, owner.fingerprint()
        seconds = owner.options.life_of(value)
        loop = _running_loop() if owner.is_async else None
        is_kept = results.enabled and digest is not None
        if loop is None:
            if is_kept:
                puts.put(results, [entry], seconds, own_ttl=False, tags=owner.tags(args, kwargs))
            return None
        if not is_kept or seconds == 0:
            invalidate = partial(self._invalidate, args, kwargs)
            return loop.create_task(self._run_async(invalidate, args, kwargs))
        # Now, and not in the task: the caller may change the value after this call.
        tags = owner.tags(args, kwargs)
        write = puts.encode(results, entry, seconds, own_ttl=False, detach=True, tags=tags)
        return loop.create_task(self._store(write, time.monotonic()))

    async def _store(self, write: puts.Write, began: float) -> None:
        aio = self._owner.load_aio()
        outcome: puts.Outcome | None = None
        if aio is not None:
            try:
                outcome = await aio.call(self._results, partial(puts.store, self._results, write))
            except FAILURES as error:
                outcome = None, error
        puts.report(self._results, [outcome], began)

    def _run(
        self,
        steps: Callable[[str | None], Steps],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run `steps` on the call's digest (None without `kwargs`), and return their result.

        For an async function it returns a task if an event loop runs; the task goes on even if it
        is not awaited.
        """
        loop = _running_loop() if self._owner.is_async else None
        if loop is not None:
            return loop.create_task(self._run_async(steps, args, kwargs))
        digest = None if kwargs is None else self._owner.digest(args, kwargs)
        singleflight = self._owner.load_singleflight()
        if singleflight is None:
            return _run_without_mount(steps, kwargs)
        return singleflight.run(self._results, steps(digest))

    async def _run_async(
        self,
        steps: Callable[[str | None], Steps],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
    ) -> Any:
        aio = self._owner.load_aio()
        if aio is None:
            return _run_without_mount(steps, kwargs)
        digest = None if kwargs is None else await self._owner.digest_async(args, kwargs)
        return await aio.run(self._results, steps(digest))

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute now, and keep the result in place of the present one; return the new one."""
        digest = self._owner.digest(args, kwargs) if self._results.enabled else None
        if digest is None:
            return self._owner.function(*args, **kwargs)
        self._results.begin_change(digest)
        singleflight = self._owner.load_singleflight()
        if singleflight is None:
            return self._owner.function(*args, **kwargs)
        return singleflight.run(
            self._results, self._owner.compute_steps(digest, args, kwargs, None, forced=True)
        )

    async def refresh_async(self, *args: Any, **kwargs: Any) -> Any:
        """Compute now, and keep the result in place of the present one; return the new one."""
        aio: Any = self._owner.load_aio() if self._results.enabled else None
        digest = None if aio is None else await self._owner.digest_async(args, kwargs)
        if digest is None:
            return await self._owner.function(*args, **kwargs)
        self._results.begin_change(digest)
        return await aio.run(
            self._results, self._owner.compute_steps(digest, args, kwargs, None, forced=True)
        )

    def map(self, iterable: Iterable[Any]) -> list[Any]:
        """Return the results of a call with each item, in order; the mount is read many at once."""
        items, owner = list(iterable), self._owner
        is_on = self._results.enabled  # else the calls are plain ones, of arguments of any type
        digests = [owner.digest((item,), {}) if is_on else None for item in items]
        values = fetch_many(self._results, digests)
        return [
            owner.call((item,), {}) if value is MISSING else value
            for item, value in zip(items, values, strict=True)
        ]

    async def map_async(self, iterable: Iterable[Any]) -> list[Any]:
        """Return the results of a call with each item, in order; 16 calls at a time."""
        import asyncio

        items = list(iterable)
        values = [None] * len(items)
        rest = iter(range(len(items)))

        async def call_some() -> None:
            for index in rest:
                values[index] = await self._owner.call_async((items[index],), {})

        tasks = [asyncio.ensure_future(call_some()) for _ in range(min(_MAP_TASKS, len(items)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            # MUT: a-map-that-raised-calls-no-more
            for task in tasks:
                task.cancel()
        return values


def _run_without_mount(steps: Callable[[str | None], Steps], kwargs: dict[str, Any] | None) -> Any:
    """Return or raise the outcome of `steps` where no module can be loaded to perform them.

    Those of a call take no step without its digest.
    """
    if kwargs is not None:
        try:
            next(steps(None))
        except StopIteration as end:
            return end.value
    return None


def _running_loop() -> Any:
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
