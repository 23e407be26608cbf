"""What unit tests of functions need: a root of their own, no cache at all, or another time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace, TracebackType
from typing import Any

from efsstate import process, units
from efsstate.mount import clock as server_clock
from efsstate.mount.files import Mount


@contextmanager
def isolated(root: str | os.PathLike[str] | None = None) -> Iterator[str]:
    """Give the code below a fresh root, empty memory and counters at zero; yield the root's path.

    `root` is an empty folder, created if need be; by default it is a temporary one, removed at the
    end. Functions that were decorated before use it too, unless they have a `root=` of their own,
    and so do checkpoints and models. Results and claims from before are not seen in the block, and
    those of the block are not seen after it.
    """
    with tempfile.TemporaryDirectory(prefix="efsstate-") as temporary:
        path = os.path.abspath(temporary if root is None else os.fspath(root))
        os.makedirs(path, exist_ok=True)
        with _environment(EFSSTATE_ROOT=path, EFSSTATE_DISABLE=None):
            process.reset()
            try:
                yield path
            finally:
                process.reset()


@contextmanager
def disabled() -> Iterator[None]:
    """Make plain calls of all cached functions, and keep nothing in any `Cache`."""
    with _environment(EFSSTATE_DISABLE="1"):
        yield


@contextmanager
def _environment(**variables: str | None) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    _set_variables(variables)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class _Advance:
    """Time that was let pass; leaving a `with` of it takes it back."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clock.move(-self._seconds)


class Clock:
    """The time that results count by, of this process and of the server: `time.time()`.

    `datetime.now()`, `time.monotonic()` and the times of files stay as they are.
    """

    def __init__(self) -> None:
        self._offset = 0.0
        self._originals: tuple[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<clock, {self._offset:+g} s from the true time>"

    def advance(self, duration: units.Duration) -> _Advance:
        """Move the time forward by `duration`, such as "8d"; in a `with`, until the block ends."""
        seconds = units.seconds(duration, "advance")
        self.move(seconds)
        return _Advance(self, seconds)

    def move(self, seconds: float) -> None:
        """Move the time forward by so many seconds, or back if they are negative."""
        self._offset += seconds
        if self._offset and self._originals is None:
            self._patch()
        elif not self._offset:
            self.reset()

    def reset(self) -> None:
        """Return to the true time."""
        self._offset = 0.0
        if self._originals is not None:
            time.time, Mount.create_open = self._originals  # type: ignore[method-assign]
            self._originals = None

    def _patch(self) -> None:
        now, create = self._originals = time.time, Mount.create_open

        def create_later(mount: Mount, *args: Any) -> Any:
            status = create(mount, *args)
            # The server's clock shows on each new file: the next one would undo the advance.
            later = status.st_mtime + self._offset
            server_clock.observe(later)
            return SimpleNamespace(st_ino=status.st_ino, st_dev=status.st_dev, st_mtime=later)

        time.time = lambda: now() + self._offset
        Mount.create_open = create_later  # type: ignore[method-assign, assignment]


clock = Clock()
