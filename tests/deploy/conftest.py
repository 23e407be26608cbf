"""Fixtures that several tests of the deployment share."""

import os
import shutil
import subprocess
import sys

import pytest
from tests.documents import checked_documents  # noqa: F401 - a fixture
from tests.s3 import moto_url, s3  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def checkov(tmp_path_factory, pytestconfig):
    """In an environment of its own: its fork of the HCL parser has the name of ours."""
    given = os.environ.get("CHECKOV") or shutil.which("checkov")
    if given:
        return given
    if "heavy" not in pytestconfig.option.markexpr:
        pytest.skip("runs with -m heavy: it installs checkov (20 s)")
    folder = tmp_path_factory.mktemp("checkov")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", "checkov>=3.2"], check=True)
    return str(folder / "bin" / "checkov")
