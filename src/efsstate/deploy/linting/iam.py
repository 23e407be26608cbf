"""Statements of IAM policies: actions, resources, principals and conditions."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.values import Unknown, any_of, is_known, items, negated

MOUNT = "elasticfilesystem:ClientMount"
WRITE = "elasticfilesystem:ClientWrite"
ROOT = "elasticfilesystem:ClientRootAccess"
S3_MOUNT = "s3files:ClientMount"
CLIENT = (MOUNT, WRITE, ROOT)


@functools.cache
def _managed_policies() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return what AWS's own policies allow, and what they deny: by name, actions of interest.

    `scripts/managed_policies.py` writes the tables.
    """
    path = os.path.join(os.path.dirname(__file__), "managed_policies.json")
    with open(path, encoding="utf-8") as file:
        tables = json.load(file)
    return tables["policies"], tables["denied"]


class Statement(NamedTuple):
    """A statement of an IAM policy."""

    effect: str
    """"allow", "deny", or "" if it is not known."""
    actions: list[Any]
    resources: list[Any]
    conditions: dict[str, Any]
    owner: Resource
    line: int = 0
    managed: str = ""
    """The name of the AWS managed policy that the statement comes from."""
    principals: Any = None
    excludes: bool = False
    """True if `actions` are NotAction: the statement is about all others."""
    excludes_principals: bool = False
    """True if `principals` are NotPrincipal: the statement is about all others."""

    @property
    def is_allow(self) -> bool:
        """True if the effect is Allow."""
        return self.effect == "allow"

    def covers(self, action: str) -> bool | None:
        """Return True if the statement is about an action, or None if an action is not known."""
        verdict = any_of(covers(pattern, action) for pattern in self.actions)
        return negated(verdict) if self.excludes else verdict

    def grants(self, action: str) -> bool | None:
        """Return True if it allows an action, or None if that is not known."""
        if self.effect == "deny":
            return False
        verdict = self.covers(action)
        return verdict if self.is_allow or verdict is False else None

    def wording(self) -> str:
        """Return the actions that allow or deny mounting, as written."""
        names = [str(action) for action in self.actions]
        if self.excludes:
            return "everything but " + ", ".join(names)
        own = [name for name in names if name.lower().startswith("elasticfilesystem:")]
        wide = [name for name in names if name == "*"]
        return ", ".join(own or wide or names)

    def condition(self, key: str) -> Any:
        """Return the value that a condition key is compared with, or None."""
        return next((value for _, value in self.comparisons(key)), None)

    def comparisons(self, key: str) -> Iterator[tuple[str, Any]]:
        """Yield (operator, value) of each comparison of a condition key."""
        for operator, pairs in self.conditions.items():
            if isinstance(pairs, dict):
                for name, value in pairs.items():
                    if name.lower() == key.lower():
                        yield operator, value


class Policy(NamedTuple):
    """The statements of a policy document."""

    statements: list[Statement]
    is_complete: bool
    """False if the document has more than could be read."""


def covers(pattern: Any, action: str) -> bool | None:
    """Return True if an action pattern of IAM (`*` and `?`) covers an action; None if unknown."""
    if not is_known(pattern):
        return None
    return fnmatchcase(action.lower(), pattern.lower().replace("[", "[[]"))


def parse_policy(document: Any, owner: Resource, line: int = 0) -> Policy:
    """Return the statements of a policy document."""
    if not isinstance(document, dict):
        return Policy([], is_complete=False)
    written = items(document.get("Statement"))
    statements = [
        _parse_statement(statement, owner, line)
        for statement in written
        if isinstance(statement, dict)
    ]
    hidden = any(str(key).startswith("Fn::") for key in document)
    return Policy(statements, is_complete=len(statements) == len(written) and not hidden)


def _parse_statement(written: dict[str, Any], owner: Resource, line: int) -> Statement:
    effect = written.get("Effect", "")
    condition = written.get("Condition")
    excludes = "NotAction" in written
    resources = items(written.get("Resource"))
    if "NotResource" in written:
        resources = [Unknown("NotResource")]
    if any(str(key).startswith("Fn::") for key in written):
        effect = ""  # a macro puts in the rest
    return Statement(
        str(effect).lower() if is_known(effect) else "",
        items(written.get("NotAction" if excludes else "Action")),
        resources,
        condition if isinstance(condition, dict) else _unknown_condition(condition),
        owner,
        getattr(written, "line", 0) or line,
        principals=written.get("NotPrincipal", written.get("Principal")),
        excludes=excludes,
        excludes_principals="NotPrincipal" in written,
    )


def _unknown_condition(condition: Any) -> dict[str, Any]:
    """Return a condition that cannot be read as one with an unknown value."""
    return {} if condition is None else {"?": {"?": Unknown(str(condition))}}


def parse_statements(document: Any, owner: Resource, line: int = 0) -> list[Statement]:
    """Return the statements of a policy document that could be read."""
    return parse_policy(document, owner, line).statements


def managed_statements(name: str, owner: Resource, line: int) -> list[Statement] | None:
    """Return the statements of an AWS managed policy, or None if AWS has no such policy."""
    allowed, denied = _managed_policies()
    if name not in allowed:
        return None
    effects = (("allow", allowed[name]), ("deny", denied.get(name)))
    return [
        Statement(effect, list(actions), ["*"], {}, owner, line, managed=name)
        for effect, actions in effects
        if actions
    ]
