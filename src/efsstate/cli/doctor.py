"""`efsstate doctor`: examine a mount, a function's configuration, or an error's name."""

from __future__ import annotations

import click

from efsstate.cli import output
from efsstate.cli.lint import exit_code, line_of, summary
from efsstate.cli.output import Output, plain
from efsstate.deploy.diagnosis.doctor import doctor
from efsstate.deploy.diagnosis.lambda_errors import EXCEPTIONS, explain
from efsstate.errors import EfsStateError


@click.command("doctor")
@click.option(
    "--timeout",
    metavar="SECONDS",
    default=30.0,
    show_default=True,
    help="Give up a call that hangs after this long.",
)
@click.option(
    "--size",
    "mebibytes",
    metavar="MIB",
    default=8,
    show_default=True,
    help="Size of the file for the throughput test; 0 for none.",
)
@click.option(
    "--aws",
    is_flag=True,
    help="Read the configuration of --function from AWS instead (needs efsstate[aws]).",
)
@click.option("--function", metavar="NAME", help="The function's name or ARN, with --aws.")
@click.option(
    "--region", metavar="REGION", help="With --aws; else as the AWS command line finds it."
)
@click.option(
    "--error",
    "text",
    metavar="TEXT",
    help="Explain one of Lambda's EFS errors: its name, or a log line with it.",
)
@output.common
def command(
    timeout: float,
    mebibytes: int,
    aws: bool,
    function: str | None,
    region: str | None,
    text: str | None,
    out: Output,
    root: str | None,
) -> int:
    """Find faults of this machine's mount, or between a function and its file system.

    Exit code: 0 nothing found, 1 findings, 2 usage, 3 could not be checked.
    """
    if text is not None:
        return _explain(out, text)
    if aws != (function is not None):
        raise click.UsageError("--aws and --function NAME go together")
    if function is not None:
        return _account(out, function, region)
    findings = doctor(root=root, timeout=timeout, size=mebibytes << 20)
    for finding in findings:
        if finding.code == "EFS100":
            out.say(
                "\n".join(
                    [
                        f"{plain(finding.resource)}:",
                        *(f"    {plain(part)}" for part in finding.evidence.split("; ")),
                    ]
                )
            )
        else:
            out.say(line_of(finding))
    out.say(summary([finding for finding in findings if finding.code != "EFS100"]))
    out.document("doctor", findings=[finding._asdict() for finding in findings])
    return exit_code(findings)


def _explain(out: Output, text: str) -> int:
    error = explain(text)
    if error is None:
        names = ", ".join(error.name for error in EXCEPTIONS)
        raise click.UsageError(f"no EFS error of Lambda in that text: they are {names}")
    out.say(f"{error.name}\n{error.means}\n\nCauses, the likeliest first:")
    for number, cause in enumerate(error.causes, 1):
        out.say(f"{number}. {cause.what} ({cause.code})\n   look at: {cause.check}")
    out.document(
        "error-explained",
        name=error.name,
        means=error.means,
        causes=[cause._asdict() for cause in error.causes],
    )
    return output.FINE


def _account(out: Output, function: str, region: str | None) -> int:
    try:
        from efsstate.deploy.diagnosis.account import examine
    except ImportError as error:
        raise EfsStateError(
            f"--aws needs boto3, which is not installed: pip install 'efsstate[aws]' ({error})"
        ) from error
    result = examine(function, region)
    for link, state in result.way.items():
        out.say(f"{link}: {plain(state)}")
    for finding in result.findings:
        out.say(line_of(finding))
    out.problems([f"not looked at: {text}" for text in result.unseen])
    out.say(summary(result.findings))
    findings = [finding._asdict() for finding in result.findings]
    out.document(
        "doctor", function=function, way=result.way, findings=findings, unseen=result.unseen
    )
    return exit_code(result.findings) or (output.COULD_NOT_CHECK if result.unseen else output.FINE)
