"""What the cache's tests share: a fresh root for each test."""

import time
import types

import pytest

from efsstate.cache import disk
from efsstate.mount import clock
from efsstate.mount.files import Mount


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setenv("EFSSTATE_ROOT", str(folder))
    for name in ("EFSSTATE_DISABLE", "EFSSTATE_SIGNING_KEY", "AWS_LAMBDA_FUNCTION_NAME"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def entries(root):
    """The paths of all entries below the root."""

    def find():
        return sorted(path for path in root.rglob("*") if len(path.name) == 48 and path.is_file())

    return find


@pytest.fixture
def apart():
    """A function after which a cache shares nothing with those before, as in another process."""
    return disk._tiers.clear


@pytest.fixture
def another(root, apart):
    """The same function as another process has it: nothing in memory."""

    def make(function, **options):
        from efsstate import cached

        apart()
        made = cached(name=function.cache.name, **options)(function.__wrapped__)
        assert made.cache_info().currsize == 0
        return made

    return make


@pytest.fixture(scope="session")
def different():
    """Values of all types that keys know, no two alike."""
    from tests.cache.test_keys import DIFFERENT

    return DIFFERENT


@pytest.fixture
def later(monkeypatch):
    """Let so many seconds pass: for the wall clock and the server's."""
    offset = [0.0]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    create = Mount.create_open

    def create_later(mount, *args):
        status = create(mount, *args)
        shifted = types.SimpleNamespace(st_ino=status.st_ino, st_mtime=status.st_mtime + offset[0])
        clock.observe(shifted.st_mtime)
        return shifted

    monkeypatch.setattr(Mount, "create_open", create_later)

    def advance(seconds):
        offset[0] += seconds

    return advance
