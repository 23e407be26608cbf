"""What the tests of models share.

A root, a folder to publish, and a process that dies at the n-th change of the disk.
"""

import os
import signal
import threading
import warnings

import pytest

import efsstate
from efsstate.modelstore import reader

CHANGES = [
    "open",
    "mkdir",
    "symlink",
    "rename",
    "unlink",
    "rmdir",
    "ftruncate",
    "utime",
    "fchmod",
    "writev",
    "pwrite",
    "fsync",
]


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    made.mkdir(mode=0o700)
    return str(made)


@pytest.fixture
def source(tmp_path):
    """A folder with files of several sizes, in subfolders, one of them empty.

    One name that is also ours.
    """
    made = tmp_path / "source"
    (made / "a" / "b").mkdir(parents=True)
    (made / "empty").mkdir()
    (made / "config.json").write_text("{}")
    (made / "CURRENT").write_text("the user's own")
    (made / "MANIFEST").write_bytes(b"")
    (made / "a" / "b" / "weights").write_bytes(os.urandom(100_000))
    (made / "a" / "ünïcode name").write_bytes(b"x" * 4096)
    return made


@pytest.fixture
def small_ranges(monkeypatch):
    """Ranges so small that little files have many."""
    monkeypatch.setattr(reader, "RANGE", 16384)


def tree(folder):
    """Every file and folder below, with the files' bytes; our own file in it left out."""
    found = {}
    for above, folders, files in os.walk(folder):
        below = os.path.relpath(above, folder)
        for name in folders:
            found[os.path.normpath(f"{below}/{name}/")] = None
        for name in files:
            if name != ".efsstate-manifest":
                with open(os.path.join(above, name), "rb") as file:
                    found[os.path.normpath(f"{below}/{name}")] = file.read()
    return found


def place(root, name, version):
    return os.path.join(root, "models", name.replace("/", "--"), "versions", version)


def current(root, name="m"):
    """The path of the link that tells the active version."""
    return place(root, name, "CURRENT")


def relink(path, text):
    """Put a link that holds `text` in place of `path`, as whoever may write to the mount can."""
    os.symlink(text, f"{path}.new")
    os.rename(f"{path}.new", path)


def active(root, name):
    """The id of the active version, None where there is none."""
    try:
        return next((v.id for v in efsstate.versions(name, root=root) if v.active), None)
    except efsstate.ModelNotFound:
        return None


def fork_beside_threads():
    """`os.fork`, of which Python warns where there are threads: the child uses none of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def dying(function, at, error=None, names=CHANGES):
    """Run `function` in a child.

    Its `at`-th call that changes the disk is its last (kill -9 after it), or raises `error`.

    Gives (how the child ended, how many such calls it made, "" or what it raised).
    """
    pipe, result = os.pipe()
    pid = os.fork()
    if not pid:
        count, lock = 0, threading.Lock()

        def wrap(real, name):
            def call(*given, **named):
                nonlocal count
                changes = name != "open" or (
                    len(given) > 1 and given[1] & (os.O_CREAT | os.O_TRUNC)
                )
                if changes:
                    with lock:
                        count += 1
                        mine = count == at
                    if mine and error is not None:
                        raise OSError(error, os.strerror(error))
                try:
                    return real(*given, **named)
                finally:  # also where another thread was first, and it says that the folder exists
                    if changes and mine:
                        os.kill(os.getpid(), signal.SIGKILL)

            return call

        for name in names:
            setattr(os, name, wrap(getattr(os, name), name))
        said = ""
        try:
            function()
        except BaseException as problem:
            said = f"{type(problem).__name__}: {problem}"
        os.write(result, f"{count}\n{said}".encode())
        os._exit(1 if said else 0)
    os.close(result)
    with os.fdopen(pipe, "rb") as file:
        count, _, said = file.read().decode().partition("\n")
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), int(count or 0), said


@pytest.fixture
def early(monkeypatch):
    """What ends before the deadline does so a second before it.

    A busy machine may sleep through the quarter that it is.
    """
    from efsstate import deadline

    assert deadline.MARGIN == 0.25
    monkeypatch.setattr(deadline, "MARGIN", 1.0)
