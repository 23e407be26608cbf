"""`efsstate new`: each variant's tests pass, its handlers run, and its template has no finding."""

import glob
import json
import os
import pathlib
import subprocess
import sys

import pytest

import efsstate
from efsstate.cli import app
from efsstate.deploy.linting.lint import lint

SOURCE = os.path.dirname(os.path.dirname(efsstate.__file__))
WHEELS = glob.glob(str(pathlib.Path(__file__).parents[2] / "dist" / "*.whl"))
VARIANTS = [[], ["--cache"], ["--batch"], ["--model"], ["--training"]]


def new(capsys, *line):
    """Run `efsstate new`; return (exit code, standard output, standard error)."""
    code = app.run(["new", *line])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.runtime
@pytest.mark.parametrize("variant", VARIANTS, ids=" ".join)
def test_a_new_project_works_at_once(tmp_path, monkeypatch, capsys, variant):
    monkeypatch.chdir(tmp_path)
    code, out, err = new(capsys, "shop", *variant)
    assert (code, err) == (0, "") and "cd shop && make test" in out
    folder = tmp_path / "shop"
    assert not [path for path in folder.rglob("*") if path.is_file() and "@" in placeholders(path)]
    environment = os.environ | {"PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("EFSSTATE_ROOT", None)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    plugin = [] if is_installed() else ["-p", "efsstate.testing.plugin"]
    for command in ([*tests, *plugin], [sys.executable, "run.py"]):
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "'finished': True" in done.stdout or variant in (["--cache"], ["--model"])
    assert [each for each in lint(str(folder / "template.yaml")) if each.level == "error"] == []


def test_the_next_command_can_be_pasted(tmp_path, monkeypatch, capsys):
    """The folder's path is quoted for the shell; the project's own name has no blanks."""
    monkeypatch.chdir(tmp_path)
    code, out, _ = new(capsys, "my projects/shop")
    assert code == 0 and "cd 'my projects/shop' && make test" in out
    makefile = (tmp_path / "my projects" / "shop" / "Makefile").read_text()
    assert "--cli-read-timeout 0" in makefile  # else the command line invokes twice


def placeholders(path):
    """Return what is left of the marks that the project's own words take the place of."""
    text = path.read_text()
    return "@" if "@name@" in text or "@version@" in text or "@links@" in text else ""


def is_installed():
    from importlib.metadata import entry_points

    return any(e.value == "efsstate.testing.plugin" for e in entry_points(group="pytest11"))


@pytest.mark.parametrize("name", ["Shop", "1shop", "s", "a--b", "shop_", "x" * 41, "-shop", "ä"])
def test_a_name_that_no_stack_may_have_is_refused(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    code, _, err = new(capsys, "--", name)
    assert code == 2 and "small letters" in err and os.listdir(tmp_path) == []


def test_a_folder_that_exists_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    code, _, err = new(capsys, "shop")
    assert code == 2 and "it exists" in err and os.listdir(tmp_path / "shop") == []


@pytest.mark.parametrize(
    ("origin", "options", "is_said"),
    [
        ('{"url": "file:///clone", "dir_info": {}}', [], True),
        ('{"url": "file:///clone", "dir_info": {}}', ["--wheel", "a.whl"], False),
        (None, [], False),
    ],
)
def test_a_copy_from_a_file_asks_for_the_wheel(
    tmp_path, monkeypatch, capsys, origin, options, is_said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.whl").touch()
    record = tmp_path / "efsstate-0.1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Name: efsstate\nVersion: 0.1.0\n")
    if origin:
        (record / "direct_url.json").write_text(origin)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out, _ = new(capsys, "shop", *options)
    assert code == 0 and ("begin again with --wheel" in out) == is_said


def test_json_lists_the_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, _ = new(capsys, "shop", "--model", "--json")
    document = json.loads(out)
    assert code == 0 and document["schema"] == "efsstate.new" and document["variant"] == "model"
    files = {str(path.relative_to("shop")) for path in pathlib.Path("shop").rglob("*.*")}
    assert set(document["files"]) - {"Makefile"} == files


@pytest.mark.heavy
@pytest.mark.skipif(not WHEELS, reason="no wheel in dist/")
@pytest.mark.parametrize("variant", VARIANTS, ids=" ".join)
def test_the_commands_of_its_readme_run(tmp_path, monkeypatch, capsys, variant):
    """With an environment of its own, made by its Makefile from the wheel."""
    monkeypatch.chdir(tmp_path)
    assert new(capsys, "shop", "--wheel", WHEELS[0], *variant)[0] == 0
    environment = os.environ | {"PYTHON": sys.executable}
    environment.pop("PYTHONPATH", None)
    for target in ("test", "run", "lint", "plan"):
        done = subprocess.run(
            ["make", target], cwd="shop", env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
