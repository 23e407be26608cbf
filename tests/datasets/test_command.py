"""`efsstate dataset` lists, freezes, verifies and removes; every outcome has its exit code."""

import json
import os
import pathlib

import pytest

from efsstate import dataset
from efsstate.cli import app


@pytest.fixture
def ds(tmp_path):
    made = dataset("ocr/train", root=tmp_path)
    made.add(b"one", ".txt", key="1"), made.add(b"two", ".txt", key="2")
    return made


@pytest.fixture
def run(tmp_path, capsys):
    def run(*arguments, code=0):
        given = app.run(["dataset", *arguments, "--root", str(tmp_path), "--json"])
        out, err = capsys.readouterr()
        assert given == code, (out, err)
        return json.loads(out.strip().splitlines()[-1]) if out.strip() else err

    return run


def test_ls_shows_every_dataset(ds, run, tmp_path):
    dataset("other", root=tmp_path).add(b"x")
    ds.freeze("run-7")
    (tmp_path / "datasets" / "not--").mkdir()
    rows = run("ls")["datasets"]
    assert [(row["name"], row["parts"]) for row in rows] == [("ocr/train", 2), ("other", 1)]
    assert rows[0]["snapshots"] == ["run-7"] and rows[0]["bytes"] == 6


def test_freeze_and_show(ds, run):
    assert run("freeze", "ocr/train", "run-7")["parts"] == 2
    assert run("show", "ocr/train")["snapshots"] == [{"name": "run-7", "parts": 2, "bytes": 6}]
    parts = run("show", "ocr/train", "run-7")["parts"]
    assert [part["name"] for part in parts] == [part.name for part in ds.parts()]


def test_verify_tells_damage_and_removal_apart(ds, run):
    ds.freeze("run-7")
    assert run("verify", "ocr/train", "run-7")["findings"] == []
    ds.remove("1")
    document = run("verify", "ocr/train", "run-7")
    assert len(document["removed"]) == 1 and not document["findings"]
    [part] = ds.parts()
    os.chmod(part.path, 0o600)
    pathlib.Path(part.path).write_bytes(b"tw0")
    [finding] = run("verify", "ocr/train", "run-7", code=1)["findings"]
    assert finding["where"] == part.path and "damaged" in finding["what"]


@pytest.mark.parametrize("other", [None, "another key"])
def test_without_the_signing_key_a_dataset_is_refused(tmp_path, run, monkeypatch, other):
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "one key")
    ds = dataset("d", root=tmp_path)
    part = ds.add(b"personal", key="user-42")
    ds.freeze("run")
    monkeypatch.delenv("EFSSTATE_SIGNING_KEY")
    if other:
        monkeypatch.setenv("EFSSTATE_SIGNING_KEY", other)
    for arguments in (["freeze", "d", "new"], ["rm", "d", "--key", "user-42", "-y"]):
        assert "EFSSTATE_SIGNING_KEY" in run(*arguments, code=3)["error"]["message"]
    run("verify", "d", "run", code=3)
    assert os.path.exists(part.path)


def test_verify_does_not_call_each_signed_part_damaged(tmp_path, run, monkeypatch):
    """Parts without a key, and a snapshot that was made without the signing key."""
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "one key")
    ds = dataset("d", root=tmp_path)
    ds.add(b"1"), ds.add(b"2")
    monkeypatch.delenv("EFSSTATE_SIGNING_KEY")
    ds.freeze("run")
    findings = run("verify", "d", "run", code=1)["findings"]
    assert all("EFSSTATE_SIGNING_KEY" in finding["do"] for finding in findings)


def test_rm_takes_a_part_or_a_snapshot(ds, run):
    ds.freeze("run-7")
    assert run("rm", "ocr/train", "--key", "1", "--dry-run")["removed"] is False
    assert len(ds.parts()) == 2
    assert run("rm", "ocr/train", "--key", "1", "-y")["removed"] is True
    assert run("rm", "ocr/train", "--snapshot", "run-7", "-y")["removed"] is True
    assert ds.snapshots() == [] and len(ds.parts()) == 1


def test_rm_says_that_a_key_without_a_part_is_blocked(ds, tmp_path, capsys):
    rm = ["dataset", "rm", "ocr/train", "--root", str(tmp_path), "--key"]
    assert app.run([*rm, "TYPO", "--dry-run"]) == 0
    assert "not there: the key would be blocked for good" in capsys.readouterr().out
    assert ds.add(b"x", key="TYPO").added and ds.remove("TYPO")
    assert app.run([*rm, "TYPO 2", "-y"]) == 0
    assert "nothing can be added under it" in capsys.readouterr().out
    assert ds.add(b"x", key="TYPO 2").removed
    assert app.run([*rm, "1", "-y"]) == 0
    assert capsys.readouterr().out == "ocr/train: the part of key '1' is removed\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "nothing"),
        ("show", "ocr/train", "nothing"),
        ("verify", "a--b", "x"),
        ("rm", "ocr/train", "-y"),
        ("rm", "ocr/train", "--key", "1", "--snapshot", "x", "-y"),
    ],
)
def test_a_mistake_in_the_line_is_exit_code_2(ds, run, arguments):
    run(*arguments, code=2)
    assert len(ds.parts()) == 2
