"""`efsstate template`: print an infrastructure template."""

from __future__ import annotations

import click

from efsstate.cli import output
from efsstate.cli.output import Output
from efsstate.deploy.template import FORMATS, render


@click.command(name="template")
@click.argument("form", metavar="|".join(FORMATS), type=click.Choice(FORMATS))
@click.option("--image", is_flag=True, help="Use container images, for code over 250 MB.")
@click.option("--layer", metavar="ZIP", help="Deploy the efsstate layer's zip with the stack.")
@click.option(
    "--code", metavar="PATH", help="The functions' code: a folder (SAM) or a zip (Terraform)."
)
@click.option(
    "--workers", metavar="N", type=int, help="Add a state machine of N workers for the batch."
)
@click.option(
    "--containers",
    metavar="MODULE:FUNCTION",
    help="Add a Batch job and an ECS task that run this function of the job.",
)
@click.option("-o", "--output", "target", metavar="FILE", help="Write to FILE.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    form: str,
    image: bool,
    layer: str | None,
    code: str | None,
    workers: int | None,
    containers: str | None,
    target: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Print a complete stack: network, file system, permissions, functions, alarms, clean-up.

    docs/deploy.md explains each part, and how to deploy the stack.
    """
    out = click.get_current_context().find_object(Output) or Output()
    out.json = out.json or as_json
    try:
        text = render(
            form, image=image, layer=layer, code=code, workers=workers, containers=containers
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if target is None:
        out.say(text.rstrip("\n"))
    else:
        output.require_free(target, force=force)
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)
    out.document("template", format=form, file=target, text=None if target else text)
    return output.FINE
