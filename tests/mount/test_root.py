"""Which folder is the root, and what a person is told when there is none."""

import logging
import os
import threading

import pytest

from efsstate import Cache, cached, checkpoint, events, model
from efsstate.errors import RootError
from efsstate.mount import root


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setattr(root, "_known", {})
    monkeypatch.setattr(events, "_logged", set())
    monkeypatch.setattr(root, "_DEFAULT", str(tmp_path / "no-mnt-efs"))
    for name in "EFSSTATE_ROOT", "AWS_LAMBDA_FUNCTION_NAME", "EFSSTATE_SIGNING_KEY":
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_an_argument_comes_before_the_variable(monkeypatch, tmp_path):
    for name in "a", "b":
        (tmp_path / name).mkdir()
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "a"))
    assert root.resolve().path == str(tmp_path / "a")
    assert root.resolve(tmp_path / "b").path == str(tmp_path / "b")
    assert root.resolve("b").path == str(tmp_path / "b")
    assert root.resolve() is root.resolve()
    monkeypatch.setenv(
        "EFSSTATE_ROOT", str(tmp_path / "b")
    )  # a test changes it: the next call follows
    assert root.resolve().path == str(tmp_path / "b")


def test_without_a_name_only_the_cache_gets_a_folder(caplog, tmp_path):
    with caplog.at_level(logging.WARNING, "efsstate"):
        assert root.resolve().path == str(tmp_path / ".efsstate")
        root.resolve()
        root._known.clear()
        root.resolve()
    assert (
        len(caplog.records) == 1
        and "EFSSTATE_ROOT" in caplog.text
        and "or pass root= (the command: --root)" in caplog.text
    )
    path = str(tmp_path / ".efsstate")
    assert caplog.records[0].efsstate == {"kind": "root", "event": "unnamed", "path": path}
    with pytest.raises(RootError, match=r"EFSSTATE_ROOT.*or pass root="):
        root.resolve(durable=True)


@pytest.mark.parametrize("durable", [False, True])
def test_a_root_that_is_a_file_names_the_variable_and_the_fix(monkeypatch, tmp_path, durable):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "file"))
    with pytest.raises(RootError, match=r"file.*EFSSTATE_ROOT.*not a directory"):
        root.resolve(durable=durable)


@pytest.mark.parametrize("bad", ["", "a\0b"])
def test_a_root_that_is_no_path_is_refused(bad):
    with pytest.raises(RootError, match="not a path"):
        root.resolve(bad)


def test_durable_state_needs_a_writable_root(monkeypatch, tmp_path):
    monkeypatch.setattr(
        os, "access", lambda path, mode: False
    )  # the tests run as root, whom no mode stops
    assert root.resolve(tmp_path).path
    with pytest.raises(RootError, match=r"not writable for uid \d+.*ClientWrite"):
        root.resolve(tmp_path, durable=True)


def test_on_lambda_nothing_mounted_is_an_error_with_advice(monkeypatch):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
    monkeypatch.setattr(os.path, "ismount", lambda path: False)
    with pytest.raises(RootError, match=r"no file system is mounted.*EFSSTATE_ROOT"):
        root.resolve()


def test_on_lambda_the_only_mount_is_taken_and_of_several_none(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
    real = os.listdir
    monkeypatch.setattr(
        os, "listdir", lambda path: ["data", "other"] if path == "/mnt" else real(path)
    )
    monkeypatch.setattr(os.path, "ismount", lambda path: path == "/mnt/data")
    assert root._choose(None) == ("/mnt/data", "the only mount", True)
    monkeypatch.setattr(os.path, "ismount", lambda path: path in ("/mnt/data", "/mnt/other"))
    with pytest.raises(RootError, match=r"several.*/mnt/data, /mnt/other"):
        root.resolve()


def test_on_lambda_a_named_root_below_mnt_must_be_mounted(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
    monkeypatch.setattr(
        root, "Mount", lambda path, **_: type("M", (), {"path": path, "is_present": True})
    )
    monkeypatch.setattr(os.path, "ismount", lambda path: path == "/mnt/efs")
    assert root.resolve("/mnt/efs/app").path == "/mnt/efs/app"
    with pytest.raises(RootError, match=r"/mnt/esf.*not mounted.*local mount path"):
        root.resolve("/mnt/esf")


def test_the_signing_key_reaches_the_mount(monkeypatch, tmp_path):
    assert root.resolve(tmp_path).key is None
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "secret")
    keyed = root.resolve(tmp_path).key
    assert len(keyed) == 32
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "other")
    assert root.resolve(tmp_path).key != keyed


def test_a_root_that_hangs_at_its_first_use_holds_up_no_other(monkeypatch, tmp_path):
    """And a child that is forked meanwhile has its own first use."""
    for name in "a", "b":
        (tmp_path / name).mkdir()
    inside, gate, made = threading.Event(), threading.Event(), root.Mount

    def make(path, **more):
        if path == str(tmp_path / "a") and threading.current_thread() is hanging:
            inside.set()
            assert gate.wait(30)
        return made(path, **more)

    monkeypatch.setattr(root, "Mount", make)
    hanging = threading.Thread(target=root.resolve, args=(tmp_path / "a",))
    hanging.start()
    assert inside.wait(10)
    try:
        others = [
            threading.Thread(target=root.resolve, args=(tmp_path / name,)) for name in ("a", "b")
        ]
        for other in others:
            other.daemon = True
            other.start()
            other.join(10)
        assert not any(other.is_alive() for other in others)
        pid = os.fork()
        if not pid:
            import signal

            signal.alarm(10)
            monkeypatch.setattr(root, "_known", {})
            os._exit(0 if root.resolve(tmp_path / "a").path else 1)
        assert os.waitpid(pid, 0)[1] == 0
        first = root.resolve(tmp_path / "a")
    finally:
        gate.set()
        hanging.join(10)
    assert root.resolve(tmp_path / "a") is first  # who came later does not put another in its place


def test_durable_state_without_a_named_root_makes_no_folder(caplog, tmp_path):
    with caplog.at_level(logging.WARNING, "efsstate"):
        for reading in (False, True):
            with pytest.raises(RootError, match="no root was named"):
                root.resolve(durable=True, reading=reading)
    assert not caplog.records and os.listdir(tmp_path) == []


@pytest.mark.parametrize("durable", [False, True])
def test_a_named_root_is_created_with_its_parents(monkeypatch, tmp_path, durable):
    """Nobody has a shell on EFS to mkdir."""
    named = tmp_path / "a" / "b" / "c"
    monkeypatch.setenv("EFSSTATE_ROOT", str(named))
    mount = root.resolve(durable=durable)
    assert named.is_dir() == durable
    mount.replace("x", "f", lambda _: [b"1"])
    assert mount.read("x", "f") == b"1" and mount.is_present
    assert root.resolve(named / "other").path == str(named / "other")


def test_reading_creates_nothing_and_finds_nothing(monkeypatch, tmp_path):
    named = tmp_path / "a" / "b"
    monkeypatch.setenv("EFSSTATE_ROOT", str(named))
    mount = root.resolve(durable=True, reading=True)
    assert mount.names("x") == [] and list(mount.scan("models")) == []
    with pytest.raises(FileNotFoundError):
        mount.read("x", "f")
    with pytest.raises(FileNotFoundError):
        mount.stat("", "x")
    assert not mount.remove("x", "f") and not mount.remove_folder("x")
    assert os.listdir(tmp_path) == []
    same = root.resolve(durable=True)
    assert same is mount and named.is_dir()
    mount.replace("x", "f", lambda _: [b"1"])
    assert mount.read("x", "f") == b"1"


def test_a_root_that_appears_is_seen_by_a_reader(tmp_path):
    mount = root.resolve(tmp_path / "a", durable=True, reading=True)
    assert mount.names("") == []
    (tmp_path / "a" / "x").mkdir(parents=True)
    assert mount.names("") == ["x"]


@pytest.mark.parametrize("function", [None, "f"])
def test_a_root_below_mnt_is_created_only_on_a_mount(monkeypatch, function):
    """An unmounted disk must not be mistaken for the mount."""
    made = []
    monkeypatch.setattr(os, "makedirs", lambda path, *_, **__: made.append(path))
    if function:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", function)
    monkeypatch.setattr(os.path, "ismount", lambda path: path in ("/", "/mnt/efs-of-tests"))
    for path in ["/mnt/esf-of-tests/app", *["/srv-of-tests/app"][: bool(function)]]:
        with pytest.raises(RootError, match="not mounted"):
            root.resolve(path, durable=True)
    assert made == []
    with pytest.raises((FileNotFoundError, RootError)):  # makedirs has made none
        root.resolve("/mnt/efs-of-tests/app", durable=True)
    assert made == ["/mnt/efs-of-tests/app"]


def test_a_root_that_cannot_be_created_says_so(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RootError, match="not a directory"):
        root.resolve(tmp_path / "file" / "below")

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", refused)
    mount = root.resolve(tmp_path / "a")
    for _ in range(2):
        with pytest.raises(
            RootError, match=r"can't be created: Permission denied; set EFSSTATE_ROOT"
        ):
            mount.make("x")


def test_a_relative_root_stays_the_same_after_a_chdir(monkeypatch, tmp_path):
    for name in "one", "two":
        (tmp_path / name).mkdir()
    monkeypatch.setenv("EFSSTATE_ROOT", "state")
    monkeypatch.chdir(tmp_path / "one")
    first, kept = root.resolve(), root.absolute("other")
    monkeypatch.chdir(tmp_path / "two")
    assert root.resolve() is first and root.place(None) == first.path == f"{tmp_path}/one/state"
    assert kept == f"{tmp_path}/one/other" and root.absolute(kept) == kept
    # A relative `root=` that is first seen here is here, whatever the same text meant before.
    assert root.resolve("state").path == f"{tmp_path}/two/state"


@pytest.mark.skipif(os.geteuid() != 0, reason="only uid 0 can give files away")
def test_files_that_uid_0_creates_are_the_roots_owners(tmp_path):
    """One `sudo efsstate gc` must not lock the functions out."""
    os.chown(tmp_path, 1001, 1002)
    mount = root.resolve(tmp_path / "app", durable=True)
    mount.replace("a/b", "f", lambda _: [b"1"])
    mount.create("a/b", "g", lambda _: [b"1"])
    os.close(mount.open("a/b", "lock", os.O_RDWR | os.O_CREAT))
    mount.symlink("a/b", "link", "text")
    for name in ("", "app", "app/a", "app/a/b", *[f"app/a/b/{n}" for n in ("f", "g", "lock")]):
        status = (tmp_path / name).lstat()
        assert (status.st_uid, status.st_gid) == (1001, 1002), name
    assert (tmp_path / "app/a/b/link").lstat().st_uid == 1001


@pytest.mark.skipif(os.geteuid() != 0, reason="only uid 0 can give files away")
def test_a_file_of_another_owner_is_left_to_it(tmp_path):
    os.chown(tmp_path, 1001, 1002)
    mount = root.resolve(tmp_path, durable=True)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "lock").touch()
    os.chown(tmp_path / "x" / "lock", 1003, 1003)
    os.close(mount.open("x", "lock", os.O_RDWR | os.O_CREAT))
    assert (tmp_path / "x" / "lock").stat().st_uid == 1003


def test_a_relative_root_is_where_the_object_was_made(monkeypatch, tmp_path):
    """States must not go to another folder, nor saves be acknowledged into it."""
    for name in "one", "two":
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    job, box = checkpoint("job", root="state"), Cache("box", root="state")
    f = cached(name="f", root="state")(lambda x: x)
    load = model("m", load=str, root="state")
    monkeypatch.chdir(tmp_path / "two")
    with job:
        job.save(1)
    box.set("k", 1), f(1)
    with pytest.raises(LookupError):
        load()
    assert os.listdir(tmp_path / "two") == []
    assert sorted(os.listdir(tmp_path / "one" / "state")) == ["cache", "checkpoints"]
