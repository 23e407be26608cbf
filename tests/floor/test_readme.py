"""The README's examples run, the pages' links lead somewhere, the commands they name exist."""

import base64
import pathlib
import re
import subprocess
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
] + sorted((ROOT / "docs").rglob("*.md"))


class Context:
    def get_remaining_time_in_millis(self):
        return 60_000


def blocks(name):
    """Return the README's block of code that is marked with this name."""
    text = (ROOT / "README.md").read_text()
    return re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", text, re.DOTALL)[1]


def test_the_first_example_runs_as_it_is_pasted():
    """A newcomer pastes it into `python`, line by line, in a folder with nothing prepared."""
    code = blocks("first").replace("\n\n", "\n")
    # The interactive prompt ends a block at an empty line, so one stands behind each block.
    pasted = re.sub(r"(\n(?: {4}.*\n)+)(?=\S)", r"\1\n", code)
    run = subprocess.run(
        [sys.executable, "-i", "-c", ""], input=pasted, capture_output=True, text=True, timeout=60
    )
    assert "Error" not in run.stderr, run.stderr
    assert run.stdout.splitlines()[0] == "computing 4"
    assert run.stdout.count("computing") == 1
    assert run.stdout.rstrip().endswith("45 True")


def test_the_readmes_example_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path))
    code = blocks("readme")
    import efsstate

    (tmp_path / "network.bin").write_bytes(b"weights")
    efsstate.publish("resnet50", tmp_path / "network.bin")
    loads, asked = [], []

    def load_network(files):
        loads.append(files.path)
        return lambda image, top: [("cat", 0.5)] * top

    rows = [types.SimpleNamespace(id=i, amount=i) for i in range(1, 11)]

    def rows_after(last):
        asked.append(last)
        return [row for row in rows if last is None or row.id > last]

    module = {
        "load_network": load_network,
        "rows_after": rows_after,
        "__name__": "readme",
    }
    exec(compile(code, "README.md", "exec"), module)
    event = {"image": base64.b64encode(b"picture").decode()}
    for _ in range(3):
        assert module["serve"](event, Context()) == {"labels": [("cat", 0.5)] * 5}
    assert len(loads) == 1 and module["labels"].cache_info().hits == 2
    assert module["nightly"]({"date": "2026-11-23"}, Context()) == {"finished": True}
    assert module["nightly"]({"date": "2026-11-23"}, Context()) == {"finished": True}
    assert efsstate.checkpoint("import/2026-11-23").load() == 55 and asked[0] is None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for name in re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert name in targets, f"{page.name}: make {name}"
