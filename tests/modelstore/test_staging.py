"""Local copies.

One for all processes, whole or absent whoever is killed, verified, bounded, and safe from removal
on the mount.
"""

import errno
import fcntl
import gc
import multiprocessing
import os
import pathlib
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.modelstore.conftest import dying, fork_beside_threads, place, tree
from tests.mount.alarms import at_each_moment

import efsstate
from efsstate import CorruptEntryError, EfsStateError, RootError, deadline, model, publish
from efsstate.errors import DeadlineExceeded
from efsstate.modelstore import reader, staging
from efsstate.modelstore.copied_files import CopiedFiles


@pytest.fixture
def local(tmp_path, monkeypatch):
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp))
    return tmp / f"efsstate-models-{os.geteuid()}"


class Left:
    """A Lambda context with so many milliseconds."""

    def __init__(self, milliseconds):
        self.get_remaining_time_in_millis = lambda: milliseconds


def copies(local):
    return sorted(n for n in os.listdir(local) if n not in ("uses", "LOCK"))


def used(local):
    """The copies that somebody uses."""
    found = []
    for name in os.listdir(local / "uses"):
        fd = os.open(local / "uses" / name, os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(name)
        os.close(fd)
    return found


def flip(path):
    with open(path, "r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def test_a_copy_is_the_version_as_published(root, source, local, small_ranges):
    made = publish("m", source, root=root)
    path = model("m", lambda files: files.stage(), root=root)()
    assert path.startswith(str(local)) and tree(path) == tree(source)
    shutil.rmtree(place(root, "m", made))  # safe from whatever happens on the mount
    assert tree(path) == tree(source)


def test_a_single_file_keeps_its_name(root, source, local):
    publish("m", source / "config.json", root=root)
    path = model("m", stage=True, root=root)()
    assert (
        path.startswith(str(local))
        and path.endswith("/config.json")
        and pathlib.Path(path).read_text() == "{}"
    )


def test_staged_models_read_and_map_the_copy(root, source, local):
    publish("m", source, root=root)

    def load(files):
        assert files.path == files.stage() and files.path.startswith(str(local))
        return bytes(files.read("a/b/weights")), bytes(files.mmap("a/b/weights"))

    data = (source / "a/b/weights").read_bytes()
    assert model("m", load, stage=True, root=root)() == (data, data)


def stager(root, start, results, hold):
    reads = []
    real = os.preadv
    os.preadv = lambda *given: reads.append(given[2]) or real(*given)
    start.wait()
    get = model("m", stage=True, root=root)
    path = get()
    results.put((path, len(reads)))
    hold.wait()


def test_processes_share_one_copy_made_by_one_of_them(root, tmp_path, local, small_ranges):
    (tmp_path / "w").write_bytes(os.urandom(20 * 16384))
    publish("m", tmp_path / "w", root=root)
    fork = multiprocessing.get_context("fork")
    start, hold, results = fork.Event(), fork.Event(), fork.Queue()
    workers = [
        fork.Process(target=stager, args=(root, start, results, hold), daemon=True)
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    start.set()
    seen = [results.get(timeout=60) for _ in workers]
    assert len({path for path, _ in seen}) == 1 and sorted(reads for _, reads in seen) == [
        0,
        0,
        0,
        20,
    ]
    assert copies(local) == used(local) and len(copies(local)) == 1
    hold.set()
    for worker in workers:
        worker.join()


def test_killed_at_each_step_no_half_copy_is_ever_used(
    root, source, tmp_path, local, monkeypatch, small_ranges
):
    publish("m", source, root=root)
    monkeypatch.setattr(reader, "THREADS", 1)

    def stage():
        path = model("m", stage=True, root=root)()
        assert tree(path) == tree(source)
        assert all("weights" not in name for name in os.listdir(local))

    done, at = False, 0
    while not done:
        at += 1
        tmp = tmp_path / f"tmp{at}"
        tmp.mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp))
        local = tmp / f"efsstate-models-{os.geteuid()}"
        code, _, said = dying(stage, at)
        done = code == 0
        assert code in (0, -9), said
        code, _, said = dying(stage, 0)
        assert (code, said) == (0, "")
        assert len(copies(local)) == 1
    assert at > 20


def test_a_copy_that_is_damaged_is_made_again(root, source, local):
    publish("m", source, root=root)
    path = model("m", stage=True, root=root)()
    os.truncate(f"{path}/a/b/weights", 5)
    gc.collect()
    assert tree(model("m", stage=True, root=root)()) == tree(source)


def test_what_is_copied_is_compared_with_its_digest(root, source, local):
    made = publish("m", source, root=root)
    weights = pathlib.Path(place(root, "m", made), "a/b/weights")
    weights.write_bytes(bytes(100_000))
    with pytest.raises(CorruptEntryError, match="SHA-256"):
        model("m", stage=True, root=root)()
    assert copies(local) == []


@pytest.mark.parametrize("use", ["path", "stage()", "read('a/b/weights')", "mmap('a/b/weights')"])
@pytest.mark.parametrize("how", ["digest", "a key"])
def test_a_flipped_bit_in_a_copy_has_it_made_again(root, source, local, monkeypatch, use, how):
    """Of the right size: what made it is gone, and nothing but a digest tells."""
    if how == "a key":
        monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "k" * 40)
    publish("m", source, root=root)
    verify = "digest" if how == "digest" else "size"
    path = model("m", stage=True, verify=verify, root=root)()
    gc.collect()
    flip(f"{path}/a/b/weights")
    seen = []

    def load(files):
        seen.append(eval(f"files.{use}"))
        return tree(files.path)

    assert model("m", load, stage=True, verify=verify, root=root)() == tree(source)
    assert (
        use.startswith(("path", "stage")) or bytes(seen[0]) == (source / "a/b/weights").read_bytes()
    )
    assert copies(local) == used(local) or not used(local)


def test_threads_of_a_load_replace_a_damaged_copy_once(root, tmp_path, local, monkeypatch):
    """A damaged copy is made anew once by the threads of a load."""
    copied, real, whole, all_three = [], staging._copy, reader.whole, threading.Barrier(3)
    monkeypatch.setattr(staging, "_copy", lambda *given: copied.append(1) or real(*given))

    def noticed(*given, **more):
        try:
            return whole(*given, **more)
        except CorruptEntryError:
            all_three.wait(30)  # before any of them makes it anew
            raise

    monkeypatch.setattr(reader, "whole", noticed)
    source = tmp_path / "several"
    source.mkdir()
    for number in range(8):
        (source / f"f{number}").write_bytes(os.urandom(300_000))
    publish("m", source, root=root)

    def load(files):
        with ThreadPoolExecutor(8) as pool:
            return [bytes(data) for data in pool.map(files.read, files.names)]

    for _ in range(5):
        path = model("m", stage=True, root=root)()
        gc.collect()
        for number in (0, 3, 5):
            flip(f"{path}/f{number}")
        copied.clear()
        assert model("m", load, stage=True, verify="digest", root=root)() == [
            (source / f"f{n}").read_bytes() for n in range(8)
        ]
        assert copied == [1]
        gc.collect()


def test_a_copy_that_lost_a_file_in_use_is_made_again(root, source, local):
    """A copy that lost a file or an empty folder while it is used is made anew."""
    publish("m", source, root=root)

    def load(files):
        os.remove(f"{files.path}/a/b/weights")
        return bytes(files.read("a/b/weights"))

    assert model("m", load, stage=True, root=root)() == (source / "a/b/weights").read_bytes()
    gc.collect()
    path = model("m", stage=True, root=root)()
    gc.collect()
    os.rmdir(f"{path}/empty")
    assert tree(model("m", stage=True, root=root)()) == tree(source)


def test_a_copy_in_use_stays_until_the_new_one_is_there(root, source, local, monkeypatch):
    """Somebody cut a file of it, which the other may not need."""
    publish("m", source, root=root)
    keep = model("m", stage=True, root=root)
    path = keep()
    os.truncate(f"{path}/CURRENT", 1)
    monkeypatch.setattr(
        staging.reader,
        "copy",
        lambda *given, **more: (_ for _ in ()).throw(OSError(5, "Input/output error")),
    )
    with pytest.raises(OSError, match="Input/output error"):
        model("m", stage=True, root=root)()
    assert os.path.getsize(f"{path}/a/b/weights") == 100_000
    monkeypatch.undo()
    monkeypatch.setenv("TMPDIR", str(local.parent))
    assert tree(model("m", stage=True, root=root)()) == tree(source) and keep() == path


def test_a_copy_that_can_not_be_made_anew_gives_no_path(root, source, local, monkeypatch):
    publish("m", source, root=root)
    room, real = [True], staging._free
    monkeypatch.setattr(staging, "_free", lambda local: real(local) if room else 0)

    def load(files):
        flip(f"{files.path}/a/b/weights")
        room.clear()
        for use in (lambda: files.read("a/b/weights"), lambda: files.path, files.stage):
            with pytest.raises(EfsStateError, match="no room"):
                use()
        room.append(True)
        return tree(files.path)

    assert model("m", load, stage=True, verify="digest", root=root)() == tree(source)


def test_a_fork_while_a_copy_is_made_harms_no_child(root, source, local, monkeypatch):
    publish("m", source, root=root)
    kept = model("m", lambda files: files, root=root)()
    going, go = threading.Event(), threading.Event()
    real, parent = staging._copy, os.getpid()

    def slow(*given):
        if os.getpid() == parent:
            going.set()
            go.wait(30)
        return real(*given)

    monkeypatch.setattr(staging, "_copy", slow)
    thread = threading.Thread(target=kept.stage)
    thread.start()
    going.wait(30)
    pid = fork_beside_threads()
    if not pid:
        try:
            with efsstate.invocation(Left(2000)):
                kept.stage()
        except DeadlineExceeded as error:  # the lock of the file is the parent's
            os._exit(7 if "another process" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    go.set()
    thread.join()
    assert tree(kept.path) == tree(source)


def test_models_of_many_folders_keep_few_descriptors(root, tmp_path, local):
    """Lambda gives a process 1,024."""
    for name in ("many", "by-hand"):
        for number in range(150):
            (tmp_path / name / f"d{number}").mkdir(parents=True)
            (tmp_path / name / f"d{number}" / "f").write_text("x")
    publish("m", tmp_path / "many", root=root)
    model("m", stage=True, root=root)()
    before = len(os.listdir("/proc/self/fd"))
    keep = [
        model("m", stage=True, root=root),
        model(str(tmp_path / "by-hand"), lambda files: files.path, root=root),
    ]
    for get in keep:
        get()
    assert len(os.listdir("/proc/self/fd")) - before < 30


def test_a_damaged_copy_that_another_uses_is_an_error(root, source, local):
    """A damaged copy that another uses is an error that says so and is made anew when it goes."""
    publish("m", source, root=root)
    keep = model("m", stage=True, root=root)
    flip(f"{keep()}/a/b/weights")
    get = model("m", stage=True, verify="digest", root=root)
    with pytest.raises(
        CorruptEntryError, match=r"SHA-256.*not replaced while another model or process uses it"
    ):
        get()
    del keep
    gc.collect()
    get = model("m", stage=True, verify="digest", root=root)
    assert tree(get()) == tree(source)


def test_damage_on_the_mount_does_not_copy_for_ever(root, source, local, monkeypatch):
    """What is damaged on the mount is no reason to copy for ever."""
    made = publish("m", source, root=root)
    copied, real = [], staging._copy
    monkeypatch.setattr(staging, "_copy", lambda *given: copied.append(1) or real(*given))
    flip(pathlib.Path(place(root, "m", made), "a/b/weights"))
    with pytest.raises(CorruptEntryError, match="SHA-256"):
        model("m", stage=True, verify="digest", root=root)()
    assert copied == [1]


def test_a_stray_file_among_the_copies_is_no_trouble(root, source, local):
    publish("m", source, root=root)
    model("m", stage=True, root=root)()
    gc.collect()
    shutil.rmtree(local / copies(local)[0])
    for name in (".tmp-x", "stray"):
        (local / name).write_text("x")
    assert tree(model("m", stage=True, root=root)()) == tree(source)
    assert not (local / ".tmp-x").exists() and (local / "stray").exists()


def test_a_copy_is_used_while_another_is_being_made(root, source, local):
    """Whoever has the right to copy may need minutes for gigabytes."""
    from efsstate.mount import lock
    from efsstate.mount import root as roots

    publish("m", source, root=root)
    model("m", stage=True, root=root)()
    held = lock.attempt(roots.scratch("efsstate-models"), "", "LOCK")
    with efsstate.invocation(Left(1000)):
        assert tree(model("m", stage=True, root=root)()) == tree(source)
    held.release()


@pytest.fixture
def three(root, tmp_path, local, monkeypatch):
    """Three models of a MiB each, and room for two."""
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(os.urandom(1 << 20))
        publish(name, tmp_path / name, root=root)

    def room(mount):
        used = sum(
            os.path.getsize(f"{above}/{f}") for above, _, files in os.walk(local) for f in files
        )
        return int(2.5 * (1 << 20)) - used

    monkeypatch.setattr(staging, "_free", room)


def staged(name, root):
    get = model(name, stage=True, root=root)
    path = get()
    return get, path


def test_the_one_used_least_recently_goes_when_room_is_needed(root, three, local):
    paths = {}
    for name in ("a", "b"):
        get, paths[name] = staged(name, root)
        del get
        time.sleep(0.02)
    get, _ = staged("a", root)
    del get
    gc.collect()
    time.sleep(0.02)
    _get, paths["c"] = staged("c", root)
    assert [os.path.exists(paths[n]) for n in "abc"] == [True, False, True]


def test_a_copy_in_use_stays_and_the_lack_of_room_is_told(root, three, local):
    _a, path_a = staged("a", root)
    b, path_b = staged("b", root)
    with pytest.raises(
        EfsStateError, match=r"no room for a copy of 1\.0 MiB: 0\.5 MiB are free.*ephemeral storage"
    ):
        staged("c", root)
    assert os.path.exists(path_a) and os.path.exists(path_b)
    del b
    gc.collect()
    staged("c", root)
    assert os.path.exists(path_a) and not os.path.exists(path_b)


def test_nothing_goes_where_that_would_not_make_room_enough(root, three, local, tmp_path):
    a, path_a = staged("a", root)
    path_b = staged("b", root)[1]
    gc.collect()
    (tmp_path / "d").write_bytes(os.urandom(2 << 20))
    publish("d", tmp_path / "d", root=root)
    with pytest.raises(
        EfsStateError,
        match=r"no room for a copy of 2\.0 MiB: 0\.5 MiB are free, and 1\.0 MiB of copies that"
        r" nobody uses may go",
    ):
        staged("d", root)
    assert os.path.exists(path_a) and os.path.exists(path_b) and a


def test_room_is_made_for_the_blocks_that_small_files_take(
    root, three, local, tmp_path, monkeypatch
):
    """300 files of 10 bytes are 1.2 MB of the disk, not 3,000 bytes."""
    (tmp_path / "small").mkdir()
    for number in range(300):
        (tmp_path / "small" / f"f{number}").write_text("0123456789")
    publish("small", tmp_path / "small", root=root)
    wanted, real = [], staging._make_room
    monkeypatch.setattr(
        staging,
        "_make_room",
        lambda local, size, making: wanted.append(size) or real(local, size, making),
    )
    staged("small", root)
    assert wanted == [300 * os.statvfs(local).f_frsize]


def test_a_copy_that_a_forked_child_uses_stays(root, three, local):
    """The parent has let go of it; the child inherited it."""
    a, path_a = staged("a", root)
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(theirs)
        os.read(ours, 1)
        os._exit(0)
    os.close(ours)
    del a
    gc.collect()
    for name in ("b", "c"):
        staged(name, root)
        gc.collect()
    assert os.path.exists(path_a)
    os.close(theirs)
    os.waitpid(child, 0)
    staged("b", root)
    assert not os.path.exists(path_a)


def test_a_childs_end_does_not_let_the_parents_copy_go(root, three, local):
    a, path_a = staged("a", root)
    child = os.fork()
    if not child:
        del a
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    for name in ("b", "c"):
        staged(name, root)
        gc.collect()
    assert os.path.exists(path_a)


def test_so_much_stays_free_of_the_disk(local, monkeypatch):
    """Whatever else the function writes to /tmp."""
    from efsstate.mount import root as roots

    mount = roots.scratch("efsstate-models")
    found = os.statvfs(mount.path)
    monkeypatch.setattr(os, "statvfs", lambda *_: found)
    assert staging._free(mount) == found.f_bavail * found.f_frsize - (32 << 20)


def test_what_a_killed_process_used_is_in_use_no_more(root, three, local):
    def use():
        keep = staged("a", root), staged("b", root)
        os.kill(os.getpid(), 9)
        return keep

    assert dying(use, 0)[0] == -9
    assert len(os.listdir(local / "uses")) == 2 and used(local) == []
    kept = staged("c", root)
    assert (
        len(copies(local)) == 2
        and sorted(os.listdir(local / "uses")) == copies(local)
        and len(used(local)) == 1
        and kept
    )


def test_a_full_disk_leaves_no_half(root, source, local, monkeypatch):
    from efsstate.mount.drafts import PartialFile

    publish("m", source, root=root)

    def full(self, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device", self.path)

    monkeypatch.setattr(PartialFile, "put", full)
    with pytest.raises(
        EfsStateError,
        match=r"no room for a copy of 0\.\d MiB: No space left on device while it was written,"
        r" though .* were free",
    ):
        model("m", stage=True, root=root)()
    assert copies(local) == []


def test_a_reload_stages_the_new_and_frees_the_old_copy(root, tmp_path, local):
    """A reload stages the new version and lets the old copy go."""
    (tmp_path / "w").write_text("1")
    publish("m", tmp_path / "w", root=root)
    get = model(
        "m", lambda files: (files.path, bytes(files.read())), stage=True, check_every=0, root=root
    )
    first = get()
    (tmp_path / "w").write_text("2")
    publish("m", tmp_path / "w", root=root)
    second = get()
    gc.collect()
    assert (first[1], second[1]) == (b"1", b"2") and first[0] != second[0]
    assert used(local) == [os.path.relpath(second[0], local).split("/")[0]]


def test_a_folder_of_somebody_elses_is_refused(root, source, local, tmp_path):
    publish("m", source, root=root)
    os.symlink(tmp_path, local)
    with pytest.raises(RootError, match="only uid 0 may write"):
        model("m", stage=True, root=root)()
    local.unlink()
    local.mkdir()
    local.chmod(0o777)
    with pytest.raises(RootError, match="only uid 0 may write"):
        model("m", stage=True, root=root)()
    local.chmod(0o700)
    os.chown(local, 12345, -1)
    with pytest.raises(RootError, match="only uid 0 may write"):
        model("m", stage=True, root=root)()


def test_the_wait_for_anothers_copy_ends_before_the_deadline(root, source, local, early):
    from efsstate.mount import lock
    from efsstate.mount import root as roots

    publish("m", source, root=root)
    held = lock.attempt(roots.scratch("efsstate-models"), "", "LOCK")

    with efsstate.invocation(Left(1800)):
        with pytest.raises(DeadlineExceeded, match="still copying"):
            model("m", stage=True, root=root)()
        assert deadline.remaining() > 0  # so that the error still reaches somebody
    held.release()
    assert model("m", stage=True, root=root)()


def test_an_alarm_leaves_no_copy_locked(root, source, local):
    """Else the load's other threads wait until the deadline, or for ever."""
    publish("m", source, root=root)
    files = model("m", load=lambda files: files, root=root)()
    copied = next(made for made in gc.get_objects() if type(made) is CopiedFiles)

    def is_free():
        is_acquired = copied._copying.acquire(False)
        if is_acquired:
            copied._copying.release()
        return is_acquired

    moments = 0
    for moment in at_each_moment(files.stage, "copied_files.py"):
        moments += 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(is_free).result(), moment
    assert moments > 3
