"""The way from the host's pytest into the guest and back, failures included."""

import os
import subprocess
import sys
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

SAMPLE = """
import os, warnings, pytest
pytestmark = pytest.mark.nfs

@pytest.fixture
def broken():
    raise LookupError("no such luck")

def test_fails(lab):
    value = len(lab.a)
    print("printed in the guest")
    assert value == 0

def test_setup_fails(broken):
    pass

def test_skips():
    pytest.skip("not today")

@pytest.mark.xfail(strict=True)
def test_xfails():
    assert False

def test_warns():
    warnings.warn("a warning is an error")

def test_kills_the_guest():
    os.system("halt -f")

def test_hangs():
    import time
    time.sleep(1000)

def test_runs_in_a_new_guest(lab):
    pass
"""
LACKING = """
from tests.nfs import lab
lab.NEEDS["/nowhere/linux.uml"] = "user-mode-linux"
"""


def pytest_in(folder, *arguments, **env):
    """Run pytest on the folder with the project's settings: its exit code and output."""
    environment = (
        {k: v for k, v in os.environ.items() if k != "CI"}
        | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
        | env
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            f"{ROOT}/pyproject.toml",
            "--rootdir",
            folder,
            "-p",
            "tests.nfs.plugin",
            "-p",
            "no:cacheprovider",
            *arguments,
            folder,
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.nfs
def test_what_happens_in_the_guest_is_reported_on_the_host(tmp_path, boot):
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    code, output = pytest_in(tmp_path, "-v", "-k", "not kills and not hangs and not new_guest")
    for text in (
        "test_fails FAILED",
        ">       assert value == 0",
        "printed in the guest",
        "test_setup_fails ERROR",
        "LookupError: no such luck",
        "test_skips SKIPPED (not today)",
        "test_xfails XFAIL",
        "UserWarning: a warning is an error",
        "2 failed, 1 skipped, 3 deselected, 1 xfailed, 1 error",
    ):
        assert text in output, (text, output)
    assert code == 1


@pytest.mark.nfs
@pytest.mark.slow
def test_a_guest_that_dies_or_is_silent_fails_one_test_alone(tmp_path, boot):
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    code, output = pytest_in(
        tmp_path, "-v", "-k", "kills or hangs or new_guest", "--lab-timeout", "15"
    )
    for text in (
        "test_kills_the_guest FAILED",
        "the lab's guest: it is down",
        "test_hangs FAILED",
        "the lab's guest: no line from it within 15.0 s",
        "test_runs_in_a_new_guest PASSED",
        "2 failed, 1 passed, 5 deselected",
    ):
        assert text in output, (text, output)
    assert code == 1


def test_a_missing_package_skips_with_what_to_do(tmp_path):
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    (tmp_path / "lacking.py").write_text(LACKING)
    code, output = pytest_in(tmp_path, "-p", "lacking")
    assert code == 0
    assert "8 skipped" in output
    assert "apt-get install -y --no-install-recommends user-mode-linux" in output


def test_a_missing_package_fails_in_ci(tmp_path):
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    (tmp_path / "lacking.py").write_text(LACKING)
    code, output = pytest_in(tmp_path, "-p", "lacking", CI="true")
    assert code == 1
    assert "7 errors" in output  # and the one that is expected to fail
    assert "a skip is a failure" in output


def test_given_mounts_take_the_place_of_the_lab(tmp_path):
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    (tmp_path / "lacking.py").write_text(LACKING)
    (tmp_path / "mount").mkdir()
    mount = str(tmp_path / "mount")
    code, output = pytest_in(
        tmp_path, "-p", "lacking", "-k", "new_guest", "--mount-a", mount, "--mount-b", mount
    )
    assert (code, os.listdir(mount)) == (0, [])
    assert "1 passed" in output


@pytest.mark.nfs
def test_a_killed_host_process_leaves_no_guest(boot):
    def of_the_lab(job):
        done = subprocess.run(
            ["pgrep", "-f", f"job={job}"], check=False, capture_output=True, text=True
        )
        return done.stdout.split()

    code = (
        "from tests.nfs.lab import Lab; lab = Lab().boot();"
        " print(lab.server.job, flush=True); input()"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with host:
        job = host.stdout.readline().strip()
        assert of_the_lab(job)
        host.kill()
        host.wait()
    end = time.monotonic() + 10
    while of_the_lab(job) or os.path.exists(job):
        assert time.monotonic() < end
        time.sleep(0.1)
