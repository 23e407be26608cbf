"""A block of Terraform: its resolved values, and the lines of its attributes."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from efsstate.deploy.linting.hcl_expressions import Scope
from efsstate.deploy.linting.values import Unknown, items

_MAX_BLOCKS = 50  # of one dynamic block that are looked at


class Block(dict[str, Any]):
    """A nested value with its line, which rules may ask for."""

    line = 0
    lines: dict[str, int]


class Body:
    """A block with its values resolved in a scope."""

    def __init__(
        self, scope: Scope, raw: dict[str, Any], lines: list[str], line: int = 0, end: int = 0
    ) -> None:
        """Wrap the block `raw`, which spans `line` to `end` of the file's `lines`."""
        self.scope, self.raw, self.text, self.line, self.end = scope, raw, lines, line, end

    def __getitem__(self, name: str) -> Any:
        return self.scope.value(self.raw.get(name))

    def blocks(self, name: str) -> list[Body]:
        """Return the nested blocks of a name, or the objects if it is written as an attribute.

        A `dynamic` block adds its own, if their number is known.
        """
        written = [block for block in items(self.raw.get(name)) if isinstance(block, dict)]
        places = self._places(name)
        ends = [*places[1:], self.end]
        spans = [*zip(places, ends, strict=False)]
        spans += [(self.line, self.end)] * (len(written) - len(spans))
        bodies = [
            Body(self.scope, block, self.text, *span)
            for block, span in zip(written, spans, strict=False)
        ]
        return bodies + [body for unfolded in self._dynamic(name) for body in unfolded or ()]

    def is_dynamic(self, name: str) -> bool:
        """Return True if the blocks of a name are not known.

        That is if a `dynamic` block makes them from unknown values, or an expression does.
        """
        if None in self._dynamic(name):
            return True
        return isinstance(self.raw.get(name), str) and isinstance(self[name], Unknown)

    def _dynamic(self, name: str) -> list[list[Body] | None]:
        """Return the blocks that each `dynamic` block of a name makes; None if unknown."""
        return [
            self._unfolded(name, inner)
            for block in items(self.raw.get("dynamic"))
            if isinstance(block, dict)
            for label, written in block.items()
            if label.strip('"') == name
            for inner in items(written)
        ]

    def _unfolded(self, name: str, dynamic: Any) -> list[Body] | None:
        each = self.scope.value(dynamic.get("for_each")) if isinstance(dynamic, dict) else None
        if not isinstance(each, dict | list) or len(each) > _MAX_BLOCKS:
            return None
        pairs = each.items() if isinstance(each, dict) else enumerate(each)
        iterator = str(dynamic.get("iterator") or name).strip('${}"')
        content = next((block for block in items(dynamic.get("content"))), None)
        if not isinstance(content, dict):
            return None
        return [
            Body(self.scope.inside(iterator, str(key), value), content, self.text, self.line)
            for key, value in pairs
        ]

    def _places(self, name: str) -> list[int]:
        """Return the lines on which a name stands; the parser does not keep them."""
        pattern = re.compile(rf"[\s{{,]*\"?{re.escape(name)}\"?\s*[:={{]")
        last = min(self.end, len(self.text))
        numbers = range(max(self.line, 1), last + 1)
        return [number for number in numbers if pattern.match(self.text[number - 1])]

    def at(self, name: str) -> int:
        """Return the line of an attribute, or of the block if it is not written."""
        return next(iter(self._places(name)), self.line)

    def pick(self, names: dict[str, str]) -> Block:
        """Return the attributes of a table, under their other names."""
        block = Block(
            {new: value for old, new in names.items() if (value := self[old]) is not None}
        )
        block.line = self.line
        block.lines = {new: self.at(old) for old, new in names.items() if old in self.raw}
        return block


class Converted(NamedTuple):
    """A resource's type and properties in CloudFormation's vocabulary."""

    type: str
    properties: dict[str, Any]
    names: dict[str, str]
    """From the attributes of Terraform to the properties, for their lines."""


def with_dynamic(body: Body, properties: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Mark each property as unknown that a `dynamic` block makes."""
    for old, new in names.items():
        if body.is_dynamic(old):
            properties[new] = Unknown(f"dynamic {old}")
    return properties
