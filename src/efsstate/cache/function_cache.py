"""A decorated function's calls: from its arguments to a digest, and to a result."""

from __future__ import annotations

import time
from functools import partial

from efsstate import events, process
from efsstate.cache import naming, signature
from efsstate.cache.captured import Captured
from efsstate.cache.keys import KeyBuilder
from efsstate.cache.memory import PACKED, nested_form
from efsstate.cache.namespace import FAILURES, is_load_failure
from efsstate.cache.options import tag_ids
from efsstate.cache.tiers import MISSING, TieredCache
from efsstate.callables import code_of
from efsstate.errors import EncodeError
from efsstate.format.entry import blake2b
from efsstate.mount.environment import DISABLE, ROOT, peek

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from efsstate.cache.memory import Item
    from efsstate.cache.options import Options
    from efsstate.cache.singleflight import ComputeRequest
    from efsstate.cache.steps import Steps
    from efsstate.cache.versions import VersionedKeys


_KEY_OPTION = "what key= returned"


class FunctionCache:
    """One decorated function: the keys and the results of its calls."""

    def __init__(
        self, function: Any, options: Options, identity: tuple[str, object, bytes] | None = None
    ) -> None:
        # `identity` is that of the process that pickled it: name, version, late variables.
        if not callable(function):
            advice = "; put @cached below @classmethod" if type(function) is classmethod else ""
            raise TypeError(f"cached: expected a function, not {function!r}{advice}")
        self.function, self.options = function, options
        variables = Captured(function, options.ignore)
        self.signature = signature.signature_of(function, options.ignore, variables.names)
        self._parts = signature.parts_of(function)
        self.is_async = signature.is_async(function)
        blake2b()  # loaded now: a first call may have no descriptor left
        self._late: Callable[[str], bytes] | None = None
        self._variables: Captured | None = None  # that count, and may be bound to other objects
        # The signature, too, depends on the function that a variable is bound to.
        self._watched = variables if variables.has_wrapped() else None
        if identity is None:
            self.name, self.version, self._late = _identify(function, options, variables)
            if self._late is not None and variables:
                self._variables = self._watched = variables
        else:
            self.name, self.version, late_bytes = identity
            self._late = lambda _: late_bytes
        self.results = TieredCache(self.name, options)
        self.results.identify_code = self.fingerprint
        self._fingerprint: bytes | None = None
        self._versions: VersionedKeys | None = None
        if callable(self.version) and not isinstance(self.version, type):
            from efsstate.cache.versions import VersionedKeys

            self._versions = VersionedKeys(self.name, self.version, self._late)
        version = None if self._versions is not None else self.version
        self.keys = KeyBuilder(self.name, version, self._late)
        # The fast path takes plain arguments for the call, so nothing else may be part of it.
        self.has_fast_path = (
            options.key is None
            and options.memory != 0
            and self.signature.is_constant
            and self._versions is None
            and not self.is_async
        )
        self.remembered = self.results.memory.by_args

    def __repr__(self) -> str:
        return f"<cached function {self.name}>"

    def __reduce__(self) -> Any:
        # Another process may call the program, or the script, by another name.
        late = self._late(self.name) if self._late is not None else b""
        return FunctionCache, (self.function, self.options, (self.name, self.version, late))

    # Keys

    def digest(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Return the digest of a call; None if the function does not take the arguments.

        None, too, if its version is a model's and none is active, or a module could not be loaded:
        then the call is a plain one.
        """
        # The same as in `_is_other`, whose call would make each hit on the mount slower.
        # MUT: a-variable-that-is-bound-again-counts
        if self._watched is not None and self._watched.has_moved():
            self._follow_function()
        for function, code, defaults, named in self._parts:
            # MUT: a-default-that-is-replaced-counts
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not named
            ):
                self._follow_function()
                break
        if self._versions is None and self.options.key is None:
            bound = self.signature.bind(args, kwargs)
            try:
                return None if bound is None else self.keys.digest_call(bound)
            except (ImportError, OSError) as error:
                self._go_without_key(error)
                return None
        keys = self.keys if self._versions is None else self._versions.current()
        return None if keys is None else self._digest_by(keys, args, kwargs)

    def _go_without_key(self, error: Exception) -> None:
        """Report that a module could not be loaded to make a key; raise any other error."""
        if not is_load_failure(error):
            raise error
        self.results.report_failure(error, "make a key")

    def _is_other(self) -> bool:
        """Return True if the function's code or defaults, or a captured object, were replaced."""
        is_moved = self._watched is not None and self._watched.has_moved()
        return is_moved or any(
            function.__code__ is not code
            or function.__defaults__ is not defaults
            or function.__kwdefaults__ is not named
            for function, code, defaults, named in self._parts
        )

    def _follow_function(self) -> None:
        """Use the function's present defaults and captured objects for the keys from here on.

        The fingerprint of its present code is compared with that of each stored result.
        """
        if self._watched is not None:
            self._watched.follow()
        ignore = self.options.ignore
        self.signature = signature.signature_of(self.function, ignore, captured=ignore)
        self._parts = signature.parts_of(self.function)
        self._fingerprint = None
        self.results.identify_again()
        if self.remembered:
            self.remembered = {}  # for good: a call that began before may yet be remembered
        self.keys.restart()
        if self._versions is not None:
            self._versions.restart()

    def _digest_by(
        self, keys: KeyBuilder, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> str | None:
        if self.options.key is not None:
            key = self.options.key(*args, **kwargs)
            digest = partial(keys.digest, key, _KEY_OPTION)
        else:
            bound = self.signature.bind(args, kwargs)
            if bound is None:
                return None
            digest = partial(keys.digest_call, bound)
        try:
            return digest()
        except (ImportError, OSError) as error:
            self._go_without_key(error)
            return None

    async def digest_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Like `digest`, but on a thread if there is much to digest; `key=` runs on the loop."""
        from efsstate.cache import aio

        if self._is_other():
            self._follow_function()
        if self._versions is not None:
            keys = await aio.on_thread(self._versions.current)
        else:
            keys = self.keys
        if keys is None:
            return None
        parts: Any
        if self.options.key is not None:
            parts = self.options.key(*args, **kwargs)
            digest: Callable[[Any], str] = partial(keys.digest, option=_KEY_OPTION)
        else:
            bound = self.signature.bind(args, kwargs)
            if bound is None:
                return None
            parts, digest = tuple(bound), keys.digest_call
        try:
            return await aio.digest(digest, parts)
        except (ImportError, OSError) as error:
            self._go_without_key(error)
            return None

    def fingerprint(self) -> bytes:
        """Return the fingerprint of the function's code, which its entries carry."""
        if self._fingerprint is None:
            from efsstate.cache import fingerprint

            self._fingerprint = fingerprint.of_function(self.function)
        return self._fingerprint

    def takes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return False if the function does not take the arguments, as far as is known."""
        return self.options.key is not None or self.signature.bind(args, kwargs) is not None

    def demand_taken(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise `TypeError` if the function does not take the arguments."""
        if self.takes(args, kwargs):
            return
        is_method = getattr(code_of(self.function), "co_varnames", ())[:1] in (("self",), ("cls",))
        hint = "; of a method, its object comes first: obj.m.peek(obj, …)" if is_method else ""
        raise TypeError(f"{self.name}: the function does not take these arguments{hint}")

    # Calls

    def wrapper(self) -> Any:
        """Return a function that takes the place of the decorated one.

        It serves a remembered call from memory by itself, and hands any other on to `call`.
        """
        if self.is_async:

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                return await self.call_async(args, kwargs)

        elif not self.has_fast_path:

            def wrapper(*args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
                return self.call(args, kwargs)

        else:
            bound = None if self._variables is None else self._variables.bound

            def wrapper(*args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
                remembered, results = self.remembered, self.results
                if (
                    remembered
                    and peek(ROOT) is results.seen_root
                    and peek(DISABLE) is results.seen_disable
                ):
                    try:
                        if bound is not None:  # a loop here: `has_moved` would cost a call
                            for cell, last in bound:
                                # MUT: a-remembered-call-is-of-the-variables-now
                                if cell.cell_contents is not last:
                                    remembered = {}
                        if kwargs:
                            named = kwargs.values()
                            form = (*map(type, args), *args, *kwargs, *map(type, named), *named)
                        elif len(args) == 1:  # the usual call: without `map` it is 0.1 us faster
                            (first,) = args
                            kind = type(first)
                            if kind is str:
                                form = first
                            elif kind is tuple:  # as `nested_form` has it
                                form = (kind, first, (*map(type, first),))
                            else:
                                form = (kind, first)
                        else:
                            form = (*map(type, args), *args)
                        item = remembered.get(form)
                        if item is None and not kwargs and tuple in map(type, args):
                            item = remembered.get(nested_form(args))
                        value = None if item is None else item.value
                        if item is not None and value is PACKED:
                            # MUT: a-remembered-result-is-the-callers-own
                            value = results.loads(item.payload)
                    # An argument has no hash, its `__hash__` raises, the value can't be read, or a
                    # variable is not set: the call below tells.
                    except Exception as error:
                        process.raise_of_handler(error)
                        item = None
                    if item is not None and 0 <= time.time() - item.since < item.span:
                        item.used = True
                        results.counts.memory += 1
                        if events.hit_listeners:
                            events.emit_memory_hit(self.name, item.cost)
                        return value
                return self.call(args, kwargs)

        return wrapper

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call of a `def`."""
        results = self.results
        if peek(ROOT) is not results.seen_root or peek(DISABLE) is not results.seen_disable:
            results.follow_environment()
        digest = self.digest(args, kwargs) if results.known_enabled else None
        if digest is None:
            return self.function(*args, **kwargs)
        began = time.monotonic() if events.listeners else 0.0
        item = results.get_from_memory(digest) if results.memory.limit != 0 else None
        if item is not None:
            value = self._take(item, args, kwargs, began, "memory")
            if value is not MISSING:
                return value
        if results.io_timeout is not None:
            item = results.read_in_time(digest)
        elif results.memory.limit != 0:
            item = results.read(digest)
        else:
            plain: Any = results.read_plain(digest)
            if type(plain) is tuple:
                value, size = plain
                results.counts.mount += 1
                if began and events.listeners:
                    results.emit("hit", began, bytes=size, level="mount")
                return value
            item = plain
        if item is not None and results.remaining(item) > 0:
            value = self._take(item, args, kwargs, began, "mount")
            if value is not MISSING:
                return value
        singleflight = self.load_singleflight()
        if singleflight is None:
            return self.function(*args, **kwargs)
        stale = None if item is None else self._stale(item)
        return singleflight.run(results, self.compute_steps(digest, args, kwargs, stale))

    def load_singleflight(self) -> Any:
        """Return the module, or None if it cannot be loaded; called at the first miss."""
        try:
            from efsstate.cache import singleflight
        except (ImportError, OSError) as error:
            self.results.report_failure(error, "load a module")
            return None
        return singleflight

    def load_aio(self) -> Any:
        """Return the module, or None if it cannot be loaded; called at the first awaited call."""
        try:
            from efsstate.cache import aio
        except (ImportError, OSError) as error:
            self.results.report_failure(error, "load a module")
            return None
        return aio

    async def call_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call of an `async def`."""
        results, digest = self.results, None
        aio: Any = self.load_aio() if results.enabled else None
        if aio is not None:
            digest = await self.digest_async(args, kwargs)
        if digest is None:
            return await self.function(*args, **kwargs)
        began = time.monotonic()
        item = results.get_from_memory(digest)
        if item is not None:
            value = await self._take_async(item, began, "memory")
            if value is not MISSING:
                return value
        try:
            item = await aio.call(results, lambda: results.read(digest))
        except FAILURES as error:
            results.report_failure(error, "read a result")
            item = None
        if item is not None and results.remaining(item) > 0:
            value = await self._take_async(item, began, "mount")
            if value is not MISSING:
                return value
        return await aio.run(results, self.compute_steps(digest, args, kwargs, self._stale(item)))

    def _take(
        self,
        item: Item,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        began: float,
        level: str,
        value: Any = MISSING,
    ) -> Any:
        """Return the value of `item`, or `value` if it was taken already; count and report a hit.

        Return MISSING if it can't be read.
        """
        results = self.results
        if value is MISSING:
            try:
                value = results.take(item)
            except (ValueError, *FAILURES) as error:
                results.report_unreadable(item, error)
                return MISSING
        counts = results.counts
        if level == "memory":
            counts.memory += 1
            if self.has_fast_path:
                results.memory.remember_call(args, kwargs, item)
        else:
            counts.mount += 1
        if began and events.listeners:
            seconds = time.monotonic() - began
            events.emit("cache", "hit", results.name, seconds=seconds, bytes=item.cost, level=level)
        return value

    async def _take_async(self, item: Item, began: float, level: str) -> Any:
        from efsstate.cache import aio

        try:
            value = await aio.take(self.results, item)
        except (ValueError, *FAILURES) as error:
            self.results.report_unreadable(item, error)
            return MISSING
        return self._take(item, (), {}, began, level, value)

    def _stale(self, item: Item | None) -> Item | None:
        """Return `item` if it is expired, and may be served while another caller recomputes."""
        results = self.results
        if item is None or not results.stale or results.remaining(item) <= -results.stale:
            return None
        return item

    def compute_steps(
        self,
        digest: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        stale: Item | None,
        *,
        forced: bool = False,
    ) -> Steps:
        """Return the steps of a computation; `forced` replaces the present result."""
        from efsstate.cache import singleflight

        compute: Callable[[], Any] = partial(self.function, *args, **kwargs)
        is_wanted: Callable[[Any], bool] = self._is_wanted
        if self._versions is not None:
            compute, is_wanted = self._guard_version(self._versions, digest, args, kwargs)
        request = singleflight.ComputeRequest(
            compute,
            key=self.fingerprint() if self._fingerprint is None else self._fingerprint,
            ttl=self.options.ttl,
            ttl_of=self.options.ttl_of,
            cache_if=is_wanted,
            lock_timeout=self.options.lock_timeout,
            forced=forced,
            tags=() if self.options.tags is None else self.tags(args, kwargs),
        )
        steps = singleflight.compute(self.results, digest, request, stale)
        is_strict = self.options.on_unstored == "raise"
        return _raise_refusal(steps, request) if is_strict else steps

    def tags(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        """Return the ids of a call's tags. Raise `TypeError` for tags that are no strings."""
        tags = self.options.tags
        if callable(tags):
            return tag_ids(tags(*args, **kwargs))
        return tuple(tags or ())  # `Options` has made ids of them

    def _guard_version(
        self,
        versions: VersionedKeys,
        digest: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Callable[[], Any], Callable[[Any], bool]]:
        """Return a computation, and the check that its version was that of `digest` throughout.

        Between the key and the computation there may be a wait of a minute; and a model may be
        swapped while the function uses it.
        """
        used: list[KeyBuilder] = []

        def compute() -> Any:
            keys = versions.current()
            is_same = keys is not None and self._digest_by(keys, args, kwargs) == digest
            used[:] = [keys] if keys is not None and is_same else []
            return self.function(*args, **kwargs)

        def is_wanted(value: Any) -> bool:
            # MUT: a-result-is-of-its-keys-version
            return bool(used) and versions.are_current(used[0]) and self._is_wanted(value)

        return compute, is_wanted

    def _is_wanted(self, value: Any) -> bool:
        """Return True if a result is to be kept; raise `EncodeError` for an awaitable."""
        if hasattr(type(value), "__await__"):
            raise EncodeError(
                "it is an awaitable; put @cached on the `async def` itself, below what hides it, or"
                " mark what hides it with inspect.markcoroutinefunction (Python 3.12)"
            )
        cache_if = self.options.cache_if
        return cache_if is None or bool(cache_if(value))


def _identify(
    function: Any, options: Options, variables: Captured
) -> tuple[str, object, Callable[[str], bytes] | None]:
    """Return the name of the function's cache, its version, and the encoder of late variables."""
    version = naming.source(function) if options.version == "source" else options.version
    if options.name is not None:  # a name that is given leaves captured variables out
        return options.name, version, None
    name = naming.namespace(function, options.version, variables.mark)
    return name, version, variables.encode_late


def _raise_refusal(steps: Steps, request: ComputeRequest) -> Steps:
    """Run the steps; raise the `EncodeError` of a result that can't be kept."""
    result = yield from steps
    if request.refusal is not None:
        raise request.refusal
    return result
