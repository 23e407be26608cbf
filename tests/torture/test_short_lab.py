"""The parts that need the NFS lab, some seconds each; `python -m tests.torture` runs them long."""

import os
import random
import shutil
import tempfile
import time

import pytest

from tests.torture import history, load, partitions, planted, power
from tests.torture.volatile import VolatileCache

pytestmark = [pytest.mark.nfs, pytest.mark.timeout(300)]


def test_what_was_acknowledged_survives_power_cuts_of_the_server(boot, tmp_path):
    """Images of its disk without what it was not told to keep; kills and boots; planted losses.

    A server that acknowledges too early is caught.
    """
    lab, rng, figures = boot(), random.Random(1), power.Figures(1)
    disk, judge, crew = (
        VolatileCache(lab.server, os.fspath(lab.disk)),
        power.Judge(),
        power.Crew(lab.server),
    )
    try:
        for n, client in enumerate("aabb"):
            crew.work(f"/mnt/{client}/cut0", f"{client}{n}", 1, "-0")
        power.wait_for(lambda: len(crew.told("-0")) >= 5, 30)
        for _ in range(3):
            power.listen([crew], 0.4)
            figures.judge(
                power.image(disk, judge, str(tmp_path), 0, "-0", crew.told("-0"), rng), "an image"
            )
        told = list(crew.told("-0"))
        assert power.count(told) > 3
        disk.power_off(lab.kill, rng)
        lab.boot()
        crew = power.Crew(lab.server)
        figures.count(*crew.judge("/mnt/b/cut0", "-0", told), "the cut")
        assert figures["violations"] == 0
        disk = VolatileCache(lab.server, os.fspath(lab.disk))
        for n, client in enumerate("aabb"):
            crew.work(f"/mnt/{client}/cut1", f"{client}{n}", 1, "-1")
        power.wait_for(lambda: len(crew.told("-1")) >= 5, 30)
        power.export_async(lab)
        before = power.count(crew.told("-1"))
        power.wait_for(lambda: power.count(crew.told("-1")) >= before + 20, 60)
        assert power.image(disk, judge, str(tmp_path), 1, "-1", crew.told("-1"), rng)
    finally:
        judge.close()


def test_a_mixed_load_under_partitions_has_no_violation(boot):
    """A link is cut and a worker killed under the whole library's load."""
    told, faults, bad = partitions.record(
        3, 1, alone=False, workers=2, kinds=["cut_short", "kill_process"], calm=(1, 2)
    )
    more, _ = partitions.check(told, faults.windows)
    assert bad + more == [] and len(told) > 50 and sum(faults.counts.values()) >= 1


def mixed(root, who, seconds, bug=""):
    """Work at ease, and what was told."""
    if bug:
        getattr(planted, bug)()
    told = []
    worker = load.Patient(root, who, 1, tell=told.append, memory=load.MEMORY)
    worker.run_at_ease(0.3, time.monotonic() + seconds)
    return told


def test_many_processes_on_two_clients_see_no_error(lab):
    workers = [lab.start("ab"[i % 2], mixed, lab.path("ab"[i % 2]), f"w{i}", 5) for i in range(16)]
    told = [one for worker in workers for one in worker.result(120)]
    bad, figures = load.check(told)
    assert bad == [] and figures["processes"] == 16


def test_reads_that_ask_nobody_are_found_out(lab):
    """The history's check of `fresh`, on a library that leaves out the look."""
    workers = [
        lab.start(client, reread, lab.path(client), client, "stale_reads") for client in "ab"
    ]
    told = [one for worker in workers for one in worker.result(120)]
    assert list(history.check_cache(told))


def reread(root, who, bug):
    getattr(planted, bug)()
    told = []
    load.Patient(root, who, 1, tell=told.append, memory=load.MEMORY).run(
        "set:1,fresh:3", time.monotonic() + 2
    )
    return told


def test_a_leak_is_found_out():
    """Each read of the cache that leaves a descriptor and 100 kB behind."""
    folder = tempfile.mkdtemp()
    pid = os.fork()
    if not pid:
        os._exit(bool(leaks(folder)))
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    finally:
        shutil.rmtree(folder)


def leaks(folder):
    planted.leak()
    told = []
    load.SAMPLE = 0.2
    patient = load.Patient(folder, "w", 1, tell=told.append)
    for _ in range(10):  # on a busy machine the reads of three seconds are too few to tell
        patient.run_at_ease(0.001, time.monotonic() + 3)
        breaches, *_ = load.growth([entry for entry in told if entry["op"] == "sample"])
        if breaches:
            return breaches
    return []
