"""Loads that a deadline or a kill cuts off: the next attempt continues with what came before."""

import json
import os
import pathlib
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.modelstore.conftest import fork_beside_threads, place

import efsstate
from efsstate import model, publish
from efsstate.errors import CorruptEntryError, DeadlineExceeded
from efsstate.modelstore import open_file, reader, staging

MIB = 1 << 20


class Context:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self):
        return 1000 * (self.end - time.monotonic())


@pytest.fixture
def local(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path / "tmp" / f"efsstate-models-{os.geteuid()}"


class Link:
    """A link of `rate` bytes a second, which all readers of these files share."""

    def __init__(self, monkeypatch, path, rate, *more):
        self.rate, self.read, self.inode = rate, 0, os.stat(path).st_ino
        self.inodes = {os.stat(each).st_ino for each in (path, *more)}
        self.slower = (0, rate)  # after so many bytes, it has so many bytes a second
        self._free, self._lock, self._real = 0.0, threading.Lock(), os.preadv
        monkeypatch.setattr(os, "preadv", self.preadv)

    def preadv(self, fd, buffers, offset):
        count = self._real(fd, buffers, offset)
        if os.fstat(fd).st_ino not in self.inodes:
            return count
        with self._lock:
            self.read += count
            rate = self.slower[1] if self.read > self.slower[0] > 0 else self.rate
            if not rate:
                return count
            now = time.monotonic()
            self._free = max(now, self._free) + count / rate
            wait = self._free - now
        time.sleep(wait)
        return count

    def cut(self):
        """Have the link carry nothing more of what was asked for, as if its readers were killed."""
        with self._lock:
            self._free = 0.0


@pytest.fixture
def weights(root, tmp_path, monkeypatch):
    """A model of 8 MiB, which is large here, and the path of its file on the mount."""
    monkeypatch.setattr(reader, "RANGE", MIB)
    (tmp_path / "w").write_bytes(os.urandom(8 * MIB))
    version = publish("m", tmp_path / "w", root=root)
    return (tmp_path / "w").read_bytes(), f"{place(root, 'm', version)}/w"


def attempts(root, load, seconds, most, link, **more):
    """Load in invocations of so many seconds, each a new process as far as memory goes."""
    for count in range(1, most + 1):
        link.cut()
        with efsstate.invocation(Context(seconds)):
            try:
                return count, model("m", load, root=root, **more)()
            except DeadlineExceeded as error:
                last = error
    raise AssertionError(last)


WAYS = {
    "read": lambda files: bytes(files.read()),
    "mmap": lambda files: bytes(files.mmap()),
    "stage": lambda files: pathlib.Path(files.stage()).read_bytes(),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_load_that_is_cut_off_continues(root, local, weights, monkeypatch, way):
    """Three times the time of an invocation: each brings its part, and nothing is read twice."""
    data, path = weights
    if way == "mmap":  # of a local file no page is pulled
        monkeypatch.setattr(open_file, "is_on_network", lambda mount: True)
    link = Link(monkeypatch, path, 1.6 * MIB)
    count, loaded = attempts(root, WAYS[way], 2.5, 5, link)
    assert loaded == data and 3 <= count <= 4
    assert link.read < 1.35 * len(data)
    assert not [name for name in os.listdir(local) if name.startswith(".tmp-")]


@pytest.mark.parametrize("way", ["read", "mmap"])
def test_a_link_that_slows_down_loses_nothing(root, local, weights, monkeypatch, way):
    """The others of a herd start a moment later: the first ranges came at twice their rate."""
    data, path = weights
    monkeypatch.setattr(reader, "RANGE", 16 * MIB)
    monkeypatch.setattr(open_file, "is_on_network", lambda mount: True)
    link = Link(monkeypatch, path, 8 * MIB)
    link.slower = (2 * MIB, 1.5 * MIB)
    count, loaded = attempts(root, WAYS[way], 2.5, 5, link)
    assert loaded == data and 2 <= count <= 4
    assert link.read < 1.35 * len(data)


def test_what_was_read_before_the_switch_outlives_a_kill(root, local, weights, monkeypatch):
    """The first bytes are in /tmp, and noted, before any more are asked for."""
    data, path = weights
    monkeypatch.setattr(open_file, "is_on_network", lambda mount: True)
    link = Link(monkeypatch, path, 1.5 * MIB)
    pid = fork_beside_threads()
    if not pid:
        copy = reader.copy
        monkeypatch.setattr(reader, "copy", lambda *_, **more: os._exit(9) if more else copy)
        with efsstate.invocation(Context(3)):
            model("m", WAYS["read"], root=root)()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    (notes,) = local.glob(".tmp-*.progress")
    assert json.loads(notes.read_text())["w"] >= MIB
    link.rate = 0
    link.read = 0
    assert model("m", WAYS["stage"], root=root)() == data
    assert link.read <= 7 * MIB


@pytest.mark.parametrize("way", ["read", "mmap"])
def test_a_copy_that_became_whole_is_not_read_again(root, local, weights, monkeypatch, way):
    """Cut off between the copy's end and the load's: the next attempt asks for no byte."""
    data, path = weights
    assert model("m", WAYS["stage"], root=root)() == data
    link = Link(monkeypatch, path, 1e12)
    with efsstate.invocation(Context(60)):
        assert model("m", WAYS[way], root=root)() == data
    assert link.read == 0


@pytest.fixture
def shards(root, tmp_path, monkeypatch):
    """A model of sixteen files of half a MiB, and their paths on the mount."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(16):
        (folder / f"{number:02}").write_bytes(os.urandom(MIB // 2))
    monkeypatch.setattr(open_file, "is_on_network", lambda mount: True)
    base = place(root, "m", publish("m", folder, root=root))
    names = sorted(os.listdir(folder))
    return b"".join((folder / name).read_bytes() for name in names), [
        f"{base}/{name}" for name in names
    ]


def one_by_one(files):
    return b"".join(bytes(files.read(name)) for name in files.names)


def mapped(files):
    return b"".join(bytes(files.mmap(name)) for name in files.names)


def side_by_side(files, threads=4):
    with ThreadPoolExecutor(threads) as pool:
        return b"".join(map(bytes, pool.map(files.read, files.names)))


@pytest.mark.parametrize(("load", "most"), [(one_by_one, 1.8), (mapped, 1.8), (side_by_side, 2.5)])
def test_a_load_of_many_files_continues(root, local, shards, monkeypatch, load, most):
    """Each of them fits before the deadline, and all together take three times as long.

    What is in flight at the deadline is read again: of several files where they are read at once.
    """
    data, paths = shards
    link = Link(monkeypatch, paths[0], 1.6 * MIB, *paths[1:])
    count, loaded = attempts(root, load, 2.5, 6, link)
    assert loaded == data and 3 <= count <= 5
    assert link.read < most * len(data)
    assert not [name for name in os.listdir(local) if name.startswith(".tmp-")]


def test_of_many_files_only_those_that_are_read_are_kept(root, local, shards, monkeypatch):
    """The load needs two of the sixteen, and is slow; the others are neither read nor kept."""
    data, paths = shards
    link = Link(monkeypatch, paths[0], MIB, *paths[1:])
    with efsstate.invocation(Context(3)):
        loaded = model("m", lambda files: bytes(files.read("03")) + files.read("07"), root=root)()
    half = MIB // 2
    assert loaded == data[3 * half : 4 * half] + data[7 * half : 8 * half]
    assert link.read == MIB
    kept = [
        path.name for path in local.rglob("*") if path.is_file() and path.stat().st_size == half
    ]
    assert set(kept) <= {"03", "07"}


def test_many_files_that_fit_write_nothing(root, local, shards):
    data, _ = shards
    with efsstate.invocation(Context(60)):
        assert model("m", one_by_one, root=root)() == data
    assert os.listdir(local) == []


def test_threads_that_share_a_link_are_not_taken_for_a_slow_one(root, local, shards, monkeypatch):
    """Eight at once take eight times as long a file each: the load takes half of its time."""
    data, paths = shards
    Link(monkeypatch, paths[0], 3 * MIB, *paths[1:])
    with efsstate.invocation(Context(5)):
        assert model("m", lambda files: side_by_side(files, 8), root=root)() == data
    assert os.listdir(local) == []


def test_a_damaged_copy_of_one_file_is_read_again(root, local, shards, monkeypatch):
    data, paths = shards
    link = Link(monkeypatch, paths[0], 1.6 * MIB, *paths[1:])
    with efsstate.invocation(Context(2.5)), pytest.raises(DeadlineExceeded):
        model("m", one_by_one, root=root)()
    kept = [path for path in local.rglob("[0-9][0-9]") if path.is_file()]
    assert len(kept) > 2
    for path in kept:
        path.write_bytes(b"x" * 100)
    link.rate = 0
    with efsstate.invocation(Context(60)):
        assert model("m", one_by_one, root=root)() == data


def test_files_that_are_kept_stay_no_open_files(root, local, shards, monkeypatch):
    data, paths = shards
    link = Link(monkeypatch, paths[0], 1.5 * MIB, *paths[1:])
    link.slower = (3 * MIB // 2, 1e12)  # it becomes faster
    before = len(os.listdir("/proc/self/fd"))
    with efsstate.invocation(Context(3.2)):
        load = model("m", lambda files: (files, one_by_one(files)), root=root)
        files, loaded = load()
        assert loaded == data and len(list(local.rglob("[0-9][0-9]"))) > 1
        assert len(os.listdir("/proc/self/fd")) < before + 12
    del files


def test_the_error_says_how_much_is_there(root, local, weights, monkeypatch):
    Link(monkeypatch, weights[1], 2 * MIB)
    seen = []
    for _ in range(2):
        late = pytest.raises(DeadlineExceeded, match=r"MiB of 8\.0 MiB read in")
        with efsstate.invocation(Context(1.5)), late as caught:
            model("m", WAYS["read"], root=root)()
        seen.append(float(str(caught.value).split(": ")[1].split(" MiB")[0]))
    assert 0 < seen[0] < seen[1]


@pytest.mark.parametrize("way", ["read", "mmap"])
def test_a_load_that_fits_writes_nothing(root, local, weights, way):
    with efsstate.invocation(Context(60)):
        assert model("m", WAYS[way], root=root)() == weights[0]
    assert os.listdir(local) == []


def test_without_a_deadline_a_slow_read_goes_on(root, local, weights, monkeypatch):
    Link(monkeypatch, weights[1], 8 * MIB)
    assert model("m", WAYS["read"], root=root)() == weights[0]
    assert not local.exists()


def test_without_room_a_slow_read_goes_on(root, local, weights, monkeypatch):
    """And is cut off as before."""
    Link(monkeypatch, weights[1], 2 * MIB)
    monkeypatch.setattr(staging, "has_room", lambda *_: False)
    with efsstate.invocation(Context(1.5)), pytest.raises(DeadlineExceeded, match="/w: "):
        model("m", WAYS["read"], root=root)()
    assert not [name for name in os.listdir(local) if name.startswith(".tmp-")]


def test_a_killed_copy_is_continued(root, local, weights, monkeypatch):
    """Killed by the platform, without a word."""
    data, path = weights
    link = Link(monkeypatch, path, 4 * MIB)
    pid = fork_beside_threads()
    if not pid:
        signal.setitimer(signal.ITIMER_REAL, 1.2)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), 9))
        try:
            model("m", WAYS["stage"], root=root)()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    (notes,) = local.glob(".tmp-*.progress")
    complete = json.loads(notes.read_text())["w"]
    assert complete > MIB
    link.rate = 0
    reads, real = [], os.preadv
    monkeypatch.setattr(
        os,
        "preadv",
        lambda fd, buffers, at: reads.append((os.fstat(fd).st_ino, at)) or real(fd, buffers, at),
    )
    assert model("m", WAYS["stage"], root=root)() == data
    assert min(at for inode, at in reads if inode == link.inode) == complete


@pytest.mark.parametrize(
    "damage", ["flipped", "cut", "gone", "longer notes", "no notes", "bad notes"]
)
def test_a_damaged_part_is_copied_again(root, local, weights, monkeypatch, damage):
    data, path = weights
    link = Link(monkeypatch, path, 2 * MIB)
    with efsstate.invocation(Context(1.8)), pytest.raises(DeadlineExceeded):
        model("m", WAYS["stage"], root=root)()
    link.rate = 0
    (notes,) = local.glob(".tmp-*.progress")
    part = notes.with_suffix("") / "w"
    if damage == "flipped":
        with open(part, "r+b") as file:
            file.write(bytes([data[0] ^ 1]))
    elif damage == "cut":
        os.truncate(part, 1000)
    elif damage == "gone":
        part.unlink()
    elif damage == "longer notes":
        notes.write_text(json.dumps({"w": 10**12}))
    elif damage == "no notes":
        notes.unlink()
    else:
        notes.write_text("[")
    assert model("m", WAYS["stage"], root=root)() == data
    assert not [name for name in os.listdir(local) if name.startswith(".tmp-")]


def test_a_part_of_another_version_is_not_continued(root, local, weights, monkeypatch, tmp_path):
    """It goes when the new one needs the room; until then both may be continued."""
    Link(monkeypatch, weights[1], 2 * MIB)
    with efsstate.invocation(Context(1.8)), pytest.raises(DeadlineExceeded):
        model("m", WAYS["stage"], root=root)()
    new = os.urandom(8 * MIB)
    (tmp_path / "w").write_bytes(new)
    publish("m", tmp_path / "w", root=root)
    assert model("m", WAYS["stage"], root=root)() == new
    assert len(list(local.glob(".tmp-*.progress"))) == 1
    monkeypatch.setattr(
        staging, "_free", lambda _: 3 * MIB if list(local.glob(".tmp-*")) else 9 * MIB
    )
    (tmp_path / "w").write_bytes(new[::-1])
    publish("m", tmp_path / "w", root=root)
    assert model("m", WAYS["stage"], root=root)() == new[::-1]
    assert not list(local.glob(".tmp-*"))


def test_a_source_that_lies_is_damage_as_ever(root, local, weights, monkeypatch):
    with open(weights[1], "r+b") as file:
        file.seek(7 * MIB)
        file.write(b"x" * 100)
    with pytest.raises(CorruptEntryError, match="SHA-256"):
        model("m", WAYS["stage"], root=root)()
    assert not [name for name in os.listdir(local) if name.startswith(".tmp-")]


def test_a_herd_is_served_at_the_speed_of_its_link(root, local, weights, monkeypatch, tmp_path):
    """Eight environments share a link, and each invocation is too short for a load.

    All are served in 1.3 times the time that the bytes take, in attempts of 2.5 s.
    """
    data, path = weights
    link = Link(monkeypatch, path, 12 * MIB)
    fair, started = 8 * len(data) / link.rate, time.monotonic()
    ends, errors = [], []

    def environment(number):
        from efsstate.modelstore.manifest import Manifest
        from efsstate.modelstore.open_file import OpenFile
        from efsstate.mount.files import Mount

        folder, name = os.path.split(path)
        mount = Mount(folder)
        manifest = Manifest("v", {name: (len(data), digest)}, [], single=True)
        for _ in range(20):
            with efsstate.invocation(Context(2.5)):
                try:
                    staging._copy(
                        Mount(str(tmp_path / f"e{number}")),
                        "copy",
                        manifest,
                        lambda n: OpenFile(mount, "", n),
                        None,
                    )
                except DeadlineExceeded as error:
                    errors.append(error)
                else:
                    ends.append(time.monotonic() - started)
                    return

    import hashlib

    digest = hashlib.sha256(data).hexdigest()
    threads = []
    for number in range(8):
        (tmp_path / f"e{number}" / "uses").mkdir(parents=True)
        threads.append(threading.Thread(target=environment, args=(number,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 8 and errors
    assert max(ends) < 1.3 * fair + 1 and link.read < 1.2 * 8 * len(data)


@pytest.mark.parametrize("fewest", [reader.READERS, reader.THREADS])
@pytest.mark.parametrize("rate", [1 << 20, 40 << 20, 300 << 20])
def test_ranges_of_a_copy_follow_the_link(monkeypatch, rate, fewest):
    """A quarter of a second is in flight: by few threads, until their ranges are the longest."""
    now, size, at, rounds = [100.0], 1 << 30, 0, []
    monkeypatch.setattr(reader.time, "monotonic", lambda: now[0])
    for jobs, threads in reader._paced(0, size, reader.RANGE, fewest, reader.THREADS):
        for offset, length in jobs:
            assert offset == at
            at += length
        rounds.append((jobs[0][1], threads))
        now[0] += sum(length for _, length in jobs) / rate
    assert at == size and rounds[0] == (64 << 10, fewest)
    threads = max(fewest, min(reader.THREADS, rate // 4 // reader.RANGE))
    wanted = max(64 << 10, min(reader.RANGE, rate // 4 // threads))
    assert {count for _, count in rounds[1:-1]} == {threads}
    assert all(abs(length - wanted) < 8192 for length, _ in rounds[1:-1])
