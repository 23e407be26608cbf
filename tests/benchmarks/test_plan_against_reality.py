"""The planner's requests are those that the benchmarks counted on NFS, by kind."""

import json

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


def test_the_command_prints_the_table(capsys):
    subject.main()
    printed = capsys.readouterr().out
    assert "64 misses, nfs 300us" in printed and "704 / 704" in printed
    assert "a year of minutes" in printed
