"""The page's text: its numbers, its structure, and names that would like to be markup."""

import html.parser
import json
import pathlib
import re
import shlex

import pytest
from tests.reporting.conftest import START, history

from efsstate import checkpoint
from efsstate.cli import app
from efsstate.planning import plan, rates, workload
from efsstate.reporting import activity, page

NASTY = "</script><img src=x onerror=alert(1)>&\"'"


class Outline(html.parser.HTMLParser):
    """Collect the page's elements, the tables' cells, and whatever would load something."""

    EMPTY = ("meta", "img", "link", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.tables, self.ids, self.headings, self.loads, self.open = {}, [], [], [], []
        self.charts = {}
        self._table = self._cell = None
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.loads += [attrs[k] for k in ("src", "href", "srcset", "action") if k in attrs]
        if "data-chart" in attrs:
            self.charts[attrs["data-chart"]] = attrs["aria-label"]
        if tag == "table":
            self._table = self.tables.setdefault(attrs["id"], [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")
            self._cell = True
        elif tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        if self._cell:
            self._table[-1][-1] += data


@pytest.fixture
def write(files, capsys):
    """`write(*arguments, code=0)` writes the page; returns its text and what was printed."""

    def write(*arguments, code=0):
        target = files / "report.html"
        line = ["report", "--root", str(files / "root"), "-o", str(target), *arguments]
        got = app.run(line)
        out, err = capsys.readouterr()
        assert got == code, (out, err)
        return target.read_text() if code == 0 else err

    write.all = ("--events", str(files / "run.jsonl"), "--plan", str(files / "plan.toml"))
    return write


@pytest.mark.parametrize("text", ["", "START RequestId: 1\n{}\n[1]\n"])
def test_a_file_without_an_event_is_a_mistake_in_the_line(write, files, text):
    (files / "log.txt").write_text(text)
    assert "no line of it is an event" in write("--events", str(files / "log.txt"), code=2)
    assert not (files / "report.html").exists()


def test_the_page_has_the_roots_numbers(write):
    tables = Outline(write()).tables
    space = {row[0]: row[1:] for row in tables["space-table"][1:]}
    assert space["thumbnails"][:2] == ["cache", "12"]
    assert space["resnet50"][0] == "models" and space["resnet50"][1] == "2"
    assert space["reviews/raw"][0] == "datasets"
    jobs = {row[0]: row[1:] for row in tables["checkpoints-table"][1:]}
    assert jobs["import/2026-11-01"][0] == "finished" and jobs["import/2026-11-01"][2] == "10"
    assert jobs["resize"][:2] == ["waiting", " 3 of 4 shards"]
    states = sorted(row[2] for row in tables["models-table"][1:])
    assert states == ["active", "inactive"]
    assert tables["going-table"][1][:2] == ["expired", "5"]
    assert tables["datasets-table"][1][0] == "reviews/raw"


def test_the_page_has_the_events_numbers(write):
    tables = Outline(write(*write.all)).tables
    (row,) = tables["activity-table"][1:]
    assert row[:6] == ["thumbnails", "90.0 %", "60", "30", "0", "10"]
    median = float(row[8].removesuffix(" ms"))
    assert 1.9 < median < 2.1, "a histogram's buckets are 5 % apart"
    sweeps = tables["sweeps-table"][1:]
    assert [row[1:3] for row in sweeps] == [["40", "1.0 MiB"], ["41", "1.0 MiB"]]
    assert sweeps[0][0] == "2026-11-28 21:06 UTC" and sweeps[0][5] == "expired 40"


def test_the_page_has_the_plans_numbers(write):
    tables = Outline(write(*write.all)).tables
    work = workload.Workload(stored=100 << 30, hits=1e6, model=2 << 30, environments=20)
    answer = plan.make(work, rates.shipped())
    month = {row[0]: row[1] for row in tables["cost-table"][1:]}
    assert month == {mode.name: f"${mode.cost.total:,.2f}" for mode in answer.modes}
    assert tables["credits-table"][1][0] == "day 1"
    assert tables["others-table"][1][0] == "S3"


def test_the_page_has_the_historys_numbers(write, monkeypatch):
    """60 GiB read cost 1.80; 983,040 writes of a byte or so are metered as 32 KiB each: 1.80."""
    monkeypatch.setattr("efsstate.cli.plan.read_history", history)
    outline = Outline(write("--file-system", "fs-0123456789abcdef0"))
    tables = outline.tables
    assert tables["days-table"][1:] == [
        ["2026-11-28", "0 bytes", "-", "$0.00"],
        ["2026-11-29", "120.0 MiB", "1.0 TiB", "$3.60"],
    ]
    assert {"days", "cost", "credits"} <= set(outline.charts)
    month = {row[0]: row[1] for row in tables["cost-table"][1:]}
    assert month["bursting"] == "$19.20"


def test_the_page_needs_nothing_else(write):
    """No address but of its own parts, and a policy that would refuse one."""
    text = write(*write.all)
    outline = Outline(text)
    assert all(address.startswith("#") for address in outline.loads)
    assert {address[1:] for address in outline.loads} <= set(outline.ids)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "http" not in policy and "unsafe-eval" not in policy


def test_the_page_is_in_order_for_a_reader(write):
    """Headings do not skip a level, ids are single, and each chart has a text."""
    outline = Outline(write(*write.all))
    assert outline.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(outline.headings, outline.headings[1:], strict=False))
    assert len(outline.ids) == len(set(outline.ids))
    assert set(outline.charts) == {
        "space", "hits", "rates", "latency", "sweeps", "cost", "credits",
    }  # fmt: skip
    assert all("The table has the figures." in text for text in outline.charts.values())


def test_nothing_recorded_says_how_to(write):
    text = write()
    assert "efsstate report --events FILE" in text and "--plan plan.toml" in text
    assert set(Outline(text).charts) == {"space"}


def test_an_empty_root_is_a_page(tmp_path):
    (tmp_path / "root").mkdir()
    target = tmp_path / "report.html"
    assert app.run(["report", "--root", str(tmp_path / "root"), "-o", str(target)]) == 0
    outline = Outline(target.read_text())
    assert outline.tables == {} and outline.charts == {}


def test_names_are_text(write, files):
    """A cache, its events and a title with markup in them make no element."""
    lines = [
        {"kind": "cache", "event": "hit", "level": "mount", "name": NASTY, "seconds": 0.001},
        {"kind": "sweep", "event": "sweep", "name": "x", "removed": 1, "reasons": {NASTY: 1}},
    ]
    (files / "run.jsonl").write_text("\n".join(map(json.dumps, lines)))
    text = write(*write.all, "--title", NASTY)
    outline = Outline(text)
    assert outline.tables["activity-table"][1][0] == NASTY
    assert "<img" not in text.partition("<script>")[0]
    (data,) = re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["activity"]["caches"][0]["name"] == NASTY


def test_a_root_of_many_jobs_is_a_small_page(tmp_path):
    """Of 200 jobs 150 have a row of their own, and the sums are of all of them."""
    for i in range(200):
        checkpoint(f"job/{i:03}", root=tmp_path / "root").reset()
    target = tmp_path / "report.html"
    assert app.run(["report", "--root", str(tmp_path / "root"), "-o", str(target)]) == 0
    tables = Outline(target.read_text()).tables
    assert len(tables["space-table"]) == 1 + 151
    (others,) = [row for row in tables["space-table"] if row[0] == "(50 others)"]
    assert others[1:3] == ["checkpoints", "50"]
    assert "200 in all: 200 waiting." in target.read_text()


def test_the_page_of_the_documents_runs(planted, tmp_path, monkeypatch):
    text = (pathlib.Path(__file__).parents[2] / "docs" / "report.md").read_text()
    (line,) = re.findall(r"^\$ efsstate (.*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EFSSTATE_ROOT", str(planted))
    assert app.run(shlex.split(line)) == 0
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()


def test_a_file_is_overwritten_only_if_asked(write):
    write()
    assert "--force overwrites it" in write(code=2)
    assert "<!doctype html>" in write("--force")


def test_days_without_a_file_system_are_refused(write):
    assert "--days: it needs --file-system" in write("--days", "3", code=2)


def test_the_document_is_the_pages(write, files, capsys):
    line = ["report", "--root", str(files / "root"), "-o", str(files / "r.html"), "--json"]
    assert app.run(line) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "efsstate.report"
    assert document["checkpoint_states"] == {"finished": 1, "waiting": 1}


def test_no_root_is_exit_code_3(tmp_path, capsys):
    assert app.run(["report", "--root", str(tmp_path / "none"), "-o", str(tmp_path / "r")]) == 3


# Activity


def test_metrics_are_summed_up():
    """A line of EMF has all caches together, and one of a cache that cache."""
    line = {"CacheHit": 5, "CacheMiss": 5, "MountRead": [1.0, 3.0], "CacheCompute": [100.0]}
    total = {"_aws": {"Timestamp": START * 1000}, **line, "CheckpointSaveTime": [7.0]}
    lines = [json.dumps(total), json.dumps(total | {"Cache": "labels"})]
    sums = activity.read(lines).as_dict()
    assert {row["name"] for row in sums["caches"]} == {activity.ALL, "labels"}
    assert all((row["memory"], row["mount"], row["rate"]) == (3, 2, 0.5) for row in sums["caches"])
    assert sums["saves"]["count"] == 1


@pytest.mark.parametrize("seconds", [1e-6, 0.0021, 0.5, 12.0, 900.0])
def test_latencies_are_exact_to_five_percent(seconds):
    times = activity.Latencies()
    for _ in range(99):
        times.add(seconds)
    times.add(10 * seconds)
    assert times.percentile(0.5) == pytest.approx(seconds, rel=0.05)
    assert times.percentile(0.99) == pytest.approx(seconds, rel=0.05)
    assert times.percentile(1) == pytest.approx(10 * seconds, rel=0.05)


def test_strange_events_do_no_harm():
    lines = [
        '{"kind": "cache", "event": "hit", "name": 5, "seconds": "soon", "bytes": []}',
        '{"kind": "cache", "event": "miss", "name": null, "seconds": NaN}',
        '{"kind": "cache", "event": "wait", "name": "a", "seconds": 1e400}',
        '{"kind": "sweep", "event": "sweep", "removed": -4, "reasons": [1]}',
        '{"kind": ["x"], "event": {}}',
        '{"_aws": {"Timestamp": "now"}, "MountRead": ["a", null], "CacheHit": true}',
    ]
    sums = activity.read(lines).as_dict()
    assert sums["sweeps"][0]["removed"] == 0 and sums["rates"] == []
    page.json.dumps(sums, allow_nan=False)


def test_memory_does_not_grow_with_the_lines():
    """Ten times the lines leave as many moments, buckets and rows."""

    def held(count):
        seen = activity.Activity()
        for i in range(count):
            seen.add(
                {
                    "kind": "cache", "event": "hit", "level": "mount", "time": START + i,
                    "name": "a", "seconds": (i % 50 + 1) / 1000,
                }
            )  # fmt: skip
        sums = seen.as_dict()
        assert sums["caches"][0]["mount"] == count
        assert sums["rates"] and all(rate == 1 for _, rate in sums["rates"])
        return seen.kept

    assert held(60_000) <= max(held(6_000), 5_000)
