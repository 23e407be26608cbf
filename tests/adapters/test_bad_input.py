"""Adapters with long keys, values that can't be stored, bad mounts, and a strange framework."""

import asyncio
import errno
import subprocess
import sys
import threading

import pytest

from efsstate.mount.files import Mount

LONG = "k" * 10_240


def django(**options):
    pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    from efsstate.adapters.django import EfsCache

    cache = EfsCache("", {"OPTIONS": options})
    return cache.set, cache.get


def cachelib(**options):
    pytest.importorskip("cachelib")
    from efsstate.adapters.cachelib import EfsCache

    cache = EfsCache(**options)
    return cache.set, cache.get


def dogpile(**options):
    region = pytest.importorskip("dogpile.cache").make_region()
    from dogpile.cache import register_backend
    from dogpile.cache.api import NO_VALUE

    try:
        register_backend("efsstate", "efsstate.adapters.dogpile", "EfsBackend")
    except ValueError:  # the entry point has done so
        pass
    region.configure("efsstate", arguments=options)
    return region.set, lambda key: None if region.get(key) is NO_VALUE else region.get(key)


def aiocache(**options):
    pytest.importorskip("aiocache")
    from efsstate.adapters.aiocache import EfsCache

    cache = EfsCache(**options)
    return (
        lambda key, value: asyncio.run(cache.set(key, value)),
        lambda key: asyncio.run(cache.get(key)),
    )


@pytest.fixture(params=[django, cachelib, dogpile, aiocache], ids=lambda kind: kind.__name__)
def adapter(request):
    return request.param


@pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")
def test_a_key_of_ten_kilobytes_is_a_key(adapter):
    """Django warns about it, because memcached would refuse it, as all its backends do."""
    write, read = adapter(memory=0)
    write(LONG, 1)
    assert read(LONG) == 1 and read(LONG[1:]) is None


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.ESTALE])
def test_a_mount_that_refuses_is_a_miss(adapter, number, monkeypatch):
    def refuse(*_, **__):
        raise OSError(number, "refused")

    write, read = adapter(memory=0)
    monkeypatch.setattr(Mount, "write_entry", refuse)
    write("key", 1)
    assert read("key") is None
    monkeypatch.setattr(Mount, "find_entry", refuse)
    assert read("key") is None


def test_a_mount_that_hangs_is_a_miss(adapter, monkeypatch):
    write, read = adapter(memory=0, io_timeout=0.2)
    write("key", 1)
    release = threading.Event()
    monkeypatch.setattr(Mount, "find_entry", lambda *_, **__: release.wait(60) and None)
    try:
        assert read("key") is None
    finally:
        release.set()


def test_a_value_that_cannot_be_stored_is_an_error(adapter):
    """Pickle's own with Django, as Django's tests want it; else EncodeError, a ValueError."""
    write, read = adapter(memory=0)
    with pytest.raises(TypeError if adapter is django else ValueError, match="lock"):
        write("key", threading.Lock())
    assert read("key") is None


OLD = """
import sys, types
package = types.ModuleType(sys.argv[1].partition(".")[0])
package.__path__ = []  # a version that has none of what the adapter needs
sys.modules[package.__name__] = package
try:
    __import__("efsstate.adapters." + sys.argv[2])
except ImportError as error:
    print(error.name)
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [("django.core", "django"), ("cachelib", "cachelib"), ("dogpile.cache", "dogpile"),
     ("aiocache.base", "aiocache"), ("joblib.memory", "joblib"), ("fsspec.spec", "fsspec"),
     ("aws_durable_execution_sdk_python.serdes", "durable"),
     ("aws_durable_execution_sdk_python.plugin", "durable_events")],
)  # fmt: skip
def test_a_framework_that_does_not_fit_is_an_import_error(module, name, environment):
    process = subprocess.run(
        [sys.executable, "-c", OLD, module, name],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.startswith(module.partition(".")[0]), process.stderr
