"""The steps of a computation, and `run`, which performs them on the caller's thread.

`singleflight` is written once, as generators that yield steps; `aio` performs the same steps in a
task. A step's answer is sent into the generator. A failure is an answer too, so that the generator
decides about it. Only an interruption is thrown in, so that it gives back all it holds.
"""

from __future__ import annotations

import time
from functools import partial

from efsstate.cache import flight as flights
from efsstate.cache import io_threads
from efsstate.cache.namespace import FAILURES
from efsstate.cache.tiers import MISSING
from efsstate.errors import EncodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from efsstate.cache.flight import Flight
    from efsstate.cache.memory import Item
    from efsstate.cache.tiers import TieredCache

    Steps = Generator["Step", Any, Any]

_set_context: Any = vars(BaseException)["__context__"].__set__


class Interrupted(BaseException):
    """Thrown into the generator in place of the exception that interrupts it.

    That one may be of any class: a GeneratorExit or StopIteration would not pass through.
    """


class Outcome:
    """The result of a function of the caller's, or its exception."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value, self.error = value, error

    def unwrap(self) -> Any:
        """Return the value, or raise the error as the function raised it.

        Its context stays, although the caller may be handling another exception. No frame of its
        traceback refers to it: that would be a cycle, which keeps the frames and all they hold.
        """
        error, self.error = self.error, None
        if error is None:
            return self.value
        context = error.__context__
        try:
            raise error
        finally:
            # Not by assignment: a class may refuse that, such as a frozen dataclass.
            _set_context(error, context)
            del error, context


class Step:
    """Something to be done for a generator, which gets the answer."""

    __slots__ = ()

    def perform(self, cache: TieredCache) -> Any:
        """Do it on the current thread."""
        raise NotImplementedError


class CallMount(Step):
    """Call a function that asks the mount; the answer is its result, or the failure, reported.

    `on_late_result` gets a result that comes after the call was given up.
    """

    __slots__ = ("doing", "function", "on_late_result")

    def __init__(
        self,
        doing: str,
        function: Callable[[], Any],
        on_late_result: Callable[[Any], object] = io_threads.discard_spare_copy,
    ) -> None:
        self.doing, self.function, self.on_late_result = doing, function, on_late_result

    def perform(self, cache: TieredCache) -> Any:
        """Perform the step on the current thread, or on one of the mount's."""
        try:
            if cache.io_timeout is None:
                return self.function()
            return io_threads.call(
                cache.root_path, self.function, cache.io_timeout, self.on_late_result
            )
        except FAILURES as error:
            cache.report_failure(error, self.doing)
            return None


class Release(Step):
    """Give something back to the mount, even while its circuit is open; there is no answer."""

    __slots__ = ("doing", "function")

    def __init__(self, doing: str, function: Callable[[], Any]) -> None:
        self.doing, self.function = doing, function

    def perform(self, cache: TieredCache) -> None:
        """Perform the step on the current thread, or on one of the mount's."""
        try:
            if cache.io_timeout is None:
                self.function()
            else:
                io_threads.call(cache.root_path, self.function, cache.io_timeout, always=True)
        except FAILURES as error:
            cache.report_failure(error, self.doing)


class StoreResult(Step):
    """Encode a value, and pass it to `store`; the answer is the item, and True if it was stored.

    It is an EncodeError if the value cannot be stored. `encode(detach=…)` runs on the caller's
    thread, before anybody else gets the value. `detach` asks it to copy all that the caller can
    change: the thread that stores it may do so long after the caller has gone on.
    """

    __slots__ = ("encode", "store")

    def __init__(self, encode: Callable[..., Any], store: Callable[[Any], bool]) -> None:
        self.encode, self.store = encode, store

    def perform(self, cache: TieredCache) -> Any:
        """Perform the step on the current thread, storing on one of the mount's if need be."""
        try:
            encoded = self.encode(detach=cache.io_timeout is not None)
        except EncodeError as error:
            return error
        except FAILURES as error:
            cache.report_failure(error, "keep a result")
            return None, False
        is_stored = cache.attempt("keep a result", partial(self.store, encoded), default=False)
        return encoded.item, is_stored


class Sleep(Step):
    """Wait for `seconds`."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def perform(self, _: TieredCache) -> None:
        """Block the current thread."""
        time.sleep(self.seconds)


class Await(Step):
    """Wait for a flight for at most `timeout` seconds; the answer is True if it finished."""

    __slots__ = ("flight", "timeout")

    def __init__(self, flight: Flight, timeout: float) -> None:
        self.flight, self.timeout = flight, timeout

    def perform(self, _: TieredCache) -> bool:
        """Block the current thread."""
        return self.flight.wait(self.timeout)


class TakeValue(Step):
    """Take an item's value for the caller; the answer is MISSING if it cannot be read."""

    __slots__ = ("item",)

    def __init__(self, item: Item) -> None:
        self.item = item

    def perform(self, cache: TieredCache) -> Any:
        """Decode it on the current thread."""
        return cache.value(self.item, MISSING)


class Compute(Step):
    """Call the caller's function, as a computation of `flight`; the answer is an Outcome."""

    __slots__ = ("flight", "function")

    def __init__(self, function: Callable[[], Any], flight: Flight) -> None:
        self.function, self.flight = function, flight

    def perform(self, _: TieredCache) -> Outcome:
        """Call it on the current thread."""
        token = flights.start_computing(self.flight)
        try:
            return Outcome(self.function())
        except BaseException as error:
            return Outcome(error=error)
        finally:
            flights.stop_computing(token)


def run(cache: TieredCache, steps: Steps) -> Any:
    """Perform `steps` on the current thread, and return or raise their outcome.

    An exception that comes between two steps, such as a signal handler may raise, interrupts the
    generator: all that it holds must be given back, and the collector, which would end it later,
    performs no steps.
    """
    answer: Any = None
    interruption: BaseException | None = None
    is_interrupted = False
    while True:
        try:
            while True:  # within the `try`: a signal handler may also run where a loop turns
                if is_interrupted:
                    is_interrupted = False
                    step = steps.throw(Interrupted)
                else:
                    step = steps.send(answer)
                answer = step.perform(cache)
        except BaseException as error:
            if steps.gi_frame is None:  # type: ignore[attr-defined]
                end = error
                break
            answer, is_interrupted = None, True
            interruption = interruption or error
    outcome = end.value if isinstance(end, StopIteration) else conclude(end, interruption)
    # Or they would be in a cycle with this frame, which is in their tracebacks.
    del end, interruption
    return outcome.unwrap() if type(outcome) is Outcome else outcome


def conclude(end: BaseException, interruption: BaseException | None) -> Any:
    """Return the result of a generator of steps, or an Outcome, from its last exception."""
    if isinstance(end, StopIteration):
        return end.value
    if isinstance(end, Interrupted):
        return Outcome(error=interruption)
    return Outcome(error=end)
