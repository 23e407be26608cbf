"""The planner's requests and bytes are those that the benchmarks counted on NFS."""

import json
import pathlib

from benchmarks import plan_against_reality as subject
from efsstate.planning import measured


def test_the_plan_is_what_was_counted():
    """Each operation that a workload knows was counted, and costs what the plan says."""
    with open(subject.FIGURES) as file:
        runs = json.load(file)["runs"]
    rows = [row for run in runs for row in subject.compare(run["figures"])]
    assert {field for field, *_ in rows} == {"hits", "puts", "misses", "saves"}
    for field, count, planned, counted in rows:
        assert planned == counted, field
        assert sum(counted) == measured.REQUESTS[field] * count


HEADER = 300  # bytes of an entry or a save beside its value


def test_the_bytes_are_what_was_counted():
    """Data moves once, beside a header; the metered bytes are within 3 % in each mode."""
    with open(subject.BYTES) as file:
        rows = list(subject.compare_bytes(json.load(file)["figures"]))
    assert {figure["field"] for figure, *_ in rows} == set(subject.SIZES)
    assert {figure["size"] for figure, *_ in rows} >= {1 << 10, 100 << 10, 1 << 20}
    for figure, planned, counted in rows:
        name = f"{figure['field']} of {figure['size']} bytes"
        assert 0 <= counted[0] - planned[0] <= HEADER * figure["operations"], name
        for plan, reality in zip(planned[1:], counted[1:], strict=True):
            assert 0.97 <= plan / reality <= 1.03, name
        assert figure["bytes"]["sent"] + figure["bytes"]["received"] > counted[0], name


def test_the_command_prints_the_table(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["plan_against_reality"])
    subject.main()
    printed = capsys.readouterr().out
    assert "64 hits of 1 KiB" in printed and "65,536 / 70,848" in printed
    assert "64 misses, nfs 300us" in printed and "704 / 704" in printed
    assert "a year of minutes" in printed


def test_the_page_has_the_printed_table(capsys):
    with open(subject.BYTES) as file:
        subject.print_bytes(json.load(file))
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    page = pathlib.Path(__file__).parents[2] / "docs" / "cost.md"
    assert len(rows) > 10
    assert "\n".join(rows) in page.read_text(), "docs/cost.md has another table"
