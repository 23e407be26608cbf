"""The command group: import a command's module when it is asked for, and compute the exit code."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys

import click

from efsstate.cli import output
from efsstate.errors import EfsStateError

# A command is the module of its name below efsstate.cli. Its help is here, so that
# `efsstate --help` imports none of them.
COMMANDS = {
    "ls": "List what is below the root: cache entries, checkpoints, models, datasets.",
    "stat": "Show where the space goes, by area and namespace.",
    "show": "Show one entry: its header and its decoded value.",
    "gc": "Remove what is expired, over its limit, or abandoned.",
    "verify": "Check every byte of what is stored.",
    "rm": "Remove a namespace, an entry or a checkpoint.",
    "checkpoint": "List and show checkpoints; break, reset, cancel or finish one.",
    "model": "Publish, activate, list, check and prune models.",
    "dataset": "List, freeze, verify and remove shared training data.",
    "new": "Make a small project that works at once.",
    "template": "Write infrastructure templates.",
    "lint": "Check a function's infrastructure template.",
    "report": "Write a page to look at: space, hit rates, checkpoints, cost.",
    "plan": "Predict throughput, credits, cold starts and cost.",
    "schema": "Print the JSON Schema of what --json prints.",
    "doctor": "Check this environment: the mount, its clock, its locks.",
}
ALIASES = {"list": "ls", "sweep": "gc", "remove": "rm", "checkpoints": "checkpoint"}
ALIASES |= {"models": "model", "datasets": "dataset"}
_EXTRA = {"help": "Show the help of a command.", "version": "Print the version."}


class Commands(click.Group):
    """The commands; each module is imported when it is asked for. Other words work too."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of the commands that are installed."""
        return [
            name
            for name in COMMANDS
            if importlib.util.find_spec(f"efsstate.cli.{name}") is not None
        ]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command called `cmd_name`, or by another word for it; None if none is."""
        if cmd_name in _EXTRA:
            return super().get_command(ctx, cmd_name)
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"efsstate.cli.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the words begin with; name a near one if there is none."""
        word = args[0]
        if not ctx.resilient_parsing and word[:1] != "-" and self.get_command(ctx, word) is None:
            known = [*self.list_commands(ctx), *ALIASES, *_EXTRA]
            near = difflib.get_close_matches(word, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{word}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their help, without importing them."""
        rows = [(name, COMMANDS[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([*rows, *_EXTRA.items()])


def _print_version(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        _say_version()
        ctx.exit()


def _say_version() -> None:
    import efsstate

    click.echo(f"efsstate {efsstate.__version__}")


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--root", metavar="PATH", help="The root; also after the command.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version.",
)
def efsstate(root: str | None) -> None:
    """Look after the state that efsstate keeps on a shared file system.

    The root is --root, before or after the command, else EFSSTATE_ROOT, else /mnt/efs. Exit codes:
    0 fine, 1 findings, 2 usage, 3 could not check, 130 interrupted.
    """


@efsstate.command("version")
def _version() -> int:
    """Print the version."""
    _say_version()
    return output.FINE


@efsstate.command("help")
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def _help(ctx: click.Context, words: tuple[str, ...]) -> int:
    """Show the help of a command."""
    command: click.Command = efsstate
    around = ctx.parent or ctx
    for word in words:
        inner = command.get_command(around, word) if isinstance(command, click.Group) else None
        if inner is None:
            raise click.UsageError(f"No such command {' '.join(words)!r}.", around)
        command, around = inner, click.Context(inner, parent=around, info_name=word)
    click.echo(command.get_help(around))
    return output.FINE


def run(argv: list[str], *, json: bool = False) -> int:
    """Run one command line and return its exit code; `json`: as if `--json` were in it."""
    out = output.Output(json=json or "--json" in argv)
    try:
        code = efsstate.main(argv, prog_name="efsstate", standalone_mode=False, obj=out)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return output.USAGE
    except click.UsageError as error:
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        message = " ".join(error.format_message().split())  # click's may have several lines
        out.error("usage", message + hint, output.USAGE)
        return output.USAGE
    except (click.Abort, KeyboardInterrupt):
        out.error("interrupted", "interrupted", output.INTERRUPTED)
        return output.INTERRUPTED
    except SystemExit as error:
        if error.code is None:
            return output.FINE
        return error.code if isinstance(error.code, int) else output.COULD_NOT_CHECK
    except BrokenPipeError:
        # The reader (head, less) has enough; without this the interpreter complains at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return output.FINE
    except (EfsStateError, OSError, click.ClickException) as error:
        out.error(type(error).__name__, output.words(error), output.COULD_NOT_CHECK)
        return output.COULD_NOT_CHECK
    return int(code or output.FINE)
