"""What the adapters' tests share: a fresh root for each test, as the cache's have it."""

import glob
import os
import subprocess
import sys
import tarfile

import pytest
from tests.cache.conftest import entries, root  # noqa: F401

import efsstate


def pytest_configure(config):
    config.addinivalue_line("markers", "time_intensive: dogpile's own mark on its longer tests")


@pytest.fixture
def environment():
    """The variables of a process that imports this efsstate from any folder."""
    return os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(efsstate.__file__))}


@pytest.fixture
def source_package(tmp_path):
    """A function that unpacks a project's source package, for its tests, and returns the folder."""

    def unpack(requirement, pattern):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            ":all:",
        ]
        process = subprocess.run(
            [*command, requirement, "-d", tmp_path], capture_output=True, text=True
        )
        archives = glob.glob(f"{tmp_path}/{pattern}.tar.gz")
        if not archives:
            pytest.skip(f"no source package of {requirement}: {process.stderr[-300:]}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(tmp_path, filter="data")
        return archives[0].removesuffix(".tar.gz")

    return unpack
