"""What all tests share: the options and fixtures of the two NFS clients (tests/nfs/README.md)."""

import gc
import os
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if ROOT not in sys.path:  # a bare `pytest` does not put it there
    sys.path.insert(0, ROOT)

from tests.nfs.plugin import (  # noqa: E402, F401
    boot,
    lab,
    pytest_addoption,
    pytest_collection_finish,
    pytest_configure,
    pytest_runtest_protocol,
    pytest_runtest_setup,
    pytest_unconfigure,
)

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # as in environments that have other libraries' lowest versions
    pass
else:
    # On a busy machine it means nothing how long an example takes, nor how long it takes to make.
    settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("steady")


@pytest.fixture(autouse=True, scope="module")
def old_objects_are_not_looked_at():
    """Garbage collections, and the search for a loop's consumer, look at a module's own objects.

    Imports and reports of other modules leave millions, which took half of the time of some tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def roots_are_closed():
    """Each test has roots of its own: else thousands of tests would keep their folders open."""
    yield
    process = sys.modules.get("efsstate.process")
    if process is not None:
        process.reset()
    if os.path.isdir("/proc/self/fd") and len(os.listdir("/proc/self/fd")) > 300:
        gc.collect()
