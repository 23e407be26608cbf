"""A caller's time limit reaches the caller, at whatever moment of a call it rings.

Most handlers of SIGALRM raise TimeoutError, which is an OSError, as the mount's failures are. Code
that goes on without what failed must not go on without the limit.
"""

import importlib
import os
import sys

import pytest

import efsstate
from efsstate import Cache, cached, checkpoint, dataset, process
from tests.mount import alarms

MOMENTS = int(os.environ.get("EFSSTATE_TEST_MOMENTS", "50"))  # of a call, about; it has up to 9,000


@cached(name="work")
def work(key):
    """Return what the calls below ask for."""
    return key


@cached(name="tagged", tags=["tag"], ttl="1h", memory=0)
def tagged(key):
    """Return what the calls below ask for, stored with a tag."""
    return key


def _finish_a_job():
    checkpoint("job").reset()
    with checkpoint("job") as job:
        job.state = [1]
        job.save()
        job.finish()


def _go_through_items():
    checkpoint("loop").reset()
    with checkpoint("loop") as job:
        list(job.resume(range(3)))


def _share_items():
    checkpoint("shards").reset()
    with checkpoint("shards").shards(2) as parts:
        for part in parts:
            part.finish(part.index)


def _write_a_part():
    with dataset("parts").part(".bin") as path, open(path, "wb") as file:
        file.write(b"part")


def _freeze():
    snapshot = dataset("parts").freeze(os.urandom(4).hex())
    list(snapshot.read(ahead=1))
    dataset("parts").forget(snapshot.name)


def _remove_a_part():
    dataset("parts").add(b"part", key="removed")
    dataset("parts").remove("removed")


def _lock():
    with Cache("box").lock("key"):
        pass


def _load(files):
    return bytes(files.read("file"))


def _serve():
    efsstate.model("m", load=_load, check_every=0.001)()


def _publish():
    efsstate.publish("n", f"{os.environ['EFSSTATE_ROOT']}.source", version="a")
    efsstate.remove("n")


def _adapter(name):
    return pytest.importorskip(f"efsstate.adapters.{name}", exc_type=ImportError)


def _take_a_mutex_of_dogpile():
    mutex = _adapter("dogpile").EfsBackend({"name": "mutexes"}).get_mutex("key")
    assert mutex.acquire() and mutex.locked()
    mutex.release()


def _count_by_cachelib():
    assert _adapter("cachelib").EfsCache("counts").inc("key") is not None


def _open_a_circuit():
    _adapter("powertools_breaker").EfsCircuitBreakerPersistence().save_open("pay", 5, 1000)


def _keep_a_payload():
    serdes = _adapter("durable").EfsSerDes(inline=0)
    sdk = importlib.import_module("aws_durable_execution_sdk_python.serdes")
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:etl:1/durable-execution/first/1"
    context = sdk.SerDesContext("step-1", arn)
    value = os.urandom(4).hex()
    assert serdes.deserialize(serdes.serialize(value, context), context) == value


OPERATIONS = {
    "set": lambda: Cache("box").set(1, 1),
    "set many": lambda: Cache("box").set_many({1: 1, 2: 2, 3: 3}),
    "get": lambda: Cache("flat", memory=0).get(1),
    "get many": lambda: Cache("flat", memory=0).get_many([1, 2, 3]),
    "add": lambda: Cache("box").add(os.urandom(4), 1),
    "delete": lambda: Cache("box").delete(1),
    "pop": lambda: Cache("box").pop(1, None),
    "touch": lambda: Cache("box").touch(1),
    "incr": lambda: Cache("box").incr(3),
    "keys": lambda: list(Cache("box").keys()),
    "clear": lambda: Cache("cleared").clear(),
    "a call": lambda: work(os.urandom(4)),
    "a refresh": lambda: work.refresh(1),
    "an explanation": lambda: work.explain(1),
    "an invalidation": lambda: work.invalidate(1),
    "a call with a tag": lambda: tagged(os.urandom(4)),
    "an invalidation of a tag": lambda: tagged.invalidate_tag("tag"),
    "a job": _finish_a_job,
    "a loop": _go_through_items,
    "a part": lambda: dataset("parts").add(b"part", suffix=".txt", key=os.urandom(4).hex()),
    "a list of parts": lambda: list(dataset("parts").parts()),
    "a part by its path": _write_a_part,
    "a snapshot": _freeze,
    "a removal of a part": _remove_a_part,
    "shards": _share_items,
    "a lock": _lock,
    "a model": _serve,
    "an activation": lambda: efsstate.activate("m", "a"),
    "a canary": lambda: efsstate.activate("m", "b", share=0.5),
    "a roll-back": lambda: efsstate.activate("m", "b") or efsstate.rollback("m"),
    "a publication": _publish,
    "a list of versions": lambda: efsstate.versions("m"),
    "a verification": lambda: efsstate.verify("m"),
    "a prune": lambda: efsstate.prune("m", keep=2),
    "a status": lambda: checkpoint("job").status(),
    "a mutex of dogpile.cache": _take_a_mutex_of_dogpile,
    "a count by cachelib": _count_by_cachelib,
    "a circuit of Powertools": _open_a_circuit,
    "a payload of a durable function": _keep_a_payload,
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    monkeypatch.setenv("EFSSTATE_ROOT", str(root))
    monkeypatch.delenv("EFSSTATE_DISABLE", raising=False)
    return str(root)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_time_limit_reaches_its_caller(name, root, tmp_path, monkeypatch):
    """The limit rings at about `MOMENTS` moments of each call, and no temporary file stays."""
    Cache("box").set_many({1: 1, 2: 2})
    Cache("flat", memory=0).set(1, 1)
    work(1), tagged(1), dataset("parts").add(b"one", suffix=".txt")
    source = tmp_path / "root.source"
    source.mkdir()
    for version in ("a", "b"):
        (source / "file").write_text(version)
        efsstate.publish("m", str(source), version=version)
    reached = []
    # In a destructor, or a weak reference's callback, the interpreter itself drops the exception.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: reached.append(False))

    def act():
        try:
            OPERATIONS[name]()
        except alarms.Late:
            reached.append(True)
            raise

    act()
    moments = 0
    for moment in alarms.at_each_moment(act, kind=alarms.Late, most=MOMENTS):
        moments += 1
        assert reached, f"{name}: lost at moment {moment}"
        reached.clear()
        act()  # what was cut off is over by now
    assert moments > 20
    process.reset()
    left = [name for _, _, names in os.walk(root) for name in names if name.startswith(".tmp-")]
    assert left == []


def test_a_time_limit_ends_a_lock_at_every_moment(root):
    """Of the few moments of a byte's lock, a sample of a whole call may have none."""
    reached = []

    def act():
        try:
            _lock()
        except alarms.Late:
            reached.append(True)
            raise

    act()
    for moment in alarms.at_each_moment(act, files="byte_locks.py", kind=alarms.Late):
        assert reached, f"lost at moment {moment}"
        reached.clear()
        act()
