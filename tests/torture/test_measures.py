"""Safety measures that no other test would miss: each test goes red without its measure."""

import errno
import os
import shutil
import sys
import time

import pytest

import efsstate
from efsstate import checkpoint, publish
from efsstate.checkpoints import fenced_removal, protocol
from efsstate.errors import ClaimedError, ClaimLost, CorruptEntryError
from efsstate.format import codec, entry, layout
from efsstate.mount import links, lock
from efsstate.mount.files import Mount
from tests import faults
from tests.torture import Skip, clocks, fuzz
from tests.torture.interrupts import open_below, open_files

strace = pytest.mark.skipif(faults.MISSING is not None, reason=str(faults.MISSING))


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    made.mkdir(mode=0o700)
    return str(made)


@strace
def test_a_save_is_synced_before_its_rename_and_its_name_after(root):
    with checkpoint("job", root=root) as job:
        job.save(1)

    def save():
        with checkpoint("job", root=root) as job:
            job.save(2)
            yield
            job.save(3)
            yield

    calls = [name for name, _ in faults.calls(save)]
    named = next(at for at, name in enumerate(calls) if name.startswith("rename"))
    assert calls[:named].count("fsync") == 1 and calls[named:].count("fsync") == 1


@pytest.fixture
def once(monkeypatch):
    """Have the next call of `os.<name>` whose first argument is `first` do something else, once."""

    def arrange(name, first, instead):
        real = getattr(os, name)

        def call(*given, **named):
            if given[0] == first or first is any:
                monkeypatch.setattr(os, name, real)
                return instead(real, *given, **named)
            return real(*given, **named)

        monkeypatch.setattr(os, name, call)

    return arrange


def _stale(real, *given, **named):
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_a_file_that_is_stale_for_once_is_looked_at_again(root, once):
    mount = Mount(root)
    mount.write_entry("x", "f", b"content", codec="")
    once("open", "f", _stale)
    assert bytes(mount.read_entry("x", "f").payload) == b"content"


def test_a_rename_that_was_done_though_it_failed_is_done(root, once):
    """As after a failover: the server did it, the reply was lost, the repetition finds nothing."""
    mount = Mount(root)

    def lost(real, *given, **named):
        real(*given, **named)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    mount.write_entry("x", "f", b"old", codec="")
    once("rename", any, lost)
    mount.write_entry("x", "f", b"new", codec="")
    assert bytes(mount.read_entry("x", "f").payload) == b"new" and mount.names("x") == ["f"]


def test_a_short_read_is_gone_on_with(root, once):
    mount = Mount(root)
    mount.replace("x", "f", lambda _: [b"content" * 200_000])
    once("readv", any, lambda real, fd, parts: real(fd, [parts[0][:1000]]))
    assert mount.read("x", "f") == b"content" * 200_000


def test_a_short_write_is_gone_on_with(root, once):
    mount = Mount(root)
    once("writev", any, lambda real, fd, parts: real(fd, [memoryview(parts[0])[:5]]))
    mount.write_entry("x", "f", b"content" * 100, codec="")
    assert bytes(mount.read_entry("x", "f").payload) == b"content" * 100


def test_a_length_that_lies_is_damage_before_anything_is_hashed(monkeypatch):
    parts = entry.encode(b"content", place="x/f", codec="", created=1.0, ttl=None)
    data = b"".join(map(bytes, parts))
    monkeypatch.setattr(entry, "new_hash", lambda *_: pytest.fail("it was hashed"))
    for changed in (data + b"more", data[:-1]):
        with pytest.raises(CorruptEntryError, match="bytes where its header says"):
            entry.decode(changed, place="x/f", root="p")


def test_who_must_be_certain_finds_what_comes_back_in_a_moment(root, once):
    """As when another client puts the old file aside before it renames the new one to its place."""
    mount = Mount(root)
    links.replace(mount, "x", "f", "content")

    def missing(real, *given, **named):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    once("readlink", "f", missing)
    assert links.read(mount, "x", "f", certain=True) == "content"
    once("readlink", "f", missing)
    with pytest.raises(FileNotFoundError):
        links.read(mount, "x", "f")


def test_a_locks_file_goes_before_the_lock(root, monkeypatch):
    """The next holder never finds the name of a file that is about to go.

    It goes under the lock.
    """
    mount = Mount(root)
    held = lock.acquire(mount, "", "LOCK", until=time.monotonic())
    seen, real = [], Mount.remove

    def remove(self, folder, name, **how):
        seen.append(lock.attempt(mount, "", "LOCK"))
        return real(self, folder, name, **how)

    monkeypatch.setattr(Mount, "remove", remove)
    held.release(remove=True)
    assert seen == [None] and not os.path.exists(f"{root}/LOCK")


def _content(path):
    with open(path, "rb") as file:
        return file.read()


def test_a_save_behind_a_damaged_base_does_not_count(root):
    """A fenced holder's save beyond the base stays out when the base itself is damaged."""
    with checkpoint("job", root=root) as job:
        job.save("one")
        job.save("two")
        checkpoint("job", root=root).break_claim()
        with pytest.raises(ClaimLost):
            job.save("never")
    folder = f"{root}/checkpoints/job"
    second, third = (
        next(name for name in os.listdir(folder) if name.endswith(end)) for end in ("-2", "-3")
    )
    assert third  # it is there, and newer than the base
    with open(f"{folder}/{second}", "r+b") as file:
        file.seek(60)
        file.write(b"damage")
    assert checkpoint("job", root=root).load() == "one"


def test_with_a_key_a_models_bytes_are_checked(root, tmp_path, monkeypatch):
    """Also if their number is right."""
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "secret")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir(mode=0o700)
    (tmp_path / "model").write_bytes(b"good" * 1000)
    version = publish("m", tmp_path / "model", root=root)
    readers = {
        "read": lambda files: bytes(files.read()),
        "path": lambda files: _content(files.path),
        "mmap": lambda files: bytes(files.mmap()),
        "stage": lambda files: _content(files.stage()),
    }
    for name, load in readers.items():
        assert efsstate.model("m", load=load, root=root)() == b"good" * 1000, name
    path = f"{root}/models/m/versions/{version}/model"
    with open(path, "r+b") as file:
        file.write(b"evil" * 1000)
    shutil.rmtree(tmp_path / "tmp" / f"efsstate-models-{os.geteuid()}")
    for load in readers.values():
        with pytest.raises(CorruptEntryError, match="SHA-256"):
            efsstate.model("m", load=load, verify=None, root=root)()


def test_a_module_that_is_named_in_the_bytes_is_not_imported():
    import msgpack

    assert "antigravity" not in sys.modules
    for code, more in ((15, [[], []]), (16, [[], []]), (17, ["x"])):
        message = msgpack.packb([msgpack.ExtType(code, b""), "antigravity", "x", *more])
        with pytest.raises(ValueError, match="not imported"):
            codec.loads(b"\xc1" + len(message).to_bytes(4, "little") + message)
    assert "antigravity" not in sys.modules


def test_a_slow_clock_serves_nothing_for_longer_than_its_ttl(root):
    try:
        behind, right = clocks.Client(root, "-3h"), clocks.Client(root)
    except Skip as reason:
        pytest.skip(str(reason))
    try:
        right("set", "brief", 1, "x", 1)
        right("set", "long", 1, "x", None)
        time.sleep(1.2)
        assert (
            behind("get", "brief", 1, 1) is None
        )  # though it has never written, and so knows only its own clock
        assert behind("get", "long", 1, None) == "x"
    finally:
        behind.end()
        right.end()


def test_no_bomb_takes_more_than_it_may():
    count, wrong = fuzz.burst()
    assert count > 20 and wrong == []


def test_a_clients_own_clock_does_not_matter(root):
    """Clients 26 hours ahead and behind: what they put lives its ttl.

    They sweep what is expired.
    """
    try:
        ahead, behind, right = (
            clocks.Client(root, "+26h"),
            clocks.Client(root, "-26h"),
            clocks.Client(root),
        )
    except Skip as reason:
        pytest.skip(str(reason))
    try:
        right("set", "hour", 1, "kept", 3600)
        right("set", "brief", 1, "gone", 0.001)
        right("sweep", 0)  # begins a round, for which the others write nothing any more
        time.sleep(0.05)
        assert ahead("sweep") == 1 and behind("sweep") == 0
        assert right("fresh", "hour", 1, 3600) == "kept"
        right("set", "brief", 1, "gone", 0.001)
        time.sleep(0.05)
        assert behind("sweep") == 1
        for client in (ahead, behind):
            client("set", "own", 1, "x", None)
            client("set", "mine", 1, "there", 3600)
            for reader in (ahead, behind, right):
                reader("set", "own", 1, "x", None)  # so that it knows the server's clock
                assert reader("fresh", "mine", 1, 3600) == "there"
    finally:
        for client in (ahead, behind, right):
            client.end()


def open_locks(root):
    return list(open_files(open_below(root)).values())


def test_a_forked_child_has_no_lock_file_of_its_parent_open(tmp_path):
    """Not even of a lock that another thread was taking, whom nobody ends in the child.

    It would keep others out of the checkpoint for as long as the child lives, after the parent
    died.
    """
    mount = Mount(str(tmp_path))
    os.makedirs(tmp_path / "checkpoints/job")
    held = lock.attempt(mount, "checkpoints/job", "LOCK")
    assert held is not None
    assert faults.elsewhere(open_locks, str(tmp_path)) == []
    assert open_locks(str(tmp_path)) == ["/checkpoints/job/LOCK"]
    held.release()


def test_an_interrupted_write_leaves_no_temporary(tmp_path, monkeypatch):
    """A signal's handler raises between the two: the temporary file goes."""
    mount = Mount(str(tmp_path))

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Mount, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mount.write_entry("cache/ns/a", "f", b"new", codec="")
    assert os.listdir(tmp_path / "cache/ns/a") == []


def test_a_removal_judges_what_it_fenced(root):
    """A job that was begun anew between the look and the removal stays."""
    with checkpoint("job", root=root) as job:
        job.save(1)
    assert fenced_removal.remove(Mount(root), "checkpoints/job", lambda _: False) is None
    assert checkpoint("job", root=root).load() == 1


def test_a_removal_that_was_overtaken_takes_its_mark_back(root, monkeypatch):
    """A claim that does not see the lock comes before the mark: the job goes on without it."""
    with checkpoint("job", root=root) as job:
        job.save(1)
    make_link = protocol.CheckpointFolder.make_link

    def overtaken(self, name, text):
        if name == layout.REMOVED:
            make_link(self, layout.epoch_name(self.list().top + 1), "{}")
        make_link(self, name, text)

    monkeypatch.setattr(protocol.CheckpointFolder, "make_link", overtaken)
    with pytest.raises(ClaimedError):
        fenced_removal.remove(Mount(root), "checkpoints/job")
    assert layout.REMOVED not in os.listdir(f"{root}/checkpoints/job")


def test_an_item_that_nobody_noted_is_not_skipped(root):
    """After a first crash it is not known which item it was: each is tried, and noted from now."""

    def crash():
        with checkpoint("job", root=root) as job:
            for item in job.resume(range(3), attempts=1):
                if item == 1:
                    os._exit(1)

    assert _dies(crash)
    with checkpoint("job", root=root) as job:
        assert list(job.resume(range(3), attempts=1)) == [0, 1, 2]


def _dies(function):
    """Run the function in a child; return True if it ended there as it should."""
    child = os.fork()
    if not child:
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
