"""`efsstate schema`: print the JSON Schema of the documents that commands print with `--json`."""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any

import click

from efsstate.cli import output
from efsstate.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "documents.json")
_DEFINITION = "#/$defs/"


@functools.cache
def whole() -> dict[str, Any]:
    """Return the schema of all documents: one definition each, and those that they share."""
    with open(_FILE, encoding="utf-8") as file:
        schema: dict[str, Any] = json.load(file)
    return schema


def names() -> list[str]:
    """Return the names of the documents, such as "checkpoint.ls"."""
    schemas: list[str] = whole()["properties"]["schema"]["enum"]
    return [schema.removeprefix("efsstate.") for schema in schemas]


def of(name: str) -> dict[str, Any]:
    """Return the schema of the document `name`, complete in itself. Raise KeyError."""
    definitions = whole()["$defs"]
    document = definitions[name]
    needed: dict[str, Any] = {}
    waiting = [document]
    while waiting:
        for each in _references(waiting.pop()):
            if each not in needed:
                needed[each] = definitions[each]
                waiting.append(definitions[each])
    return {
        "$schema": whole()["$schema"],
        "$id": f"{whole()['$id']}:{name}",
        "title": f"efsstate.{name}",
        **document,
        "$defs": dict(sorted(needed.items())),
    }


def _references(schema: Any) -> Iterator[str]:
    """Yield the names of the definitions that `schema` refers to."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].removeprefix(_DEFINITION)
        for each in schema.values():
            yield from _references(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def _complete(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    return [name for name in names() if name.startswith(begun)]


@click.command("schema")
@click.argument("words", metavar="[COMMAND]...", nargs=-1, shell_complete=_complete)
@click.option("--json", "as_json", is_flag=True, help="Print it in a document of its own.")
def command(words: tuple[str, ...], as_json: bool) -> int:
    """Print the JSON Schema of the document that COMMAND prints with --json, or of all of them.

    COMMAND is as on the command line, `checkpoint ls`, or as in the document, `checkpoint.ls`.
    """
    out = click.get_current_context().find_object(Output) or Output()
    out.json = out.json or as_json
    name = ".".join(words).removeprefix("efsstate.")
    if name and name not in names():
        raise click.UsageError(f"{' '.join(words)}: no such document; there are {_listed()}")
    schema = of(name) if name else whole()
    out.say(json.dumps(schema, indent=1))
    out.document("schema", name=name or None, json_schema=schema)
    return output.FINE


def _listed() -> str:
    return ", ".join(names())
