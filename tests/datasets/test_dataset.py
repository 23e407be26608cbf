"""A dataset: parts are whole or absent, each key has one, snapshots never change."""

import errno
import multiprocessing
import os
import pathlib
import pickle
import shutil
import stat
import subprocess
import sys
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efsstate import CorruptEntryError, EfsStateError, PartRemoved, SnapshotNotFound, dataset
from efsstate.datasets import freezing, protocol
from efsstate.datasets.protocol import PartFolders
from efsstate.datasets.snapshot import Snapshot
from efsstate.format import codec
from efsstate.format import dataset_layout as layout
from efsstate.mount import free_memory
from efsstate.mount.listing import ListedFolders


@pytest.fixture
def ds(tmp_path):
    return dataset("ocr/train", root=tmp_path)


def files_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# Adding


def test_a_part_is_a_file_with_the_users_own_bytes(ds, tmp_path):
    part = ds.add(b'{"a": 1}', ".json", key="a")
    assert part.added and not part.removed
    assert pathlib.Path(part.path).read_bytes() == b'{"a": 1}'
    assert part.size == 8 and part.suffix == ".json" and part.path.endswith(part.name)
    assert files_below(tmp_path) == [f"datasets/ocr--train/parts/{part.name}"]


def test_the_first_part_of_a_key_stays(ds):
    first = ds.add(b"first", ".txt", key="a")
    second = ds.add(b"second", ".txt", key="a")
    assert second == first and not second.added
    assert ds.parts() == [first]


def test_without_a_key_every_call_adds_a_part(ds):
    parts = {ds.add(b"same").name for _ in range(3)}
    assert len(parts) == 3 == len(ds.parts())


def test_text_and_bytes_are_two_keys(ds):
    ds.add(b"1", key="a"), ds.add(b"2", key=b"a")
    assert len(ds.parts()) == 2
    assert "a" in ds and b"a" in ds and "b" not in ds


def test_several_buffers_are_one_part(ds):
    part = ds.add([b"he", bytearray(b"ll"), memoryview(b"o")])
    assert pathlib.Path(part.path).read_bytes() == b"hello"
    assert ds.freeze("s").verify() == []


@pytest.mark.parametrize("dtype", ["u1", "i8", "f4"])
def test_an_array_is_one_buffer_also_within_a_list(ds, dtype):
    array = np.array([5, 2, 0], dtype)
    for data in (array, array[::-1][::-1], list(array), [array], array.reshape(3, 1)):
        part = ds.add(data)
        assert pathlib.Path(part.path).read_bytes() == array.tobytes()
        assert part.size == array.nbytes


def test_an_array_of_bytes_objects_is_an_iterable_of_them(ds):
    part = ds.add(np.array([b"he", b"llo"], dtype=object))
    assert pathlib.Path(part.path).read_bytes() == b"hello"


@pytest.mark.parametrize("data", ["text", ["text"], 5, [b"a", 5], None, [[b"a"]], {"a": 1}])
def test_what_is_no_bytes_is_refused_and_nothing_is_added(ds, data, tmp_path):
    with pytest.raises(TypeError, match="an iterable of bytes"):
        ds.add(data, key="a")
    assert files_below(tmp_path) == [] and "a" not in ds


def test_a_part_of_another_dataset_is_refused(ds, tmp_path):
    """It is not taken for the part of the same key, which a removal would take away."""
    own, other = ds.add(b"own", key="a"), dataset("other", root=tmp_path).add(b"other", key="a")
    snapshot = ds.freeze("s")
    for call in (
        lambda: ds.remove(other),
        lambda: ds.freeze("t", [own, other]),
        lambda: list(snapshot.read([other])),
    ):
        with pytest.raises(ValueError, match="is not of the dataset at 'datasets/ocr--train'"):
            call()
    assert ds.parts() == [own] and ds.snapshots() == ["s"]


def test_a_part_that_another_host_named_is_one_of_this(ds, tmp_path):
    ds.add(b"1", key="a")
    (tmp_path.parent / "mount").symlink_to(tmp_path)
    [part] = dataset("ocr/train", root=tmp_path.parent / "mount").parts()
    assert [bytes(data) for _, data in ds.freeze("s", [part]).read([part])] == [b"1"]
    assert ds.remove(part)


def test_a_negative_number_leaves_no_part_out_silently(ds):
    ds.add(b"1")
    snapshot = ds.freeze("s")
    with pytest.raises(ValueError, match="ahead=-1"):
        list(snapshot.read(ahead=-1))
    with pytest.raises(ValueError, match="after=-1"):
        snapshot.order(after=-1)


def test_an_empty_part_is_a_part(ds):
    part = ds.add(b"", key="nothing")
    [(same, data)] = ds.freeze("s").read()
    assert same == part and bytes(data) == b"" and part.size == 0


@pytest.mark.parametrize("suffix", ["json", ".", "..", ".a/b", ".a b", ".é", "." + "a" * 16, ".a."])
def test_a_strange_suffix_is_refused(ds, suffix):
    with pytest.raises(ValueError, match="suffix"):
        ds.add(b"x", suffix)


def test_arguments_of_another_type_are_named(ds):
    ds.add(b"x", key="k")
    snapshot = ds.freeze("s")
    for ahead in ("1", 1.5, None):
        with pytest.raises(TypeError, match=r"ahead=.*a number of parts is needed"):
            list(snapshot.read(ahead=ahead))
    for results in ("clean", None, snapshot):
        with pytest.raises(TypeError, match="results: a dataset is needed"):
            list(snapshot.todo(results))


@pytest.mark.parametrize("suffix", [None, 5, b".txt"])
def test_a_suffix_that_is_no_string_is_refused(ds, suffix):
    with pytest.raises(TypeError, match="suffix: a string is needed, not"):
        ds.add(b"x", suffix)
    with pytest.raises(TypeError, match="suffix: a string is needed, not"), ds.part(suffix):
        pass
    assert ds.parts() == []


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "../a", ".a", "a--b", "a b", "ä", "a" * 200]
)
def test_a_strange_name_is_refused(name):
    with pytest.raises(ValueError, match="dataset name"):
        dataset(name)


@pytest.mark.parametrize("key", [None, 1, 1.5, ("a",)])
def test_a_key_is_text_or_bytes(ds, key):
    with pytest.raises(TypeError, match="key"):
        key in ds  # noqa: B015


# Writing at a path


def test_a_library_writes_at_a_path(ds):
    with ds.part(".bin", key="k") as path:
        assert isinstance(path, str)
        with open(path, "wb") as file:
            file.write(b"x" * 1000)
    assert path.part.added and path.part.size == 1000
    assert not os.path.exists(path)
    assert ds.freeze("s").verify() == []


def write_half(ds):
    with ds.part(".bin", key="k") as path:
        pathlib.Path(path).write_bytes(b"half")
        raise ZeroDivisionError


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o775])
def test_a_part_by_path_has_the_mode_of_one_by_add(tmp_path, mode):
    """Whatever the umask of the collector is, and the mode that its library chose."""
    ds = dataset("d", root=tmp_path)
    tmp_path.chmod(mode)
    old = os.umask(0o077)
    try:
        with ds.part(".bin", key="path") as path:
            pathlib.Path(path).write_bytes(b"x")
    finally:
        os.umask(old)
    added = ds.add(b"x", ".bin", key="add")
    modes = [os.stat(part.path).st_mode for part in (path.part, added)]
    assert modes == [stat.S_IFREG | mode & 0o666] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only uid 0 can give files away")
def test_a_part_that_root_writes_is_the_roots_owners(tmp_path):
    """Else the functions could not read what `sudo` collected into a root of mode 0750."""
    os.chown(tmp_path, 1001, 1002)
    with dataset("d", root=tmp_path).part(".bin", key="path") as path:
        pathlib.Path(path).write_bytes(b"x")
    status = os.stat(path.part.path)
    assert (status.st_uid, status.st_gid) == (1001, 1002)


def test_a_block_that_raises_leaves_nothing(ds, tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_half(ds)
    assert files_below(tmp_path) == [] and "k" not in ds
    assert ds.add(b"whole", key="k").added


def save_arrays(ds):
    with ds.part(".arr") as path:
        np.savez(path, a=np.arange(3))


def test_a_block_that_writes_elsewhere_is_told(ds):
    with pytest.raises(EfsStateError, match=r"nothing was written .* it wrote '.*\.npz'"):
        save_arrays(ds)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("x", path)])
def test_a_block_that_makes_no_file_is_told(ds, make):
    """As libraries do whose format is a folder: Zarr, Lance, `Dataset.save_to_disk`."""
    refused = pytest.raises(EfsStateError, match="a part is one file; pack a folder")
    with refused, ds.part(".zarr", key="k") as path:
        make(path)
    assert "k" not in ds and ds.parts() == []


def test_the_path_of_a_key_that_is_there_leads_to_it(ds):
    first = ds.add(b"first", key="k")
    with ds.part(key="k") as path, open(path, "wb") as file:
        file.write(b"second")
    assert path.part == first and not path.part.added


def test_threads_add_one_part_of_a_key(ds):
    barrier, parts = threading.Barrier(8), []

    def work(i):
        barrier.wait()
        parts.append(ds.add(str(i).encode(), key="k"))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert len(ds.parts()) == 1 and {p.name for p in parts} == {ds.parts()[0].name}
    assert sum(p.added for p in parts) >= 1


def add_many(root, worker):
    ds = dataset("d", root=root)
    for i in range(100):
        ds.add(f"{worker} {i}".encode(), key=str(i))


def test_processes_add_one_part_of_each_key(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_many, args=(tmp_path, i)) for i in range(4)]
    [w.start() for w in workers], [w.join() for w in workers]
    assert [w.exitcode for w in workers] == [0] * 4
    ds = dataset("d", root=tmp_path)
    assert len(ds.parts()) == 100
    assert ds.freeze("s").verify() == []


def test_a_forked_child_has_a_staging_folder_of_its_own(ds, tmp_path):
    ds.add(b"parent")
    child = multiprocessing.get_context("fork").Process(target=ds.add, args=(b"child",))
    child.start(), child.join()
    assert child.exitcode == 0
    assert len(os.listdir(tmp_path / "datasets/ocr--train/staging")) == 2


# Snapshots


def test_a_snapshot_never_changes(ds):
    ds.add(b"1"), ds.add(b"2")
    before = ds.freeze("run")
    ds.add(b"3")
    assert ds.freeze("run").names == before.names == ds.at("run").names
    assert len(before) == 2 and len(ds.freeze("next")) == 3
    assert ds.snapshots() == ["next", "run"]


@pytest.mark.parametrize("count", [0, 1, 5, 500])
def test_a_list_of_any_length_comes_back(ds, count):
    for i in range(count):
        ds.add(b"x", key=str(i))
    made = ds.freeze("s")
    assert ds.at("s").names == made.names and len(made) == count


@pytest.mark.parametrize("name", ["a/b", "../x", "ü" * 50, "x" * 1000, "a\nb", "event id 7", "-"])
def test_a_snapshot_may_have_any_name(ds, name):
    ds.add(b"1")
    ds.freeze(name)
    assert ds.snapshots() == [name] and len(ds.at(name)) == 1
    assert ds.forget(name) and not ds.forget(name)


def test_a_snapshot_of_chosen_parts(ds):
    chosen = [ds.add(b"1"), ds.add(b"2")]
    ds.add(b"3")
    assert sorted(ds.freeze("s", chosen).names) == sorted(part.name for part in chosen)


@pytest.mark.parametrize("attribute", ["name", "path", "key"])
def test_a_text_is_not_taken_for_a_part(ds, attribute):
    text = getattr(ds.add(b"x", key="k"), attribute)
    for call in (lambda: ds.freeze("run", [text]), lambda: list(ds.freeze("all").read([text]))):
        with pytest.raises(TypeError, match="a Part is needed"):
            call()
    assert ds.snapshots() == ["all"]


@pytest.mark.parametrize("shard", [(0, 0), (2, 2), (-1, 2), (0.0, 2), (0,), (0, 1, 2), "01", 0])
def test_a_shard_that_is_none_is_refused(ds, shard):
    ds.add(b"x")
    with pytest.raises(ValueError, match=r"shard=.*: pass \(i, n\)"):
        ds.freeze("run").order(shard=shard)


def test_an_unknown_snapshot_is_a_lookup_error(ds):
    with pytest.raises(SnapshotNotFound, match="there is no snapshot 'x'"):
        ds.at("x")
    assert issubclass(SnapshotNotFound, LookupError)


def test_of_two_that_freeze_one_name_both_get_one_list(ds, monkeypatch):
    """The second lists more parts, and loses: it gets the first one's list, and leaves no other."""
    for i in range(200):
        ds.add(b"x", key=str(i))
    find = freezing._find
    monkeypatch.setattr(freezing, "_find", lambda _folders, _name: None)
    first = ds.freeze("run")
    ds.add(b"more")
    monkeypatch.setattr(freezing, "_find", lambda *args: (monkeypatch.undo(), None)[1])
    second = ds.freeze("run")
    assert freezing._find is find and second.names == first.names
    lists = [n for n in os.listdir(ds.path + "/../snapshots") if layout.is_list(n)]
    assert len(lists) == 1


def test_a_file_that_is_no_part_is_in_no_snapshot(ds):
    """Nor does it hide those that are."""
    parts = [ds.add(b"x", key=str(i)) for i in range(3)]
    for name in ("_SUCCESS", ".nfs0001", f"{parts[0].name}\n{parts[1].name}"):
        (pathlib.Path(ds.path) / name).touch()
    assert sorted(ds.freeze("s").names) == sorted(part.name for part in parts)


def test_a_list_that_the_sweep_took_is_written_again(ds, monkeypatch):
    for i in range(200):
        ds.add(b"x", key=str(i))
    create = freezing.links.create

    def sweep_first(mount, folder, name, text):
        create(mount, folder, name, text)
        for other in mount.names(folder):
            if layout.is_list(other):
                mount.remove(folder, other)

    monkeypatch.setattr(freezing.links, "create", sweep_first)
    ds.freeze("run")
    monkeypatch.undo()
    assert len(ds.at("run")) == 200


def test_a_long_list_is_in_memory_once_while_it_is_written(ds, monkeypatch):
    """Beside the names themselves: each page more costs a hundred thousand parts their time."""
    names = [
        layout.part_name(f"{i:032x}", i, f"{i:032x}", ".parquet") for i in range(10_000, 30_000)
    ]
    size = sum(map(len, names))
    monkeypatch.setattr(PartFolders, "listing", lambda self: names)
    ds.freeze("warm")  # the codec is imported
    tracemalloc.start()
    try:
        ds.freeze("run")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.5 * size
    assert list(ds.at("run").names) == names


def lose_list(ds):
    """Remove the file with the list of the only snapshot, as an incomplete copy lacks it."""
    [name] = [n for n in os.listdir(ds.path + "/../snapshots") if layout.is_list(n)]
    os.unlink(f"{ds.path}/../snapshots/{name}")


def test_a_snapshot_that_lost_its_list_is_damaged(ds):
    """It is there: `freeze` must not make another one, nor `prune` take it for forgotten."""
    parts = [ds.add(b"x", key=str(i)) for i in range(20)]
    ds.freeze("run")
    for part in parts:
        os.utime(part.path, (0, 0))
    lose_list(ds)
    for call in (
        lambda: ds.at("run"),
        lambda: ds.freeze("run"),
        lambda: ds.prune(older_than="1d"),
    ):
        with pytest.raises(CorruptEntryError, match="its list of parts is missing"):
            call()
    assert len(ds.parts()) == 20 and ds.snapshots() == ["run"] and ds.forget("run")


@pytest.mark.parametrize("then", [None, "run"])
def test_a_snapshot_that_is_forgotten_meanwhile_is_gone(ds, monkeypatch, then):
    """A reader knows the link, and misses the list that `forget` removed after the link."""
    for i in range(20):
        ds.add(b"x", key=str(i))
    ds.freeze("run")
    read_list, calls = freezing._read_list, []

    def read_after_forget(folders, name):
        calls.append(name)
        if len(calls) == 2:  # the link was read again, as the server has it
            ds.forget("run")
            if then:
                ds.add(b"more")
                monkeypatch.undo()
                ds.freeze(then)
        if len(calls) == 1:
            raise FileNotFoundError(name)
        return read_list(folders, name)

    monkeypatch.setattr(freezing, "_read_list", read_after_forget)
    if then:
        assert len(ds.at("run")) == 21
    else:
        with pytest.raises(SnapshotNotFound):
            ds.at("run")
    assert len(calls) == 2


def test_a_damaged_list_is_told(ds):
    for i in range(200):
        ds.add(b"x", key=str(i))
    ds.freeze("run")
    [name] = [n for n in os.listdir(ds.path + "/../snapshots") if layout.is_list(n)]
    path = pathlib.Path(ds.path).parent / "snapshots" / name
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptEntryError):
        ds.at("run")
    assert ds.snapshots() == ["run"] and ds.forget("run")


def test_a_snapshot_can_be_pickled(ds):
    ds.add(b"1")
    snapshot = ds.freeze("s")
    assert pickle.loads(pickle.dumps(snapshot)).names == snapshot.names
    code = "import pickle, sys; print(len(pickle.load(sys.stdin.buffer).paths))"
    out = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(snapshot), capture_output=True, check=True
    )
    assert out.stdout == b"1\n"


def test_a_snapshot_of_another_root_is_no_copy(tmp_path, monkeypatch):
    """A process with another root gets an error, and not other parts under the same name."""
    for root in ("here", "there"):
        dataset("d", root=tmp_path / root).add(root.encode(), key=root)
        dataset("d", root=tmp_path / root).freeze("run")
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "here"))
    pickled = pickle.dumps(dataset("d").at("run"))
    assert len(pickle.loads(pickled)) == 1
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "there"))
    with pytest.raises(EfsStateError, match="has other parts than"):
        pickle.loads(pickled)


def test_a_part_of_another_root_is_not_read_as_ones_own(ds, tmp_path):
    """The name of the dataset is the same, so the part is looked for, and reported as lost."""
    part = dataset("ocr/train", root=tmp_path / "other").add(b"other", key="a")
    ds.add(b"own", key="a")
    with pytest.raises(CorruptEntryError, match="lost"):
        list(ds.freeze("s").read([part]))


# Order


def test_an_order_is_the_same_everywhere_and_can_be_resumed(ds):
    for i in range(50):
        ds.add(b"x", key=str(i))
    snapshot = ds.freeze("s")
    order = snapshot.order(seed=1, epoch=2)
    assert order == ds.at("s").order(seed=1, epoch=2) != snapshot.order(seed=1, epoch=3)
    assert sorted(order, key=lambda p: p.name) == list(snapshot)
    assert snapshot.order(seed=1, epoch=2, after=20) == order[20:]
    assert snapshot.order(seed=1, epoch=2, after=order[19].name) == order[20:]
    with pytest.raises(ValueError, match="resume with the snapshot"):
        snapshot.order(shard=(0, 2), after=snapshot.order(shard=(1, 2))[0].name)


def test_more_parts_keep_the_order_of_the_old_ones(ds):
    for i in range(30):
        ds.add(b"x", key=str(i))
    old = ds.freeze("old").order(seed=7)
    for i in range(30, 60):
        ds.add(b"x", key=str(i))
    assert [p for p in ds.freeze("new").order(seed=7) if p in set(old)] == old


@settings(deadline=None)
@given(count=st.integers(1, 7), epoch=st.integers(0, 3))
def test_shards_share_out_all_parts(tmp_path_factory, count, epoch):
    root = tmp_path_factory.getbasetemp() / "shared"
    root.mkdir(exist_ok=True)
    ds = dataset("d", root=root)
    if not ds.parts():
        [ds.add(b"x", key=str(i)) for i in range(20)]
    snapshot = ds.freeze("s")
    shards = [snapshot.order(epoch=epoch, shard=(i, count)) for i in range(count)]
    assert sorted(p.name for shard in shards for p in shard) == list(snapshot.names)


# Reading


def test_parts_are_read_in_order_with_a_buffer_of_their_own(ds):
    for i in range(10):
        ds.add(bytes([i]) * 1000, key=str(i))
    snapshot = ds.freeze("s")
    pairs = list(snapshot.read(snapshot.order(seed=3), ahead=3))
    assert [part for part, _ in pairs] == snapshot.order(seed=3)
    assert all(len(set(bytes(data))) == 1 and len(data) == 1000 for _, data in pairs)
    pairs[0][1][:] = b"z" * 1000
    assert bytes(pairs[1][1])[0] != ord("z")


def test_a_flipped_byte_is_told(ds):
    part = ds.add(b"hello", key="a")
    os.chmod(part.path, 0o600)
    pathlib.Path(part.path).write_bytes(b"hellO")
    snapshot = ds.freeze("s")
    with pytest.raises(CorruptEntryError, match="its bytes are not those"):
        list(snapshot.read())
    assert [bytes(data) for _, data in snapshot.read(verify=False)] == [b"hellO"]
    assert snapshot.verify() == [(part, "damaged")]


def test_a_part_larger_than_the_memory_says_what_to_do(ds, monkeypatch):
    part = ds.add([bytes(1 << 20)] * 40)
    monkeypatch.setattr(free_memory, "free", lambda: 1 << 20)
    with pytest.raises(EfsStateError, match=r"40 MiB, .* read it by its path, in pieces"):
        list(ds.freeze("s").read())
    with ds.part(key="again") as path:  # a file is digested in pieces
        shutil.copyfile(part.path, path)
    assert path.part.size == 40 << 20


def test_a_file_that_is_written_after_its_block_is_told(ds):
    """The part has the size and the digest of the block's end: what comes later is damage."""
    with ds.part(".bin", key="k") as path:
        file = open(path, "wb")  # noqa: SIM115 - a writer that closes too late
        file.write(b"early")
        file.flush()
    file.write(b" and late")
    file.close()
    assert path.part.size == 5
    snapshot = ds.freeze("s")
    assert snapshot.verify() == [(path.part, "damaged")]
    with pytest.raises(CorruptEntryError, match="its bytes are not those"):
        list(snapshot.read())


@pytest.mark.parametrize("key", ["", "\0", "a/../b", "\ud800", "k" * 100_000, b"\xff\x00"])
def test_a_key_may_be_any_text_or_bytes(ds, key):
    part = ds.add(b"x", key=key)
    assert part.added and key in ds and not ds.add(b"y", key=key).added
    assert ds.remove(key) and ds.parts() == []


@pytest.mark.parametrize("data", [{b"k": b"v"}, {}, "text", ""])
def test_a_mapping_or_a_text_is_no_content(ds, data):
    with pytest.raises(TypeError, match="data: bytes"):
        ds.add(data)
    assert ds.parts() == []


@pytest.mark.parametrize("parts", [1, 40])
def test_a_snapshots_name_that_is_too_long_is_a_value_error(ds, parts):
    for i in range(parts):
        ds.add(str(i).encode())
    with pytest.raises(ValueError, match=r"bytes are too many.* 800 always fit"):
        ds.freeze("ü" * 1500)
    assert ds.snapshots() == [] and not os.listdir(f"{ds.path}/../snapshots")
    assert len(ds.freeze("x" * 800)) == parts


def test_with_a_signing_key_a_planted_part_is_refused(tmp_path, monkeypatch):
    planted = dataset("d", root=tmp_path).add(b"evil")
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "k" * 32)
    ds = dataset("d", root=tmp_path)
    own = ds.add(b"good")
    assert ds.freeze("s", [own]).verify() == []
    assert ds.freeze("t", [planted]).verify() == [(planted, "damaged")]
    with pytest.raises(CorruptEntryError):
        list(ds.at("t").read(verify=False))


@pytest.mark.parametrize("other", [None, "another key"])
@pytest.mark.parametrize(
    "use",
    [
        lambda ds: ds.remove("user-42"),
        lambda ds: ds.remove(ds.parts()[0]),
        lambda ds: ds.add(b"again", key="user-42"),
        lambda ds: "user-42" in ds,
        lambda ds: ds.freeze("unsigned"),
        lambda ds: ds.at("s"),
    ],
    ids=["remove", "remove a part", "add", "in", "freeze", "at"],
)
def test_with_another_signing_key_a_dataset_is_refused(tmp_path, monkeypatch, use, other):
    """Its keys have other digests then: a part that is there would seem not to be."""
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "one key")
    ds = dataset("d", root=tmp_path)
    part = ds.add(b"personal", key="user-42")
    ds.freeze("s")
    files = sorted(tmp_path.rglob("*"))
    monkeypatch.delenv("EFSSTATE_SIGNING_KEY")
    if other:
        monkeypatch.setenv("EFSSTATE_SIGNING_KEY", other)
    with pytest.raises(CorruptEntryError):
        use(dataset("d", root=tmp_path))
    assert sorted(tmp_path.rglob("*")) == files
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "one key")
    assert ds.at("s").verify() == [] and not ds.add(b"again", key="user-42").added
    assert ds.remove("user-42") and not os.path.exists(part.path)


def test_one_damaged_claim_stops_no_other_key(tmp_path):
    """Any link that can be read tells that the dataset has this process's signing key."""
    ds = dataset("d", root=tmp_path)
    parts = [ds.add(b"x", key=str(i)) for i in range(2)]
    claim = tmp_path / "datasets" / "d" / "keys" / parts[0].key
    claim.unlink()
    claim.symlink_to("damaged")
    protocol._of_our_key.clear()
    assert "1" in ds and "2" not in ds and ds.add(b"y", key="2").added
    with pytest.raises(CorruptEntryError):
        ds.remove("0")


def test_the_part_behind_is_begun_while_the_caller_waits(ds, monkeypatch):
    """With one part ahead two are read at once: else a link's delay passes in vain at each part."""
    for i in range(3):
        ds.add(b"x", key=str(i))
    both, load = threading.Barrier(2, timeout=30), Snapshot._load
    snapshot = ds.freeze("s")

    def load_with_another(self, part, *, verify):
        if part.name in snapshot.names[:2]:
            both.wait()
        return load(self, part, verify=verify)

    monkeypatch.setattr(Snapshot, "_load", load_with_another)
    assert len(list(snapshot.read(ahead=1))) == 3


def test_reading_keeps_few_buffers(ds, monkeypatch):
    """A caller that keeps none has at most `ahead + 2` of them in memory."""
    for i in range(12):
        ds.add(b"x" * 100, key=str(i))
    buffers, most, load = [], 0, Snapshot._load

    def watch(self, part, *, verify):
        data = load(self, part, verify=verify)
        buffers.append(weakref.ref(data))
        return data

    monkeypatch.setattr(Snapshot, "_load", watch)
    for _part, _data in ds.freeze("s").read(ahead=1):
        most = max(most, sum(buffer() is not None for buffer in buffers))
    assert 1 <= most <= 3 and len(buffers) == 12


def test_reading_may_be_given_up_in_the_middle(ds):
    for i in range(10):
        ds.add(b"x", key=str(i))
    before = threading.active_count()
    for _part, _data in ds.freeze("s").read(ahead=4):
        break
    assert threading.active_count() < before + 10


# Removing


def test_a_removed_key_is_told_from_a_lost_part(ds):
    removed, lost = ds.add(b"1", key="removed"), ds.add(b"2", key="lost")
    snapshot = ds.freeze("s")
    assert ds.remove("removed") and not ds.remove("removed")
    os.unlink(lost.path)
    assert snapshot.missing == [removed]
    assert sorted(snapshot.verify(), key=str) == sorted(
        [(removed, "removed"), (lost, "lost")], key=str
    )
    with pytest.raises(PartRemoved):
        list(snapshot.read([removed]))
    with pytest.raises(CorruptEntryError, match="lost"):
        list(snapshot.read([lost]))
    assert list(snapshot.read([removed], missing="skip")) == []


def test_a_removed_key_never_comes_back(ds):
    ds.add(b"1", key="a")
    assert ds.remove("a")
    again = ds.add(b"1", key="a")
    assert again.removed and not again.added and not os.path.exists(again.path)
    assert not ds.remove("b") and ds.add(b"1", key="b").removed
    assert ds.parts() == [] and "a" in ds


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
def test_a_removal_that_cannot_take_a_staged_file_raises(ds, monkeypatch, code):
    """Its writer is frozen before the rename, which would bring the removed key back."""
    reveal, unlink = PartFolders._reveal, os.unlink

    def fail(path, **options):
        if layout.is_staged(path):
            raise OSError(code, os.strerror(code), path)
        unlink(path, **options)

    def remove_before(self, claim):
        monkeypatch.setattr(PartFolders, "_reveal", reveal)
        monkeypatch.setattr(os, "unlink", fail)
        with pytest.raises(OSError, match=os.strerror(code)):
            ds.remove("k")
        monkeypatch.setattr(os, "unlink", unlink)
        return reveal(self, claim)

    monkeypatch.setattr(PartFolders, "_reveal", remove_before)
    ds.add(b"secret", key="k")
    assert ds.remove("k")  # so the caller tries again, and this finishes the work
    assert ds.parts() == [] and ds.add(b"again", key="k").removed


def test_a_part_without_a_key_is_removed_by_itself(ds):
    part, other = ds.add(b"1"), ds.add(b"1")
    assert ds.remove(part) and ds.parts() == [other]


def test_prune_removes_old_parts_that_no_snapshot_names(ds):
    kept, old, young = ds.add(b"1", key="k"), ds.add(b"2", key="o"), ds.add(b"3", key="y")
    ds.freeze("s", [kept])
    for part in (kept, old):
        os.utime(part.path, (0, 0))
    assert ds.prune(older_than="1d", dry_run=True) == [old] and len(ds.parts()) == 3
    assert ds.prune(older_than="1d") == [old]
    assert ds.parts() == sorted([kept, young], key=lambda p: p.name)


def test_prune_beside_who_removes_and_forgets_raises_nothing(ds, monkeypatch):
    """What it has listed, another may have removed: a part, or a snapshot."""
    ds.freeze("s", [ds.add(b"1", key="k")])
    ds.add(b"2", key="o")
    scan, names = ListedFolders.scan, ListedFolders.names

    def scan_and_remove(self, folder):
        for item in scan(self, folder):
            os.unlink(f"{ds.path}/{item.name}")
            yield item

    def list_and_forget(self, folder):
        listed = names(self, folder)
        monkeypatch.setattr(ListedFolders, "names", names)
        assert listed == ["s"] and ds.forget("s")
        return listed

    monkeypatch.setattr(ListedFolders, "scan", scan_and_remove)
    monkeypatch.setattr(ListedFolders, "names", list_and_forget)
    assert ds.prune(older_than="1d") == []


@pytest.mark.parametrize("name", ["run", "Ev/1", "2026-11-30T12:00:00Z", "x" * 300])
@pytest.mark.parametrize("key", [None, "k" * 32])
def test_prune_removes_nothing_beside_a_damaged_snapshot(ds, monkeypatch, name, key):
    """Whatever its name: damaged, or signed and read by a process without the key."""
    if key:
        monkeypatch.setenv("EFSSTATE_SIGNING_KEY", key)
    kept = ds.add(b"1", key="k")
    os.utime(kept.path, (0, 0))
    ds.freeze(name)
    link = f"{ds.path}/../snapshots/{layout.snapshot_name(name)}"
    if key:
        monkeypatch.delenv("EFSSTATE_SIGNING_KEY")
    else:
        os.unlink(link)
        os.symlink("damaged", link)
    for is_dry in (True, False):
        with pytest.raises(CorruptEntryError):
            ds.prune(older_than="1d", dry_run=is_dry)
    assert ds.parts() == [kept]
    assert ds.snapshots() == [name if len(name) < 200 else os.path.basename(link)]
    assert ds.forget(name) and ds.prune(older_than="1d") == [kept]


# From one dataset to the next


def test_todo_leaves_out_what_was_removed(ds, tmp_path):
    """From the source, and from the results; a part that is lost is still there to be told."""
    parts = [ds.add(str(i).encode(), key=str(i)) for i in range(4)]
    snapshot, clean = ds.freeze("s"), dataset("clean", root=tmp_path)
    result = clean.add(b"r", key=parts[0].result_key("v1"))
    clean.remove(result)
    ds.remove("1")
    os.unlink(parts[2].path)
    assert set(snapshot.todo(clean, step="v1")) == {parts[2], parts[3]}
    assert set(snapshot.todo(clean, step="v2")) == {parts[0], parts[2], parts[3]}


def test_todo_gives_the_parts_without_a_result(ds, tmp_path):
    clean = dataset("clean", root=tmp_path)
    raw = [ds.add(str(i).encode(), key=str(i)) for i in range(5)]
    snapshot = ds.freeze("s")
    for part in raw[:3]:
        clean.add(b"result", key=part.result_key("v1"))
    assert sorted(p.name for p in snapshot.todo(clean, "v1")) == sorted(p.name for p in raw[3:])
    assert len(list(snapshot.todo(clean, "v2"))) == 5


def test_groups_are_the_same_for_everybody(ds):
    for i in range(20):
        ds.add(b"x" * 100, key=str(i))
    first = ds.freeze("first")
    groups = list(first.groups(450))
    assert [len(parts) for _, parts in groups] == [4] * 5
    assert groups == list(ds.at("first").groups(450))
    ds.add(b"y" * 100, key="new")
    [(key, parts)] = ds.freeze("second").groups("1KiB", since=first)
    assert len(parts) == 1 and key not in dict(groups)


# Names on the mount


@given(st.text(max_size=60))
def test_no_text_but_a_parts_name_is_taken_for_one(text):
    fields = layout.parse_part(text)
    assert fields is None or layout.part_name(*fields) == text


@given(st.lists(st.from_regex(layout._PART, fullmatch=True) | st.text(max_size=3), max_size=4))
def test_many_names_are_judged_as_each_is(texts):
    assert layout.are_parts(texts) == all(map(layout.is_part, texts))


@pytest.mark.parametrize("size", [0, 255, 256, 65535, 65536])
def test_bytes_in_pieces_are_the_same_value(size):
    pieces = [b"x" * (size // 2), b"y" * (size - size // 2)]
    payload = b"".join(codec.dump_pieces(pieces))
    assert payload == codec.dumps(b"".join(pieces))


@given(
    st.binary(max_size=20),
    st.integers(0, 10**15),
    st.sampled_from(["", ".json", ".tar.gz", ".7z"]),
)
def test_a_parts_name_can_be_parsed(key, size, suffix):
    digest = layout.key_digest(key, None)
    name = layout.part_name(digest, size, "ab" * 16, suffix)
    assert layout.parse_part(name) == (digest, size, "ab" * 16, suffix)


@pytest.mark.parametrize(
    "text", ["../../etc", "- - x", "0123456789abcdef .tmp-x y", "a b", "a b c d", ""]
)
def test_a_planted_claim_leads_nowhere(ds, text):
    """Without a signing key anybody may seal a link: its names are checked before they are used."""
    folders = ds.folders(reading=False)
    key = layout.key_digest("k", None)
    freezing.links.create(folders.mount, folders.keys, key, text)
    with pytest.raises(CorruptEntryError, match="not a claim"):
        ds.add(b"x", key="k")


def test_names_of_two_processes_differ():
    assert layout.staged_name("0" * 32, ".a") != layout.staged_name("0" * 32, ".a")
    assert layout.is_staged(layout.staged_name("0" * 32, ".tar.gz"))
    assert layout.is_list(layout.list_name())
