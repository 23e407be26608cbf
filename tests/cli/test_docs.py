"""Every command in the documents runs, as it stands there."""

import os
import pathlib
import re
import shlex

import click
import pytest

import efsstate
from efsstate.format import layout

DOCS = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "docs"
)


def blocks(page, language):
    with open(f"{DOCS}/{page}") as file:
        return re.findall(rf"^```{language}\n(.*?)^```", file.read(), re.MULTILINE | re.DOTALL)


def commands(page):
    return [
        line.removeprefix("$ efsstate ")
        for block in blocks(page, "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


@pytest.mark.parametrize("line", commands("cli.md"))
def test_every_command_of_the_page_works(shell, line):
    entry = next(
        f"cache/pricing/{name[0]}/{name}"
        for _, _, names in os.walk(shell.tree.full("cache/pricing"))
        for name in names
        if layout.is_digest(name)
    )
    code, out, err = shell(*shlex.split(line.replace("ENTRY", entry)))
    assert (code, err) == (0, ""), (out, err)
    assert out


@pytest.mark.parametrize("line", commands("cli.md"))
def test_and_gives_one_document(shell, line):
    entry = next(
        f"cache/pricing/{name[0]}/{name}"
        for _, _, names in os.walk(shell.tree.full("cache/pricing"))
        for name in names
        if layout.is_digest(name)
    )
    told = shell.json(*shlex.split(line.replace("ENTRY", entry)))
    assert told["schema"].startswith("efsstate.") and told["version"] == 1


def test_the_python_of_the_lifecycle_page_works(tree, capsys):
    (code,) = blocks("lifecycle.md", "python")
    exec(compile(code, "lifecycle.md", "exec"), {})
    assert "finished" not in capsys.readouterr().err and tree.entries("thumbnails") == 7


def test_the_janitors_event_on_the_page_works(tree):
    import json

    from efsstate import janitor

    (event,) = blocks("lifecycle.md", "json")
    assert janitor.handler(json.loads(event))["finished"]


REASONS = ("expired", "cleared", "old", "unused", "limit", "temporary", "checkpoint", "generation")
REASONS += ("version", "snapshot", "record")


def test_the_page_lists_the_reasons_and_no_others():
    with open(f"{DOCS}/lifecycle.md") as file:
        table = file.read().partition("## What goes")[2].partition("The limits are")[0]
    listed = set()
    for row in re.findall(r"^\|.*\|([^|]*)\|$", table, re.MULTILINE):
        listed |= set(re.findall(r"`(\w+)`", row)) - {"reasons"}
    assert listed == set(REASONS)


def test_the_reasons_are_those_that_the_code_gives():
    """A reason that nothing emits is a promise; one that is missing is a surprise."""
    given = set()
    for path in pathlib.Path(efsstate.__file__).parent.rglob("*.py"):
        if path.parent.name in ("eviction", "cleanup", "checkpoints", "datasets", "records"):
            pattern = r"(?:note_removed\(|note\(|yield |return |, )\"(\w+)\""
            given |= set(re.findall(pattern, path.read_text())) & {*REASONS, "lock"}
    assert given == set(REASONS)


def written_commands():
    """Yield (where, words) of each `efsstate ...` in the pages, the messages and the docstrings."""
    top = pathlib.Path(DOCS).parent
    pages = [*top.glob("*.md"), *(top / "docs").rglob("*.md"), *(top / "examples").rglob("*.md")]
    sources = [*(top / "src").rglob("*.py"), *(top / "examples").rglob("*.py")]
    for path in [*pages, *sources]:
        if path.name == "CHANGELOG.md":
            continue  # of earlier releases too
        text = path.read_text()
        quoted = re.findall(r"`efsstate ([a-z-][^`\n]*)`", text)
        quoted += re.findall(r"efsstate ([a-z]+)(?= --)", text)
        fenced = re.findall(r"^\$ efsstate (.*)$", text, re.MULTILINE)
        for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            fenced += re.findall(r"^efsstate (.*)$", block, re.MULTILINE)
        for line in quoted + fenced:
            command = line.partition("  #")[0].partition(" | ")[0].partition(" > ")[0]
            yield str(path.relative_to(top)), command.strip()


def complaint(line):
    """Return what is wrong with a command line, judged by the command's own parser; or ""."""
    from efsstate.cli import app

    command = app.efsstate
    words = shlex.split(line.replace("…", "").replace("'", '"') if "'" in line else line)
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-"):
            inner = command.get_command(click.Context(command), word)
            if inner is None or (command is app.efsstate and word in app.ALIASES):
                return f"no command {word!r}"
            command = inner
        elif word.startswith("-") and word != "-":
            known = {flag for param in command.params for flag in param.opts} | {"--help", "-h"}
            if word.partition("=")[0] not in known:
                return f"no option {word!r}"
    return ""


def test_every_command_that_is_written_anywhere_is_one():
    """Advice such as "Run efsstate sweep", where the command is gc, is found here."""
    lines = list(written_commands())
    assert len(lines) > 60
    wrong = [(where, line, complaint(line)) for where, line in lines if complaint(line)]
    assert wrong == []


@pytest.mark.parametrize("line", ["sweep", "gc --older", "checkpoint shw x", "ls --sorted size"])
def test_a_command_that_is_none_is_found(line):
    assert complaint(line)


def test_every_command_is_on_the_page():
    from efsstate.cli import app

    with open(f"{DOCS}/cli.md") as file:
        page = file.read()
    for name in app.efsstate.list_commands(None):
        assert f"efsstate {name}" in page or f"`{name}`" in page, name
