"""Every command of docs/cost.md prints the lines that the page shows below it."""

import pathlib
import re
import shlex

import pytest

from efsstate.cli import app

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "cost.md"
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_pages_commands_print_its_lines(block, capsys):
    command, *expected = block.replace("\\\n", " ").splitlines()
    words = shlex.split(command.removeprefix("$ efsstate "))
    assert app.run(words) == 0
    printed = capsys.readouterr().out
    assert len(expected) >= 1
    for line in expected:
        assert line in printed
