"""`efsstate lint`: checks templates, or explains a code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from efsstate import __version__
from efsstate.cli import output
from efsstate.cli.output import Output, plain
from efsstate.deploy.findings import SEVERITIES
from efsstate.deploy.linting import formats
from efsstate.deploy.linting.lint import Report, check
from efsstate.deploy.linting.parameter_files import parameter_name, read_parameters
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
@click.option("--strict", is_flag=True, help="Show advice, and count it as a finding.")
@click.option(
    "--parameters",
    metavar="NAME=VALUE",
    multiple=True,
    help="Use this value of a parameter or variable, or the values in a file; repeatable.",
)
@click.option("--ignore", metavar="CODE", multiple=True, help="Leave a code out; repeatable.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github", "sarif"]),
    default="text",
    help="Print text, one JSON document, GitHub annotations, or a SARIF log.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(
    templates: tuple[str, ...],
    explain: str | None,
    notes: bool,
    strict: bool,
    parameters: tuple[str, ...],
    ignore: tuple[str, ...],
    form: str,
    as_json: bool,
) -> int:
    """Check templates for faults that keep a function from its EFS file system.

    TEMPLATE is a SAM or CloudFormation template, a Terraform file or the JSON of its plan, a
    serverless.yml, or a folder: of .tf files, or of templates such as cdk.out.

    Exit code: 0 nothing found, 1 findings, 2 usage, 3 a template could not be checked.
    """
    out = click.get_current_context().find_object(Output) or Output()
    out.json = out.json or as_json or form == "json"
    if explain is not None:
        return _explain(out, explain)
    if not templates:
        raise click.UsageError("name a template: a file, or a folder with .tf files")
    codes = {code.upper() for code in ignore}
    for code in codes - set(RULES):
        raise click.UsageError(_unknown(code))
    reports, failed = _check_all(templates, parameters, codes)
    if not failed:
        _require_known(parameters, reports)
    _show(out, reports, failed, form=form, notes=notes or strict)
    findings = [finding for report in reports for finding in report.findings]
    out.document(
        "lint",
        templates=list(templates),
        findings=[finding._asdict() for finding in findings],
        failed=failed,
        functions=sum(report.functions for report in reports),
        not_followed=[name for report in reports for name in report.unseen],
        silenced=sum(report.silenced for report in reports),
        not_created=sum(report.skipped for report in reports),
    )
    return output.COULD_NOT_CHECK if failed else exit_code(findings, strict=strict)


def _check_all(
    templates: Sequence[str], parameters: Sequence[str], ignore: set[str]
) -> tuple[list[Report], list[str]]:
    """Return the reports, and the messages of the templates that could not be checked."""
    reports, failed = [], []
    try:
        values = read_parameters(parameters)
    except TemplateError as error:
        return [], [str(error)]
    for path in templates:
        try:
            reports.append(check(path, values, ignore))
        except TemplateError as error:
            failed.append(str(error))
    return reports, failed


def _require_known(given: Sequence[str], reports: Sequence[Report]) -> None:
    """Raise click.UsageError if a value is given for a parameter that no template has.

    A file may have values for other templates, too.
    """
    known: set[str] = set()
    for report in reports:
        if report.parameters is None:
            return
        known |= set(report.parameters)
    for name in filter(None, map(parameter_name, given)):
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise click.UsageError(
                f"--parameters {name}: the templates have no parameter or variable of that name;"
                f" those that they have: {names}"
            )


def _show(
    out: Output, reports: Sequence[Report], failed: list[str], *, form: str, notes: bool
) -> None:
    findings = [finding for report in reports for finding in report.findings]
    shown = [finding for finding in findings if notes or finding.severity != "note"]
    out.problems(failed)
    if out.json:
        return
    if form == "sarif":
        click.echo(formats.sarif(shown, RULES, __version__))
    elif form == "github":
        for line in formats.github(shown):
            click.echo(line)
    else:
        for finding in shown:
            out.say(line_of(finding))
        if findings or not failed:
            hidden = len(findings) - len(shown)
            out.say(plain(f"{summary(findings, hidden=hidden)}{looked_at(reports)}"))


def looked_at(reports: Sequence[Report]) -> str:
    """Return how much was looked at, for the end of the summary."""
    functions = sum(report.functions for report in reports)
    unseen = [name for report in reports for name in report.unseen]
    silenced = sum(report.silenced for report in reports)
    skipped = sum(report.skipped for report in reports)
    text = f"; functions with a file system looked at: {functions}"
    if unseen:
        names = ", ".join(unseen[:5]) + (", …" if len(unseen) > 5 else "")
        text += f"; not followed: {names}"
    if skipped:
        text += f"; resources not created with these parameters: {skipped}"
    return text + (f"; silenced: {silenced}" if silenced else "")


def _explain(out: Output, code: str) -> int:
    rule = RULES.get(code.upper())
    if rule is None:
        raise click.UsageError(_unknown(code))
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


def _unknown(code: str) -> str:
    span = f"{min(RULES)} to {max(RULES)}"
    return f"{code}: no such code; they go from {span}, see docs/lint/README.md"


def exit_code(findings: Sequence[Finding], *, strict: bool = False) -> int:
    """Return FINDINGS if a finding counts, else FINE; advice counts only if `strict`."""
    counts = any(strict or finding.severity != "note" for finding in findings)
    return output.FINDINGS if counts else output.FINE


def line_of(finding: Finding) -> str:
    """Return a finding for a person: the place, the fault, the evidence, and the fix."""
    where = finding.file and (f"{finding.file}:{finding.line}: " if finding.line else "")
    where = where or (f"{finding.file}: " if finding.file else "")
    return plain(
        f"{where}{finding.severity} {finding.code} {finding.what}\n"
        f"    {finding.resource}: {finding.evidence}\n"
        f"    fix: {finding.fix}"
    )


def summary(findings: Sequence[Finding], *, hidden: int = 0) -> str:
    """Return the last line: how many findings there are of each severity."""
    counts = {kind: sum(each.severity == kind for each in findings) for kind in SEVERITIES}
    parts = [
        f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in counts.items() if number
    ]
    return (", ".join(parts) or "nothing found") + (" (--notes shows the notes)" if hidden else "")
