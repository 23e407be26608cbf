"""Users' lines pass `mypy --strict` and strict pyright, and mistakes are found where they stand."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import efsstate

LINES = pathlib.Path(__file__).parent / "lines"
SOURCE = pathlib.Path(efsstate.__file__).parents[1]
FILES = sorted(LINES.glob("*.py"))


def expected(path, checker):
    """Return the lines on which `checker` must find an error."""
    lines = path.read_text().splitlines()
    marked = re.compile(rf"# error(: {checker})?$")
    return {number for number, line in enumerate(lines, 1) if marked.search(line)}


def mypy(cache):
    """Return (file, line, message) of each error."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
    # mypy finds an installed package itself, and refuses site-packages as a path.
    installed = SOURCE.name == "site-packages"
    done = subprocess.run(
        [*command, "--cache-dir", str(cache), *map(str, FILES)],
        cwd=cache,
        env=os.environ | ({} if installed else {"MYPYPATH": str(SOURCE)}),
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    for line in done.stdout.splitlines():
        if match := re.match(r"(.+?):(\d+): error: (.*)", line):
            yield pathlib.Path(match[1]).name, int(match[2]), match[3]


def pyright():
    """Return (file, line, message) of each error."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, *map(str, FILES)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    answer = json.loads(done.stdout[done.stdout.index("{") :])
    assert answer["summary"]["filesAnalyzed"] == len(FILES), done.stderr
    for problem in answer["generalDiagnostics"]:
        if problem["severity"] == "error":
            line = problem["range"]["start"]["line"] + 1
            yield pathlib.Path(problem["file"]).name, line, problem["message"]


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def checked(request, tmp_path_factory):
    """The checker's name, and the errors that it finds."""
    pytest.importorskip(request.param)
    if request.param == "mypy":
        return "mypy", list(mypy(tmp_path_factory.mktemp("mypy")))
    return "pyright", list(pyright())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_users_lines_are_typed(checked, path):
    """Every error is wanted, and every wanted one is there."""
    checker, problems = checked
    errors = {(line, message) for name, line, message in problems if name == path.name}
    wanted = expected(path, checker)
    assert sorted(error for error in errors if error[0] not in wanted) == []
    assert sorted(wanted - {line for line, _ in errors}) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_asks_for_strictness(path):
    """Pyright reads its mode from the file: without it the errors would be fewer."""
    assert path.read_text().startswith("# pyright: strict\n")


def test_every_public_name_is_exported_for_checkers():
    """`__all__` is written out, since a checker does not compute it."""
    assert efsstate.__all__ == ["__version__", *sorted(efsstate._LAZY)]
    text = pathlib.Path(efsstate.__file__).read_text()
    for name in efsstate._LAZY:
        assert f"import {name} as {name}\n" in text
