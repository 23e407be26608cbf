"""A block of Terraform with its values followed, and the lines of its attributes, which the parser does not keep."""

from __future__ import annotations

import re
from typing import Any

from efsstate.deploy.linting.hcl_expressions import Scope
from efsstate.deploy.linting.values import items


class Block(dict[str, Any]):
    """A nested value with its line, which rules may ask for."""

    line = 0
    lines: dict[str, int]


class Body:
    """A block, with its values followed."""

    def __init__(
        self, scope: Scope, raw: dict[str, Any], lines: list[str], line: int = 0, end: int = 0
    ) -> None:
        self.scope, self.raw, self.text, self.line, self.end = scope, raw, lines, line, end

    def __getitem__(self, name: str) -> Any:
        return self.scope.value(self.raw.get(name))

    def blocks(self, name: str) -> list[Body]:
        """The nested blocks of a name (or objects, where it is written as an attribute)."""
        found = [one for one in items(self.raw.get(name)) if isinstance(one, dict)]
        lines = self.places(name)
        ends = [*lines[1:], self.end]
        return [
            Body(
                self.scope,
                one,
                self.text,
                *((lines[index], ends[index]) if index < len(lines) else (self.line, self.end)),
            )
            for index, one in enumerate(found)
        ]

    def dynamic(self, name: str) -> bool:
        """Whether a `dynamic` block makes them."""
        return any(
            name in (key.strip('"') for key in one)
            for one in items(self.raw.get("dynamic"))
            if isinstance(one, dict)
        )

    def places(self, name: str) -> list[int]:
        """The lines on which a name of this block stands; the parser keeps none."""
        pattern = re.compile(rf"[\s{{,]*\"?{re.escape(name)}\"?\s*[:={{]")
        last = min(self.end, len(self.text))
        return [
            number
            for number in range(max(self.line, 1), last + 1)
            if pattern.match(self.text[number - 1])
        ]

    def at(self, name: str) -> int:
        """The line of an attribute."""
        return next(iter(self.places(name)), self.line)

    def pick(self, names: dict[str, str]) -> Block:
        """The attributes of a table, under their other names."""
        made = Block({new: value for old, new in names.items() if (value := self[old]) is not None})
        made.line, made.lines = (
            self.line,
            {new: self.at(old) for old, new in names.items() if old in self.raw},
        )
        return made
