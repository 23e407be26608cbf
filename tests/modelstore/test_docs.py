"""What docs/models.md says of names, versions, damage and errors."""

import os
import pathlib
import subprocess
import sys

import pytest
from tests.modelstore.conftest import current, place

import efsstate
from efsstate import activate, model, prune, publish, verify, versions

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "models.md").read_text()


def test_names():
    for name in (
        "./w1",
        "../w1",
        "~/w1",
        "w1/",
        "a--b",
        "a b",
        "-a",
        "a-",
        ".a",
        "a/.b",
        "",
        "a" * 161,
    ):
        with pytest.raises(ValueError, match="can't be used"):
            model(name)
    for name in (lambda files: files.path, pathlib.Path("/mnt/efs/w1.pth")):
        with pytest.raises(TypeError, match="a string is needed"):
            model(name)
    assert [
        model(name).version for name in ("resnet50", "org/name", "/mnt/efs/w1.pth", "a" * 160)
    ] == [None] * 4


def test_versions_and_verify(root, source):
    first = publish("m", source, root=root)
    (source / "config.json").write_text("{ }")
    second = publish("m", source, root=root)
    found = versions("m", root=root)
    assert [(one.id, one.active, one.problem) for one in found] == [
        (second, True, None),
        (first, False, None),
    ]
    assert all(f"`{name}`" in PAGE for name in efsstate.modelstore.versions.Version.__slots__)
    assert (
        verify("m", root=root) == []
        and prune("m", root=root) == []
        and prune("m", keep=1, grace=0, root=root) == [first]
    )


def test_how_damage_is_mended(root, source):
    """Sizes and what is missing: the same id. Bytes: another one. CURRENT: `activate`."""
    version = publish("m", source, root=root)
    config, manifest = (
        pathlib.Path(place(root, "m", version), name)
        for name in ("config.json", ".efsstate-manifest")
    )
    for break_it in (
        config.unlink,
        manifest.unlink,
        lambda: config.write_text("longer"),
        lambda: manifest.write_bytes(b"torn"),
    ):
        break_it()
        assert len(verify("m", root=root)) == 1
        assert publish("m", source, root=root) == version and verify("m", root=root) == []
    config.write_text("[]")
    assert (
        publish("m", source, root=root) == version
        and "its SHA-256 is not" in verify("m", root=root)[0]
    )
    assert publish("m", source, version="other-id", root=root) == "other-id" and model(
        "m", root=root
    )().endswith("other-id")
    assert (
        len(verify("m", root=root)) == 1
        and prune("m", keep=1, grace=0, root=root) == [version]
        and verify("m", root=root) == []
    )
    os.remove(current(root))
    activate("m", "other-id", root=root)
    assert verify("m", root=root) == []


def test_verify_none_compares_nothing_but_copies(root, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "w").write_bytes(b"whole")
    file = pathlib.Path(place(root, "m", publish("m", tmp_path / "w", root=root)), "w")
    file.write_bytes(b"cut")
    assert bytes(model("m", lambda files: files.read(), verify=None, root=root)()) == b"cut"
    for options in ({}, {"verify": None, "stage": True}):
        with pytest.raises(efsstate.CorruptEntryError):
            model("m", root=root, **options)()


def test_every_error_is_on_the_page():
    for name in (
        "ModelNotFound",
        "RootError",
        "CorruptEntryError",
        "SignatureError",
        "UnknownFormatError",
        "ClaimedError",
        "EfsStateError",
    ):
        assert f"| `{name}`" in PAGE and issubclass(getattr(efsstate, name), efsstate.EfsStateError)


def test_a_script_prunes_with_y(root, source):
    publish("m", source, root=root)
    publish("m", source, version="two", root=root)

    def command(*more):
        given = [
            sys.executable,
            "-c",
            "from efsstate.cli.main import main; main()",
            "model",
            "prune",
            "m",
            "--keep",
            "1",
            "--grace",
            "0",
            "--root",
            root,
            *more,
        ]
        return subprocess.run(given, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    assert "it needs -y" in command().stderr and len(versions("m", root=root)) == 2
    assert not command("-y").stderr and len(versions("m", root=root)) == 1
