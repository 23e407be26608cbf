"""dogpile.cache: its own three suites on our backend, and one computation for all processes."""

import enum
import importlib
import os
import pathlib
import subprocess
import sys
import tomllib
from threading import Event, Thread

import pytest

fixtures = pytest.importorskip("dogpile.testing.fixtures", reason="pip install dogpile.cache")
from dogpile.cache import make_region, register_backend  # noqa: E402
from tests.mount import alarms  # noqa: E402

from efsstate.adapters.dogpile import EfsBackend  # noqa: E402
from efsstate.mount import byte_locks  # noqa: E402

try:
    register_backend("efsstate", "efsstate.adapters.dogpile", "EfsBackend")
except ValueError:  # the entry point has done so
    pass


class TestBackend(fixtures._GenericBackendTestSuite):
    backend, config_args = "efsstate", {"arguments": {"name": "suite"}}


class TestMutex(fixtures._GenericMutexTestSuite):
    backend, config_args = "efsstate", {"arguments": {"name": "mutexes"}}


class TestSerializer(fixtures._GenericSerializerTestSuite, fixtures._GenericBackendFixture):
    backend, config_args = "efsstate", {"arguments": {"name": "serialised"}}


def region(**arguments):
    return make_region().configure("efsstate", arguments=arguments)


def test_the_entry_point_names_the_backend():
    path = pathlib.Path(__file__).parents[2] / "pyproject.toml"
    if not path.exists():
        pytest.skip("only in the source tree")
    points = tomllib.loads(path.read_text())["project"]["entry-points"]["dogpile.cache"]
    module, _, name = points["efsstate"].partition(":")
    assert getattr(importlib.import_module(module), name) is EfsBackend


OTHER = """
import sys
from efsstate.adapters.dogpile import EfsBackend
mutex = EfsBackend({"name": "shared"}).get_mutex("key")
print(mutex.acquire(False), mutex.locked())
"""


def test_regions_of_all_processes_exclude_each_other(environment):
    backend = region(name="shared").backend
    mutex, again = backend.get_mutex("key"), backend.get_mutex("key")

    def ask():
        command = [sys.executable, "-c", OTHER]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()

    assert mutex.acquire()
    assert again.locked() and not again.acquire(False)
    assert ask() == ["False", "True"]
    mutex.release()
    assert ask()[0] == "True"
    assert not again.locked()


def test_a_mount_that_cannot_lock_computes_all_the_same(monkeypatch):
    def fail(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(byte_locks, "acquire", fail)
    values = region(name="unlocked")
    assert values.get_or_create("key", lambda: 7) == 7
    assert values.get("key") == 7


def test_a_wait_that_is_over_computes_all_the_same():
    backend = region(name="waiting", lock_timeout=0.05).backend
    results = backend._cache.results
    results.claim = lambda digest: None  # another host has it
    mutex = backend.get_mutex("key")
    assert mutex.acquire(wait=False) is False
    assert mutex.acquire() is True
    mutex.release()


def test_a_key_of_ten_kilobytes_is_a_key():
    values = region(name="long keys")
    values.set("k" * 10_000, 1)
    assert values.get("k" * 10_000) == 1 and not values.get("k" * 9_999)


class Key(enum.StrEnum):
    CART = "cart"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("backend", ["efsstate", "dogpile.cache.memory"])
@pytest.mark.parametrize("key", [Key.CART, Text("cart")])
def test_a_key_of_a_subclass_of_str_is_its_text(backend, key):
    values = make_region().configure(backend)
    values.set("cart", 1)
    assert values.get(key) == 1 and values.get_multi([key, "cart"]) == [1, 1]
    values.delete(key)
    assert not values.get("cart")
    values.set(key, 2)
    assert values.get("cart") == values.get_or_create(key, int) == 2
    values.set_multi({key: 3})
    assert values.get("cart") == 3
    values.delete_multi([key])
    assert not values.get("cart") and values.get_or_create_multi([key], lambda _: [4]) == [4]
    assert values.get("cart") == 4
    mutex = values._mutex(key)
    assert mutex.acquire() and not values._mutex("cart").acquire(False)
    mutex.release()


@pytest.mark.parametrize("kind", [alarms.Alarm, alarms.Late])
def test_an_alarm_leaves_no_mutex_taken(kind, monkeypatch):
    """At whatever moment its handler raises, another thread takes the mutex after the last use."""
    # The interpreter prints what is raised as it ends a generator.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    backend = region(name="alarms").backend
    other = backend.get_mutex("key")  # shares the lock of the process's threads

    def hold():
        mutex = backend.get_mutex("key")
        mutex.acquire()
        mutex.release()

    def take():
        taken.append(other.acquire(False))
        other.release()

    moments = 0
    for moment in alarms.at_each_moment(hold, kind=kind):
        moments += 1
        taken = []
        thread = Thread(target=take)
        thread.start()
        thread.join()
        assert taken == [True], moment
    assert moments > 40


def test_an_alarm_before_the_release_leaves_no_mutex_taken():
    """dogpile.cache acquires it in one line, and enters its `try` in the next."""
    backend = region(name="forgotten").backend
    mutex, other = backend.get_mutex("key"), backend.get_mutex("key")
    mutex.acquire()
    assert not other.acquire(False)
    del mutex
    assert other.acquire(False)
    other.release()


def test_a_forked_child_releases_no_mutex_of_its_parent():
    """The child's lock of the same key is another one, which a thread of the child may hold."""
    mutex = region(name="inherited").backend.get_mutex("key")
    mutex.acquire()
    if not (child := os.fork()):
        code = 1
        try:
            threads = mutex._threads
            assert threads.acquire(blocking=False)
            mutex.release()
            mutex.__del__()
            code = int(threads.acquire(blocking=False))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    mutex.release()
    assert status == 0


def test_a_forked_child_waits_for_no_thread_of_its_parent():
    """The thread that held the mutex does not exist there, so nobody would release it."""
    backend = region(name="forked").backend
    mutex, has_acquired, may_release = backend.get_mutex("key"), Event(), Event()

    def hold():
        mutex.acquire()
        has_acquired.set()
        may_release.wait()
        mutex.release()

    thread = Thread(target=hold)
    thread.start()
    has_acquired.wait()
    (released, say_released), (answer, say_answer) = os.pipe(), os.pipe()
    if not (child := os.fork()):
        try:
            os.read(released, 1)
            os.write(say_answer, str(backend.get_mutex("key").acquire(False)).encode())
        finally:
            os._exit(0)
    may_release.set()
    thread.join()
    os.write(say_released, b".")
    os.close(say_answer)
    with os.fdopen(answer) as file:
        assert file.read() == "True"
    os.waitpid(child, 0)
    os.close(released), os.close(say_released)
