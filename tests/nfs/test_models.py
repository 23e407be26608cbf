"""Models on two NFS clients: requests of a load, publications seen at once and whole, reads."""

import os
import pathlib
import shutil
import time

import pytest

import efsstate
from efsstate import activate, model, prune, publish, versions
from efsstate.errors import DeadlineExceeded
from efsstate.modelstore import reader
from efsstate.modelstore.open_file import OpenFile
from efsstate.mount.files import Mount

pytestmark = pytest.mark.nfs


@pytest.fixture
def put(lab, tmp_path):
    """Publishes on client a, in a process of its own."""

    def put(text, name="m", **more):
        (tmp_path / "w").write_text(text)
        return lab.run("a", lambda: publish(name, tmp_path / "w", root=lab.a, **more))

    return put


def text(files):
    return bytes(files.read()).decode()


def test_a_check_for_a_new_version_costs_one_request(lab, put):
    put("1")
    get = model("m", text, check_every=0, root=lab.b)
    get()
    old = os.stat(f"{lab.b}/models/m").st_mtime - 100
    lab.run(
        "a", lambda: os.utime(f"{lab.a}/models/m", (old, old))
    )  # as if nothing had changed for long
    get()
    for _ in range(3):
        with lab.count("b") as sent:
            assert get() == "1"
        assert sent.total == 1, sent.ops
    with lab.count("b") as sent:
        get._state.next_look = float("inf")
        assert get() == "1"
    assert sent.total == 0


def test_a_check_right_after_an_activation_costs_no_more(lab, put):
    """Two changes may have one folder time: CURRENT is read again by what this client was told."""
    put("1")
    get = model("m", text, check_every=0, root=lab.b)
    get()
    with lab.count("b") as sent:
        get()
    assert sent.total <= 2, sent.ops


FIRST_CALL = {
    "GETATTR": 1,
    "ACCESS": 2,
    "READDIR": 1,
    "READLINK": 1,
    "OPEN": 1,
    "READ": 1,
    "CLOSE": 1,
}


@pytest.mark.parametrize("label", [None, "staging"])
def test_the_first_call_after_a_publication(lab, put, label):
    """6 requests before the data, on a warm name.

    Listing the versions (3) brings CURRENT and the new folder, of which 2 are left; then the
    file.
    """
    put("1")
    if label:
        activate("m", versions("m", root=lab.a)[0].id, label=label, root=lab.a)
    get = model("m", text, label=label, check_every=0, root=lab.b)
    get()
    for i in range(2, 6):
        put(str(i))
        if label:
            activate("m", versions("m", root=lab.a)[0].id, label=label, root=lab.a)
        with lab.count("b") as sent:
            assert get() == str(i)
        assert sum(sent.ops.values()) - sent.ops["READ"] - sent.ops["CLOSE"] <= 6, sent.ops
        assert sent.ops == FIRST_CALL


def test_the_first_call_after_a_publication_of_many_files(lab, tmp_path):
    """A manifest too long for a link is read as a file, for 5 requests more.

    The folder is opened; then OPEN, READ, CLOSE.
    """
    for i in range(50):
        (tmp_path / "f").mkdir(exist_ok=True)
        (tmp_path / "f" / f"w{i}").write_text(str(i))
    lab.run("a", lambda: publish("m", tmp_path / "f", root=lab.a))
    get = model("m", lambda files: bytes(files.read("w7")), check_every=0, root=lab.b)
    assert get() == b"7"
    (tmp_path / "f" / "w7").write_text("new")
    lab.run("a", lambda: publish("m", tmp_path / "f", root=lab.a))
    with lab.count("b") as sent:
        assert get() == b"new"
    assert sum(sent.ops.values()) - 2 <= 10, sent.ops  # without the file's READ and CLOSE


@pytest.mark.slow
def test_the_first_call_after_a_publication_and_a_quiet_minute(lab, put):
    """A client that has forgotten all attributes asks for none twice; nor does a check then."""
    put("1")
    get = model("m", text, check_every=0, root=lab.b)
    get()
    put("2")
    time.sleep(62)
    with lab.count("b") as sent:
        assert get() == "2"
    assert sent.ops == FIRST_CALL
    time.sleep(62)
    with lab.count("b") as sent:
        assert get() == "2"
    assert sent.ops == {"GETATTR": 1}


def test_a_fresh_process_on_a_warm_client(lab, put):
    """Another process of the host knows the folders: the same budget for its very first call."""
    put("1")
    model("m", text, root=lab.b)()
    put("2")
    code = """
import sys, efsstate
print(efsstate.model("m", lambda files: bytes(files.read()).decode(), root=sys.argv[1])())
"""
    os.stat(f"{lab.b}/models/m/versions")
    with lab.count("b") as sent:
        assert lab.run("b", code, lab.b) == "2\n"
    assert sent.total <= 16, sent.ops


@pytest.mark.parametrize("held", [False, True])
def test_a_publication_is_seen_by_another_clients_next_look(lab, put, held):
    """Also while the old CURRENT is open on that client.

    Which makes its names stale for a minute.
    """
    put("0")
    get = model("m", text, check_every=0, root=lab.b)
    assert get() == "0"
    for i in range(1, 8):
        file = (
            os.open(f"{lab.b}/models/m/versions/CURRENT", os.O_PATH | os.O_NOFOLLOW)
            if held
            else None
        )
        put(str(i))
        assert get() == str(i)
        if file is not None:
            os.close(file)


def test_a_model_that_was_looked_for_in_vain_is_found(lab, put):
    """This client remembers for 30 s that the name was missing."""
    get = model("m", text, check_every=0, root=lab.b)
    for _ in range(2):
        with pytest.raises(efsstate.ModelNotFound):
            get()
    put("1")
    assert get() == "1"
    first = versions("m", root=lab.b)[0].id
    with pytest.raises(efsstate.ModelNotFound):
        activate("m", "v2", root=lab.b)
    put("2", version="v2", activate=False)
    activate("m", "v2", root=lab.b)
    assert get() == "2"
    activate("m", first, root=lab.b)
    assert get() == "1"


def test_publishing_reads_nothing_back_and_writes_once(lab, tmp_path):
    size = 24 << 20
    (tmp_path / "w").write_bytes(os.urandom(size))
    publish("other", tmp_path / "w", root=lab.a)
    (tmp_path / "w").write_bytes(os.urandom(size))
    with lab.count("a") as sent:
        publish("m", tmp_path / "w", root=lab.a)
    assert size >> 20 <= sent.ops["WRITE"] <= (size >> 20) + 12, sent.ops
    assert sent.ops.get("READ", 0) <= 2, sent.ops
    with lab.count("a") as sent:
        publish("m", tmp_path / "w", root=lab.a)
    assert (
        sent.ops.get("WRITE", 0) == 0
        and set(sent.ops) <= {"OPEN", "READ", "READLINK", "CLOSE", "GETATTR", "LOOKUP", "ACCESS"}
        and sent.total <= 26
    ), sent.ops  # nothing but looks


def test_a_read_goes_by_o_direct_in_requests_of_a_mebibyte(lab, tmp_path):
    size = 40 << 20
    data = os.urandom(size)
    (tmp_path / "w").write_bytes(data)
    lab.run("a", lambda: publish("m", tmp_path / "w", root=lab.a))
    version = versions("m", root=lab.b)[0].id
    cached = OpenFile(Mount(lab.b), f"models/m/versions/{version}", "w")
    assert cached.direct and cached.network
    with lab.count("b") as sent:
        view = model("m", lambda files: files.read(), root=lab.b)()
    assert view == data
    assert sent.ops["READ"] <= (size >> 20) + 4, sent.ops
    with lab.count("b") as sent:
        mapped = model("m", lambda files: files.mmap(), root=lab.b)()
        assert mapped == data
    assert sent.ops["READ"] <= (size >> 20) + 16, (
        sent.ops
    )  # all pulled by large reads, none by a page fault
    with lab.count("b") as sent:
        assert model("m", lambda files: files.mmap(), root=lab.b)() == data
    assert sent.ops.get("READ", 0) <= 1, sent.ops  # the pages are shared


def test_a_version_pruned_while_it_is_read_is_whole_or_an_error(lab, tmp_path, monkeypatch):
    """By another client; a staged one is whole in any case."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    size = 24 << 20
    (tmp_path / "w").write_bytes(os.urandom(size))
    first = lab.run("a", lambda: publish("m", tmp_path / "w", root=lab.a))
    staged = model("m", stage=True, root=lab.b)
    path = staged()

    def remove():
        (tmp_path / "w2").write_text("2")
        publish("m", tmp_path / "w2", root=lab.a)
        return prune("m", keep=1, grace=0, root=lab.a)

    opened = []

    def load(files):
        file, _ = files._files.open("w")
        if not opened:
            assert lab.run("a", remove) == [first]
            opened.append(1)
        return bytes(reader.whole(file))

    try:  # as the server will: it may keep a removed file for who has it open
        assert model("m", load, root=lab.b)() == (tmp_path / "w").read_bytes()
    except OSError as error:
        assert error.filename.endswith("/w")  # noqa: PT017 - an error is one of two right answers
    assert pathlib.Path(path).read_bytes() == (tmp_path / "w").read_bytes()


def test_a_hand_copied_file_that_grows_is_not_taken_half(lab, tmp_path, monkeypatch):
    """This client's attributes may be a minute old: opening the file is what shows its length."""
    os.makedirs(f"{lab.a}/models")
    lines = 60

    def copy():
        import time

        with open(f"{lab.a}/models/hand", "w") as file:
            for i in range(lines):
                file.write(f"{i}\n")
                file.flush()
                os.fsync(file.fileno())
                if i == 3:
                    print("begun", flush=True)
                time.sleep(0.1)

    worker = lab.start("a", copy)
    assert worker.readline() == "begun\n"
    assert len(model("hand", text, root=lab.b)().splitlines()) == lines
    worker.wait()


def test_a_link_that_is_cut_ends_a_load_at_its_deadline(lab, tmp_path):
    """NFS calls hang as long as the link is down; the load's error comes in time all the same."""
    (tmp_path / "w").write_bytes(os.urandom(48 << 20))
    lab.run("a", lambda: publish("m", tmp_path / "w", root=lab.a))

    class Context:
        def get_remaining_time_in_millis(self):
            return 3000

    def load(files):
        file, _ = files._files.open("w")
        lab.cut("b")
        return reader.whole(file)

    with (
        efsstate.invocation(Context()),
        pytest.raises(DeadlineExceeded, match="MiB read in"),
    ):
        model("m", load, root=lab.b)()
    lab.heal("b")
    assert len(model("m", lambda files: files.read(), root=lab.b)()) == 48 << 20


def test_two_clients_publish_one_model_at_once(lab, tmp_path):
    for client in "ab":
        os.mkdir(tmp_path / client)
        (tmp_path / client / "w").write_text("same")
        (tmp_path / client / "x").write_bytes(
            os.urandom(5 << 20) if client == "a" else (tmp_path / "a" / "x").read_bytes()
        )
    workers = [lab.start(c, lambda c=c: publish("m", tmp_path / c, root=lab.path(c))) for c in "ab"]
    made = {worker.result() for worker in workers}
    assert len(made) == 1 and [v.id for v in versions("m", root=lab.a)] == list(made)
    assert efsstate.verify("m", root=lab.b) == []
    shutil.rmtree(f"{lab.a}/models")


def test_a_lookup_table_in_place_and_staged(lab, tmp_path, monkeypatch):
    """SQLite, opened immutable: a page is a READ, nothing is a lock, and a copy asks nobody."""
    import sqlite3

    table = sqlite3.connect(tmp_path / "words.sqlite")
    table.execute("CREATE TABLE words (word TEXT PRIMARY KEY, meaning TEXT) WITHOUT ROWID")
    rows = [(f"w{i:06}", "m" * 200) for i in range(20_000)]
    table.executemany("INSERT INTO words VALUES (?, ?)", rows)
    table.commit()
    table.close()
    publish("m", tmp_path / "words.sqlite", root=lab.a)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "copy").mkdir()

    def look_up(path, words):
        address = f"file:{path}?mode=ro&immutable=1"
        connection = sqlite3.connect(address, uri=True)
        try:
            for word in words:
                query = "SELECT meaning FROM words WHERE word = ?"
                assert connection.execute(query, [word]).fetchone()
        finally:
            connection.close()

    words = [f"w{i:06}" for i in range(0, 20_000, 1000)]
    in_place = model("m", root=lab.b)()
    with lab.count("b") as sent:
        look_up(in_place, words)
    assert set(sent.ops) <= {"OPEN", "READ", "CLOSE", "GETATTR", "LOOKUP", "ACCESS"}, sent.ops
    assert 0 < sent.ops["READ"] <= 3 * len(words) + 8, sent.ops
    copy = model("m", stage=True, root=lab.b)()
    with lab.count("b") as sent:
        look_up(copy, words)
    assert sent.total == 0, sent.ops
