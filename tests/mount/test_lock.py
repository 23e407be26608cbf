"""Locks exclude threads and processes, go with their holder, and stay with a fork's parent."""

import errno
import fcntl
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.mount import alarms
from tests.torture.interrupts import locks

from efsstate import process
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
    code = (
        "import sys; from efsstate.mount import byte_locks; from efsstate.mount.files import Mount;"
        " print(byte_locks.acquire(Mount(sys.argv[1]), 'x', sys.argv[2]) is not None)"
    )
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


def test_on_other_systems_filelock_locks_the_file(mount, monkeypatch):
    """Theirs are other calls and other errors; both kinds of lock exclude each other here."""
    import filelock  # as Linux has it, before the platform is another one

    locked, real = [], filelock.lock_descriptor

    def lock_descriptor(fd, **options):
        locked.append(fd)
        return real(fd, **options)

    monkeypatch.setattr(filelock, "lock_descriptor", lock_descriptor)
    held = lock.acquire(mount, "x", "l", until=soon())
    assert locked == []
    monkeypatch.setattr(sys, "platform", "another")
    assert lock.attempt(mount, "x", "l") is None and len(locked) == 1
    held.release()
    again = lock.attempt(mount, "x", "l")
    assert again is not None and len(locked) == 2
    monkeypatch.undo()
    assert lock.attempt(mount, "x", "l") is None
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


def test_a_lock_is_given_back_though_another_process_has_its_file(mount, tmp_path):
    """A child that C code forked has it, or one of a fork in the moment of the open."""
    held = lock.acquire(mount, "x", "l", until=soon())
    numbers = [int(number) for number in os.listdir("/proc/self/fd")]
    copies = []
    for number in numbers:
        try:
            if os.path.samestat(os.fstat(number), os.stat(tmp_path / "x/l")):
                copies.append(os.dup(number))  # which shares the lock, as a child's would
        except OSError:
            pass  # that of the listing
    assert copies
    try:
        held.release()
        again = lock.acquire(mount, "x", "l", until=soon(0.02))
        assert again is not None
        again.release()
    finally:
        for copy in copies:
            os.close(copy)


def opened(*names):
    """Return the open files of these names."""
    paths = []
    for number in os.listdir("/proc/self/fd"):
        try:
            paths.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            pass  # that of the listing
    return [path for path in paths if path.rpartition("/")[2].split(" ")[0] in names]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["l", "LOCK"])
def test_a_fork_waits_for_a_thread_that_opens_a_lock_file(mount, monkeypatch, name):
    """Before its number is noted nobody could close it in the child, which would keep the lock."""
    mount.make("x")
    is_open, real = threading.Event(), os.open

    def open_slowly(path, *arguments, **options):
        number = real(path, *arguments, **options)
        if path == name:
            is_open.set()
            time.sleep(0.3)
        return number

    def take():
        if name == "l":
            held.append(lock.acquire(mount, "x", name, until=soon()))
        else:
            held.append(byte_locks.acquire(mount, "x", "0" * 48))

    held = []
    monkeypatch.setattr(os, "open", open_slowly)
    thread = threading.Thread(target=take)
    thread.start()
    is_open.wait()
    child = os.fork()
    if child == 0:
        os._exit(len(opened(name)))
    thread.join()
    held[0].release()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("act", ["acquire", "attempt", "byte", "is_held"])
def test_an_alarm_at_any_moment_leaks_no_descriptor_and_no_lock(mount, tmp_path, act):
    """A signal's handler may raise after any call: the number that it returned is lost."""

    def run():
        if act == "acquire":
            lock.acquire(mount, "x", "l", until=soon(0)).release()
        elif act == "attempt":
            lock.attempt(mount, "x", "l").release(remove=True)
        elif act == "byte":
            byte_locks.acquire(mount, "x", "0" * 48, keep_open=False).release()
        else:
            lock.is_held(mount, "x", "l")

    run()
    lock.acquire(mount, "x", "l", until=soon(0)).release()
    moments = 0
    for moment in alarms.at_each_moment(run):
        moments += 1
        if act == "byte":
            files = list(byte_locks._shared_files.values())
            assert not any(file.users or file.holders for file in files), moment
            assert elsewhere(mount, "0" * 48) or moment % 10, moment
            with ThreadPoolExecutor(1) as pool:  # its own locks are free for other threads
                assert pool.submit(process.reset).result(10) is None
        assert opened("l", "LOCK") == [], moment
        with open(tmp_path / "x" / "l", "a") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert moments > 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_alarm_during_a_look_at_a_folder_leaks_no_descriptor(mount):
    mount.make("looked-at")
    for moment in alarms.at_each_moment(lambda: mount.look("looked-at")):
        assert len(opened("looked-at")) <= 1, moment  # that of the folder, which stays open
    assert moment > 3


def test_a_child_that_outlives_a_killed_owner_keeps_no_lock(mount, tmp_path):
    program = f"""
import os, sys, time
from efsstate.mount import lock
from efsstate.mount.files import Mount
held = lock.acquire(Mount({str(tmp_path)!r}), "x", "l", until=time.monotonic() + 20)
if os.fork() == 0:
    os.close(1)
    time.sleep(30)
    os._exit(0)
print("held", flush=True)
time.sleep(60)
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert owner.stdout.readline() == "held\n"
        owner.kill()
        owner.communicate()
        held = lock.acquire(mount, "x", "l", until=soon(5))
        assert held is not None
        held.release()
    finally:
        os.killpg(owner.pid, signal.SIGKILL)


def test_a_waiter_on_a_removed_lock_file_waits_for_the_new_one(mount, tmp_path):
    """Who broke the old holder's claim has removed its file; the new one has a healthy holder."""
    frozen = lock.acquire(mount, "x", "l", until=soon())
    results = []
    waiter = threading.Thread(
        target=lambda: results.append(lock.acquire(mount, "x", "l", until=soon(1.5)))
    )
    waiter.start()
    time.sleep(0.1)
    os.unlink(tmp_path / "x/l")
    healthy = lock.acquire(mount, "x", "l", until=soon())
    assert healthy is not None
    frozen.release()
    waiter.join(20)
    assert results == [None] and healthy.is_current()
    healthy.release()


def test_a_waiter_gets_the_new_lock_file_when_it_is_free(mount, tmp_path, monkeypatch):
    """Though the old one is held for ever, by a frozen process."""
    monkeypatch.setattr(lock, "_CHECK", 0.05)
    frozen = lock.acquire(mount, "x", "l", until=soon())
    remover = threading.Timer(0.2, os.unlink, [tmp_path / "x/l"])
    remover.start()
    taken = lock.acquire(mount, "x", "l", until=soon(10))
    assert taken is not None and taken.is_current() and not frozen.is_current()
    taken.release()
    frozen.release()
    remover.join()


def test_two_paths_to_one_root_share_its_byte_locks(tmp_path):
    """POSIX drops all of a process's locks on a file when any descriptor of it is closed."""
    (tmp_path / "root").mkdir()
    os.symlink("root", tmp_path / "alias")
    first, second = Mount(str(tmp_path / "root")), Mount(str(tmp_path / "alias"))
    digest, other = "0" * 48, "f" * 48
    held = byte_locks.acquire(first, "x", digest)
    byte_locks.acquire(second, "x", other, keep_open=False).release()
    assert not elsewhere(first, digest)
    held.release()
    assert elsewhere(first, digest)


def test_another_path_to_the_root_is_as_another_process(tmp_path):
    """The kernel has one lock for the process, but no thread of one path waits for the other's."""
    (tmp_path / "root").mkdir()
    os.symlink("root", tmp_path / "alias")
    first, second = Mount(str(tmp_path / "root")), Mount(str(tmp_path / "alias"))
    digest = "0" * 48
    held, shared = (byte_locks.acquire(first, "x", digest) for _ in range(2))
    held.release()
    assert byte_locks.acquire(second, "x", digest) is None
    shared.release()
    other = byte_locks.acquire(second, "x", digest)
    assert other is not None and byte_locks.acquire(first, "x", digest) is None
    assert not elsewhere(first, digest)
    other.release()
    assert elsewhere(first, digest)


def test_a_folder_made_again_has_its_own_byte_locks(mount, tmp_path):
    digest = "0" * 48
    byte_locks.acquire(mount, "x", digest).release()
    (tmp_path / "x" / "LOCK").unlink()
    (tmp_path / "x").rmdir()
    mount.forget("x")
    held = byte_locks.acquire(mount, "x", digest)
    assert held is not None and not elsewhere(mount, digest)
    held.release()


def test_reset_closes_the_lock_files(mount):
    for number in range(5):
        byte_locks.acquire(mount, f"{number}", "0" * 48).release()
    assert len(opened("LOCK")) == 5
    process.reset()
    assert not byte_locks._shared_files and opened("LOCK") == []


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("kind", [alarms.Alarm, alarms.Late])
def test_an_alarm_leaves_no_byte_locked(tmp_path, kind, is_open):
    """A handler's TimeoutError is an OSError, and no sign that the lock was lost already.

    `is_open`: the lock file is open before.
    """
    mount = Mount(str(tmp_path))
    gc.collect()
    before = locks()  # of tests that ran earlier in this process

    def lock_and_unlock():
        byte_locks.acquire(mount, "x", "0" * 48).release()

    lock_and_unlock()
    moments = 0
    for moment in alarms.at_each_moment(lock_and_unlock, kind=kind):
        moments += 1
        assert locks() == before, moment
        if is_open:
            lock_and_unlock()
    assert moments > 10


@pytest.mark.parametrize("error", [OSError(errno.EIO, "error"), alarms.Late("late")])
def test_a_failed_look_at_a_lock_says_nothing_of_it(mount, monkeypatch, error):
    """Else its holder takes it for lost, and says that another has it."""
    held = lock.attempt(mount, "x", "l")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Mount, "stat", fail)
    with pytest.raises(type(error)) as caught:
        held.is_current()
    assert caught.value is error
