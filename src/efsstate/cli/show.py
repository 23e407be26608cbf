"""`efsstate show`: one entry, header and value."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import output
from efsstate.cli.output import Output
from efsstate.cli.places import find, locate, open_root
from efsstate.errors import CorruptEntryError
from efsstate.format import codec, layout
from efsstate.mount import clock, store

if TYPE_CHECKING:
    from efsstate.format.entry import Entry

_MOST = 2000  # characters of a value that a person sees


@click.command("show")
@click.argument("path")
@output.common
def command(path: str, out: Output, root: str | None) -> int:
    """Show the entry at PATH (as `ls` gives it): its header, and its value where decoding runs no code.

    Exit code 1 where it is damaged.
    """
    mount = open_root(root)
    place = locate(mount, path)
    not_one = click.UsageError(f"{path}: name one entry, such as `efsstate ls` lists them")
    if place.folder is None:
        raise not_one
    if place.area == layout.CHECKPOINTS and place.rest is None:
        from efsstate.cli.checkpoint import show_status

        return show_status(mount, layout.readable(place.folder), out)
    is_folder = stat.S_ISDIR(find(mount, place.path).st_mode)
    folder, _, name = place.path.rpartition("/")
    if is_folder and place.area == layout.MODELS and place.path.count("/") == 3:
        folder, name = place.path, layout.MANIFEST
    elif (
        is_folder or place.area == layout.MODELS
    ):  # read as an entry, it would be called damaged, and to be removed
        raise not_one
    try:
        held = store.read(mount, folder, name, stale=0, with_stat=True)
        found = held.stat
    except CorruptEntryError as error:
        out.error(type(error).__name__, str(error), output.FINDINGS)
        return output.FINDINGS
    header: dict[str, Any] = {
        "path": mount.path_of(folder, name),
        "size": found.st_size,
        "codec": held.codec,
        "created": held.created,
        "age": clock.now() - held.created,
        "ttl": held.ttl,
        "expires": None if held.ttl is None else held.created + held.ttl,
        "used": max(found.st_atime, found.st_mtime),
        "meta": held.meta.hex(),
    }
    value, text = decode(held)
    out.say(f"path     {header['path']}")
    out.say(f"size     {output.bytes_text(found.st_size)}, codec {held.codec}")
    out.say(f"created  {output.time_text(held.created)} ({output.age_text(header['age'])} ago)")
    out.say(
        f"expires  {output.time_text(header['expires']) if held.ttl is not None else 'by its policy, or never'}"
    )
    out.say(f"used     {output.time_text(header['used'])}")
    out.say(f"value    {output.plain(text if len(text) <= _MOST else text[:_MOST] + ' ...')}")
    out.document("show", **header, value=value)
    return output.FINE


def decode(held: Entry) -> tuple[Any, str]:
    """The value for a program and for a person; never by a codec that runs code."""
    if held.codec == "json":
        value = json.loads(bytes(held.payload))
        return value, json.dumps(value, indent=2, ensure_ascii=False)
    if held.codec == "msgpack":
        try:
            value = codec.loads(held.payload)
        except ValueError as error:
            return None, f"not readable as msgpack: {error}"
        try:
            json.dumps(value, default=repr)
        except (TypeError, ValueError):
            return repr(value), repr(value)
        return value, repr(value)
    return (
        None,
        f"{len(held.payload)} bytes; its codec, {held.codec}, is not decoded here: it may run code",
    )
