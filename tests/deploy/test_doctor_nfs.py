"""The doctor on a real NFS mount, with each fault made for real."""

from __future__ import annotations

import os
import subprocess

import pytest

from efsstate.deploy.diagnosis.doctor import doctor

pytestmark = pytest.mark.nfs


def codes(root, **how):
    """What a process on the client finds: code, severity and evidence."""
    return [
        (one.code, one.severity, one.evidence)
        for one in doctor(root=root, **{"size": 1 << 20, **how})
    ]


TIMED = {
    "EFS112",
    "EFS113",
    "EFS114",
}  # the lab shares its machine: only a test that slows the link judges times


def wrong(found):
    return (
        {code for code, severity, _ in found if severity != "note"} - {"EFS116"} - TIMED
    )  # the lab's clients are root


def test_a_healthy_mount_has_nothing_wrong(lab):
    found = lab.run("a", codes, lab.a)
    assert wrong(found) == set(), found
    seen = found[-1][2]
    assert "nfs4" in seen
    assert "vers=4.1" in seen
    assert os.listdir(lab.a) == []


def test_it_is_frugal(lab):
    """It may run in production: under 250 requests, with 1 MiB of data each way."""
    lab.run("b", codes, lab.b)
    with lab.count("b") as sent:
        lab.run("b", codes, lab.b)
    assert sent.total < 250, sent.ops


def test_a_wrong_owner(lab):
    def as_another(root):
        os.setgid(1234)
        os.setuid(1234)
        return codes(root)

    os.chmod(lab.a, 0o755)
    found = lab.run("b", as_another, lab.b)
    assert wrong(found) == {"EFS106"}
    assert "this process is 1234:1234" in next(text for code, _, text in found if code == "EFS106")


def test_a_read_only_export(lab):
    options = "rw,sync,no_root_squash,no_subtree_check,fsid=0,insecure"
    export = ["exportfs", "-i", "-o"]
    subprocess.run([*export, options.replace("rw", "ro"), "*:/run/disk/export"], check=True)
    try:
        found = lab.run("a", codes, lab.a)
    finally:
        subprocess.run([*export, options, "*:/run/disk/export"], check=True)
    assert "EFS107" in wrong(found), found


def test_a_link_that_drops_packets(lab):
    """As a closed security group does: no answer, calls hang, and the doctor still ends."""
    lab.run("a", codes, lab.a)
    lab.cut("a")
    try:
        worker = lab.start("a", cut_off, lab.a)
        found = worker.result(60)
    finally:
        lab.heal("a")
    assert wrong(found) == {"EFS105"}
    assert "no answer within 3 s" in next(text for code, _, text in found if code == "EFS105")


def small_files(root):
    return codes(root, size=0)


def cut_off(root):
    return codes(root, timeout=3)


def test_a_closed_port(lab):
    """The server is gone: port 2049 refuses, and that is what is said."""
    lab.run("a", codes, lab.a)
    subprocess.run(["rpc.nfsd", "0"], check=True)
    try:
        found = lab.start("a", cut_off, lab.a).result(60)
    finally:
        lab.restart_server()
    assert wrong(found) == {"EFS105"}
    assert ":2049 does not answer (Connection refused)" in next(
        text for code, _, text in found if code == "EFS105"
    )


def test_a_slow_link(lab):
    lab.delay("60ms")
    found = lab.run("a", small_files, lab.a)
    assert "EFS112" in {code for code, _, _ in found}, found
