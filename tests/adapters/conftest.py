"""What the adapters' tests share: a fresh root for each."""

import pytest

from efsstate import events
from efsstate.mount import root as roots


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setenv("EFSSTATE_ROOT", str(folder))
    for name in ("EFSSTATE_DISABLE", "EFSSTATE_SIGNING_KEY", "AWS_LAMBDA_FUNCTION_NAME"):
        monkeypatch.delenv(name, raising=False)
    events._logged.clear()
    yield folder
    roots._known.clear()


@pytest.fixture
def entries(root):
    """The paths of all entries below the root."""

    def find():
        return sorted(path for path in root.rglob("*") if len(path.name) == 48 and path.is_file())

    return find
