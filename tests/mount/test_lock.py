"""The lock: excludes threads, processes and open files, frees when the holder dies, and is the parent's after a fork."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from efsstate.mount import byte_locks, lock
from efsstate.mount.files import Mount

HOLDER = """
import sys, time
from efsstate.mount import lock
from efsstate.mount.files import Mount
held = lock.acquire(Mount(sys.argv[1]), "x", "l", until=time.monotonic() + 20)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def mount(tmp_path):
    return Mount(str(tmp_path))


def elsewhere(mount, digest):
    """Whether another process gets the claim."""
    code = "import sys; from efsstate.mount import byte_locks; from efsstate.mount.files import Mount; print(byte_locks.acquire(Mount(sys.argv[1]), 'x', sys.argv[2]) is not None)"
    return (
        subprocess.run(
            [sys.executable, "-c", code, mount.path, digest],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        == "True\n"
    )


def soon(seconds=10.0):
    return time.monotonic() + seconds


def test_one_holder_among_threads(mount):
    inside, most, guard = [0], [0], threading.Lock()

    def work():
        for _ in range(10):
            held = lock.acquire(mount, "x", "l", until=soon(30))
            with guard:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.0005)
            with guard:
                inside[0] -= 1
            held.release()

    threads = [threading.Thread(target=work) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert most == [1]


def test_the_wait_is_bounded_and_leaves_no_descriptor(mount):
    held = lock.acquire(mount, "x", "l", until=soon())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert lock.acquire(mount, "x", "l", until=soon(0.01)) is None
    assert len(os.listdir("/proc/self/fd")) == before
    held.release()
    held.release()  # twice is once
    again = lock.acquire(mount, "x", "l", until=soon(0))
    assert again is not None and not again.waited
    again.release()


def test_it_frees_when_the_holder_is_killed(mount, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    assert lock.acquire(mount, "x", "l", until=soon(0.05)) is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    held = lock.acquire(mount, "x", "l", until=soon(5))
    assert held is not None
    held.release()


def test_a_removed_lock_file_is_noticed(mount, tmp_path):
    held = lock.acquire(mount, "x", "l", until=soon())
    assert held.is_current()
    os.unlink(tmp_path / "x/l")
    assert not held.is_current()
    other = lock.acquire(mount, "x", "l", until=soon(0))
    assert other is not None and other.is_current() and not held.is_current()
    held.release()
    other.release(remove=True)
    assert mount.names("x") == []


def test_who_shares_a_claim_keeps_it_when_another_gives_it_back(mount, tmp_path):
    """The kernel has one lock for all of a process."""
    digest = "0" * 48
    first, second = byte_locks.acquire(mount, "x", digest), byte_locks.acquire(mount, "x", digest)
    assert first and second
    first.release()
    assert not elsewhere(mount, digest)
    second.release()
    assert elsewhere(mount, digest)


def test_a_forked_child_does_not_give_the_parents_lock_back(mount):
    held = lock.acquire(mount, "x", "l", until=soon())
    child = os.fork()
    if child == 0:
        held.release(remove=True)
        os._exit(0)
    os.waitpid(child, 0)
    assert held.is_current() and lock.acquire(mount, "x", "l", until=soon(0.02)) is None
    held.release()
