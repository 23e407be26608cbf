"""cachetools' own tests on our cache and decorator (cachetools_suite.py), and those left out."""

import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.mark.heavy
def test_cachetools_own_tests_pass(source_package, environment, tmp_path):
    """Those about a mapping, about `cached` on one, and about a decorated function."""
    source = source_package(f"cachetools=={version('cachetools')}", "cachetools-*")
    command = [sys.executable, "-W", "ignore", f"{HERE}/cachetools_suite.py", str(tmp_path)]
    process = subprocess.run(command, cwd=source, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stdout + process.stderr
    assert int(re.search(r"Ran (\d+) tests", process.stderr)[1]) >= 23, process.stderr
