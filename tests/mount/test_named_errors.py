"""A system call that gets a descriptor fails without a name: our error has the file's path."""

import errno
import fcntl
import os

import pytest

from efsstate.mount import byte_locks, drafts, lock
from efsstate.mount.files import Mount


@pytest.fixture
def mount(tmp_path):
    mount = Mount(str(tmp_path))
    mount.handle("f", make=True)
    return mount


def identify(mount):
    mount.identify(mount.handle("f"), "f")


def lock_a_byte(mount):
    byte_locks.acquire(mount, "f", "0" * 48)


def look_at_a_lock(mount):
    with open(f"{mount.path}/f/LOCK", "w"):
        pass
    lock.is_held(mount, "f", "LOCK")


def take_a_lock(mount):
    lock.attempt(mount, "f", "LOCK")


def compare_a_part(mount):
    part = drafts.PartialFile(mount, "f", "part")
    part.put(memoryview(b"abc"), 0)
    part.present = 3
    part.has(memoryview(b"abc"), 0)


CALLS = {
    "identify": (identify, os, "fstat", "f"),
    "a byte's lock": (lock_a_byte, fcntl, "lockf", "f/LOCK"),
    "a look at a lock": (look_at_a_lock, fcntl, "flock", "f/LOCK"),
    "a lock": (take_a_lock, fcntl, "flock", "f/LOCK"),
    "a part's bytes": (compare_a_part, os, "pread", "f/part"),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.ENOLCK])
def test_an_error_of_a_descriptor_has_a_path(mount, monkeypatch, name, number):
    act, module, call, path = CALLS[name]

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(module, call, refuse)
        with pytest.raises(OSError, match=f"/{path}'$") as caught:
            act(mount)
    assert caught.value.filename == f"{mount.path}/{path}" and caught.value.errno == number
