"""Reports of the linter for other programs: GitHub's annotations, and SARIF."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from efsstate.deploy.findings import Finding, Rule

_GITHUB = {"error": "error", "warning": "warning", "note": "notice"}


def github(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield a workflow command of GitHub Actions for each finding."""
    for finding in findings:
        place = f"file={_escaped(finding.file, ':,')}"
        if finding.line:
            place += f",line={finding.line}"
        title = _escaped(f"{finding.code} {finding.what}", ":,")
        message = _escaped(f"{finding.resource}: {finding.evidence}\nfix: {finding.fix}")
        yield f"::{_GITHUB[finding.severity]} {place},title={title}::{message}"


def _escaped(text: str, more: str = "") -> str:
    """Escape a text as the runner of GitHub Actions expects it."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    for sign in more:
        text = text.replace(sign, f"%{ord(sign):02X}")
    return "".join(char if char.isprintable() else "?" for char in text)


def sarif(findings: Iterable[Finding], rules: dict[str, Rule], version: str) -> str:
    """Return a log in SARIF 2.1.0, as code scanning reads it."""
    listed = list(findings)
    used = sorted({finding.code for finding in listed})
    driver = {
        "name": "efsstate lint",
        "version": version,
        "rules": [_rule(rules[code]) for code in used],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, used.index(finding.code)) for finding in listed],
    }
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    }
    return json.dumps(log, indent=2)


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(finding: Finding, index: int) -> dict[str, Any]:
    path = finding.file.replace(os.sep, "/").removeprefix("./")
    location: dict[str, Any] = {"artifactLocation": {"uri": quote(path)}}
    if finding.line:
        location["region"] = {"startLine": finding.line}
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": f"{finding.what}. {finding.resource}: {finding.evidence}"},
        "locations": [{"physicalLocation": location}],
    }
