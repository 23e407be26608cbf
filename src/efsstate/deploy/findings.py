"""What a check reports: one record for the linter and the doctor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from efsstate.deploy.linting.stack import Stack

SEVERITIES = ("error", "warning", "note")


class Finding(NamedTuple):
    """One thing that is wrong. `severity`: error (it fails), warning (it will hurt), note (advice: no exit code 1)."""

    code: str
    severity: str
    what: str
    """The rule's title."""
    resource: str
    """The resource in the template, the ARN or id in the account, or the path on the mount."""
    evidence: str
    """What was seen there."""
    fix: str
    page: str
    """The page that explains the code, below the project's docs/."""
    file: str = ""
    line: int = 0
    """From 1; 0 where there is no line."""


class Hit(NamedTuple):
    """Where a rule applies: the runner makes a Finding of it with the rule's own words."""

    resource: str
    evidence: str
    line: int = 0
    severity: str = ""
    file: str = ""


class Rule(NamedTuple):
    """A line of the table: what a code means, and for a template or an account the function that finds it."""

    code: str
    severity: str
    link: str
    """Which part of the way from the function to the files it is about: the doctor walks them in order."""
    title: str
    why: str
    fix: str
    check: Callable[[Stack], Iterable[Hit]] | None = None

    def finding(self, hit: Hit) -> Finding:
        """The finding that a hit of this rule is."""
        return Finding(
            self.code,
            hit.severity or self.severity,
            self.title,
            hit.resource,
            hit.evidence,
            self.fix,
            f"lint/{self.code}.md",
            hit.file,
            hit.line,
        )


def run(rules: Iterable[Rule], stack: Stack) -> Iterator[Finding]:
    """What the rules find in a stack, worst first."""
    found = {
        rule.finding(hit): None
        for rule in rules
        if rule.check is not None
        for hit in rule.check(stack)
    }
    yield from sorted(
        found, key=lambda one: (SEVERITIES.index(one.severity), one.file, one.line, one.code)
    )
