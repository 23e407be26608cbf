"""Models in handlers under the real runtime client: shared, swapped under load, staged once."""

import os
import threading

import pytest

from efsstate import activate, publish, versions
from efsstate.modelstore.versions import rollback
from efsstate.testing import Function

HERE = os.path.dirname(__file__)
SIZE = 3_000_000
pytestmark = pytest.mark.runtime


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "shared").mkdir()

    def put(letter, **more):
        (tmp_path / "weights").write_bytes(letter.encode() * SIZE)
        return publish("m", tmp_path / "weights", root=tmp_path / "shared", **more)

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


@pytest.mark.slow
def test_a_canary_over_two_hundred_environments(shared):
    """A tenth of them serve it, within binomial bounds; it is completed and rolled back.

    Twenty at a time, each with a log stream of its own; the last twenty serve on meanwhile.
    """
    shared("a")
    canary = shared("b", activate=False)
    activate("m", canary, share=0.1, root=shared.root)
    served, failed = {}, []

    def answers(results):
        failed.extend(result.error for result in results if result.error is not None)
        return [result.value for result in results if result.error is None]

    while True:
        with function(shared, "serve_and_stay", concurrency=20, timeout=60) as f:
            for answer in answers(f.map([{"seconds": 3}] * 20)):
                # One that had two calls serves one version.
                first = served.setdefault(answer["environment"], answer["version"])
                assert first == answer["version"]
            if len(served) < 200:
                continue
            share = list(served.values())[:200].count("b")
            activate("m", canary, root=shared.root)
            after = answers(f.map([{"seconds": 0.1}] * 80))
            assert {answer["version"] for answer in after[-20:]} == {"b"}
            rollback("m", root=shared.root)
            after = answers(f.map([{"seconds": 0.1}] * 80))
            assert {answer["version"] for answer in after[-20:]} == {"a"}
            break
    assert failed == []
    # Of 200 with 0.1 each, fewer than 4 or more than 42 are a chance of one in a million.
    assert 4 <= share <= 42
    print(f"{share} of 200 environments served the canary")
