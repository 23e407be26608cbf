"""cachelib's and Flask-Caching's own tests on our cache, and what they leave out."""

import enum
import importlib.util
import os
import subprocess
import sys
import types
from decimal import Decimal
from importlib.metadata import version

import pytest

pytest.importorskip("cachelib", reason="pip install cachelib")

import cachelib

from efsstate.adapters.cachelib import EfsCache
from efsstate.cache.cache import Cache
from efsstate.cache.disk import DiskTier
from efsstate.mount.files import Mount
from efsstate.testing import disabled


class Key(enum.StrEnum):
    CART = "cart"


class Text(str):
    __slots__ = ()


def test_cachelibs_own_tests_pass(source_package, monkeypatch):
    """`tests/common.py`, `clear.py` and `has.py` of its source package, as they are."""
    tests = source_package(f"cachelib=={version('cachelib')}", "cachelib-*") + "/tests"
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
            one.cache_factory = EfsCache
            Cache("cachelib").clear()
            getattr(one, name)()
            ran += 1
    assert ran >= 13


FLASK = """
import pytest
from efsstate.adapters.cachelib import EfsCache
from test_backend_cache import GenericCacheTests


class TestEfsCache(GenericCacheTests):
    _can_use_fast_sleep = False

    @pytest.fixture
    def make_cache(self, tmp_path):
        return lambda **options: EfsCache(root=str(tmp_path), **options)
"""


@pytest.mark.heavy
def test_flask_cachings_own_tests_pass(source_package, environment):
    """`GenericCacheTests` of its source package, as every backend of its own passes them."""
    pytest.importorskip("flask_caching")
    installed = f"flask-caching=={version('flask-caching')}"
    tests = source_package(installed, "flask_caching-*") + "/tests"
    with open(f"{tests}/test_efs.py", "w") as file:
        file.write(FLASK)
    with open(f"{tests}/xprocess.py", "w") as file:  # for its tests of Redis and memcached
        file.write("ProcessStarter = object\n")
    environment["PYTHONPATH"] += os.pathsep + tests
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_efs.py"]
    process = subprocess.run(command, cwd=tests, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "13 passed" in process.stdout


def test_a_flask_app_finds_it_by_its_path():
    flask_caching = pytest.importorskip("flask_caching")
    flask = pytest.importorskip("flask")
    app, calls = flask.Flask("app"), []
    config = {
        "CACHE_TYPE": "efsstate.adapters.cachelib.EfsCache",
        "CACHE_OPTIONS": {"name": "shop"},
    }
    cache = flask_caching.Cache(app, config=config)

    @app.route("/")
    @cache.cached()
    def index():
        calls.append(1)
        return "hello"

    client = app.test_client()
    assert [client.get("/").data for _ in range(3)] == [b"hello"] * 3 and calls == [1]
    assert cache.set("name", 1) and cache.get("name") == 1
    assert Cache("shop").get("name") == 1


def test_a_timeout_of_zero_is_for_ever_and_below_it_gone():
    cache = EfsCache("timeouts")
    for timeout, item in ((0, 1), (-1, None), (60, 1)):
        cache.set("key", 1, timeout)
        assert cache.get("key") == item


@pytest.mark.parametrize("kind", [EfsCache, cachelib.SimpleCache])
def test_a_counter_is_what_adds_up(kind):
    """cachelib: `(self.get(key) or 0) + delta`; the sum counts for the default timeout."""
    cache = kind()
    for value, delta, total in (
        (1.5, 1, 2.5), (1, 0.5, 1.5), (True, 1, 2), (None, 1, 1), ("", 2, 2),
        (Decimal("1.5"), 1, 2.5),
    ):  # fmt: skip
        cache.set("n", value)
        assert cache.inc("n", delta) == cache.get("n") == total
        cache.set("n", value)
        assert cache.dec("n", delta) == cache.get("n") == (value or 0) - delta
    assert cache.inc("new", 0.5) == 0.5 and cache.dec("new") == -0.5
    cache.set("n", "1")
    with pytest.raises(TypeError):
        cache.inc("n")
    assert cache.get("n") == "1"


@pytest.mark.parametrize("kind", [EfsCache, cachelib.SimpleCache])
@pytest.mark.parametrize("key", [Key.CART, Text("cart"), "cart"])
def test_a_key_of_a_subclass_of_str_is_its_text(kind, key):
    cache = kind()
    cache.set("cart", [1])
    assert cache.get(key) == [1] and cache.has(key) and not cache.add(key, 2)
    assert cache.get_many(key, "cart", "x") == [[1], [1], None]
    assert cache.get_dict(key) == {"cart": [1]}
    assert cache.delete(key) and cache.get("cart") is None
    assert cache.inc(key) == 1 and cache.get("cart") == 1
    assert cache.set_many({key: 5}) == [key] and cache.get("cart") == 5
    assert cache.delete_many(key) == [key] and cache.add(key, 3) and cache.get("cart") == 3


@pytest.mark.parametrize("kind", [EfsCache, cachelib.SimpleCache])
def test_an_addition_of_no_time_is_a_success(kind):
    cache = kind()
    assert cache.add("key", 1, -1) and cache.get("key") is None
    cache.set("key", 2)
    assert not cache.add("key", 1, -1) and cache.get("key") == 2


def test_a_sum_that_cannot_be_stored_is_none(monkeypatch):
    cache = EfsCache("sums")
    assert cache.inc("n", 2) == 2 and cache.dec("n") == 1

    def fail(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Mount, "write_entry", fail)
    assert cache.inc("n") is None
    assert not cache.set("other", 1) and cache.get("n") == 1


@pytest.mark.parametrize("timeout", [60, -1])
def test_a_value_that_is_not_kept_is_no_success(monkeypatch, timeout):
    """For an error cachelib wants False, and from `set_many` the keys that were set."""
    cache, pairs = EfsCache("sets"), {"a": 1, "b": 2, "c": 3}
    assert cache.set("a", 0) and cache.set_many(pairs, timeout) == ["a", "b", "c"]
    broken = cache._cache.digest("b")
    write, remove = DiskTier.write, DiskTier.remove

    def fail(method):
        def call(self, digest, *args, **options):
            if digest == broken:
                raise OSError(5, "Input/output error")
            return method(self, digest, *args, **options)

        return call

    monkeypatch.setattr(DiskTier, "write", fail(write))
    monkeypatch.setattr(DiskTier, "remove", fail(remove))
    assert cache.set_many(pairs, timeout) == ["a", "c"]
    assert cache.set("a", 1, timeout) and not cache.set("b", 1, timeout)


def test_a_cache_that_is_switched_off_fails_in_nothing():
    """As cachelib's own `NullCache`."""
    with disabled():
        assert EfsCache("off").set("key", 1) and EfsCache("off").set_many({"key": 1}) == ["key"]
