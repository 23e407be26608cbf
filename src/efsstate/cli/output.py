"""What every command shares: its common options, and how results, findings, errors and progress reach a person or a program.

A command is a module `efsstate.cli.<name>` with a click command or group named `command`:

    @click.command()
    @output.common                      # --json and --root; gives `out: Output` and `root: str | None`
    @output.listing                     # --filter, --sort, --limit; gives `rows: Listing`; only for lists
    @output.deleting                    # -y/--yes, --dry-run; gives `consent: Consent`; only for what removes
    def command(out, root, rows, consent) -> int:
        '''One line for --help.'''
        out.table(["name", "size"], found)         # for a person; nothing under --json
        out.document("ls", entries=found)          # under --json: one document, once, last; nothing otherwise
        return output.FINE

- It returns its exit code: FINE (0), FINDINGS (1, something is wrong and was told), USAGE (2: raise `click.UsageError`
  or `click.BadParameter`), COULD_NOT_CHECK (3: raise `EfsStateError` or `OSError`), INTERRUPTED (130, Ctrl-C).
- Results go to standard output; progress, questions and errors to standard error. `out.say`, `out.table`, `out.findings`
  and `out.progress` are for a person and do nothing under `--json`.
- `--json` prints one document on standard output, `{"schema": "efsstate.<name>", "version": 1, ...}`; an error is
  `{"schema": "efsstate.error", "version": 1, "error": {"type", "message", "exit"}}`, there too. Keys are snake_case,
  times are seconds since the epoch, lengths of time seconds, sizes bytes.
- Findings are dicts `{"level": "ok" | "warning" | "error", "where", "what", "do"}`; `out.findings` shows them as a table,
  worst first, and gives the exit code.
- Colour only on a terminal and without NO_COLOR; progress only where standard error is a terminal.
- Removing needs a yes: asked on a terminal, else `-y`. `consent(what)` says what and how much, and asks.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import json as json_module
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
_WIDE = 400  # columns where the output is no terminal: nothing is cut that a program or `grep` would miss


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader (head, less) has what it wanted: told on to `app.run`, where rich would end the process with 1."""
        raise BrokenPipeError


class Output:
    """Where a command's results go: `json` tells whether a program reads them."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json

    @functools.cached_property
    def console(self) -> Console:
        """Rich's console on standard output."""
        return _Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)

    def say(self, text: str) -> None:
        """A line for a person."""
        if not self.json:
            self.console.print(Text(plain(text)), soft_wrap=True)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None
    ) -> None:
        """A table for a person; a column whose name ends in `>` is aligned to the right. Values may be rich's own."""
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
                *[Text(plain(value)) if isinstance(value, str) else value for value in row]
            )
        self.console.print(table)

    def findings(
        self, found: Sequence[Mapping[str, Any]], *, shown: Sequence[str] = ("where", "what", "do")
    ) -> int:
        """Findings as a table, worst first; FINDINGS if one is an error or a warning, else FINE."""
        order = list(_LEVELS)
        ranked = sorted(found, key=lambda one: order.index(one["level"]))
        if ranked and not self.json:
            rows = [
                [
                    Text(_LEVELS[one["level"]][1], style=_LEVELS[one["level"]][0]),
                    *[str(one.get(key, "")) for key in shown],
                ]
                for one in ranked
            ]
            self.table(["", *shown], rows)
        return FINDINGS if any(one["level"] != "ok" for one in found) else FINE

    def problems(self, texts: Sequence[str]) -> None:
        """What could not be looked at, a line each on standard error; under `--json` put them into the document."""
        if not self.json:
            for text in texts:
                click.echo(f"efsstate: {plain(text)}", err=True)

    def document(self, name: str, /, **fields: Any) -> None:
        """Under `--json`, the one document: `{"schema": "efsstate.<name>", "version": 1, **fields}`."""
        if self.json:
            assert not {"schema", "version"} & set(fields), "these are the document's own"
            document = {"schema": f"efsstate.{name}", "version": VERSION, **fields}
            click.echo(json_module.dumps(document, default=_plain_json))

    def error(self, kind: str, message: str, code: int) -> None:
        """An error: a document under `--json`, else one line on standard error."""
        if self.json:
            self.document("error", error={"type": kind, "message": message, "exit": code})
        else:
            click.echo(f"efsstate: {message}", err=True)

    @contextlib.contextmanager
    def progress(self, what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """A progress bar on standard error, on a terminal only: `with out.progress(...) as advance: advance(1)`."""
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


def _plain_json(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    return repr(value)


def plain(text: str) -> str:
    """`text` without control characters: a name on the mount must not drive the operator's terminal."""
    return "".join(
        [c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text]
    )


def words(error: BaseException) -> str:
    """An error as one line: `<path>: <why>` for an `OSError`."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, RootError):  # `root=` is what a program passes
        return str(error).replace("or pass root=", "or pass --root").replace("(root=)", "(--root)")
    return str(error) or type(error).__name__


def bytes_text(number: float) -> str:
    """A size for a person: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def age_text(seconds: float | None) -> str:
    """A length of time for a person: `3.2d`."""
    if seconds is None:
        return "-"
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{sign}{seconds / size:.1f}{unit}"
    return f"{sign}{seconds:.0f}s"


def time_text(when: float | None) -> str:
    """A moment for a person, UTC."""
    return "-" if when is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(when))


# Options


def common(function: F) -> F:
    """`--json` and `--root`, given to the command as `out` and `root`."""

    @click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document on standard output."
    )
    @click.option("--root", metavar="PATH", help="The root; else EFSSTATE_ROOT, else /mnt/efs.")
    @functools.wraps(function)
    def run(*given: Any, as_json: bool, **named: Any) -> Any:
        out = click.get_current_context().find_object(Output) or Output()
        out.json = out.json or as_json
        return function(*given, out=out, **named)

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
    "flag": lambda given: given.lower() in ("yes", "true", "1"),
}


class Listing:
    """What `--filter`, `--sort` and `--limit` ask for: `rows.of(dicts, kinds, sort="size")` gives the rows to show.

    `kinds` has the type of each column that may be named: "age" (seconds), "size" (bytes), "count", "text" or "flag".
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
        """The rows to show, in order, and how many passed; `sort` and `most` are for where nobody asked.

        No more rows are held than are shown.
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
                f"--filter {text!r}: write a column, one of > < >= <= = != ~ and a value, such as 'age>7d'; columns:"
                f" {', '.join(kinds)}"
            )
        column, compare, kind = match[1], _COMPARE[match[2]], kinds[match[1]]
        try:
            value = _VALUES.get(kind, str)(match[3])
        except ValueError as error:
            raise click.UsageError(f"--filter {text!r}: {error}") from None
        return lambda row: row.get(column) is not None and compare(row[column], value)


def listing(function: F) -> F:
    """`--filter`, `--sort` and `--limit`, given to the command as `rows`, a `Listing`."""

    @click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="TEXT",
        help="Only those for which it holds: 'age>7d'.",
    )
    @click.option("--sort", metavar="COLUMN", help="Order by it; COLUMN:asc or COLUMN:desc.")
    @click.option("--limit", type=click.IntRange(min=1), help="No more than that many.")
    @functools.wraps(function)
    def run(
        *given: Any, filters: Sequence[str], sort: str | None, limit: int | None, **named: Any
    ) -> Any:
        return function(*given, rows=Listing(filters, sort, limit), **named)

    return run  # type: ignore[return-value]


class Consent:
    """Whether something may be removed: `dry_run` tells that nothing is; call it with what would go."""

    def __init__(self, *, yes: bool, dry_run: bool) -> None:
        self.yes, self.dry_run = yes, dry_run

    def __call__(self, what: str) -> bool:
        """Whether to go on and remove `what`; raises `click.UsageError` where nobody can be asked and `-y` is missing."""
        if self.dry_run:
            return False
        if self.yes:
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError(
                f"this removes {what}: without a terminal it needs -y (or look first, with --dry-run)"
            )
        return click.confirm(f"Remove {plain(what)}?", err=True)


def deleting(function: F) -> F:
    """`-y` and `--dry-run`, given to the command as `consent`, a `Consent`."""

    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @click.option("--dry-run", is_flag=True, help="Only say what would go.")
    @functools.wraps(function)
    def run(*given: Any, yes: bool, dry_run: bool, **named: Any) -> Any:
        return function(*given, consent=Consent(yes=yes, dry_run=dry_run), **named)

    return run  # type: ignore[return-value]
