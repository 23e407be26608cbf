"""Work off the caller's thread, and the breaker: a mount that hangs is left alone until it answers again.

NFS mounts are hard: a call on one that is cut off never returns, and only another thread can leave it. The threads are
daemons, so that a process ends although some of them hang.
"""

from __future__ import annotations

import errno
import threading
import time
from os import register_at_fork

from efsstate.errors import MountTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _queue import SimpleQueue
    from collections.abc import Callable, Sequence
    from typing import Any

_MOST = 32  # threads that wait for the mount; as many calls are in flight at once
_MOST_STUCK = 3  # calls that hang until the mount is left alone
_IDLE = 10.0  # seconds after which a thread without work ends
_TURN = 0.01  # seconds after which one of many calls lets others have its thread
_AGAIN: Any = object()  # returned by a job that is to have another turn


def drop(result: Any) -> None:
    """What becomes of a result that nobody waits for any more: the copy that was made for the caller is not kept."""
    if getattr(result, "first", None) is not None:
        result.first = None


class Job:
    """One call on another thread: `wait` for it, or have `tell` called when it is done.

    With a `root` it is not begun where that is being left alone, or where it was given up before.
    """

    __slots__ = (
        "_began", "_done", "_function", "_lock", "_queued", "_root", "_tell", "_withdrawn", "abandoned", "error", "result",
    )  # fmt: skip

    def __init__(self, function: Callable[[], Any], root: str | None) -> None:
        self._function, self._root = function, root
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._tell: Callable[[], object] | None = None
        self._queued = time.monotonic()
        self._began = 0.0  # 0: it waits for its turn
        self._withdrawn = False
        self.abandoned: Callable[[Any], object] | None = None  # gets a result that came too late
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> bool:
        """Make the call, on the thread that does this; False if it is to have another turn."""
        global _returned
        with self._lock:
            refused = self._withdrawn or (self._root is not None and is_left_alone(self._root))
            self._began = time.monotonic()
        if refused:
            self.error = MountTimeout(
                f"{self._root}: the mount does not answer: it is left alone until a call returns"
            )
        else:
            try:
                self.result = self._function()
            except BaseException as error:
                self.error = error
            _returned = time.monotonic()
        with self._lock:
            if self.result is _AGAIN:
                self._queued, self._began = _returned, 0.0
                self.result = None
                return False
            self._done.set()
            tell, abandoned = self._tell, self.abandoned
        if abandoned is not None and self.error is None:
            abandoned(self.result)
        if tell is not None:
            tell()
        return True

    def left(self, timeout: float | None) -> float | None:
        """Seconds that are left of `timeout` since it began; while it waits for its turn, since a call last came back.

        A call that waits for its turn is not a mount that hangs, unless all that have theirs do.
        """
        if timeout is None:
            return None
        return (self._began or max(self._queued, _returned)) + timeout - time.monotonic()

    def wait(self, timeout: float | None) -> bool:
        """Whether it was done within `timeout` seconds: see `left`."""
        while not self._done.is_set():
            left = self.left(timeout)
            if left is not None and left <= 0:
                return False
            self._done.wait(left)
        return True

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
            self._withdrawn = self._root is not None
            return True

    def withdraw(self) -> bool:
        """Have it not done; False if it is under way, or done."""
        with self._lock:
            self._withdrawn = not self._began and not self._done.is_set()
            return self._withdrawn

    def outcome(self) -> Any:
        """What the call returned or raised."""
        if self.error is not None:
            raise self.error
        return self.result


class _Threads:
    """At most `_MOST` threads that do jobs in turn, and one more for each that hangs."""

    def __init__(self) -> None:
        from _queue import SimpleQueue  # queue.SimpleQueue, without its module

        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._count = 0  # threads
        self._due = 0  # jobs that are queued or under way: never more than threads, unless there are `_MOST`

    def start(self, job: Job) -> None:
        """Have `job` done."""
        with self._lock:
            self._due += 1
            try:
                self._hire()
            except BaseException:
                self._due -= 1
                raise
            self._jobs.put(job)

    def hire(self) -> None:
        """A call hangs: who waits for its turn gets another thread."""
        with self._lock:
            self._hire()

    def _hire(self) -> None:
        if self._due > self._count and self._count < _MOST + sum(map(len, list(_stuck.values()))):
            try:
                threading.Thread(target=self._work, name="efsstate-io", daemon=True).start()
            except RuntimeError as error:  # no more threads, or the interpreter is ending
                if not self._count:
                    raise OSError(errno.EAGAIN, f"no thread for the mount: {error}") from None
            else:
                self._count += 1

    def _work(self) -> None:
        from _queue import Empty

        _this.works = True
        while True:
            try:
                job = self._jobs.get(True, _IDLE)
            except Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._count -= 1
                        return
                continue
            if job.run():
                with self._lock:
                    self._due -= 1
            else:
                self._jobs.put(job)
            del job


_threads: _Threads | None = None
_stuck: dict[str, set[Job]] = {}  # by root
_returned = 0.0  # when a call last came back, by the monotonic clock
_this = threading.local()  # `works`: on one of our threads


def _after_fork() -> None:
    global _threads
    _threads = None
    _stuck.clear()


register_at_fork(after_in_child=_after_fork)


def submit(function: Callable[[], Any], root: str | None = None) -> Job:
    """Have `function` called on a thread: see `Job`.

    On one of the threads it is called here and now: who waits there for the others would wait for ever once all do.
    """
    global _threads
    job = Job(function, root)
    if getattr(_this, "works", False):
        while not job.run():
            pass
        return job
    if _threads is None:
        _threads = _Threads()
    _threads.start(job)
    return job


def is_left_alone(root: str) -> bool:
    """Whether the mount is not to be asked: several calls hang."""
    return len(_stuck.get(root, ())) >= _MOST_STUCK


def begin(root: str, function: Callable[[], Any], *, always: bool = False) -> Job:
    """Have `function` called on a thread, for a wait that may be given up; `Stuck` if the mount is being left alone.

    `always`: then too, for what must be given back.
    """
    if always:
        return submit(function)
    if is_left_alone(root):
        raise MountTimeout(
            f"{root}: the mount does not answer: it is left alone until a call returns"
        )
    return submit(function, root)


def give_up(root: str, job: Job, timeout: float, late: Callable[[Any], object] = drop) -> Any:
    """`job` took longer than `timeout`: count it as hanging until it returns, and raise `MountTimeout`; or its outcome after all."""
    hanging = _stuck.setdefault(root, set())
    hanging.add(job)
    job.tell(lambda: hanging.discard(job))
    given_up = job.abandon(late)
    if _threads is not None:
        _threads.hire()
    if given_up:
        raise MountTimeout(f"{root}: the mount did not answer within {timeout:g} s")
    return job.outcome()


def call(
    root: str,
    function: Callable[[], Any],
    timeout: float | None,
    late: Callable[[Any], object] = drop,
    *,
    always: bool = False,
) -> Any:
    """`function()`; with a `timeout` in seconds on a thread, and `MountTimeout` if it takes longer or the mount is left alone."""
    if timeout is None:
        return function()
    job = begin(root, function, always=always)
    try:
        done = job.wait(timeout)
    except BaseException:  # a signal's handler raised: nobody waits any more
        if not job.abandon(late) and job.error is None:
            late(job.result)
        raise
    return job.outcome() if done else give_up(root, job, timeout, late)


def spread(
    root: str,
    function: Callable[[Any], Any],
    arguments: Sequence[Any],
    timeout: float | None,
    width: int = 16,
) -> list[Any]:
    """`function` of each of `arguments`, in order, `width` calls at a time on threads; None where one was not done.

    With a `timeout` a call that takes longer is left. What `function` raises is raised, and what is left is not done.
    """
    results: list[Any] = [None] * len(arguments)
    if timeout is not None and is_left_alone(root):
        return results
    rest = list(range(len(arguments)))[::-1]
    over = False

    def turn() -> Any:
        until = time.monotonic() + _TURN
        while True:
            try:
                index = rest.pop()
            except IndexError:
                return None
            results[index] = function(arguments[index])
            if over:
                drop(results[index])
            if time.monotonic() >= until:
                return _AGAIN

    jobs: list[Job] = []
    try:
        try:
            for _ in range(min(width, len(arguments)) - (timeout is None)):
                jobs.append(submit(turn, None if timeout is None else root))  # noqa: PERF401 - the first may be all that there are
        except OSError:
            pass  # no more threads: those that there are do it
        while timeout is None and turn() is _AGAIN:
            pass
        for job in jobs:
            if not rest and job.withdraw():
                continue  # its turn may never come, and there is nothing left for it
            try:
                if job.wait(timeout):
                    job.outcome()
                elif rest or not job.withdraw():
                    give_up(root, job, timeout or 0.0)
            except MountTimeout:
                pass
    finally:
        rest.clear()
        over = True
    return results
