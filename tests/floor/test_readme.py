"""What the README and the pages say is there: its example runs, its links lead somewhere, its commands exist."""

import base64
import pathlib
import re
import types

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
] + sorted((ROOT / "docs").rglob("*.md"))


class Context:
    def get_remaining_time_in_millis(self):
        return 60_000


def test_the_readmes_example_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path))
    code = re.search(
        r"<!-- example: readme -->\n```python\n(.*?)```",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )[1]
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
        "base64": base64,
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
