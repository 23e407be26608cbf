"""Look at one path below the root, in the words of the command."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from efsstate.mount.files import Mount

NO_SUCH = "there is nothing of this name"


def is_folder(mount: Mount, path: str) -> bool:
    """Return True if a folder is at `path`, below the root."""
    try:
        return stat.S_ISDIR(find(mount, path).st_mode)
    except OSError:
        return False


def find(mount: Mount, path: str) -> os.stat_result:
    """Return the stat of `path`, below the root. Raise FileNotFoundError."""
    parent, _, name = path.rpartition("/")
    try:
        return mount.stat(parent, name)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, NO_SUCH, mount.path_of(path)) from None
