"""A manifest that lies: every field is looked at before a path is made of it."""

import json
import os
import pathlib

import pytest

from efsstate import CorruptEntryError, UnknownFormatError, model, publish
from efsstate.modelstore import manifest
from efsstate.mount import store
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
    """CURRENT with this payload, sealed as ours: what whoever may write to the mount can do."""
    mount = Mount(root)
    mount.make("models/m/versions")
    store.write(mount, "models/m", "CURRENT", payload if isinstance(payload, bytes) else json.dumps(payload).encode(), codec="json")


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_damage(root, lie):
    write(root, LIES[lie])
    with pytest.raises(CorruptEntryError, match="CURRENT"):
        model("m", lambda files: files.read(), root=root)()


def test_the_one_that_does_not_lie_is_read(root):
    write(root, GOOD)
    assert manifest.current(Mount(root), "models/m").files == {"w": (1, DIGEST)}


def test_a_file_that_is_not_as_the_manifest_says(root, tmp_path):
    (tmp_path / "w").write_bytes(b"12345")
    made = publish("m", tmp_path / "w", root=root)
    file = f"{root}/models/m/versions/{made}/w"

    def load(verify, use):
        return model("m", lambda files: bytes(use(files)), verify=verify, root=root)

    uses = [lambda files: files.read(), lambda files: files.mmap(), lambda files: pathlib.Path(files.path).read_bytes(), lambda files: pathlib.Path(files.stage()).read_bytes()]
    os.truncate(file, 3)
    for use in uses:
        for verify in ("size", "digest"):
            with pytest.raises(CorruptEntryError, match="3 bytes, and not the 5"):
                load(verify, use)()
    for use in uses[:3]:
        assert load(None, use)() == b"123"
    with open(file, "wb") as f:
        f.write(b"abcde")
    for use in uses[:3]:
        assert load("size", use)() == b"abcde"
        with pytest.raises(CorruptEntryError, match="SHA-256"):
            load("digest", use)()
    for verify in ("size", "digest", None):  # a copy is made once and used for long: it is always compared
        with pytest.raises(CorruptEntryError, match="SHA-256"):
            load(verify, uses[3])()
    os.unlink(file)
    os.symlink("/etc/passwd", file)
    for use in uses:
        with pytest.raises(CorruptEntryError, match="symbolic link"):
            load("size", use)()


def test_every_flipped_bit_of_current_is_noticed(root, tmp_path):
    (tmp_path / "w").write_bytes(b"12345")
    publish("m", tmp_path / "w", root=root)
    path = f"{root}/models/m/CURRENT"
    data = pathlib.Path(path).read_bytes()
    for at in range(len(data)):
        for bit in (0, 7):
            bad = bytearray(data)
            bad[at] ^= 1 << bit
            with open(path, "wb") as f:
                f.write(bad)
            with pytest.raises((CorruptEntryError, UnknownFormatError), match="CURRENT"):
                manifest.current(Mount(root), "models/m")
