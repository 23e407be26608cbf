"""A repository of a hub becomes a version: the real client, and a hub on loopback."""

import json
import os
import subprocess
import sys
import tracemalloc

import huggingface_hub
import pytest
from huggingface_hub import constants
from tests.modelstore.conftest import place, tree
from tests.modelstore.hub_server import TOKEN, Hub, Repository, point_client_at

import efsstate
from efsstate import EfsStateError, model, publish, versions
from efsstate.errors import DeadlineExceeded
from efsstate.modelstore import hub as hubs
from efsstate.modelstore import hub_source, publication, reader
from efsstate.modelstore.patterns import DEFAULT_EXCLUDE, Patterns

MIB = 1 << 20
WEIGHTS = os.urandom(3 * MIB + 17)
FILES = {
    "config.json": b'{"layers": 2}',
    "model.safetensors": WEIGHTS,
    "onnx/model.bin": os.urandom(5000),
    "empty.txt": b"",
    ".gitattributes": b"*.bin filter=lfs",
}


@pytest.fixture(scope="module")
def server():
    running = Hub()
    yield running
    running.close()


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """The hub without faults, with one repository; the client asks no other."""
    server.repositories = {"org/net": Repository(FILES)}
    server.served, server.asked, server.sent, server.signed = [], [], 0, 0
    server.cut_after, server.expired, server.damaged, server.has_ranges = None, 0, None, True
    server.connections = 0
    point_client_at(server, monkeypatch, tmp_path)
    return server


@pytest.fixture
def small(monkeypatch):
    """Ranges of 64 KiB, so that a file of 3 MiB has many."""
    monkeypatch.setattr(reader, "RANGE", 64 << 10)


def test_a_repository_becomes_a_version(root, hub):
    made = publish("net", hub="org/net", root=root)
    commit = hub.repositories["org/net"].commit
    files = {
        name: data for name, data in tree(place(root, "net", made)).items() if data is not None
    }
    assert files == FILES
    assert versions("net", root=root)[0].meta == {"hub": "org/net", "revision": commit}
    assert efsstate.verify("net", root=root) == []
    assert model("net", lambda got: bytes(got.read("model.safetensors")), root=root)() == WEIGHTS


def test_it_is_what_the_client_downloads(root, hub, tmp_path):
    """The files of a snapshot, with the same digests: the stand-in is one that the client knows."""
    snapshot = huggingface_hub.snapshot_download("org/net", cache_dir=tmp_path / "cache")
    by_folder = publish("net", snapshot, root=root)
    by_hub = publish("net", hub="org/net@main", root=root)
    from efsstate.modelstore import manifest
    from efsstate.mount.files import Mount

    first, second = (manifest.read(Mount(root), "models/net", v) for v in (by_folder, by_hub))
    assert first.files == second.files


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", "commit"])
def test_a_revision_is_pinned_to_its_commit(root, hub, revision):
    repository = hub.repositories["org/net"]
    asked = repository.commit if revision == "commit" else revision
    made = publish("net", hub=f"org/net@{asked}", meta={"f1": 0.9}, root=root)
    expected = {"hub": "org/net", "revision": repository.commit, "f1": 0.9}
    assert versions("net", root=root)[0].meta == expected
    paths = [path for _, path in hub.asked if "/resolve/" in path]
    assert paths and all(repository.commit in path for path in paths)
    assert publish("net", hub="org/net", meta={"f1": 0.9}, root=root) == made


def test_each_large_byte_is_fetched_once_and_not_again(root, hub, small):
    publish("net", hub="org/net", root=root)
    assert hub.sent == len(WEIGHTS) + 5000
    assert len(hub.served) == len(set(hub.served)) > 40
    publish("net", hub="org/net", root=root)
    assert hub.sent == len(WEIGHTS) + 5000


def test_patterns_choose_the_files(root, hub):
    made = publish("net", hub="org/net", include=["*.safetensors", "*.json"], root=root)
    assert set(tree(place(root, "net", made))) == {"config.json", "model.safetensors"}
    with pytest.raises(EfsStateError, match="no file is in it"):
        publish("net", hub="org/net", include=["*.gguf"], root=root)


def test_a_hub_that_cuts_off_is_asked_again(root, hub, small):
    """Within one publication, where the next request arrives."""
    hub.cut_after = MIB
    real = hubs.Repository.read_into

    def heal(self, file, view, offset):
        try:
            real(self, file, view, offset)
        except EfsStateError:
            hub.cut_after = None
            real(self, file, view, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hubs, "_RETRIES", 0)
        patch.setattr(hubs.Repository, "read_into", heal)
        publish("net", hub="org/net", root=root)
    assert efsstate.verify("net", root=root) == []


def test_a_broken_connection_is_continued_where_it_broke(root, hub, monkeypatch):
    """Within one range of 3 MiB: the bytes that arrived are not asked for again."""
    hub.cut_after = MIB

    def heal(_seconds):
        hub.cut_after = None

    monkeypatch.setattr(hubs.time, "sleep", heal)
    publish("net", hub="org/net", include=["*.safetensors"], root=root)
    first, second = [wanted for _, wanted in hub.served]
    assert first == f"bytes=0-{len(WEIGHTS) - 1}"
    start = int(second.removeprefix("bytes=").partition("-")[0])
    assert MIB - hubs.CHUNK <= start <= MIB and hub.sent <= len(WEIGHTS) + hubs.CHUNK
    assert efsstate.verify("net", root=root) == []


def test_a_range_is_received_without_a_second_copy(root, hub):
    """In memory there are its buffer and one chunk, however long it is."""
    repository = hubs.Repository("org/net")
    (file,) = [file for file in repository.files if file.name == "model.safetensors"]
    view = memoryview(bytearray(file.size))
    repository.read_into(file, view[:1], 0)  # what a first request imports stays
    tracemalloc.start()
    try:
        repository.read_into(file, view, 0)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The server is in this process too, and cuts the range out of the file.
    assert view == WEIGHTS and most < file.size + 4 * hubs.CHUNK


def test_a_connection_serves_many_ranges(root, hub, small):
    publish("net", hub="org/net", root=root)
    assert len(hub.served) > 40 and hub.connections <= 2 * reader.THREADS


def test_a_publication_that_was_cut_off_continues(root, hub, small, monkeypatch):
    """What was in flight is fetched again, and nothing else."""
    monkeypatch.setattr(hubs, "_RETRIES", 0)
    hub.cut_after = 2 * MIB
    with pytest.raises(EfsStateError, match="publish it again, and it continues"):
        publish("net", hub="org/net", root=root)
    assert not [name for name in os.listdir(f"{root}/models/net/versions") if name[0] != "."]
    hub.cut_after, before = None, hub.sent
    publish("net", hub="org/net", root=root)
    in_flight = reader.in_flight()
    assert hub.sent - before <= len(WEIGHTS) - 2 * MIB + 2 * in_flight + 5000
    assert hub.sent - before < 0.8 * len(WEIGHTS)
    assert efsstate.verify("net", root=root) == []


@pytest.mark.parametrize("damage", ["flipped", "longer", "cut"])
def test_a_damaged_part_is_fetched_again(root, hub, small, monkeypatch, damage):
    monkeypatch.setattr(hubs, "_RETRIES", 0)
    hub.cut_after = 2 * MIB
    with pytest.raises(EfsStateError):
        publish("net", hub="org/net", root=root)
    (parts,) = [path for path, _, _ in os.walk(f"{root}/models") if path.endswith("/parts")]
    part = max((f"{parts}/{name}" for name in os.listdir(parts)), key=os.path.getsize)
    with open(part, "r+b") as file:
        if damage == "flipped":
            file.write(bytes([WEIGHTS[0] ^ 1]))
        elif damage == "longer":
            file.truncate(5 * MIB)
        else:
            file.truncate(100)
    hub.cut_after = None
    publish("net", hub="org/net", root=root)
    assert efsstate.verify("net", root=root) == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_other_bytes_than_the_hub_names_are_refused(root, hub, name):
    """The SHA-256 of a large file, and git's SHA-1 of a small one."""
    hub.damaged = name
    for _ in range(2):
        with pytest.raises(EfsStateError, match=f"{name}: its digest is not the one"):
            publish("net", hub="org/net", root=root)
    with pytest.raises(efsstate.ModelNotFound):
        model("net", root=root)()
    hub.damaged = None
    publish("net", hub="org/net", root=root)
    assert efsstate.verify("net", root=root) == []


def test_a_signed_address_that_expired_is_renewed(root, hub, small):
    hub.expired = 1
    publish("net", hub="org/net", root=root)
    assert hub.signed == 3 and efsstate.verify("net", root=root) == []


def test_a_store_without_ranges_is_understood(root, hub):
    hub.has_ranges = False
    publish("net", hub="org/net", root=root)
    assert efsstate.verify("net", root=root) == []


def test_a_gated_repository_needs_a_token(root, hub, monkeypatch):
    """The token goes to the hub and to nobody else: the store would answer 400."""
    hub.repositories["org/net"] = Repository(FILES, gated=True)
    with pytest.raises(EfsStateError, match=r"it is gated; accept its terms .*\(HF_TOKEN, or"):
        publish("net", hub="org/net", root=root)
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(EfsStateError, match="it is gated; accept its terms"):
        publish("net", hub="org/net", root=root)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    publish("net", hub="org/net", root=root)
    assert efsstate.verify("net", root=root) == []


def test_what_the_hub_does_not_have_is_said(root, hub):
    with pytest.raises(EfsStateError, match="org/none: no such repository, or a private one"):
        publish("net", hub="org/none", root=root)
    with pytest.raises(EfsStateError, match="org/net@v9: no such revision"):
        publish("net", hub="org/net@v9", root=root)
    for bad in ("", "@main", "org/net@", "a/b/c", "org/na me"):
        with pytest.raises(ValueError, match="hub="):
            publish("net", hub=bad, root=root)
    assert os.listdir(root) == []


def test_offline_is_said(root, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EfsStateError, match="HF_HUB_OFFLINE is set; publish the folder"):
        publish("net", hub="org/net", root=root)


def test_a_hub_that_is_not_there_is_said(root, hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EfsStateError, match="the hub can't be reached"):
        publish("net", hub="org/net", root=root)


def test_without_the_extra_it_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EfsStateError, match=r"install efsstate\[hub\]"):
        publish("net", hub="org/net", root=root)


def test_a_source_and_a_hub_are_one_too_many(root, tmp_path):
    for arguments in ({}, {"source": tmp_path, "hub": "org/net"}):
        with pytest.raises(TypeError, match="pass a source, or hub="):
            publish("net", **arguments, root=root)


def test_incomplete_shards_are_refused_before_they_are_fetched(root, hub):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    files = {"model-1.safetensors": b"1", "model.safetensors.index.json": index.encode()}
    hub.repositories["org/net"] = Repository(files)
    with pytest.raises(EfsStateError, match=r"'model-2\.safetensors' first"):
        publish("net", hub="org/net", root=root)
    assert hub.served == [] and os.listdir(root) == []
    files["model-2.safetensors"] = b"2"
    hub.repositories["org/net"] = Repository(files)
    publish("net", hub="org/net", root=root)


@pytest.mark.parametrize("name", ["../evil", "a/../../b", "x\ny", ".efsstate-manifest"])
def test_a_name_that_cannot_be_a_file_is_refused(root, hub, name):
    hub.repositories["org/net"] = Repository({name: b"1"})
    with pytest.raises(EfsStateError, match="can't be published"):
        publish("net", hub="org/net", root=root)
    assert os.listdir(root) == []


def test_small_files_beyond_the_memory_are_read_again(root, hub, monkeypatch):
    monkeypatch.setattr(hub_source, "_KEPT", 10)
    publish("net", hub="org/net", root=root)
    assert efsstate.verify("net", root=root) == []


def test_a_deadline_ends_it_and_the_next_continues(root, hub, small, monkeypatch):
    """As in the publisher: each call has room for a part."""
    import time

    class Context:
        def __init__(self, seconds):
            self.end = time.monotonic() + seconds

        def get_remaining_time_in_millis(self):
            return int(1000 * (self.end - time.monotonic()))

    real = hubs.Repository.read_into

    def slow(self, file, view, offset):
        time.sleep(0.2)
        real(self, file, view, offset)

    monkeypatch.setattr(hubs.Repository, "read_into", slow)
    calls = 0
    while True:
        calls += 1
        try:
            with efsstate.invocation(Context(1.5)):
                publish("net", hub="org/net", root=root)
            break
        except DeadlineExceeded as error:
            last = str(error)
            assert calls < 12
    assert (
        calls > 1 and "it continues from there" in last and efsstate.verify("net", root=root) == []
    )


def test_the_command_publishes_from_the_hub(root, hub, tmp_path):
    """By HF_ENDPOINT, as users set it."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "efsstate.cli.main", "--root", str(root), "model", "publish"]
    done = subprocess.run(
        [*command, "net", "--hub", "org/net@main", "--json"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["active"] is True
    both = subprocess.run(
        [*command, "net", str(tmp_path), "--hub", "org/net"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert both.returncode == 2 and "SOURCE or --hub" in both.stderr


def test_a_token_may_be_passed(root, hub):
    """As the publisher does with the one that Secrets Manager has."""
    hub.repositories["org/net"] = Repository(FILES, gated=True)
    patterns = Patterns(None, DEFAULT_EXCLUDE)
    publication.publish(
        "net",
        lambda *place: hub_source.open_source("org/net", patterns, *place, token=TOKEN),
        version=None, is_activated=True, meta=None, progress=None, root=root,
    )  # fmt: skip
    assert efsstate.verify("net", root=root) == []
