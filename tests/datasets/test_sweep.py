"""The sweep takes what is abandoned or expired of a dataset, and no part."""

import os
import pathlib
import time

import pytest

import efsstate
from efsstate import EfsStateError, dataset
from efsstate.datasets import protocol, retention
from efsstate.errors import ForeignFilesError
from efsstate.format import dataset_layout as layout

DAY = 86_400.0


@pytest.fixture
def ds(tmp_path):
    return dataset("d", root=tmp_path)


def sweep(ds, *, later=0.0, dry_run=False):
    folders = ds.folders(reading=False)
    now = time.time() + later
    return list(retention.sweep(folders.mount, folders.folder, now, dry_run=dry_run))


def below(ds, folder):
    return sorted(os.listdir(pathlib.Path(ds.path).parent / folder))


def leave_staged(ds):
    """Leave a staged file, as a writer that is killed does."""
    folders = ds.folders(reading=False)
    claim = folders.stage("a" * 32, ".bin")
    folders.mount.create(folders.staging(claim.process), claim.staged, lambda _now: [b"half"])


def test_a_staged_file_goes_after_a_day_and_parts_stay(ds):
    ds.add(b"whole", key="k")
    leave_staged(ds)
    assert sweep(ds) == []
    assert sweep(ds, later=2 * DAY, dry_run=True) == [("temporary", 4)]
    assert sweep(ds, later=2 * DAY) == [("temporary", 4)]
    assert below(ds, "staging") == [] and len(ds.parts()) == 1


@pytest.mark.parametrize("kind", ["journal", "folder"])
def test_what_a_library_left_beside_its_path_goes_too(ds, kind):
    """A journal of SQLite, the .npz of a wrong suffix, a store that is a folder: else they stay."""
    beside = None
    try:
        with ds.part(".db", key="k") as path:
            if kind == "journal":
                pathlib.Path(path).write_bytes(b"rows")
                beside = pathlib.Path(f"{path}-wal")
                beside.write_bytes(b"left")
            else:
                beside = pathlib.Path(path)
                (beside / "chunks").mkdir(parents=True)
                (beside / "chunks" / "0").write_bytes(b"left")
    except EfsStateError:
        assert kind != "journal"
    assert sweep(ds) == [] and os.path.lexists(beside)
    [(reason, _size)] = sweep(ds, later=2 * DAY, dry_run=True)
    assert reason == "temporary" and os.path.lexists(beside)
    assert [reason for reason, _ in sweep(ds, later=2 * DAY)] == ["temporary"]
    assert below(ds, "staging") == []


def add_while_it_is_swept(ds, monkeypatch):
    """Add a part whose writer is frozen for two days between its claim and its rename."""
    with ds.part(key="k") as path:
        pathlib.Path(path).write_bytes(b"late")
        create = protocol.links.create

        def sweep_then(*arguments):
            create(*arguments)
            sweep(ds, later=2 * DAY)

        monkeypatch.setattr(protocol.links, "create", sweep_then)


def test_a_writer_whose_staged_file_was_swept_is_told(ds, monkeypatch):
    """It gets an error and no acknowledgement, and the key can be added again."""
    with pytest.raises(EfsStateError, match="add it again"):
        add_while_it_is_swept(ds, monkeypatch)
    monkeypatch.undo()
    assert ds.parts() == []
    assert ds.add(b"again", key="k").added


def test_a_snapshot_goes_after_its_ttl(ds):
    for i in range(200):
        ds.add(b"x", key=str(i))
    ds.freeze("short", ttl="1h"), ds.freeze("long")
    assert sweep(ds, later=60) == []
    assert sweep(ds, later=7200) == [("snapshot", 0)]
    assert ds.snapshots() == ["long"] and len(ds.parts()) == 200
    assert len([n for n in below(ds, "snapshots") if layout.is_list(n)]) == 1


def test_a_list_without_a_snapshot_goes_after_a_day(ds):
    for i in range(200):
        ds.add(b"x", key=str(i))
    ds.freeze("run")
    [link] = [n for n in below(ds, "snapshots") if not layout.is_list(n)]
    os.unlink(pathlib.Path(ds.path).parent / "snapshots" / link)
    assert sweep(ds) == []
    [(reason, size)] = sweep(ds, later=2 * DAY)
    assert reason == "temporary" and size > 1000 and below(ds, "snapshots") == []


def test_a_list_stays_while_a_snapshot_cannot_be_read(ds):
    """A damaged link may be the one that names the list."""
    for i in range(200):
        ds.add(b"x", key=str(i))
    ds.freeze("run")
    folder = pathlib.Path(ds.path).parent / "snapshots"
    [link] = [n for n in below(ds, "snapshots") if not layout.is_list(n)]
    os.unlink(folder / link)
    os.symlink("nonsense", folder / link)
    assert sweep(ds, later=9 * DAY) == []


def test_strange_files_stay_and_are_named(ds, tmp_path):
    ds.add(b"x")
    strange = pathlib.Path(ds.path).parent / "staging" / "notes.txt"
    strange.write_text("mine")
    os.utime(strange, (0, 0))
    with pytest.raises(ForeignFilesError) as caught:
        sweep(ds, later=9 * DAY)
    assert caught.value.paths == [str(strange)] and strange.exists()


def test_the_sweep_goes_through_datasets(ds, tmp_path, monkeypatch):
    """`efsstate.sweep` takes what is abandoned, names what is strange, and leaves the parts."""
    ds.add(b"x", key="k"), ds.freeze("short", ttl="1h")
    leave_staged(ds)
    (tmp_path / "datasets" / "notes.txt").write_text("mine")
    old = time.time() - 3 * DAY
    for path in pathlib.Path(ds.path).parent.rglob("staging/*/.tmp-*"):
        os.utime(path, (old, old))
    os.utime(tmp_path / "datasets" / "notes.txt", (old, old))
    report = efsstate.sweep(root=tmp_path, dry_run=True)
    assert report.reasons == {"temporary": 1}
    report = efsstate.sweep(root=tmp_path)
    assert report.finished and report.reasons == {"temporary": 1}
    assert report.foreign_paths == [str(tmp_path / "datasets" / "notes.txt")]
    assert len(ds.parts()) == 1 and ds.snapshots() == ["short"]


def test_an_unreadable_snapshot_does_not_keep_others_from_expiring(ds):
    """A link that somebody planted would have them, and their lists, grow for ever."""
    for number in range(9):
        ds.freeze(f"passing {number}", parts=[ds.add(b"1")], ttl="1h")
    folder = f"{ds.path}/../snapshots"
    for name in ("a", "z"):
        os.symlink("nonsense", f"{folder}/{layout.snapshot_name(name)}")
    lists = [name for name in below(ds, "snapshots") if layout.is_list(name)]
    assert sweep(ds, later=7200) == [("snapshot", 0)] * 9
    assert [name for name in below(ds, "snapshots") if layout.is_list(name)] == lists
