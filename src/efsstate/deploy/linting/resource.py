"""A resource of a template or an account, in CloudFormation's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from efsstate.deploy.linting.values import Joined, Ref, Unknown, walk


@dataclass
class Resource:
    """A resource in CloudFormation's words, its values followed as far as the template goes."""

    name: str
    type: str
    properties: dict[str, Any]
    line: int = 0
    file: str = ""
    lines: dict[str, int] = field(default_factory=dict)
    """The line of a property, by its first name."""
    depends: set[str] = field(default_factory=set)
    """The resources that exist before it, as written."""
    many: bool = False
    """One block stands for several (a Terraform count or for_each)."""

    def get(self, *path: str) -> Any:
        """The value at a path of property names, None where there is none."""
        value: Any = self.properties
        for name in path:
            if not isinstance(value, dict):
                return value if isinstance(value, Unknown) else None
            value = value.get(name)
        return value

    def at(self, name: str) -> int:
        """The line of a property, or of the resource."""
        return self.lines.get(name) or self.line


def references(value: Any) -> set[str]:
    """The names of the resources that a value mentions."""
    found: set[str] = set()
    for one in walk(value):
        if isinstance(one, Ref):
            found.add(str(one))
        elif isinstance(one, Joined):
            found.update(one.refs)
    return found
