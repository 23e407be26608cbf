"""Store short texts in symbolic links, sealed with a checksum that is bound to their path.

They are read, and never followed. But other programs try to follow them: `rglob`, `find -L`, `cp
-rL`. A text with a component of more than 255 bytes would stop these with ENAMETOOLONG, so a long
component is broken by a slash and a line feed, which no text has. They find a dangling link then.
"""

from __future__ import annotations

import errno
import time

from efsstate.errors import CorruptEntryError
from efsstate.format import entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.mount.files import Mount

# MUT: who-must-be-certain-looks-again
_PAUSES = (0.002, 0.01, None)  # seconds between the looks of a reader that must be certain
# Bytes that a link surely holds on NFS, with the checksum; some local file systems take 1,000.
LONGEST = 4000
_BREAK = "/\n"
_COMPONENT = 200  # characters of ASCII; others have up to four bytes


def create(mount: Mount, folder: str, name: str, text: str) -> None:
    """Create the link `name`. Raise `FileExistsError` if it exists, `OSError`."""
    mount.symlink(folder, name, _seal(mount, folder, name, text))


def replace(mount: Mount, folder: str, name: str, text: str) -> None:
    """Put a link at `name`, durably and in one step, replacing any before it.

    Raise `OSError` (ENAMETOOLONG, too).
    """
    mount.relink(folder, name, _seal(mount, folder, name, text))


def read(mount: Mount, folder: str, name: str, *, certain: bool = False) -> str:
    """Return the text of the link `name`, checked, as this host's client knows it.

    `certain`: look again before reporting it as missing, because a client that replaces a link
    which one of its own processes is reading first renames the old one away.

    Raise `FileNotFoundError`, `CorruptEntryError`, `SignatureError`, `OSError`.
    """
    for pause in _PAUSES if certain else (None,):
        try:
            stored = mount.readlink(folder, name).replace(_BREAK, "")
            text, _, digest = stored.rpartition(" ")
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
                "a file or a folder stands where a link of ours belongs; remove it",
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
    """Return `name` with a seal, for a link that says all by its name.

    To see it in a listing is to have read it.
    """
    return f"{name}.{_digest(mount, folder, name, 'mark')}"


def _seal(mount: Mount, folder: str, name: str, text: str) -> str:
    return f"{_break_components(text)} {_digest(mount, folder, name, text)}"


def _break_components(text: str) -> str:
    """Return `text`, a single line, without a component of more than 255 bytes."""
    # MUT: links-have-no-long-component
    if len(text) <= _COMPONENT and text.isascii():
        return text
    size = _COMPONENT if text.isascii() else _COMPONENT // 4
    parts = []
    for part in text.split("/"):
        pieces = [part[at : at + size] for at in range(0, len(part), size)] or [""]
        parts.append(_BREAK.join(pieces))
    return "/".join(parts)


def _digest(mount: Mount, folder: str, name: str, text: str) -> str:
    return entry.digest(mount.key, f"{folder}/{name}", text.encode(errors="surrogateescape")).hex()
