"""Notes: short texts that symbolic links hold, each with a checksum that is bound to its place; read, and never followed."""

from __future__ import annotations

import errno
import time

from efsstate.errors import CorruptEntryError
from efsstate.format import entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.mount.files import Mount

# MUT: who-must-be-certain-looks-again
_PAUSES = (0.002, 0.01, None)  # seconds between the looks of who must be certain
LONGEST = 4000  # bytes that a link surely holds on NFS, with the checksum; some local file systems take 1,000


def create(mount: Mount, folder: str, name: str, text: str) -> None:
    """Make the note `name`, which nobody has made before. Raises `FileExistsError`, `OSError`."""
    mount.symlink(folder, name, _sealed(mount, folder, name, text))


def replace(mount: Mount, folder: str, name: str, text: str) -> None:
    """Put a note at `name`, durably and in one step, in place of any before it. Raises `OSError` (ENAMETOOLONG, too)."""
    mount.relink(folder, name, _sealed(mount, folder, name, text))


def read(mount: Mount, folder: str, name: str, *, certain: bool = False) -> str:
    """The text of the note `name`, checked, as this host's client knows it.

    `certain`: look again before saying that it is missing (a client that replaces what one of its own processes is
    reading renames the old one away first). Raises `FileNotFoundError`, `CorruptEntryError`, `SignatureError`, `OSError`.
    """
    for pause in _PAUSES if certain else (None,):
        try:
            text, _, digest = mount.readlink(folder, name).rpartition(" ")
            break
        except FileNotFoundError:
            if pause is None:
                raise
            time.sleep(pause)
            mount.refresh(folder)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise CorruptEntryError(
                mount.path_of(folder, name),
                "a file or a folder stands where a link of ours belongs",
            ) from None
    # MUT: a-notes-checksum
    if digest != _digest(mount, folder, name, text):
        from efsstate.errors import SignatureError

        path = mount.path_of(folder, name)
        if mount.key:
            raise SignatureError(
                path, "it is unsigned, signed with another key, or signed for another place"
            )
        raise CorruptEntryError(path, "its checksum does not match")
    return text


def mark(mount: Mount, folder: str, name: str) -> str:
    """The name that says by itself, sealed, what a note `name` would say: to see it in a listing is to have read it."""
    return f"{name}.{_digest(mount, folder, name, 'mark')}"


def _sealed(mount: Mount, folder: str, name: str, text: str) -> str:
    return f"{text} {_digest(mount, folder, name, text)}"


def _digest(mount: Mount, folder: str, name: str, text: str) -> str:
    return entry.digest(mount.key, f"{folder}/{name}", text.encode(errors="surrogateescape")).hex()
