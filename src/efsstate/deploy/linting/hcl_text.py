"""Text of Terraform: separators outside of brackets and quotes, heredocs, names in expressions."""

from __future__ import annotations

import functools
import re
from typing import Any

import hcl2

MENTION = re.compile(r"(?<![\w.])((?:data\.)?awsc?c?_\w+\.[\w-]+|(?:local|module)\.[\w-]+)")
VARIABLE = re.compile(r"(?<![\w.])var\.([\w-]+)")
RESOURCE = re.compile(r"(awsc?c?_\w+)\.([\w-]+)((?:\[.*?\])?(?:\.[\w-]+)*)$")
PIECE = re.compile(r"\$\{((?:[^{}]|\{[^{}]*\})*)\}")
_PROSE = re.compile(
    r'^[ \t]*(?:description|error_message)[ \t]*=[ \t]*"(?:[^"\\\n]|\\.)*"[ \t]*$', re.MULTILINE
)
_HEREDOC = re.compile(r"<<-?(\w+)[ \t\r]*$")


def positions(text: str, separator: str) -> list[int]:
    """Return where a separator stands outside of brackets and quotes."""
    places, depth, is_quoted, index = [], 0, False, 0
    while index < len(text):
        char = text[index]
        if is_quoted:
            index += 2 if char == "\\" else 1
            is_quoted = char != '"'
            continue
        if char == '"':
            is_quoted = True
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0 and text.startswith(separator, index):
            places.append(index)
        index += 1
    return places


@functools.lru_cache(maxsize=4096)
def split_once(text: str, separator: str) -> tuple[str, str] | None:
    """Split at the first separator outside of brackets and quotes; None if there is none.

    A module that is called often asks again and again for the same expressions.
    """
    if separator not in text:
        return None
    places = positions(text, separator)
    return (text[: places[0]], text[places[0] + len(separator) :]) if places else None


def split_arguments(text: str) -> list[str]:
    """Split a call's arguments at their commas."""
    ends = [*positions(text, ","), len(text)]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]


@functools.lru_cache(maxsize=256)
def parse_literal(text: str) -> Any:
    """Parse a list or an object in an expression, which is resolved for many resources.

    The parser takes milliseconds. The result is shared: do not change it.
    """
    return hcl2.loads(f"x = {text}\n")["x"]


def drop_prose(text: str) -> str:
    """Empty the lines of descriptions, which take the parser a fifth of its time."""
    return _PROSE.sub("", text)


def tidy_heredocs(text: str) -> str:
    """Remove blanks behind the marks of heredocs: Terraform takes them, the parser does not."""
    lines, mark = [], ""
    for line in text.splitlines():
        start = None if mark else _HEREDOC.search(line)
        is_end = bool(mark) and line.strip() == mark
        lines.append(line.rstrip() if start or is_end else line)
        mark = start[1] if start else "" if is_end else mark
    return "\n".join(lines) + "\n"


def quoted(value: Any) -> Any:
    """Return plain data in the form of the HCL parser, which keeps the quotes of text."""
    if isinstance(value, dict):
        return {key: quoted(part) for key, part in value.items()}
    if isinstance(value, list):
        return [quoted(part) for part in value]
    return '"' + value.replace('"', '\\"') + '"' if isinstance(value, str) else value
