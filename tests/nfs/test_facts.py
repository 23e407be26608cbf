"""The facts about NFS that the code relies on: a kernel that behaves otherwise is noticed here.

Where a fact is about staleness, "stale" is asserted too: a mount that is better than this needs
fewer requests than we send.
"""

import ctypes
import errno
import fcntl
import os
import struct
import threading
import time

import filelock
import pytest

pytestmark = pytest.mark.nfs


def write(path, data, flags=os.O_TRUNC):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | flags, 0o600)
    os.write(fd, data)
    os.close(fd)


def read(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


def replace(path, data):
    write(path + ".new", data)
    os.rename(path + ".new", path)


def open_folder(path):
    os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY))


def found(path):
    try:
        read(path)
    except FileNotFoundError:
        return False
    return True


def lock_file(path):
    return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)


def try_lock(fd):
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def ofd(fd, kind, offset):
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0))


def try_ofd(fd, offset):
    try:
        ofd(fd, fcntl.F_WRLCK, offset)
    except BlockingIOError:
        return False
    return True


def within(seconds, condition):
    """Seconds until it holds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - start


# What a second client sees: what makes it look again. Each step is taken on client b, in `folder`.


def nothing(folder):
    pass


def stat_folder(folder):
    os.stat(folder)


def lock_an_existing_file(folder):
    fd = os.open(f"{folder}/lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.close(fd)


def write_an_existing_file(folder):
    write(f"{folder}/lock", b"x")


def list_folder(folder):
    os.listdir(folder)


def create(folder):
    write(f"{folder}/own", b"")


def create_exclusively(folder):
    write(f"{folder}/own", b"", os.O_EXCL)


def rename(folder):
    os.rename(f"{folder}/mine", f"{folder}/mine2")


def unlink(folder):
    os.unlink(f"{folder}/mine")


def symlink(folder):
    os.symlink("x", f"{folder}/link")


def utime_folder(folder):
    os.utime(folder)


DO_NOT_HELP = [nothing, stat_folder, lock_an_existing_file, write_an_existing_file]
REFRESH = [
    open_folder,
    list_folder,
    create,
    create_exclusively,
    rename,
    unlink,
    symlink,
    utime_folder,
]


@pytest.fixture
def folders(lab):
    """The folder on a and b; b has made the files `lock` and `mine` there, and knows them."""
    write(f"{lab.b}/lock", b"")
    write(f"{lab.b}/mine", b"")
    open_folder(lab.b)
    return lab.a, lab.b


@pytest.mark.parametrize("step", DO_NOT_HELP, ids=lambda f: f.__name__)
def test_a_name_once_missed_stays_missing_after(folders, step):
    a, b = folders
    assert not found(f"{b}/x")
    write(f"{a}/x", b"1")
    step(b)
    assert not found(f"{b}/x")


@pytest.mark.parametrize("step", REFRESH, ids=lambda f: f.__name__)
def test_a_name_once_missed_is_found_after(folders, step):
    a, b = folders
    assert not found(f"{b}/x")
    write(f"{a}/x", b"1")
    step(b)
    assert found(f"{b}/x")


def test_o_creat_finds_a_name_once_missed(folders):
    a, b = folders
    assert not found(f"{b}/x")
    write(f"{a}/x", b"123")
    fd = os.open(f"{b}/x", os.O_CREAT | os.O_RDWR)
    assert os.read(fd, 10) == b"123"
    os.close(fd)


def test_o_excl_and_symlink_and_link_see_a_name_once_missed(folders):
    a, b = folders
    for n, make in enumerate([
        lambda path: write(path, b"", os.O_EXCL),
        lambda path: os.symlink("x", path),
        lambda path: os.link(f"{b}/mine", path),
    ]):  # fmt: skip
        assert not found(f"{b}/x{n}")
        write(f"{a}/x{n}", b"")
        with pytest.raises(FileExistsError):
            make(f"{b}/x{n}")


def test_o_creat_of_a_known_name_does_not_refresh_another(folders):
    a, b = folders
    assert not found(f"{b}/x")
    write(f"{a}/x", b"")
    os.close(os.open(f"{b}/mine", os.O_CREAT | os.O_WRONLY))
    assert not found(f"{b}/x")


@pytest.mark.slow
def test_a_name_once_missed_appears_within_a_minute(folders):
    a, b = folders
    assert not found(f"{b}/x")
    write(f"{a}/x", b"")
    assert within(65, lambda: found(f"{b}/x")) > 10


@pytest.fixture(params=["held_open", "linked"])
def replaced(request, folders):
    """The path on b of a file that b has read and a has replaced, while its old inode lives on."""
    a, b = folders
    replace(f"{a}/x", b"old")
    open_folder(b)
    assert read(f"{b}/x") == b"old"
    if request.param == "linked":
        os.link(f"{a}/x", f"{a}/x.prev")
    held = os.open(f"{b}/x", os.O_RDONLY) if request.param == "held_open" else None
    replace(f"{a}/x", b"new")
    yield f"{b}/x"
    if held is not None:
        os.close(held)


@pytest.mark.parametrize("step", DO_NOT_HELP, ids=lambda f: f.__name__)
def test_a_replaced_file_is_read_old_after(replaced, step):
    step(os.path.dirname(replaced))
    assert read(replaced) == b"old"


@pytest.mark.parametrize("step", REFRESH, ids=lambda f: f.__name__)
def test_a_replaced_file_is_read_new_after(replaced, step):
    step(os.path.dirname(replaced))
    assert read(replaced) == b"new"


def test_a_replaced_file_is_read_old_even_with_o_creat(replaced):
    fd = os.open(replaced, os.O_CREAT | os.O_RDWR)
    assert os.read(fd, 10) == b"old"
    os.close(fd)


@pytest.mark.slow
def test_a_replaced_file_is_read_new_within_two_minutes(replaced):
    assert within(125, lambda: read(replaced) == b"new") > 10


def test_opening_the_folder_first_is_always_fresh(lab):
    for i in range(30):
        replace(f"{lab.a}/x", b"%d" % i)
        open_folder(lab.b)
        assert read(f"{lab.b}/x") == b"%d" % i


def test_a_file_written_in_place_is_read_new_at_the_next_open(lab):
    write(f"{lab.a}/x", b"old")
    assert read(f"{lab.b}/x") == b"old"
    write(f"{lab.a}/x", b"new")
    assert read(f"{lab.b}/x") == b"new"


def test_a_removed_file_is_read_by_a_client_that_has_it_open(lab):
    """By this server: an open is state of its own. Do not depend on it elsewhere."""
    write(f"{lab.a}/x", b"1" * 10)
    fd = os.open(f"{lab.b}/x", os.O_RDONLY)
    os.unlink(f"{lab.a}/x")
    assert os.read(fd, 10) == b"1" * 10
    os.close(fd)


def test_o_append_by_two_clients_loses_lines(lab):
    def append(folder):
        for i in range(100):
            write(f"{folder}/log", b"%s %03d\n" % (folder[-8:].encode(), i), os.O_APPEND)

    workers = [lab.start(client, append, lab.path(client)) for client in "ab"]
    for worker in workers:
        worker.result()
    open_folder(lab.b)
    assert len(set(read(f"{lab.b}/log").splitlines())) < 200


# What an operation costs, in requests to the server.

READ_NEW = {"OPEN": 1, "READ": 1, "CLOSE": 1}
READ_CACHED = {"OPEN": 1, "CLOSE": 1}
PUT = {"OPEN": 1, "WRITE": 1, "CLOSE": 1, "RENAME": 1}
LOCK = {"LOCK": 1, "LOCKU": 1, "FREE_STATEID": 1}


def test_cost_of_a_read(lab):
    write(f"{lab.a}/x", bytes(1024))
    with lab.count("b") as first:
        read(f"{lab.b}/x")
    with lab.count("b") as again:
        read(f"{lab.b}/x")
    assert (first.ops, again.ops) == (READ_NEW, READ_CACHED)


def test_fstat_and_a_read_to_the_end_are_free_on_an_open_file(lab):
    write(f"{lab.a}/x", bytes(1024))
    with lab.count("b") as sent:
        fd = os.open(f"{lab.b}/x", os.O_RDONLY)
        size = os.fstat(fd).st_size
        assert len(os.read(fd, size + 1)) == size == 1024
        assert os.read(fd, 1) == b""
        os.close(fd)
    assert sent.ops == READ_NEW


def test_cost_of_two_folders_that_are_new_to_the_client(lab):
    os.makedirs(f"{lab.a}/d/e")
    write(f"{lab.a}/d/e/x", b"1")
    with lab.count("b") as sent:
        read(f"{lab.b}/d/e/x")
    assert sent.ops == READ_NEW | {"LOOKUP": 2, "ACCESS": 2}


def test_cost_of_opening_a_folder_to_refresh_it(lab):
    with lab.count("b") as sent:
        open_folder(lab.b)
    assert sent.ops == {"GETATTR": 1}


def test_opening_a_new_folder_costs_no_more_than_walking_to_it(lab):
    os.mkdir(f"{lab.a}/d")
    with lab.count("b") as sent:
        open_folder(f"{lab.b}/d")
    assert sent.ops == {"LOOKUP": 1, "ACCESS": 1}


def test_a_folder_found_changed_costs_one_access_more(lab):
    write(f"{lab.a}/x", b"1")
    with lab.count("b") as sent:
        open_folder(lab.b)
        read(f"{lab.b}/x")
    assert sent.ops == READ_NEW | {"GETATTR": 1, "ACCESS": 1}
    with lab.count("b") as sent:
        open_folder(lab.b)
        read(f"{lab.b}/x")
    assert sent.ops == READ_CACHED | {"GETATTR": 1}


def test_cost_of_a_missing_name(lab):
    with lab.count("b") as first:
        assert not found(f"{lab.b}/x")
    with lab.count("b") as again:
        assert not found(f"{lab.b}/x")
    with lab.count("b") as refreshed:
        open_folder(lab.b)
        assert not found(f"{lab.b}/x")
    with lab.count("b") as other:
        open_folder(lab.b)
        assert not found(f"{lab.b}/y")
    assert [c.ops for c in (first, again, refreshed)] == [{"OPEN": 1}, {}, {"GETATTR": 1}]
    assert other.ops == {"GETATTR": 1, "OPEN": 1}


def test_cost_of_a_stat(lab):
    write(f"{lab.a}/x", b"1")
    with lab.count("b") as first:
        os.stat(f"{lab.b}/x")
    with lab.count("b") as again:
        os.stat(f"{lab.b}/x")
    assert (first.ops, again.ops) == ({"LOOKUP": 1}, {})


@pytest.mark.parametrize("fsync", [False, True])
def test_cost_of_a_put(lab, fsync):
    with lab.count("b") as sent:
        fd = os.open(f"{lab.b}/x.new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.write(fd, bytes(1024))
        if fsync:
            os.fsync(fd)
        os.close(fd)
        os.rename(f"{lab.b}/x.new", f"{lab.b}/x")
    assert sent.ops == PUT


def test_cost_of_an_exclusive_put(lab):
    with lab.count("b") as sent:
        write(f"{lab.b}/x.new", bytes(1024), os.O_EXCL)
        os.rename(f"{lab.b}/x.new", f"{lab.b}/x")
    assert sent.ops == PUT | {"SETATTR": 1}


def test_cost_of_a_file_under_its_final_name(lab):
    with lab.count("b") as sent:
        write(f"{lab.b}/x", bytes(1024))
    assert sent.ops == {"OPEN": 1, "WRITE": 1, "CLOSE": 1}
    with lab.count("b") as sent:
        write(f"{lab.b}/y", bytes(1024), os.O_EXCL)
    assert sent.ops == {"OPEN": 1, "WRITE": 1, "CLOSE": 1, "SETATTR": 1}


def test_cost_of_a_symlink(lab):
    with lab.count("b") as sent:
        os.symlink("x" * 4000, f"{lab.b}/l")
    assert sent.ops == {"SYMLINK": 1}
    with pytest.raises(FileExistsError):
        os.symlink("y", f"{lab.a}/l")
    assert os.readlink(f"{lab.a}/l") == "x" * 4000


def test_cost_of_utime_unlink_and_mkdir(lab):
    write(f"{lab.b}/x", b"")
    with lab.count("b") as sent:
        os.utime(f"{lab.b}/x")
    assert sent.ops == {"SETATTR": 1}
    with lab.count("b") as sent:
        os.unlink(f"{lab.b}/x")
    assert sent.ops == {"REMOVE": 1}
    with lab.count("b") as sent:
        os.mkdir(f"{lab.b}/d")
    assert sent.ops == {"CREATE": 1}


def test_unlink_of_a_file_that_is_open_here_costs_more(lab):
    fd = lock_file(f"{lab.b}/x")
    with lab.count("b") as sent:
        os.unlink(f"{lab.b}/x")
        os.close(fd)
    assert sent.ops == {"LOOKUP": 1, "RENAME": 1, "CLOSE": 1, "REMOVE": 1}


def test_cost_of_listing_an_unchanged_folder(lab):
    for i in range(100):
        os.mkdir(f"{lab.a}/{i}")

    def scan():
        return len([entry.stat() for entry in os.scandir(lab.b)])

    assert scan() == 100
    with lab.count("b") as sent:
        assert scan() == 100
    assert sent.ops == {"GETATTR": 1}


@pytest.mark.parametrize("unlock", [False, True])
@pytest.mark.parametrize("exists", [False, True])
def test_cost_of_a_lock_file(lab, exists, unlock):
    if exists:
        os.close(lock_file(f"{lab.b}/lock"))
    with lab.count("b") as sent:
        fd = lock_file(f"{lab.b}/lock")
        assert try_lock(fd)
        if unlock:
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
    assert sent.ops == {"OPEN": 1, "CLOSE": 1} | LOCK


def test_cost_of_filelocks_own_descriptor_lock(lab):
    with lab.count("b") as sent:
        fd = lock_file(f"{lab.b}/lock")
        assert filelock.lock_descriptor(fd, blocking=False)
        filelock.unlock_descriptor(fd)
        os.close(fd)
    assert sent.ops == {"OPEN": 1, "CLOSE": 1} | LOCK


def test_cost_of_a_lock_on_an_open_descriptor(lab):
    fd, other = lock_file(f"{lab.b}/lock"), lock_file(f"{lab.a}/lock")
    with lab.count("b") as sent:
        assert try_lock(fd)
        fcntl.flock(fd, fcntl.LOCK_UN)
    assert sent.ops == LOCK
    assert try_lock(other)
    with lab.count("b") as sent:
        assert not try_lock(fd)
    assert sent.ops == {"LOCK": 1}
    os.close(fd)
    os.close(other)


# Locks.


def test_flock_excludes_across_clients_and_between_descriptors(lab):
    one, two, three = (
        lock_file(f"{lab.a}/lock"),
        lock_file(f"{lab.b}/lock"),
        lock_file(f"{lab.a}/lock"),
    )
    assert try_lock(one)
    assert not try_lock(two)
    assert not try_lock(three)
    os.close(one)
    assert try_lock(two)
    os.close(two)
    os.close(three)


def test_a_byte_lock_far_out_excludes_across_clients(lab):
    """And between descriptors of one client."""
    byte = (1 << 63) - 2
    one, two, three = (
        lock_file(f"{lab.a}/lock"),
        lock_file(f"{lab.b}/lock"),
        lock_file(f"{lab.a}/lock"),
    )
    assert try_ofd(one, byte)
    assert not try_ofd(two, byte)
    assert not try_ofd(three, byte)
    assert try_ofd(two, byte - 1)
    assert try_ofd(three, byte - 2)
    ofd(one, fcntl.F_UNLCK, byte)
    assert try_ofd(two, byte)
    for fd in (one, two, three):
        os.close(fd)


def test_cost_of_byte_locks_on_an_open_descriptor(lab):
    fd = lock_file(f"{lab.b}/lock")
    with lab.count("b") as alone:
        assert try_ofd(fd, 1 << 62)
        ofd(fd, fcntl.F_UNLCK, 1 << 62)
    assert try_ofd(fd, 0)
    with lab.count("b") as beside_another:
        assert try_ofd(fd, 1 << 62)
        ofd(fd, fcntl.F_UNLCK, 1 << 62)
    assert (alone.ops, beside_another.ops) == (LOCK, {"LOCK": 1, "LOCKU": 1})
    os.close(fd)


@pytest.mark.parametrize("take", [try_lock, lambda fd: try_ofd(fd, 1 << 62)], ids=["flock", "byte"])
def test_a_lock_is_free_at_once_when_its_holder_is_killed(lab, take):
    def hold():
        print(take(lock_file(f"{lab.a}/lock")))
        time.sleep(60)

    holder = lab.start("a", hold)
    assert holder.readline() == "True\n"
    mine = lock_file(f"{lab.b}/lock")
    assert not take(mine)
    holder.kill()
    within(8, lambda: take(mine))  # the lease is 10 s
    os.close(mine)


def test_a_lock_stays_with_a_frozen_process(lab):
    def hold():
        print(try_lock(lock_file(f"{lab.a}/lock")))
        time.sleep(60)

    holder = lab.start("a", hold)
    holder.readline()
    holder.freeze()
    mine = lock_file(f"{lab.b}/lock")
    assert not try_lock(mine)
    os.close(mine)


def test_flock_ex_needs_a_writable_descriptor(lab):
    write(f"{lab.a}/lock", b"")
    fd = os.open(f"{lab.a}/lock", os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_a_lock_does_not_fence_a_client_that_was_cut_off(lab):
    def holder():
        fd = lock_file(f"{lab.a}/lock")
        os.write(fd, b"1")
        os.fsync(fd)
        print(try_lock(fd), flush=True)
        time.sleep(0.2)
        os.kill(os.getpid(), 19)  # SIGSTOP, until the other client has the lock
        write(f"{lab.a}/other", b"late")  # the rest of what it does succeeds
        os.rename(f"{lab.a}/other", f"{lab.a}/renamed")
        try:
            os.write(fd, b"2")
            os.fsync(fd)
        except OSError as error:
            return errno.errorcode[error.errno]
        return "written"

    old = lab.start("a", holder)
    assert old.readline() == "True\n"
    mine = lock_file(f"{lab.b}/lock")
    assert not try_lock(mine)
    time.sleep(0.5)
    lab.cut("a")
    waited = within(40, lambda: try_lock(mine))
    assert waited > 5  # only after the server's lease
    lab.heal("a")
    old.thaw()
    assert old.result(60) == "EIO"
    open_folder(lab.b)
    assert read(f"{lab.b}/renamed") == b"late"
    os.close(mine)


# What a mount refuses, and how it hangs.


def test_renameat2_without_replacing_is_refused(lab):
    write(f"{lab.a}/x", b"")
    libc = ctypes.CDLL(None, use_errno=True)
    noreplace = 1
    assert libc.renameat2(-100, f"{lab.a}/x".encode(), -100, f"{lab.a}/y".encode(), noreplace) == -1
    assert ctypes.get_errno() == errno.EINVAL


def test_o_tmpfile_is_refused(lab):
    with pytest.raises(OSError, match="not supported") as error:
        os.open(lab.a, os.O_TMPFILE | os.O_WRONLY)
    assert error.value.errno == errno.EOPNOTSUPP


def test_a_process_whose_thread_hangs_on_the_mount_ends_at_once(lab):
    def stuck():
        def look():
            open_folder(lab.a)
            os._exit(3)  # it did not hang

        threading.Thread(target=look, daemon=True).start()
        time.sleep(1)

    lab.cut("a")
    start = time.monotonic()
    lab.start("a", stuck).result(60)
    assert time.monotonic() - start < 50  # the link stays cut: a hung end would take for ever


def test_a_hanging_call_returns_after_the_link_is_back(lab):
    lab.cut("a")
    hung = lab.start("a", open_folder, lab.a)
    with pytest.raises(TimeoutError):
        hung.wait(2)
    lab.heal("a")
    hung.result(60)


def test_a_hanging_call_ends_by_kill_9(lab):
    lab.cut("a")
    hung = lab.start("a", open_folder, lab.a)
    with pytest.raises(TimeoutError):
        hung.wait(1)
    hung.kill()


def test_a_stat_from_the_cache_does_not_hang(lab):
    os.stat(f"{lab.a}/.")
    lab.cut("a")
    lab.run("a", os.stat, f"{lab.a}/.", timeout=5)


def test_replacing_an_open_file_hides_its_name_for_a_moment(
    lab,
):
    """The client renames the old file away first (.nfs…).

    So a rename is not atomic for other hosts.
    """
    write(f"{lab.a}/f", b"old")
    held = os.open(f"{lab.a}/f", os.O_RDONLY)
    write(f"{lab.a}/t", b"new")
    with lab.count("a") as sent:
        os.rename(f"{lab.a}/t", f"{lab.a}/f")
    os.close(held)
    assert sent.ops.get("RENAME") == 2
    write(f"{lab.a}/t", b"newer")
    with lab.count("a") as sent:
        os.rename(f"{lab.a}/t", f"{lab.a}/f")
    assert sent.ops.get("RENAME") == 1
