"""Hazards between features: forks, signals, threads, broken claims, and growth without an end."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from efsstate import ClaimedError, ClaimLost, checkpoint
from efsstate.checkpoints import fenced_removal, protocol
from efsstate.format import layout
from efsstate.mount.files import Mount


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def in_thread(function):
    """Run `function` in a thread; return its result, or the error."""
    results = []

    def run():
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    return results[0]


@pytest.mark.parametrize("how", ["finished", "saved once", "never saved"])
def test_claims_without_saves_do_not_grow_the_folder(root, folder, how):
    """A Step Functions loop claims a finished job again and again."""
    with checkpoint("job", root=root) as job:
        if how == "finished":
            job.finish(7)
        elif how == "saved once":
            job.save(7)
    for _ in range(40):
        with checkpoint("job", root=root) as job:
            pass
    assert len(list(folder("job").path.iterdir())) <= 14
    job = checkpoint("job", root=root)
    assert (job.load(), job.finished, job.result) == {
        "finished": (None, True, 7),
        "saved once": (7, False, None),
        "never saved": (None, False, None),
    }[how]


def test_a_second_iteration_over_shards_gives_the_first(root):
    """A second iteration over shards gives the first claim back."""
    with checkpoint("job", root=root).shards(3) as shards:
        first = next(iter(shards))
        first.save("still claimed")
        second = next(iter(shards))
        if second.index != first.index:
            with checkpoint("job", root=root).shards(3).shard(first.index):
                pass  # it can be claimed again
    for shard in (first, second):
        with pytest.raises(ClaimLost):
            shard.save(1)


def test_nested_iterations_over_shards_hold_both_claims(root):
    with checkpoint("job", root=root).shards(3) as shards:
        for outer in shards:
            for inner in shards:
                assert inner.index != outer.index
                inner.save(1)
                break
            outer.save(2)
            break


class Alarm(BaseException):
    pass


def test_alarms_leak_no_descriptor_and_no_lock(root, monkeypatch):
    """A timeout by SIGALRM raises anywhere: in the wait for the lock, in a claim, in a save.

    Python itself ends a destructor that a handler raises in; its descriptor stays open.
    """
    ended = []
    monkeypatch.setattr(sys, "unraisablehook", ended.append)

    def ring(*_):
        raise Alarm

    def attempt(wait):
        with checkpoint("job", root=root, wait=wait) as job:
            for number in range(50):
                job.save(number)

    attempt(0)
    before, old = descriptors(), signal.signal(signal.SIGALRM, ring)
    try:
        for step in range(150):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + step * 0.0001)
                try:
                    attempt(0)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except (Alarm, ClaimedError):
                pass
        with checkpoint("held", root=root):
            program = (
                "from efsstate import checkpoint; import sys, time\n"
                f"with checkpoint('job', root={root!r}): print('held', flush=True); time.sleep(60)"
            )
            other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
            other.stdout.readline()
            for _ in range(10):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.05)
                    try:
                        attempt(5)
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except Alarm:
                    pass
            other.kill()
            other.wait()
            other.stdout.close()
    finally:
        signal.signal(signal.SIGALRM, old)
    gc.collect()
    # Folders of the second name stay open.
    assert descriptors() <= before + 2 + len(ended)
    with checkpoint("job", root=root, wait=0) as job:
        job.save("free")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_a_thread_saves_gets_claimlost(root):
    """The guard that the other thread holds at the fork is free in the child."""
    with checkpoint("job", root=root) as job:
        stop = threading.Event()

        def saving():
            while not stop.is_set():
                job.save(bytes(200_000))

        thread = threading.Thread(target=saving)
        thread.start()
        try:
            for _ in range(10):
                time.sleep(0.01)
                child = os.fork()
                if not child:
                    signal.alarm(10)  # a hang is a failure
                    try:
                        job.save("child's")
                        os._exit(1)
                    except ClaimLost:
                        os._exit(0)
                    finally:
                        os._exit(2)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            stop.set()
            thread.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_outlives_a_killed_owner_keeps_no_lock(root):
    program = f"""
import os, time
from efsstate import checkpoint
with checkpoint("job", root={root!r}) as job:
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    print(child, flush=True)
    time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    child = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    try:
        with checkpoint("job", root=root, wait=10) as job:
            job.save(1)
    finally:
        os.kill(child, 9)


def test_a_waiter_on_a_broken_claims_lock_takes_none(root):
    """1 hangs in its claim, 2 waits for it, 3 breaks it and claims. 1 dies, and 2 must wait on."""
    program = f"""
import time
from efsstate import checkpoint
with checkpoint("job", root={root!r}):
    print("held", flush=True)
    time.sleep(60)
"""
    hung = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    hung.stdout.readline()
    order = []

    def wait():
        with checkpoint("job", root=root, wait=20) as job:
            order.append(("waiter", job.state))

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.3)
    try:
        checkpoint("job", root=root).break_claim()
        with checkpoint("job", root=root) as job:
            hung.kill()
            hung.wait()
            time.sleep(1)
            job.save("healthy")
            order.append(("owner", "saved"))
    finally:
        hung.kill()
        hung.stdout.close()
        waiter.join(30)
    assert order == [("owner", "saved"), ("waiter", "healthy")]


def test_a_broken_claim_lets_waiters_in(root):
    """They wait on the old lock file, which a hung holder may keep for ever."""
    with checkpoint("job", root=root) as hung:
        results = []

        def wait():
            with checkpoint("job", root=root, wait=20) as job:
                results.append(job.epoch)

        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.3)
        checkpoint("job", root=root).break_claim()
        waiter.join(10)
        assert results and results[0] > hung.epoch


def test_threads_that_share_a_checkpoint_wait_for_each_other(root):
    job = checkpoint("job", root=root, wait="20s")
    results = []

    def work():
        with job:
            state = job.state or 0
            time.sleep(0.02)
            job.save(state + 1)
            results.append(state)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(6))
    shared = checkpoint("job", root=root)
    with shared:
        assert isinstance(in_thread(shared.__enter__), ClaimedError)  # no wait: at once


def test_epochs_grow_after_many_quick_claims_and_a_removal(root, folder):
    for _ in range(60):
        with checkpoint("job", root=root) as job:
            pass
    shutil.rmtree(folder("job").path)
    with checkpoint("job", root=root) as again:
        assert again.epoch > job.epoch


def test_a_reset_shard_is_given_out_again(root):
    def finish_all():
        done = []
        with checkpoint("job", root=root).shards(3) as shards:
            for shard in shards:
                shard.finish()
                done.append(shard.index)
        return sorted(done)

    assert finish_all() == [0, 1, 2]
    parts = checkpoint("job", root=root).shards(3)
    parts.shard(1).reset()
    assert not checkpoint("job", root=root).shards(3).progress().finished
    assert finish_all() == [1]
    checkpoint("job", root=root).reset()
    assert checkpoint("job", root=root).shards(3).progress().done == 0
    assert finish_all() == [0, 1, 2]


def test_a_reset_job_refuses_while_a_shard_is_claimed(root):
    with checkpoint("job", root=root).shards(3) as shards:
        for shard in shards:
            shard.save(1)
            with pytest.raises(ClaimedError):
                checkpoint("job", root=root).reset()
            break


def test_removal_of_a_job_in_use_is_refused(root):
    """Also if one of its shards is in use: an acknowledged save must not go with the folder."""
    with checkpoint("job", root=root).shards(3) as shards:
        shard = next(iter(shards))
        shard.save("in use")
        with pytest.raises(ClaimedError, match="not removed"):
            fenced_removal.remove(Mount(root), layout.checkpoint_folder("job"))
        shard.save("still")
    result = fenced_removal.remove(Mount(root), layout.checkpoint_folder("job"))
    assert result.is_complete
    assert not result.foreign
    assert os.listdir(f"{root}/checkpoints") == []


def test_superseded_claims_end_with_their_lock_given_back(root, monkeypatch):
    real = protocol.CheckpointFolder.claim
    calls = []

    def claim(self, *values, **options):
        calls.append(1)
        if len(calls) == 1:
            raise protocol.Superseded
        return real(self, *values, **options)

    monkeypatch.setattr(protocol.CheckpointFolder, "claim", claim)
    before = descriptors()
    with checkpoint("job", root=root, wait=5) as job:
        job.save(1)
    assert len(calls) == 2
    assert descriptors() <= before + 6
