"""The lab as a command."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.nfs

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def lab(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.nfs.lab", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_command_runs_beside_both_mounts(tmp_path, boot):
    code = (
        "import os, sys; print(*map(os.path.ismount, ['/mnt/a', '/mnt/b']));"
        " sys.stderr.write('loud'); open(sys.argv[1], 'w').write('kept'); sys.exit(3)"
    )
    done = lab(
        "--delay",
        "1ms",
        "-w",
        str(tmp_path),
        "--",
        sys.executable,
        "-c",
        code,
        str(tmp_path / "result"),
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "True True\n", "loud")
    assert (tmp_path / "result").read_text() == "kept"


def test_a_guest_that_does_not_come_up_says_why(boot):
    done = lab("--delay", "nonsense", "--", "true")
    assert done.returncode == 125
    assert "netem refuses the delay nonsense" in done.stderr
