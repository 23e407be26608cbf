"""Every command of docs/cost.md prints the lines that the page shows below it."""

import pathlib
import re
import shlex

import pytest

from efsstate.cli import app
from efsstate.testing import isolated

TEXT = (pathlib.Path(__file__).parents[2] / "docs" / "cost.md").read_text()
COMMANDS = re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
(PYTHON,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """The page's Python block ran here, and left its file."""
    monkeypatch.chdir(tmp_path)
    with isolated():
        exec(compile(PYTHON, "cost.md", "exec"), {})


@pytest.mark.parametrize("block", COMMANDS, ids=range(len(COMMANDS)))
def test_the_pages_commands_print_its_lines(block, capsys, recorded):
    command, *expected = block.splitlines()
    words = shlex.split(command.removeprefix("$ efsstate "))
    assert app.run(words) == 0
    printed = capsys.readouterr().out
    assert len(expected) >= 1
    for line in expected:
        assert line in printed
