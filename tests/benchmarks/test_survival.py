"""What is lost, wrong or refused is counted, and what hangs ends."""

import time

import pytest
from benchmarks.budgets import Figures
from benchmarks.kinds import Store, value

from benchmarks import subjects, survival, tables_answers


class Forgets(Store):
    """Acknowledges each put, and keeps every other one."""

    name = "forgets"

    def open(self):
        self.under = subjects.Floor(self.folder)
        self.get = self.under.get

    def put(self, key, data=None):
        if key == "afterwards" or int(key.partition("-")[2]) % 2:
            self.under.put(key, data or self.kept(key))

    def kept(self, key):
        return value(key)

    def add_one(self):
        pass

    def total(self):
        return 0


class Changes(Forgets):
    """Keeps something else."""

    def kept(self, key):
        return value("another")


class Refuses(Forgets):
    """Raises at its tenth put."""

    def put(self, key, data=None):
        if key.endswith("-10"):
            raise OSError("no more")
        super().put(key.replace("0", "1"), data)
        super().put(key, data)


class Hangs(Forgets):
    def put(self, key, data=None):
        time.sleep(60)


@pytest.mark.parametrize("subject", subjects.OURS, ids=lambda subject: subject.__name__)
def test_ours_keeps_what_it_acknowledged(subject, tmp_path):
    places = [(f"{tmp_path}/{name}",) * 2 for name in "ab"]
    [killed] = survival.killed(subject, places, rounds=2)
    [both] = survival.writers(subject, f"{tmp_path}/w", f"{tmp_path}/w")
    for row in (killed, both):
        assert (row["lost"], row["wrong"], row["errors"]) == (0, 0, 0) and row["usable"], row
    assert killed["acknowledged"] >= survival.PUTS and both["acknowledged"] == 2 * survival.PUTS
    if subject.add_one:
        [row] = survival.counter(subject, f"{tmp_path}/c", f"{tmp_path}/c")
        assert row["total"] == row["acknowledged"] == row["asked"]


def test_what_a_cache_forgets_is_counted(tmp_path):
    [row] = survival.writers(Forgets, f"{tmp_path}/w", f"{tmp_path}/w")
    assert (row["acknowledged"], row["lost"], row["wrong"]) == (200, 100, 0)
    [killed] = survival.killed(Forgets, [(f"{tmp_path}/k",) * 2], rounds=1)
    assert killed["lost"] >= survival.PUTS // 2 // 2
    [counted] = survival.counter(Forgets, f"{tmp_path}/c", f"{tmp_path}/c")
    assert (counted["acknowledged"], counted["total"]) == (100, 0)
    rows = [{"place": "nfs", "subject": "forgets", **one} for one in (row, killed, counted)]
    table = tables_answers.survival(Figures({"runs": [{"figures": rows}]}))
    assert "**100 of 200**: 100 lost" in table and "**0 of 100**: 100 lost" in table
    assert "**100 of 200**" in tables_answers.summary(Figures({"runs": [{"figures": rows}]}))


def test_a_wrong_value_is_not_a_lost_one(tmp_path):
    [row] = survival.writers(Changes, f"{tmp_path}/w", f"{tmp_path}/w")
    assert (row["lost"], row["wrong"]) == (100, 100) and not row["usable"]


def test_what_a_cache_refuses_is_not_acknowledged(tmp_path):
    [row] = survival.writers(Refuses, f"{tmp_path}/w", f"{tmp_path}/w")
    assert row["asked"] == 200 and row["acknowledged"] == 20 and "no more" in row["error"]


def test_a_writer_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(survival, "WITHIN", 0.5)
    [row] = survival.writers(Hangs, f"{tmp_path}/w", f"{tmp_path}/w")
    assert row["acknowledged"] == 0 and not row["usable"] and "hangs" in row["error"]
