"""The doctor on folders of this machine: it finds faults, leaves nothing, and never raises."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time

import botocore.session
import pytest
from tests.deploy.run import run

from efsstate.deploy.diagnosis.doctor import _try_port, doctor
from efsstate.deploy.diagnosis.lambda_errors import EXCEPTIONS, explain
from efsstate.deploy.diagnosis.mount_checks import check_entry, check_surroundings, table_entry
from efsstate.deploy.rules import RULES

NFS = (
    "10.9.0.1:/ /mnt/efs nfs4 rw,relatime,vers=4.1,rsize=1048576,wsize=1048576,hard,"
    "proto=tcp,timeo=600,addr=10.9.0.1"
)


def codes(findings):
    return {one.code for one in findings}


def entry(text, path="/mnt/efs/app"):
    return table_entry(path, f"/dev/vda / ext4 rw 0 0\n{text} 0 0\n")


def test_a_healthy_folder_gives_the_measurements_and_what_it_is(tmp_path):
    os.chmod(tmp_path, 0o750)
    found = doctor(root=str(tmp_path), size=1 << 20)
    timed = {"EFS112", "EFS113"}  # a busy machine
    assert codes(found) - {"EFS116"} - timed == {
        "EFS102",
        "EFS100",
    }  # a local disk; and root where the tests run as root
    seen = found[-1].evidence
    for part in (
        "mount:",
        "folder:",
        "files: are made as",
        "space:",
        "clock:",
        "latency:",
        "throughput:",
    ):
        assert part in seen
    assert os.listdir(tmp_path) == []


def test_everything_it_reports_is_in_the_table():
    for rule in RULES.values():
        assert rule.finding.__self__ is rule
    assert {"EFS100", "EFS101", "EFS120"} <= set(RULES)


def test_no_root_is_a_finding_and_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("EFSSTATE_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "EFS101" in codes(doctor())
    assert os.listdir(tmp_path) == []
    assert "EFS101" in codes(doctor(root=str(tmp_path / "none")))
    (tmp_path / "file").write_text("")
    assert "EFS101" in codes(doctor(root=str(tmp_path / "file")))


def test_the_root_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path))
    assert doctor(size=0)[-1].resource == str(tmp_path)


def test_another_users_folder_is_named_with_both_users(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    os.chmod(tmp_path, 0o755)
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        os.chmod(parent, 0o755)
    program = (
        "import os\nfrom efsstate.deploy.diagnosis.doctor import doctor\n"
        "os.setgid(1234); os.setuid(1234)\n"
        f"print([(f.code, f.evidence) for f in doctor(root={str(tmp_path)!r}, size=0)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "('EFS106'" in done.stdout
    assert "the folder is 0:0 drwxr-xr-x, this process is 1234:1234" in done.stdout


def test_a_folder_open_to_everyone_is_said(tmp_path):
    os.chmod(tmp_path, 0o777)
    assert "EFS115" in codes(doctor(root=str(tmp_path), size=0))


def test_a_full_disk_is_said(tmp_path):
    """A file system of 1 MiB, with nothing left on it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    done = subprocess.run(["unshare", "-m", sys.executable, "-c", f"""
import subprocess, sys
mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", {str(tmp_path)!r}]
if subprocess.run(mount).returncode:
    sys.exit(9)
try:
    open({str(tmp_path / "fill")!r}, "wb", buffering=0).write(bytes(1 << 20))
except OSError:
    pass
from efsstate.deploy.diagnosis.doctor import doctor
print([f.code for f in doctor(root={str(tmp_path)!r}, size=0) if f.severity == "error"])
"""], capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode == 9 or "unshare" in done.stderr:
        pytest.skip("no mount namespace here")
    assert "EFS108" in done.stdout, done.stderr


def test_a_call_that_hangs_is_given_up_and_named(tmp_path):
    """A FIFO in place of the large file: its open waits for ever, as on a dead mount."""
    program = f"""
import os, threading
from efsstate.deploy.diagnosis import doctor as d, probe
real = probe.Probe._check_writable
def block(self):
    done = real(self)
    os.mkfifo(os.path.join(self.folder, "large"))
    return done
probe.Probe._check_writable = block
for f in d.doctor(root={str(tmp_path)!r}, timeout=1.0, size=1 << 20):
    print(f.code, f.evidence)
"""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "EFS105 timing a larger file: no answer within 1 s" in done.stdout
    assert time.monotonic() - start < 30


def test_mount_options_are_judged():
    def judged(text, **how):
        return {
            code
            for code, _ in check_entry(
                "/mnt/efs/app", on_lambda=how.get("on_lambda", False), entry=entry(text)
            )
        }

    assert judged(NFS) == set()
    assert judged(NFS.replace("vers=4.1", "vers=4.0")) == {"EFS103"}
    assert judged(NFS.replace("vers=4.1", "vers=4.2")) == set()
    assert judged(NFS.replace("hard", "soft,nocto")) == {"EFS104"}
    assert judged(NFS.replace("rsize=1048576", "rsize=65536")) == {"EFS104"}
    assert judged(NFS.replace("hard", "hard,local_lock=all")) == {"EFS104"}
    assert judged(NFS.replace("hard", "hard,local_lock=none")) == set()
    assert judged(NFS.replace("rw,", "ro,")) == {"EFS107"}
    assert judged("tmpfs /mnt/efs tmpfs rw") == {"EFS102"}
    ((_, hit),) = check_entry(
        "/mnt/efs/app", on_lambda=True, entry=entry("overlay /mnt overlay rw")
    )
    assert hit.severity == "error"


def test_the_innermost_mount_is_taken():
    table = (
        "a / ext4 rw 0 0\nb /mnt ext4 rw 0 0\nc /mnt/efs nfs4 rw 0 0\n"
        "d /mnt/efs2 nfs4 rw 0 0\ne /mnt/with\\040space nfs rw 0 0\n"
    )
    assert table_entry("/mnt/efs/x", table).device == "c"
    assert table_entry("/mnt/efs2", table).device == "d"
    assert table_entry("/mnt/efs3", table).device == "b"
    assert table_entry("/mnt/with space/x", table).device == "e"


def test_the_environment_is_judged(tmp_path):
    def judged(**variables):
        return {
            (code, hit.severity) for code, hit in check_surroundings(variables.get, str(tmp_path))
        }

    assert judged() == set()
    assert judged(AWS_LAMBDA_INITIALIZATION_TYPE="snap-start") == {("EFS117", "error")}
    assert judged(AWS_LAMBDA_MAX_CONCURRENCY="16") == {("EFS117", "note")}
    assert judged(AWS_LAMBDA_FUNCTION_MEMORY_SIZE="128") == {("EFS118", "")}
    assert {code for code, _ in check_surroundings({}.get, str(tmp_path / "none"))} == {"EFS118"}


@pytest.mark.parametrize("is_open", [True, False])
def test_the_port_of_a_tls_proxy_is_tried(is_open):
    """A mount with TLS has a local proxy at a port of its own, which says nothing of the server."""
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        if is_open:
            server.listen()
        line = NFS.replace("addr=10.9.0.1", f"addr=127.0.0.1,port={port}")
        words = _try_port(entry(line))
    assert f"the TLS proxy 127.0.0.1:{port} " in words
    assert ("the server behind it is not known" in words) is is_open


def test_a_quota_is_about_open_files_and_locks(tmp_path, monkeypatch):
    """EFS has no quotas of space: EDQUOT is not a full disk, and removing files does not help."""
    import errno

    def refuse(self):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("efsstate.deploy.diagnosis.probe.Probe._check_lock", refuse)
    found = doctor(root=str(tmp_path), size=0)
    assert "EFS119" in codes(found)
    assert "EFS108" not in codes(found)


def test_in_a_handler_it_needs_no_package_of_the_command_line():
    """The layer has neither click nor yaml: `efsstate.doctor` loads none of them."""
    program = (
        "import sys, efsstate; efsstate.doctor; heavy = 'click yaml hcl2 boto3 rich lark'.split()\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in heavy))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_the_errors_are_known_by_the_text_of_aws():
    """Without its name an error is known by the sentence in AWS's own model of Lambda."""
    shapes = botocore.session.get_session().get_service_model("lambda").shape_for
    for one in EXCEPTIONS:
        assert explain(re.sub("<.*?>", "", shapes(one.name).documentation)) is one
    assert explain("The Lambda function could not be found") is None


@pytest.mark.parametrize("one", EXCEPTIONS, ids=lambda one: one.name)
def test_the_seven_errors_are_explained(one):
    """By name, in a log line, and as a state's reason code; every cause has a page."""
    assert explain(one.name) is one
    assert explain(f"[ERROR] {one.name}: The function couldn't mount, sorry") is one
    assert (
        explain(
            {"EFSIOException": "EFSIOError"}.get(one.name, one.name.replace("Exception", "Error"))
        )
        is one
    )
    done = run("doctor", "--error", one.name)
    assert done.code == 0
    assert "1. " in done.out
    for cause in one.causes:
        assert cause.code in RULES, cause.code
    assert json.loads(run("doctor", "--error", one.name, "--json").out)["name"] == one.name


def test_command_output_and_exit_codes(tmp_path):
    os.chmod(tmp_path, 0o777)
    done = run("doctor", "--root", tmp_path, "--size", "0")
    assert done.code == 1
    assert "EFS115" in done.out
    assert "latency" in done.out
    told = json.loads(run("doctor", "--root", tmp_path, "--size", "0", "--json").out)
    assert (told["schema"], told["version"]) == ("efsstate.doctor", 1)
    assert told["findings"][-1]["code"] == "EFS100"
    assert run("doctor", "--error", "TypeError").code == 2
    assert run("doctor", "--aws").code == 2
    assert run("doctor", "--function", "x").code == 2


def test_the_handler_returns_what_json_can_carry(tmp_path, monkeypatch):
    from efsstate.deploy.diagnosis.doctor import handler

    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path))

    class Context:
        def get_remaining_time_in_millis(self):
            return 20_000

    told = json.loads(json.dumps(handler({"size": 0}, Context())))
    assert told["findings"][-1]["code"] == "EFS100"
    assert handler(None)["schema"] == "efsstate.doctor"


def test_its_folder_goes_even_when_a_check_fails(tmp_path, monkeypatch):
    from efsstate.deploy.diagnosis import probe

    monkeypatch.setattr(
        probe.Probe,
        "_check_rename",
        lambda self: (_ for _ in ()).throw(OSError(5, "Input/output error")),
    )
    found = doctor(root=str(tmp_path), size=0)
    assert "EFS109" in codes(found)
    assert os.listdir(tmp_path) == []
    shutil.rmtree(tmp_path)


@pytest.mark.runtime
def test_as_a_lambda_function_under_the_runtime_client(tmp_path):
    """In Lambda a root that is no NFS mount is an error, and Managed Instances are named."""
    from efsstate.testing import Function

    (tmp_path / "root").mkdir()
    (tmp_path / "code").mkdir()
    options = {
        "path": tmp_path / "code",
        "environment": {"EFSSTATE_ROOT": str(tmp_path / "root")},
        "timeout": 30,
    }
    with Function("efsstate.deploy.diagnosis.doctor.handler", memory=128, **options) as function:
        result = function.invoke({"size": 0})
        assert result.error is None, result.logs
        found = {one["code"]: one["severity"] for one in result.value["findings"]}
    assert found["EFS102"] == "error"
    assert found["EFS118"] == "warning"  # 128 MB
    with Function(
        "efsstate.deploy.diagnosis.doctor.handler", max_concurrency=2, **options
    ) as function:
        found = [
            one["evidence"]
            for one in function.invoke({"size": 0}).value["findings"]
            if one["code"] == "EFS117"
        ]
    assert "Managed Instances: up to 2 requests at once" in found[0]
