"""The job of docs/scale.md runs as the page says."""

import pathlib
import re
import shlex

import pytest

from efsstate.cli import app

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text()
COMMANDS = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", COMMANDS, ids=range(len(COMMANDS)))
def test_the_pages_commands_print_its_lines(block, capsys):
    command, *expected = block.splitlines()
    assert app.run(shlex.split(command.removeprefix("$ efsstate "))) == 0
    printed = capsys.readouterr().out
    assert expected and all(line in printed for line in expected), printed


def test_the_pages_job_runs(tmp_path, monkeypatch):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "root"))
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.txt").write_text("word " * number)

    def count_words(path, name):
        return len((pathlib.Path(path) / name).read_text().split())

    namespace = {"count_words": count_words}
    exec(compile(block.replace("shards(1000)", "shards(5)"), "scale.md", "exec"), namespace)
    job = {"job": "today", "folder": str(folder)}
    assert namespace["handler"](job, None) == {"finished": True, "idle": False}
    answer = namespace["handler"]({"step": "collect", "worker": 0, "input": job}, None)
    assert answer["result"] == sum(range(7))
