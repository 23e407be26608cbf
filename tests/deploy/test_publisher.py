"""The publisher, against moto's S3 on loopback.

What arrives, that it goes on where it was, and what it says when it cannot.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time

import boto3
import botocore.config
import pytest
from botocore.exceptions import ClientError
from tests.s3 import Context

import efsstate
from efsstate import publisher
from efsstate.errors import ClaimedError, EfsStateError
from efsstate.mount import lock
from efsstate.mount.drafts import PartialFile
from efsstate.mount.files import Mount

MIB = 1 << 20


class Counting:
    """The real client, which notes what is asked, and may fail or take time on the way."""

    def __init__(self, client, before=lambda operation, arguments: None):
        self.client, self.before, self.asked = client, before, []

    def __getattr__(self, operation):
        def call(**arguments):
            self.asked.append((operation, arguments.get("Key"), arguments.get("Range")))
            self.before(operation, arguments)
            return getattr(self.client, operation)(**arguments)

        return call


def put(s3, key, data):
    s3.put_object(Bucket=s3.bucket, Key=key, Body=data)


def left_over(tmp_path):
    shared = tmp_path / "root" / "shared-data"
    return (
        [name for name in os.listdir(shared) if name.startswith(".incoming-")]
        if shared.exists()
        else []
    )


def test_an_object_becomes_a_version_that_model_loads(s3, tmp_path, capsys):
    data = os.urandom(20 * MIB + 5)
    put(s3, "models/net.bin", data)
    told = publisher.handler(
        {"source": f"s3://{s3.bucket}/models/net.bin", "model": "net"}, Context(60)
    )
    assert told["finished"]
    assert told["bytes"] == told["total"] == len(data)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["version"] == told["version"]
    from efsstate import model, versions

    with open(model("net")(), "rb") as file:
        assert file.read() == data
    assert [one.id for one in versions("net")] == [told["version"]]
    assert left_over(tmp_path) == []


def test_a_prefix_becomes_a_version_with_its_folders(s3, tmp_path):
    files = {
        "config.json": b"{}",
        "weights/a.bin": os.urandom(100_000),
        "weights/deep/b.bin": b"b",
        "empty": b"",
    }
    for name, data in files.items():
        put(s3, f"llm/v1/{name}", data)
    put(s3, "llm/v1/folder/", b"")  # the console's marker of a folder
    put(s3, "llm/v10/other", b"no")
    for source in ("llm/v1/", "llm/v1"):  # with and without the slash
        told = publisher.run(f"s3://{s3.bucket}/{source}", model="llm")
        path = tmp_path / "root" / "models" / "llm" / "versions" / told["version"]
        assert {name: (path / name).read_bytes() for name in files} == files
        assert told["files"] == 4
        assert not (path / "folder").exists()


def test_to_shared_data_replaces_each_file_in_one_step(s3, tmp_path):
    put(s3, "lexicon/a.txt", b"new a")
    put(s3, "lexicon/deep/b.txt", b"new b")
    shared = tmp_path / "root" / "shared-data" / "lexicon" / "german"
    shared.mkdir(parents=True)
    (shared / "a.txt").write_bytes(b"old a")
    (shared / "mine.txt").write_bytes(b"stays")
    with open(shared / "a.txt", "rb") as held:
        told = publisher.run(f"s3://{s3.bucket}/lexicon/", to="lexicon/german")
        assert held.read() == b"old a"
    assert told["path"] == str(shared)
    assert (shared / "a.txt").read_bytes() == b"new a"
    assert (shared / "deep" / "b.txt").read_bytes() == b"new b"
    assert (shared / "mine.txt").read_bytes() == b"stays"
    assert left_over(tmp_path) == []


def small(monkeypatch, part=64 * 1024):
    monkeypatch.setattr(publisher, "_PART", part)
    monkeypatch.setattr(publisher, "_PARTS", 2)


def test_it_ends_before_the_deadline_and_goes_on_where_it_was(s3, tmp_path, monkeypatch):
    """Each window takes a second.

    A call of nine has room for some, and says that it has not finished.
    """
    small(monkeypatch)
    data = os.urandom(10 * 2 * 64 * 1024)
    put(s3, "net", data)
    asked, told, calls = [], {"finished": False}, 0
    while not told["finished"]:
        client = Counting(
            s3, lambda operation, _: time.sleep(0.3 if operation == "get_object" else 0)
        )
        with publisher.Invocation(Context(7)):
            told = publisher.run(f"s3://{s3.bucket}/net", model="net", client=client)
        asked += [range_ for operation, _, range_ in client.asked if operation == "get_object"]
        calls += 1
        assert calls < 10
    assert calls > 1
    assert len(asked) == len(set(asked)) == 20, "no range was read twice"
    assert (
        tmp_path / "root" / "models" / "net" / "versions" / told["version"] / "net"
    ).read_bytes() == data


@pytest.mark.parametrize("at", [1, 3, 8])
def test_an_error_in_the_middle_loses_one_window_only(s3, tmp_path, monkeypatch, at):
    """An error in the middle loses what one window holds and no more."""
    small(monkeypatch)
    data = os.urandom(5 * 2 * 64 * 1024)
    put(s3, "net", data)
    count = 0

    def fail(operation, _):
        nonlocal count
        if operation == "get_object":
            count += 1
            if count == at:
                raise ClientError(
                    {"Error": {"Code": "SlowDown", "Message": "slow down"}}, "GetObject"
                )

    with pytest.raises(EfsStateError, match="SlowDown"):
        publisher.run(f"s3://{s3.bucket}/net", model="net", client=Counting(s3, fail))
    again = Counting(s3)
    told = publisher.run(f"s3://{s3.bucket}/net", model="net", client=again)
    read = [one for one in again.asked if one[0] == "get_object"]
    assert len(read) == 10 - 2 * ((at - 1) // 2)
    assert (
        tmp_path / "root" / "models" / "net" / "versions" / told["version"] / "net"
    ).read_bytes() == data


def test_a_torn_tail_that_a_killed_call_left_is_overwritten(s3, tmp_path, monkeypatch):
    small(monkeypatch)
    data = os.urandom(4 * 64 * 1024)
    put(s3, "net", data)
    with pytest.raises(EfsStateError):
        publisher.run(f"s3://{s3.bucket}/net", model="net", client=Counting(s3, stop_after(2)))
    (incoming,) = left_over(tmp_path)
    with open(tmp_path / "root" / "shared-data" / incoming / "files" / "net", "ab") as file:
        file.write(b"garbage" * 100_000)
    told = publisher.run(f"s3://{s3.bucket}/net", model="net")
    assert (
        tmp_path / "root" / "models" / "net" / "versions" / told["version"] / "net"
    ).read_bytes() == data


def stop_after(number):
    count = 0

    def before(operation, _):
        nonlocal count
        count += operation == "get_object"
        if count > number:
            raise ClientError({"Error": {"Code": "SlowDown", "Message": "slow down"}}, "GetObject")

    return before


def test_an_object_that_changes_under_way_is_noticed(s3, tmp_path, monkeypatch):
    """An object that changes under way is noticed and copied anew."""
    small(monkeypatch)
    put(s3, "net", b"a" * (4 * 64 * 1024))
    done = []

    def swap(operation, arguments):
        if operation == "get_object" and not done and "131072" in arguments["Range"]:
            done.append(1)
            put(s3, "net", b"b" * (4 * 64 * 1024))

    with pytest.raises(EfsStateError, match="changed while it was copied"):
        publisher.run(f"s3://{s3.bucket}/net", model="net", client=Counting(s3, swap))
    told = publisher.run(f"s3://{s3.bucket}/net", model="net")
    assert set(
        (tmp_path / "root" / "models" / "net" / "versions" / told["version"] / "net").read_bytes()
    ) == {ord("b")}


def test_a_move_that_was_cut_short_goes_on(s3, tmp_path, monkeypatch):
    for name in "abc":
        put(s3, f"x/{name}", name.encode())
    real, moved = Mount.rename, []

    def rename(self, folder, name, *more, **how):
        if folder.endswith("/files"):
            if moved:
                raise OSError(5, "Input/output error")
            moved.append(name)
        return real(self, folder, name, *more, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Mount, "rename", rename)
        with pytest.raises(OSError, match="Input/output"):
            publisher.run(f"s3://{s3.bucket}/x/", to="x")
    client = Counting(s3)
    publisher.run(f"s3://{s3.bucket}/x/", to="x", client=client)
    assert [one for one in client.asked if one[0] == "get_object"] == []
    assert sorted(os.listdir(tmp_path / "root" / "shared-data" / "x")) == ["a", "b", "c"]
    assert left_over(tmp_path) == []


def test_two_at_once_do_not_meet(s3, monkeypatch):
    put(s3, "net", b"x")
    monkeypatch.setattr(publisher, "_WAIT", 0.2)
    begun, go_on = threading.Event(), threading.Event()

    def wait(operation, _):
        if operation == "get_object":
            begun.set()
            go_on.wait(30)

    source, told = f"s3://{s3.bucket}/net", {}
    first = threading.Thread(
        target=lambda: told.update(publisher.run(source, model="net", client=Counting(s3, wait)))
    )
    first.start()
    try:
        assert begun.wait(30)
        with pytest.raises(ClaimedError, match="call again later"):
            publisher.run(source, model="net")
    finally:
        go_on.set()
        first.join()
    assert told["finished"]


def test_copies_given_up_a_day_ago_go(s3, tmp_path):
    old = tmp_path / "root" / "shared-data" / f".incoming-{24 * '1'}"
    young = tmp_path / "root" / "shared-data" / f".incoming-{24 * '2'}"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "PROGRESS").write_text("[0, 0]")
    os.utime(old / "PROGRESS", (0, time.time() - 1.1 * 86400))
    put(s3, "net", b"x")
    publisher.run(f"s3://{s3.bucket}/net", model="net")
    assert left_over(tmp_path) == [young.name]


@pytest.mark.parametrize("present", [[], ["files"]])
def test_a_copy_without_note_and_lock_goes_after_a_day(s3, tmp_path, present):
    """A call that was killed as it began, or as it ended, leaves neither."""
    folder = tmp_path / "root" / "shared-data" / f".incoming-{24 * '1'}"
    folder.mkdir(parents=True)
    for name in present:
        (folder / name).mkdir()
        (folder / name / "net").write_bytes(b"x" * 1000)
    old = time.time() - 1.1 * 86400
    for path in [folder, *(folder / name for name in present)]:
        efsstate.sweep(root=tmp_path / "root")
        assert left_over(tmp_path) == [folder.name], "one that still changes stays"
        os.utime(path, (old, old))
    report = efsstate.sweep(root=tmp_path / "root")
    assert left_over(tmp_path) == [] and report.removed_bytes >= 1000 * len(present)


class Killed(BaseException):
    """The end of a process."""


def test_a_kill_during_the_clean_up_loses_no_file(s3, tmp_path, monkeypatch):
    """Lambda invokes it again: it must not go on behind files that the clean-up had removed."""
    files = {f"{name}.bin": name.encode() * 100 for name in "abcdef"}
    for name, data in files.items():
        put(s3, f"net/{name}", data)
    removals, kills, real = 0, 0, Mount.remove

    def remove(mount, folder, name, **options):
        nonlocal removals, kills
        if ".incoming-" in folder:
            removals += 1
            if removals > kills:
                raise Killed
        return real(mount, folder, name, **options)

    names = Mount.names  # of a folder, in an order that a file system may have
    for kills in range(20):
        removals = 0
        with monkeypatch.context() as patch:
            patch.setattr(Mount, "names", lambda *one: sorted(names(*one), reverse=True))
            patch.setattr(Mount, "remove", remove)
            try:
                publisher.run(f"s3://{s3.bucket}/net/", model="net")
                break
            except Killed:
                pass
        told = publisher.run(f"s3://{s3.bucket}/net/", model="net")
        path = tmp_path / "root" / "models" / "net" / "versions" / told["version"]
        assert {name: (path / name).read_bytes() for name in files} == files, kills
        assert left_over(tmp_path) == []
    assert kills >= len(files)


def test_a_file_that_went_before_the_publication_is_missed(s3, tmp_path, monkeypatch):
    """Another call, which was frozen and has lost its claim, may remove what this one copies."""
    for name in "abc":
        put(s3, f"net/{name}", name.encode())
    with monkeypatch.context() as patch:
        copy_without_b(patch)
        with pytest.raises(EfsStateError, match="net/: b: its copy was removed or changed"):
            publisher.run(f"s3://{s3.bucket}/net/", model="net")
    assert left_over(tmp_path) == []
    told = publisher.run(f"s3://{s3.bucket}/net/", model="net")
    path = tmp_path / "root" / "models" / "net" / "versions" / told["version"]
    assert sorted(name for name in os.listdir(path) if len(name) == 1) == [*"abc"]


def freeze():
    """Lose all locks without notice, as one does that is frozen for longer than a lease."""
    for claim in list(lock._locks):
        if claim._file.is_open:
            with claim._file as fd:
                fcntl.flock(fd, fcntl.LOCK_UN)


def frozen_before(start, s3, **target):
    """A client of a call that is frozen at the request for the byte `start`, while a retry ends."""
    results = []

    def before(operation, arguments):
        if arguments.get("Range", "").startswith(f"bytes={start}-") and not results:
            results.append({})
            freeze()
            results[0] |= publisher.run(f"s3://{s3.bucket}/net", **target)

    return Counting(s3, before), results


@pytest.mark.parametrize("target", [{"model": "net"}, {"to": "x"}])
def test_a_call_that_was_frozen_leaves_no_hole_of_zeros(s3, tmp_path, monkeypatch, target):
    """Its retry has finished, and removed the first ranges: it must not write on behind them."""
    small(monkeypatch)
    data = os.urandom(6 * 64 * 1024)
    put(s3, "net", data)
    client, results = frozen_before(2 * 64 * 1024, s3, **target)
    with pytest.raises(ClaimedError, match="another call has finished the copy"):
        publisher.run(f"s3://{s3.bucket}/net", client=client, **target)
    assert results[0]["finished"]
    again = publisher.run(f"s3://{s3.bucket}/net", **target)
    assert left_over(tmp_path) == []
    if "to" in target:
        assert (tmp_path / "root" / "shared-data" / "x" / "net").read_bytes() == data
        return
    from efsstate import model, versions

    assert [each.id for each in versions("net")] == [results[0]["version"]] == [again["version"]]
    with open(model("net")(), "rb") as file:
        assert file.read() == data


def test_a_note_from_before_a_freeze_leads_to_no_hole(s3, tmp_path, monkeypatch):
    """The frozen call writes it into the folder of the next copy, and is killed."""
    small(monkeypatch)
    data = os.urandom(6 * 64 * 1024)
    put(s3, "net", data)
    real = publisher._Copy._write_progress

    def write_progress(copy):
        monkeypatch.setattr(publisher._Copy, "_write_progress", real)
        freeze()
        publisher.run(f"s3://{s3.bucket}/net", model="net")
        real(copy)
        raise Killed

    monkeypatch.setattr(publisher._Copy, "_write_progress", write_progress)
    with pytest.raises(Killed):
        publisher.run(f"s3://{s3.bucket}/net", model="net")
    assert len(left_over(tmp_path)) == 1
    version = publisher.run(f"s3://{s3.bucket}/net", model="net")["version"]
    path = tmp_path / "root" / "models" / "net" / "versions" / version
    assert (path / "net").read_bytes() == data
    assert left_over(tmp_path) == []


def test_a_call_that_was_frozen_cuts_nothing_off(s3, tmp_path, monkeypatch):
    """Another call goes on in the same file: its ranges lie behind those of the frozen one."""
    small(monkeypatch)
    data = os.urandom(8 * 64 * 1024)
    put(s3, "net", data)
    finish, sizes = PartialFile.finish, []

    def fail(operation, arguments):
        if arguments.get("Range", "").startswith(f"bytes={6 * 64 * 1024}-"):
            raise ClientError({"Error": {"Code": "SlowDown", "Message": "slow down"}}, operation)

    def frozen(target, size):
        monkeypatch.setattr(PartialFile, "finish", finish)
        freeze()
        with pytest.raises(EfsStateError, match="SlowDown"):
            publisher.run(f"s3://{s3.bucket}/net", model="net", client=Counting(s3, fail))
        finish(target, size)
        sizes.append(os.path.getsize(target.path))
        raise Killed

    monkeypatch.setattr(PartialFile, "finish", frozen)
    with pytest.raises(Killed):
        publisher.run(f"s3://{s3.bucket}/net", model="net")
    assert sizes[0] >= 6 * 64 * 1024
    again = Counting(s3)
    version = publisher.run(f"s3://{s3.bucket}/net", model="net", client=again)["version"]
    path = tmp_path / "root" / "models" / "net" / "versions" / version
    assert (path / "net").read_bytes() == data
    assert len([each for each in again.asked if each[0] == "get_object"]) == 2


@pytest.mark.parametrize("target", [{"model": "net"}, {"to": "x"}])
def test_a_call_that_was_frozen_takes_nothing_back(s3, tmp_path, target):
    """Its retry has finished, and what is served was changed since."""
    put(s3, "net", b"new")
    frozen, results = frozen_before(0, s3, **target)

    def before(operation, arguments):
        is_first = not results
        frozen.before(operation, arguments)
        if results and is_first:
            (tmp_path / "newer").write_bytes(b"newer")
            if "to" in target:
                os.replace(tmp_path / "newer", tmp_path / "root" / "shared-data" / "x" / "net")
            else:
                efsstate.publish("net", tmp_path / "newer", version="newer")

    with pytest.raises(ClaimedError, match="another call has finished the copy"):
        publisher.run(f"s3://{s3.bucket}/net", client=Counting(s3, before), **target)
    if "to" in target:
        assert (tmp_path / "root" / "shared-data" / "x" / "net").read_bytes() == b"newer"
    else:
        assert [each.id for each in efsstate.versions("net") if each.active] == ["newer"]


@pytest.mark.parametrize("names", ["b", "abc"])
def test_a_call_frozen_before_the_publication_raises(s3, tmp_path, monkeypatch, names):
    """Its retry has finished, and removes the copy at this moment, file by file."""
    for name in [*"abc", "d.lock"]:
        put(s3, f"net/{name}", name.encode())
    real = publisher._require_whole

    def require_whole(mount, folder, *more):
        monkeypatch.setattr(publisher, "_require_whole", real)
        try:
            return real(mount, folder, *more)
        finally:
            mount.remove(folder, "PROGRESS")
            for name in names:
                mount.remove(f"{folder}/files", name)
            if names == "abc":
                mount.remove(f"{folder}/files", "d.lock")
                mount.remove_folder(f"{folder}/files")

    monkeypatch.setattr(publisher, "_require_whole", require_whole)
    with pytest.raises(ClaimedError, match="another call has finished the copy"):
        publisher.run(f"s3://{s3.bucket}/net/", model="net")
    version = publisher.run(f"s3://{s3.bucket}/net/", model="net")["version"]
    assert [each.id for each in efsstate.versions("net")] == [version]
    path = tmp_path / "root" / "models" / "net" / "versions" / version
    assert sorted(name for name in os.listdir(path) if name[0] != ".") == [*"abc"]
    assert left_over(tmp_path) == []


def test_a_call_frozen_before_its_clean_up_removes_nothing(s3, tmp_path, monkeypatch):
    """Its retry has finished, and a third call copies the same again."""
    put(s3, "net/a", b"a")
    real, others = publisher.publication.publish, []

    def publish(*arguments, **options):
        version = real(*arguments, **options)
        (folder,) = (tmp_path / "root/shared-data").glob(".incoming-*")
        (folder / "LOCK").unlink()
        (folder / "LOCK").touch()
        others.extend([folder / "PROGRESS", folder / "files" / "a"])
        return version

    monkeypatch.setattr(publisher.publication, "publish", publish)
    assert publisher.run(f"s3://{s3.bucket}/net/", model="net")["finished"]
    assert all(path.exists() for path in others) and len(others) == 2


def copy_without_b(monkeypatch):
    """Have the next copy lose the file `b` when it is whole."""
    real = publisher._Copy.run

    def run(copy):
        is_finished = real(copy)
        copy._mount.remove(f"{copy._folder}/files", "b")
        return is_finished

    monkeypatch.setattr(publisher._Copy, "run", run)


def test_an_older_file_of_that_size_was_not_moved(s3, tmp_path, monkeypatch):
    """A file of the copy is gone, and the one in its place is not the copy's own."""
    for name in "abc":
        put(s3, f"net/{name}", b"new " + name.encode())
    old = tmp_path / "root" / "shared-data" / "x" / "b"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old b")
    os.utime(old, (0, time.time() - 60))
    with monkeypatch.context() as patch:
        copy_without_b(patch)
        with pytest.raises(EfsStateError, match="net/: b: its copy was removed or changed"):
            publisher.run(f"s3://{s3.bucket}/net/", to="x")
    assert left_over(tmp_path) == [] and os.listdir(old.parent) == ["b"]
    publisher.run(f"s3://{s3.bucket}/net/", to="x")
    assert old.read_bytes() == b"new b"


def test_a_copy_keeps_its_lock_until_all_is_removed(s3, tmp_path, monkeypatch):
    """Else another call begins a copy in the folder, and loses its files to this one's removal."""
    for name in "abc":
        put(s3, f"net/{name}", b"x")
    removed, real = [], Mount.remove

    def remove(mount, folder, name, **options):
        if ".incoming-" in folder:
            removed.append(name)
        return real(mount, folder, name, **options)

    monkeypatch.setattr(Mount, "remove", remove)
    publisher.run(f"s3://{s3.bucket}/net/", model="net")
    assert removed[0] == "PROGRESS" and removed[-1] == "LOCK" and {*"abc"} < set(removed)


@pytest.mark.parametrize(
    "note", ["[9, 0]", "[-1, 0]", "[0, -5]", "[0, 9]", "[true, 0]", "[0.0, 0]"]
)
def test_a_damaged_note_begins_anew(s3, tmp_path, monkeypatch, note):
    put(s3, "net/a", b"x" * 5)
    real = Mount.read_stat

    def read_stat(mount, folder, name, *rest):
        if name == "PROGRESS":
            return note.encode(), None
        return real(mount, folder, name, *rest)

    monkeypatch.setattr(Mount, "read_stat", read_stat)
    told = publisher.run(f"s3://{s3.bucket}/net/", model="net")
    assert (told["bytes"], told["finished"]) == (5, True)
    path = tmp_path / "root" / "models" / "net" / "versions" / told["version"]
    assert (path / "a").read_bytes() == b"x" * 5


def test_a_users_own_folder_is_no_abandoned_copy(s3, tmp_path):
    """By its name, by what is in it, and where another call holds the lock."""
    shared = tmp_path / "root" / "shared-data"
    own = shared / ".incoming-report"
    strange = shared / f".incoming-{24 * 'a'}"
    for folder in (own, strange):
        folder.mkdir(parents=True)
        (folder / "PROGRESS").write_text("[0, 0]")
        (folder / "mine.csv").write_text("precious")
        os.utime(folder / "PROGRESS", (0, 0))
    put(s3, "net", b"x")
    publisher.run(f"s3://{s3.bucket}/net", model="net")
    assert (own / "mine.csv").exists() and (own / "PROGRESS").exists()
    assert (strange / "mine.csv").exists()


def test_an_empty_object_beside_a_prefix_of_its_name_is_a_marker(s3, tmp_path):
    put(s3, "models/ocr", b"")
    put(s3, "models/ocr/w.bin", b"weights")
    told = publisher.run(f"s3://{s3.bucket}/models/ocr", model="ocr")
    path = tmp_path / "root" / "models" / "ocr" / "versions" / told["version"]
    assert sorted(os.listdir(path)) == [".efsstate-manifest", "w.bin"]


def test_an_empty_object_alone_is_a_file(s3):
    put(s3, "lexicon", b"")
    assert publisher.run(f"s3://{s3.bucket}/lexicon", to="words")["files"] == 1


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (["m/a", "m/tok", "m/tok/a"], ["m/tok", "m/tok/a"]),
        (["m/a", "m/tok", "m/tok-b", "m/tok/deep/a"], ["m/tok", "m/tok/deep/a"]),
        (["m/a", "m//b"], ["m//b"]),
        (["m/a", "m/b/"], ["m/b/"]),
        (["m/a", "m/./b"], ["m/./b"]),
        (["m/a", "m/" + 300 * "x"], ["m/" + 300 * "x"]),
    ],
)
def test_keys_that_cannot_be_files_are_refused_first(s3, tmp_path, keys, named):
    """Before anything is copied, and by their names; a key that ends in "/" may hold data, too."""
    for key in keys:
        put(s3, key, b"data")
    client = Counting(s3)
    with pytest.raises(EfsStateError, match="can't be a file") as caught:
        publisher.run(f"s3://{s3.bucket}/m/", model="m", client=client)
    assert all(f"s3://{s3.bucket}/{key}" in str(caught.value) for key in named)
    assert [op for op, *_ in client.asked if op == "get_object"] == []
    assert os.listdir(tmp_path / "root") == []


def test_a_copy_that_can_never_be_published_goes_at_once(s3, tmp_path):
    """The id has other content: whoever calls again gets the same error, and no copy more."""
    put(s3, "a", b"1")
    put(s3, "b", b"2")
    publisher.run(f"s3://{s3.bucket}/a", model="m", version="v1")
    for _ in range(3):
        with pytest.raises(EfsStateError, match="with other content"):
            publisher.run(f"s3://{s3.bucket}/b", model="m", version="v1")
        assert left_over(tmp_path) == []


def test_a_copy_of_an_object_that_changed_goes_at_once(s3, tmp_path, monkeypatch):
    small(monkeypatch)
    put(s3, "net", b"a" * (4 * 64 * 1024))

    def swap(operation, arguments):
        if operation == "get_object" and "131072" in arguments["Range"]:
            put(s3, "net", b"b" * (4 * 64 * 1024))

    with pytest.raises(EfsStateError, match="changed while it was copied"):
        publisher.run(f"s3://{s3.bucket}/net", model="net", client=Counting(s3, swap))
    assert left_over(tmp_path) == []


def test_a_failed_copy_is_swept_after_a_day(s3, tmp_path, monkeypatch):
    from efsstate import sweep

    small(monkeypatch)
    for name in "abc":
        put(s3, name, os.urandom(4 * 64 * 1024))
        client = Counting(s3, stop_after(2))
        with pytest.raises(EfsStateError, match="SlowDown"):
            publisher.run(f"s3://{s3.bucket}/{name}", model=name, client=client)
    assert len(left_over(tmp_path)) == 3
    sweep(root=tmp_path / "root")
    assert len(left_over(tmp_path)) == 3
    for folder, _, files in os.walk(tmp_path / "root" / "shared-data"):
        for name in files:
            os.utime(f"{folder}/{name}", (0, time.time() - 1.1 * 86400))
    report = sweep(root=tmp_path / "root")
    assert left_over(tmp_path) == [] and report.finished


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({}, "the event is"),
        ({"source": "s3://b/k"}, "the event is"),
        ({"source": "s3://b/k", "model": "m", "to": "x"}, "the event is"),
        ({"source": "https://b/k", "model": "m"}, "not s3://"),
        ({"source": "s3:///k", "model": "m"}, "not s3://"),
        ({"source": 3, "model": "m"}, "not s3://"),
        ({"source": "s3://b/k", "model": "../m"}, "m"),
        ({"source": "s3://b/k", "to": "../x"}, "can't be a folder"),
        ({"source": "s3://b/k", "to": "/x"}, "can't be a folder"),
        ({"source": "s3://b/k", "model": "m", "tmie": 1}, "'tmie'"),
        ({"source": "s3://b/k", "model": "m", "secret": "t"}, "a secret is for a hub"),
        ({"source": "s3://b/k", "hub": "a/b", "model": "m"}, "the event is"),
        ({"hub": "a/b"}, "the event is"),
        ({"hub": "a/b", "to": "x"}, "the event is"),
        ({"hub": "a/b", "dataset": "x"}, "the event is"),
        ({"hub": "a/b", "model": "../m"}, "m"),
    ],
)
def test_a_bad_event_is_said(s3, event, words):
    with pytest.raises(ValueError, match=words):
        publisher.handler(event)


def test_what_s3_refuses_is_said(s3):
    with pytest.raises(EfsStateError, match="no object of that key, nor any below it"):
        publisher.run(f"s3://{s3.bucket}/none", model="m")
    with pytest.raises(EfsStateError, match="there is no such bucket"):
        publisher.run("s3://nobody-has-this/x/", model="m")
    put(s3, "bad/../x", b"")
    with pytest.raises(EfsStateError, match="can't be a file"):
        publisher.run(f"s3://{s3.bucket}/bad/", model="m")

    def refuse(code):
        def before(operation, _):
            raise ClientError({"Error": {"Code": code, "Message": "x"}}, operation)

        return Counting(s3, before)

    with pytest.raises(EfsStateError, match="s3:GetObject"):
        publisher.run(f"s3://{s3.bucket}/x", model="m", client=refuse("403"))
    with pytest.raises(EfsStateError, match="restore it first"):
        publisher.run(f"s3://{s3.bucket}/x", model="m", client=refuse("InvalidObjectState"))


def test_incomplete_shards_are_refused_before_the_copy(s3, tmp_path):
    index = {"weight_map": {"a": "w-1.safetensors", "b": "w-2.safetensors"}}
    put(s3, "m/model.safetensors.index.json", json.dumps(index))
    put(s3, "m/w-1.safetensors", b"1")
    client = Counting(s3)
    with pytest.raises(EfsStateError, match=r"m/model\.safetensors\.index\.json: .*w-2"):
        publisher.run(f"s3://{s3.bucket}/m/", model="m", client=client)
    assert [key for op, key, _ in client.asked if op == "get_object"] == [
        "m/model.safetensors.index.json"
    ]
    assert os.listdir(tmp_path / "root") == []
    put(s3, "m/w-2.safetensors", b"2")
    assert publisher.run(f"s3://{s3.bucket}/m/", model="m")["finished"]


def test_no_way_to_s3_names_the_gateway_endpoint(s3):
    config = botocore.config.Config(connect_timeout=1, retries={"max_attempts": 0})
    client = boto3.client("s3", endpoint_url="http://127.0.0.1:9", config=config)
    with pytest.raises(EfsStateError, match="gateway endpoint"):
        publisher.run(f"s3://{s3.bucket}/x", model="m", client=client)
    client.close()


def test_a_timeout_too_short_to_copy_anything_is_said(s3):
    put(s3, "net", b"x" * 1000)
    with pytest.raises(EfsStateError, match="longer timeout"):
        publisher.handler({"source": f"s3://{s3.bucket}/net", "model": "net"}, Context(2))


def test_memory_is_bounded(s3, tmp_path):
    """64 MiB take under 24 MiB of a process of their own: a window is streamed, not held."""
    put(s3, "big", bytes(64 * MIB))
    program = f"""
import tracemalloc
from efsstate import publisher
client = publisher.default_client()
tracemalloc.start()
assert publisher.run("s3://{s3.bucket}/big", to="big", client=client)["finished"]
print(tracemalloc.get_traced_memory()[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 24 * MIB
    assert (tmp_path / "root" / "shared-data" / "big" / "big").stat().st_size == 64 * MIB
