"""What of a folder is published: executable bits, leftovers of tools, links of hub snapshots."""

import errno
import json
import os
import pathlib
import subprocess

import pytest
from tests.modelstore.conftest import place, tree

import efsstate
from efsstate import EfsStateError, model, publish, versions
from efsstate.modelstore import publishing
from efsstate.modelstore.patterns import DEFAULT_EXCLUDE, Patterns
from efsstate.mount.listing import ListedFolders


def program(path, text="#!/bin/sh\necho runs\n"):
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize("single", [False, True])
def test_executable_bits_are_kept(root, tmp_path, monkeypatch, single):
    """In the version, and in a staged copy; a file without one gets none."""
    folder = tmp_path / "model"
    folder.mkdir()
    program(folder / "run")
    if not single:
        (folder / "weights").write_text("1")
    made = publish("m", folder / "run" if single else folder, root=root)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    get = model("m", lambda files: files, stage=True, root=root)
    copy = get().path
    for path in (place(root, "m", made), copy if not single else os.path.dirname(copy)):
        assert subprocess.check_output([f"{path}/run"], text=True) == "runs\n"
        assert oct(os.stat(f"{path}/run").st_mode & 0o777) == "0o700"  # as the root's: 0o700
        if not single:
            assert not os.stat(f"{path}/weights").st_mode & 0o111
    assert efsstate.verify("m", root=root) == []


def test_an_executable_bit_makes_another_version(root, tmp_path):
    (tmp_path / "run").write_text("#!/bin/sh\n")
    first = publish("m", tmp_path / "run", root=root)
    (tmp_path / "run").chmod(0o755)
    second = publish("m", tmp_path / "run", root=root)
    assert first != second and publish("m", tmp_path / "run", root=root) == second


@pytest.fixture
def download(tmp_path):
    """What `hf download --local-dir`, git and Python leave beside a model."""
    folder = tmp_path / "download"
    for name in (
        "config.json",
        "weights.bin",
        "code/model.py",
        "code/__pycache__/model.cpython-311.pyc",
        ".git/HEAD",
        ".git/objects/aa/bb",
        ".cache/huggingface/download/weights.bin.metadata",
        ".cache/huggingface/download/weights.bin.lock",
        "weights.bin.lock",
        ".gitattributes",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


KEPT = {"config.json", "weights.bin", "code", "code/model.py", ".gitattributes"}


def test_what_tools_leave_behind_is_left_out(root, download):
    made = publish("m", download, root=root)
    assert {name for name in tree(place(root, "m", made)) if name != ".cache"} == KEPT
    for name in (".git/HEAD", ".cache/huggingface/download/weights.bin.metadata"):
        (download / name).write_text("another time")
    assert publish("m", download, root=root) == made


def test_exclude_and_include_say_otherwise(root, download):
    whole = publish("m", download, exclude=(), root=root)
    assert ".git/objects/aa/bb" in tree(place(root, "m", whole))
    some = publish("m", download, include=["*.json", "code"], root=root)
    names = {n for n, data in tree(place(root, "m", some)).items() if data is not None}
    assert names == {"config.json", "code/model.py"}
    less = publish("m", download, exclude=[*DEFAULT_EXCLUDE, "*.py"], root=root)
    assert "code/model.py" not in tree(place(root, "m", less))
    with pytest.raises(EfsStateError, match="no file is in it"):
        publish("m", download, include=["*.onnx"], root=root)
    for bad in ({"include": "*.json"}, {"exclude": ".git"}, {"exclude": [3]}):
        with pytest.raises(TypeError, match="pattern"):
            publish("m", download, root=root, **bad)


@pytest.mark.parametrize(
    ("path", "is_taken"),
    [
        ("w.bin", True),
        (".git", False),
        ("a/.git/config", False),
        (".gitignore", True),
        (".cache/huggingface/x", False),
        ("a/.cache/huggingface/x", False),
        (".cache/torch/x", True),
        ("huggingface/x", True),
        ("poetry.lock", False),
        ("locks/x", True),
        ("a/__pycache__/b.pyc", False),
    ],
)
def test_the_default_takes(path, is_taken):
    assert Patterns(None, DEFAULT_EXCLUDE).takes(path) is is_taken


@pytest.fixture
def snapshot(tmp_path):
    """A model in the cache of the Hugging Face hub: its files are links to blobs."""
    repository = tmp_path / "hub" / "models--org--name"
    blobs, revision = repository / "blobs", repository / "snapshots" / "4f0e1c"
    blobs.mkdir(parents=True)
    (revision / "onnx").mkdir(parents=True)
    for name, digest in (("config.json", "aaa"), ("onnx/model.onnx", "bbb")):
        (blobs / digest).write_text(name)
        up = "../" * (2 + name.count("/"))
        (revision / name).symlink_to(f"{up}blobs/{digest}")
    return revision


def test_links_of_a_hub_snapshot_are_followed(root, snapshot, tmp_path):
    made = publish("m", snapshot, root=root)
    files = tree(place(root, "m", made))
    assert files == {
        "config.json": b"config.json",
        "onnx": None,
        "onnx/model.onnx": b"onnx/model.onnx",
    }
    assert not pathlib.Path(place(root, "m", made), "config.json").is_symlink()
    (tmp_path / "current").symlink_to(snapshot)
    assert publish("m", tmp_path / "current", root=root) == made


@pytest.mark.parametrize("where", ["/etc/passwd", "../../../secret", "../../refs/main", "missing"])
def test_other_links_of_a_snapshot_are_refused(root, snapshot, where):
    (snapshot.parent.parent.parent / "secret").write_text("x")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("x")
    (snapshot / "bad").symlink_to(where)
    with pytest.raises(EfsStateError, match="bad: can't be published: a symbolic link"):
        publish("m", snapshot, root=root)
    assert os.listdir(root) == []


@pytest.fixture
def sharded(tmp_path):
    folder = tmp_path / "sharded" / "text"
    folder.mkdir(parents=True)
    names = [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    for name in names:
        (folder / name).write_text(name)
    weights = {f"layer{i}": name for i, name in enumerate(names * 2)}
    index = {"metadata": {"total_size": 3}, "weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_sharded_weights_must_be_complete(root, sharded):
    publish("m", sharded.parent, root=root)
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        EfsStateError, match=r"text/model\.safetensors\.index\.json: can't be published: it names 1"
    ) as caught:
        publish("m2", sharded.parent, root=root)
    assert "model-00002-of-00003.safetensors" in str(caught.value)
    assert os.listdir(f"{root}/models") == ["m"]
    publish("m2", sharded.parent, exclude=["*.index.json"], root=root)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', "\x00", "[" * 100_000])
def test_another_kind_of_index_is_a_file_as_any(root, sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    publish("m", sharded, root=root)


def test_meta_travels_with_the_version(root, tmp_path):
    (tmp_path / "w").write_text("1")
    meta = {"commit": "4f0e1c", "metrics": {"f1": 0.93}, "url": "https://example.org//x"}
    made = publish("m", tmp_path / "w", meta=meta, root=root)
    assert versions("m", root=root)[0].meta == meta
    assert model("m", lambda files: files.meta, root=root)() == meta
    assert publish("m", tmp_path / "w", meta=meta, root=root) == made
    assert publish("m", tmp_path / "w", root=root) != made
    big = {"text": "x" * 10_000}  # CURRENT has only the id then
    publish("m", tmp_path / "w", meta=big, root=root)
    assert model("m", lambda files: files.meta, root=root)() == big


@pytest.mark.parametrize(
    "meta", [{"x": object()}, {1: 2}, {"x": (1, 2)}, [1], {"x": float("nan")}, {"x": "y" * 20_000}]
)
def test_meta_that_json_does_not_keep_is_refused(root, tmp_path, meta):
    (tmp_path / "w").write_text("1")
    with pytest.raises((TypeError, ValueError)):
        publish("m", tmp_path / "w", meta=meta, root=root)
    assert os.listdir(root) == []


@pytest.fixture
def trained(tmp_path):
    """A folder that a trainer has written."""
    folder = tmp_path / "trained"
    (folder / "weights").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "weights" / "w.bin").write_bytes(b"w" * 100)
    return folder


def test_a_folder_that_is_not_there_for_a_moment_raises(root, trained, monkeypatch):
    """A trainer swaps it between the listing of the folder above it and its own."""
    real, moved = ListedFolders.reopen, trained.parent / "moved"

    def reopen(mount, name, **more):
        if name != "weights":
            return real(mount, name, **more)
        monkeypatch.undo()
        os.rename(trained / name, moved)
        try:
            return real(mount, name, **more)
        finally:
            os.rename(moved, trained / name)

    monkeypatch.setattr(ListedFolders, "reopen", reopen)
    with pytest.raises(EfsStateError, match="weights: can't be published: it changes meanwhile"):
        publish("m", trained, root=root)
    version = publish("m", trained, root=root)
    assert tree(place(root, "m", version)) == tree(trained)


def test_a_stale_folder_is_not_published_as_an_empty_one(root, trained, monkeypatch):
    real = ListedFolders.reopen

    def reopen(mount, folder, **more):
        if folder == "weights":
            raise mount.with_path(OSError(errno.ESTALE, os.strerror(errno.ESTALE)), folder)
        return real(mount, folder, **more)

    monkeypatch.setattr(ListedFolders, "reopen", reopen)
    with pytest.raises(OSError, match="weights") as caught:
        publish("m", trained, root=root)
    assert caught.value.errno == errno.ESTALE
    with pytest.raises(efsstate.ModelNotFound):
        versions("m", root=root)


@pytest.mark.parametrize("how", ["filled", "gone", "another"])
def test_a_folder_that_is_filled_meanwhile_raises(root, trained, monkeypatch, how):
    """It was empty as it was listed, because the trainer makes it anew."""
    (trained / "weights" / "w.bin").rename(trained / "w.bin")
    real = publishing._copy_file

    def copy_file(*given):
        monkeypatch.setattr(publishing, "_copy_file", real)
        if how != "filled":
            (trained / "weights").rename(trained / "old")
        if how == "another":
            (trained / "weights").mkdir()
        if how != "gone":
            (trained / "weights" / "w.bin").write_bytes(b"w")
        real(*given)

    monkeypatch.setattr(publishing, "_copy_file", copy_file)
    with pytest.raises(EfsStateError, match="weights: can't be published: it changes meanwhile"):
        publish("m", trained, root=root)
    version = publish("m", trained, root=root)
    assert tree(place(root, "m", version)) == tree(trained)
