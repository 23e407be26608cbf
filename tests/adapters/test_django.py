"""Django: its own tests of cache backends on ours, and what they leave out."""

import errno
import os
import re
import subprocess
import sys

import pytest

django = pytest.importorskip("django", reason="pip install django")
from django.conf import settings  # noqa: E402

if not settings.configured:
    settings.configure()

from django.core.cache import CacheHandler  # noqa: E402
from django.core.cache.backends.locmem import LocMemCache  # noqa: E402
from django.utils.safestring import SafeString  # noqa: E402

from efsstate.adapters.django import EfsCache  # noqa: E402
from efsstate.cache import disk  # noqa: E402
from efsstate.cache.disk import DiskTier  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.mark.heavy
def test_djangos_own_tests_pass(source_package, environment):
    """All (54 of Django 5, 62 of 6.1) but for three of culling, which its Redis leaves out, too."""
    tests = source_package(f"django=={django.__version__}", "[dD]jango-*") + "/tests"
    command = [sys.executable, f"{HERE}/django_suite.py"]
    process = subprocess.run(command, cwd=tests, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stdout + process.stderr
    ran = int(re.search(r"Ran (\d+) tests", process.stderr)[1])
    assert ran >= 54 and "OK (skipped=3)" in process.stderr, process.stderr


def test_a_number_that_cannot_be_read_is_not_missing(root, monkeypatch):
    """Else a caller sets it anew, as Django's documentation shows it."""
    cache = EfsCache(str(root), {})
    cache.set("hits", 41)

    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(disk.DiskTier, "read", fail)
        with pytest.raises(OSError, match="Input/output error"):
            cache.incr("hits")
    assert cache.incr("hits") == 42


def test_settings_name_it(root):
    backend = {"BACKEND": "efsstate.adapters.django.EfsCache", "LOCATION": str(root)}
    cache = CacheHandler({"default": backend | {"OPTIONS": {"NAME": "shop"}}})["default"]
    assert isinstance(cache, EfsCache)
    cache.set("key", {"a": [1]}, 60)
    assert cache.get("key") == {"a": [1]}
    assert (root / "cache" / "shop").is_dir()


def test_incr_leaves_the_timeout():
    """Rate limiters count on it."""
    cache = EfsCache("", {})
    results = cache._cache.results

    def seconds(key):
        digest = cache._cache.digest(cache.make_key(key))
        return results.remaining(results.read(digest, exact=True))

    cache.set("hits", 1, 3600)
    assert cache.incr("hits") == 2 and 0 < seconds("hits") <= 3600
    with pytest.raises(ValueError, match="'misses' not found"):
        cache.incr("misses")
    cache.set("always", 1, None)
    assert cache.incr("always", 5) == 6 and cache.decr("always") == 5
    assert seconds("always") == float("inf")


def test_a_counter_takes_the_numbers_that_djangos_own_backends_take():
    for cache in (EfsCache("", {}), LocMemCache("", {})):
        for value, delta, total in ((1.5, 1, 2.5), (1, 0.5, 1.5), (True, 1, 2), (7, -8, -1)):
            cache.set("n", value)
            assert cache.incr("n", delta) == cache.get("n") == total
        cache.set("n", "1")
        with pytest.raises(TypeError):
            cache.incr("n")
        assert cache.get("n") == "1"


def test_keys_of_one_name_are_each_returned():
    for cache in (EfsCache("", {}), LocMemCache("", {})):
        cache.set(1, "one")
        assert cache.get_many([1, "1", 2]) == {1: "one", "1": "one"}
        cache.set("True", "yes")
        assert cache.get_many([True, 1]) == {1: "one"}  # as in a dict, they are one key


def test_a_name_of_a_subclass_of_str_is_its_text():
    """A KEY_FUNCTION may return what it gets, such as a SafeString."""
    parameters = {"KEY_FUNCTION": lambda key, prefix, version: key}
    for cache in (EfsCache("", parameters), LocMemCache("", parameters)):
        cache.set(SafeString("key"), 1)
        assert cache.get("key") == 1 and cache.get_many([SafeString("key")]) == {"key": 1}
        assert cache.incr(SafeString("key")) == 2 and cache.delete(SafeString("key"))
        assert cache.get("key") is None


def test_add_with_no_time_keeps_nothing():
    cache = EfsCache("", {})
    assert cache.add("key", 1, 0) and cache.get("key") is None
    cache.set("key", 2)
    assert not cache.add("key", 1, -1) and cache.get("key") == 2


def test_a_limit_becomes_the_caches_only_if_it_is_set():
    assert EfsCache("", {})._cache.results.options.max_entries is None
    limited = EfsCache("", {"OPTIONS": {"MAX_ENTRIES": 9, "CULL_FREQUENCY": 3, "NAME": "limited"}})
    assert limited._cache.results.options.max_entries == 9


def test_a_value_that_cannot_be_pickled_raises_pickles_error():
    cache = EfsCache("", {})
    with pytest.raises((AttributeError, TypeError)):
        cache.set("key", lambda: 1)
    with pytest.raises((AttributeError, TypeError)):
        cache.set_many({"key": lambda: 1})
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value, error in ((deep, RecursionError), (Unready(), ZeroDivisionError)):
        with pytest.raises(error):
            LocMemCache("", {}).set("key", value)
        with pytest.raises(error):
            cache.set("key", value)


class Unready:
    """An object that cannot be pickled, for a reason of its own."""

    def __reduce__(self):
        return 1 // 0


def test_the_keys_that_could_not_be_kept_are_returned(monkeypatch):
    cache, write = EfsCache("", {}), DiskTier.write
    assert cache.set_many({"a": 1, "b": 2}) == []
    broken = cache._cache.digest(cache.make_key("b"))

    def fail(self, digest, *args, **options):
        if digest == broken:
            raise OSError(5, "Input/output error")
        return write(self, digest, *args, **options)

    monkeypatch.setattr(DiskTier, "write", fail)
    assert cache.set_many({"a": 1, "b": 2}) == ["b"]


def test_a_broken_mount_is_a_miss(root, tmp_path):
    cache = EfsCache("", {})
    cache.set("key", 1)
    root.rename(tmp_path / "gone")
    cache._cache.results.memory.drop(cache._cache.digest(cache.make_key("key")))
    assert cache.get("key", "default") in ("default", 1)
    cache.set("other", 2)
