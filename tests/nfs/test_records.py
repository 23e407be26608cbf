"""Idempotency records on two NFS clients: requests, and no run beside another under faults."""

import itertools
import random
import time
import warnings

import pytest

pytest.importorskip("aws_lambda_powertools", reason="needs aws-lambda-powertools")

from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent_function
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyItemAlreadyExistsError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
from benchmarks.measure import Requests

from efsstate.adapters.powertools import EfsPersistenceLayer
from efsstate.errors import ClaimLost
from efsstate.mount.files import Mount
from efsstate.records import retention, windows
from efsstate.records import store as store_module

pytestmark = pytest.mark.nfs


class Context:
    def get_remaining_time_in_millis(self):
        return 30_000


def function(root, **options):
    config = IdempotencyConfig(lambda_context=Context())

    @idempotent_function(
        data_keyword_argument="order",
        config=config,
        persistence_store=EfsPersistenceLayer(root=root, **options),
        key_prefix="charge",
    )
    def charge(order):
        return {"order": order}

    return charge


@pytest.fixture
def _counted(lab):
    if not Requests(lab.b).counted:
        pytest.skip("these are no NFS mounts: requests cannot be counted")


@pytest.mark.usefixtures("_counted")
def test_a_call_is_two_requests_and_a_duplicate_three(lab):
    here, there = function(lab.a), function(lab.b)
    with lab.count("a") as fresh:
        here(order=0)
    print("a fresh environment, the first of all:", fresh.total, dict(fresh.ops))
    with lab.count("b") as joining:
        there(order="b")
    print("a fresh environment:", joining.total, dict(joining.ops))
    assert joining.total <= 13
    # Another environment has written to the folder since: the client asks for its rights again.
    with lab.count("a") as after_another:
        here(order="after b")
    print("after another environment's call:", after_another.total, dict(after_another.ops))
    assert after_another.ops["SYMLINK"] == 2 and after_another.total <= 3
    calls, duplicates = [], []
    for order in range(8):
        with lab.count("a") as first:
            here(order=order)
        with lab.count("b") as duplicate:
            assert there(order=order) == {"order": order}
        calls.append(first)
        duplicates.append(duplicate)
    print("calls:", [sent.total for sent in calls], "duplicates:", [s.total for s in duplicates])
    assert max(sent.total for sent in calls) <= 3 and max(s.total for s in duplicates) <= 4
    assert (calls[-1].total, calls[-1].ops) == (2, {"SYMLINK": 2})
    assert duplicates[-1].total == 3
    assert duplicates[-1].ops == {"SYMLINK": 1, "LOOKUP": 1, "READLINK": 1}


@pytest.mark.usefixtures("_counted")
def test_the_sweep_takes_a_request_a_link(lab):
    charge = function(lab.a)
    for order in range(100):
        charge(order=order)
    mount, later = Mount(lab.b), time.time() + 3 * 86_400
    removed = []
    with lab.count("b") as sent:
        retention.sweep(
            mount,
            "records/idempotency.86400",
            later,
            lambda *reason: removed.append(reason),
            dry_run=False,
        )
    assert len(removed) == 200 and mount.names("records/idempotency.86400") == []
    print(f"{sent.total / 200:.2f} requests a link:", dict(sent.ops))
    assert sent.total <= 1.2 * 200


# Under faults

LEASE, KEPT, WINDOW, KEYS = 1.0, 6, 4, 30


def run(root, seed, seconds):
    """Call the layer for the same keys as all others, and print what happened, a line each."""
    windows._UNIT, windows._MARGIN = 1, 2.0
    windows.SLACK = store_module.SLACK = 1.0
    warnings.simplefilter("ignore")
    chance, layer = random.Random(seed), EfsPersistenceLayer(root=root, window=WINDOW)
    end = time.time() + seconds
    for count in itertools.count():
        began = time.time()
        if began >= end:
            return
        key = str(chance.randrange(KEYS))
        lease = int((began + LEASE) * 1000)
        claim = DataRecord(key, "INPROGRESS", int(began + KEPT), lease)
        try:
            layer._put_record(claim)
        except ClaimLost:
            continue
        except IdempotencyItemAlreadyExistsError as error:
            record = error.old_data_record
            print("seen", key, began, record.response_data or "-", record.status, flush=True)
            continue
        value = f"{seed}.{count}"
        print("begin", key, time.time(), lease / 1000, value, flush=True)
        time.sleep(chance.choice([0, 0, 0.02, 0.1, 1.2]))
        fails = chance.random() < 0.2
        print("end" if fails else "ran", key, time.time(), value, flush=True)
        until = int(time.time() + KEPT)
        result = DataRecord(
            key, "COMPLETED", until, response_data=value * chance.choice([1, 1, 2000])
        )
        try:
            layer._delete_record(claim) if fails else layer._update_record(result)
        except ClaimLost:
            print("late", key, time.time(), value, flush=True)
        else:
            if not fails:
                print("kept", key, time.time(), until, value, flush=True)


def lines_of(worker):
    lines = []
    while line := worker.readline(timeout=60):
        if line.endswith("\n"):
            lines.append(line.split())
    return lines


def judge(lines):
    """Return the violations: runs beside each other, lost results, and late ones that counted."""
    wrong = {"two runs at once": 0, "a result lost": 0, "a late result kept": 0, "damaged": 0}
    runs, kept = {}, {}
    for kind, key, *rest in lines:
        if kind == "begin":
            runs.setdefault(key, []).append((float(rest[0]), float(rest[1]), rest[2]))
        elif kind == "kept":
            kept.setdefault(key, []).append((float(rest[0]), float(rest[1]), rest[2]))
    ended = {(key, rest[1]): float(rest[0]) for kind, key, *rest in lines if kind == "end"}
    results = {value for key in kept for *_, value in kept[key]}
    ran = {rest[1] for kind, _, *rest in lines if kind == "ran"}
    for key, mine in runs.items():
        mine.sort()
        for (began, lease, value), later in itertools.combinations(mine, 2):
            over = min(lease, ended.get((key, value), lease))
            # A run that begins when its own time is over was frozen: nothing can keep it from that.
            wrong["two runs at once"] += later[0] < over and later[0] <= later[1]
            del began
        for when, until, value in kept.get(key, ()):
            begun = [at for at, _, other in mine if other == value]
            for at, lease, _ in mine:
                wrong["a result lost"] += when < at < until and at <= lease
                # Nobody may begin between a run's beginning and the result that counts.
                wrong["a late result kept"] += begun[0] < at < when and at <= lease
    for kind, _, *rest in lines:
        if kind == "seen" and rest[2] == "COMPLETED":
            value = rest[1]
            whole = {value, value[: len(value) // 2000]}
            # A result may be seen before its run, which was killed then, could say that it is kept.
            wrong["damaged"] += not whole & (results | ran)
    return wrong


@pytest.mark.parametrize(
    ("seconds", "processes"), [(6, 8), pytest.param(60, 32, marks=pytest.mark.slow)]
)
def test_no_run_is_beside_another_under_faults(lab, seconds, processes):
    """Processes on two clients, killed and frozen, through many windows.

    It prints its table: `pytest -m nfs -rP tests/nfs/test_records.py -k faults`.
    """
    chance, started = random.Random(5), time.monotonic()
    workers = [
        lab.start("ab"[i % 2], run, lab.path("ab"[i % 2]), i, seconds) for i in range(processes)
    ]
    everybody, kills, freezes = list(workers), 0, 0
    while time.monotonic() - started < seconds - 1:
        victim, sleeper = chance.sample(range(processes), 2)
        workers[sleeper].freeze()
        freezes += 1
        time.sleep(chance.choice([0.1, 0.1, 0.1, 1.3]))
        workers[victim].kill()
        kills += 1
        client = "ab"[victim % 2]
        rest = max(0.5, seconds - (time.monotonic() - started))
        workers[victim] = lab.start(client, run, lab.path(client), 1000 + len(everybody), rest)
        everybody.append(workers[victim])
        workers[sleeper].thaw()
    for worker in workers:
        worker.wait(timeout=90)
    lines = [line for worker in everybody for line in lines_of(worker)]
    counts = {kind: sum(line[0] == kind for line in lines) for kind in ("begin", "seen", "kept")}
    late = sum(line[0] == "late" for line in lines)
    wrong = judge(lines)
    print({
        "seconds": seconds, "processes": processes, "kills": kills, "freezes": freezes,
        "calls": counts["begin"] + counts["seen"], **counts, "late": late, **wrong,
    })  # fmt: skip
    assert counts["kept"] > 10 and counts["seen"] > 10
    assert not any(wrong.values()), wrong
