"""What all tests share: the options and fixtures of the two NFS clients (tests/nfs/README.md)."""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if ROOT not in sys.path:  # a bare `pytest` does not put it there
    sys.path.insert(0, ROOT)

from tests.nfs.plugin import (  # noqa: F401
    boot,
    lab,
    pytest_addoption,
    pytest_collection_finish,
    pytest_configure,
    pytest_runtest_protocol,
    pytest_runtest_setup,
    pytest_unconfigure,
)
