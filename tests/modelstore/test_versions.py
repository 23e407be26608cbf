"""Versions: activated, rolled back, listed, verified; and pruned only when nobody can be using them."""

import os
import pathlib
import shutil
import threading
import time

import pytest

import efsstate
from efsstate import CorruptEntryError, ModelNotFound, activate, model, prune, publish, verify, versions
from efsstate.modelstore import versions as module
from efsstate.mount import clock
from tests.modelstore.conftest import active, current, dying, place, relink


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


def test_a_version_tells_of_itself(root, four):
    found = versions("m", root=root)
    assert [v.id for v in found] == four[::-1]
    assert [v.active for v in found] == [True, False, False, False]
    assert {(v.bytes, v.files, v.problem) for v in found} == {(1, 1, None)}
    assert found[3].changed == pytest.approx(time.time() - 4 * 86400, abs=60)


def test_prune_keeps_the_active_one_the_newest_and_those_within_grace(root, four):
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


def test_without_an_active_version_nothing_is_pruned(root, four):
    os.unlink(current(root))
    assert prune("m", keep=1, grace=0, root=root) == []
    os.symlink("damaged", current(root))
    assert prune("m", keep=1, grace=0, root=root) == []
    with pytest.raises(ValueError, match="keep=0"):
        prune("m", keep=0, root=root)


def test_a_version_activated_while_prune_takes_it_stays(root, four, monkeypatch):
    """Between prune's look and its rename: it puts the version back."""
    real = module._take_away

    def late(mount, name, version):
        if version == four[0]:
            activate("m", four[0], root=root)
        return real(mount, name, version)

    monkeypatch.setattr(module, "_take_away", late)
    assert four[0] not in prune("m", keep=1, grace=0, root=root)
    assert active(root, "m") == four[0] and model("m", root=root)()


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
    _, calls, _ = dying(lambda: prune("m", keep=1, grace=0, root=root, dry_run=True), 0)
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
        assert sorted(os.listdir(os.path.dirname(place(copy, "m", "x")))) == sorted([four[3], "CURRENT"])
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
            for name in [*files, "."]:
                os.utime(f"{folder}/{name}", (1, 1))
    prune("m", keep=9, root=root)
    assert not set(left) & set(os.listdir(above))


@pytest.mark.parametrize("sweeps", [False, True])
def test_what_a_killed_first_publication_left_goes_with_its_model(root, source, sweeps):
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
    with pytest.raises(ModelNotFound, match="no version of model 'm' is here: publish one"):
        prune("m", root=root)
    publish("m", source, root=root)
    assert model("m", root=root)()


def versions_left(root):
    return [name for name in os.listdir(f"{root}/models/m/versions") if name.startswith(".tmp-")]


def test_a_link_that_a_killed_activation_left_goes_after_grace(root, four):
    os.symlink("x", place(root, "m", ".tmp-left"))
    prune("m", keep=9, root=root)
    assert versions_left(root) == [".tmp-left"]
    os.utime(place(root, "m", ".tmp-left"), (1, 1), follow_symlinks=False)
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


def test_a_current_that_differs_from_the_manifest_is_found_and_written_anew(root, four):
    """Whoever may write to the mount can name other digests in CURRENT: verify says so, and activate heals it."""
    from efsstate.modelstore import manifest
    from efsstate.mount.files import Mount

    mount = Mount(root)
    lie = manifest.current(mount, "models/m")
    lie.files = {"w": (1, "0" * 64)}
    manifest.set_current(mount, "models/m", lie)
    assert ["activate it again" in text for text in verify("m", root=root)] == [True]
    activate("m", four[3], root=root)
    assert verify("m", root=root) == []
