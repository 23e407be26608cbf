"""Threads that make the calls of one other thread, in its contexts, until they are stopped."""

import contextvars
import gc
import threading
import time
import weakref

import pytest
from tests.mount.alarms import at_each_moment, succeeds_in_child

from efsstate.parallel import Workers, each


@pytest.fixture
def workers():
    own = Workers(2, "test")
    yield own
    own.stop(wait=True)


def test_calls_return_raise_and_keep_their_context(workers):
    where = contextvars.ContextVar("where")
    where.set("here")
    calls = [
        workers.submit(where.get),
        workers.submit(lambda: 1 // 0),
        workers.submit(gc.isenabled),
    ]
    where.set("there")
    assert workers.first(calls[:1], None).result() == "here"
    with pytest.raises(ZeroDivisionError):
        workers.first(calls[1:2], None).result()
    assert workers.first(calls[2:], 5) is calls[2] and calls[2].result() is True


def test_as_many_threads_as_there_may_be(workers):
    both = threading.Barrier(2)
    calls = [workers.submit(lambda: (both.wait(10), threading.get_ident())[1]) for _ in range(4)]
    assert len({workers.first([call], 10).result() for call in calls}) == 2


def test_who_waits_in_vain_gets_none(workers):
    go = threading.Event()
    call = workers.submit(go.wait)
    assert workers.first([call], 0.02) is None and not call.is_over
    go.set()
    assert workers.first([call], None) is call


def test_a_stop_waits_for_what_began_and_begins_nothing(workers):
    go, done = threading.Event(), []
    begun = [workers.submit(lambda: (go.wait(10), time.sleep(0.05), done.append(1))) for _ in "ab"]
    waiting = [workers.submit(lambda: done.append(2)) for _ in range(5)]
    while not all(call.is_taken for call in begun):
        time.sleep(0.001)
    threading.Timer(0.02, go.set).start()
    workers.stop(wait=True)
    assert done == [1, 1] and all(call.is_over for call in begun)
    time.sleep(0.05)
    assert done == [1, 1] and not any(call.is_taken and not call.is_over for call in waiting)


def test_threads_end_and_keep_no_result():
    workers = Workers(2, "ends")

    class Result:
        pass

    call = workers.submit(Result)
    result = weakref.ref(workers.first([call], None).result())
    gc.collect()
    assert result() is None
    workers.stop(wait=True)
    until = time.monotonic() + 20
    while any(thread.name == "ends" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.005)


def test_an_alarm_as_a_thread_is_started_hangs_nothing():
    """One that cuts off a `Condition` as it is entered leaves its lock taken for ever."""

    def act():
        list(each(done.append, range(3), threads=2, late=str))

    def try_each():
        for _ in at_each_moment(act, "threading.py"):
            count = len(done)
            time.sleep(0.001)
            late.append(len(done) - count)
        assert len(late) > 20 and not any(late), "a thread went on after its caller"

    done, late = [], []
    assert succeeds_in_child(try_each)
