"""What other caches promise their users, shown by their own tests on thin adapters over `Cache`."""

import glob
import importlib.util
import subprocess
import sys
import tarfile
import types

import pytest

from efsstate import Cache

fixtures = pytest.importorskip("dogpile.testing.fixtures", reason="pip install dogpile.cache")
from dogpile.cache import register_backend  # noqa: E402
from dogpile.cache.api import NO_VALUE, CacheBackend  # noqa: E402


class Backend(CacheBackend):
    """dogpile.cache on a `Cache`."""

    def __init__(self, arguments):
        self.cache = Cache("dogpile")

    def get(self, key):
        return self.cache.get(key, NO_VALUE)

    def get_multi(self, keys):
        found = self.cache.get_many(keys)
        return [found.get(key, NO_VALUE) for key in keys]

    def set(self, key, value):
        self.cache.set(key, value)

    def set_multi(self, mapping):
        self.cache.set_many(mapping)

    def delete(self, key):
        self.cache.delete(key)

    def delete_multi(self, keys):
        for key in keys:
            self.cache.delete(key)


register_backend("efsstate", __name__, "Backend")
sys.modules.setdefault(__name__, types.SimpleNamespace(Backend=Backend))


class TestDogpile(fixtures._GenericBackendTestSuite):
    backend, config_args = "efsstate", {"arguments": {"any": 1}}


class Adapter:
    """cachelib's interface on a `Cache`."""

    def __init__(self, **options):
        self.cache = Cache("cachelib")

    def get(self, key):
        return self.cache.get(key)

    def set(self, key, value, timeout=None):
        self.cache.set(key, value, ttl=timeout or None)
        return True

    def add(self, key, value, timeout=None):
        return self.cache.add(key, value, ttl=timeout or None)

    def delete(self, key):
        return self.cache.delete(key)

    def has(self, key):
        return key in self.cache

    def clear(self):
        self.cache.clear()
        return True

    def set_many(self, mapping, timeout=None):
        self.cache.set_many(mapping)
        return list(mapping)

    def get_many(self, *keys):
        found = self.cache.get_many(keys)
        return [found.get(key) for key in keys]

    def get_dict(self, *keys):
        return dict(zip(keys, self.get_many(*keys), strict=True))

    def delete_many(self, *keys):
        for key in keys:
            self.cache.delete(key)
        return list(keys)

    def inc(self, key, delta=1):
        value = (self.get(key) or 0) + delta
        self.set(key, value)
        return value

    def dec(self, key, delta=1):
        return self.inc(key, -delta)


def test_cachelibs_own_tests_pass(tmp_path, monkeypatch, root):
    """`tests/common.py`, `clear.py` and `has.py` of its source package, as they are."""
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary",
            "cachelib", "cachelib", "-d", tmp_path,
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    found = glob.glob(f"{tmp_path}/cachelib-*.tar.gz")
    if not found:
        pytest.skip(f"cachelib's source package can't be had: {done.stderr[-300:]}")
    with tarfile.open(found[0]) as archive:
        archive.extractall(tmp_path, filter="data")
    (tests,) = glob.glob(f"{tmp_path}/cachelib-*/tests")
    monkeypatch.setitem(sys.modules, "xprocess", types.SimpleNamespace(ProcessStarter=object))
    modules = []
    for name in ("conftest", "common", "clear", "has"):
        spec = importlib.util.spec_from_file_location(name, f"{tests}/{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        modules.append(module)
    _, common, clear, has = modules
    ran = 0
    for suite in (common.CommonTests, clear.ClearTests, has.HasTests):
        for name in [name for name in dir(suite) if name.startswith("test_")]:
            one = suite()
            one.cache_factory = Adapter
            Cache("cachelib").clear()
            getattr(one, name)()
            ran += 1
    assert ran >= 13
