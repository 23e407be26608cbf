"""The job of docs/scale.md runs as the page says, and so does the batch of the image service."""

import importlib.util
import pathlib
import re
import shlex
import sys
import types

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


def test_the_image_services_batch_collects_all_texts(tmp_path, monkeypatch):
    """With the model left out: an image's text is its name."""
    app = types.ModuleType("app")
    app.text_of = lambda image: [[image.decode(), 1.0]]
    monkeypatch.setitem(sys.modules, "app", app)
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "root"))
    path = ROOT / "examples" / "image_service" / "batch.py"
    spec = importlib.util.spec_from_file_location("image_batch", path)
    batch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(batch)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes(b"picture %d" % number)
    job = {"job": "today", "folder": str(folder), "shards": 3}
    assert batch.handler(job, None) == {"finished": True, "idle": False}
    answer = batch.handler({"step": "collect", "worker": 0, "input": job}, None)
    assert answer["result"] == {f"{n}.png": [[f"picture {n}", 1.0]] for n in range(5)}
