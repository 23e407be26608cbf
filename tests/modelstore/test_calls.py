"""How many Python calls of our own functions, and reads of manifests, an operation makes."""

import os

import pytest
from tests.calls import Calls

from efsstate import model, publish
from efsstate.mount.files import Mount


@pytest.fixture
def put(root, tmp_path):
    def put(text):
        (tmp_path / "w").write_text(text)
        return publish("m", tmp_path / "w", root=root)

    return put


def test_a_publication_of_one_file_makes_300_calls(put):
    """In a process that has published before; another version is active.

    240 of its own, and 60 of the owners of its 11 descriptors.
    """
    put("1")
    put("2")
    with Calls() as calls:
        put("3")
    assert len(calls) <= 300, calls.names


def test_a_publication_reads_two_manifests_at_most(put, monkeypatch):
    put("1")
    reads, real = [], Mount.read_entry

    def read_entry(mount, folder, name, **options):
        reads.append(name)
        return real(mount, folder, name, **options)

    monkeypatch.setattr(Mount, "read_entry", read_entry)
    put("2")
    assert len(reads) <= 2
    assert put("2") and len(reads) <= 3  # one that exists is compared by its own


def test_a_warm_model_is_one_call(put, root):
    put("1")
    get = model("m", lambda files: bytes(files.read()), root=root)
    get()
    with Calls() as calls:
        assert get() == b"1"
    assert calls.names == ["modelstore/loader.py:Model.__call__"]


def test_a_look_at_an_unchanged_model_makes_26_calls(put, root):
    put("1")
    get = model("m", lambda files: bytes(files.read()), check_every=0, root=root)
    get()
    os.utime(f"{root}/models/m/versions", (1, 1))  # a young folder is read again
    get()
    with Calls() as calls:
        assert get() == b"1"
    assert len(calls) <= 26, calls.names
