"""Every tutorial, pasted into `python` block by block, prints what its page says."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import efsstate
from efsstate.cli import app

PAGES = pathlib.Path(__file__).parents[2] / "docs" / "tutorials"
BLOCK = re.compile(r"^(?:<!-- file: (\S+) -->\n)?```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.skipif(not PAGES.is_dir(), reason="only in the source tree")


def environment(folder):
    root = folder / "root"
    root.mkdir()
    packages = os.path.dirname(os.path.dirname(efsstate.__file__))
    return os.environ | {"EFSSTATE_ROOT": str(root), "PYTHONPATH": packages}


def blocks(name):
    """Return (file, language, text) of each block of a page."""
    return BLOCK.findall((PAGES / f"{name}.md").read_text())


@pytest.mark.parametrize("name", ["cache", "checkpoint", "dataset", "model"])
def test_a_tutorial_pasted_into_python_prints_what_it_says(tmp_path, name):
    """Line by line, as a person would paste it: a blank line ends a block there."""
    code = "".join(text + "\n" for _, language, text in blocks(name) if language == "python")
    done = subprocess.run(
        [sys.executable, "-i", "-q", "-u"],
        input=code,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path),
        timeout=120,
    )
    assert "Error" not in done.stderr, done.stderr
    said = "".join(text for _, language, text in blocks(name) if language == "text")
    printed = iter(done.stdout.splitlines())  # with the values that Python shows by itself
    assert [line for line in said.splitlines() if line not in printed] == [], done.stdout


def test_a_second_session_finds_the_result_of_the_first(tmp_path):
    """As the page says: leave `python`, start it again, and paste the first block once more."""
    code = next(text for _, language, text in blocks("cache") if language == "python") + "\n"
    printed = [
        subprocess.run(
            [sys.executable, "-i", "-q", "-u"],
            input=code,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=variables,
            timeout=120,
        ).stdout.split("\n")
        for variables in [environment(tmp_path)] * 2
    ]
    assert printed == [["computing 4", "16", "16", ""], ["16", "16", ""]]


@pytest.mark.runtime
def test_the_function_of_the_last_tutorial_runs(tmp_path, monkeypatch, capsys):
    files = {file: text for file, _, text in blocks("deploy") if file}
    assert set(files) == {"src/app.py", "src/requirements.txt"}
    for file, text in files.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    (code,) = [text for file, kind, text in blocks("deploy") if kind == "python" and not file]
    code = code.replace("/tmp/shared", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        timeout=120,
    )
    assert done.stdout == "{'answer': 144}\n", done.stderr
    lines = [text for _, language, text in blocks("deploy") if language == "console"]
    for line in "".join(lines).splitlines():
        assert app.run(shlex.split(line.removeprefix("$ efsstate "))) == 0, capsys.readouterr().err
    template = (tmp_path / "template.yaml").read_text()
    assert "app.handler" in template and "efsstate.ops.handler" in template
