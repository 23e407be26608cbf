"""Files below the root: in one step, with its modes, never through a link."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
import time

import pytest

from efsstate.errors import CorruptEntryError
from efsstate.mount import clock, files, links
from efsstate.mount.files import PendingFile


@pytest.fixture
def mount(tmp_path):
    return files.Mount(str(tmp_path))


def put(mount, folder, name, data):
    mount.replace(folder, name, lambda created: [data])


def test_replace_gives_the_old_or_the_new(mount):
    put(mount, "a/b", "f", b"old")
    put(mount, "a/b", "f", b"new and longer")
    assert mount.read("a/b", "f") == b"new and longer"
    assert mount.names("a/b") == ["f"]


def test_readers_during_replacements_see_whole_contents(mount):
    values = [bytes([i]) * (1000 + i * 7000) for i in range(8)]
    put(mount, "x", "f", values[0])
    stop, seen = threading.Event(), []

    def read():
        while not stop.is_set():
            seen.append(mount.read("x", "f"))

    readers = [threading.Thread(target=read) for _ in range(3)]
    [thread.start() for thread in readers]
    for i in range(400):
        put(mount, "x", "f", values[i % 8])
    stop.set()
    [thread.join() for thread in readers]
    assert len(seen) > 50 and set(seen) <= set(values)


def test_the_builder_gets_the_time_on_the_file(mount):
    times = []
    mount.replace("x", "f", lambda created: times.append(created) or [b""])
    assert times == [mount.stat("x", "f").st_mtime]


@pytest.mark.parametrize(
    ("root_mode", "umask", "file_mode", "folder_mode"),
    [
        (0o700, 0o022, 0o600, 0o700),
        (0o755, 0o022, 0o644, 0o755),
        (0o2775, 0o022, 0o664, 0o2775),
        (0o770, 0o077, 0o660, 0o770),
        (0o1777, 0o027, 0o666, 0o777),
    ],
)
def test_modes_follow_the_roots_own_whatever_the_umask(
    tmp_path, root_mode, umask, file_mode, folder_mode
):
    os.chmod(tmp_path, root_mode)
    before = os.umask(umask)
    try:
        mount = files.Mount(str(tmp_path))
        put(mount, "a/b", "f", b"1")
        mount.create("a/b", "g", lambda created: [b"1"])
        os.close(mount.open("a/b", "lock", os.O_RDWR | os.O_CREAT))
    finally:
        os.umask(before)
    for name in "f", "g", "lock":
        assert stat.S_IMODE((tmp_path / "a/b" / name).stat().st_mode) == file_mode
    for folder in "a", "a/b":
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == folder_mode


def test_links_are_refused_wherever_they_stand(mount, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"secret")
    os.symlink(outside, tmp_path / "folder")
    (tmp_path / "real").mkdir()
    os.symlink(outside / "f", tmp_path / "real" / "f")
    for act in (
        lambda: mount.read("folder", "f"),
        lambda: mount.read("real", "f"),
        lambda: put(mount, "folder", "g", b""),
        lambda: mount.names("folder"),
        lambda: mount.make("folder/x"),
        lambda: mount.open("real", "f", os.O_RDWR | os.O_CREAT),
    ):
        with pytest.raises(CorruptEntryError, match="link"):
            act()
    put(mount, "real", "f", b"ours")  # a rename replaces the link itself
    assert mount.read("real", "f") == b"ours" and (outside / "f").read_bytes() == b"secret"
    mount.create("real", "g", lambda created: [b""])
    os.symlink(outside / "new", tmp_path / "real" / "h")
    with pytest.raises(OSError, match="real/h"):
        mount.create("real", "h", lambda created: [b"x"])
    assert sorted(os.listdir(outside)) == ["f"]


def test_what_is_no_file_is_refused_and_does_not_hang(mount, tmp_path):
    mount.make("x/folder")
    os.mkfifo(tmp_path / "x" / "fifo")
    for name in "folder", "fifo":
        with pytest.raises(CorruptEntryError, match="regular"):
            mount.read("x", name)


def test_a_folder_removed_under_us_is_made_anew(mount, tmp_path):
    import shutil

    put(mount, "cache/ns/a", "f", b"1")
    for act in (
        lambda: put(mount, "cache/ns/a", "f", b"2"),
        lambda: mount.symlink("cache/ns/a", "l", "note"),
        lambda: mount.create("cache/ns/a", "c", lambda created: [b""]),
        lambda: os.close(mount.open("cache/ns/a", "k", os.O_RDWR | os.O_CREAT)),
    ):
        shutil.rmtree(tmp_path / "cache")
        act()
        assert len(mount.names("cache/ns/a")) == 1


def test_a_replaced_folder_is_noticed_by_a_refresh_and_a_listing(mount, tmp_path):
    import shutil

    for look in (lambda: mount.refresh("a/b"), lambda: mount.names("a/b")):
        put(mount, "a/b", "f", b"old")
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "a/b").mkdir(parents=True)
        (tmp_path / "a/b/g").write_bytes(b"new")
        look()
        assert mount.names("a/b") == ["g"] and mount.read("a/b", "g") == b"new"


def test_missing_things_are_plain_answers(mount):
    assert mount.names("no/such") == [] and list(mount.scan("no/such")) == []
    assert mount.remove("no/such", "f") is False and mount.remove_folder("no/such") is False
    mount.refresh("no/such")
    with pytest.raises(FileNotFoundError, match=r"no/such/f|no/such"):
        mount.read("no/such", "f")


def test_exclusive_creates_have_one_winner(mount):
    won, barrier = [], threading.Barrier(8)

    def race(i):
        barrier.wait()
        for n in range(50):
            try:
                mount.symlink("e", f"s{n}", f"{i}")
                won.append(("s", n, i))
            except FileExistsError:
                pass
            try:
                mount.create("e", f"c{n}", lambda created: [b"%d" % i], exclusive=True)
                won.append(("c", n, i))
            except FileExistsError:
                pass

    threads = [threading.Thread(target=race, args=(i,)) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(won) == 100 == len({(kind, n) for kind, n, _ in won})
    for kind, n, i in won:
        found = mount.readlink("e", f"s{n}") if kind == "s" else mount.read("e", f"c{n}").decode()
        assert found == str(i)


def test_a_note_of_4080_bytes_fits_a_link(mount):
    mount.symlink("e", "s", "x" * 4080)
    assert mount.readlink("e", "s") == "x" * 4080


def test_a_failed_write_leaves_the_old_content_and_no_temporary(mount, tmp_path):
    put(mount, "x", "f", b"old")
    script = f"""
import resource, signal
from efsstate.mount.files import Mount
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try: Mount({str(tmp_path)!r}).replace("x", "f", lambda created: [b"y" * 3000, b"z" * 3000])
except OSError as error: print(error.errno, error.filename)
"""
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(out[0]) == errno.EFBIG and out[1].startswith(str(tmp_path))
    assert mount.read("x", "f") == b"old" and mount.names("x") == ["f"]


def test_a_builder_that_raises_leaves_nothing_behind(mount):
    def build(created):
        raise KeyError("mine")

    with pytest.raises(KeyError):
        mount.replace("x", "f", build)
    assert mount.names("x") == []


def test_many_parts_and_empty_ones_are_written_in_order(mount):
    mount.replace(
        "x", "f", lambda created: [b"a", b"", bytearray(b"b"), memoryview(b"cd")[1:], b""]
    )
    assert mount.read("x", "f") == b"abd"


def test_more_buffers_than_one_call_takes_are_written_in_order(mount):
    parts = [b"%d," % n for n in range(5000)]
    mount.replace("x", "f", lambda created: parts)
    assert mount.read("x", "f") == b"".join(parts)


def test_a_rename_that_is_refused_for_a_moment_is_done(mount, monkeypatch):
    """An NFS client answers ETXTBSY while another process has the target open."""
    real, refusals = os.rename, [errno.ETXTBSY] * 3

    def rename(*args, **options):
        if refusals:
            raise OSError(refusals.pop(), "Text file busy")
        return real(*args, **options)

    monkeypatch.setattr(os, "rename", rename)
    put(mount, "x", "f", b"1")
    assert mount.read("x", "f") == b"1" and not refusals
    draft = PendingFile(mount, "x", ".tmp-1")
    refusals.extend([errno.ETXTBSY] * 2)
    assert draft.commit("x", "g", lambda created: [b"2"], unless=lambda: False)
    assert mount.read("x", "g") == b"2" and sorted(mount.names("x")) == ["f", "g"]


def test_a_rename_that_is_always_refused_raises(mount, monkeypatch):
    def rename(*args, **options):
        raise OSError(errno.ETXTBSY, "Text file busy")

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match=r"Text file busy.*x/f"):
        put(mount, "x", "f", b"1")
    assert mount.names("x") == []


@pytest.mark.parametrize("stops", [["wall"], ["wall", "steady"], ["steady"]])
def test_a_freeze_after_a_create_does_not_set_the_clock_back(mount, monkeypatch, stops):
    """The time on a file is the server's time now only if it was looked at at once."""
    monkeypatch.setattr(clock, "_offset", 0.0)
    jump, real = [0.0], {"wall": time.time, "steady": time.monotonic}
    monkeypatch.setattr(time, "time", lambda: real["wall"]() + jump[0] * ("wall" in stops))
    monkeypatch.setattr(time, "monotonic", lambda: real["steady"]() + jump[0] * ("steady" in stops))
    create = os.open

    def freeze(name, flags, *args, **options):
        fd = create(name, flags, *args, **options)
        if flags & os.O_CREAT:
            jump[0] = 7200.0
        return fd

    monkeypatch.setattr(os, "open", freeze)
    put(mount, "x", "f", b"1")
    assert jump == [7200.0] and clock._offset == 0.0
    put(mount, "x", "g", b"1")  # at once: by now the local clock is two hours ahead
    assert (clock._offset == pytest.approx(-7200, abs=3)) == ("wall" in stops)
    monkeypatch.undo()


def test_touch_notes_the_use_and_keeps_the_age(mount, tmp_path):
    put(mount, "x", "f", b"1")
    os.utime(tmp_path / "x/f", (1000, 2000))
    mount.touch("x", "f", mount.stat("x", "f"))
    found = mount.stat("x", "f")
    assert found.st_mtime == 2000 and abs(found.st_atime - clock.now()) < 5
    mount.touch("x", "gone", found)


def test_open_folders_are_bounded(tmp_path):
    """500 folders with 400 descriptors, in a process that has no others open."""
    script = f"""
import resource
from efsstate.mount.files import Mount
resource.setrlimit(resource.RLIMIT_NOFILE, (400, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
mount = Mount({str(tmp_path)!r})
for i in range(500): mount.replace(f"many/{{i}}", "f", lambda created: [b"%d" % i])
assert all(mount.read(f"many/{{i}}", "f") == b"%d" % i for i in range(500))
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_folder_that_is_not_empty_stays(mount):
    put(mount, "x/y", "f", b"1")
    assert mount.remove_folder("x/y") is False
    assert (
        mount.remove("x/y", "f") and mount.remove_folder("x/y") and not mount.remove_folder("x/y")
    )


def test_an_entry_is_read_back_from_its_place_alone(mount, tmp_path):
    mount.write_entry("x", "f", b"value", codec="msgpack", ttl=5, meta=b"m")
    entry = mount.read_entry("x", "f", stale=0, with_stat=True)
    found = entry.stat
    assert (bytes(entry.payload), entry.codec, entry.ttl, entry.meta) == (
        b"value",
        "msgpack",
        5,
        b"m",
    )
    assert entry.created == pytest.approx(found.st_mtime, abs=1)
    os.link(tmp_path / "x/f", tmp_path / "x/g")
    with pytest.raises(CorruptEntryError):
        mount.read_entry("x", "g")


def test_a_watched_folder_lists_what_is_there_after_each_change(tmp_path):
    mount = files.Mount(str(tmp_path))
    watch = mount.watch("a/b")
    assert watch.names() == []
    for number in range(300):
        mount.symlink("a/b", f"n{number}", "note")
    assert (
        sorted(watch.names())
        == sorted(mount.names("a/b"))
        == sorted(os.listdir(tmp_path / "a" / "b"))
    )
    mount.remove("a/b", "n7")
    (tmp_path / "a" / "b" / "ü").touch()
    assert set(watch.names()) == {f"n{number}" for number in range(300) if number != 7} | {"ü"}
    shutil.rmtree(tmp_path / "a" / "b")
    assert watch.names() == []


@pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed: apt-get install strace"
)
def test_a_watch_that_fails_half_way_raises_and_gives_no_part(tmp_path):
    """An error in a listing's second part must not pass for its end: only errno tells."""
    (tmp_path / "many").mkdir()
    for number in range(3000):
        (tmp_path / "many" / f"n{number}").touch()
    program = (
        "import os, sys; from efsstate.mount.files import Mount;"
        " w = Mount(sys.argv[1]).watch('many'); os.getppid(); print(len(w.names()))"
    )

    def run(*options):
        command = [
            "strace",
            "-o",
            tmp_path / "trace",
            *options,
            sys.executable,
            "-c",
            program,
            str(tmp_path),
        ]
        return subprocess.run(command, capture_output=True, text=True)

    assert run().stdout == "3000\n"
    names = [line.partition("(")[0] for line in (tmp_path / "trace").read_text().splitlines()]
    before = names[: names.index("getppid")].count("getdents64")
    assert names.count("getdents64") > before + 2  # it comes in parts
    failed = run("-e", f"inject=getdents64:error=EIO:when={before + 2}")
    assert failed.returncode and "Input/output error" in failed.stderr


def test_a_read_that_a_signal_cuts_short_is_no_damage(mount, monkeypatch):
    mount.write_entry("x", "f", b"content" * 100, codec="")
    real, short = os.read, []

    def read(fd, length):
        if not short:
            short.append(length)
            return real(fd, 50)
        return real(fd, length)

    monkeypatch.setattr(os, "read", read)
    assert bytes(mount.read_entry("x", "f").payload) == b"content" * 100 and short


@pytest.mark.parametrize("call", ["stat", "rename"])
def test_a_link_that_cannot_be_replaced_leaves_the_old_one_alone(mount, monkeypatch, call):
    links.replace(mount, "x", "N", "old")

    def refused(*given, **named):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, call, refused)
    with pytest.raises(OSError, match="x/"):
        links.replace(mount, "x", "N", "new")
    monkeypatch.undo()
    assert links.read(mount, "x", "N") == "old" and mount.names("x") == ["N"]


ACTS = {
    "replace": lambda mount: put(mount, "cache/ns/a", "f", b"2"),
    "symlink": lambda mount: mount.symlink("cache/ns/a", "f", "note"),
    "create": lambda mount: mount.create("cache/ns/a", "f", lambda created: [b""]),
    "open": lambda mount: os.close(mount.open("cache/ns/a", "f", os.O_RDWR | os.O_CREAT)),
    "make": lambda mount: mount.make("cache/ns/a/f"),
    "watch": lambda mount: mount.watch("cache/ns/a/f"),
    "in the root": lambda mount: put(mount, "", "cache", b""),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_root_removed_and_made_anew_is_written_to_at_once(act, tmp_path):
    """It has the new root's modes; while there is none, nothing is made, and the error names it."""
    root = tmp_path / "root"
    root.mkdir(0o700)
    mount = files.Mount(str(root))
    put(mount, "cache/ns/a", "g", b"1")
    shutil.rmtree(root)
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=str(root)):
            ACTS[act](mount)
    assert not root.exists()
    root.mkdir()
    root.chmod(0o770)
    ACTS[act](mount)
    assert (os.listdir(root) == ["cache"] and act == "in the root") or len(
        mount.names("cache/ns/a")
    ) == 1
    assert stat.S_IMODE((root / "cache").stat().st_mode) in (0o770, 0o660)


def test_a_draft_built_across_a_fork_is_written_by_the_parent(tmp_path):
    """The child's descriptor is closed, and its number may be another file's by then."""
    mount, victim, parent = files.Mount(str(tmp_path)), tmp_path / "victim", os.getpid()
    mount.make("x")
    draft = PendingFile(mount, "x", ".tmp-1")
    with draft._file as number:
        pass

    def build(created):
        pid = os.fork()
        if pid:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        else:
            os.dup2(os.open(victim, os.O_WRONLY | os.O_CREAT), number)
        return [b"content"]

    try:
        kept = draft.commit("x", "f", build, unless=lambda: False)
    except OSError as error:
        kept = error.errno == errno.EBADF
    if os.getpid() != parent:
        os._exit(not kept or victim.read_bytes() != b"")
    assert (
        kept is True
        and (tmp_path / "x" / "f").read_bytes() == b"content"
        and os.listdir(tmp_path / "x") == ["f"]
    )


def test_an_error_names_the_path_whole_and_no_other(tmp_path):
    """The system calls get names within an open folder, and a link's text, which is no path."""
    mount = files.Mount(str(tmp_path))
    mount.symlink("x", "l", "note")
    with pytest.raises(FileExistsError) as caught:
        mount.symlink("x", "l", "another note")
    assert str(caught.value) == f"[Errno 17] File exists: '{tmp_path}/x/l'"
    with pytest.raises(FileNotFoundError) as caught:
        mount.rename("x", "missing", "x", "m")
    assert (
        str(caught.value)
        == f"[Errno 2] No such file or directory: '{tmp_path}/x/missing' -> '{tmp_path}/x/m'"
    )


LOOKS = {
    "names": lambda mount: mount.names("cache/ns/a") == ["g"],
    "look": lambda mount: mount.look("cache/ns/a")[1] == ["g"],
    "refresh": lambda mount: mount.refresh("cache/ns/a") is not None,
    "fresh read": lambda mount: mount.read("cache/ns/a", "g", stale=0) == b"2",
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_root_removed_and_made_anew_is_seen_by_who_only_reads(look, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    mount = files.Mount(str(root))
    put(mount, "cache/ns/a", "g", b"1")
    shutil.rmtree(root)
    assert mount.names("cache/ns/a") == [] and mount.names("") == []
    root.mkdir()
    put(files.Mount(str(root)), "cache/ns/a", "g", b"2")
    assert LOOKS[look](mount) and mount.read("cache/ns/a", "g") == b"2"


def test_an_open_of_a_root_that_was_removed_heals_by_itself(tmp_path):
    """Nothing of it was open but the root itself: the first name below it is missing."""
    root = tmp_path / "root"
    root.mkdir()
    mount = files.Mount(str(root))
    root.rmdir()
    with pytest.raises(FileNotFoundError):
        mount.read("cache", "g")
    root.mkdir()
    put(files.Mount(str(root)), "cache", "g", b"2")
    assert mount.read("cache", "g") == b"2"
    descriptor = mount.open("cache", "g")
    os.close(descriptor)
