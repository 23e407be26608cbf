"""What dogpile.cache promises its users, shown by its own tests on a thin adapter over `Cache`."""

import sys
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
