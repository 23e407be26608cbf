"""`efsstate doctor`: examines a mount, a function's configuration, or an error's name."""

from __future__ import annotations

import json

import click

from efsstate.cli.lint import exit_code, line_of, summary
from efsstate.deploy.doctor import doctor
from efsstate.deploy.exceptions import EXCEPTIONS, Explained, explain
from efsstate.deploy.findings import document


@click.command(name="doctor")
@click.option("--root", metavar="PATH", help="The root; else EFSSTATE_ROOT, else /mnt/efs.")
@click.option(
    "--timeout", metavar="SECONDS", default=30.0, show_default=True, help="When to give up a call that hangs."
)
@click.option(
    "--size", "mebibytes", metavar="MIB", default=8, show_default=True, help="File for the throughput test; 0 for none."
)
@click.option(
    "--aws", is_flag=True, help="Read the configuration of --function from AWS instead (needs efsstate[aws])."
)
@click.option("--function", metavar="NAME", help="The function's name or ARN, with --aws.")
@click.option("--region", metavar="REGION", help="With --aws; else as the AWS command line finds it.")
@click.option(
    "--error", "error_text", metavar="TEXT", help="Explain one of Lambda's EFS errors: its name, or a log line with it."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    *,
    root: str | None,
    timeout: float,
    mebibytes: int,
    aws: bool,
    function: str | None,
    region: str | None,
    error_text: str | None,
    as_json: bool,
) -> None:
    """Say what is wrong with the mount of this machine, or with a function's way to its file system.

    Exit code: 0 nothing found, 1 findings, 2 usage, 3 could not be checked.
    """
    if error_text is not None:
        _explain(error_text, as_json=as_json)
        return
    if aws != (function is not None):
        raise click.UsageError("--aws and --function NAME go together")
    if aws and function is not None:
        _account(function, region, as_json=as_json)
    findings = doctor(root=root, timeout=timeout, size=mebibytes << 20)
    if as_json:
        click.echo(json.dumps(document("doctor", findings), indent=2))
    else:
        for one in findings:
            if one.code == "EFS100":
                click.echo("\n".join([f"{one.resource}:", *(f"    {part}" for part in one.evidence.split("; "))]))
            else:
                click.echo(line_of(one))
        click.echo(summary([one for one in findings if one.code != "EFS100"]))
    raise SystemExit(exit_code(findings))


def _explain(text: str, *, as_json: bool) -> None:
    found = explain(text)
    if found is None:
        names = ", ".join(one.name for one in EXCEPTIONS)
        raise click.UsageError(f"no EFS error of Lambda in that text: they are {names}")
    if as_json:
        causes = [cause._asdict() for cause in found.causes]
        click.echo(
            json.dumps(
                document("doctor", [], error={"name": found.name, "means": found.means, "causes": causes}), indent=2
            )
        )
        return
    click.echo("\n".join(lines_of(found)))


def lines_of(found: Explained) -> list[str]:
    """An explained error, for a person."""
    lines = [found.name, found.means, "", "Causes, the likeliest first:"]
    for number, cause in enumerate(found.causes, 1):
        lines += [f"{number}. {cause.what} ({cause.code})", f"   look at: {cause.check}"]
    return lines


def _account(function: str, region: str | None, *, as_json: bool) -> None:
    try:
        from efsstate.deploy.account import AccountError, examine
    except ImportError as error:
        click.echo(f"--aws needs boto3, which is not installed: pip install 'efsstate[aws]' ({error})", err=True)
        raise SystemExit(3) from error
    try:
        result = examine(function, region)
    except AccountError as error:
        if as_json:
            click.echo(json.dumps(document("doctor", [], function=function, failed=[str(error)]), indent=2))
        click.echo(str(error), err=True)
        raise SystemExit(3) from error
    if as_json:
        click.echo(
            json.dumps(
                document("doctor", result.findings, function=function, way=result.way, unseen=result.unseen), indent=2
            )
        )
    else:
        for link, state in result.way.items():
            click.echo(f"{link}: {state}")
        for one in result.findings:
            click.echo(line_of(one))
        for text in result.unseen:
            click.echo(f"not looked at: {text}", err=True)
        click.echo(summary(result.findings))
    raise SystemExit(exit_code(result.findings) or (3 if result.unseen else 0))
