"""Publication interrupted: killed after each change of the disk, failed at each, full disks.

What is seen, and what goes on.
"""

import errno
import os
import shutil
import time

import pytest
from tests.modelstore.conftest import active, dying, place, tree

import efsstate
from efsstate import publish
from efsstate.errors import DeadlineExceeded
from efsstate.modelstore import reader
from efsstate.mount.drafts import PartialFile


@pytest.fixture
def old(root, tmp_path):
    """A version that is active before."""
    file = tmp_path / "old"
    file.write_text("old")
    return publish("m", file, root=root)


def whole(root, source, old, made=None):
    """What every reader may meet: the old version or the new one, and never a part of it."""
    seen = active(root, "m")
    assert seen == old or tree(place(root, "m", seen)) == tree(source)
    for one in efsstate.versions("m", root=root):
        assert one.problem is None, one.problem
    assert efsstate.verify("m", root=root) == []
    return seen


def test_killed_after_each_change_of_the_disk(root, source, old, small_ranges, monkeypatch):
    """Old or new, whole, after every one.

    A second publication ends well and writes nothing again that is on disk.
    """
    monkeypatch.setattr(reader, "THREADS", 1)
    before, at_first = root, f"{root}.0"
    shutil.copytree(before, at_first, symlinks=True)
    code, calls, said = dying(lambda: publish("m", source, root=at_first), 0)
    assert (code, said) == (0, "") and calls > 40
    outcomes = set()
    for at in range(1, calls + 1):
        root = f"{before}.{at}"
        shutil.copytree(before, root, symlinks=True)
        code, *_ = dying(lambda: publish("m", source, root=root), at)
        assert code == -9
        outcomes.add(whole(root, source, old))
        inodes = {}
        for above, _, files in os.walk(os.path.dirname(place(root, "m", "x"))):
            inodes |= {f: os.stat(f"{above}/{f}").st_ino for f in files if "/files" in above}
        code, _, said = dying(lambda: publish("m", source, root=root), 0)
        assert (code, said) == (0, "")
        made = active(root, "m")
        assert made != old and tree(place(root, "m", made)) == tree(source)
        for name, inode in inodes.items():  # what was whole was not copied again
            if name != ".efsstate-manifest":
                assert inode in {
                    os.stat(f"{above}/{f}").st_ino
                    for above, _, files in os.walk(place(root, "m", made))
                    for f in files
                    if f == name
                }
        whole(root, source, old)
        above = os.path.dirname(place(root, "m", "x"))
        left = {
            name
            for name in os.listdir(above)
            if not name.endswith(".lock")
            and not (name.startswith(".tmp-") and os.path.islink(f"{above}/{name}"))
        }
        assert left == {
            old,
            made,
            "CURRENT",
        }  # a killed publisher's empty lock, and a link not yet renamed, go with a prune
    assert len(outcomes) == 2


@pytest.mark.parametrize("error", [errno.ENOSPC, pytest.param(errno.EIO, marks=pytest.mark.slow)])
def test_each_change_of_the_disk_fails(root, source, old, small_ranges, monkeypatch, error):
    """The error is raised with a path, or everything was done.

    And never is there half a version.
    """
    monkeypatch.setattr(reader, "THREADS", 1)
    before, at_first = root, f"{root}.0"
    shutil.copytree(before, at_first, symlinks=True)
    _, calls, _ = dying(lambda: publish("m", source, root=at_first), 0)
    for at in range(1, calls + 1):
        root = f"{before}.{at}"
        shutil.copytree(before, root, symlinks=True)
        code, _, said = dying(lambda: publish("m", source, root=root), at, error)
        seen = whole(root, source, old)
        if code == 0:
            assert seen != old
        else:
            assert said.startswith("OSError") and root in said, said
        code, _, said = dying(lambda: publish("m", source, root=root), 0)
        assert (code, said) == (0, "")
        assert whole(root, source, old) != old


def test_a_full_disk_is_given_back_what_can_not_be_finished(root, source, old, monkeypatch):
    def full(self, data, offset):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)

    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "put", full)
        with pytest.raises(OSError, match="No space left") as caught:
            publish("m", source, root=root)
    assert caught.value.errno == errno.ENOSPC and root in caught.value.filename
    assert sorted(os.listdir(os.path.dirname(place(root, "m", "x")))) == sorted([old, "CURRENT"])
    assert active(root, "m") == old


def test_a_big_file_goes_on_where_it_was(root, tmp_path, small_ranges, monkeypatch):
    """Ranges that a killed publisher had written are compared, and not written again."""
    monkeypatch.setattr(reader, "THREADS", 1)
    file = tmp_path / "big"
    file.write_bytes(os.urandom(40 * 16384))
    written = 0
    real = PartialFile.put

    def put(self, data, offset):
        nonlocal written
        written += len(data)
        real(self, data, offset)

    code, *_ = dying(lambda: publish("m", file, root=root), 20, names=["pwrite"])
    assert code == -9
    monkeypatch.setattr(PartialFile, "put", put)
    made = publish("m", file, root=root)
    assert written == 20 * 16384  # 20 of the 40 ranges were there
    assert tree(place(root, "m", made))["big"] == file.read_bytes()


def test_the_deadline_ends_a_publication_and_the_next_goes_on(
    root, tmp_path, small_ranges, monkeypatch
):
    file = tmp_path / "big"
    file.write_bytes(os.urandom(20 * 16384))

    class Context:
        def get_remaining_time_in_millis(self):
            return 700

    real = PartialFile.put

    def slow(self, data, offset):
        time.sleep(0.05)
        real(self, data, offset)

    monkeypatch.setattr(reader, "THREADS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "put", slow)
        with (
            pytest.raises(
                DeadlineExceeded, match=r"MiB published in [\d.]+ s when the deadline came"
            ),
            efsstate.invocation(Context()),
        ):
            publish("m", file, root=root)
    assert active(root, "m") is None
    made = publish("m", file, root=root)
    assert tree(place(root, "m", made))["big"] == file.read_bytes()
