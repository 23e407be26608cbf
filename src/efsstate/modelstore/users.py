"""Who noted itself as using a version that is pinned, or no longer active.

A link for each function in `.efsstate/users/<model>`, outside of the model's folder: a note there
would make every environment look for a new version.
"""

from __future__ import annotations

import os

from efsstate.errors import CorruptEntryError
from efsstate.format import layout
from efsstate.mount import environment, links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from efsstate.mount.files import Mount

_RECENT = 7200.0  # seconds: a user notes itself once an hour


def note(mount: Mount, model: str, version: str) -> None:
    """Note that this function uses the version; raise OSError without the right to write."""
    from efsstate.format.entry import blake2b

    user = _own_name()
    name = blake2b()(user.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    links.replace(mount, layout.users_folder(model), name, f"{version}\t{user}")


def read(mount: Mount, model: str, now: float) -> dict[str, list[str]]:
    """Return the users of each version that have noted themselves lately, by the server's time."""
    folder, users = layout.users_folder(model), dict[str, list[str]]()
    for name in mount.names(folder):
        try:
            if mount.stat(folder, name).st_mtime < now - _RECENT:
                continue
            version, _, user = links.read(mount, folder, name).partition("\t")
        except (FileNotFoundError, CorruptEntryError):
            continue  # removed meanwhile; or a rest of a note that was killed
        users.setdefault(version, []).append(user)
    return {version: sorted(names) for version, names in users.items()}


def remove_old(mount: Mount, model: str, before: float) -> None:
    """Remove the notes from before the server's time `before`."""
    folder = layout.users_folder(model)
    names = mount.names(folder)
    for name in names:
        try:
            if mount.stat(folder, name).st_mtime < before:
                mount.remove(folder, name, quiet=True)
        except FileNotFoundError:
            continue
    if names:
        mount.remove_folder(folder)  # if it is empty now


def _own_name() -> str:
    """Return the function with its version; outside of Lambda the host."""
    function = environment.function_name()
    if function is None:
        return os.uname().nodename
    return f"{function}:{environment.variable('AWS_LAMBDA_FUNCTION_VERSION') or '$LATEST'}"
