"""The short form of each part of the torture that needs no lab: a sample, whose seed the failure names."""

import json
import logging
import random
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import faults
from tests.torture import Skip, clocks, hostile, mutation, syscalls
from tests.torture.parsers import PARSERS, attempt

SEED = random.SystemRandom().randrange(10**9)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.skipif(faults.MISSING is not None, reason=str(faults.MISSING))
def test_process_death_and_errors_at_system_calls_picked_at_random():
    """Three faults each of four operations: what was acknowledged is there, else the old state or the new, whole."""
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
    """Random bytes, and random changes of what is valid, of every parser of bytes and names from the mount."""
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
    """Links, FIFOs, devices, folders and noise at random places: no hang, no wrong value, nothing changed outside."""
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


@pytest.mark.slow
def test_clocks_that_are_hours_apart_and_jump():
    try:
        figures = clocks.run(14, SEED)
    except Skip as reason:
        pytest.skip(str(reason))
    assert figures["violations"] == 0 and figures["operations"] > 10, f"seed {SEED}"


def test_each_mutation_can_be_made():
    """The source still has the text that each mutation changes, and the tests that should notice are there; whether they do is for `make torture`."""
    missing = []
    for n, (name, change) in enumerate((mutation.MUTATIONS | mutation.NFS).items()):
        try:
            mutation.check(change)
        except LookupError as error:
            missing.append(f"{name}: {error}")
        for test in change[3]:
            path, _, function = test.partition("::")
            with open(f"{mutation.HERE}/{path}") as file:
                if f"def {function.partition('[')[0]}" not in file.read():
                    missing.append(f"{name}: there is no {test}")
    assert missing == [] and n > 25
