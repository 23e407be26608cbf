"""`efsstate lint`: checks templates, or explains a code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from efsstate.cli import output
from efsstate.cli.output import Output, plain
from efsstate.deploy.findings import SEVERITIES
from efsstate.deploy.linting.lint import lint
from efsstate.deploy.rule_docs import page
from efsstate.deploy.rules import RULES
from efsstate.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from efsstate.deploy.findings import Finding


@click.command("lint")
@click.argument("templates", metavar="TEMPLATE...", nargs=-1)
@click.option("--explain", metavar="CODE", help="Print the page of a code, such as EFS001.")
@click.option("--notes", is_flag=True, help="Show advice too.")
@click.option("--strict", is_flag=True, help="Advice counts as a finding (and is shown).")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document on standard output, advice included.",
)
def command(
    templates: tuple[str, ...], explain: str | None, notes: bool, strict: bool, as_json: bool
) -> int:
    """Check SAM, CloudFormation and Terraform for what keeps a function from its EFS file system.

    TEMPLATE is a file, or a folder with .tf files. Exit code: 0 nothing found, 1 findings, 2 usage, 3 a template could not be
    checked.
    """
    out = click.get_current_context().find_object(Output) or Output()
    out.json = out.json or as_json
    if explain is not None:
        return _explain(out, explain)
    if not templates:
        raise click.UsageError("name a template: a file, or a folder with .tf files")
    findings: list[Finding] = []
    failed: list[str] = []
    for path in templates:
        try:
            findings += lint(path)
        except TemplateError as error:
            failed.append(str(error))
    shown = findings if notes or strict else [one for one in findings if one.severity != "note"]
    for one in shown:
        out.say(line_of(one))
    out.problems(failed)
    if findings or not failed:
        out.say(summary(findings, hidden=len(findings) - len(shown)))
    out.document(
        "lint",
        templates=list(templates),
        findings=[one._asdict() for one in findings],
        failed=failed,
    )
    return output.COULD_NOT_CHECK if failed else exit_code(findings, strict=strict)


def _explain(out: Output, code: str) -> int:
    rule = RULES.get(code.upper())
    if rule is None:
        raise click.UsageError(
            f"{code}: no such code: they go from {min(RULES)} to {max(RULES)}, see docs/lint/README.md"
        )
    out.say(page(rule).rstrip())
    out.document(
        "code",
        code=rule.code,
        severity=rule.severity,
        about=rule.link,
        title=rule.title,
        why=rule.why,
        fix=rule.fix,
    )
    return output.FINE


def exit_code(findings: Sequence[Finding], *, strict: bool = False) -> int:
    """FINE or FINDINGS: whether anything counts."""
    return (
        output.FINDINGS
        if any(strict or one.severity != "note" for one in findings)
        else output.FINE
    )


def line_of(one: Finding) -> str:
    """A finding for a person: where, what, what was seen, what to do."""
    where = f"{one.file}:{one.line}: " if one.line else f"{one.file}: " if one.file else ""
    return plain(
        f"{where}{one.severity} {one.code} {one.what}\n    {one.resource}: {one.evidence}\n    fix: {one.fix}"
    )


def summary(findings: Sequence[Finding], *, hidden: int = 0) -> str:
    """The last line: how many of each."""
    counts = {kind: sum(one.severity == kind for one in findings) for kind in SEVERITIES}
    parts = [
        f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in counts.items() if number
    ]
    return (", ".join(parts) or "nothing found") + (" (--notes shows the notes)" if hidden else "")
