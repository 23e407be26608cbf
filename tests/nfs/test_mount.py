"""The ground floor on two NFS clients: what it costs, and that a fresh look is fresh."""

import os
import shutil
import time

import pytest

from efsstate.mount import lock
from efsstate.mount.files import Mount

pytestmark = pytest.mark.nfs


def put(mount, name, data, folder="x"):
    mount.write_entry(folder, name, data, codec="")


def get(mount, name, folder="x", **how):
    return bytes(mount.read_entry(folder, name, **how).payload)


@pytest.fixture
def mounts(lab):
    return Mount(lab.a), Mount(lab.b)


def test_a_hit_of_another_clients_entry_is_three_requests(lab, mounts):
    a, b = mounts
    for i in range(3):
        put(a, f"f{i}", b"x" * 1024)
    get(b, "f0")
    get(b, "f1")  # the folder is warm now
    with lab.count("b") as sent:
        get(b, "f2", stale=20)
    assert sent.ops == {"OPEN": 1, "READ": 1, "CLOSE": 1}


@pytest.mark.parametrize("durable", [False, True])
def test_a_put_is_four_requests_durable_or_not(lab, mounts, durable):
    put(mounts[1], "warm", b"")
    with lab.count("b") as sent:
        mounts[1].write_entry("x", "f", b"x" * 1024, codec="", durable=durable)
    assert sent.ops == {"OPEN": 1, "WRITE": 1, "CLOSE": 1, "RENAME": 1}


def test_an_immutable_file_is_three_requests_and_a_note_is_one(lab, mounts):
    put(mounts[1], "warm", b"")
    with lab.count("b") as sent:
        mounts[1].create("x", "f", lambda _: [b"x" * 1024])
    assert sent.ops == {"OPEN": 1, "WRITE": 1, "CLOSE": 1}
    with lab.count("b") as sent:
        mounts[1].symlink("x", "s", "note")
    assert sent.ops == {"SYMLINK": 1}


def test_a_fresh_look_is_one_request(lab, mounts):
    put(mounts[1], "warm", b"")
    with lab.count("b") as sent:
        mounts[1].refresh("x")
    assert sent.ops == {"GETATTR": 1}
    with lab.count("b") as sent:
        mounts[1].refresh("x", older_than=20)
    assert sent.total == 0


def test_the_first_256_entries_cost_at_most_three_and_a_half(lab, mounts):
    a, b = mounts
    for i in range(256):
        put(a, f"{i // 16:x}", b"x" * 1024, folder=f"cache/ns/{i % 16:x}")
    with lab.count("b") as sent:
        for i in range(256):
            get(b, f"{i // 16:x}", folder=f"cache/ns/{i % 16:x}", stale=20)
    assert sent.total <= 3.3 * 256, sent.ops


def test_a_fresh_read_sees_what_the_client_remembers_as_missing(mounts):
    a, b = mounts
    put(a, "other", b"")
    for i in range(5):
        with pytest.raises(FileNotFoundError):
            get(b, f"f{i}")
        put(a, f"f{i}", b"there")
        with pytest.raises(FileNotFoundError):
            get(b, f"f{i}")  # the client answers from memory: the hazard is real
        assert get(b, f"f{i}", stale=0) == b"there"


def test_a_fresh_read_sees_folders_remembered_as_missing(mounts):
    a, b = mounts
    for folder in ("one/two/three", "one/two/four", "five"):
        with pytest.raises(FileNotFoundError):
            get(b, "f", folder=folder)
        put(a, "f", b"there", folder=folder)
        assert get(b, "f", folder=folder, stale=0) == b"there"


def test_a_fresh_read_sees_a_replacement_of_an_open_file(mounts):
    a, b = mounts
    for i in range(5):
        put(a, f"f{i}", b"old")
        assert get(b, f"f{i}") == b"old"
        held = b.open("x", f"f{i}")
        put(a, f"f{i}", b"new")
        assert get(b, f"f{i}", stale=0) == b"new"
        os.close(held)


def test_a_listing_is_fresh(mounts):
    a, b = mounts
    put(a, "f0", b"")
    for i in range(1, 6):
        assert sorted(b.names("x")) == [f"f{j}" for j in range(i)]
        put(a, f"f{i}", b"")


def test_a_folder_removed_and_made_anew_by_the_other_client(lab, mounts):
    a, b = mounts
    put(a, "f", b"1", folder="cache/ns/a")
    assert get(b, "f", folder="cache/ns/a") == b"1"
    shutil.rmtree(f"{lab.a}/cache")
    put(a, "f", b"2", folder="cache/ns/a")
    assert get(b, "f", folder="cache/ns/a", stale=0) == b"2"
    shutil.rmtree(f"{lab.a}/cache")
    put(b, "f", b"3", folder="cache/ns/a")
    assert get(a, "f", folder="cache/ns/a", stale=0) == b"3"


def test_a_file_removed_while_it_is_read_is_a_clean_answer(mounts):
    a, b = mounts
    put(a, "f", b"x" * 3_000_000)
    fd = b.open("x", "f")
    a.remove("x", "f")
    os.close(fd)
    with pytest.raises(FileNotFoundError):
        get(b, "f", stale=0)


def test_readers_during_replacements_see_whole_values(lab):
    def read(path):
        mount, seen, began = Mount(path), set(), time.monotonic()
        # A busy machine's process may have its first turn when others have read for seconds.
        while (seconds := time.monotonic() - began) < 3 or (len(seen) < 2 and seconds < 50):
            try:
                value = get(mount, "f", stale=0)
            except (
                FileNotFoundError
            ):  # the writer's client has put the old file aside: a reader there has it open
                continue
            assert len(value) == 5000 * value[0] and len(set(value)) == 1
            seen.add(value[0])
        return len(seen)

    a = Mount(lab.a)
    put(a, "f", bytes([1]) * 5000)
    readers = [lab.start(client, read, lab.path(client)) for client in "ab"]
    i = 0
    while any(reader.is_running() for reader in readers):
        i += 1
        put(a, "f", bytes([1 + i % 40]) * (5000 * (1 + i % 40)))
    assert all(reader.result() > 1 for reader in readers)


def test_the_lock_excludes_the_other_client(mounts):
    """And a new file of its name is noticed."""
    a, b = mounts
    held = lock.acquire(a, "x", "l", until=time.monotonic() + 5)
    assert lock.acquire(b, "x", "l", until=time.monotonic() + 0.1) is None
    held.release()
    held = lock.acquire(b, "x", "l", until=time.monotonic() + 5)
    assert held is not None and held.is_current()
    a.remove("x", "l")
    assert not held.is_current()
    held.release()


def test_a_user_without_permission_gets_an_error_with_the_path(lab, mounts):
    a, b = mounts
    put(a, "f", b"1")

    def as_another_user(path):
        os.setgid(1234)
        os.setuid(1234)
        mount = Mount(path)
        try:
            put(mount, "f", b"2")
        except PermissionError as error:
            return str(error.filename)
        return "no error"

    os.chmod(lab.a, 0o755)
    os.chmod(f"{lab.a}/x", 0o755)
    assert lab.run("b", as_another_user, lab.b).startswith(f"{lab.b}/x/.tmp-")
    assert get(b, "f", stale=0) == b"1"
