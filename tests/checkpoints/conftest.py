"""A root of its own for each test, and a warning log that can be read."""

import logging

import pytest

from efsstate import events


@pytest.fixture
def root(tmp_path):
    return str(tmp_path)


@pytest.fixture
def warned(caplog):
    """The warnings since the test began.

    Each is told once in a process, so what was told is forgotten first.
    """
    events._logged.clear()
    caplog.set_level(logging.WARNING, logger="efsstate")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def folder(root):
    """The folder of a checkpoint, and its newest generations first."""
    from pathlib import Path

    from efsstate.format import layout

    class Folder:
        def __init__(self, name):
            self.path = Path(root, layout.checkpoint_folder(name))

        def saves(self):
            found = [layout.parse_claim(path.name) for path in self.path.iterdir()]
            keys = sorted(
                [(epoch, number) for kind, epoch, number in filter(None, found) if kind == "g"],
                reverse=True,
            )
            return [self.path / layout.generation_name(*key) for key in keys]

        def temporaries(self):
            return [path for path in self.path.iterdir() if layout.is_temporary(path.name)]

    return Folder
