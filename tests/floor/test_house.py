"""The house's figures stay at their goals: no circle, no long line, no empty name, plain words."""

import importlib.util
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("house", ROOT / "scripts" / "house.py")
house = importlib.util.module_from_spec(spec)
spec.loader.exec_module(house)

SOURCE = ROOT / "src"


def test_no_modules_import_each_other():
    """A late import, or one for type checkers alone, makes a circle for a reader all the same."""
    assert house.circles(SOURCE) == []


def test_a_planted_circle_is_seen(tmp_path):
    """The check finds a circle through an import inside a function."""
    (tmp_path / "a.py").write_text("def f():\n    import b\n")
    (tmp_path / "b.py").write_text("from a import f\n")
    assert house.circles(tmp_path) == [["a", "b"]]


def test_no_line_is_over_a_hundred_columns():
    """Code, tests and the pages' prose fit beside each other on a screen."""
    assert list(house.long_lines(ROOT)) == []


def test_a_planted_long_line_is_seen(tmp_path):
    """The check finds a long line in a page, and passes over a table and a block of code."""
    (tmp_path / "page.md").write_text(
        f"{'word ' * 30}\n|{'cell ' * 30}|\n```\n{'x = 1 ' * 30}\n```\n"
    )
    assert list(house.long_lines(tmp_path)) == ["page.md:1: 150 columns"]


def test_locals_are_named_by_their_content():
    """A name like `found` says what was done to a thing, and not what the thing is."""
    assert list(house.empty_names(SOURCE)) == []


def test_docstrings_and_comments_are_plain():
    """At most two in a thousand words are of the kind that leaves the noun out."""
    rate, places = house.private_words(SOURCE)
    assert rate <= 2, places


def test_no_run_left_its_files_in_the_repository():
    """A folder at the top is one that the project is made of, and not a run's cache."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    folders = {name.partition("/")[0] for name in listing.stdout.splitlines() if "/" in name}
    known = {".ci", ".github", "benchmarks", "docs", "examples", "scripts", "src", "tests"}
    assert folders <= known


def test_no_line_reaches_for_privates():
    """Nothing in the package is excused from the rule against another object's privates."""
    assert house.private_access(SOURCE) == 0


@pytest.mark.parametrize("text", ["# what counts", '"""Whoever calls this."""'])
def test_a_planted_private_word_is_seen(tmp_path, text):
    """The check reads comments and docstrings."""
    (tmp_path / "module.py").write_text(f"{text}\n")
    assert house.private_words(tmp_path)[0] > 2
