"""How one run of the tests is shared among processes, and what `make check` leaves out."""

import os
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


def run_script(folder):
    """Run the script of `make test` on the tests of a folder."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = nfs\n slow\n heavy\n long\n")
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return subprocess.run(
        [f"{ROOT}/scripts/tests", sys.executable, "--fast", "-q"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )


SECOND_TURNS = [  # tests that fail: how many, always or once, in which folder; what comes out
    (3, False, "here", 0),
    (1, True, "here", 1),
    (4, False, "here", 1),
    (1, False, "tests/torture", 1),
]


@pytest.mark.parametrize(("number", "always", "folder", "expected"), SECOND_TURNS)
def test_a_few_failed_tests_get_a_second_turn(tmp_path, number, always, folder, expected):
    """Alone, and their names are shown; never those that draw their faults."""
    (tmp_path / folder).mkdir(parents=True)
    text = f"""import os, pytest
@pytest.mark.parametrize("name", ["a b", "c[d]", "e::f", "g"][:{number}])
def test_turn(name):
    is_second = os.path.exists(name)
    os.makedirs(name, exist_ok=True)
    assert is_second and not {always}
"""
    (tmp_path / folder / "test_turns.py").write_text(text)
    (tmp_path / folder / "test_other.py").write_text("def test_other():\n    pass\n")
    done = run_script(tmp_path)
    assert done.returncode == expected
    last = done.stdout.partition("each is a test to mend:\n")[2].splitlines()
    names = ["a b", "c[d]", "e::f"] if expected == 0 else []
    assert last == [f"here/test_turns.py::test_turn[{name}]" for name in names]


def test_a_killed_process_gets_no_second_turn(tmp_path):
    """What it would have found is not known."""
    text = "import os\ndef test_{0}():\n    os.path.exists('{0}') or os.mkdir('{0}') or {1}\n"
    for name, end in (("ends", "os._exit(1)"), ("fails", "1 / 0")):
        (tmp_path / f"test_{name}.py").write_text(text.format(name, end))
    done = run_script(tmp_path)
    assert done.returncode == 1 and "once more" not in done.stdout


@pytest.mark.parametrize(("seconds", "is_long"), [("0.30", False), ("0.60", True)])
def test_long_tests_are_listed_by_their_durations(tmp_path, monkeypatch, seconds, is_long):
    monkeypatch.setattr(sharing, "LONG", str(tmp_path / "long.txt"))
    (tmp_path / "log").write_text(f"{seconds}s call     tests/cache/test_keys.py::test_one[a]\n")
    sharing.main(tmp_path / "log")
    assert sharing.long_tests() == ({"cache/test_keys.py::test_one"} if is_long else set())
