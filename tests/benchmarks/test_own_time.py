"""The quick form of what measures a process's own time: lean hits, cold starts, memory, arrays."""

import json
import platform
import shutil
import subprocess
import sys

import pytest
from benchmarks.budgets import Figures

from benchmarks import cold, in_memory, large, lean, processes, suite, tables_time

OURS = "efsstate `cached`"
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: apt-get install strace"
)


def figures(rows, **more):
    """Wrap rows as the command does, for the tables."""
    return Figures({"runs": [{"figures": [{"place": "local", **more, **row} for row in rows]}]})


@needs_strace
def test_a_lean_hit_is_counted(tmp_path):
    """Ours makes three system calls and the table shows them."""
    [figure] = lean.one(OURS, f"{tmp_path}/x", rounds=1)
    assert figure["calls"] == 3 and figure["modules"] > 20 and figure["ratio"] > 0
    table = tables_time.lean(figures([figure], subject=OURS))
    assert OURS in table and "| 3 " in table


@needs_strace
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator that maps")
def test_a_read_that_maps_memory_each_time_is_seen(tmp_path, monkeypatch):
    """The allocator's calls and the page faults of a buffer above its threshold are counted."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    monkeypatch.setitem(
        lean.CODE,
        "maps",
        """
def hit(key):
    fd = os.open("bare-" + key, os.O_RDONLY, dir_fd=place)
    data = os.read(fd, 131072)
    os.close(fd)
    return data
put = put_bare
""",
    )
    [figure] = lean.one("maps", f"{tmp_path}/x", rounds=1)
    assert figure["calls"] == 3 and figure["allocator"] >= 2 and figure["page_faults"] >= 1


def test_a_lean_subject_that_computes_again_is_no_figure(tmp_path, monkeypatch):
    monkeypatch.setitem(lean.CODE, "forgets", "hit, put = value, value")
    [figure] = processes.isolated(lean.one, "forgets", f"{tmp_path}/x")
    assert "computed again" in figure["failed"]


@pytest.mark.runtime
def test_a_cold_start_is_measured_with_and_without_bytecode(tmp_path):
    """The same modules are loaded, of the package that was made, and none is compiled on disk."""
    rows = list(cold.rows(f"{tmp_path}/x", rounds=1, peers=False, ours=("claim",)))
    found = {(row["subject"], row.get("bytecode")): row for row in rows if row["row"] == "cold"}
    name = cold.OURS["claim"]
    names = [found[name, kind]["names"] for kind in ("with", "without")]
    assert names[0] == names[1] and len(names[0]) == found[name, "with"]["modules"] > 0
    assert not list((tmp_path / "x" / "without").rglob("*.pyc"))
    assert list((tmp_path / "x" / "with").rglob("*.pyc"))
    [warm] = [row for row in rows if row["row"] == "lean"]
    assert warm["ratio"] > 0 and warm["page_faults"] >= 0
    table = tables_time.cold(figures(rows))
    assert name in table and "without" in table


def test_a_hit_in_memory_is_right_by_each_kind_of_call():
    rows = [*in_memory.hits(OURS, rounds=10), *in_memory.answers(OURS)]
    assert [row["kind"] for row in rows[:-1]] == list(in_memory.CALLS)
    assert not [row for row in rows if "wrong" in row]
    assert rows[-1] == {"row": "memory answers", "confused": 0, "shared": False}
    assert "own copies" in tables_time.memory(figures(rows, subject=OURS))


def test_a_cache_that_confuses_and_shares_is_shown():
    [row] = in_memory.answers("cachetools `cached` with a lock")
    assert row["confused"] == 2 and row["shared"]
    table = tables_time.memory(figures([row], subject="cachetools"))
    assert "**2**" in table and "**shared**" in table


def test_an_entry_takes_the_memory_of_its_objects_at_least(tmp_path):
    # In an interpreter of its own: a fork of this one would reuse memory that tests have freed.
    program = (
        "import json, sys; from benchmarks import in_memory\n"
        "print(json.dumps(list(in_memory.footprint(in_memory.BESIDE, sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"{tmp_path}/x"], stdout=subprocess.PIPE, check=True
    )
    [row] = json.loads(done.stdout)
    assert row["kept"] == row["entries"] and "wrong" not in row
    assert row["objects"] < row["bytes_each"] < 4000


def test_a_large_array_comes_back_whole(tmp_path, monkeypatch):
    """Every byte that the table's ways return is what was stored, and ours is a copy of its own."""
    pytest.importorskip("numpy")
    monkeypatch.setattr(large, "SIZE", 1 << 20)
    monkeypatch.setattr(large.array, "__defaults__", (1 << 20,))
    places = suite.Places(str(tmp_path))
    ways = [large.NpLoad, large.Cached, large.Pickle]
    rows = list(large.arrays(places, rounds=2, some=ways))
    places.close()
    assert [row["subject"] for row in rows] == [way.name for way in ways]
    assert all(row["writable"] and row["ratio"] > 0 for row in rows), rows
    assert large.BASE in tables_time.large(figures(rows))
