"""Every command in the documents runs, as it stands there."""

import os
import re
import shlex

import pytest

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


def test_every_reason_in_the_code_is_on_the_page():
    with open(f"{DOCS}/lifecycle.md") as file:
        page = file.read()
    for reason in (
        "expired",
        "cleared",
        "old",
        "unused",
        "limit",
        "lock",
        "temporary",
        "checkpoint",
        "generation",
        "version",
    ):
        assert f"`{reason}`" in page


def test_every_command_is_on_the_page():
    from efsstate.cli import app

    with open(f"{DOCS}/cli.md") as file:
        page = file.read()
    for name in app.efsstate.list_commands(None):
        assert f"efsstate {name}" in page or f"`{name}`" in page, name
