"""fsspec: blocks of remote files on the mount, each fetched once, and never of two contents."""

import errno
import pathlib
import pickle
import subprocess
import sys
import threading
import tomllib

import pytest

pytest.importorskip("fsspec", reason="pip install fsspec")

import fsspec
from fsspec import caching

from efsstate.adapters.fsspec import EfsCacheFileSystem
from efsstate.mount.files import Mount

fsspec.register_implementation("efscache", EfsCacheFileSystem, clobber=True)
DATA = bytes(range(256)) * 40
PATH = "/bucket/object"


@pytest.fixture
def source(monkeypatch):
    """A file system in memory with one file, and the ranges that were asked for."""
    memory = fsspec.filesystem("memory", skip_instance_cache=True)
    memory.store.clear()
    memory.pipe(PATH, DATA)
    memory.ranges = []

    def cat_file(path, start=None, end=None, **options):
        memory.ranges.append((start, end))
        return type(memory).cat_file(memory, path, start, end, **options)

    monkeypatch.setattr(memory, "cat_file", cat_file)
    yield memory
    memory.store.clear()


def system(source, **options):
    """Another process's file system, with nothing in memory."""
    options = {"block": 1000, "memory": 0} | options
    return EfsCacheFileSystem(fs=source, skip_instance_cache=True, **options)


def test_the_entry_point_names_it():
    path = pathlib.Path(__file__).parents[2] / "pyproject.toml"
    if not path.exists():
        pytest.skip("only in the source tree")
    points = tomllib.loads(path.read_text())["project"]["entry-points"]["fsspec.specs"]
    assert points == {"efscache": "efsstate.adapters.fsspec:EfsCacheFileSystem"}


def test_a_chained_url_reads_through_the_mount(source, entries):
    with fsspec.open("efscache::memory://bucket/object", efscache={"block": 4000}) as file:
        assert file.read() == DATA
    assert len(entries()) == 3


def test_any_range_is_the_sources(source):
    """Ranges within blocks, across them, and beyond the end, from memory and from the mount."""
    ours = system(source, block=7)
    for _ in range(2):
        with ours.open(PATH) as file:
            for start, length in ((0, 1), (6, 1), (6, 2), (7, 7), (3, 40), (0, 0), (10_230, 99)):
                file.seek(start)
                assert file.read(length) == DATA[start : start + length]
    assert ours.cat_file(PATH, -5, None) == DATA[-5:] and ours.tail(PATH, 9) == DATA[-9:]
    assert ours.cat_file(PATH, 3, -3) == DATA[3:-3] and ours.head(PATH, 9) == DATA[:9]
    assert ours.cat_ranges([PATH, PATH], [0, 99], [3, 123]) == [DATA[:3], DATA[99:123]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of its "mmap"
def test_each_cache_type_of_fsspec_reads_the_file(source):
    """But "parts", which in fsspec needs a `data` that was read before."""
    source.pipe("/bucket/empty", b"")
    ours = system(source)
    for cache_type in set(caching.caches) - {"parts"}:
        with ours.open(PATH, cache_type=cache_type) as file:
            file.seek(5_500)
            assert file.read(2_000) == DATA[5_500:7_500], cache_type
            file.seek(0)
            assert file.read() == DATA and file.read() == b"", cache_type
        with ours.open("/bucket/empty", cache_type=cache_type) as file:
            assert file.read() == b"", cache_type


def test_a_thread_that_reads_meanwhile_changes_nothing(source):
    """The cache type "background" has one."""

    class Replaced(tuple):
        __slots__ = ()

        def __getitem__(self, index):  # the thread's read comes between two looks
            file._last = (9, b"another block")
            return super().__getitem__(index)

    with system(source).open(PATH) as file:
        assert file.read(500) == DATA[:500]
        file._last = Replaced(file._last)
        assert file.read(500) == DATA[500:1_000]


def test_a_block_is_fetched_once_and_only_if_it_is_read(source):
    with system(source).open(PATH) as file:
        file.seek(5_500)
        assert file.read(10) == DATA[5_500:5_510]
    assert source.ranges == [(5_000, 6_000)]
    assert system(source).cat(PATH) == DATA
    assert system(source).cat(PATH) == DATA
    assert sorted(source.ranges) == [(at, min(at + 1_000, 10_240)) for at in range(0, 10_240, 1000)]


def test_small_reads_in_a_row_read_each_block_once(source, monkeypatch):
    system(source).cat(PATH)
    reads, read = [], Mount.find_entry

    def count(*arguments, **options):
        reads.append(arguments)
        return read(*arguments, **options)

    monkeypatch.setattr(Mount, "find_entry", count)
    with system(source).open(PATH) as file:
        while file.read(100):
            pass
    assert len(reads) == 11


def test_a_changed_file_is_seen_at_the_next_open(source):
    ours = system(source)
    assert ours.cat(PATH) == DATA
    source.pipe(PATH, DATA[::-1])
    assert ours.cat(PATH) == system(source).cat(PATH) == DATA[::-1]
    source.rm(PATH)
    with pytest.raises(FileNotFoundError):
        ours.cat(PATH)


def test_no_listing_of_the_past_hides_a_change(source, monkeypatch):
    """As S3's: its answer is kept until `invalidate_cache`."""
    listing, info = {}, source.info
    monkeypatch.setattr(source, "info", lambda path: listing.setdefault(path, info(path)))
    monkeypatch.setattr(source, "invalidate_cache", lambda path=None: listing.pop(path, None))
    ours = system(source)
    assert ours.cat(PATH) == DATA
    source.pipe(PATH, b"new")
    assert ours.info(PATH)["size"] == len(DATA) and ours.cat(PATH) == b"new"


def test_one_file_is_never_of_two_contents(source, entries):
    """It changes between two blocks: what is stored goes on, and what is not is an error."""
    ours = system(source)
    ours.cat_file(PATH, 0, 1_000)
    with ours.open(PATH) as file:
        source.pipe(PATH, b"x" * len(DATA))
        assert file.read(1_000) == DATA[:1_000]
        stored = len(entries())
        with pytest.raises(OSError, match="changed while it was read") as caught:
            file.read(1_000)
    assert caught.value.errno == errno.ESTALE and len(entries()) == stored
    assert ours.cat(PATH) == b"x" * len(DATA)


def test_a_source_that_gives_too_little_is_an_error(source, monkeypatch, entries):
    monkeypatch.setattr(source, "cat_file", lambda path, **_: b"few")
    with pytest.raises(OSError, match="3 bytes came for 0 to 1000"):
        system(source).cat_file(PATH, 0, 10)
    assert entries() == []


def test_a_tag_of_the_content_is_its_name(source, monkeypatch):
    """Then other fields may differ by host; a weak tag does not name bytes."""
    info, more = source.info, {"ETag": '"d41d"', "by": "host 1"}
    monkeypatch.setattr(source, "info", lambda path: info(path) | more)
    ours = system(source)
    first = ours.identify(PATH)
    more["by"] = "host 2"
    assert ours.identify(PATH) == first
    more["ETag"] = '"other"'
    second = ours.identify(PATH)
    more["ETag"] = 'W/"weak"'
    third = ours.identify(PATH)
    more["by"] = "host 3"
    assert len({first, second, third, ours.identify(PATH)}) == 4


def test_a_stream_without_a_size_is_the_sources(source, monkeypatch, entries):
    info = source.info
    monkeypatch.setattr(source, "info", lambda path: info(path) | {"size": None})
    with system(source).open(PATH) as file:
        assert file.read() == DATA
    assert entries() == []


def test_a_folder_is_no_file(source):
    with pytest.raises(IsADirectoryError):
        system(source).open("/bucket")


def test_writes_are_the_sources(source):
    ours = system(source)
    with ours.open("/bucket/text", "w") as file:
        file.write("é")
    ours.pipe("/bucket/more", b"1")
    assert source.cat("/bucket/text").decode() == "é" and ours.cat("/bucket/more") == b"1"
    with ours.open("/bucket/text") as file:
        assert file.read() == "é".encode()
    with ours.open("/bucket/text", "r") as file:
        assert file.read() == "é"
    ours.mv("/bucket/text", "/bucket/moved")
    assert ours.ls("/bucket", detail=False) == source.ls("/bucket", detail=False)
    with ours.transaction, ours.open("/bucket/late", "wb") as file:
        file.write(b"1")
        assert not source.exists("/bucket/late")
    assert source.exists("/bucket/late")


def test_paths_and_copies_are_as_fsspec_has_them(source):
    ours = fsspec.filesystem("efscache", target_protocol="memory", name="named", block=999)
    for path in ("memory://a", "efscache://a", "efscache::memory://a", "/a"):
        assert ours._strip_protocol(path) == "/a"
    copy = pickle.loads(pickle.dumps(ours))
    assert copy == ours and hash(copy) == hash(ours) and copy.block == 999
    assert type(ours).from_json(ours.to_json()) == ours
    first, _ = fsspec.url_to_fs("efscache::memory://bucket/object")
    second, _ = fsspec.url_to_fs("efscache::memory://elsewhere")
    assert first is second, "an instance for each path would be a leak"
    mapper = fsspec.get_mapper("efscache::memory://bucket")
    assert mapper["object"] == DATA and list(mapper) == ["object"]


def test_what_only_the_source_has_can_be_called(source):
    ours = system(source)
    assert ours.store is source.store
    with pytest.raises(AttributeError):
        _ = ours.no_such_method


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "exactly one of fs and target_protocol"),
        ({"target_protocol": "memory", "block": 0}, "at least one byte"),
        ({"target_protocol": "memory", "block": "large"}, "block"),
        ({"target_protocol": "no such"}, "no such"),
        ({"target_protocol": "memory", "name": ""}, "name"),
    ],
)
def test_wrong_options_are_a_value_error(options, words):
    with pytest.raises(ValueError, match=words):
        EfsCacheFileSystem(skip_instance_cache=True, **options)


def test_a_path_of_ten_kilobytes_is_a_path(source):
    path = "/bucket/" + "k" * 10_000
    source.pipe(path, b"long")
    assert system(source).cat(path) == system(source).cat(path) == b"long"
    assert len(source.ranges) == 1


def test_a_failing_mount_costs_a_fetch(source, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Mount, "write_entry", fail)
    monkeypatch.setattr(Mount, "find_entry", fail)
    assert system(source).cat(PATH) == DATA


def test_a_hanging_mount_costs_a_fetch(source, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(Mount, "find_entry", lambda *_, **__: release.wait(60) and None)
    try:
        assert system(source, io_timeout=0.2).cat_file(PATH, 0, 9) == DATA[:9]
    finally:
        release.set()


def test_damage_is_fetched_again(source, entries):
    system(source).cat_file(PATH, 0, 9)
    (path,) = entries()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert system(source).cat_file(PATH, 0, 1_000) == DATA[:1_000] and len(source.ranges) == 2


READER = """
import os, sys, fsspec
from efsstate.adapters.fsspec import EfsCacheFileSystem

class Local(fsspec.get_filesystem_class("file")):
    def cat_file(self, path, start=None, end=None, **options):
        os.write(1, b"fetch %d\\n" % start)  # whole: several threads fetch
        return super().cat_file(path, start, end, **options)

source = EfsCacheFileSystem(fs=Local(), block=100)
sys.stdin.readline()
assert len(source.cat(sys.argv[1])) == 1000
"""


def test_processes_fetch_a_block_once(tmp_path, environment):
    path = tmp_path / "object"
    path.write_bytes(b"0123456789" * 100)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, path],
            env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    for reader in readers:
        reader.stdin.write("go\n")
        reader.stdin.flush()
    lines = [line for reader in readers for line in reader.communicate()[0].splitlines()]
    assert [reader.returncode for reader in readers] == [0, 0, 0]
    assert sorted(lines) == [f"fetch {start}" for start in range(0, 1000, 100)]
