"""The pages of the codes, generated from the table of rules."""

from __future__ import annotations

import textwrap

from efsstate.deploy.findings import Rule

WIDTH = 100
_SEVERITY = {
    "error": "error: it does not work, or not always",
    "warning": "warning: it works, and will hurt",
    "note": "note: advice; shown with `--notes`, and no reason for exit code 1 without `--strict`",
}


def page(rule: Rule, example: str = "") -> str:
    """Return the Markdown page of a rule; `example` is a diff from wrong to right."""
    parts = [
        f"# {rule.code}: {rule.title}",
        _wrapped(f"Severity: {_SEVERITY[rule.severity]}. About: {rule.link}."),
        f"## Why\n\n{_wrapped(rule.why)}",
        f"## What to do\n\n{_wrapped(rule.fix)}",
    ]
    if example:
        parts.append(f"## Example\n\n{example}")
    return "\n\n".join(parts) + "\n"


def index(rules: dict[str, Rule]) -> str:
    """Return the page that lists all codes."""
    rows = [
        f"| [{rule.code}]({rule.code}.md) | {rule.severity} | {rule.link} | {rule.title} |"
        for rule in rules.values()
    ]
    head = (
        "# Codes of `efsstate lint` and `efsstate doctor`\n\n"
        "Generated from the table in `src/efsstate/deploy`.\n"
        "`efsstate lint --explain CODE` prints a page.\n\n"
        "| code | severity | about | fault |\n|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
