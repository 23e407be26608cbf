"""Work off the caller's thread, and the breaker: a mount that hangs is left alone until it answers again.

NFS mounts are hard: a call on one that is cut off never returns, and only another thread can leave it. The threads are
daemons, so that a process ends although some of them hang.
"""

from __future__ import annotations

import errno
import threading
import time
from os import register_at_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _queue import SimpleQueue
    from collections.abc import Callable, Sequence
    from typing import Any

_MOST = 32  # threads that wait for the mount; as many calls are in flight at once
_MOST_STUCK = 3  # calls that hang until the mount is left alone
_IDLE = 10.0  # seconds after which a thread without work ends


class Stuck(TimeoutError):  # noqa: N818 - a state of the mount, forgiven by every caller
    """The mount did not answer in time, or is being left alone because it did not."""


class Job:
    """One call on another thread: `wait` for it, or have `tell` called when it is done."""

    __slots__ = ("_done", "_function", "_lock", "_tell", "abandoned", "error", "result")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._tell: Callable[[], object] | None = None
        self.abandoned: Callable[[Any], object] | None = None  # gets a result that came too late
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Make the call, on the thread that does this."""
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error
        with self._lock:
            self._done.set()
            tell, abandoned = self._tell, self.abandoned
        if abandoned is not None and self.error is None:
            abandoned(self.result)
        if tell is not None:
            tell()

    def wait(self, timeout: float | None) -> bool:
        """Whether it was done within `timeout` seconds."""
        return self._done.wait(timeout)

    def tell(self, function: Callable[[], object]) -> None:
        """Have `function` called, on any thread, when it is done: at once if it is."""
        with self._lock:
            if not self._done.is_set():
                self._tell = function
                return
        function()

    def abandon(self, late: Callable[[Any], object]) -> bool:
        """Give it up: `late` gets the result when it comes after all. False if it is done."""
        with self._lock:
            if self._done.is_set():
                return False
            self.abandoned = late
            return True

    def outcome(self) -> Any:
        """What the call returned or raised."""
        if self.error is not None:
            raise self.error
        return self.result


class _Threads:
    """At most `_MOST` threads that do jobs in turn."""

    def __init__(self) -> None:
        from _queue import SimpleQueue  # queue.SimpleQueue, without its module

        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._count = 0  # threads
        self._due = 0  # jobs that are queued or under way: never more than threads, unless there are `_MOST`

    def start(self, job: Job, more: int = 0) -> None:
        """Have `job` done; `more` threads than usual may be there, for those that hang."""
        with self._lock:
            if self._due >= self._count and self._count < _MOST + more:
                try:
                    threading.Thread(target=self._work, name="efsstate-io", daemon=True).start()
                except RuntimeError as error:  # no more threads, or the interpreter is ending
                    if not self._count:
                        raise OSError(errno.EAGAIN, f"no thread for the mount: {error}") from None
                else:
                    self._count += 1
            self._due += 1
            self._jobs.put(job)

    def _work(self) -> None:
        from _queue import Empty

        while True:
            try:
                job = self._jobs.get(True, _IDLE)
            except Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._count -= 1
                        return
                continue
            job.run()
            del job
            with self._lock:
                self._due -= 1


_threads: _Threads | None = None
_stuck: dict[str, set[Job]] = {}  # by root


def _after_fork() -> None:
    global _threads
    _threads = None
    _stuck.clear()


register_at_fork(after_in_child=_after_fork)


def submit(function: Callable[[], Any]) -> Job:
    """Have `function` called on a thread."""
    global _threads
    if _threads is None:
        _threads = _Threads()
    job = Job(function)
    _threads.start(job, sum(map(len, _stuck.values())))
    return job


def is_left_alone(root: str) -> bool:
    """Whether the mount is not to be asked: several calls hang."""
    return len(_stuck.get(root, ())) >= _MOST_STUCK


def begin(root: str, function: Callable[[], Any], *, always: bool = False) -> Job:
    """Have `function` called on a thread, for a wait that may be given up; `Stuck` if the mount is being left alone.

    `always`: then too, for what must be given back.
    """
    if not always and is_left_alone(root):
        raise Stuck(f"{root}: the mount does not answer: it is left alone until a call returns")
    return submit(function)


def give_up(root: str, job: Job, timeout: float, late: Callable[[Any], object] = repr) -> Any:
    """`job` took longer than `timeout`: count it as hanging until it returns, and raise `Stuck`; or its outcome after all."""
    hanging = _stuck.setdefault(root, set())
    hanging.add(job)
    job.tell(lambda: hanging.discard(job))
    if job.abandon(late):
        raise Stuck(f"{root}: the mount did not answer within {timeout:g} s")
    return job.outcome()


def call(
    root: str,
    function: Callable[[], Any],
    timeout: float | None,
    late: Callable[[Any], object] = repr,
    *,
    always: bool = False,
) -> Any:
    """`function()`; with a `timeout` in seconds on a thread, and `Stuck` if it takes longer or the mount is left alone."""
    if timeout is None:
        return function()
    job = begin(root, function, always=always)
    if job.wait(timeout):
        return job.outcome()
    return give_up(root, job, timeout, late)


def spread(
    root: str, function: Callable[[Any], Any], arguments: Sequence[Any], timeout: float | None, width: int = 16
) -> list[Any]:
    """`function` of each of `arguments`, in order, `width` calls at a time on threads; None where one was not done.

    With a `timeout` it ends when no call has come back for so long. What `function` raises is raised.
    """
    results: list[Any] = [None] * len(arguments)
    rest = list(range(len(arguments)))[::-1]
    last = [time.monotonic()]

    def some() -> None:
        while True:
            try:
                index = rest.pop()
            except IndexError:
                return
            results[index] = function(arguments[index])
            last[0] = time.monotonic()

    width = min(width, len(arguments))
    if timeout is None:
        jobs = [submit(some) for _ in range(width - 1)]
        some()
    elif is_left_alone(root):
        return results
    else:
        jobs = [submit(some) for _ in range(width)]
    for job in jobs:
        while not job.wait(timeout):
            if timeout is not None and time.monotonic() - last[0] >= timeout:
                rest.clear()
                try:
                    give_up(root, job, timeout)
                except Stuck:
                    break
        else:
            job.outcome()
    return results
