"""Show the parameters in a docstring as a list: an extension of Griffe, for `make docs`.

A docstring has a line `name: what it is` for each parameter. In Markdown such lines would run into
one paragraph.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

_NAME = r"\*{0,2}[a-z_]+(?:\([^)]*\))?"
_PARAMETER = re.compile(rf"({_NAME}(?:, {_NAME})*): (?=\S)")


class Parameters(Extension):
    """Make a list of the lines that name parameters."""

    def on_object(self, *, obj: Any, **_more: Any) -> None:
        """Rewrite the docstring of an object as Griffe finds it."""
        if obj.docstring is not None:
            obj.docstring.value = as_list(obj.docstring.value)


def as_list(text: str) -> str:
    """Return `text` with an item of a list in place of each line that names a parameter."""
    paragraphs = text.split("\n\n")
    for number, paragraph in enumerate(paragraphs):
        lines = paragraph.split("\n")
        if number and _PARAMETER.match(lines[0]):
            paragraphs[number] = "\n".join(
                f"- `{match[1]}`: {line[match.end() :]}"
                if (match := _PARAMETER.match(line))
                else f"  {line.strip()}"
                for line in lines
            )
    return "\n\n".join(paragraphs)
