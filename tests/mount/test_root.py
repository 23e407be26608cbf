"""Which folder is the root, and what a person is told when there is none."""

import logging
import os
import threading

import pytest

from efsstate import events
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


def test_without_a_name_only_the_cache_gets_a_folder_and_one_warning(caplog, tmp_path):
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
    assert caplog.records[0].efsstate == {"root": str(tmp_path / ".efsstate")}
    with pytest.raises(RootError, match=r"EFSSTATE_ROOT.*or pass root="):
        root.resolve(durable=True)


@pytest.mark.parametrize("durable", [False, True])
def test_a_root_that_is_missing_or_a_file_names_the_variable_and_the_fix(
    monkeypatch, tmp_path, durable
):
    monkeypatch.setenv("EFSSTATE_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(RootError, match=r"nowhere.*EFSSTATE_ROOT.*does not exist; mkdir -p"):
        root.resolve(durable=durable)
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


def test_on_lambda_nothing_mounted_is_an_error_that_says_what_to_set(monkeypatch):
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
    monkeypatch.setattr(root, "Mount", lambda path, **_: type("M", (), {"path": path}))
    monkeypatch.setattr(os.path, "ismount", lambda path: path == "/mnt/efs")
    assert root._open_root("/mnt/efs/app").path == "/mnt/efs/app"
    with pytest.raises(RootError, match=r"/mnt/esf.*not mounted.*local mount path"):
        root._open_root("/mnt/esf")


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


def test_durable_state_without_a_named_root_makes_no_folder_and_says_nothing_of_caching(
    caplog, tmp_path
):
    with caplog.at_level(logging.WARNING, "efsstate"):
        for reading in (False, True):
            with pytest.raises(RootError, match="no root was named"):
                root.resolve(durable=True, reading=reading)
    assert not caplog.records and os.listdir(tmp_path) == []
