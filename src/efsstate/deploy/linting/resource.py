"""A resource of a template or an account, in CloudFormation's vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from efsstate.deploy.linting.values import Joined, Ref, Unknown, walk


@dataclass
class Resource:
    """A resource with its values resolved as far as the template allows."""

    name: str
    type: str
    properties: dict[str, Any]
    line: int = 0
    file: str = ""
    lines: dict[str, int] = field(default_factory=dict)
    """The line of each property, by its first name."""
    depends: set[str] = field(default_factory=set)
    """The resources that must exist before it, as written."""
    is_many: bool = False
    """True if one block stands for several resources (Terraform's count or for_each)."""
    condition: str = ""
    """The condition under which it is created, if the parameters do not decide that."""
    ignored: frozenset[str] = frozenset()
    """The codes that its Metadata keeps quiet."""

    def get(self, *path: str) -> Any:
        """Return the value at a path of property names, or None if there is none."""
        value: Any = self.properties
        for name in path:
            if not isinstance(value, dict):
                return value if isinstance(value, Unknown) else None
            value = value.get(name)
        return value

    def at(self, name: str) -> int:
        """Return the line of a property, or of the resource if the property is not written."""
        return self.lines.get(name) or self.line


def references(value: Any) -> set[str]:
    """Return the names of the resources that a value mentions."""
    names: set[str] = set()
    for part in walk(value):
        if isinstance(part, Ref):
            names.add(str(part))
        elif isinstance(part, Joined):
            names.update(part.refs)
    return names
