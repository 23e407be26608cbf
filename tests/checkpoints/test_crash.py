"""A process is killed at each system call of a claim, a save and a finish, and each call fails: old or new, and no
acknowledgement that is not kept."""

import re
import shutil
import subprocess
import sys

import pytest

from efsstate import checkpoint

PROGRAM = """
import os, sys
from efsstate import checkpoint
job = checkpoint("job", root=sys.argv[1], keep=1)
other = checkpoint("other", root=sys.argv[1])
other.__enter__()  # so that all modules are there
other.save(1)
if {claimed}: job.__enter__()
os.getppid()  # marks where the operation begins
{operation}
os.getppid()
print("acknowledged", flush=True)
os._exit(0)
"""
OPERATIONS = {"claim": "job.__enter__()", "save": 'job.save("new")', "finish": 'job._state = "new"; job.finish("result")'}
DISK = re.compile(r"openat|open|writev?|fsync|renameat2?|rename|symlinkat|readlinkat|mkdirat|unlinkat|flock|getdents64|newfstatat|fstat|statx|close|read|dup|fcntl|lseek")
SLOW = pytest.mark.slow

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")


def run(root, operation, *options):
    program = PROGRAM.format(operation=OPERATIONS[operation], claimed=operation != "claim")
    return subprocess.run(["strace", "-f", "-o", f"{root}.trace", *options, sys.executable, "-c", program, str(root)], capture_output=True, text=True)


def fresh(root):
    root.mkdir()
    with checkpoint("job", root=str(root)) as job:
        job.save("older")
        job.save("old")
    return root


def calls(tmp_path, operation):
    """What the operation asks of the kernel: (name, the how many-th of that name in the process)."""
    assert "acknowledged" in run(fresh(tmp_path / "traced"), operation).stdout
    with open(tmp_path / "traced.trace") as trace:
        names = [match[1] for line in trace if (match := re.match(r"\d+ +([a-z_0-9]+)\(", line))]
    begin, end = [i for i, name in enumerate(names) if name == "getppid"][:2]
    return [(name, names[: i + 1].count(name)) for i, name in enumerate(names) if begin < i < end and DISK.fullmatch(name)]


def judge(root, operation, acknowledged):
    """What another process finds, which then goes on."""
    job = checkpoint("job", root=str(root))
    state = job.load()
    assert state in (("old",) if operation == "claim" else ("new",) if acknowledged else ("old", "new"))
    if operation == "finish":
        assert job.finished == (state == "new") and job.result == ("result" if job.finished else None)
    with checkpoint("job", root=str(root)) as owner:
        assert owner.state == state
        if not owner.finished:
            owner.save("newer")
            assert checkpoint("job", root=str(root)).load() == "newer"
    return state


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_each_system_call(tmp_path, operation):
    found = set()
    for i, (name, when) in enumerate(calls(tmp_path, operation)):
        root = fresh(tmp_path / str(i))
        # The call happens, and the process dies before it sees the answer.
        result = run(root, operation, "-e", f"inject={name}:signal=KILL:when={when}")
        assert "acknowledged" not in result.stdout
        found.add(judge(root, operation, False))
    assert found == ({"old"} if operation == "claim" else {"old", "new"})


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("error", ["EIO", *(pytest.param(name, marks=SLOW) for name in ("ENOSPC", "EDQUOT", "ESTALE", "EACCES", "EROFS", "EINTR", "EMFILE"))])
def test_each_system_call_fails(tmp_path, operation, error):
    for i, (name, when) in enumerate(calls(tmp_path, operation)):
        if name in ("close", "read", "fcntl"):
            continue  # an injected close leaves the descriptor open, which no kernel does; the others are not on the mount
        root = fresh(tmp_path / str(i))
        result = run(root, operation, "-e", f"inject={name}:error={error}:when={when}")
        acknowledged = "acknowledged" in result.stdout
        assert acknowledged or "Error" in result.stderr or "ClaimLost" in result.stderr, (name, when, result.stderr)
        judge(root, operation, acknowledged)
