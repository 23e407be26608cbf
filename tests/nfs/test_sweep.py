"""The sweep on two NFS clients: its cost; readers, writers and sweepers beside it see no error."""

import hashlib
import os
import stat
import time

import msgpack
import pytest

from efsstate import sweep
from efsstate.format import layout
from efsstate.mount.files import Mount

pytestmark = pytest.mark.nfs

HOUR = 3600.0
SERVER = (
    "/run/disk/export"  # the lab's server has the export here; elsewhere a client makes the files
)


def names(count):
    return [hashlib.blake2b(b"%d" % i, digest_size=24).hexdigest() for i in range(count)]


def plant(lab, count, *, dead=lambda i: False):
    """A namespace of empty entries, made on the server where that can be reached."""
    mount = Mount(lab.a)
    told = {"name": "f", "shortest": HOUR, "longest": HOUR, "max_bytes": None, "max_entries": None}
    mount.write_entry("cache/f", layout.POLICY, msgpack.packb(told), codec="msgpack")
    root = (
        SERVER + lab.a.removeprefix("/mnt/a")
        if os.path.isdir(SERVER) and lab.a.startswith("/mnt/a/")
        else lab.a
    )
    for digit in "0123456789abcdef":
        os.makedirs(f"{root}/cache/f/{digit}", exist_ok=True)
    then = time.time() - 2 * HOUR
    for i, name in enumerate(names(count)):
        path = f"{root}/cache/f/{name[0]}/{name}"
        os.mknod(path, 0o600 | stat.S_IFREG)
        if dead(i):
            os.utime(path, (then, then))


def left(folder):
    return sum(
        layout.is_digest(name) for _, _, found in os.walk(f"{folder}/cache") for name in found
    )


def test_live_entries_cost_a_twentieth_of_a_request_each(lab):
    """Unopened, by the attributes that come with the listing.

    The more there are, the less each costs.
    """
    plant(lab, 10_000)
    with lab.count("b") as sent:
        report = sweep(root=lab.b)
    assert report.kept == 10_000 and report.opened == report.removed == 0 and report.finished
    assert sent.total <= 0.05 * 10_000, sent.ops


def test_a_removal_is_one_request_more(lab):
    plant(lab, 4000, dead=lambda i: i % 2)
    with lab.count("b") as sent:
        report = sweep(root=lab.b)
    assert report.removed == 2000 and left(lab.a) == 2000
    assert sent.ops["REMOVE"] <= 2000 + 4 and sent.total <= 2000 + 400, sent.ops


def test_readers_and_writers_at_work_meanwhile_see_no_error(lab):
    """Entries expire under a reader and a writer on the other client, while this one sweeps."""
    plant(lab, 600, dead=lambda i: i % 2)

    def work(root, until):
        mount, done = Mount(root), 0
        while time.time() < until:
            for name in names(40):
                folder = f"cache/f/{name[0]}"
                mount.write_entry(folder, name, b"x" * 500, codec="msgpack")
                try:
                    held = mount.read_entry(folder, name, stale=0)
                    assert len(held.payload) == 500
                except FileNotFoundError:
                    pass  # a miss
                done += 1
        return done

    until = time.time() + 8
    worker = lab.start("b", work, lab.b, until)
    sweeps = 0
    while time.time() < until:
        report = sweep(root=lab.a, older_than=0 if sweeps % 2 else None)
        assert report.errors == report.damaged == 0, report.error_texts
        sweeps += 1
    assert worker.result() > 50 and sweeps >= 3


def _sweep(root):
    report = sweep(root=root)
    return report.removed, report.errors, report.finished


def test_two_clients_share_the_work(lab):
    plant(lab, 3000, dead=lambda i: i < 2000)
    one, other = lab.start("a", _sweep, lab.a), lab.start("b", _sweep, lab.b)
    removed = [worker.result() for worker in (one, other)]
    assert sum(count for count, _, _ in removed) == 2000 and not any(
        errors for _, errors, _ in removed
    )
    assert left(lab.a) == 1000


def test_a_killed_or_frozen_sweeper_does_not_stop_the_other(lab):
    """Its folder is free when the process dies, and only that one waits while it is frozen."""
    plant(lab, 3000, dead=lambda i: i < 2000)
    code = (
        "import sys, time\nfrom efsstate import sweep\nfrom efsstate.cleanup import work\n"
        "from efsstate.eviction import scan\n"
        "def slow(*a):\n    print('in', a[1], flush=True); time.sleep(600)\n"
        "scan.sweep_folder = slow\nwork.WORKERS = 1\nsweep(root=sys.argv[1])"
    )
    # In the first sweep the namespace is one unit, whose folders another sweeper shares.
    stuck = lab.start("b", code, lab.b)
    stuck.readline()
    stuck.freeze()
    report = sweep(root=lab.a)
    assert report.finished and report.elsewhere == 0 and report.errors == 0
    assert left(lab.a) == 1000
    stuck.kill()
    # From then on each folder is a unit, and the one that it has waits.
    then = time.time() - 2 * HOUR
    for name in names(3000)[2000:2500]:
        os.utime(f"{lab.a}/cache/f/{name[0]}/{name}", (then, then))
    stuck = lab.start("b", code, lab.b)
    folder = stuck.readline().split()[1]
    stuck.freeze()
    report = sweep(root=lab.a)
    assert report.elsewhere == 1 and not report.finished and report.errors == 0
    there = {
        os.path.basename(where)
        for where, _, found in os.walk(f"{lab.a}/cache")
        for name in found
        if layout.is_digest(name)
    }
    assert there and os.path.basename(folder) in there
    stuck.kill()
    assert sweep(root=lab.a).finished and left(lab.a) == 500


def test_another_file_system_mounted_inside_is_not_entered(lab):
    import subprocess

    if not lab.a.startswith("/mnt/a/") or os.geteuid() != 0:
        pytest.skip("it takes the right to mount")
    plant(lab, 20, dead=lambda i: True)
    victims = []
    for place in (f"{lab.a}/cache/other", f"{lab.a}/cache/f/7"):
        os.makedirs(place, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
        os.makedirs(f"{place}/7", exist_ok=True)
        for victim in (f"{place}/7/{'7' * 48}", f"{place}/{'7' * 48}"):
            with open(victim, "w"):
                os.utime(victim, (1, 1))
            victims.append(victim)
    try:
        report = sweep(root=lab.a, older_than=0, max_entries=0)
        assert all(os.path.exists(victim) for victim in victims)
        assert {f"{lab.a}/cache/other", f"{lab.a}/cache/f/7"} <= set(report.foreign_paths)
    finally:
        for place in (f"{lab.a}/cache/other", f"{lab.a}/cache/f/7"):
            subprocess.run(["umount", "-l", place], check=True)
