"""A manifest that lies: every field is looked at before a path is made of it."""

import errno
import json
import os
import pathlib
import re
import shutil
import stat

import pytest
from tests.modelstore.conftest import current, place, relink

from efsstate import CorruptEntryError, activate, model, prune, publish, verify, versions
from efsstate.modelstore import pointer
from efsstate.mount import links
from efsstate.mount.files import Mount

GOOD = {"version": "v1", "single": True, "files": {"w": [1, "0" * 64]}, "folders": []}
DIGEST = "0" * 64

LIES = {
    "no json": b"{",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "no version": {k: v for k, v in GOOD.items() if k != "version"},
    "a version with a path": GOOD | {"version": "../../etc"},
    "no files": GOOD | {"files": {}},
    "two files as a single one": GOOD | {"files": {"a": [1, DIGEST], "b": [1, DIGEST]}},
    "a negative size": GOOD | {"files": {"w": [-1, DIGEST]}},
    "a huge size": GOOD | {"files": {"w": [2**70, DIGEST]}},
    "a size that is none": GOOD | {"files": {"w": [True, DIGEST]}},
    "a short digest": GOOD | {"files": {"w": [1, "00"]}},
    "an absolute name": GOOD | {"single": False, "files": {"/etc/passwd": [1, DIGEST]}},
    "a name that leaves": GOOD | {"single": False, "files": {"a/../../../x": [1, DIGEST]}},
    "dots": GOOD | {"single": False, "files": {"..": [1, DIGEST]}},
    "a name with NUL": GOOD | {"files": {"a\0b": [1, DIGEST]}},
    "an empty part": GOOD | {"single": False, "files": {"a//b": [1, DIGEST]}},
    "a folder that leaves": GOOD | {"folders": ["../x"]},
    "a long name": GOOD | {"files": {"x" * 300: [1, DIGEST]}},
    "half a character": json.dumps(GOOD).replace('"w"', '"\\ud800"').encode(),
    "folders that are none": GOOD | {"folders": [1]},
}


def write(root, payload):
    """CURRENT and a version's manifest with this payload, sealed as ours.

    What whoever may write to the mount can do.
    """
    mount = Mount(root)
    mount.make("models/m/versions/v1")
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    links.replace(
        mount, "models/m/versions", "CURRENT", text.decode() if len(text) < 1000 else "v1"
    )
    mount.write_entry("models/m/versions/v1", ".efsstate-manifest", text, codec="json")


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_damage(root, lie):
    write(root, LIES[lie])
    with pytest.raises(
        CorruptEntryError, match="CURRENT" if lie != "deep" else ".efsstate-manifest"
    ):
        model("m", lambda files: files.read(), root=root)()


def test_the_one_that_does_not_lie_is_read(root):
    write(root, GOOD)
    assert pointer.read(Mount(root), "models/m").files == {"w": (1, DIGEST)}


def test_a_file_that_is_not_as_the_manifest_says(root, tmp_path):
    (tmp_path / "w").write_bytes(b"12345")
    made = publish("m", tmp_path / "w", root=root)
    file = f"{root}/models/m/versions/{made}/w"

    def load(verify, use):
        return model("m", lambda files: bytes(use(files)), verify=verify, root=root)

    uses = [
        lambda files: files.read(),
        lambda files: files.mmap(),
        lambda files: pathlib.Path(files.path).read_bytes(),
        lambda files: pathlib.Path(files.stage()).read_bytes(),
    ]
    os.truncate(file, 3)
    for use in uses:
        for how in ("size", "digest"):
            with pytest.raises(CorruptEntryError, match="3 bytes, and not the 5"):
                load(how, use)()
    for use in uses[:3]:
        assert load(None, use)() == b"123"
    with open(file, "wb") as f:
        f.write(b"abcde")
    for use in uses[:3]:
        assert load("size", use)() == b"abcde"
        with pytest.raises(CorruptEntryError, match="SHA-256"):
            load("digest", use)()
    for how in (
        "size",
        "digest",
        None,
    ):  # a copy is made once and used for long: it is always compared
        with pytest.raises(CorruptEntryError, match="SHA-256"):
            load(how, uses[3])()
    os.unlink(file)
    os.symlink("/etc/passwd", file)
    for use in uses:
        with pytest.raises(CorruptEntryError, match="symbolic link"):
            load("size", use)()


def test_every_flipped_bit_of_current_is_noticed(root, tmp_path):
    (tmp_path / "w").write_bytes(b"12345")
    publish("m", tmp_path / "w", root=root)
    path = current(root)
    data = os.fsencode(os.readlink(path))
    for at in range(len(data)):
        for bit in (0, 3, 7):
            bad = bytearray(data)
            bad[at] ^= 1 << bit
            relink(path, os.fsdecode(bytes(bad)))
            with pytest.raises(CorruptEntryError, match="CURRENT"):
                pointer.read(Mount(root), "models/m")


def test_a_long_manifest_is_read_from_the_version(root, source):
    """A link has no room for it: CURRENT names the version alone."""
    for i in range(60):
        (source / f"more{i}").write_text(str(i))
    made = publish("m", source, root=root)
    assert os.readlink(current(root)).startswith(f"{made} ")
    assert model("m", lambda files: bytes(files.read("more39")), root=root)() == b"39"
    assert [one.active for one in versions("m", root=root)] == [True] and verify(
        "m", root=root
    ) == []
    relink(current(root), os.readlink(current(root)).replace(made, "0" * 16))
    with pytest.raises(CorruptEntryError, match="CURRENT: damaged"):
        model("m", root=root)()
    links.replace(Mount(root), "models/m/versions", "CURRENT", "gone")
    with pytest.raises(
        CorruptEntryError,
        match=r"CURRENT: .*names version gone, which is missing; activate another",
    ):
        model("m", root=root)()
    links.replace(Mount(root), "models/m/versions", "CURRENT", "../x")
    with pytest.raises(CorruptEntryError, match=r"CURRENT: .*names the version '../x'"):
        model("m", root=root)()


def test_where_links_are_short_current_names_the_version_alone(root, source, monkeypatch):
    """XFS takes 1,024 bytes, for instance."""
    real = os.symlink

    def short(text, *given, **named):
        if len(text) > 100:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        real(text, *given, **named)

    monkeypatch.setattr(os, "symlink", short)
    made = publish("m", source, root=root)
    assert os.readlink(current(root)).startswith(f"{made} ") and model("m", root=root)() == place(
        root, "m", made
    )
    assert not [
        name for name in os.listdir(f"{root}/models/m/versions") if name.startswith(".tmp-")
    ]


@pytest.mark.parametrize(
    "kind", ["a folder", "a pipe", "a device", "a file for the version's folder"]
)
def test_what_stands_in_a_files_place_is_named(root, tmp_path, kind):
    """Neither opened for its content nor waited for, however the model is used."""
    (tmp_path / "w").write_bytes(b"12345")
    before = publish("m", tmp_path / "w", root=root)
    serving = model("m", lambda files: bytes(files.read()), root=root, check_every=0)
    assert serving() == b"12345"
    (tmp_path / "w").write_bytes(b"new")
    folder = pathlib.Path(place(root, "m", publish("m", tmp_path / "w", root=root)))
    bad = folder / "w"
    bad.unlink()
    if kind == "a folder":
        bad.mkdir()
    elif kind == "a pipe":
        os.mkfifo(bad)
    elif kind == "a device":
        try:
            os.mknod(bad, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root makes devices")
    else:
        shutil.rmtree(folder)
        folder.write_text("x")
    for use in (
        lambda files: files.read(),
        lambda files: files.mmap(),
        lambda files: files.path,
        lambda files: files.stage(),
    ):
        with pytest.raises(CorruptEntryError, match=re.escape(str(folder))):
            model("m", use, root=root)()
    assert serving() == b"12345"
    assert verify("m", root=root) != []
    activate("m", before, root=root)
    os.utime(folder, (1, 1))
    if kind == "a file for the version's folder":  # somebody's notes, as far as anybody knows
        assert prune("m", keep=1, grace=60, root=root) == [] and folder.read_text() == "x"
