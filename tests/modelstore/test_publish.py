"""Publishing: what a version is, what is refused, what is done once.

And that nobody ever meets half a version.
"""

import hashlib
import multiprocessing
import os
import pathlib
import shutil
import socket
import threading

import pytest
from tests import faults
from tests.modelstore.conftest import active, dying, fork_beside_threads, place, tree

import efsstate
from efsstate import ClaimedError, EfsStateError, activate, model, publish, versions
from efsstate.format import layout
from efsstate.modelstore import disposal, manifest, publishing, reader
from efsstate.modelstore.patterns import Patterns
from efsstate.modelstore.source import Source
from efsstate.mount import lock
from efsstate.mount import root as roots
from efsstate.mount.files import Mount

strace = pytest.mark.skipif(faults.MISSING is not None, reason=str(faults.MISSING))


def test_a_folder_becomes_a_version_as_it_is(root, source, small_ranges):
    made = publish("shop/ranking", source, root=root)
    assert tree(place(root, "shop/ranking", made)) == tree(source)
    assert active(root, "shop/ranking") == made
    assert efsstate.models(root=root) == ["shop/ranking"]
    assert model("shop/ranking", root=root)() == place(root, "shop/ranking", made)


def test_a_single_file_keeps_its_name(root, source):
    made = publish("m", source / "config.json", root=root)
    assert model("m", root=root)() == place(root, "m", made) + "/config.json"
    assert tree(place(root, "m", made)) == {"config.json": b"{}"}


def test_a_link_to_a_single_file_gives_its_own_name(root, source, tmp_path):
    """A link to a single file is followed and gives its own name."""
    (tmp_path / "latest").symlink_to(source / "config.json")
    publish("m", tmp_path / "latest", root=root)
    path = model("m", root=root)()
    assert (
        path.endswith("/latest")
        and not os.path.islink(path)
        and pathlib.Path(path).read_text() == "{}"
    )


def test_the_same_content_is_one_version_and_is_copied_once(root, source):
    first = publish("m", source, root=root)
    written = os.stat(place(root, "m", first) + "/a/b/weights")
    second = publish("m", source, root=root)
    assert first == second and [v.id for v in versions("m", root=root)] == [first]
    assert os.stat(place(root, "m", first) + "/a/b/weights").st_ino == written.st_ino
    (source / "a" / "b" / "weights").rename(source / "a" / "b" / "renamed")
    assert publish("m", source, root=root) != first


def test_a_version_copied_elsewhere_is_the_same_version(root, source, tmp_path):
    """Promotion from one root to another: our own file in it is left aside."""
    made = publish("m", source, root=root)
    other = tmp_path / "other"
    other.mkdir()
    assert publish("m", place(root, "m", made), root=other) == made


def test_an_id_of_ones_own(root, source):
    assert publish("m", source, version="v1.2", root=root) == "v1.2"
    assert publish("m", source, version="v1.2", root=root) == "v1.2"
    (source / "config.json").write_text("[]")
    with pytest.raises(EfsStateError, match="exists, with other content"):
        publish("m", source, version="v1.2", root=root)
    assert tree(place(root, "m", "v1.2"))["config.json"] == b"{}"


def test_publishing_need_not_activate(root, source):
    first = publish("m", source / "config.json", root=root)
    second = publish("m", source, activate=False, root=root)
    assert active(root, "m") == first
    activate("m", second, root=root)
    assert active(root, "m") == second


@pytest.mark.parametrize(
    "version", ["", "..", ".hidden", "a/b", "a b", "x" * 129, "-r", "ü", "a\n", 5]
)
def test_an_id_that_is_no_name_is_refused(root, source, version):
    with pytest.raises(ValueError, match="can't be used"):
        publish("m", source, version=version, root=root)
    with pytest.raises(ValueError, match="can't be used"):
        activate("m", version, root=root)
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    "name", ["", "/abs", "../up", "a/../b", "a b", ".x", "a//b", "a--b", "x" * 200]
)
def test_a_name_with_a_path_in_it_is_refused(root, source, name):
    with pytest.raises(ValueError, match="can't be used"):
        publish(name, source, root=root)
    assert os.listdir(root) == []


def special(folder, kind):
    if kind == "symlink":
        (folder / "bad").symlink_to("/etc/passwd")
    elif kind == "folder symlink":
        (folder / "bad").symlink_to("/etc")
    elif kind == "pipe":
        os.mkfifo(folder / "bad")
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(folder)
        try:
            socket.socket(socket.AF_UNIX).bind("bad")
        finally:
            os.chdir(here)
    elif kind == "line feed":
        (folder / "b\nad").write_text("")
    elif kind == "not unicode":
        (folder / os.fsdecode(b"bad\xff")).write_text("")
    elif kind == "nfs":
        (folder / ".nfs0001").write_text("")
    elif kind == "folder with a line feed":
        (folder / "b\nad").mkdir()


@pytest.mark.parametrize(
    "kind",
    [
        "symlink",
        "folder symlink",
        "pipe",
        "socket",
        "line feed",
        "not unicode",
        "nfs",
        "folder with a line feed",
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_no_plain_file_is_refused_first(root, source, kind):
    """What is no plain file is refused before anything is written."""
    special(source / "a", kind)
    with pytest.raises(EfsStateError, match="can't be published"):
        publish("m", source, root=root)
    assert os.listdir(root) == []


def test_nothing_to_publish(root, tmp_path):
    (tmp_path / "void" / "deep").mkdir(parents=True)
    with pytest.raises(EfsStateError, match="no file is in it"):
        publish("m", tmp_path / "void", root=root)
    with pytest.raises(FileNotFoundError):
        publish("m", tmp_path / "missing", root=root)
    with pytest.raises(EfsStateError, match="neither a file nor a folder"):
        publish("m", "/dev/null", root=root)


def test_a_root_must_be_named(source, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EFSSTATE_ROOT", raising=False)
    with pytest.raises(efsstate.RootError):
        publish("m", source)


def test_progress_counts_every_byte_twice(root, source, small_ranges):
    seen = []
    publish("m", source, root=root, progress=lambda done, total: seen.append((done, total)))
    total = 2 * sum(len(data) for data in tree(source).values() if data)
    assert seen[-1] == (total, total) and {t for _, t in seen} == {total}
    assert [d for d, _ in seen] == sorted(d for d, _ in seen) and len(seen) > 10
    seen.clear()
    publish("m", source, root=root, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (total, total)


def test_a_source_that_changes_is_not_published(root, source, small_ranges, monkeypatch):
    real = reader.copy

    def slow(file, target, **more):
        answer = real(file, target, **more)
        if target is not None and file.path.endswith("weights"):
            (source / "a" / "b" / "weights").write_bytes(b"other" * 20_000)
        return answer

    monkeypatch.setattr(reader, "copy", slow)
    with pytest.raises(EfsStateError, match="it changes meanwhile"):
        publish("m", source, root=root)
    assert active(root, "m") is None


def test_modes_follow_the_roots(tmp_path, source):
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o2775)
    made = publish("m", source, root=root)
    for above, folders, files in os.walk(place(root, "m", made)):
        assert {oct(os.stat(f"{above}/{f}").st_mode & 0o7777) for f in folders} <= {"0o2775"}
        assert {oct(os.stat(f"{above}/{f}").st_mode & 0o7777) for f in files} <= {"0o664"}


def publisher(root, source, start, results):
    start.wait()
    results.put(publish("m", source, root=root))


@pytest.mark.parametrize("same", [True, False])
def test_publishers_of_one_name_at_once_all_end_well(root, source, tmp_path, same):
    fork = multiprocessing.get_context("fork")
    start, results = fork.Event(), fork.Queue()
    sources = []
    for i in range(4):
        if not same:
            (source / "config.json").write_text(str(i))
        os.system(f"cp -r {source} {tmp_path}/s{i}")
        sources.append(tmp_path / f"s{i}")
    workers = [
        fork.Process(target=publisher, args=(root, s, start, results), daemon=True) for s in sources
    ]
    for worker in workers:
        worker.start()
    start.set()
    made = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(made) == (1 if same else 4)
    assert {v.id for v in versions("m", root=root)} == made and active(root, "m") in made
    assert efsstate.verify("m", root=root) == []
    assert [
        name
        for name in os.listdir(os.path.dirname(place(root, "m", "x")))
        if name not in (*made, "CURRENT")
    ] == []


def test_a_second_publisher_waits_for_the_first(root, source, early):
    """A second publisher of the same content waits for the first."""
    made = publish("m", source, root=root)
    staging = next(iter(staged(root, source)))
    mount = Mount(root)
    mount.make(staging)
    held = lock.attempt(
        mount, os.path.dirname(staging), os.path.basename(staging) + layout.LOCK_SUFFIX
    )
    os.rename(place(root, "m", made), place(root, "m", "hidden"))

    class Context:
        def get_remaining_time_in_millis(self):
            return 1800

    with efsstate.invocation(Context()):
        with pytest.raises(ClaimedError, match="still publishes the same content"):
            publish("m", source, root=root)
        assert efsstate.deadline.remaining() > 0  # so that the error still reaches somebody
    done = []
    waiting = threading.Thread(target=lambda: done.append(publish("m", source, root=root)))
    waiting.start()
    held.release()
    waiting.join(30)
    assert done == [made]


def publish_in_child(root, source, version):
    """Publish in another process, whose claim is free: the server gave the first one's up."""
    in_child(root, source, lambda: publish("m", source, version=version, root=root) == version)


def in_child(root, source, is_done):
    """Call `is_done` in another process, while no claim is held on the staging folder."""
    staging = next(iter(staged(root, source)))
    pathlib.Path(root, staging + layout.LOCK_SUFFIX).unlink(missing_ok=True)
    pid = fork_beside_threads()
    if not pid:
        code = 1
        try:
            code = not is_done()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("step", ["_copy_file", "_require_same_files", "_rename_into_place"])
def test_one_content_under_two_ids_at_once(root, source, monkeypatch, step):
    """Both end well, though the first is frozen before a step for longer than a lease."""
    monkeypatch.setattr(reader, "THREADS", 1)
    real, calls = getattr(publishing, step), []

    def frozen(*given, **named):
        calls.append(step)
        if len(calls) == 3 or (len(calls) == 1 and step != "_copy_file"):
            monkeypatch.setattr(publishing, step, real)
            publish_in_child(root, source, "second")
        return real(*given, **named)

    monkeypatch.setattr(publishing, step, frozen)
    assert publish("m", source, version="first", root=root) == "first"
    assert calls
    for made in ("first", "second"):
        assert tree(place(root, "m", made)) == tree(source)
    assert efsstate.verify("m", root=root) == []
    assert not [n for n in os.listdir(os.path.dirname(place(root, "m", "x"))) if n[0] == "."]


@pytest.mark.parametrize(
    "step", ["_copy_file", "_require_same_files", "_write_manifest", "_rename_into_place"]
)
def test_a_prune_while_a_publisher_is_frozen(root, source, monkeypatch, step):
    """The prune removes its files, and the publisher copies them again."""
    real = getattr(publishing, step)

    def frozen(*given, **named):
        monkeypatch.setattr(publishing, step, real)
        in_child(root, source, lambda: efsstate.prune("m", grace=0, root=root) == [])
        return real(*given, **named)

    monkeypatch.setattr(publishing, step, frozen)
    version = publish("m", source, root=root)
    assert tree(place(root, "m", version)) == tree(source)
    assert efsstate.verify("m", root=root) == []


class Killed(BaseException):
    """The end of a process."""


def kill_before_the_rename(root, source, monkeypatch):
    """Leave a staging folder that has all files."""

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_rename_into_place", killed)
        with pytest.raises(Killed):
            publish("m", source, root=root)


@pytest.mark.parametrize("remover", ["prune", "publisher"])
def test_a_removal_that_was_frozen_takes_no_version(root, source, tmp_path, monkeypatch, remover):
    """Another publisher ends before any one of its unlinks and renames."""
    monkeypatch.setattr(reader, "THREADS", 1)
    (tmp_path / "old").write_text("old")
    publish("m", tmp_path / "old", root=root)

    kill_before_the_rename(root, source, monkeypatch)
    staging = next(iter(staged(root, source)))
    for at in range(1, 99):
        copy, count = f"{root}.{at}", 0
        shutil.copytree(root, copy, symlinks=True)
        with monkeypatch.context() as patch:

            def freeze(real, copy=copy, at=at, patch=patch):
                def change(*given, **named):
                    nonlocal count
                    count += 1
                    if count == at:
                        patch.undo()
                        in_child(copy, source, lambda: publish("m", source, root=copy))
                    return real(*given, **named)

                return change

            for name in ("unlink", "rmdir", "rename"):
                patch.setattr(os, name, freeze(getattr(os, name)))
            if remover == "prune":
                efsstate.prune("m", grace=0, root=copy)
            else:
                publishing._remove_rest(roots.resolve(copy, durable=True), staging)
        if count < at:
            break
        assert efsstate.verify("m", root=copy) == [], at
        (version,) = [each.id for each in efsstate.versions("m", root=copy) if each.active]
        assert tree(place(copy, "m", version)) == tree(source), at
        efsstate.prune("m", grace=0, root=copy)
        assert not any(name[0] == "." for name in os.listdir(f"{copy}/models/m/versions")), at
    assert at > 8


def taken_over(mount, staging):
    """The claim of the next publisher, while the holder before it is frozen."""
    folder, name = disposal.staging_lock(staging)
    mount.remove(folder, name)
    return lock.acquire(mount, folder, name, until=0)


def test_a_removal_leaves_the_lock_of_another(root, source, monkeypatch):
    """If a frozen prune removed it, a third publisher would come in beside the second."""
    real, claims = disposal.remove_rest, []

    def remove_rest(mount, staging):
        is_gone = real(mount, staging)
        claims.append(taken_over(mount, staging))
        return is_gone

    kill_before_the_rename(root, source, monkeypatch)
    monkeypatch.setattr(disposal, "remove_rest", remove_rest)
    efsstate.prune("m", grace=0, root=root)
    (claim,) = claims
    assert claim.is_current()
    claim.release(remove=True)


def test_a_publisher_leaves_the_lock_of_another(root, source, monkeypatch):
    """A frozen publisher whose files are gone waits for the second publisher."""
    real, claims, is_over = publishing._require_same_files, [], threading.Event()

    def end():
        is_over.set()
        claims[0].release(remove=True)

    def same_files(mount, staging, inode):
        if not claims:
            claims.append(taken_over(mount, staging))
            threading.Timer(0.2, end).start()
            raise mount.with_path(FileNotFoundError(2, "gone"), staging, "files")
        claims.append(is_over.is_set())
        real(mount, staging, inode)

    monkeypatch.setattr(publishing, "_require_same_files", same_files)
    version = publish("m", source, root=root)
    assert claims[1:] == [True] and tree(place(root, "m", version)) == tree(source)


def test_files_that_are_taken_again_and_again(root, source, monkeypatch):
    """The error says what to do, and not only that a path of ours is gone."""

    def taken(mount, staging, inode):
        raise mount.with_path(FileNotFoundError(2, "gone"), staging, "files")

    monkeypatch.setattr(publishing, "_require_same_files", taken)
    with pytest.raises(ClaimedError, match="still publishes the same content; try again later"):
        publish("m", source, root=root)


def harm(folder, kind):
    """Damage a version as a disk, or somebody, may."""
    manifest = folder / ".efsstate-manifest"
    if kind == "short file":
        os.truncate(folder / "a" / "b" / "weights", 7)
    elif kind == "missing file":
        (folder / "config.json").unlink()
    elif kind == "missing folder":
        shutil.rmtree(folder / "a")
    elif kind == "missing empty folder":
        (folder / "empty").rmdir()
    elif kind == "file for a folder":
        shutil.rmtree(folder / "a")
        (folder / "a").write_text("x")
    elif kind == "folder for a file":
        (folder / "config.json").unlink()
        (folder / "config.json").mkdir()
    elif kind == "damaged manifest":
        manifest.write_bytes(manifest.read_bytes()[:-1] + b"x")
    elif kind == "empty manifest":
        manifest.write_bytes(b"")
    elif kind == "missing manifest":
        manifest.unlink()
    elif kind == "nothing but its folder":
        shutil.rmtree(folder)
        folder.mkdir()


def age(folder):
    """As if nothing had been done to it for long."""
    for above, _, files in os.walk(folder, topdown=False):
        for name in [*files, "."]:
            os.utime(f"{above}/{name}", (1, 1))


HARMS = [
    "short file",
    "missing file",
    "missing folder",
    "missing empty folder",
    "file for a folder",
    "folder for a file",
    "damaged manifest",
    "empty manifest",
    "missing manifest",
    "nothing but its folder",
]


@pytest.mark.parametrize("version", [None, "v1"])
@pytest.mark.parametrize("kind", HARMS)
def test_a_damaged_version_is_mended_by_publishing_it_again(root, source, kind, version):
    """And what is whole of the damaged one stays for the grace, for whoever reads it."""
    folder = pathlib.Path(place(root, "m", publish("m", source, version=version, root=root)))
    inode = os.stat(folder).st_ino
    harm(folder, kind)
    age(folder)
    assert efsstate.verify("m", root=root) != []
    assert publish("m", source, version=version, root=root) == folder.name
    assert efsstate.verify("m", root=root) == [] and tree(folder) == tree(source)
    assert active(root, "m") == folder.name and model("m", root=root)() == str(folder)
    gone = [one for one in folder.parent.iterdir() if one.name.startswith(".tmp-")]
    assert [os.stat(one).st_ino for one in gone] == (
        [] if kind == "nothing but its folder" else [inode]
    )
    assert efsstate.prune("m", root=root) == [] and all(one.exists() for one in gone)
    for one in gone:
        age(one)
    assert efsstate.prune("m", root=root) == []
    # What the format does not define in that place may be a user's.
    foreign = {"file for a folder": ["a"], "folder for a file": ["config.json"]}.get(kind, [])
    assert [other.name for one in gone if one.exists() for other in one.iterdir()] == foreign


@pytest.mark.parametrize("kind", ["short file", "missing manifest"])
def test_a_mending_that_is_killed_is_finished_by_the_next(root, source, kind):
    """At whatever change of the disk.

    What is there is damaged, missing or whole, and never another's.
    """
    folder = pathlib.Path(place(root, "m", publish("m", source, root=root)))
    harm(folder, kind)
    for at in range(1, 200):
        copy = f"{root}.{at}"
        shutil.copytree(root, copy, symlinks=True)
        code, *_ = dying(lambda: publish("m", source, root=copy), at)
        assert publish("m", source, root=copy) == folder.name
        assert efsstate.verify("m", root=copy) == [] and tree(
            place(copy, "m", folder.name)
        ) == tree(source)
        if code == 0:
            break
    assert at > 20


def test_a_publisher_that_ends_between_two_looks_is_ours(root, source, monkeypatch):
    """The folder has come since the look for its manifest."""
    real = manifest.read_or_none

    def late(mount, model, version):
        try:
            return real(mount, model, version)
        except FileNotFoundError:
            monkeypatch.setattr(manifest, "read_or_none", real)
            publish("m", source, version="v1", root=root)
            raise

    monkeypatch.setattr(manifest, "read_or_none", late)
    os.makedirs(place(root, "m", "v1"))
    assert publish("m", source, version="v1", root=root) == active(root, "m")
    assert manifest.read_or_none is real


def damaged(root, tmp_path, *others):
    """Files to be published, and the folder of version v1, whose manifest is damaged."""
    put = {text: tmp_path / text for text in ("old", *others)}
    for text, path in put.items():
        path.write_text(text)
    folder = pathlib.Path(place(root, "m", publish("m", put["old"], version="v1", root=root)))
    harm(folder, "damaged manifest")
    return put, folder


@pytest.mark.parametrize("activated", [True, False])
def test_two_that_mend_with_different_content_leave_one(root, tmp_path, monkeypatch, activated):
    """The second does not put aside what the first has just made.

    It is told that the id has other content.
    """
    put, folder = damaged(root, tmp_path, "first", "second")
    real = disposal.put_aside

    def late(*given):
        monkeypatch.setattr(disposal, "put_aside", real)
        assert publish("m", put["first"], version="v1", activate=activated, root=root) == "v1"
        return real(*given)

    monkeypatch.setattr(disposal, "put_aside", late)
    with pytest.raises(EfsStateError, match="v1: this version exists, with other content"):
        publish("m", put["second"], version="v1", root=root)
    assert disposal.put_aside is real and tree(folder) == {"first": b"first"}
    efsstate.activate("m", "v1", root=root)
    assert (
        efsstate.verify("m", root=root) == []
        and bytes(model("m", lambda files: files.read(), root=root)()) == b"first"
    )


def test_a_version_just_put_aside_is_mended_all_the_same(root, source, monkeypatch):
    """A damaged version that another publisher has just put aside is mended all the same."""
    folder = pathlib.Path(place(root, "m", publish("m", source, root=root)))
    harm(folder, "short file")
    real = disposal.put_aside

    def late(*given):
        monkeypatch.setattr(disposal, "put_aside", real)
        real(*given)
        return real(*given)

    monkeypatch.setattr(disposal, "put_aside", late)
    assert publish("m", source, root=root) == folder.name and efsstate.verify("m", root=root) == []


def test_of_three_that_mend_the_last_to_make_it_has_it(root, tmp_path, monkeypatch):
    """Of three that mend one version the last to make it has it."""
    put, folder = damaged(root, tmp_path, "first", "second", "third")
    real = disposal.put_aside

    def late(*given):
        monkeypatch.setattr(disposal, "put_aside", real)
        publish("m", put["first"], version="v1", root=root)
        gone = real(*given)
        publish("m", put["third"], version="v1", root=root)
        return gone

    monkeypatch.setattr(disposal, "put_aside", late)
    with pytest.raises(EfsStateError, match="v1: this version exists, with other content"):
        publish("m", put["second"], version="v1", root=root)
    assert tree(folder) == {"third": b"third"} and efsstate.verify("m", root=root) == []


def test_a_strangers_folder_is_not_taken_for_a_damaged_version(root, source):
    publish("m", source, root=root)
    (folder := pathlib.Path(place(root, "m", "backup"))).mkdir()
    (folder / "precious").write_text("x")
    with pytest.raises(
        EfsStateError, match=r"backup/precious: not part of the published content.*move it away"
    ):
        publish("m", source, version="backup", root=root)
    assert (folder / "precious").read_text() == "x"


def test_of_a_flipped_bit_the_error_advises_what_heals_it(root, source):
    """Publishing does not read what is there.

    The same id would go on with the damage, another id is written anew.
    """
    made = publish("m", source, root=root)
    with open(place(root, "m", made) + "/a/b/weights", "r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    load = model("m", lambda files: bytes(files.read("a/b/weights")), verify="digest", root=root)
    with pytest.raises(efsstate.CorruptEntryError, match="publish it under a new id"):
        load()
    with pytest.raises(efsstate.CorruptEntryError, match="publish it under a new id"):
        model("m", stage=True, root=root)()
    publish("m", source, version="anew", root=root)
    fresh = model("m", lambda files: bytes(files.read("a/b/weights")), verify="digest", root=root)
    assert fresh() == (source / "a" / "b" / "weights").read_bytes()


def test_our_own_name_is_refused(root, source, tmp_path):
    """In a version it is the manifest's: what is published under it could not be read."""
    (tmp_path / ".efsstate-manifest").write_text("mine")
    with pytest.raises(
        EfsStateError, match=r"can't be published: .*manifest has this name; rename it"
    ):
        publish("m", tmp_path / ".efsstate-manifest", root=root)
    (source / ".efsstate-manifest").mkdir()
    (source / ".efsstate-manifest" / "w").write_text("x")
    with pytest.raises(
        EfsStateError, match=r"can't be published: .*manifest has this name; rename it"
    ):
        publish("m", source, root=root)
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    "name", ["a\u00a0b", "12.41.07\u202fPM.png", "zero\u200bwidth", "\U0001fae9", "\ue000"]
)
def test_names_that_are_only_unusual_are_published(root, tmp_path, name):
    """Whatever Unicode this Python knows."""
    (tmp_path / name).write_text("x")
    publish("m", tmp_path / name, root=root)
    assert model("m", root=root)().endswith(f"/{name}") and efsstate.verify("m", root=root) == []


@strace
def test_files_are_on_disk_before_they_are_named(root, tmp_path):
    """Each file cut to its length and synced, then renamed.

    After the version's rename its folder is synced; then CURRENT.
    """
    (tmp_path / "w").write_text("x")

    def operation():
        yield
        publish("m", tmp_path / "w", root=root)
        yield

    calls = [name for name, _ in faults.calls(operation)]
    kept = [
        name
        for name in calls
        if name in ("pwrite64", "ftruncate", "fsync", "writev")
        or name.startswith(("rename", "symlink"))
    ]
    named = [
        name.rstrip("at2") if name.startswith(("rename", "symlink")) else name for name in kept
    ]
    assert named == [
        *("pwrite64", "ftruncate", "fsync", "rename", "fsync"),
        *("writev", "fsync", "fsync"),
        *("rename", "fsync"),
        *("symlink", "rename", "fsync"),
    ]


def test_a_part_that_is_longer_than_the_file_is_cut(root, source):
    """What a killed publisher left may be of a longer file of the same name."""
    staging = next(iter(staged(root, source)))
    part = hashlib.sha256(b"config.json").hexdigest()
    mount = Mount(root)
    mount.make(f"{staging}/parts")
    pathlib.Path(root, staging, "parts", part).write_bytes(b"x" * 1000)
    made = publish("m", source, root=root)
    assert tree(place(root, "m", made)) == tree(source)


def test_a_folder_of_models_is_published_where_it_is(root, tmp_path):
    """Whoever put one there by hand, and then publishes it; killed half way, and started again."""
    there = os.path.join(root, "models", "m")
    os.makedirs(f"{there}/a")
    for name in ("config.json", "a/weights"):
        pathlib.Path(there, name).write_bytes(os.urandom(1000))
    wanted = tree(there)

    def again():
        return publish("m", there, root=root)

    for at in (3, 6, 9, 12, 15):
        dying(again, at)
    made = again()
    assert tree(place(root, "m", made)) == wanted
    assert again() == made


def test_a_users_folder_called_versions_is_published(root, tmp_path):
    """A folder of its own that is called versions is published and never left out."""
    there = pathlib.Path(root, "models", "m")
    (there / "versions" / "a").mkdir(parents=True)
    for name in ("x", "versions/a/w"):
        (there / name).write_text(name)
    wanted = tree(there)
    made = publish("m", there, root=root)
    assert tree(place(root, "m", made)) == wanted
    with pytest.raises(
        EfsStateError,
        match=r"versions/a: can't be published: it is among the versions of this model",
    ):
        publish("m", there, root=root)
    (there / "versions" / "a").rename(tmp_path / "a")
    (there / "versions" / ".nfs0000000000000001").write_text(
        "removed, and still open on this client"
    )
    assert publish("m", there, root=root) != made
    (there / "versions" / "notes.txt").write_text("a file")
    with pytest.raises(EfsStateError, match=r"versions/notes.txt: can't be published"):
        publish("m", there, root=root)
    os.remove(there / "versions" / "notes.txt")
    (tmp_path / "linked").mkdir()
    os.symlink(there / "versions", tmp_path / "linked" / "versions")
    with pytest.raises(EfsStateError, match="symbolic link"):
        publish("m", tmp_path / "linked", root=root)


def staged(root, source):
    """The folder that a publication of `source` is put together in."""
    from efsstate.modelstore.manifest import Manifest

    found = Source(source, Mount(root), "models/m", Patterns(None, ()))
    files = {}
    for name, size in found.sizes.items():
        files[name] = (size, reader.copy(found.open(name), None, late=str))
    yield layout.staging_folder(
        "models/m", Manifest("", files, found.folders, single=found.single).content
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_what_root_publishes_belongs_to_the_roots_owner(source, tmp_path_factory):
    """So a function of that user, with a root of mode 0750, loads, activates and prunes it."""
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        os.chown(root, 1001, 1001)
        os.chmod(root, 0o750)
        made = publish("m", source, root=root)
        activate("m", made, label="x", root=root)
        for above, folders, files in os.walk(f"{root}/models"):
            for name in [*folders, *files, "."]:
                status = os.lstat(f"{above}/{name}")
                assert (status.st_uid, status.st_gid) == (1001, 1001), name
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.setgid(1001)
                os.setuid(1001)
                read = model("m", lambda files: bytes(files.read("config.json")), root=root)()
                activate("m", made, label="y", root=root)
                code = read != b"{}"
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
