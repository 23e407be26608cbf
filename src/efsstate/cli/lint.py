"""`efsstate lint`: checks templates, or explains a code."""

from __future__ import annotations

import json

import click

from efsstate.deploy.findings import Finding, document
from efsstate.deploy.lint import TemplateError, lint
from efsstate.deploy.pages import page
from efsstate.deploy.rules import RULES

_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command(name="lint")
@click.argument("templates", metavar="TEMPLATE...", nargs=-1)
@click.option("--explain", metavar="CODE", help="Print the page of a code, such as EFS001.")
@click.option("--notes", is_flag=True, help="Show advice too.")
@click.option("--strict", is_flag=True, help="Advice counts as a finding (and is shown).")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, advice included.")
def command(templates: tuple[str, ...], *, explain: str | None, notes: bool, strict: bool, as_json: bool) -> None:
    """Check SAM, CloudFormation and Terraform for what keeps a function from its EFS file system.

    TEMPLATE is a file, or a folder with .tf files. Exit code: 0 nothing found, 1 findings, 2 usage, 3 a template could not be
    checked.
    """
    if explain is not None:
        rule = RULES.get(explain.upper())
        if rule is None:
            raise click.UsageError(
                f"{explain}: no such code: they go from {min(RULES)} to {max(RULES)}, see docs/lint/README.md"
            )
        click.echo(page(rule), nl=False)
        return
    if not templates:
        raise click.UsageError("name a template: a file, or a folder with .tf files")
    findings: list[Finding] = []
    failed: list[str] = []
    for path in templates:
        try:
            findings += lint(path)
        except TemplateError as error:
            failed.append(str(error))
    if as_json:
        click.echo(json.dumps(document("lint", findings, templates=list(templates), failed=failed), indent=2))
    else:
        shown = findings if notes or strict else [one for one in findings if one.severity != "note"]
        for one in shown:
            click.echo(line_of(one))
        for text in failed:
            click.echo(text, err=True)
        if not failed or findings:
            click.echo(summary(findings, hidden=len(findings) - len(shown)))
    raise SystemExit(3 if failed else exit_code(findings, strict=strict))


def exit_code(findings: list[Finding], *, strict: bool = False) -> int:
    """0 or 1: whether anything counts."""
    return int(any(strict or one.severity != "note" for one in findings))


def line_of(one: Finding) -> str:
    """A finding for a person: where, what, what was seen, what to do."""
    where = f"{one.file}:{one.line}: " if one.line else f"{one.file}: " if one.file else ""
    label = click.style(f"{one.severity} {one.code}", fg=_COLORS[one.severity])
    return f"{where}{label} {one.what}\n    {one.resource}: {one.evidence}\n    fix: {one.fix}"


def summary(findings: list[Finding], *, hidden: int = 0) -> str:
    """The last line: how many of each."""
    counts = {kind: sum(one.severity == kind for one in findings) for kind in _COLORS}
    parts = [f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in counts.items() if number]
    return (", ".join(parts) or "nothing found") + (" (--notes shows the notes)" if hidden else "")
