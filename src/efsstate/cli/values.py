"""Print stored values: for a program, and for a person; nothing that is stored runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from efsstate.cli import output
from efsstate.format import codec

if TYPE_CHECKING:
    from efsstate.format.entry import Entry

_MOST = 2000  # characters of a value that a person sees


def decode(entry: Entry) -> tuple[Any, str]:
    """Return the value for a program and for a person; never by a codec that runs code."""
    if entry.codec == "json":
        value = json.loads(bytes(entry.payload))
        return value, json.dumps(value, indent=2, ensure_ascii=False)
    if entry.codec == "msgpack":
        try:
            return describe(codec.loads(entry.payload))
        except ValueError as error:
            return None, f"not readable as msgpack: {error}"
    size = len(entry.payload)
    return None, f"{size} bytes; its codec, {entry.codec}, is not decoded here: it may run code"


def describe(value: Any) -> tuple[Any, str]:
    """Return a decoded value as `--json` may hold it, and as text."""
    try:
        json.dumps(value, default=repr)
    except (TypeError, ValueError):
        return repr(value), repr(value)
    return value, repr(value)


def shorten(text: str) -> str:
    """Return the text of a value as far as a person reads it, without control characters."""
    return output.plain(text if len(text) <= _MOST else text[:_MOST] + " ...")
