"""What the records' tests share: a store in a fresh root, and clocks that are set."""

import time

import pytest

from efsstate.mount import clock
from efsstate.mount.files import Mount
from efsstate.records.store import RecordStore


class Time:
    """The time of the server and of this host; `seconds` can be set."""

    def __init__(self, seconds):
        self.seconds = seconds


@pytest.fixture
def server(monkeypatch):
    moment = Time(1_000_000.0)
    monkeypatch.setattr(time, "time", lambda: moment.seconds)
    monkeypatch.setattr(clock, "now", lambda: moment.seconds)
    monkeypatch.setattr(clock, "creation_time", lambda _: moment.seconds)
    return moment


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir(mode=0o700)
    return str(folder)


@pytest.fixture
def store(root):
    return RecordStore(Mount(root), "orders", 86_400)
