"""Big files in ranges: every length comes whole, in one buffer.

Damage, deadlines and missing memory are told of.
"""

import gc
import hashlib
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest
from tests.modelstore.conftest import place

import efsstate
from efsstate import CorruptEntryError, EfsStateError, deadline, model, publish
from efsstate.errors import DeadlineExceeded
from efsstate.modelstore import open_file, reader
from efsstate.modelstore.open_file import OpenFile
from efsstate.mount import free_memory
from efsstate.mount.files import Mount

RANGE = 16384


def opened(tmp_path, data, name="f"):
    (tmp_path / name).write_bytes(data)
    return OpenFile(Mount(str(tmp_path)), "", name)


@pytest.mark.parametrize(
    "size", [0, 1, 4095, 4096, 4097, RANGE - 1, RANGE, RANGE + 1, 3 * RANGE, 7 * RANGE + 5]
)
def test_every_length_comes_whole(tmp_path, small_ranges, size):
    data = os.urandom(size)
    digest = hashlib.sha256(data).hexdigest()
    for read in (reader.whole, reader.mapped):
        view = read(opened(tmp_path, data), digest=digest)
        assert bytes(view) == data and view.nbytes == size and view.format == "B"
    if size:
        assert not reader.whole(opened(tmp_path, data)).readonly
        assert reader.mapped(opened(tmp_path, data)).readonly


def test_several_threads_read_one_file_and_each_range_once(tmp_path, small_ranges, monkeypatch):
    data, seen, threads, both = os.urandom(40 * RANGE), [], set(), threading.Barrier(2)
    real = os.preadv

    def preadv(fd, buffers, offset):
        threads.add(threading.get_ident())
        if not seen:
            seen.append(offset)
            both.wait(10)  # two threads are in the file at once, or this breaks
        elif len(seen) == 1:
            seen.append(offset)
            both.wait(10)
        else:
            seen.append(offset)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert bytes(reader.whole(opened(tmp_path, data))) == data
    assert sorted(seen) == list(range(0, len(data), RANGE)) and len(threads) > 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("rate", [1 << 20, 64 << 20, 300 << 20, 2 << 30])
def test_a_reader_alone_takes_ranges_of_a_quarter_of_a_second(monkeypatch, rate):
    """By the rate of the one before, within bounds; a rate that changes is followed."""
    now, size = [100.0], (2 << 30) + 12345
    monkeypatch.setattr(reader.time, "monotonic", lambda: now[0])
    at, lengths = 0, []
    for offset, length in reader._deep(size):
        assert offset == at
        at += length
        lengths.append(length)
        now[0] += length / (rate if at < size / 2 else rate / 4)
    assert (
        at == size
        and lengths[0] == 16 << 20
        and all(length % (1 << 20) == 0 for length in lengths[:-1])
    )
    wanted = [max(8 << 20, min(128 << 20, full // 4)) for full in (rate, rate // 4)]
    assert abs(lengths[1] - wanted[0]) <= 1 << 20 and abs(lengths[-2] - wanted[1]) <= 1 << 20


def test_a_range_takes_an_eighth_of_the_time_before_a_deadline(monkeypatch):
    """Short ranges cost a herd a tenth of its time; a deadline cuts off at most an eighth."""
    now, size, mib = [100.0], 100 << 20, 1 << 20
    monkeypatch.setattr(reader.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(reader.deadline, "remaining", lambda: 100 + 16.0 + deadline.MARGIN - now[0])
    lengths = []
    for _, length in reader._deep(size, is_cautious=True):
        lengths.append(length)
        now[0] += length / (10 * mib)
    assert sum(lengths) == size and lengths[0] == mib
    assert lengths[1] in (19 * mib, 20 * mib)  # 16 s are left, and it takes 2
    assert lengths == [mib, *sorted(lengths[1:], reverse=True)]


def test_with_o_direct_each_range_is_read_once_in_turn(tmp_path, monkeypatch):
    """Here the link is so fast that each is as long as may be."""
    mib = 1 << 20
    data, seen, real = os.urandom(40 * mib + 99), [], os.preadv
    monkeypatch.setattr(open_file, "is_on_network", lambda mount: True)
    for name, value in {"RANGE": mib, "_DEEPEST": 4 * mib, "_TURN": 1e9}.items():
        monkeypatch.setattr(reader, name, value)
    file = opened(tmp_path, data)
    within, cached = threading.Semaphore(1), os.open(tmp_path / "f", os.O_RDONLY)

    def preadv(fd, buffers, offset):
        assert within.acquire(blocking=False), "two at once"
        try:
            seen.append((offset, len(buffers[0])))
            return real(cached, buffers, offset)
        finally:
            within.release()

    monkeypatch.setattr(os, "preadv", preadv)
    assert bytes(reader.whole(file)) == data
    os.close(cached)
    assert [length for _, length in seen] == [2 * mib, *[4 * mib] * 9, 2 * mib + 99]
    assert [offset for offset, _ in seen] == [0, *range(2 * mib, 40 * mib, 4 * mib)]


def test_short_reads_go_on(tmp_path, small_ranges, monkeypatch):
    data, real = os.urandom(5 * RANGE + 77), os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, buffers, offset: real(fd, [buffers[0][:1000]], offset)
    )
    assert bytes(reader.whole(opened(tmp_path, data))) == data


@pytest.mark.parametrize("digested", [False, True])
def test_o_direct_falls_back_where_it_is_refused(tmp_path, small_ranges, monkeypatch, digested):
    """EINVAL from a file system with another alignment: read through the page cache instead."""
    data, real, refused = os.urandom(9 * RANGE + 5), os.preadv, []
    monkeypatch.setattr(open_file, "is_on_network", lambda mount: True)
    file = opened(tmp_path, data)
    direct = file.fileno()

    def preadv(fd, buffers, offset):
        if fd == direct:
            refused.append(offset)
            raise OSError(22, "Invalid argument")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert (
        bytes(reader.whole(file, digest=hashlib.sha256(data).hexdigest() if digested else None))
        == data
        and refused
    )
    before = len(os.listdir("/proc/self/fd"))
    del file
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) < before


def test_a_wrong_digest_is_damage(tmp_path, small_ranges):
    data = bytearray(os.urandom(5 * RANGE))
    digest = hashlib.sha256(data).hexdigest()
    data[3 * RANGE] ^= 1
    for read in (reader.whole, reader.mapped):
        with pytest.raises(CorruptEntryError, match="SHA-256"):
            read(opened(tmp_path, data), digest=digest)


def test_cut_while_it_is_read(tmp_path, small_ranges):
    """A file that another host truncates.

    An error with the place, never a buffer with zeros at its end.
    """
    file = opened(tmp_path, os.urandom(20 * RANGE))
    os.truncate(tmp_path / "f", 10 * RANGE + 1)
    with pytest.raises(CorruptEntryError, match=r"f: damaged: it ended at \d+ of 327680 bytes"):
        reader.whole(file)


def test_an_error_of_one_thread_ends_it_and_names_the_file(tmp_path, small_ranges, monkeypatch):
    real, count = os.preadv, []

    def preadv(fd, buffers, offset):
        count.append(1)
        if offset == 8 * RANGE:
            raise OSError(5, "Input/output error")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    before = threading.active_count()
    with pytest.raises(OSError, match="Input/output error") as caught:
        reader.whole(opened(tmp_path, os.urandom(400 * RANGE)))
    assert caught.value.filename == str(tmp_path / "f") and len(count) < 40
    assert threading.active_count() == before


def test_an_error_keeps_no_buffer(tmp_path, small_ranges, monkeypatch):
    """The caller may handle it and go on.

    The buffer is as big as the model, and no garbage collection may come.
    """
    monkeypatch.setattr(
        os,
        "preadv",
        lambda fd, buffers, offset: (_ for _ in ()).throw(OSError(5, "Input/output error")),
    )
    file = opened(tmp_path, os.urandom(40 * RANGE))
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            try:
                reader.whole(file)
            except OSError:
                pass
        assert not [one for one in gc.get_objects() if type(one) is OSError and one.errno == 5]
    finally:
        gc.enable()


def test_the_threads_that_could_be_started_do_it_all(tmp_path, small_ranges, monkeypatch):
    """Where no more threads can be started those that are do it all."""
    data, started, real = os.urandom(40 * RANGE), [], threading.Thread.start

    def start(thread):
        started.append(thread)
        if len(started) > 1:
            raise RuntimeError("can't start new thread")
        real(thread)

    file, before = opened(tmp_path, data), threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", start)
    assert bytes(reader.whole(file)) == data
    with pytest.raises(RuntimeError, match="can't start"):
        reader.whole(file)
    assert threading.active_count() == before


def test_cut_before_it_is_mapped(tmp_path, monkeypatch):
    file = opened(tmp_path, b"x" * 10)
    os.truncate(tmp_path / "f", 0)
    with pytest.raises(CorruptEntryError, match="shorter than its 10 bytes"):
        reader.mapped(file)


class Context:
    def __init__(self, left):
        self.left = left

    def get_remaining_time_in_millis(self):
        return self.left * 1000


def test_the_deadline_ends_a_read_that_hangs(tmp_path, small_ranges, monkeypatch, early):
    """NFS mounts are hard: a call that hangs is left to its thread."""
    real, stuck = os.preadv, threading.Event()

    def preadv(fd, buffers, offset):
        if offset >= 5 * RANGE:
            stuck.wait(30)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with efsstate.invocation(Context(1.8)):
        with pytest.raises(DeadlineExceeded, match=r"f: 0\.1 MiB of 6\.2 MiB read in"):
            reader.whole(opened(tmp_path, os.urandom(400 * RANGE)))
        assert deadline.remaining() > 0  # so that the error still reaches somebody
    stuck.set()
    while any(t.name == "efsstate-model" for t in threading.enumerate()):
        time.sleep(0.01)


@pytest.mark.parametrize("use", ["read", "stage", "path"])
def test_the_deadline_ends_the_read_of_a_small_file_that_hangs(
    root, tmp_path, monkeypatch, use, early
):
    """One of a single range, by each way that reads its bytes."""
    (tmp_path / "w").write_bytes(os.urandom(100_000))
    publish("m", tmp_path / "w", root=root)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    real, stuck = os.preadv, threading.Event()
    monkeypatch.setattr(os, "preadv", lambda *given: stuck.wait(30) and real(*given))
    ways = {
        "read": lambda files: files.read(),
        "stage": lambda files: files.stage(),
        "path": lambda files: files.path,
    }
    with efsstate.invocation(Context(1.8)):
        with pytest.raises(DeadlineExceeded):
            model("m", ways[use], verify="digest", root=root)()
        assert deadline.remaining() > 0
    stuck.set()
    while any(t.name == "efsstate-model" for t in threading.enumerate()):
        time.sleep(0.01)


def test_the_deadline_ends_many_small_reads(tmp_path, monkeypatch, early):
    """Files of one range each, none of which takes long."""
    files, done, real = [opened(tmp_path, b"x", str(n)) for n in range(200)], [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda *given: time.sleep(0.02) or real(*given))
    with efsstate.invocation(Context(1.8)):
        with pytest.raises(DeadlineExceeded):
            done.extend(bytes(reader.whole(file)) for file in files)
        assert deadline.remaining() > 0 and len(done) < 100


@pytest.mark.parametrize("way", ["copy", "mapped"])
def test_the_deadline_ends_what_the_digest_holds_up(
    tmp_path, small_ranges, monkeypatch, way, early
):
    """Every range is there when it is wanted, and the processor is what takes long."""
    file, seen = opened(tmp_path, bytes(400 * RANGE)), []

    def slow(*_):
        seen.append(1)
        time.sleep(0.01)

    monkeypatch.setattr(reader._DigestCheck, "add", slow)
    with efsstate.invocation(Context(1.8)):
        ways = {
            "copy": lambda: reader.copy(file, None, late=str, advance=slow),
            "mapped": lambda: reader.mapped(file, digest="0" * 64),
        }
        with pytest.raises(DeadlineExceeded):
            ways[way]()
        assert deadline.remaining() > 0 and len(seen) < 100


def test_a_thread_only_where_it_serves(root, tmp_path, monkeypatch):
    """A file of one range is read by the caller without a deadline.

    Of many small ones each has one thread, and no second.
    """
    threads, most, real = set(), [0], os.preadv

    def preadv(*given):
        threads.add(threading.get_ident())
        most[0] = max(most[0], threading.active_count())
        return real(*given)

    monkeypatch.setattr(os, "preadv", preadv)
    reader.whole(opened(tmp_path, b"x"))
    assert threads == {threading.get_ident()}
    (tmp_path / "s").mkdir()
    for n in range(50):
        (tmp_path / "s" / str(n)).write_bytes(bytes([n]))
    before, most[0] = threading.active_count(), 0
    with efsstate.invocation(Context(60)):
        publish("m", tmp_path / "s", root=root)
    assert before < most[0] <= before + reader.THREADS


@pytest.mark.parametrize("what", ["one", "many"])
@pytest.mark.parametrize("how", ["stage", "path", "verify", "publish"])
def test_a_copy_takes_less_than_the_memory_that_is_free(root, tmp_path, how, what):
    """In a function of 96 MiB; the buffers of one of the largest took 88.

    A big file, and eight of a range each.
    """
    (tmp_path / "w").mkdir()
    for n in range(1 if what == "one" else 8):
        with open(tmp_path / "w" / str(n), "wb") as file:
            file.truncate(reader.RANGE * (16 if what == "one" else 1))
    if how != "publish":
        publish("m", tmp_path / "w", root=root)
    code = """
import os, pathlib, sys
import efsstate, filelock, hashlib
from efsstate.modelstore import checking, loading, model_files, publishing, reader, staging
from efsstate.mount import free_memory as memory
def peak():
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
how, root, source = sys.argv[1:]
free = memory.free()
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = peak()
if how == "publish":
    efsstate.publish("m", source, root=root)
elif how == "verify":
    assert efsstate.verify("m", root=root) == []
else:
    load = lambda files: getattr(files, how) if how == "path" else files.stage()
    assert efsstate.model("m", load, verify="digest", root=root)()
print(free, peak() - before)
"""
    given = {**os.environ, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "96", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, how, root, str(tmp_path / "w")],
        capture_output=True,
        text=True,
        env=given,
    )
    free, taken = map(int, done.stdout.split())
    assert 40 << 20 < free < 96 << 20 and taken < free / 2, (done.stdout, done.stderr)


def test_a_copy_where_hardly_any_memory_is_left_still_goes_on(tmp_path, monkeypatch):
    data = os.urandom(3 << 20)
    for left in (0, 1 << 20):
        monkeypatch.setattr(free_memory, "free", lambda left=left: left)
        assert (
            reader.copy(opened(tmp_path, data), None, late=str) == hashlib.sha256(data).hexdigest()
        )


def test_the_ranges_of_a_copy_are_whole_where_there_is_memory(tmp_path, monkeypatch):
    offsets, real = [], os.preadv
    monkeypatch.setattr(
        os,
        "preadv",
        lambda fd, buffers, offset: offsets.append(offset) or real(fd, buffers, offset),
    )
    with open(tmp_path / "f", "wb") as file:
        file.truncate(4 * reader.RANGE)
    monkeypatch.setattr(free_memory, "free", lambda: 360 << 20)
    reader.copy(OpenFile(Mount(str(tmp_path)), "", "f"), None, late=str)
    assert sorted(offsets) == [n * reader.RANGE for n in range(4)]


def test_a_file_larger_than_the_memory_is_not_read(root, tmp_path, monkeypatch):
    """The function's memory is looked at first; mmap works all the same, and what to do is said."""
    with open(tmp_path / "big", "wb") as file:
        file.truncate(160 << 20)
    publish("m", tmp_path / "big", root=root)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
    load = model("m", lambda files: files.read(), root=root)
    with pytest.raises(
        EfsStateError,
        match=r"big: not read: it has 160 MiB, and \d+ MiB of memory are free; .*mmap\(\)",
    ):
        load()
    assert len(model("m", lambda files: files.mmap(), root=root)()) == 160 << 20


def test_free_memory_is_the_least_of_what_is_told():
    """In a process of its own: this one may have taken more than the function's memory already."""
    script = """if True:
        import mmap, os
        from efsstate.mount import free_memory as memory
        assert 0 < memory.free() < 1 << 50
        os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] = "256"
        mine = memory.free()
        assert 64 << 20 < mine < 256 << 20, mine
        ballast = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        ballast.write(b"x" * (64 << 20))
        assert memory.free() < mine - (48 << 20)
    """
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_control_groups_limit_counts_without_page_cache(tmp_path, monkeypatch):
    """A group with 100 MiB of 256 taken, 30 of which are pages of files."""
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{256 << 20}\n")
    (group / "memory.current").write_text(f"{100 << 20}\n")
    (group / "memory.stat").write_text(
        f"anon 5\ninactive_file {20 << 20}\nactive_file {10 << 20}\n"
    )
    (tmp_path / "memory.max").write_text("max\n")
    real = free_memory.read_text

    def read_text(path):
        if path.endswith("/cgroup") and path.startswith("/proc"):
            return "0::/a/b\n"
        return real(path.replace("/sys/fs/cgroup", str(tmp_path)))

    monkeypatch.setattr(free_memory, "read_text", read_text)
    assert free_memory.free() == 186 << 20


@pytest.mark.parametrize("there", ["a/b", "a", ""])
def test_a_control_groups_limit_counts_with_version_1_too(there, tmp_path, monkeypatch):
    """Wherever it is on the way to the process's group.

    A container's tree has nothing of the path that it is told.
    """
    top = tmp_path / "memory"
    for part in ("", "a", "a/b"):
        if part == there or there.startswith(part):
            (top / part).mkdir(parents=True, exist_ok=True)
            (top / part / "memory.limit_in_bytes").write_text("9223372036854771712\n")
            (top / part / "memory.usage_in_bytes").write_text(f"{100 << 20}\n")
            (top / part / "memory.stat").write_text(
                "cache 5\ninactive_file 1\ntotal_inactive_file 0\n"
            )
    limit = top / there
    (limit / "memory.limit_in_bytes").write_text(f"{256 << 20}\n")
    (limit / "memory.stat").write_text(
        f"inactive_file 5\ntotal_inactive_file {20 << 20}\ntotal_active_file {10 << 20}\n"
    )
    real = free_memory.read_text

    def read_text(path):
        if path.endswith("/cgroup") and path.startswith("/proc"):
            return "9:name=systemd:/x\n4:cpu,memory:/a/b\n3:cpuset:/c\n0::/\n"
        return real(path.replace("/sys/fs/cgroup", str(tmp_path)))

    monkeypatch.setattr(free_memory, "read_text", read_text)
    assert free_memory.free() == 186 << 20


@pytest.mark.skipif(
    not os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    reason="no control groups of version 1 here",
)
def test_the_kernels_own_control_groups_of_version_1_are_read():
    with open("/sys/fs/cgroup/memory/memory.limit_in_bytes") as file:
        assert 0 < free_memory._of_group() <= int(file.read())


def test_reading_takes_the_memory_of_one_copy(root, tmp_path):
    """Peak memory of a read with its digest checked: at most 1.1 times the file."""
    with open(tmp_path / "w", "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(192))
    publish("m", tmp_path / "w", root=root)
    code = """
import hashlib, pathlib, sys, threading
import efsstate
from efsstate.modelstore import loading, model_files, reader
def peak():
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
m = efsstate.model("m", lambda files: files.read(), verify="digest", root=sys.argv[1])
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = peak()
view = m()
print((peak() - before) / len(view))
"""
    out = subprocess.run(
        [sys.executable, "-c", code, root], capture_output=True, text=True, check=True
    )
    assert 0.9 < float(out.stdout) < 1.1, out.stdout


def test_a_buffer_is_freed_with_its_last_view(tmp_path):
    def mapped():
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096

    file = opened(tmp_path, bytes(64 << 20))
    gc.collect()
    before = mapped()
    view = reader.whole(file)
    part = view[100:200]
    del view
    gc.collect()
    assert mapped() > before + (60 << 20)
    del part
    gc.collect()
    assert mapped() < before + (8 << 20)


def test_mmap_of_a_file_that_is_cut_kills_and_stage_does_not(root, tmp_path):
    """Documented: pages that are gone are SIGBUS; a staged copy is the process's own."""
    (tmp_path / "w").write_bytes(os.urandom(1 << 20))
    made = publish("m", tmp_path / "w", root=root)
    code = """
import os, sys, mmap
import efsstate
how, root, cut, tmp = sys.argv[1:]
os.environ["TMPDIR"] = tmp
m = efsstate.model("m", lambda files: files.mmap(), stage=how == "stage", root=root)
view = m()
os.truncate(cut, 0)
print(sum(view))
"""
    cut = place(root, "m", made) + "/w"
    data = (tmp_path / "w").read_bytes()
    for how, expected in (("stage", 0), ("mmap", -7)):
        pathlib.Path(cut).write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-c", code, how, root, cut, str(tmp_path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == expected, done.stderr
        assert (done.stdout == f"{sum(data)}\n") == (how == "stage")
