"""Reads YAML and JSON of bounded size and depth into dicts and lists that know their lines."""

from __future__ import annotations

import json
from typing import Any

import yaml

from efsstate.errors import TemplateError

MAX_BYTES = 4 << 20  # CloudFormation takes 1 MB
MAX_NODES = 200_000
MAX_DEPTH = 100


class Map(dict[str, Any]):
    """A mapping, with the line of each key."""

    def __init__(self, line: int = 0) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


class Seq(list[Any]):
    """A sequence, with its line."""

    def __init__(self, line: int = 0) -> None:
        super().__init__()
        self.line = line


def load(path: str) -> str:
    """The text of a file; TemplateError if it is none, or too large."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TemplateError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise TemplateError(
            f"{path}: over {MAX_BYTES >> 20} MiB: larger than any template (CloudFormation takes 1 MB)"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path}: not text: {error.reason} at byte {error.start}") from error
    if "\0" in text:
        raise TemplateError(f"{path}: not text: it has a zero byte")
    return text


def parse(text: str, path: str) -> Any:
    """The tree of a YAML or JSON document: Map, Seq and strings as written. A YAML tag `!X` becomes {"Fn::X": …} or {"Ref": …}.

    TemplateError where it is neither, or goes past the limits.
    """
    if text.lstrip().startswith("{"):
        text = text.replace(
            "\t", " "
        )  # JSON allows tabs between its parts (and none inside strings), YAML does not
    try:
        return _build(text, path)
    except yaml.YAMLError as error:
        if text.lstrip().startswith("{"):
            return _json(text, path, error)
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise TemplateError(f"{where}: not YAML: {what}") from error


def _json(text: str, path: str, error: yaml.YAMLError) -> Any:
    """JSON that YAML does not take (a surrogate pair, say): read without lines."""
    try:
        value = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (json.JSONDecodeError, RecursionError) as bad:
        line = f":{bad.lineno}" if isinstance(bad, json.JSONDecodeError) else ""
        reason = bad.msg if isinstance(bad, json.JSONDecodeError) else "too deeply nested"
        raise TemplateError(f"{path}{line}: not JSON: {reason}") from error
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        made = Map()
        made.update({key: _plain(item) for key, item in value.items()})
        return made
    if isinstance(value, list):
        items = Seq()
        items.extend(map(_plain, value))
        return items
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _build(text: str, path: str) -> Any:
    """From events, with a stack of our own: a parser that calls itself would end in a crash on a deeply nested file."""
    root: list[Any] = []
    stack: list[list[Any]] = [
        [root, None, "", None]
    ]  # container, key that waits for its value, tag, anchor
    anchors: dict[str, Any] = {}
    nodes = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            made: Any = Map(line) if isinstance(event, yaml.MappingStartEvent) else Seq(line)
            if event.anchor:
                anchors[event.anchor] = (
                    None  # set at its end: an alias inside itself would be endless
                )
            stack.append([made, None, event.tag or "", event.anchor])
            if len(stack) > MAX_DEPTH:
                raise TemplateError(f"{path}:{line}: nested over {MAX_DEPTH} deep: no template is")
            continue
        if isinstance(event, yaml.ScalarEvent):
            value: Any = event.value if event.value not in ("~", "null") or event.style else ""
            tag, anchor = event.tag or "", event.anchor
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor is None or anchors.get(event.anchor) is None:
                raise TemplateError(
                    f"{path}:{line}: alias *{event.anchor} has nothing before it that it could stand for"
                )
            value, tag, anchor = anchors[event.anchor], "", None
            nodes += _size(
                value, MAX_NODES
            )  # what aliases multiply counts as often as it stands there
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            value, _, tag, anchor = stack.pop()
            line = value.line
        else:
            if isinstance(event, yaml.DocumentStartEvent) and root:
                raise TemplateError(f"{path}:{line}: a second document: a template is one")
            continue
        nodes += 1
        if nodes > MAX_NODES:
            raise TemplateError(
                f"{path}:{line}: over {MAX_NODES:,} values: larger than any template"
            )
        if tag.startswith("!") and len(tag) > 1:
            wrapped = Map(line)
            wrapped[
                "Ref" if tag == "!Ref" else "Condition" if tag == "!Condition" else f"Fn::{tag[1:]}"
            ] = value
            value = wrapped
        if anchor:
            anchors[anchor] = value
        _put(stack[-1], value, line, path)
    if not root:
        raise TemplateError(f"{path}: empty: there is no template in it")
    return root[0]


def _put(top: list[Any], value: Any, line: int, path: str) -> None:
    container, key = top[0], top[1]
    if isinstance(container, Map):
        if key is None:
            if not isinstance(value, str):
                raise TemplateError(f"{path}:{line}: a key that is not text")
            top[1] = value
            container.lines[value] = line
        else:
            if key == "<<" and isinstance(value, Map):
                for name, item in value.items():
                    container.setdefault(name, item)
            else:
                container[key] = value
            top[1] = None
    else:
        container.append(value)


def _size(value: Any, most: int) -> int:
    count, todo = 0, [value]
    while todo and count <= most:
        one = todo.pop()
        count += 1
        if isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
    return count
