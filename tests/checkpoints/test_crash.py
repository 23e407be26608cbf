"""A process is killed at each system call of a claim, a save and a finish.

And each call fails: old or new, and no
acknowledgement that is not kept.
"""

import pytest
from tests import faults

from efsstate import checkpoint

SLOW = pytest.mark.slow

pytestmark = pytest.mark.skipif(faults.MISSING is not None, reason=str(faults.MISSING))


def claim(job):
    yield
    job.__enter__()
    yield


def save(job):
    with job:
        yield
        job.save("new")
        yield


def finish(job):
    with job:
        job.state = "new"
        yield
        job.finish("result")
        yield


OPERATIONS = {"claim": claim, "save": save, "finish": finish}


def fresh(root, operation):
    """A checkpoint with an old state below `root`, and the operation on it as `faults` takes it."""
    root.mkdir()
    with checkpoint("job", root=str(root)) as job:
        job.save("older")
        job.save("old")
    return lambda: OPERATIONS[operation](checkpoint("job", root=str(root), keep=1))


def calls(tmp_path, operation):
    """What the operation asks of the file system."""
    return [
        call
        for call in faults.calls(fresh(tmp_path / "traced", operation))
        if call[0] in faults.DISK | {"close"}
    ]


def judge(root, operation, acknowledged):
    """What another process finds, which then goes on."""
    job = checkpoint("job", root=str(root))
    state = job.load()
    assert state in (
        ("old",) if operation == "claim" else ("new",) if acknowledged else ("old", "new")
    )
    if operation == "finish":
        assert job.finished == (state == "new") and job.result == (
            "result" if job.finished else None
        )
    with checkpoint("job", root=str(root)) as owner:
        assert owner.state == state
        if not owner.finished:
            owner.save("newer")
            assert checkpoint("job", root=str(root)).load() == "newer"
    return state


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_each_system_call(tmp_path, operation):
    found = set()
    for i, call in enumerate(calls(tmp_path, operation)):
        root = tmp_path / str(i)
        # The call happens, and the process dies before it sees the answer.
        assert faults.run(fresh(root, operation), kill=call).how == "killed", call
        found.add(judge(root, operation, False))
    assert found == ({"old"} if operation == "claim" else {"old", "new"})


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "error",
    [
        "EIO",
        *(
            pytest.param(name, marks=SLOW)
            for name in ("ENOSPC", "EDQUOT", "ESTALE", "EACCES", "EROFS", "EINTR", "EMFILE")
        ),
    ],
)
def test_each_system_call_fails(tmp_path, operation, error):
    for i, call in enumerate(calls(tmp_path, operation)):
        if call[0] == "close":
            continue  # an injected close leaves the descriptor open, which no kernel does
        root = tmp_path / str(i)
        outcome = faults.run(fresh(root, operation), call=call, error=error)
        assert outcome.how in ("returned", "raised"), (call, outcome)
        assert (
            outcome.how == "returned"
            or "OSError" in outcome.kind
            or "EfsStateError" in outcome.kind
        ), (call, outcome)
        judge(root, operation, outcome.how == "returned")
