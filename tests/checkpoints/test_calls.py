"""Python calls of the package's own functions that a save and a load make: exact, warm."""

import pytest
from tests.calls import Calls

from efsstate import checkpoint


@pytest.fixture
def warm(tmp_path):
    """A job with saves beyond `keep`, so that each further save removes one."""
    job = checkpoint("job", root=str(tmp_path))
    with job:
        for number in range(6):
            job.save({"rows": number})
        job.load()
        yield job


def test_a_save_makes_few_calls(warm):
    """It encodes, packs, writes, renames, lists and removes the oldest."""
    with Calls() as calls:
        warm.save({"rows": 7})
    assert len(calls) <= 70, calls.names


def test_a_save_in_a_loop_makes_few_calls(tmp_path):
    """It stores the position, too."""
    with checkpoint("job", root=str(tmp_path)) as job:
        for number in job.resume(range(8)):
            if number == 6:
                with Calls() as calls:
                    job.save({"rows": number})
            else:
                job.save({"rows": number})
    assert len(calls) <= 70, calls.names


def test_a_load_makes_few_calls(warm):
    """It lists, reads, checks and decodes."""
    with Calls() as calls:
        warm.load()
    assert len(calls) <= 45, calls.names
