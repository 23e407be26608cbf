"""Findings of the linter and the doctor, and the rules that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from efsstate.deploy.linting.resource import Resource
    from efsstate.deploy.linting.stack import Stack

SEVERITIES = ("error", "warning", "note")


class Finding(NamedTuple):
    """A fault that was found.

    Its severity is error (it fails), warning (it will hurt) or note (advice, which does not make
    the exit code 1).
    """

    code: str
    severity: str
    what: str
    """The rule's title."""
    resource: str
    """The resource in the template, the ARN or id in the account, or the path on the mount."""
    evidence: str
    fix: str
    page: str
    """The page that explains the code, below the project's docs/."""
    file: str = ""
    line: int = 0
    """From 1; 0 if there is no line."""


class Hit(NamedTuple):
    """A place where a rule applies; the rule makes a Finding of it."""

    resource: str
    evidence: str
    line: int = 0
    severity: str = ""
    file: str = ""

    @classmethod
    def on(cls, resource: Resource, evidence: str, at: str = "", severity: str = "") -> Self:
        """Return a hit on a resource, at the line of its property `at`."""
        return cls(resource.name, evidence, resource.at(at), severity, resource.file)


class Rule(NamedTuple):
    """A row of the table of codes, with the check that finds it in a template or an account."""

    code: str
    severity: str
    link: str
    """The part of the way from the function to the files; the doctor walks these in order."""
    title: str
    why: str
    fix: str
    check: Callable[[Stack], Iterable[Hit]] | None = None

    def finding(self, hit: Hit) -> Finding:
        """Return the finding for a hit of this rule."""
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
    """Yield the findings of the rules in a stack, worst first, each once."""
    findings = {
        rule.finding(hit): None
        for rule in rules
        if rule.check is not None
        for hit in rule.check(stack)
    }
    yield from sorted(findings, key=sort_key)


def sort_key(finding: Finding) -> tuple[int, str, int, str]:
    """Return the key that sorts findings: worst first, then by file, line and code."""
    return SEVERITIES.index(finding.severity), finding.file, finding.line, finding.code
