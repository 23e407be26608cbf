"""The short form of each part of the torture that needs no lab; a failure names its seed."""

import json
import logging
import random
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import faults
from tests.torture import (
    Skip,
    budgets,
    clocks,
    edits,
    figures,
    growth,
    hostile,
    interrupts,
    mutation,
    syscalls,
)
from tests.torture.__main__ import PARTS, ended
from tests.torture.mutations import MUTATIONS, Mutation
from tests.torture.parsers import PARSERS, attempt

SEED = random.SystemRandom().randrange(10**9)


def elsewhere(function, *arguments, **options):
    """What `function` returns in a new process: it forks, sets alarms, and measures itself."""
    code = (
        "import json, sys\n"
        f"from {function.__module__} import {function.__name__} as function\n"
        "arguments, options = json.loads(sys.argv[1])\n"
        "print(json.dumps(function(*arguments, **options)))"
    )
    command = [sys.executable, "-c", code, json.dumps([arguments, options])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.skipif(faults.MISSING is not None, reason=str(faults.MISSING))
def test_death_and_errors_at_random_system_calls():
    """Three faults each of four operations: what was acknowledged is there.

    Else old or new, whole.
    """
    names = random.Random(SEED).sample(list(syscalls.OPERATIONS), 4)
    command = [
        sys.executable,
        "-m",
        "tests.torture.syscalls",
        ";".join(names),
        str(SEED),
        "3",
    ]  # a small process forks quickly
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"seed {SEED}: {done.stderr[-2000:]}"
    *wrong, figures = done.stdout.splitlines()
    assert wrong == [] and json.loads(figures)["faults"] >= 4, (
        f"seed {SEED}: {names}: {done.stdout}"
    )


@pytest.mark.skipif(faults.MISSING is not None, reason=str(faults.MISSING))
def test_a_wrong_promise_is_seen(monkeypatch, tmp_path):
    """The check itself can fail: an operation that acknowledges what it did not do is found out."""
    start, _, look, opens, between = syscalls.OPERATIONS["save"]

    def liar(root):
        """Saves only where nothing disturbs it, and says in any case that it did."""
        from efsstate import checkpoint

        with checkpoint("job", root=root) as job:
            yield
            try:
                job.save(syscalls.NEW)
            except OSError:
                pass
            yield "saved"

    monkeypatch.setitem(syscalls.OPERATIONS, "save", (start, liar, look, opens, between))
    trial = syscalls.Trial("save", str(tmp_path))
    fault = next(
        one for one in trial.faults() if one.get("error") == "EIO" and one["call"][0] == "writev"
    )
    met, wrong = trial.attempt(fault)
    assert met and any("acknowledged, and not there" in text for text in wrong)


@pytest.mark.parametrize("name", PARSERS)
def test_no_bytes_raise_what_is_not_documented(name):
    """Random bytes, and random changes of valid ones, for every parser of what is on the mount."""
    seeds = PARSERS[name][2]

    @settings(
        max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(
        st.one_of(
            st.binary(max_size=300),
            st.tuples(
                st.sampled_from(seeds),
                st.integers(0, 400),
                st.binary(max_size=9),
                st.integers(0, 9),
            ),
        )
    )
    def run(given_):
        if not isinstance(given_, bytes):
            data, at, more, cut = given_
            given_ = data[:at] + more + data[at + cut :]
        attempt(name, given_)

    for seed in seeds:
        attempt(name, seed)
    run()


def test_what_is_planted_costs_a_miss_or_a_clear_error():
    """Links, FIFOs, devices, folders and noise at random places: no hang, no wrong value.

    Nothing outside of the root changes.
    """
    figures, wrong = hostile.planted(4, SEED)
    assert wrong == [], f"seed {SEED}: {wrong}"
    assert figures["planted"] >= 2


def test_a_file_of_a_tebibyte_is_refused_before_it_is_read():
    """In the place of each kind of entry, with a head that tells of every byte and without."""
    figures, wrong = hostile.huge()
    assert wrong == [] and figures["huge_files"] == 2 * len(hostile.KINDS)


def test_without_the_key_nobody_gains_code_or_a_wrong_answer():
    """Random copies, renames, replays and forgeries over a root that is in use under a key."""
    figures, wrong = hostile.attacked(3, SEED)
    assert wrong == [], f"seed {SEED}: {wrong}"
    assert figures["edits"] > 20


def test_strange_names_break_neither_the_library_nor_the_command():
    figures, wrong = hostile.names()
    assert wrong == [] and figures["names"] > 100


@pytest.mark.parametrize(("kind", "most"), [("alarms", 150), ("forks", 60)])
def test_operations_that_are_cut_off_leave_nothing_behind(kind, most):
    """By a signal's handler that raises, or beside a fork: files, locks, answers."""
    figures, wrong = elsewhere(interrupts.disturb, kind, 60, SEED, most=most)
    assert wrong == [], f"seed {SEED}: {wrong[:3]}"
    assert figures["met"] >= most and figures.get("lost", 0) < most / 5


def test_nothing_grows_with_the_number_of_operations():
    """Twelve of the states; `make torture` plays all of them."""
    names = random.Random(SEED).sample(list(growth.STATES), 12)
    found, wrong = elsewhere(growth.play, 50, least=60, names=names)
    assert wrong == [] and found.keys() == set(names), f"seed {SEED}"


@pytest.mark.parametrize("kind", budgets.KINDS)
def test_a_sweep_of_many_folders_keeps_its_budget_and_gets_on(kind):
    figures, wrong = elsewhere(budgets.play, kind, 300)
    assert wrong == [] and figures["count"] == 300


@pytest.mark.slow
def test_clocks_that_are_hours_apart_and_jump():
    try:
        figures = clocks.run(14, SEED)
    except Skip as reason:
        pytest.skip(str(reason))
    assert figures["violations"] == 0 and figures["operations"] > 10, f"seed {SEED}"


def test_the_page_tells_a_part_that_was_interrupted_or_not_run():
    about = {"seed": 1, "date": "now", "commit": "c", "took_minutes": 2, "cpu": "x", "cores": 2}
    about |= {"memory_gib": 4, "kernel": "6", "python": "3"}
    killed = {"error": ended(-9), "violations": 1, "seconds": 3}
    page = "\n".join(figures.page({"machine": about, "parts": {"power": killed}, "again": {}}))
    assert "**Violations: 1.**" in page and "interrupted by signal 9" in page
    assert page.count("not run") == len(PARTS) - 1


def test_every_mark_has_a_mutation_and_every_mutation_a_mark():
    """Each row changes the statement under its mark, and its tests exist.

    `make torture` runs them.
    """
    statements = edits.marked()
    assert list(mutation.faults_of_the_table(statements, MUTATIONS)) == []
    assert len(statements) > 60


def test_a_hole_in_the_table_is_seen(tmp_path):
    """A mark without a row, a row without a mark, a change without a place, a missing test."""
    (tmp_path / "module.py").write_text(
        "def f(a, b):\n"
        "    # MUT: known\n"
        "    if a and b:\n"
        "        return 1\n"
        "    # MUT: unknown\n"
        "    return 2\n"
    )
    rows = {
        "known": Mutation(
            "known", edits.without("c"), ["torture/test_short.py::test_that_is_not_there"]
        ),
        "gone": Mutation("gone", edits.drop(), []),
    }
    assert list(mutation.faults_of_the_table(edits.marked(str(tmp_path)), rows)) == [
        "unknown: marked in module.py, and not in tests/torture/mutations.py",
        "gone: in tests/torture/mutations.py, and marked nowhere in src",
        "known: module.py: no clause of it names c",
        "known: there is no test torture/test_short.py::test_that_is_not_there",
    ]


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (edits.drop(), "pass\n    return b"),
        (edits.holds(False), "if False: a += 1\n    return b"),
        (edits.without("a"), "if True and b: a += 1\n    return b"),
        (edits.without("b"), "if a and True: a += 1\n    return b"),
        (edits.first("b()", "c()"), "b()\n    c()\n    if a and b: a += 1\n    return b"),
        (edits.become("b()"), "b()\n    return b"),
        (edits.late(), "_result = b\n    if a and b: a += 1\n    return _result"),
        (edits.instead("a  +=1", "b"), "if a and b: b\n    return b"),
    ],
)
def test_an_edit_changes_its_statement_alone(tmp_path, change, after):
    """Whatever stands around the marked statement stays as it is, non-ASCII text included."""
    start = "def f(a, b):\n    'ä – ö'\n    # MUT: mark\n    "
    (tmp_path / "module.py").write_text(f"{start}if a and b: a += 1\n    return b\n")
    statement = edits.marked(str(tmp_path))["mark"]
    assert change(statement) == f"{start}{after}\n"
