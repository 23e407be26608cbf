"""joblib: `Memory` on a store that every host shares, and what its own store leaves to chance."""

import pickle
import subprocess
import sys
import threading

import pytest

joblib = pytest.importorskip("joblib", reason="pip install joblib")
np = pytest.importorskip("numpy", reason="pip install numpy")
from joblib.memory import CacheWarning  # noqa: E402

from efsstate.adapters import joblib as adapter  # noqa: E402
from efsstate.adapters.joblib import EfsStoreBackend  # noqa: E402
from efsstate.cache.tiers import TieredCache  # noqa: E402
from efsstate.mount.files import Mount  # noqa: E402

joblib.register_store_backend("efsstate", EfsStoreBackend)


@pytest.fixture
def memory(root):
    return joblib.Memory(str(root), backend="efsstate", verbose=0)


calls = []


def double(array, offset=0):
    calls.append(offset)
    return array * 2 + offset


@pytest.fixture(autouse=True)
def no_calls():
    calls.clear()


def test_a_result_is_computed_once(memory, root):
    cached = memory.cache(double)
    assert not cached.check_call_in_cache(np.arange(5), 1)
    for _ in range(3):
        result = cached(np.arange(5), 1)
        assert result.tolist() == [1, 3, 5, 7, 9] and result.dtype == np.arange(5).dtype
    assert calls == [1] and cached.check_call_in_cache(np.arange(5), 1)
    assert (root / "cache" / "joblib").is_dir() and not list(root.rglob("*.pkl"))


def test_a_caller_may_change_its_result(memory):
    cached = memory.cache(double)
    cached(np.ones(3))[:] = 7
    assert cached(np.ones(3)).tolist() == [2, 2, 2] == cached(np.ones(3)).tolist()
    assert calls == [0]


@pytest.mark.filterwarnings("ignore:Cannot detect name collisions")
def test_a_function_with_other_code_loses_its_results(memory):
    def define(body):
        names = {"calls": calls}
        exec(f"def changing(x):\n    calls.append(x)\n    return {body}", names)
        function = names["changing"]
        function.__module__ = "changing"
        return memory.cache(function)

    assert define("x + 1")(1) == 2 == define("x + 1")(1) and calls == [1]
    assert define("x + 5")(1) == 6 and calls == [1, 1]


def deployed(memory, version):
    """Return the function "deployed" as a process with code of that version calls it."""
    names, codes = {}, {}
    exec(f"def deployed(x):\n    return {version}, x", names)
    names["deployed"].__module__ = "deployed"
    function = memory.cache(names["deployed"])

    def call(x):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(adapter, "_codes", codes)
            return function(x)

    return call


def lose_code(memory, _):
    memory.store_backend._cache.delete(("code", "deployed/deployed"))


def fail_once(monkeypatch, name):
    real = getattr(TieredCache, name)

    def fail(*_, **__):
        monkeypatch.setattr(TieredCache, name, real)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(TieredCache, name, fail)


def fail_to_read_code(_, monkeypatch):
    fail_once(monkeypatch, "read")


def fail_to_clear(_, monkeypatch):
    fail_once(monkeypatch, "invalidate_tag")


@pytest.mark.filterwarnings("ignore:Cannot detect name collisions")
@pytest.mark.parametrize("happens", [lose_code, fail_to_read_code, fail_to_clear])
def test_a_result_of_old_code_is_never_given_to_new(root, monkeypatch, happens):
    def memory():
        return joblib.Memory(str(root), backend="efsstate", verbose=0)

    old = deployed(memory(), 1)
    assert [old(x) for x in range(3)] == [(1, x) for x in range(3)]
    there = memory()
    happens(there, monkeypatch)
    new = deployed(there, 2)
    assert [new(x) for x in range(3)] == [(2, x) for x in range(3)] == [new(x) for x in range(3)]


@pytest.mark.filterwarnings("ignore:Cannot detect name collisions")
def test_old_and_new_code_run_beside_each_other(root):
    """While a function is deployed: what the old code stores late is not the new one's."""
    old, new = (
        deployed(joblib.Memory(str(root), backend="efsstate", verbose=0), version)
        for version in (1, 2)
    )
    for x in range(6):
        first, second = ((old, 1), (new, 2))[:: 1 if x % 2 else -1]
        for call, version in (first, second, first, second):
            assert call(x) == (version, x)


def test_results_can_be_cleared(memory):
    cached = memory.cache(double)
    other = memory.cache(sum_of)
    cached(np.ones(1)), cached(np.ones(2)), other([1, 2])
    cached.call_and_shelve(np.ones(1)).clear()
    assert not cached.check_call_in_cache(np.ones(1)) and cached.check_call_in_cache(np.ones(2))
    cached.clear(warn=False)
    assert not cached.check_call_in_cache(np.ones(2)) and other.check_call_in_cache([1, 2])
    memory.clear(warn=False)
    assert not other.check_call_in_cache([1, 2])


def sum_of(items):
    return sum(items)


def test_a_shelved_result_can_be_sent_elsewhere(memory):
    shelved = memory.cache(double).call_and_shelve(np.ones(2), 3)
    copy = pickle.loads(pickle.dumps(shelved))
    assert copy.get().tolist() == [5, 5] and copy.duration > 0
    copy.clear()
    with pytest.raises(KeyError):
        copy.get()
    assert pickle.loads(pickle.dumps(memory)).cache(double)(np.ones(1)).tolist() == [2]


def test_a_validation_sees_the_metadata(memory):
    seen = []

    def validate(metadata):
        seen.append(metadata)
        return len(seen) == 1

    cached = memory.cache(double, cache_validation_callback=validate)
    for _ in range(3):
        cached(np.ones(1), 9)
    assert calls == [9, 9] and seen[0]["input_args"]["offset"] == "9"


def test_a_value_that_cannot_be_stored_is_joblibs_warning(memory):
    cached = memory.cache(lock)
    with pytest.warns(CacheWarning, match="Unable to cache to disk"):
        assert cached() is not None


def lock():
    return threading.Lock()


def test_nothing_is_unpickled_unless_it_is_asked_for(root):
    memory = joblib.Memory(
        str(root), backend="efsstate", verbose=0, backend_options={"codec": "pickle", "name": "own"}
    )
    assert isinstance(memory.cache(exception)(), ValueError)
    assert isinstance(memory.cache(exception)(), ValueError)
    assert (root / "cache" / "own").is_dir()


def exception():
    return ValueError(1)


def test_damage_is_computed_again(memory, entries):
    cached = memory.cache(double)
    cached(np.ones(1))
    for path in entries():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    memory.store_backend._cache.results.memory.clear()
    assert cached(np.ones(1)).tolist() == [2]


def test_a_failing_mount_computes(memory, monkeypatch):
    def fail(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Mount, "write_entry", fail)
    assert memory.cache(double)(np.ones(1)).tolist() == [2]


def test_what_needs_files_is_refused(root, memory):
    with pytest.raises(ValueError, match="can't be mapped"):
        joblib.Memory(str(root), backend="efsstate", mmap_mode="r")
    with pytest.raises(NotImplementedError, match="no files of joblib"):
        memory.reduce_size(bytes_limit=1)


OTHER = """
import joblib, numpy, sys
from efsstate.adapters.joblib import EfsStoreBackend
joblib.register_store_backend("efsstate", EfsStoreBackend)
memory = joblib.Memory(sys.argv[1], backend="efsstate", verbose=0)
backend = memory.store_backend
if sys.argv[2:]:
    backend.dump_item(["f", "a"], numpy.arange(4))
else:
    print(backend.load_item(["f", "a"]).tolist())
"""


def test_another_process_has_the_results(root, environment):
    for more, output in ((["write"], ""), ([], "[0, 1, 2, 3]\n")):
        command = [sys.executable, "-c", OTHER, str(root), *more]
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (process.returncode, process.stdout) == (0, output), process.stderr
