"""The page of each code, made from the table."""

from __future__ import annotations

from efsstate.deploy.findings import Rule

_SEVERITY = {
    "error": "error: it does not work, or not always",
    "warning": "warning: it works, and will hurt",
    "note": "note: advice; shown with `--notes`, and no reason for exit code 1 without `--strict`",
}


def page(rule: Rule, example: str = "") -> str:
    """The Markdown page of a rule; `example` is a diff from wrong to right."""
    parts = [
        f"# {rule.code}: {rule.title}",
        f"Severity: {_SEVERITY[rule.severity]}. About: {rule.link}.",
        f"## Why\n\n{rule.why}",
        f"## What to do\n\n{rule.fix}",
    ]
    if example:
        parts.append(f"## Example\n\n{example}")
    return "\n\n".join(parts) + "\n"


def index(rules: dict[str, Rule]) -> str:
    """The list of all codes."""
    rows = [
        f"| [{rule.code}]({rule.code}.md) | {rule.severity} | {rule.link} | {rule.title} |"
        for rule in rules.values()
    ]
    head = (
        "# Codes of `efsstate lint` and `efsstate doctor`\n\nMade from the table in `src/efsstate/deploy`; `efsstate lint --explain CODE` "
        "prints a page.\n\n| code | severity | about | what |\n|---|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"
