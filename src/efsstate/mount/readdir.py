"""List one folder again and again by the C library's directory functions: one request a listing."""

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GONE = (errno.ENOENT, errno.ESTALE)
_NAME_IN_DIRENT = 19  # after d_ino, d_off, d_reclen and d_type, wherever Linux has 64 bits

_libc: Any = None


def _directory_functions() -> Any:
    """Return the C library with `fdopendir`, `readdir` …; None if a dirent has another form."""
    global _libc
    if _libc is None and sys.platform == "linux" and sys.maxsize > 2**32:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.fdopendir.restype = libc.readdir.restype = ctypes.c_void_p
        libc.rewinddir.argtypes = libc.readdir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
        libc.rewinddir.restype = None
        _libc = libc
    return _libc


class FolderReader:
    """List the folder open as `fd`, through a descriptor of its own, again and again.

    An NFS client drops its copy of a listing when it creates, renames or removes a name in that
    folder itself. So a listing that shows our own last change is later than that change; one that
    does not proves nothing, and `Mount.names` must be asked. It costs one request where that takes
    two, because `os.listdir` asks for the folder's times each time.
    """

    __slots__ = ("_directory", "_fd", "_libc", "_path")

    def __init__(self, fd: int, path: str) -> None:
        self._directory: int | None = None  # first: `__del__` looks at it
        self._path = path
        self._libc = _directory_functions()
        try:
            self._fd = os.dup(fd)
        except OSError as error:  # no descriptor is free
            error.filename = path
            raise
        if self._libc is not None:
            self._directory = self._libc.fdopendir(self._fd)

    def names(self) -> list[str]:
        """Return the names; none if the folder is gone."""
        if not self._directory:
            return self._list_slowly()
        import ctypes

        names = []
        ctypes.set_errno(0)
        self._libc.rewinddir(self._directory)
        while item := self._libc.readdir(self._directory):
            name = ctypes.string_at(item + _NAME_IN_DIRENT)
            if name not in (b".", b".."):
                names.append(os.fsdecode(name))
        number = ctypes.get_errno()
        # The end and an error look alike but for errno: a part must not pass for the whole.
        if number and number not in _GONE:
            raise OSError(number, os.strerror(number), self._path)
        return [] if number else names

    def _list_slowly(self) -> list[str]:
        try:
            return os.listdir(self._fd)
        except OSError as error:
            if error.errno not in _GONE:
                error.filename = self._path
                raise
            return []

    def __del__(self) -> None:
        if self._directory:
            self._libc.closedir(self._directory)  # closes the descriptor, too
        elif hasattr(self, "_fd"):
            os.close(self._fd)
