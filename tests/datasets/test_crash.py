"""A process is killed at each system call of an add, a removal and a freeze, or the disk is full.

Whatever another process finds then is whole, and it can go on.
"""

import pytest
from tests import faults

from efsstate import dataset

SLOW = pytest.mark.slow
pytestmark = pytest.mark.skipif(faults.MISSING is not None, reason=str(faults.MISSING))


def add(ds):
    yield
    yield ds.add(b"new", ".txt", key="new").added


def part(ds):
    yield
    with ds.part(".txt", key="new") as path, open(path, "wb") as file:
        file.write(b"new")
    yield path.part.added


def remove(ds):
    yield
    yield ds.remove("old")


def freeze(ds):
    yield
    yield len(ds.freeze("run"))


OPERATIONS = [add, part, remove, freeze]
OLD = 15  # parts: more than fit in a link, so that a snapshot has a list


def fresh(root, operation):
    """Return the operation on a new dataset, as `faults` takes it."""
    root.mkdir()
    ds = dataset("d", root=str(root))
    ds.add(b"old", key="old")
    for number in range(OLD - 1):
        ds.add(b"old", key=str(number))
    return lambda: operation(dataset("d", root=str(root)))


def judge(root, operation, *, acknowledged):
    """Check what another process finds, and that it can do the operation to its end."""
    ds = dataset("d", root=str(root))
    before = len(ds.parts())
    if operation in (add, part):
        assert before in ((OLD + 1,) if acknowledged else (OLD, OLD + 1))
        assert (
            bytes(next(ds.freeze("now", [ds.add(b"new", ".txt", key="new")]).read())[1]) == b"new"
        )
        assert len(ds.parts()) == OLD + 1
    elif operation is remove:
        assert before == OLD - 1 if acknowledged else before in (OLD - 1, OLD)
        ds.remove("old")
        assert len(ds.parts()) == OLD - 1 and ds.add(b"old", key="old").removed
    else:
        assert ds.snapshots() == ["run"] if acknowledged else ds.snapshots() in ([], ["run"])
        assert len(ds.freeze("run")) == OLD == len(dataset("d", root=str(root)).at("run"))
    assert ds.freeze("all").verify() == []


def asked(tmp_path, operation):
    """Return what the operation asks of the file system."""
    traced = faults.calls(fresh(tmp_path / "traced", operation))
    return [call for call in traced if call[0] in faults.DISK]


@SLOW
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_each_system_call(tmp_path, operation):
    """The call happens, and the process dies before it sees the answer."""
    points = asked(tmp_path, operation)
    for i, call in enumerate(points):
        root = tmp_path / str(i)
        assert faults.run(fresh(root, operation), kill=call).how == "killed", call
        judge(root, operation, acknowledged=False)
    assert len(points) >= 3


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (add, "ENOSPC"),
        *(
            pytest.param(operation, error, marks=SLOW)
            for operation in OPERATIONS
            for error in ("ENOSPC", "EIO")
            if (operation, error) != (add, "ENOSPC")
        ),
    ],
)
def test_each_system_call_fails(tmp_path, operation, error):
    """A full disk is an `OSError` of the call, and nothing is acknowledged that is not there."""
    for i, call in enumerate(asked(tmp_path, operation)):
        root = tmp_path / str(i)
        outcome = faults.run(fresh(root, operation), call=call, error=error)
        assert outcome.how == "returned" or "Error" in outcome.kind, (call, outcome)
        judge(root, operation, acknowledged=outcome.how == "returned")
