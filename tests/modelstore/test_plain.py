"""Models that were put there by hand.

Taken when they are whole, reloaded when they changed and then kept still.
"""

import os
import pathlib
import shutil
import subprocess
import threading
import time

import pytest
from tests.modelstore.conftest import current, dying

import efsstate
from efsstate import CorruptEntryError, EfsStateError, ModelNotFound, SignatureError, model, publish
from efsstate.errors import DeadlineExceeded
from efsstate.modelstore import unmanaged
from efsstate.mount import clock
from efsstate.mount import root as roots


@pytest.fixture
def models(root):
    os.mkdir(f"{root}/models")
    return f"{root}/models"


@pytest.fixture(autouse=True)
def old(monkeypatch):
    """What is put there is as old as it has to be, at once: the time of a change can't be set."""
    monkeypatch.setattr(unmanaged, "_SETTLED", -10.0)


@pytest.fixture
def young(old, monkeypatch):
    """It is younger than that."""
    monkeypatch.setattr(unmanaged, "_SETTLED", 60.0)


def put(path, text):
    with open(path, "w") as file:
        file.write(text)
    return str(path)


def text(files):
    return bytes(files.read()).decode()


@pytest.fixture
def looks(monkeypatch):
    """How often a young file was waited for; the two seconds are short here."""
    monkeypatch.setattr(unmanaged, "_PAUSE", 0.05)
    slept, real = [], time.sleep
    monkeypatch.setattr(
        unmanaged.time, "sleep", lambda seconds: slept.append(seconds) or real(seconds)
    )
    return slept


def test_a_file_below_models_and_by_its_absolute_path(root, models, tmp_path, looks):
    put(f"{models}/my-model.pth", "a")
    path = put(tmp_path / "My Model é.pth", "b")
    assert model("my-model.pth", text, root=root)() == "a"
    assert model("my-model.pth", root=root)() == f"{models}/my-model.pth"
    assert model(path, text)() == "b" and model(path)() == path
    assert looks == []


def test_an_absolute_path_needs_no_root(tmp_path, monkeypatch):
    monkeypatch.delenv("EFSSTATE_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path / "m", "x")
    before = os.listdir(tmp_path)
    assert model(path, text)() == "x" and os.listdir(tmp_path) == before


def test_a_link_is_followed_by_its_absolute_path_only(root, models, tmp_path):
    """A link by its absolute path is followed and one below models is not."""
    put(tmp_path / "real", "x")
    os.symlink(tmp_path / "real", tmp_path / "latest")
    os.symlink(tmp_path / "real", f"{models}/latest")
    assert model(str(tmp_path / "latest"), text)() == "x"
    with pytest.raises(EfsStateError, match="neither a file nor a folder"):
        model("latest", text, root=root)()


def test_a_folder(root, models, looks):
    os.makedirs(f"{models}/bert/sub")
    put(f"{models}/bert/config.json", "{}")
    put(f"{models}/bert/CURRENT", "the user's own")
    put(f"{models}/bert/sub/weights", "w" * 1000)
    seen = model(
        "bert", lambda files: (files.path, files.names, bytes(files.read("sub/weights"))), root=root
    )()
    assert (
        seen == (f"{models}/bert", ["CURRENT", "config.json", "sub/weights"], b"w" * 1000)
        and looks == []
    )


@pytest.mark.parametrize(
    "kind", ["missing", "empty folder", "pipe", "a link in a folder", "no parent"]
)
def test_what_is_no_model(root, models, kind):
    if kind == "empty folder":
        os.mkdir(f"{models}/m")
    elif kind == "pipe":
        os.mkfifo(f"{models}/m")
    elif kind == "a link in a folder":
        os.mkdir(f"{models}/m")
        os.symlink("/etc/passwd", f"{models}/m/w")
    error = ModelNotFound if kind in ("missing", "empty folder", "no parent") else EfsStateError
    with pytest.raises(error, match="/m"):
        model("m", text, root=root)()
    with pytest.raises(error, match="/m"):
        model(f"{models}/x/y/m" if kind == "no parent" else f"{models}/m", text)()


def test_a_young_file_is_looked_at_twice(root, models, looks, young):
    put(f"{models}/m", "x")
    assert model("m", text, root=root)() == "x" and looks == [0.05]


def test_a_copy_that_keeps_the_times_is_as_young_as_it_is(root, models, looks, young):
    """`cp -p`, `rsync -a` and `tar` give what is a year old its old time.

    The file, and between two files the folder, is young all the same.
    """
    os.makedirs(f"{models}/m/sub")
    for name in ("m/w", "m/sub/w", "single"):
        put(f"{models}/{name}", "x")
    for name in ("m/w", "m/sub/w", "m/sub", "m", "single"):
        os.utime(f"{models}/{name}", (1, 1))
    for n, name in enumerate(("m", "single"), 1):
        assert model(name, lambda files: files.names, root=root)() == (
            ["sub/w", "w"] if n == 1 else ["single"]
        )
        assert looks == [0.05] * n


def test_between_two_files_of_a_copy_the_folder_is_young(root, models, looks, young, monkeypatch):
    """Also one below it: the first file keeps still long since, and the next is about to come."""
    os.makedirs(f"{models}/m/sub")
    put(f"{models}/m/w", "x")
    put(f"{models}/m/sub/w", "x")
    monkeypatch.setattr(unmanaged, "_SETTLED", 0.2)
    for folder in ("m", "m/sub"):
        time.sleep(0.3)
        put(f"{models}/{folder}/next", "")
        os.unlink(f"{models}/{folder}/next")  # nothing but the folder's own time tells of it
        assert model("m", lambda files: files.names, root=root)() == ["sub/w", "w"]
    assert looks == [0.3, 0.05] * 2


def test_a_file_that_grows_is_waited_for(root, models, monkeypatch, young):
    """Copied by hand for a second: what is loaded is all of it."""
    monkeypatch.setattr(unmanaged, "_PAUSE", 0.2)
    stop = threading.Event()

    def copy():
        with open(f"{models}/m", "w") as file:
            for i in range(20):
                file.write(f"{i},")
                file.flush()
                stop.wait(0.05)

    thread = threading.Thread(target=copy)
    thread.start()
    while not os.path.exists(f"{models}/m"):
        time.sleep(0.01)
    assert model("m", text, root=root)() == "".join(f"{i}," for i in range(20))
    thread.join()


def test_a_file_that_grows_past_the_deadline_is_not_taken(root, models, young):
    put(f"{models}/m", "x")

    class Context:
        def get_remaining_time_in_millis(self):
            return 1000

    with (
        efsstate.invocation(Context()),
        pytest.raises(DeadlineExceeded, match=r"not loaded: it was changed . s ago"),
    ):
        model("m", text, root=root)()


def test_age_is_by_the_servers_clock(root, models, looks, monkeypatch, young):
    """A host whose clock is an hour ahead still looks twice at a young file."""
    put(f"{models}/m", "x")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    monkeypatch.setattr(clock, "_offset", 0.0)
    assert model("m", text, root=root)() == "x" and looks == [0.05]
    assert clock.now() == pytest.approx(real(), abs=5)


def test_changed_while_it_was_read_it_is_read_again(root, models, looks):
    put(f"{models}/m", "old")
    loads = []

    def load(files):
        loads.append(text(files))
        if len(loads) == 1:
            put(f"{models}/m", "new")
        return loads[-1]

    assert model("m", load, root=root)() == "new" and loads == ["old", "new"]


def test_one_that_never_keeps_still_is_an_error(root, models, looks):
    put(f"{models}/m", "0")
    count = []

    def load(files):
        count.append(1)
        put(f"{models}/m", str(len(count)))
        return 1

    with pytest.raises(EfsStateError, match="it changed again while it was loaded"):
        model("m", load, root=root)()


def test_reloaded_once_it_kept_still_for_check_every(root, models, monkeypatch):
    """Reloaded when it changed and then kept still for a whole check every."""
    now = [1000.0]
    put(f"{models}/m", "1")
    get = model("m", text, check_every=60, root=root)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert get() == "1"
    put(f"{models}/m", "2 and growing")
    now[0] += 61
    assert get() == "1"  # seen for the first time
    put(f"{models}/m", "2 and grown")
    now[0] += 61
    assert get() == "1"  # still changing
    now[0] += 59
    assert get() == "1"  # not asked
    now[0] += 2
    assert get() == "2 and grown"


def test_a_copy_that_replaces_the_file_is_another_one(root, models, looks):
    put(f"{models}/m", "1")
    get = model("m", text, check_every=0, root=root)
    assert get() == "1"
    stat = os.stat(f"{models}/m")
    put(f"{models}/.new", "2")
    os.utime(f"{models}/.new", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time
    os.rename(f"{models}/.new", f"{models}/m")
    assert get() == "1" and get() == "2"


def test_removed_it_goes_on_serving(root, models):
    path = put(f"{models}/m", "1")
    get = model("m", text, check_every=0, root=root)
    assert get() == "1"
    os.unlink(path)
    assert get() == "1"


def test_with_a_key_what_is_unsigned_is_refused(root, models, monkeypatch):
    path = put(f"{models}/m", "1")
    monkeypatch.setenv("EFSSTATE_SIGNING_KEY", "secret")
    for name in ("m", path):
        with pytest.raises(SignatureError, match="publish it"):
            model(name, text, root=root)()


def test_staged_it_is_copied_again_when_it_changed(root, models, tmp_path, monkeypatch, looks):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    put(f"{models}/m", "1")
    get = model("m", text, stage=True, check_every=0, root=root)
    assert get() == "1"
    put(f"{models}/m", "2")
    assert get() == "1" and get() == "2"


@pytest.mark.parametrize(
    "plant", [lambda path: path.write_bytes(b""), lambda path: path.symlink_to("/")]
)
def test_what_stands_in_the_versions_place_is_no_model(root, tmp_path, plant):
    """What stands in the versions place is no model put there by hand."""
    (tmp_path / "w").write_text("1")
    publish("m", tmp_path / "w", root=root)
    versions = pathlib.Path(root, "models", "m", "versions")
    versions.rename(tmp_path / "aside")
    plant(versions)
    roots._known.clear()  # another process, which does not hold the folder open
    with pytest.raises(
        CorruptEntryError,
        match="m/versions: damaged: a symbolic link or a file stands where a folder belongs",
    ):
        model("m", root=root)()


def test_it_serves_until_a_version_is_active(root, models, tmp_path, looks):
    """At every moment of the first publication over it, for an environment that is new then."""
    os.mkdir(f"{models}/bert")
    put(f"{models}/bert/w", "by hand")
    (tmp_path / "w").write_text("published")
    before, seen = root, set()
    get = model("bert", text, root=root, check_every=0)
    assert get() == "by hand"
    for at in range(1, 200):
        root = f"{before}.{at}"
        shutil.copytree(before, root, symlinks=True)
        code, *_ = dying(lambda: publish("bert", tmp_path / "w", root=root), at)
        seen.add(told := model("bert", text, root=root)())
        assert told == ("published" if os.path.lexists(current(root, "bert")) else "by hand")
        if code == 0:
            break
    assert seen == {"by hand", "published"} and unmanaged._PAUSE not in looks
    publish("bert", tmp_path / "w", activate=False, root=before)
    assert get() == "by hand" and get() == "by hand"
    publish("bert", tmp_path / "w", root=before)
    assert get() == "published"


def test_a_folder_of_its_own_that_is_called_versions(root, models):
    os.makedirs(f"{models}/bert/versions")
    put(f"{models}/bert/w", "x")
    put(f"{models}/bert/versions/a", "y")
    assert model(
        "bert", lambda files: (files.names, bytes(files.read("versions/a"))), root=root
    )() == (["versions/a", "w"], b"y")


def test_without_a_version_and_files_beside_is_an_error(root, tmp_path):
    """Without an active version and with nothing beside it is an error."""
    (tmp_path / "w").write_text("x")
    publish("m", tmp_path / "w", activate=False, root=root)
    with pytest.raises(ModelNotFound, match="no version of model 'm' is active; activate one"):
        model("m", root=root)()


def test_what_the_nfs_client_put_aside_is_no_part_of_it(root, models):
    """A removed file that somebody still has open goes on being listed, as `.nfs…`."""
    os.mkdir(f"{models}/bert")
    put(f"{models}/bert/w", "x")
    put(f"{models}/bert/.nfs00000001", "old")
    assert model("bert", lambda files: files.names, root=root)() == ["w"]


@pytest.mark.parametrize("name", ["/", "//", "/tmp/..", "/x\0", "/\ud800"])
def test_a_path_that_names_no_file_is_refused_at_once(name):
    """A path that can be no models is refused when the model is made."""
    with pytest.raises(ValueError, match="can't be used"):
        model(name)


def test_a_link_to_the_root_of_all_is_no_model(tmp_path):
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(ModelNotFound, match="no such file or folder"):
        model(str(tmp_path / "link"))()


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only mount needs root")
def test_without_the_servers_time_it_is_looked_at_twice(root, models, looks):
    """On a read-only mount; our own clock may be an hour ahead."""
    put(f"{models}/m", "x")
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        if subprocess.run(["mount", "-o", "remount,ro,bind", root]).returncode:
            pytest.skip("no read-only mounts here")
        assert model("m", text, root=root)() == "x" and looks == [0.05]
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_a_day_old_model_on_a_read_only_mount_is_taken_at_once(root, models, looks, monkeypatch):
    """Without the server's time; no clock is a day wrong."""
    put(f"{models}/m", "x")
    monkeypatch.setattr(unmanaged, "_SETTLED", 60.0)
    monkeypatch.setattr("efsstate.mount.files.Mount.ask_time", lambda *_: False)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * 86400)
    assert model("m", text, root=root)() == "x" and looks == []
    monkeypatch.setattr(time, "time", lambda: real() + 86400 / 2)
    assert model("m", text, root=root)() == "x" and looks == [0.05]
