"""Common options of all commands, and the printing of results, findings and errors.

A command is a module `efsstate.cli.<name>` with a click command or group named `command`:

    @click.command()
    @output.common                 # --json and --root: `out: Output` and `root: str | None`
    @output.listing                # --filter, --sort, --limit: `rows: Listing`; for lists
    @output.deleting               # -y/--yes, --dry-run: `consent: Consent`; for removals
    def command(out, root, rows, consent) -> int:
        '''One line for --help.'''
        out.table(["name", "size"], rows)       # for a person; nothing under --json
        out.document("ls", entries=entries)     # under --json: one document, once, last
        return output.FINE

- It returns its exit code: FINE (0); FINDINGS (1), something is wrong and was printed; USAGE (2),
  raised as `click.UsageError` or `click.BadParameter`; COULD_NOT_CHECK (3), raised as
  `EfsStateError` or `OSError`; INTERRUPTED (130), Ctrl-C.
- Results go to standard output; progress, questions and errors to standard error. `out.say`,
  `out.table`, `out.findings` and `out.progress` are for a person and do nothing under `--json`.
- `--json` prints one document on standard output, `{"schema": "efsstate.<name>", "version": 1,
  ...}`. An error is `{"schema": "efsstate.error", "version": 1, "error": {"type", "message",
  "exit"}}`, on standard output too. Keys are snake_case, times are seconds since the epoch,
  durations seconds, sizes bytes.
- Findings are dicts `{"level": "ok" | "warning" | "error", "where", "what", "do"}`; `out.findings`
  prints them as a table, worst first, and returns the exit code.
- Colour only on a terminal and without NO_COLOR; progress only if standard error is a terminal.
- Removing needs a yes: asked for on a terminal, else `-y`. `consent(...)` names all of it.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import json as json_module
import math
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from efsstate import units
from efsstate.errors import RootError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    F = TypeVar("F", bound=Callable[..., Any])

FINE, FINDINGS, USAGE, COULD_NOT_CHECK, INTERRUPTED = 0, 1, 2, 3, 130
VERSION = 1  # of every document's shape; raised when a key changes its meaning or goes
_LEVELS = {"error": ("red", "error"), "warning": ("yellow", "warning"), "ok": ("green", "ok")}
# Columns if the output is no terminal: nothing is cut that a program or `grep` would miss.
_WIDE = 400


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise the error that `app.run` expects if the reader (head, less) has enough."""
        raise BrokenPipeError


class Output:
    """Where a command's results go; `json` is True if a program reads them."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json

    @functools.cached_property
    def console(self) -> Console:
        """Return rich's console on standard output."""
        return _Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)

    def say(self, text: str) -> None:
        """Print a line for a person."""
        if not self.json:
            self.console.print(Text(plain(text)), soft_wrap=True)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None
    ) -> None:
        """Print a table for a person; a name that ends in `>` aligns its column to the right."""
        if self.json:
            return
        table = Table(
            title=title, title_justify="left", box=None, pad_edge=False, header_style="bold"
        )
        for column in columns:
            right = column.endswith(">")
            table.add_column(
                column.removesuffix(">"), justify="right" if right else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(
                *[Text(_cell(value)) if isinstance(value, str) else value for value in row]
            )
        self.console.print(table)

    def findings(
        self,
        findings: Sequence[Mapping[str, Any]],
        *,
        shown: Sequence[str] = ("where", "what", "do"),
    ) -> int:
        """Print findings as a table, worst first; return FINDINGS if any is not ok, else FINE."""
        order = list(_LEVELS)
        ranked = sorted(findings, key=lambda finding: order.index(finding["level"]))
        if ranked and not self.json:
            rows = []
            for finding in ranked:
                style, level = _LEVELS[finding["level"]]
                rows.append([Text(level, style=style), *[str(finding.get(k, "")) for k in shown]])
            self.table(["", *shown], rows)
        return FINDINGS if any(finding["level"] != "ok" for finding in findings) else FINE

    def problems(self, texts: Sequence[str]) -> None:
        """Print errors of reading, a line each on standard error; nothing under `--json`."""
        if not self.json:
            for text in texts:
                click.echo(f"efsstate: {plain(text)}", err=True)

    def document(self, name: str, /, **fields: Any) -> None:
        """Print the document of `--json`: `{"schema": "efsstate.<name>", "version": 1, ...}`."""
        if self.json:
            assert not {"schema", "version"} & set(fields), "these are the document's own"
            document = {"schema": f"efsstate.{name}", "version": VERSION, **fields}
            try:
                text = json_module.dumps(document, default=_plain_json, allow_nan=False)
            except ValueError:  # JSON has no infinity, and no "not a number"
                text = json_module.dumps(_finite(document), default=_plain_json)
            click.echo(text)

    def error(self, kind: str, message: str, code: int) -> None:
        """Print an error: a document under `--json`, else one line on standard error."""
        if self.json:
            with contextlib.suppress(OSError):  # the error may be that of standard output
                self.document("error", error={"type": kind, "message": message, "exit": code})
                return
        click.echo(f"efsstate: {plain(message)}", err=True)

    @contextlib.contextmanager
    def progress(self, what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """Show a progress bar on standard error, if a terminal; yields `advance(amount)`."""
        if self.json or not sys.stderr.isatty():
            yield lambda _amount: None
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda amount: bar.advance(task, amount)


def _finite(value: Any) -> Any:
    """Return `value` with a text such as "inf" in place of each number that JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value


def _plain_json(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    return repr(value)


def plain(text: str) -> str:
    """Return `text` without control characters, which could drive the operator's terminal."""
    return "".join(
        [c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text]
    )


def _cell(text: str) -> str:
    """Return `text` for a row of a table, in one line: a name may have line breaks."""
    return plain(text.replace("\n", "\N{REPLACEMENT CHARACTER}").replace("\t", " "))


def words(error: BaseException) -> str:
    """Return an error as one line: `<path>: <reason>` for an `OSError`."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, RootError):  # `root=` is the program's word for it
        return str(error).replace("or pass root=", "or pass --root").replace("(root=)", "(--root)")
    return str(error) or type(error).__name__


def bytes_text(number: float) -> str:
    """Return a size for a person: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def age_text(seconds: float | None) -> str:
    """Return a duration for a person: `3.2d`."""
    if seconds is None:
        return "-"
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{sign}{seconds / size:.1f}{unit}"
    return f"{sign}{seconds:.0f}s"


def time_text(when: float | None) -> str:
    """Return a moment for a person, in UTC."""
    return "-" if when is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(when))


def count_text(number: int, noun: str, plural: str = "") -> str:
    """Return `1 file`, `2 files`, `1,000 files`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def require_free(path: str, *, force: bool) -> None:
    """Raise click.UsageError if `path` exists, unless the user said `--force`."""
    # MUT: a-command-overwrites-no-file
    if os.path.lexists(path) and not force:
        raise click.UsageError(f"{path}: it exists; --force overwrites it")


# Options


class Group(click.Group):
    """A group of commands in which `list` and `ls` are one word."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command called `cmd_name`, or by the other word."""
        other = {"list": "ls", "ls": "list"}.get(cmd_name, cmd_name)
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, other)


def _lacks_unit(text: str) -> bool:
    """Return True for a duration that is a number alone, other than 0."""
    return text.strip() != "0" and not text.strip()[-1:].isalpha()


class _Duration(click.ParamType):  # type: ignore[type-arg]
    """A duration with its unit, as seconds: without one, 30 may be meant as days."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        # MUT: a-duration-on-the-command-line-has-a-unit
        if isinstance(value, str) and _lacks_unit(value):
            self.fail(f"{value!r} has no unit; write 30s, 15m, 6h or 30d", param, ctx)
        try:
            return units.seconds(value, f"{value!r}")
        except ValueError:
            self.fail(f"{value!r} is not a duration; write 30s, 15m, 1h30m or 30d", param, ctx)


DURATION = _Duration()


def common(function: F) -> F:
    """Add `--json` and `--root`, passed to the command as `out` and `root`."""

    @click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document on standard output."
    )
    @click.option("--root", metavar="PATH", help="The root; else EFSSTATE_ROOT, else /mnt/efs.")
    @functools.wraps(function)
    def run(*args: Any, as_json: bool, root: str | None, **options: Any) -> Any:
        context = click.get_current_context()
        out = context.find_object(Output) or Output()
        out.json = out.json or as_json
        root = context.find_root().params.get("root") if root is None else root
        return function(*args, out=out, root=root, **options)

    return run  # type: ignore[return-value]


_FILTER = re.compile(r"\s*(\w+)\s*(>=|<=|!=|=|>|<|~)\s*(.*?)\s*")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "~": lambda a, b: str(b) in str(a),
}
_VALUES: dict[str, Callable[[str], Any]] = {
    "age": units.seconds,
    "size": units.size,
    "count": int,
    "flag": lambda text: text.lower() in ("yes", "true", "1"),
}


class Listing:
    """The options `--filter`, `--sort` and `--limit`; `of` picks the rows to show.

    `kinds` has the type of each column that may be named: "age" (seconds), "size" (bytes),
    "count", "text" or "flag".
    """

    def __init__(self, filters: Sequence[str], sort: str | None, limit: int | None) -> None:
        self._filters, self._sort, self.limit = filters, sort, limit

    def of(
        self,
        rows: Iterable[dict[str, Any]],
        kinds: Mapping[str, str],
        *,
        sort: str,
        most: int | None = None,
    ) -> tuple[list[dict[str, Any]], int]:
        """Return the rows to show, in order, and how many passed the filters.

        `sort` and `most` hold if the command line does not say otherwise. No more rows are held
        than are shown.
        """
        passed = 0
        tests = [self._test(text, kinds) for text in self._filters]

        def kept() -> Iterator[dict[str, Any]]:
            nonlocal passed
            for row in rows:
                if all(test(row) for test in tests):
                    passed += 1
                    yield row

        column, _, order = (self._sort or sort).partition(":")
        if column not in kinds or order not in ("", "asc", "desc"):
            raise click.UsageError(
                f"--sort {self._sort}: use one of {', '.join(kinds)}, with :asc or :desc"
            )
        down = order == "desc" or (not order and kinds[column] in ("age", "size", "count"))

        def key(row: dict[str, Any]) -> tuple[bool, Any]:
            value = row.get(column)
            return (value is None) != down, value if value is not None else 0 if kinds[
                column
            ] != "text" else ""

        limit = self.limit or most
        if limit is None:
            return sorted(kept(), key=key, reverse=down), passed
        return (heapq.nlargest if down else heapq.nsmallest)(limit, kept(), key=key), passed

    @staticmethod
    def _test(text: str, kinds: Mapping[str, str]) -> Callable[[dict[str, Any]], bool]:
        match = _FILTER.fullmatch(text)
        if match is None or match[1] not in kinds:
            raise click.UsageError(
                f"--filter {text!r}: write a column, one of > < >= <= = != ~ and a value, such as"
                f" 'age>7d'; columns: {', '.join(kinds)}"
            )
        column, compare, kind = match[1], _COMPARE[match[2]], kinds[match[1]]
        if kind == "age" and _lacks_unit(match[3]):
            raise click.UsageError(f"--filter {text!r}: {match[3]} has no unit; write 30s or 30d")
        try:
            value = _VALUES.get(kind, str)(match[3])
        except ValueError as error:
            raise click.UsageError(f"--filter {text!r}: {error}") from None
        return lambda row: row.get(column) is not None and compare(row[column], value)


def listing(function: F) -> F:
    """Add `--filter`, `--sort` and `--limit`, passed to the command as `rows`, a `Listing`."""

    @click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="TEXT",
        help="Show only matching rows, e.g. 'age>7d'; several must all match.",
    )
    @click.option("--sort", metavar="COLUMN", help="Sort by COLUMN; COLUMN:asc or COLUMN:desc.")
    @click.option("--limit", type=click.IntRange(min=1), help="Show at most N rows.", metavar="N")
    @functools.wraps(function)
    def run(
        *args: Any, filters: Sequence[str], sort: str | None, limit: int | None, **options: Any
    ) -> Any:
        return function(*args, rows=Listing(filters, sort, limit), **options)

    return run  # type: ignore[return-value]


class Consent:
    """The answer to whether something may be removed; with `dry_run` nothing is."""

    def __init__(self, *, yes: bool, dry_run: bool) -> None:
        self.yes, self.dry_run = yes, dry_run

    def __call__(self, what: str, verb: str = "remove") -> bool:
        """Return True if it may be removed, or whatever `verb` says; ask on a terminal.

        Raise click.UsageError without a terminal and without `-y`.
        """
        if self.dry_run:
            return False
        if self.yes:
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError(
                f"this would {verb} {what}; without a terminal it needs -y (--dry-run only shows"
                " what)"
            )
        return click.confirm(f"{verb.capitalize()} {plain(what)}?", err=True)


def deleting(function: F) -> F:
    """Add `-y` and `--dry-run`, passed to the command as `consent`, a `Consent`."""

    @click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
    @click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
    @functools.wraps(function)
    def run(*args: Any, yes: bool, dry_run: bool, **options: Any) -> Any:
        return function(*args, consent=Consent(yes=yes, dry_run=dry_run), **options)

    return run  # type: ignore[return-value]
