"""fsspec's own `fsspec.tests.abstract` on our file system, above `memory://` and above `s3://`."""

import os

import fsspec
import pytest
from fsspec.tests import abstract

from efsstate.adapters.fsspec import EfsCacheFileSystem

fsspec.register_implementation("efscache", EfsCacheFileSystem, clobber=True)
BUCKET = os.environ.get("SUITE_BUCKET")


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture(scope="class")
    @classmethod
    def fs(cls):
        options = {"target_protocol": "memory"}
        if BUCKET:
            options = {"target_protocol": "s3", "target_options": {"use_listings_cache": False}}
        fs = fsspec.filesystem("efscache", block=64, **options)
        yield fs
        if not BUCKET:
            fs.store.clear()
            fs.pseudo_dirs[:] = [""]

    @pytest.fixture
    def fs_join(self):
        return lambda *args: "/".join(args)

    @pytest.fixture
    def fs_path(self):
        return BUCKET or ""

    @pytest.fixture
    def supports_empty_directories(self):
        return not BUCKET


class TestCopy(Fixtures, abstract.AbstractCopyTests): ...


class TestGet(Fixtures, abstract.AbstractGetTests): ...


class TestOpen(Fixtures, abstract.AbstractOpenTests): ...


class TestPipe(Fixtures, abstract.AbstractPipeTests): ...


class TestPut(Fixtures, abstract.AbstractPutTests): ...
