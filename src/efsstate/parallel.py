"""Threads for work that waits for a server: in order, within the deadline, and bounded."""

from __future__ import annotations

import os
import threading
import time

from efsstate import deadline, process
from efsstate.errors import DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeVar

    J = TypeVar("J")
    R = TypeVar("R")
    T = TypeVar("T")

AHEAD = 2  # results that may wait for the consumer, besides those that threads work on
_LOOK = 0.1  # seconds between two looks of who waits for calls: a handler may lose a wake-up
_IDLE = 5.0  # seconds between two looks of a thread without work at whether it is to end
_this_thread = threading.local()  # `run`: it works for that `each`, which watches the deadline


def mib(size: float) -> str:
    """Return a size for a person."""
    return f"{size / 2**20:.1f} MiB"


class Batch:
    """How far some work over `total` bytes has come, and the words for a deadline that ends it.

    `passes` is how often each byte counts; `progress` is called with (bytes done, bytes in all).
    """

    def __init__(
        self,
        path: str,
        total: int,
        verb: str,
        advice: str = "",
        *,
        passes: int = 1,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        self.path, self.done, self.total = path, 0, passes * total
        self._verb, self._advice, self._passes, self._progress = verb, advice, passes, progress
        self._started = time.monotonic()

    def add(self, amount: int) -> None:
        """Count `amount` more bytes as done."""
        self.done += amount
        if self._progress is not None:
            self._progress(self.done, self.total)

    def complete(self) -> None:
        """Count all bytes as done."""
        if self.done < self.total:
            self.add(self.total - self.done)

    def late(self) -> str:
        """Return the message of the error for a deadline that comes now."""
        done, total = mib(self.done / self._passes), mib(self.total / self._passes)
        seconds = time.monotonic() - self._started
        advice = f"; {self._advice}" if self._advice else ""
        return (
            f"{self.path}: {done} of {total} {self._verb} in {seconds:.1f} s"
            f" when the deadline came{advice}"
        )


def each(
    work: Callable[[J], R], jobs: Sequence[J], *, threads: int, late: Callable[[], str]
) -> Iterator[tuple[J, R]]:
    """Do `work` on every job with several threads, and yield (job, result) in the jobs' order.

    The first error ends it. Shortly before the deadline it raises `DeadlineExceeded(late())`, even
    if a thread hangs in the file system. So a single job gets a thread too, unless there is no
    deadline, or this thread works for another `each`, which watches the deadline already.
    """
    remaining = deadline.remaining()
    outer = getattr(_this_thread, "run", None)
    if outer is not None or (len(jobs) < 2 and remaining is None):
        for job in jobs:
            if outer is not None and outer.is_stopped:
                raise DeadlineExceeded(late())  # no caller waits for this thread any more
            yield job, work(job)
        return
    run = _Run(work, jobs, threads, remaining)
    try:
        run.start()
        for index, job in enumerate(jobs):
            yield job, run.result(index, late)
    finally:
        run.stop()


class _Run:
    """The threads of one `each`. All fields are guarded by `_lock`.

    A thread takes the next job unless `AHEAD` results more than there are threads wait for the
    consumer: results may be large buffers.
    """

    def __init__(
        self,
        work: Callable[[Any], Any],
        jobs: Sequence[Any],
        threads: int,
        remaining: float | None,
    ) -> None:
        self._work, self._jobs, self._threads = work, jobs, threads
        self._until: float | None = None
        if remaining is not None:
            self._until = time.monotonic() + max(0.0, remaining - deadline.MARGIN)
        # Entered by itself: `Condition.__enter__` is Python code, and a signal handler that raises
        # in it would leave the lock taken for ever.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._results: dict[int, Any] = {}
        self._error: BaseException | None = None
        self._taken = self._consumed = 0
        self.is_stopped = False
        self._begun: list[threading.Thread] = []

    def start(self) -> None:
        for number in range(min(self._threads, len(self._jobs))):
            worker = threading.Thread(target=self._run, daemon=True, name="efsstate-model")
            try:
                process.start(worker)
            except RuntimeError:
                if not number:
                    raise
                break  # the process may have no more threads; those it has do all jobs

    def _run(self) -> None:
        # By itself: a signal handler may raise in `start` after it was started, and `stop` must
        # wait for it.
        # MUT: a-thread-is-known-before-it-works
        self._begun.append(threading.current_thread())
        _this_thread.run = self
        while (index := self._take()) is not None:
            try:
                result = self._work(self._jobs[index])
            except BaseException as error:
                with self._lock:
                    self._error = self._error or error
                    self._changed.notify_all()
                return
            with self._lock:
                self._results[index] = result
                if index == self._consumed:  # waking threads for any other costs them their turn
                    self._changed.notify_all()
            del result

    def _take(self) -> int | None:
        """Return the index of the next job, or None if there is no more to do."""
        with self._lock:
            while not self._is_over() and self._taken >= self._consumed + self._threads + AHEAD:
                self._changed.wait()
            if self._is_over():
                return None
            self._taken += 1
            return self._taken - 1

    def _is_over(self) -> bool:
        return self.is_stopped or self._error is not None or self._taken >= len(self._jobs)

    def result(self, index: int, late: Callable[[], str]) -> Any:
        with self._lock:
            while True:
                wait = None if self._until is None else self._until - time.monotonic()
                # Checked before every job, ready or not; otherwise a read that keeps up with its
                # consumer would never be stopped.
                if wait is not None and wait <= 0:
                    raise DeadlineExceeded(late())
                if index in self._results or self._error is not None:
                    break
                self._changed.wait(wait)
            if self._error is not None:
                raise self._error
            self._consumed = index + 1
            self._changed.notify_all()
            return self._results.pop(index)

    def stop(self) -> None:
        with self._lock:
            self.is_stopped = True
            self._changed.notify_all()
        # A thread that has yet to begin will do nothing: it need not be waited for. A handler may
        # have cut it off as it was started, and then it never begins.
        for worker in self._begun:
            # A thread that hangs is left behind. The others end before the caller closes the files.
            limit = None
            if self._until is not None:
                limit = max(0.0, self._until + deadline.MARGIN / 2 - time.monotonic())
            worker.join(limit)
        self._error = None  # its traceback refers to the buffers: they would keep each other alive


class Call:
    """A call that a thread of `Workers` makes; `is_over` once it has returned or raised."""

    __slots__ = ("_context", "_error", "_function", "_value", "is_over", "is_taken")

    def __init__(self, function: Callable[[], Any]) -> None:
        import contextvars

        self._function, self._context = function, contextvars.copy_context()
        self._value: Any = None
        self._error: BaseException | None = None
        self.is_taken = self.is_over = False

    def run(self) -> None:
        """Make the call, in the context of who asked for it."""
        try:
            self._value = self._context.run(self._function)
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """Return the call's result, or raise its exception. The caller asks for it once."""
        value, error = self._value, self._error
        self._value = self._error = None
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # it would be in a cycle with this frame


class Workers:
    """At most `most` threads that make the calls of one other thread.

    A signal handler may raise at any line of that other thread. In an executor of
    `concurrent.futures` it would leave a lock taken, for which the threads wait for ever. Here the
    other thread takes locks only by calls of C code, which no handler interrupts.
    """

    def __init__(self, most: int, name: str) -> None:
        from queue import SimpleQueue

        self._most, self._name = most, name
        self._queue: SimpleQueue[Call | None] = SimpleQueue()
        self._calls: list[Call] = []
        self._threads: list[threading.Thread] = []
        self._wake = threading.Lock()
        self._pid = os.getpid()
        self._is_stopped = False

    def submit(self, function: Callable[[], Any]) -> Call:
        """Have a thread call `function`, after the calls before."""
        call = Call(function)
        self._calls = [*(before for before in self._calls if not before.is_over), call]
        self._queue.put(call)
        if len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, daemon=True, name=self._name)
            self._threads.append(thread)
            try:
                process.start(thread)
            except RuntimeError:
                self._threads.remove(thread)
                if not self._threads:
                    raise
                self._most = len(self._threads)  # the process may have no more
        return call

    def first(self, calls: Sequence[Call], seconds: float | None) -> Call | None:
        """Return the first of `calls` that is over; None if none is after so many seconds."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            for call in calls:
                if call.is_over:
                    return call
            remaining = _LOOK if until is None else until - time.monotonic()
            if remaining <= 0:
                return None
            self._wake.acquire(timeout=min(remaining, _LOOK))

    def stop(self, *, wait: bool) -> None:
        """Begin no call any more; `wait` for those that were begun."""
        # MUT: no-call-begins-after-the-stop
        self._is_stopped = True
        for _ in self._threads:
            self._queue.put(None)
        if self._pid != os.getpid():
            return  # a forked child has none of the threads
        # Not for the threads: one that a handler cut off as it was started never gets to its end.
        # MUT: calls-that-were-begun-are-waited-for
        while wait and any(call.is_taken and not call.is_over for call in self._calls):
            self._wake.acquire(timeout=_LOOK)

    def _work(self) -> None:
        from queue import Empty

        while not self._is_stopped:
            try:
                call = self._queue.get(timeout=_IDLE)
            except Empty:  # a handler may have cut off `stop`
                continue
            if call is None:
                return
            # This thread notes the call, and then looks at the stop; `stop` does the two in the
            # opposite order. So one of them sees the other.
            call.is_taken = True
            if not self._is_stopped:
                call.run()
            call.is_over = True
            del call  # its result may be large
            try:
                self._wake.release()
            except RuntimeError:
                pass  # the wake-up of an earlier call was not needed yet


def spread(items: Iterable[T], work: Callable[[T], None], *, workers: int) -> None:
    """Call `work` with each of `items`, by `workers` threads; this thread is one of them.

    `items` is consumed lazily, and by one thread at a time. The first error is raised after all
    threads have stopped.
    """
    waiting, lock = iter(items), threading.Lock()
    errors: list[BaseException] = []

    def run() -> None:
        while not errors:
            with lock:
                item = next(waiting, None)
            if item is None:
                return
            try:
                work(item)
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(workers - 1)]
    for thread in threads:
        process.start(thread)
    run()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
