"""Versions: activated, rolled back, listed, verified.

And pruned only when nobody can be using them.
"""

import errno
import os
import pathlib
import shutil
import subprocess
import threading
import time

import pytest
from tests.modelstore.conftest import active, current, dying, place, relink

import efsstate
from efsstate import (
    CorruptEntryError,
    EfsStateError,
    ModelNotFound,
    activate,
    model,
    prune,
    publish,
    verify,
    versions,
)
from efsstate.modelstore import checking
from efsstate.modelstore import pruning as module
from efsstate.mount import clock
from efsstate.mount.files import Mount
from efsstate.mount.listing import ListedFolders


@pytest.fixture
def four(root, tmp_path):
    """Four versions, made one after the other, a day apart; the last is active."""
    ids = []
    for i in range(4):
        (tmp_path / "w").write_text(str(i))
        ids.append(publish("m", tmp_path / "w", root=root))
    for i, version in enumerate(ids):
        age(root, version, (4 - i) * 86400)
    return ids


def age(root, version, seconds):
    """As if it had last been (de)activated so long ago."""
    then = time.time() - seconds
    os.utime(place(root, "m", version) + "/.efsstate-manifest", (then, then))


def test_rollback_is_activate(root, four):
    load = model("m", lambda files: bytes(files.read()), root=root, check_every=0)
    assert load() == b"3"
    activate("m", four[1], root=root)
    assert active(root, "m") == four[1] and load() == b"1"
    activate("m", four[3], root=root)
    assert load() == b"3"


def test_a_version_that_is_not_there(root, four):
    with pytest.raises(ModelNotFound, match=four[0]):
        activate("m", "nope", root=root)
    with pytest.raises(LookupError, match="publish one"):
        versions("other", root=root)
    with pytest.raises(ModelNotFound):
        prune("other", root=root)
    with pytest.raises(ModelNotFound):
        verify("other", root=root)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "missing"),
        ("short", "0 bytes, and 1 were published"),
        ("folder", "not a regular file"),
    ],
)
def test_a_version_that_is_not_whole_is_not_activated(root, four, kind, said):
    """No loader could use it; and what was active stays so."""
    file = place(root, "m", four[0]) + "/w"
    os.truncate(file, 0) if kind == "short" else os.remove(file)
    os.mkdir(file) if kind == "folder" else None
    with pytest.raises(
        CorruptEntryError, match=f"{file}: damaged: {said}; publish it again, or activate another"
    ):
        activate("m", four[0], root=root)
    assert (
        active(root, "m") == four[3]
        and model("m", lambda files: bytes(files.read()), root=root)() == b"3"
    )


def test_a_version_without_its_empty_folder_is_not_activated(root, source):
    made = publish("m", source, root=root, activate=False)
    os.rmdir(place(root, "m", made) + "/empty")
    with pytest.raises(CorruptEntryError, match="/empty: damaged: missing; publish it again"):
        activate("m", made, root=root)
    assert active(root, "m") is None and publish("m", source, root=root) == made == active(
        root, "m"
    )


@pytest.mark.parametrize("back", [True, False])
def test_a_version_taken_by_a_prune_is_missing_or_put_back(root, four, monkeypatch, back):
    """It is taken while its files are looked at."""
    from efsstate.modelstore import checking

    folder, aside, real = (
        place(root, "m", four[0]),
        place(root, "m", ".tmp-gone-x-00000000"),
        checking.find_damage,
    )

    def taken(*given):
        monkeypatch.setattr(checking, "find_damage", real)
        os.rename(folder, aside)
        given[0].forget(given[1])  # it is not open yet
        threading.Timer(0.2, os.rename, (aside, folder)).start() if back else None
        return real(*given)

    monkeypatch.setattr(checking, "find_damage", taken)
    if back:
        activate("m", four[0], root=root)
        assert active(root, "m") == four[0]
    else:
        with pytest.raises(ModelNotFound):
            activate("m", four[0], root=root)
        assert active(root, "m") == four[3]


def test_a_version_tells_of_itself(root, four):
    found = versions("m", root=root)
    assert [v.id for v in found] == four[::-1]
    assert [v.active for v in found] == [True, False, False, False]
    assert {(v.bytes, v.files, v.problem) for v in found} == {(1, 1, None)}
    assert found[3].changed == pytest.approx(time.time() - 4 * 86400, abs=60)


@pytest.mark.parametrize("moment", ["rename", "stat"])
def test_two_prunes_at_once_raise_nothing(root, four, monkeypatch, moment):
    """What one of them has listed, the other may have removed."""
    real, above = getattr(Mount, moment), pathlib.Path(place(root, "m", four[0])).parent

    def other(self, folder, name, *more, **options):
        if name.startswith(".tmp-gone-") or (moment == "rename" and name == four[0]):
            shutil.rmtree(above / name)
        return real(self, folder, name, *more, **options)

    monkeypatch.setattr(Mount, moment, other)
    removed = efsstate.prune("m", keep=3, root=root)
    assert removed == ([] if moment == "rename" else four[:1])


def test_a_prune_beside_who_removes_temporaries_raises_nothing(root, four, monkeypatch):
    folder = pathlib.Path(place(root, "m", four[0])).parent / f".tmp-gone-{four[0]}-01234567"
    folder.mkdir()
    (folder / "w").touch()
    real = ListedFolders.scan

    def scan(self, name):
        for item in real(self, name):
            (folder / item.name).unlink(missing_ok=True)
            yield item

    monkeypatch.setattr(ListedFolders, "scan", scan)
    assert efsstate.prune("m", keep=9, root=root) == []


def test_verify_beside_a_prune_and_an_activation_finds_nothing(root, four, monkeypatch):
    """The list of versions is of before: a version came since and is active, another went."""
    real = checking.check

    def late(mount, model, listed, progress):
        shutil.rmtree(place(root, "m", four[0]))
        return real(mount, model, [v for v in listed if v.id != four[3]], progress)

    monkeypatch.setattr(checking, "check", late)
    assert efsstate.verify("m", root=root) == []


def test_prune_keeps_the_active_the_newest_and_the_young(root, four):
    """Prune keeps the active one the newest and those within grace."""
    assert prune("m", keep=2, grace="49h", root=root) == [four[1], four[0]]
    assert [v.id for v in versions("m", root=root)] == [four[3], four[2]]
    assert prune("m", keep=1, grace="49h", root=root) == []
    assert prune("m", keep=1, grace="47h", root=root) == [four[2]]
    assert prune("m", keep=1, grace=0, root=root) == []


def test_a_dry_run_removes_nothing(root, four):
    assert prune("m", keep=1, grace=0, root=root, dry_run=True) == [four[2], four[1], four[0]]
    assert len(versions("m", root=root)) == 4


def test_grace_begins_when_a_version_ceases_to_be_active(root, four):
    """Not when it was published: readers may have it until then."""
    activate("m", four[0], root=root)
    age(root, four[0], 10 * 86400)  # as if it had been active for ten days
    activate("m", four[1], root=root)
    assert four[0] not in prune("m", keep=1, grace="24h", root=root)
    assert four[3] in [v.id for v in versions("m", root=root)]


def test_grace_is_by_the_servers_clock(root, four, monkeypatch):
    """A host whose clock is a year ahead removes nothing early."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 365 * 86400)
    try:
        assert prune("m", keep=1, grace="30d", root=root) == []
    finally:
        monkeypatch.undo()
        clock.observe(time.time())


def test_prune_passes_over_no_version_for_a_stale_handle(root, four, monkeypatch):
    """Whichever open of a file or folder answers ESTALE, once: it is made again, or reported."""
    real, before = os.open, root
    calls, at = 0, 0

    def stale_once(path, flags, mode=0o777, *, dir_fd=None):
        nonlocal calls
        is_there = dir_fd is not None or str(path).startswith("/proc/self/fd/")
        calls += is_there
        if is_there and calls == at:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
        return real(path, flags, mode, dir_fd=dir_fd)

    while calls >= at:
        calls, at = 0, at + 1
        root = f"{before}.{at}"
        shutil.copytree(before, root, symlinks=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", stale_once)
            try:
                pruned = prune("m", keep=2, grace="49h", root=root)
            except OSError as error:
                assert error.errno == errno.ESTALE and root in str(error)  # noqa: PT017
            else:
                assert pruned == [four[1], four[0]], at
                assert {v.id for v in versions("m", root=root)} == {four[2], four[3]}
    assert at > 20


def test_without_an_active_version_nothing_is_pruned(root, four):
    os.unlink(current(root))
    assert prune("m", keep=1, grace=0, root=root) == []
    os.symlink("damaged", current(root))
    assert prune("m", keep=1, grace=0, root=root) == []
    with pytest.raises(ValueError, match="keep=0"):
        prune("m", keep=0, root=root)


def test_a_version_activated_while_prune_takes_it_stays(root, four, monkeypatch):
    """Between prune's look and its rename, however long that takes: it puts the version back."""
    real = module._remove_version

    def late(mount, name, version, *more):
        if version == four[0]:
            activate("m", four[0], root=root)
            age(root, four[0], 86400)
        return real(mount, name, version, *more)

    monkeypatch.setattr(module, "_remove_version", late)
    assert four[0] not in prune("m", keep=1, grace=0, root=root)
    assert active(root, "m") == four[0] and model("m", root=root)()


def test_a_version_briefly_active_during_a_prune_stays(root, four, monkeypatch):
    """Readers have it since a moment ago, though it is not the active one."""
    real = module._remove_version

    def late(mount, name, version, *more):
        if version == four[0]:
            activate("m", four[0], root=root)
            activate("m", four[3], root=root)
        return real(mount, name, version, *more)

    monkeypatch.setattr(module, "_remove_version", late)
    assert prune("m", keep=1, grace="12h", root=root) == [four[2], four[1]]
    assert [v.id for v in versions("m", root=root)] == [four[3], four[0]] and verify(
        "m", root=root
    ) == []


@pytest.mark.parametrize("kind", ["CURRENT", "no CURRENT"])
def test_without_a_known_active_one_every_grace_begins(root, four, kind):
    """The one that serves has been inactive for no time at all, whatever its stamp says."""
    damage(root, four[3], kind)
    activate("m", four[0], root=root)
    assert prune("m", keep=1, grace="12h", root=root) == []


def test_the_stamps_come_before_current(root, four):
    """Killed in between, no prune finds either version to be inactive for long."""
    code, *_ = dying(lambda: activate("m", four[0], root=root), 1, names=["rename"])
    assert code == -9 and active(root, "m") == four[0]
    changed = {v.id: v.changed for v in versions("m", root=root)}
    assert min(changed[four[0]], changed[four[3]]) > time.time() - 3600


def test_what_is_published_again_has_its_grace_again(root, four, tmp_path):
    """What is published again without being activated has its grace anew."""
    (tmp_path / "w").write_text("0")
    assert publish("m", tmp_path / "w", activate=False, root=root) == four[0]
    assert four[0] not in prune("m", keep=1, grace="12h", root=root)


def test_prune_leaves_what_it_does_not_know(root, four):
    """A newer release's version, and what strangers put beside the versions.

    None of it takes the place of one to keep.
    """
    above = pathlib.Path(place(root, "m", "x")).parent
    with open(above / four[0] / ".efsstate-manifest", "r+b") as file:
        file.seek(4)
        file.write(b"\x09")
    age(root, four[0], 4 * 86400)
    (above / "backup").mkdir()
    (above / "backup" / "precious").write_text("x")
    (above / "NOTES.txt").write_text("x")
    damage(root, four[1], "manifest")
    age(root, four[1], 3 * 86400)
    assert prune("m", keep=2, grace="12h", root=root) == []  # nothing tells which files are ours
    assert {os.path.basename(p) for p in above.iterdir()} == {
        four[0],
        four[1],
        four[2],
        four[3],
        "backup",
        "NOTES.txt",
        "CURRENT",
    }
    assert (above / "backup" / "precious").read_text() == "x"
    told = {v.id: v.problem for v in versions("m", root=root)}
    assert "newer" in told[four[0]] and "no manifest" in told["backup"] and told["NOTES.txt"]


@pytest.mark.parametrize("how", ["prune", "dry run", "sweep", "remove"])
def test_a_version_with_a_users_files_stays_whole_and_is_named(root, four, how, caplog):
    folder = pathlib.Path(place(root, "m", four[1]))
    (folder / "evaluation.csv").write_text("mine")
    (folder / "plots").mkdir()
    (folder / "plots" / "a.png").write_text("mine")
    everything = sorted(folder.rglob("*"))
    if how == "sweep":
        report = efsstate.sweep(root=root)
        assert report.foreign == 2 and str(folder / "evaluation.csv") in report.foreign_paths
    else:
        removed = (
            efsstate.remove("m", grace="12h", root=root)
            if how == "remove"
            else prune("m", keep=1, grace="12h", dry_run=how == "dry run", root=root)
        )
        assert four[1] not in removed and four[0] in removed
        assert how == "dry run" or str(folder / "plots") in caplog.text
    assert sorted(folder.rglob("*")) == everything
    (folder / "evaluation.csv").unlink()
    shutil.rmtree(folder / "plots")
    if how != "remove":  # which is told by the model's absence
        assert four[1] in prune("m", keep=1, grace="12h", root=root) and not folder.exists()


def test_an_empty_folder_of_a_version_goes_with_it(root, source):
    old = publish("m", source, root=root)
    (source / "config.json").write_text("{ }")
    publish("m", source, root=root)
    assert prune("m", keep=1, grace=0, root=root) == [old]
    assert not os.path.exists(place(root, "m", old))


@pytest.mark.parametrize("secret", [None, "one key"])
def test_a_users_file_in_a_replaced_version_stays(root, tmp_path, monkeypatch, secret):
    """A damaged version is put aside, and its own files go by the manifest that replaced it."""
    if secret:
        monkeypatch.setenv("EFSSTATE_SIGNING_KEY", secret)
    (tmp_path / "w").write_text("w")
    version = publish("m", tmp_path / "w", root=root)
    (pathlib.Path(place(root, "m", version)) / "evaluation.csv").write_text("mine")
    damage(root, version, "manifest")
    assert efsstate.sweep(root=root).damaged == 1
    assert publish("m", tmp_path / "w", root=root) == version
    assert prune("m", grace=0, root=root) == []
    left = [str(p) for p in pathlib.Path(root).rglob("*") if p.is_file()]
    assert [os.path.basename(p) for p in left if ".tmp-gone-" in p] == ["evaluation.csv"]
    assert verify("m", root=root) == []


def test_without_the_signing_key_no_version_is_pruned(root, tmp_path, monkeypatch):
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "one key")
    for text in ("1", "2"):
        (tmp_path / "w").write_text(text)
        publish("m", tmp_path / "w", root=root)
    before = {p for p in pathlib.Path(root).rglob("*") if p.name == "w"}
    monkeypatch.delenv("EFSSTATE_SIGNING_KEY")
    assert prune("m", keep=1, grace=0, root=root) == []
    assert before == {p for p in pathlib.Path(root).rglob("*") if p.name == "w"}


def test_a_current_of_a_newer_release_can_be_rolled_back(root, source):
    """Its version is of a format that is not known here; nothing else is lost by that."""
    for i in range(60):
        (source / f"more{i}").write_text(str(i))
    old = publish("m", source, root=root)
    (source / "more0").write_text("new")
    new = publish("m", source, root=root)
    with open(place(root, "m", new) + "/.efsstate-manifest", "r+b") as file:
        file.seek(4)
        file.write(b"\x09")
    assert [v.active for v in versions("m", root=root)] == [True, False]
    assert prune("m", keep=1, grace=0, root=root) == []
    activate("m", old, root=root)
    assert active(root, "m") == old and model("m", root=root)()


@pytest.mark.parametrize("kind", ["a file", "a folder", "a folder with versions", "a link"])
def test_what_was_put_there_by_hand_has_no_versions(root, tmp_path, kind):
    """It says so, and is never advised to be removed."""
    hand = pathlib.Path(root, "models", "m")
    hand.parent.mkdir()
    if kind == "a file":
        hand.write_text("x")
    elif kind == "a link":
        hand.symlink_to("/etc")
    else:
        hand.mkdir()
        (hand / "w").write_text("x")
        if kind == "a folder with versions":
            (hand / "versions").mkdir()
            (hand / "versions" / "a").write_text("x")
    for call in (versions, prune, verify, lambda name, root: activate(name, "v", root=root)):
        with pytest.raises(
            ModelNotFound,
            match="no model: neither"
            if kind == "a link"
            else "unmanaged: it was copied here, and has no versions",
        ):
            call("m", root=root)
    (tmp_path / "w").write_text("1")
    if kind in ("a file", "a link"):
        with pytest.raises(
            EfsStateError, match="unmanaged file or link has this name; move it away"
        ):
            publish("m", tmp_path / "w", root=root)
    assert efsstate.models(root=root) == ([] if kind == "a link" else ["m"])


def test_models_are_what_can_be_loaded_by_its_name(root, four):
    for name in ("My Model", "a--b--", ".hidden"):
        os.mkdir(f"{root}/models/{name}")
    os.symlink("/etc", f"{root}/models/link")
    pathlib.Path(root, "models", "my-model.pth").write_text("x")
    assert efsstate.models(root=root) == ["m", "my-model.pth"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only mount needs root")
def test_readers_need_no_right_to_write(root, four):
    """Listed, verified and tried for a prune on a mount that is read-only."""
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        if subprocess.run(["mount", "-o", "remount,ro,bind", root]).returncode:
            pytest.skip("no read-only mounts here")
        assert [v.id for v in versions("m", root=root)] == four[::-1]
        assert verify("m", root=root) == [] and efsstate.models(root=root) == ["m"]
        assert prune("m", keep=1, dry_run=True, grace="12h", root=root) == [
            four[2],
            four[1],
            four[0],
        ]
        with pytest.raises(efsstate.RootError, match="not writable"):
            prune("m", keep=1, grace=0, root=root)
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_verify_finds_empty_folders_that_are_missing_or_too_many(root, source):
    made = pathlib.Path(place(root, "m", publish("m", source, root=root)))
    assert verify("m", root=root) == []
    (made / "empty").rmdir()
    (made / "extra").mkdir()
    assert verify("m", root=root) == [
        f"{made}/empty: missing: publish it again, or activate another version",
        f"{made}/extra/: it was not published with this version: remove it",
    ]


@pytest.mark.slow
def test_activate_and_prune_race(root, tmp_path):
    """Whoever says that it was activated is right, whatever prune does meanwhile."""
    for round_ in range(60):
        ids = []
        for i in range(2):
            (tmp_path / "w").write_text(f"{round_} {i}")
            ids.append(publish("m", tmp_path / "w", root=root))
        start, lost = threading.Barrier(2), []

        def back():
            start.wait()
            try:
                activate("m", ids[0], root=root)
            except ModelNotFound:
                lost.append(1)

        thread = threading.Thread(target=back)
        thread.start()
        start.wait()
        prune("m", keep=1, grace=0, root=root)
        thread.join()
        if not lost:
            assert active(root, "m") == ids[0] and os.path.exists(place(root, "m", ids[0]))


def test_a_killed_prune_is_finished_by_the_next(root, four):
    for at in range(1, 40):
        copy = f"{root}.{at}"
        shutil.copytree(root, copy, symlinks=True)
        code, *_ = dying(lambda: prune("m", keep=1, grace=0, root=copy), at)
        assert efsstate.verify("m", root=copy) == [] and active(copy, "m") == four[3]
        if code == 0:
            break
        for above, folders, files in os.walk(copy):
            for name in [*folders, *files]:
                if name.startswith(".tmp-"):
                    os.utime(f"{above}/{name}", (1, 1))
        prune("m", keep=1, grace=0, root=copy)
        assert sorted(os.listdir(os.path.dirname(place(copy, "m", "x")))) == sorted(
            [four[3], "CURRENT"]
        )
    else:
        raise AssertionError("prune never came to its end")


def test_what_a_killed_publication_left_goes_after_grace(root, source, four, monkeypatch):
    code, *_ = dying(lambda: publish("m", source, root=root), 12)
    assert code == -9
    above = os.path.dirname(place(root, "m", "x"))
    left = [name for name in os.listdir(above) if name.startswith(".tmp-")]
    assert len(left) == 2
    prune("m", keep=9, root=root)
    assert set(left) <= set(os.listdir(above))
    for name in left:
        os.utime(f"{above}/{name}", (1, 1))
        for folder, _, files in os.walk(f"{above}/{name}", topdown=False):
            for file in [*files, "."]:
                os.utime(f"{folder}/{file}", (1, 1))
    prune("m", keep=9, root=root)
    assert not set(left) & set(os.listdir(above))


@pytest.mark.parametrize("sweeps", [False, True])
def test_a_killed_first_publication_goes_with_its_model(root, source, sweeps):
    """Nothing was ever published under the name; a model put there by hand beside it stays."""
    os.makedirs(f"{root}/models/hand/versions")
    pathlib.Path(root, "models", "hand", "w").write_text("1")
    code, *_ = dying(lambda: publish("m", source, root=root), 12)
    assert code == -9 and versions_left(root)
    assert prune("m", root=root) == [] and versions_left(root)  # it may still be at work
    for above, folders, files in os.walk(f"{root}/models/m"):
        for name in [*folders, *files]:
            os.utime(f"{above}/{name}", (1, 1), follow_symlinks=False)
    efsstate.sweep(root=root) if sweeps else prune("m", root=root)
    assert efsstate.models(root=root) == ["hand"] and os.listdir(f"{root}/models") == ["hand"]
    with pytest.raises(ModelNotFound, match="no version of model 'm' exists; publish one"):
        prune("m", root=root)
    publish("m", source, root=root)
    assert model("m", root=root)()


def versions_left(root):
    return [name for name in os.listdir(f"{root}/models/m/versions") if name.startswith(".tmp-")]


def test_a_link_that_a_killed_activation_left_goes_after_grace(root, four):
    os.symlink("x", place(root, "m", ".tmp-" + 24 * "1"))
    prune("m", keep=9, root=root)
    assert versions_left(root) == [".tmp-" + 24 * "1"]
    os.utime(place(root, "m", ".tmp-" + 24 * "1"), (1, 1), follow_symlinks=False)
    prune("m", keep=9, root=root)
    assert versions_left(root) == [] and len(versions("m", root=root)) == 4


def damage(root, version, kind):
    folder = place(root, "m", version)
    file = pathlib.Path(folder, "w")
    if kind == "flipped":
        file.write_bytes(b"x")
    elif kind == "longer":
        file.write_bytes(b"xx")
    elif kind == "missing":
        file.unlink()
    elif kind == "a folder":
        file.unlink()
        file.mkdir()
    elif kind == "a link":
        file.unlink()
        file.symlink_to("/etc/passwd")
    elif kind == "extra":
        pathlib.Path(folder, "extra").write_text("")
    elif kind == "manifest":
        manifest = pathlib.Path(folder, ".efsstate-manifest")
        data = bytearray(manifest.read_bytes())
        data[-5] ^= 1
        manifest.write_bytes(data)
    elif kind == "no manifest":
        pathlib.Path(folder, ".efsstate-manifest").unlink()
    elif kind == "CURRENT":
        relink(current(root), os.readlink(current(root))[:-1])
    elif kind == "no CURRENT":
        os.unlink(current(root))
    elif kind == "version":
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("flipped", "SHA-256"),
        ("longer", "2 bytes, and 1 were published"),
        ("missing", "w: missing"),
        ("a folder", "not a regular file"),
        ("a link", "symbolic link"),
        ("extra", "not published with this version"),
        ("manifest", "checksum"),
        ("no manifest", "no manifest"),
        ("CURRENT", "CURRENT: damaged"),
        ("no CURRENT", "no version is active"),
        ("version", "which is missing"),
    ],
)
def test_verify_finds(root, four, kind, said):
    assert verify("m", root=root) == []
    damage(root, four[3], kind)
    wrong = verify("m", root=root)
    assert len(wrong) == 1 and said in wrong[0] and root in wrong[0], wrong


def test_an_activation_writes_a_damaged_current_anew(root, four):
    damage(root, four[3], "CURRENT")
    with pytest.raises(CorruptEntryError):
        model("m", root=root)()
    activate("m", four[3], root=root)
    assert model("m", root=root)().endswith("/w") and verify("m", root=root) == []


def test_only_signed_manifests_with_a_key(root, four, monkeypatch, tmp_path):
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "secret")
    with pytest.raises(efsstate.SignatureError):
        model("m", root=root)()
    with pytest.raises(efsstate.SignatureError):
        activate("m", four[3], root=root)
    (tmp_path / "s").write_text("signed")
    publish("s", tmp_path / "s", root=root)
    assert model("s", lambda files: bytes(files.read()), root=root)() == b"signed"
    # A manifest signed for one place says nothing at another.
    os.rename(place(root, "s", versions("s", root=root)[0].id), place(root, "m", "moved"))
    with pytest.raises(efsstate.SignatureError):
        activate("m", "moved", root=root)
    monkeypatch.delenv("EFSSTATE_SIGNING_KEY")
    with pytest.raises(CorruptEntryError):
        model("s", root=root)()


def test_a_current_unlike_its_manifest_is_found_and_mended(root, four):
    """Whoever may write to the mount can name other digests in CURRENT.

    Verify says so, and activate heals it.
    """
    from efsstate.modelstore import pointer
    from efsstate.modelstore.manifest import Manifest
    from efsstate.mount.files import Mount

    mount = Mount(root)
    lie = Manifest(four[3], {"w": (1, "0" * 64)}, [], single=True)
    pointer.write(mount, "models/m", None, lie, "")
    assert ["activate it again" in text for text in verify("m", root=root)] == [True]
    activate("m", four[3], root=root)
    assert verify("m", root=root) == []


@pytest.fixture
def long_links(root, tmp_path):
    """A root with links of ours that hold long texts: a model of many files, a claim."""
    folder = tmp_path / "many"
    for i in range(14):
        (folder / f"folder{i}").mkdir(parents=True)
        (folder / f"folder{i}" / f"a-rather-long-name-of-weights-{i}.bin").write_text(str(i))
    publish("m", folder, root=root)
    with efsstate.checkpoint("j" * 150, context=None, root=root) as job:
        job.save()
    links = [path for path in pathlib.Path(root).rglob("*") if path.is_symlink()]
    assert max(len(os.readlink(path)) for path in links) > 1000
    return links


def test_no_link_of_ours_has_a_component_over_255_bytes(root, long_links):
    for path in long_links:
        assert max(len(os.fsencode(part)) for part in os.readlink(path).split("/")) <= 255
    assert len(model("m", lambda files: files.names, root=root)()) == 14


def test_other_programs_walk_past_the_links(root, long_links, tmp_path):
    files = [path for path in pathlib.Path(root).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > 0
    assert all(not path.exists() for path in long_links)
    walked = [name for _, _, names in os.walk(root, followlinks=True) for name in names]
    assert walked.count("CURRENT") == 1
    found = subprocess.run(
        ["find", "-L", root, "-type", "f"], capture_output=True, text=True, check=True
    )
    assert len(found.stdout.splitlines()) == len(files) and not found.stderr
    copied = subprocess.run(["cp", "-rL", root, tmp_path / "copy"], capture_output=True, text=True)
    assert "too long" not in copied.stderr  # of a dangling link cp says so, and goes on
    assert len([p for p in (tmp_path / "copy").rglob("*") if p.is_file()]) == len(files)


# Programs that follow every link: what each says of CURRENT, which leads nowhere.
FOLLOWERS = {
    "cp -rL ROOT COPY": 1,
    "cp -a ROOT COPY": 0,
    "cp -r ROOT COPY": 0,
    "tar -chf COPY ROOT": 1,
    "tar -cf COPY ROOT": 0,
    "find -L ROOT": 0,
    "du -sL ROOT": 1,
    "chmod -R u+w ROOT": 0,
}


@pytest.mark.parametrize("command", FOLLOWERS)
def test_what_a_program_that_follows_links_says(root, long_links, tmp_path, command):
    """It goes on in each case; those that need the target of every link end with 1."""
    words = command.replace("ROOT", root).replace("COPY", str(tmp_path / "copy")).split()
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == FOLLOWERS[command], done.stderr
    told = [line for line in done.stderr.splitlines() if "CURRENT" in line]
    assert bool(told) is bool(done.returncode)
    assert "too long" not in done.stderr
    if command.startswith("cp"):
        copied = {path.name for path in (tmp_path / "copy").rglob("*")}
        assert copied >= {path.name for path in pathlib.Path(root).rglob("*") if path.is_file()}


def test_copytree_passes_the_links_when_it_is_told_so(root, long_links, tmp_path):
    with pytest.raises(shutil.Error, match="CURRENT"):
        shutil.copytree(root, tmp_path / "first")
    for number, option in enumerate(("symlinks", "ignore_dangling_symlinks")):
        shutil.copytree(root, tmp_path / str(number), **{option: True})
        copied = {path.name for path in (tmp_path / str(number)).rglob("*")}
        assert copied >= {path.name for path in pathlib.Path(root).rglob("*") if path.is_file()}


@pytest.mark.parametrize("text", ["x" * 199, "x" * 200, "x" * 201, "a/" + "y" * 700, "ü" * 400])
def test_the_text_of_a_link_comes_back(root, text):
    from efsstate.mount import links
    from efsstate.mount.files import Mount

    mount = Mount(root)
    links.create(mount, "models", "link", text)
    stored = os.readlink(f"{root}/models/link")
    assert max(len(os.fsencode(part)) for part in stored.split("/")) <= 255
    assert links.read(mount, "models", "link") == text
