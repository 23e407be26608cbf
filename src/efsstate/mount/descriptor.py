"""Own file descriptors: no signal, thread or fork leaks one, or uses its number after the close.

A descriptor is a number. If one thread closes it while another still writes by it, the number may
be another file's by then, and the bytes go there. So a descriptor has one owner, which closes it
once, after its last use.
"""

from __future__ import annotations

import errno
import os
from functools import partial


class Descriptor:
    """One open file: `open` it, use it by `with`, from any thread, and `close` it.

    A close during a use takes effect after it. Nothing here takes a lock: a list's `append` and
    `pop` are atomic, and a use is registered before it checks for a close. `fd` is the number, for
    a thread that alone knows this object, or that excludes a close by a lock.
    """

    __slots__ = ("__weakref__", "_fds", "_is_closed", "_uses", "fd")

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._uses: list[None] = []
        self._is_closed = False
        self.fd = -1

    def open(self, name: str, flags: int, *, mode: int = 0o777, dir_fd: int | None = None) -> int:
        """Open `name` in the folder `dir_fd`, as `os.open` does; nothing may be open here yet."""
        self._is_closed = False
        # A signal handler may raise as soon as `os.open` returns to Python code, and its number is
        # lost. `extend` and `map` are C code: the number is in the list by then.
        # MUT: a-descriptor-is-owned-at-once
        self._fds.extend(map(partial(os.open, flags=flags, mode=mode, dir_fd=dir_fd), (name,)))
        self.fd = self._fds[0]
        return self.fd

    @property
    def is_open(self) -> bool:
        """Return True unless it is closed, or not open yet."""
        return bool(self._fds) and not self._is_closed

    def __enter__(self) -> int:
        self._uses.append(None)
        # MUT: a-closed-number-is-not-used
        if not self._fds or self._is_closed:
            self.__exit__()
            raise OSError(errno.EBADF, "closed by another thread, or in a forked child")
        return self._fds[0]

    def __exit__(self, *_error: object) -> None:
        self._uses.pop()
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """Close it, now or after its last use. An NFS client may report a full disk only here."""
        self._is_closed = True
        # MUT: a-descriptor-in-use-stays-open
        if self._uses:
            return
        closed: list[None] = []
        try:
            # In C again, until the list is empty: no handler comes between the pop and the close.
            closed.extend(map(os.close, iter(self._fds.pop, None)))
        except IndexError:
            pass

    def abandon(self) -> None:
        """Close it at once: in a forked child no other thread is left to use it."""
        self._uses.clear()
        self.close()

    def detach(self) -> int:
        """Return the number, which is the caller's to close."""
        self._is_closed = True
        return self._fds.pop()

    def __del__(self) -> None:
        try:
            if self._fds:
                self.abandon()
        except (AttributeError, OSError):
            pass  # it had not even begun, or the file system refuses
