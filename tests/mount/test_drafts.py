"""Files that are filled before they are seen, when threads, forks and deep stacks interfere."""

import errno
import os
import sys
import threading

import pytest
from tests.mount import alarms

from efsstate.mount import drafts, files
from efsstate.mount.folders import Descriptor


@pytest.fixture
def mount(tmp_path):
    made = files.Mount(str(tmp_path))
    made.make("x")
    return made


class Gate:
    """A stand-in for `os.writev` that stops in the middle of the first write."""

    def __init__(self, monkeypatch):
        self.began, self.goes_on, self.real = threading.Event(), threading.Event(), os.writev
        monkeypatch.setattr(os, "writev", self)

    def __call__(self, fd, buffers):
        if not self.began.is_set():
            done = os.write(fd, bytes(buffers[0])[:3])
            self.began.set()
            assert self.goes_on.wait(20)
            return done
        return self.real(fd, buffers)


def test_a_draft_given_up_during_its_write_touches_no_other_file(mount, tmp_path, monkeypatch):
    """The writer goes on by the descriptor's number, which must not be another file's by then."""
    gate, draft = Gate(monkeypatch), files.PendingFile(mount, "x", ".tmp-1")
    kept = []

    def write():
        kept.append(draft.commit("x", "f", lambda _: [b"secret result"], unless=lambda: False))

    writer = threading.Thread(target=write)
    writer.start()
    assert gate.began.wait(20)
    draft.discard()
    others = [os.open(tmp_path / f"other{n}", os.O_RDWR | os.O_CREAT) for n in range(20)]
    gate.goes_on.set()
    writer.join(20)
    assert [os.fstat(fd).st_size for fd in others] == [0] * 20
    for fd in others:
        os.close(fd)
    assert kept == [False] and mount.names("x") == []


def test_a_part_closed_during_its_write_touches_no_other_file(mount, tmp_path, monkeypatch):
    began, goes_on, real = threading.Event(), threading.Event(), os.pwrite
    part = drafts.PartialFile(mount, "x", "part")

    def pwrite(fd, data, offset):
        if began.is_set():
            return real(fd, data, offset)
        began.set()
        assert goes_on.wait(20)
        return real(fd, data[:3], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    writer = threading.Thread(target=lambda: part.put(memoryview(b"content"), 0))
    writer.start()
    assert began.wait(20)
    part.close()
    others = [os.open(tmp_path / f"other{n}", os.O_RDWR | os.O_CREAT) for n in range(20)]
    goes_on.set()
    writer.join(20)
    assert [os.fstat(fd).st_size for fd in others] == [0] * 20
    for fd in others:
        os.close(fd)
    with pytest.raises(OSError, match="closed") as caught:
        part.put(memoryview(b"content"), 0)
    assert caught.value.errno == errno.EBADF and caught.value.filename == str(tmp_path / "x/part")


def test_a_draft_is_stored_once_and_then_over(mount):
    draft = files.PendingFile(mount, "x", ".tmp-1")
    assert draft.commit("y", "f", lambda _: [b"content"], unless=lambda: False)
    assert not draft.commit("y", "g", lambda _: [b"content"], unless=lambda: False)
    assert mount.read("y", "f") == b"content" and mount.names("x") == []


def test_a_draft_that_was_removed_is_not_stored(mount):
    draft = files.PendingFile(mount, "x", ".tmp-1")
    mount.remove("x", draft.name)
    assert not draft.commit("x", "f", lambda _: [b"content"], unless=lambda: False)
    assert mount.names("x") == []


def test_drafts_do_not_outlive_a_recursion_that_is_too_deep(mount):
    """Their owners have no stack left to discard them: they go with their objects."""

    def recurse(depth):
        draft = files.PendingFile(mount, "x", f".tmp-{depth}")
        try:
            recurse(depth + 1)
        finally:
            draft.discard()

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        with pytest.raises(RecursionError):
            recurse(0)
    finally:
        sys.setrecursionlimit(limit)
    assert mount.names("x") == []


def test_a_replacement_too_deep_on_the_stack_leaves_no_temporary(mount):
    def recurse():
        mount.replace("x", "f", lambda _: [b"content"])
        recurse()

    limit = sys.getrecursionlimit()
    for extra in range(12):
        sys.setrecursionlimit(300 + extra)
        try:
            with pytest.raises(RecursionError):
                recurse()
        finally:
            sys.setrecursionlimit(limit)
        assert mount.names("x") == ["f"], extra


def test_a_descriptor_closes_once_and_after_its_last_use(tmp_path):
    file = Descriptor()
    file.open(str(tmp_path / "f"), os.O_RDWR | os.O_CREAT)
    with file as outer:
        with file as inner:
            file.close()
            assert inner == outer and os.fstat(outer)
        assert os.fstat(outer) and not file.is_open
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(outer)
    file.close()
    with pytest.raises(OSError, match="closed"), file:
        pass


def test_of_many_threads_that_close_one_does(tmp_path, monkeypatch):
    closed, real = [], os.close
    for _ in range(200):
        file = Descriptor()
        file.open(str(tmp_path / "f"), os.O_RDWR | os.O_CREAT)
        monkeypatch.setattr(os, "close", lambda fd: closed.append(fd) or real(fd))
        threads = [threading.Thread(target=file.close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        monkeypatch.undo()
        assert len(closed) == 1
        closed.clear()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_draft_that_an_alarm_met_as_it_was_given_up_is_gone(mount, tmp_path):
    """Else the sweep removes it, an hour later."""

    def give_up():
        files.PendingFile(mount, "x", ".tmp-1").discard()

    moments = list(alarms.at_each_moment(give_up))
    assert os.listdir(tmp_path / "x") == [] and len(moments) > 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_link_that_an_alarm_interrupts_leaves_no_temporary(mount, tmp_path):
    """CURRENT of a model, or a job's number of shards: the old text or the new, at any moment."""
    mount.relink("x", "l", "old")
    moments = 0
    for moment in alarms.at_each_moment(lambda: mount.relink("x", "l", "new")):
        moments += 1
        assert os.listdir(tmp_path / "x") == ["l"], moment
        assert os.readlink(tmp_path / "x/l") in ("old", "new")
    assert moments > 5


def test_an_error_of_a_partial_file_names_it(mount, tmp_path, monkeypatch):
    """A full quota may show when the file's size is asked for, which has no name of its own."""
    real, calls = os.fstat, []

    def fstat(fd):
        calls.append(fd)
        if len(calls) == 2:  # the first sees whether it is a regular file
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return real(fd)

    before = len(os.listdir("/proc/self/fd"))
    mount.handle("", make=True)
    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(OSError, match="/part'") as caught:
        drafts.PartialFile(mount, "", "part")
    assert caught.value.errno == errno.EDQUOT and len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_time_limit_leaves_no_file_of_a_look_at_the_clock(mount, tmp_path):
    """A handler's TimeoutError is an OSError, and no refusal of the server's."""
    moments = list(alarms.at_each_moment(lambda: mount.ask_time("x"), kind=alarms.Late))
    assert os.listdir(tmp_path / "x") == [] and len(moments) > 10
