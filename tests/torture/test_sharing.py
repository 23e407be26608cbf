"""How one run of the tests is shared among processes, and what `make check` leaves out."""

import pathlib
import re
import subprocess
import sys

import pytest

from tests import sharing

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_long_test_exists():
    """A test that was renamed would come back into `make check`."""
    missing = []
    for name in sharing.long_tests():
        path, _, function = name.partition("::")
        file = ROOT / "tests" / path
        text = file.read_text() if file.exists() else ""
        if "::" not in function and not re.search(rf"def {function}\b", text):
            missing.append(name)
    assert missing == []


def pytest_on(folder, *arguments):
    command = [sys.executable, "-m", "pytest", "-q", "-c", f"{ROOT}/pyproject.toml", "-p",
               "no:cacheprovider", "-p", "tests.sharing", "--rootdir", str(folder), *arguments,
               str(folder)]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_the_modules(tmp_path):
    """Each module runs once, in one of them; a failure is that one's."""
    (tmp_path / "share").mkdir()
    for number in range(6):
        text = f"import time\ndef test_{number}():\n    time.sleep(0.3)\n    assert {number} != 4\n"
        (tmp_path / f"test_{number}.py").write_text(text)
    running = [pytest_on(tmp_path, f"--share={tmp_path}/share") for _ in range(2)]
    texts = [process.communicate(timeout=60)[0] for process in running]
    assert sorted(process.returncode for process in running) == [0, 1]
    assert sum(int(count) for text in texts for count in re.findall(r"(\d+) passed", text)) == 5
    assert sum(int(count) for text in texts for count in re.findall(r"(\d+) failed", text)) == 1


@pytest.mark.parametrize(("seconds", "is_long"), [("0.30", False), ("0.60", True)])
def test_long_tests_are_listed_by_their_durations(tmp_path, monkeypatch, seconds, is_long):
    monkeypatch.setattr(sharing, "LONG", str(tmp_path / "long.txt"))
    (tmp_path / "log").write_text(f"{seconds}s call     tests/cache/test_keys.py::test_one[a]\n")
    sharing.main(tmp_path / "log")
    assert sharing.long_tests() == ({"cache/test_keys.py::test_one"} if is_long else set())
