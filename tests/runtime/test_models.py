"""Models in handlers under the real runtime client: shared, swapped under load, staged once."""

import os
import threading

import pytest

from efsstate import publish, versions
from efsstate.testing import Function

HERE = os.path.dirname(__file__)
SIZE = 3_000_000
pytestmark = pytest.mark.runtime


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "shared").mkdir()

    def put(letter):
        (tmp_path / "weights").write_bytes(letter.encode() * SIZE)
        return publish("m", tmp_path / "weights", root=tmp_path / "shared")

    put.root = str(tmp_path / "shared")
    return put


def function(shared, handler, **more):
    return Function(
        f"model_handlers.{handler}",
        path=HERE,
        environment={"EFSSTATE_ROOT": shared.root},
        **{"timeout": 20, "memory": 512} | more,
    )


def test_swapped_under_load_with_no_failed_request(shared):
    """Versions go live while three environments serve: every answer is of one whole version."""
    shared("a")
    with function(shared, "serve", concurrency=3) as f:
        seen, failed, stop = [], [], threading.Event()

        def client():
            while not stop.is_set():
                result = f.invoke()
                if result.error is not None or result.value["bytes"] != SIZE:
                    failed.append(result)
                else:
                    seen.append(result.value["version"])

        clients = [threading.Thread(target=client) for _ in range(3)]
        for thread in clients:
            thread.start()
        for letter in "bcdefa":
            shared(letter)
            until = threading.Event()
            for _ in range(600):
                if letter in seen[-6:]:
                    break
                until.wait(0.02)
            assert letter in seen, "it was never served"
        stop.set()
        for thread in clients:
            thread.join()
    assert failed == []
    assert set(seen) == set("abcdef") and len(versions("m", root=shared.root)) == 6


def test_processes_of_a_managed_instance_share_a_staged_copy(shared):
    shared("a")
    with function(shared, "serve_staged", max_concurrency=4, concurrency=1, memory=2048) as f:
        results = f.map(range(16))
        assert [r.error for r in results] == [None] * 16
        values = [r.value for r in results]
    assert len({v["pid"] for v in values}) > 1 and len({v["where"] for v in values}) == 1
    assert {v["copies"] for v in values} == {1} and {v["bytes"] for v in values} == {SIZE}
