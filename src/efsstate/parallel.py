"""Several things at once: what a sweep does is to wait for the server."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    T = TypeVar("T")


def each(items: Iterable[T], work: Callable[[T], None], *, workers: int) -> None:
    """Call `work` with each of `items`, `workers` at a time; the first error is raised when all have stopped."""
    waiting, turn = iter(items), threading.Lock()
    failures: list[BaseException] = []

    def worker() -> None:
        while not failures:
            with turn:
                item = next(waiting, None)
            if item is None:
                return
            try:
                work(item)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(workers - 1)]
    for thread in threads:
        thread.start()
    worker()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
