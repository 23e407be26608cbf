"""Comments that keep a finding quiet: `# efsstate: ignore EFS025`, on its line or the one above."""

from __future__ import annotations

import re

from efsstate.deploy.findings import Finding
from efsstate.deploy.linting.located_yaml import load
from efsstate.deploy.linting.stack import Stack
from efsstate.errors import TemplateError

_COMMENT = re.compile(r"(?:#|//|/\*).*?\befsstate:\s*ignore\b[\s=:]*((?:EFS\d+[,\s]*)*)")


def is_silenced(finding: Finding, stack: Stack, lines: dict[str, list[str]]) -> bool:
    """Return True if a comment, or the resource's Metadata, keeps a finding quiet.

    `lines` remembers the files that were read.
    """
    resource = stack.resources.get(finding.resource)
    if resource is not None and finding.code in resource.ignored:
        return True
    if not finding.file:
        return False
    if finding.file not in lines:
        try:
            lines[finding.file] = load(finding.file).splitlines()
        except TemplateError:
            lines[finding.file] = []
    places = {finding.line, 0 if resource is None else resource.line}
    return any(_covers(lines[finding.file], place, finding.code) for place in places if place)


def _covers(lines: list[str], number: int, code: str) -> bool:
    if number > len(lines):
        return False
    near = [lines[number - 1]]
    above = lines[number - 2].strip() if number > 1 else ""
    if above.startswith(("#", "//", "/*")):
        near.append(above)
    return any(_ignores(line, code) for line in near)


def _ignores(line: str, code: str) -> bool:
    match = _COMMENT.search(line)
    if match is None:
        return False
    codes = re.findall(r"EFS\d+", match[1])
    return not codes or code in codes
