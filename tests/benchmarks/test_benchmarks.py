"""The benchmarks run, show what fails as failing, and the written page is the command's."""

import importlib.metadata
import json
import os
import subprocess
import sys
import time

import pytest
from benchmarks.__main__ import updated
from benchmarks.budgets import BUDGETS, Figures
from benchmarks.subjects import PEERS

from benchmarks import measure, processes, report, suite, tables_answers, training_peers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def skip_without(package):
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed: pip install --group bench")


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_every_row_of_ours_runs_on_a_local_root(tmp_path):
    out = tmp_path / "figures.json"
    done = bench(
        "--root",
        str(tmp_path),
        "--ours",
        "--only",
        "caches,answers,checkpoints",
        "--json",
        str(out),
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())["runs"][0]["figures"]
    assert not [
        f
        for f in figures
        if "failed" in f or (f.get("wrong") not in (None, 0) and f["row"] != "confusion")
    ]
    rows = {f["row"] for f in figures}
    assert rows >= {"hit", "put", "miss", "stampede", "flipped", "confusion"}
    assert rows >= {
        "save",
        "save, nothing to remove",
        "load",
        "load after a save",
        "stale",
        "claim",
        "resume",
        "map",
    }
    assert [f for f in figures if f["row"] == "stampede" and f["computations"] != 1] == []
    assert [f for f in figures if f["row"] == "flipped" and f["recomputed"] != f["flips"]] == []
    assert "## Hit" in done.stdout and "efsstate `cached`" in done.stdout
    assert os.listdir(tmp_path) == ["figures.json"]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.__name__)
def test_a_peer_stores_and_finds(peer, tmp_path):
    """A figure of a peer is of a peer that works: what it stored, another environment finds."""
    skip_without(peer.package)

    def once():
        writer = peer(f"{tmp_path}/c")
        writer.put("k")
        reader = peer(f"{tmp_path}/c")
        yield reader.hit("k") == writer.miss("k"), reader.computed

    assert processes.isolated(once) == [(True, 0)]


def test_what_fails_hangs_or_dies_is_a_figure_that_says_so():
    def broken():
        yield {"row": "first"}
        raise OSError("no such luck\nat all")

    def hanging():
        yield {"row": "first"}
        time.sleep(60)

    def dying():
        yield {"row": "first"}
        os.kill(os.getpid(), 9)

    assert processes.isolated(broken) == [{"row": "first"}, {"failed": "OSError: no such luck"}]
    assert processes.isolated(hanging, timeout=0.5) == [
        {"row": "first"},
        {"failed": "hangs: no answer within 0.5 s"},
    ]
    assert processes.isolated(dying) == [{"row": "first"}, {"failed": "the process dies: SIGKILL"}]


def test_a_figure_counts_wrong_answers_and_compares_in_turn():
    figure = measure.run(
        lambda i: i % 3,
        range(9),
        beside=lambda i: i,
        check=lambda i, got: "wrong" if got != i else None,
    )
    assert figure["wrong"] == 6 and figure["operations"] == 9 and figure["time"]["samples"] == 9
    assert (
        figure["time"]["low"] <= figure["time"]["median"] <= figure["time"]["high"]
        and "ratio" in figure
    )


def test_the_written_page_is_what_the_command_writes():
    """No number was copied by hand: the page is made from the figures beside it."""
    with open(f"{ROOT}/benchmarks/figures.json") as file:
        result = json.load(file)
    with open(f"{ROOT}/benchmarks/README.md") as file:
        assert file.read() == report.HEAD + report.markdown(result)
    for name, body in report.PAGES.items():
        with open(f"{ROOT}/{name}") as file:
            text = file.read()
        assert report.filled(text, body(Figures(result))) == text and report.END in text, name


def test_the_page_says_whom_ours_is_faster_than():
    """Peers that are faster are named, with what they do not notice; none is left out."""
    rows = [
        {"row": "hit", "place": "local", "subject": name, "ratio": ratio}
        for name, ratio in (
            ("efsstate `cached`", 3),
            ("joblib `Memory`", 30),
            ("lmdb by hand", 0.2),
        )
    ]
    flip = {"row": "flipped", "place": "local", "subject": "lmdb by hand", "wrong": 32}
    figures = Figures({"runs": [{"figures": [*rows, flip]}]})
    text = tables_answers.sentence(figures)
    assert "faster than joblib `Memory` (30)" in text
    assert "Faster than ours are lmdb by hand (0.2). Each of these returns" in text
    [budget] = [budget for budget in BUDGETS if "through the decorator" in budget.what]
    reached, kept = budget.reached(figures)
    assert "faster than the decorators joblib `Memory` (30 ×)" in reached and not kept
    assert "slower than the stores lmdb by hand (0.2 ×)" in reached


def test_an_update_replaces_only_what_was_measured_again():
    figure = {"row": "hit", "place": "nfs", "subject": "s"}
    old = {
        "versions": {"a": "1", "b": "1"},
        "runs": [
            {"place": "nfs", "delay": "3ms", "figures": [figure | {"part": "many"}]},
            {
                "place": "nfs",
                "delay": "300us",
                "figures": [figure | {"part": "caches"}, figure | {"part": "sweep"}],
            },
        ],
    }
    again = {"place": "nfs", "delay": "300us", "figures": [figure | {"part": "caches", "n": 1}]}
    result = updated(old, {"versions": {"b": "2"}, "runs": [again]})
    assert result["versions"] == {"a": "1", "b": "2"}
    assert [[f["part"] for f in run["figures"]] for run in result["runs"]] == [
        ["many"],
        ["sweep"],
        ["caches"],
    ]
    assert result["runs"][-1] is again


def test_unknown_parts_are_refused():
    done = bench("--root", "/", "--only", "hits")
    assert done.returncode == 2 and f"the parts are {', '.join(suite.PARTS)}" in done.stderr


def test_no_sample_of_ours_is_lost_and_a_lost_one_is_counted(tmp_path, monkeypatch):
    """Of the attacks on training data: a killed writer, and two at once."""
    monkeypatch.setattr(training_peers, "SAMPLES", 30)

    class Forgets(training_peers.Ours):
        """Acknowledges what it never wrote."""

        @staticmethod
        def write(folder, numbers, acknowledge):
            training_peers.Ours.write(folder, [n for n in numbers if n % 2], acknowledge)
            for n in numbers:
                acknowledge(n)

    def row(library):
        *_, line = training_peers.table([library], tmp_path, tmp_path)
        return [cell.strip() for cell in line.strip("|").split("|")]

    _, killed, two, exits = row(training_peers.Ours)
    acknowledged, read = killed.split(", ")
    assert acknowledged == read and int(read) >= 20 and (two, exits) == ("60, 60", "0, 0")
    assert row(Forgets)[2:] == ["60, 30", "0, 0"]
