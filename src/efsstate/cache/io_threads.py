"""Call the mount on other threads, and stop calling while it hangs: IoPool and CircuitBreaker.

NFS mounts are hard: a call on a mount that is cut off never returns, and only another thread can
leave it behind. The threads are daemons, so that a process ends although some of them hang.

A call that is left behind goes on, at any time later, with the objects that it was given. So who
hands over work with a caller's value encodes that value before, on the caller's thread.
"""

from __future__ import annotations

import errno
import sys
import threading
import time

from efsstate import process
from efsstate.errors import MountTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_MOST = 32  # threads that wait for the mount, so as many calls are in flight at once
_MOST_HANGING = 3  # calls that hang until the circuit opens
_IDLE = 10.0  # seconds after which a thread without work ends
_TURN = 0.01  # seconds after which one of many calls lets others have its thread
_ANOTHER_TURN: Any = object()  # returned by a job that is to run again


def discard_spare_copy(result: Any) -> None:
    """Free the copy of a value that was made for a caller who does not wait for it any more."""
    if getattr(result, "spare_copy", None) is not None:
        result.spare_copy = None


class Job:
    """One call on another thread: `wait` for it, or have a function called when it is done.

    With a `root`, the call is not begun while that root's circuit is open, or after the job was
    abandoned.
    """

    __slots__ = (
        "_began", "_done", "_function", "_lock", "_on_done", "_on_late_result", "_queued", "_root",
        "_withdrawn", "error", "result",
    )  # fmt: skip

    def __init__(self, function: Callable[[], Any], root: str | None) -> None:
        self._function, self._root = function, root
        self._done = process.Latch()
        self._lock = threading.RLock()
        self._on_done: Callable[[], object] | None = None
        self._on_late_result: Callable[[Any], object] | None = None
        self._queued = time.monotonic()
        self._began = 0.0  # 0: it waits for its turn
        self._withdrawn = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> bool:
        """Make the call, on the current thread; return False if it is to have another turn."""
        with self._lock:
            refused = self._withdrawn or (self._root is not None and breaker.is_open(self._root))
            self._began = time.monotonic()
        if refused:
            self.error = circuit_error(self._root or "")
        else:
            try:
                self.result = self._function()
            except BaseException as error:
                self.error = error
            breaker.last_return = time.monotonic()
        with self._lock:
            if self.result is _ANOTHER_TURN:
                self._queued, self._began = breaker.last_return, 0.0
                self.result = None
                return False
            self._done.set()
            on_done, on_late_result = self._on_done, self._on_late_result
        if on_late_result is not None and self.error is None:
            on_late_result(self.result)
        if on_done is not None:
            on_done()
        return True

    def remaining(self, timeout: float | None) -> float | None:
        """Return the seconds of `timeout` that remain, or None if it is None.

        They count from the call's beginning. While it waits for its turn they count from the last
        return of any call: that it waits is no sign of a mount that hangs, unless all calls do.
        """
        if timeout is None:
            return None
        return (self._began or max(self._queued, breaker.last_return)) + timeout - time.monotonic()

    def wait(self, timeout: float | None) -> bool:
        """Wait for at most `timeout` seconds (see `remaining`); return True if it is done."""
        while not self._done.is_set:
            remaining = self.remaining(timeout)
            if remaining is not None and remaining <= 0:
                return False
            self._done.wait(remaining)
        return True

    def call_when_done(self, function: Callable[[], object]) -> None:
        """Call `function` when the job is done, on any thread; at once if it is."""
        with self._lock:
            if not self._done.is_set:
                self._on_done = function
                return
        function()

    def abandon(self, on_late_result: Callable[[Any], object]) -> bool:
        """Give the job up, and pass its result to `on_late_result` if it comes after all.

        Return False if it is done.
        """
        with self._lock:
            if self._done.is_set:
                return False
            self._on_late_result = on_late_result
            self._withdrawn = self._root is not None
            return True

    def withdraw(self) -> bool:
        """Keep the call from being begun; return False if it is under way, or done."""
        with self._lock:
            self._withdrawn = not self._began and not self._done.is_set
            return self._withdrawn

    def outcome(self) -> Any:
        """Return or raise the call's outcome."""
        error, self.error = self.error, None
        if error is None:
            return self.result
        try:
            raise error
        finally:
            del error  # else it would be in a cycle with this frame


class CircuitBreaker:
    """The calls that hang, by root: a circuit is open, and its root not called, while several do.

    `last_return` is when a call last came back, by the monotonic clock.
    """

    def __init__(self) -> None:
        self._hanging: dict[str, set[Job]] = {}
        self.last_return = 0.0

    def is_open(self, root: str) -> bool:
        """Return True if the mount at `root` is not to be called."""
        return len(self._hanging.get(root, ())) >= _MOST_HANGING

    def count(self) -> int:
        """Return how many calls hang, on all roots."""
        return sum(map(len, list(self._hanging.values())))

    def add(self, root: str, job: Job) -> None:
        """Count `job` as hanging until it returns."""
        jobs = self._hanging.setdefault(root, set())
        jobs.add(job)
        job.call_when_done(lambda: jobs.discard(job))

    def close_all(self) -> None:
        """Forget all calls that hang."""
        self._hanging.clear()


class IoPool:
    """At most `_MOST` threads that run jobs in turn, and one more for each job that hangs."""

    def __init__(self) -> None:
        self._jobs: Any = _new_queue()
        self._lock = process.lock()
        self._threads = 0
        self._due = 0  # jobs that are queued or under way

    def start(self, job: Job) -> None:
        """Run `job` on a thread. Raise OSError if the process can have no thread."""
        with self._lock:
            self._due += 1
            try:
                self._add_thread()
            except BaseException:
                self._due -= 1
                raise
            self._jobs.put(job)

    def replace_hanging_thread(self) -> None:
        """Give the jobs that wait for their turn another thread, because a call hangs."""
        with self._lock:
            self._add_thread()

    def _add_thread(self) -> None:
        if self._due > self._threads and self._threads < _MOST + breaker.count():
            try:
                process.start(threading.Thread(target=self._work, name="efsstate-io", daemon=True))
            except RuntimeError as error:  # no more threads, or the interpreter is ending
                if not self._threads:
                    raise OSError(errno.EAGAIN, f"no thread for the mount: {error}") from None
            else:
                self._threads += 1

    def _work(self) -> None:
        from _queue import Empty

        _this_thread.is_worker = True
        while True:
            try:
                job = self._jobs.get(True, _IDLE)
            except Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._threads -= 1
                        return
                continue
            if job.run():
                with self._lock:
                    self._due -= 1
            else:
                self._jobs.put(job)
            del job


def _new_queue() -> Any:
    """Return a SimpleQueue of the module that gevent replaces, if anything imported that."""
    module: Any = sys.modules.get("queue")
    if module is None:
        import _queue as module  # the same class, without its module
    return module.SimpleQueue()


breaker = CircuitBreaker()
_pool: IoPool | None = None
_this_thread = threading.local()  # `is_worker`: it is a thread of the pool


@process.after_fork
@process.at_reset
def _forget_threads() -> None:
    """In a forked child: the threads, and the calls that hang, are the parent's."""
    global _pool
    _pool = None
    breaker.close_all()


def circuit_error(root: str) -> MountTimeout:
    """Return the error for a call that is not made because the circuit of `root` is open."""
    return MountTimeout(
        f"{root}: the mount does not answer; it is not called again until a call returns"
    )


def submit(function: Callable[[], Any], root: str | None = None) -> Job:
    """Call `function` on a thread of the pool: see `Job`.

    On such a thread it is called at once: if all threads waited there for others, none could go on.
    """
    global _pool
    job = Job(function, root)
    if getattr(_this_thread, "is_worker", False):
        while not job.run():
            pass
        return job
    if _pool is None:
        _pool = IoPool()
    _pool.start(job)
    return job


def begin(root: str, function: Callable[[], Any], *, always: bool = False) -> Job:
    """Call `function` on a thread, for a wait that may be given up.

    Raise MountTimeout if the circuit is open, unless `always`, for releases.
    """
    if always:
        return submit(function)
    if breaker.is_open(root):
        raise circuit_error(root)
    return submit(function, root)


def give_up(
    root: str,
    job: Job,
    timeout: float,
    on_late_result: Callable[[Any], object] = discard_spare_copy,
) -> Any:
    """Count `job`, which took longer than `timeout`, as hanging, and raise MountTimeout.

    Return its outcome if it is done after all.
    """
    breaker.add(root, job)
    was_abandoned = job.abandon(on_late_result)
    if _pool is not None:
        _pool.replace_hanging_thread()
    if was_abandoned:
        raise MountTimeout(f"{root}: the mount did not answer within {timeout:g} s")
    return job.outcome()


def leave(job: Job, on_late_result: Callable[[Any], object]) -> None:
    """Give `job` up, because the caller was interrupted, and pass on its result, now or later."""
    if not job.abandon(on_late_result) and job.error is None:
        on_late_result(job.result)


def call(
    root: str,
    function: Callable[[], Any],
    timeout: float | None,
    on_late_result: Callable[[Any], object] = discard_spare_copy,
    *,
    always: bool = False,
) -> Any:
    """Return `function()`; with a `timeout` in seconds it is called on a thread.

    Raise MountTimeout if it takes longer than that, or if the circuit is open.
    """
    if timeout is None:
        return function()
    job = begin(root, function, always=always)
    try:
        is_done = job.wait(timeout)
    except BaseException:  # a signal handler raised
        leave(job, on_late_result)
        raise
    return job.outcome() if is_done else give_up(root, job, timeout, on_late_result)


def spread(
    root: str,
    function: Callable[[Any], Any],
    arguments: Sequence[Any],
    timeout: float | None,
    width: int = 16,
) -> list[Any]:
    """Return `function` of each of `arguments`, in order, with `width` calls at a time on threads.

    With a `timeout`, a call that takes longer is given up, and its place holds None. Raise an
    exception of `function`, and make no more calls then.
    """
    if timeout is not None and breaker.is_open(root):
        return [None] * len(arguments)
    spreading = _Spread(function, arguments)
    jobs: list[Job] = []
    try:
        try:
            # Added one by one: if the next fails, those that were started are waited for.
            for _ in range(min(width, len(arguments)) - (timeout is None)):
                jobs += [submit(spreading.turn, None if timeout is None else root)]
        except (OSError, ImportError) as error:
            process.raise_of_handler(error)
            # No more threads: those that exist do the work.
        while timeout is None and spreading.turn() is _ANOTHER_TURN:
            pass
        for job in jobs:
            spreading.wait_for(root, job, timeout)
    finally:
        spreading.end()
    return spreading.results


class _Spread:
    """The calls of one `spread`: each turn of a thread takes as many of the rest as it has time."""

    def __init__(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> None:
        self._function, self._arguments = function, arguments
        self._rest = list(range(len(arguments)))[::-1]
        self._is_over = False
        self.results: list[Any] = [None] * len(arguments)

    def turn(self) -> Any:
        """Make calls for a short while; return `_ANOTHER_TURN` if there may be more to make."""
        until = time.monotonic() + _TURN
        while True:
            try:
                index = self._rest.pop()
            except IndexError:
                return None
            self.results[index] = self._function(self._arguments[index])
            if self._is_over:
                discard_spare_copy(self.results[index])
            if time.monotonic() >= until:
                return _ANOTHER_TURN

    def wait_for(self, root: str, job: Job, timeout: float | None) -> None:
        """Wait for `job`, one of the threads' turns."""
        if not self._rest and job.withdraw():
            return  # its turn may never come, and it has nothing to do
        try:
            if job.wait(timeout):
                job.outcome()
            elif self._rest or not job.withdraw():
                give_up(root, job, timeout or 0.0)
        except MountTimeout:
            pass

    def end(self) -> None:
        """Make no more calls."""
        self._rest.clear()
        self._is_over = True
