"""YAML and JSON of bounded size and depth, parsed into dicts and lists that know their lines."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

import yaml

from efsstate.errors import TemplateError

MAX_BYTES = 4 << 20  # CloudFormation takes 1 MB
MAX_NODES = 200_000
MAX_DEPTH = 100
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OCTAL = re.compile(r"0[0-7]{1,20}")  # of more digits no value of a template has
# Plain words that are truth values in YAML 1.1, and so for CloudFormation.
_TRUTH = {
    word: truth
    for truth, words in (("true", ("yes", "true", "on")), ("false", ("no", "false", "off")))
    for each in words
    for word in (each, each.capitalize(), each.upper())
}


class Map(dict[str, Any]):
    """A mapping with the line of each key."""

    def __init__(self, line: int = 0) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}
        self.duplicates: list[tuple[str, int]] = []
        """In the document's root: each key that stands twice in one mapping, with its line."""


class Seq(list[Any]):
    """A sequence with its line."""

    def __init__(self, line: int = 0) -> None:
        super().__init__()
        self.line = line


def load(path: str, limit: int = MAX_BYTES) -> str:
    """Return the text of a file. Raise TemplateError if it is not text, or larger than `limit`."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise TemplateError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > limit:
        raise TemplateError(f"{path}: over {limit >> 20} MiB, which is larger than any template")
    try:
        # PowerShell's `>` writes UTF-16.
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path}: not text: {error.reason} at byte {error.start}") from error
    if "\0" in text:
        raise TemplateError(f"{path}: not text: it has a zero byte")
    return text


def parse(text: str, path: str) -> Any:
    """Return the tree of a YAML or JSON document: Map, Seq, and strings as written.

    A YAML tag `!X` becomes {"Fn::X": …} or {"Ref": …}. Raise TemplateError if the text is neither
    YAML nor JSON, or exceeds the limits.
    """
    is_json = text.lstrip().startswith("{")
    if is_json:
        # JSON allows tabs between its parts (and none inside strings); YAML refuses them.
        text = text.replace("\t", " ")
    try:
        return _Builder(path, is_json=is_json).build(text)
    except yaml.YAMLError as error:
        if is_json:
            return _json(text, path, error)
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise TemplateError(f"{where}: not YAML: {problem}") from error


def _json(text: str, path: str, error: yaml.YAMLError) -> Any:
    """Parse JSON that the YAML parser refuses (a surrogate pair, for example), without lines."""
    try:
        value = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (json.JSONDecodeError, RecursionError) as refusal:
        line = f":{refusal.lineno}" if isinstance(refusal, json.JSONDecodeError) else ""
        reason = refusal.msg if isinstance(refusal, json.JSONDecodeError) else "nested too deeply"
        raise TemplateError(f"{path}{line}: not JSON: {reason}") from error
    return _unlocated(value)


def _unlocated(value: Any) -> Any:
    if isinstance(value, dict):
        mapping = Map()
        mapping.update({key: _unlocated(item) for key, item in value.items()})
        return mapping
    if isinstance(value, list):
        sequence = Seq()
        sequence.extend(map(_unlocated, value))
        return sequence
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value


class _Frame:
    """A mapping or sequence that is still open."""

    __slots__ = ("anchor", "container", "key", "tag")

    def __init__(self, container: Any, tag: str, anchor: str | None) -> None:
        self.container, self.tag, self.anchor = container, tag, anchor
        self.key: str | None = None  # a key that waits for its value


class _Builder:
    """Builds the tree from events, with its own stack: recursion would crash on deep nesting."""

    def __init__(self, path: str, *, is_json: bool) -> None:
        self.path, self.is_json = path, is_json
        self.root: list[Any] = []
        self.frames = [_Frame(self.root, "", None)]
        self.anchors: dict[str, Any] = {}
        self.duplicates: list[tuple[str, int]] = []
        self.nodes = 0

    def build(self, text: str) -> Any:
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._open(event, line)
            elif isinstance(event, yaml.ScalarEvent):
                self._close(self._scalar(event), event.tag or "", event.anchor, line)
            elif isinstance(event, yaml.AliasEvent):
                self._close(self._alias(event, line), "", None, line)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                frame = self.frames.pop()
                self._close(frame.container, frame.tag, frame.anchor, frame.container.line)
            elif isinstance(event, yaml.DocumentStartEvent) and self.root:
                raise TemplateError(f"{self.path}:{line}: a second document; a template is one")
        if not self.root:
            raise TemplateError(f"{self.path}: empty: there is no template in it")
        if isinstance(self.root[0], Map):
            self.root[0].duplicates = self.duplicates
        return self.root[0]

    def _open(self, event: Any, line: int) -> None:
        container = Map(line) if isinstance(event, yaml.MappingStartEvent) else Seq(line)
        if event.anchor:
            self.anchors[event.anchor] = None  # set at its end: an alias inside would be endless
        self.frames.append(_Frame(container, event.tag or "", event.anchor))
        if len(self.frames) > MAX_DEPTH:
            raise TemplateError(f"{self.path}:{line}: nested over {MAX_DEPTH} deep: no template is")

    def _scalar(self, event: Any) -> str:
        value = str(event.value)
        if event.style or event.tag in ("!", "tag:yaml.org,2002:str"):
            return value
        if value in ("~", "null"):
            return ""
        if value in _TRUTH:
            return _TRUTH[value]
        # YAML 1.1 reads a plain 0750 as an octal number, and so does CloudFormation.
        return str(int(value, 8)) if _OCTAL.fullmatch(value) and not self.is_json else value

    def _alias(self, event: Any, line: int) -> Any:
        value = self.anchors.get(event.anchor)
        if value is None:
            raise TemplateError(
                f"{self.path}:{line}: alias *{event.anchor} has no anchor before it"
            )
        self.nodes += _size(value, MAX_NODES)  # an aliased value counts each time it is used
        return value

    def _close(self, value: Any, tag: str, anchor: str | None, line: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            message = f"over {MAX_NODES:,} values: larger than any template"
            raise TemplateError(f"{self.path}:{line}: {message}")
        if tag.startswith("!") and len(tag) > 1:
            wrapped = Map(line)
            plain = {"!Ref": "Ref", "!Condition": "Condition"}
            wrapped[plain.get(tag, f"Fn::{tag[1:]}")] = value
            value = wrapped
        if anchor:
            self.anchors[anchor] = value
        self._put(value, line)

    def _put(self, value: Any, line: int) -> None:
        frame = self.frames[-1]
        container = frame.container
        if not isinstance(container, Map):
            container.append(value)
        elif frame.key is None:
            if not isinstance(value, str):
                raise TemplateError(f"{self.path}:{line}: a key that is not text")
            frame.key = value
            if value in container.lines and value != "<<":
                self.duplicates.append((value, line))
            container.lines[value] = line
        else:
            merged = value if isinstance(value, Seq) else [value]
            if frame.key == "<<" and all(isinstance(part, Map) for part in merged):
                for part in merged:
                    for name, item in part.items():
                        container.setdefault(name, item)
            else:
                container[frame.key] = value
            frame.key = None


def _size(value: Any, most: int) -> int:
    count, pending = 0, [value]
    while pending and count <= most:
        part = pending.pop()
        count += 1
        if isinstance(part, dict):
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
    return count
