"""`efsstate show`: print one entry, its header and its value."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import completion, output
from efsstate.cli.checkpoint import show_status
from efsstate.cli.lookup import find
from efsstate.cli.output import Output
from efsstate.cli.places import Place, locate, open_root
from efsstate.cli.values import decode, shorten
from efsstate.errors import CorruptEntryError
from efsstate.eviction.policy import last_use
from efsstate.format import layout
from efsstate.mount import clock

if TYPE_CHECKING:
    from efsstate.mount.files import Mount


@click.command("show")
@click.argument("path", shell_complete=completion.place)
@output.common
def command(path: str, out: Output, root: str | None) -> int:
    """Show the entry at PATH, as `ls` prints it: its header, and its value.

    A value is not decoded if that may run code. Exit code 1 if the entry is damaged.
    """
    mount = open_root(root)
    place = locate(mount, path)
    if place.folder is None:
        raise _not_an_entry(path)
    if place.area == layout.CHECKPOINTS and (place.rest is None or place.rest[:1] == "s"):
        return show_status(mount, place.path, out)
    folder, name = _file_of(mount, place, path)
    status = mount.stat(folder, name)
    try:
        entry = mount.read_entry(folder, name, stale=0)
    except CorruptEntryError as error:
        out.error(type(error).__name__, str(error), output.FINDINGS)
        return output.FINDINGS
    finally:
        mount.restore_use(folder, name, status)  # to look is not to use
    header: dict[str, Any] = {
        "path": mount.path_of(folder, name),
        "size": status.st_size,
        "codec": entry.codec,
        "created": entry.created,
        "age": clock.now() - entry.created,
        "ttl": entry.ttl,
        "expires": None if entry.ttl is None else entry.created + entry.ttl,
        "used": last_use(status) / 1e9,
        "meta": entry.meta.hex(),
    }
    value, text = decode(entry)
    expires = output.time_text(header["expires"]) if entry.ttl is not None else None
    age = output.age_text(header["age"])
    out.say(f"path     {header['path']}")
    out.say(f"size     {output.bytes_text(status.st_size)}, codec {entry.codec}")
    out.say(f"created  {output.time_text(entry.created)} ({age} ago)")
    out.say(f"expires  {expires or 'by its policy, or never'}")
    out.say(f"used     {output.time_text(header['used'])}")
    out.say(f"value    {shorten(text)}")
    out.document("show", **header, value=value)
    return output.FINE


def _not_an_entry(path: str) -> click.UsageError:
    return click.UsageError(f"{path}: name one entry, such as `efsstate ls` lists them")


def _file_of(mount: Mount, place: Place, path: str) -> tuple[str, str]:
    """Return the folder and the name of the entry at `place`; a version's is its manifest."""
    is_folder = stat.S_ISDIR(find(mount, place.path).st_mode)
    if is_folder and place.area == layout.MODELS and place.path.count("/") == 3:
        return place.path, layout.MANIFEST
    # A file of a model or a dataset, read as an entry, would be called damaged.
    if is_folder or place.area not in (layout.CACHE, layout.CHECKPOINTS):
        raise _not_an_entry(path)
    folder, _, name = place.path.rpartition("/")
    return folder, name
