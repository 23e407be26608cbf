"""Large files are read into huge pages, and digested on another thread while they are read."""

import os
import re
import threading

import numpy as np
import pytest

from efsstate import cached
from efsstate.format import entry
from efsstate.mount import large

SIZE = (20 << 20) + 12345  # some pieces, and a part of one


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 20 + os.urandom(12345))
    return path


@pytest.fixture
def fd(path):
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def mapping_of(address):
    """Return what the kernel says of the mapping that contains an address."""
    with open("/proc/self/smaps") as file:
        text = file.read()
    for part in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text):
        begin, end = (int(bound, 16) for bound in part.split()[0].split("-"))
        if begin <= address < end:
            return part
    raise AssertionError(hex(address))


def digesting():
    """Return the threads that digest; those of other tests come and go."""
    return [thread for thread in threading.enumerate() if thread.name == "efsstate-digest"]


@pytest.mark.skipif(
    not os.path.exists("/sys/kernel/mm/transparent_hugepage"), reason="no huge pages here"
)
def test_a_large_array_lies_in_huge_pages(tmp_path):
    """And in the memory that it was read into: nothing was copied."""
    made = cached(name="large", memory=0, root=str(tmp_path))(lambda: np.ones(SIZE, "u1"))
    made()
    array = made()
    assert made.cache_info().mount == 1 and array.sum() == SIZE and array.flags.writeable
    flags = re.search(r"VmFlags: (.*)", mapping_of(array.ctypes.data))[1].split()
    assert "hg" in flags


@pytest.mark.parametrize("skipped", [0, 21])
@pytest.mark.parametrize("start", [0, 65536])
@pytest.mark.parametrize("most", [1 << 62, (3 << 20) + 7])
def test_the_digest_is_that_of_all_bytes(path, fd, monkeypatch, most, start, skipped):
    """Whatever was read before, is skipped, and comes in one read."""
    real = os.readv

    def readv(fd, buffers):
        return real(fd, [memoryview(buffers[0])[:most]])

    monkeypatch.setattr(os, "readv", readv)
    content, hashed = path.read_bytes(), entry.new_hash(None)
    data = large.fill(fd, SIZE, os.read(fd, start), hashed, skipped)
    assert bytes(data) == content
    whole = entry.new_hash(None)
    whole.update(content[skipped:])
    assert hashed.digest() == whole.digest()


def test_another_thread_digests_and_has_ended_afterwards(fd):
    class Hash:
        def __init__(self):
            self.threads, self.size = set(), 0

        def update(self, piece):
            self.threads.add(threading.get_ident())
            self.size += len(piece)

    hashed = Hash()
    large.fill(fd, SIZE, hashed=hashed)
    assert hashed.size == SIZE and not digesting()
    assert len(hashed.threads) == 1 and threading.get_ident() not in hashed.threads


def test_without_a_thread_the_reader_digests(path, fd, monkeypatch):
    def start(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    hashed, whole = entry.new_hash(None), entry.new_hash(None)
    assert bytes(large.fill(fd, SIZE, hashed=hashed)) == path.read_bytes()
    whole.update(path.read_bytes())
    assert hashed.digest() == whole.digest()


def test_a_failed_read_ends_the_thread(fd, monkeypatch):
    def readv(*_arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "readv", readv)
    with pytest.raises(OSError, match="Input/output"):
        large.fill(fd, SIZE, hashed=entry.new_hash(None))
    assert not digesting()


def test_a_file_that_shrank_gives_the_bytes_that_it_has(path, fd):
    assert large.fill(fd, SIZE + 99, hashed=entry.new_hash(None)) == path.read_bytes()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.999999])
def test_a_flipped_bit_of_a_large_array_is_a_miss(tmp_path, monkeypatch, place, signed):
    """In each piece: the array is computed again."""
    if signed:
        monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "the key")
    calls = []
    made = cached(name="large", memory=0, root=str(tmp_path))(
        lambda: calls.append(1) or np.zeros(SIZE, "u1")
    )
    made()
    assert made().sum() == 0 and len(calls) == 1
    (entry_path,) = (path for path in tmp_path.rglob("*") if len(path.name) == 48)
    with open(entry_path, "r+b") as file:
        size = os.path.getsize(entry_path)
        file.seek(4096 + int(place * (size - 4097)))
        file.write(b"\x01")
    assert made().sum() == 0 and len(calls) == 2 and made.cache_info().damaged


def test_a_forked_child_has_a_copy(tmp_path):
    """A mapping is shared with children by default."""
    data = large.memory(4 << 20)
    data[0] = 1
    if not (child := os.fork()):
        data[0] = 2
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0 and data[0] == 1


def test_without_huge_pages_it_is_plain_memory(monkeypatch):
    """Another kernel refuses the advice."""

    class Refusing(large.mmap.mmap):
        def madvise(self, *_advice):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(large.mmap, "mmap", Refusing)
    assert len(large.memory(4 << 20)) == 4 << 20


def test_memory_that_is_not_there_is_no_failure_of_the_mount():
    """As of a `bytearray`: an OSError would be reported as the mount's."""
    with pytest.raises(MemoryError, match="no memory for"):
        large.memory(1 << 60)
