"""The lab itself: it reports as pytest does, and its faults happen."""

import os
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.nfs


def test_two_clients_see_one_export(lab):
    with open(f"{lab.a}/x", "w") as file:
        file.write("hello")
    with open(f"{lab.b}/x") as file:
        assert file.read() == "hello"


def test_requests_are_counted_per_client(lab):
    with open(f"{lab.a}/x", "w") as file:
        file.write("hello")
    with lab.count("a") as by_a, lab.count("b") as by_b, open(f"{lab.b}/x") as file:
        file.read()
    assert (by_a.total, by_b.ops) == (0, {"OPEN": 1, "READ": 1, "CLOSE": 1})


@pytest.mark.parametrize("size", [0, 5000], ids=["empty", "5kB"])
def test_parameters_reach_the_guest(lab, size):
    with open(f"{lab.a}/x", "wb") as file:
        file.write(bytes(size))
    assert os.stat(f"{lab.b}/x").st_size == size


@given(st.binary())
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_hypothesis_runs_in_the_guest(lab, data):
    with open(f"{lab.a}/x", "wb") as file:
        file.write(data)
    with open(f"{lab.b}/x", "rb") as file:
        assert file.read() == data


def test_a_worker_runs_on_its_clients_host(lab):
    for client in "ab":
        assert lab.run(client, socket.gethostname) == lab.hostname(client) == client


def test_a_worker_gives_its_result_or_its_failure(lab):
    assert lab.run("a", "import sys; print(sys.argv[1])", "x") == "x\n"
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        lab.run("b", lambda: 1 / 0)


def test_a_worker_is_frozen_thawed_and_killed(lab):
    def count():
        for i in range(10**6):
            print(i)
            time.sleep(0.01)

    worker = lab.start("a", count)
    assert worker.readline() == "0\n"
    worker.freeze()
    with pytest.raises(TimeoutError):  # noqa: PT012 - some lines were on their way
        while True:
            worker.readline(0.3)
    worker.thaw()
    assert worker.readline()
    worker.kill()
    assert worker.wait() == -9


def test_a_cut_link_hangs_its_client_alone_and_heals(lab):
    lab.cut("a")
    hung = lab.start("a", lambda: os.close(os.open(f"{lab.a}/x", os.O_CREAT | os.O_RDWR)))
    with pytest.raises(TimeoutError):
        hung.wait(1)
    lab.run("b", lambda: os.mkdir(f"{lab.b}/y"))
    lab.heal("a")
    hung.result(60)


def test_a_lock_outlives_a_restart_of_the_server(lab):
    import fcntl

    held, tried = (os.open(f"{folder}/lock", os.O_CREAT | os.O_RDWR) for folder in (lab.a, lab.b))
    fcntl.flock(held, fcntl.LOCK_EX)
    lab.restart_server()
    os.utime(
        held
    )  # has client a notice now, and reclaim: left alone, it may notice only when the grace is over
    with pytest.raises(BlockingIOError):
        fcntl.flock(tried, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(held)
    fcntl.flock(tried, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(tried)


def test_the_delay_reaches_the_mount(lab):
    def fastest():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            os.utime(lab.a)
            times.append(time.perf_counter() - start)
        return min(times)

    lab.delay("50ms")
    assert fastest() > 0.05
    lab.delay("0ms")
    assert fastest() < 0.05
