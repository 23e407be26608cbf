"""The command group: finds each command's module when it is asked for, and turns how it ended into an exit code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

import click

from efsstate.cli import output
from efsstate.errors import EfsStateError

# A command lives in the module of its name below efsstate.cli, as `command`; its help is here, so that `efsstate --help`
# imports none of them.
COMMANDS = {
    "ls": "List what is below the root: cache entries, checkpoints, models.",
    "stat": "Show where the space goes, by area and namespace.",
    "show": "Show one entry: its header and its decoded value.",
    "gc": "Remove what is expired, over its limit, or abandoned.",
    "verify": "Check every byte of what is stored.",
    "rm": "Remove a namespace, an entry or a checkpoint.",
    "checkpoint": "List, show and break the claims of checkpoints.",
    "model": "Publish, activate, list, check and prune models.",
    "dataset": "List, freeze, verify and remove shared training data.",
    "template": "Write infrastructure templates.",
    "lint": "Check a function's infrastructure template.",
    "doctor": "Check this environment: the mount, its clock, its locks.",
}


class _Commands(click.Group):
    """The commands whose modules are there, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [
            name
            for name in COMMANDS
            if importlib.util.find_spec(f"efsstate.cli.{name}") is not None
        ]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"efsstate.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


def _version(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        import efsstate

        click.echo(f"efsstate {efsstate.__version__}")
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Print the version.",
)
def efsstate() -> None:
    """Look after what efsstate keeps on a shared file system.

    The root is --root after the command (efsstate ls --root PATH), else EFSSTATE_ROOT, else /mnt/efs. Exit codes: 0 fine,
    1 findings, 2 usage, 3 could not check, 130 interrupted.
    """


def run(argv: list[str], *, json: bool = False) -> int:
    """Run one command line; its exit code. `json`: as if `--json` were among its options."""
    out = output.Output(json=json or "--json" in argv)
    try:
        code = efsstate.main(argv, prog_name="efsstate", standalone_mode=False, obj=out)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return output.USAGE
    except click.UsageError as error:
        where = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        out.error("usage", error.format_message() + where, output.USAGE)
        return output.USAGE
    except (click.Abort, KeyboardInterrupt):
        out.error("interrupted", "interrupted", output.INTERRUPTED)
        return output.INTERRUPTED
    except SystemExit as error:
        return (
            error.code
            if isinstance(error.code, int)
            else output.FINE
            if error.code is None
            else output.COULD_NOT_CHECK
        )
    except BrokenPipeError:
        # The reader (head, less) has what it wanted; without this the interpreter complains while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return output.FINE
    except (EfsStateError, OSError, click.ClickException) as error:
        out.error(type(error).__name__, output.words(error), output.COULD_NOT_CHECK)
        return output.COULD_NOT_CHECK
    return int(code or output.FINE)
