"""`efsstate template`: prints an infrastructure template."""

from __future__ import annotations

import click

from efsstate.deploy.template import FORMATS, render


@click.command(name="template")
@click.argument("form", metavar="|".join(FORMATS), type=click.Choice(FORMATS))
@click.option("--image", is_flag=True, help="Functions from a container image, for code over 250 MB.")
@click.option("--layer", metavar="ZIP", help="Deploy the efsstate layer's zip with the stack.")
@click.option("--code", metavar="PATH", help="The functions' code: a folder (SAM) or a zip (Terraform).")
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write there instead of stdout.")
def command(form: str, *, image: bool, layer: str | None, code: str | None, output: str | None) -> None:
    """Print a complete stack: network, file system, permissions, functions, alarms, clean-up.

    What each part is for, and how to deploy it, stands in docs/deploy.md.
    """
    try:
        text = render(form, image=image, layer=layer, code=code)
        if output is None:
            click.echo(text, nl=False)
            return
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error
