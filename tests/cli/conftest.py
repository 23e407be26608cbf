"""A root with something of everything in it, and the command run on it."""

import json
import os

import pytest
from tests.cleanup.conftest import DAY, HOUR, Tree, closed  # noqa: F401
from tests.documents import checked_documents  # noqa: F401 - a fixture

from efsstate import checkpoint, dataset, publish
from efsstate.cli import app


class Shell:
    """`shell("ls", "--limit", "3")` returns (exit code, output, errors); `.json` the document."""

    def __init__(self, tree, capfd):
        self.tree, self._capfd = tree, capfd

    def __call__(self, *argv):
        self._capfd.readouterr()
        code = app.run(list(argv))
        out, err = self._capfd.readouterr()
        return code, out, err

    def json(self, *argv, code=0):
        got, out, err = self(*argv, "--json")
        assert got == code, (out, err)
        assert err == "" and out.count("\n") == 1, "one document, and nothing else"
        return json.loads(out)


def plant(tree):
    tree.policy("thumbnails", shortest=7 * DAY, longest=7 * DAY)
    for i in range(12):
        tree.entry("thumbnails", i, age=i * DAY, ttl=7 * DAY, size=1000 * (i + 1))
    tree.policy("pricing", shortest=HOUR, longest=None)
    for i in range(3):
        tree.entry("pricing", i, age=60, ttl=None, size=10)
    reviews = dataset("reviews/raw", root=tree.path)
    reviews.add(b'{"text": "good"}', ".json", key="event-1")
    reviews.freeze("run-7")
    with checkpoint("import/2026-11-01", root=tree.path) as job:
        for number in job.resume(range(10)):
            job.state = number
    with checkpoint("backfill", root=tree.path) as job:
        job.save({"n": 5})
    source = os.path.join(os.path.dirname(tree.path), "model.bin")
    with open(source, "wb") as file:
        file.write(b"w" * 5000)
    publish("resnet50", source, root=tree.path)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("EFSSTATE_ROOT", str(root))
    monkeypatch.setenv("COLUMNS", "200")
    made = Tree(root)
    plant(made)
    return made


@pytest.fixture
def shell(tree, capfd):
    return Shell(tree, capfd)
