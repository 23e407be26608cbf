"""A writer is killed at each of its system calls: the old content stands or the new one, whole, every time."""

import re
import shutil
import subprocess
import sys

import pytest

from efsstate.errors import CorruptEntryError
from efsstate.mount import layout, store
from efsstate.mount.files import Mount

WRITER = """
import os, sys
from efsstate.mount import store
from efsstate.mount.files import Mount
mount = Mount(sys.argv[1])
try: store.read(mount, "cache/ns/a", "f")
except OSError: pass
os.getppid()  # marks where the operation begins
{operation}
os.getppid()
print("acknowledged")
"""
OPERATIONS = {
    "replace": 'store.write(mount, "cache/ns/a", "f", b"new" * 2000, codec="", durable=True)',
    "replace in a new folder": 'store.write(mount, "cache/other/a", "f", b"new" * 2000, codec="", durable=True)',
    "create": 'store.create(mount, "cache/ns/a", "g", b"new" * 2000, codec="")',
    "symlink": 'mount.symlink("cache/ns/a", "s", "note")',
}

strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")


def run(root, operation, *options):
    return subprocess.run(
        ["strace", "-f", "-o", str(root) + ".trace", *options, sys.executable, "-c", WRITER.format(operation=OPERATIONS[operation]), str(root)],
        capture_output=True, text=True)


def calls(root):
    with open(str(root) + ".trace") as trace:
        lines = [line.split(None, 1)[1] for line in trace if " " in line]
    begin, end = [i for i, line in enumerate(lines) if line.startswith("getppid")][:2]
    names = [match[1] for line in lines[begin + 1 : end] if (match := re.match(r"([a-z_0-9]+)\(", line))]
    before = [match[1] for line in lines[:begin] if (match := re.match(r"([a-z_0-9]+)\(", line))]
    return before, names


@strace
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_each_system_call(tmp_path, operation):
    def fresh(name):
        root = tmp_path / name
        root.mkdir()
        store.write(Mount(str(root)), "cache/ns/a", "f", b"old", codec="")
        return root

    assert "acknowledged" in run(fresh("traced"), operation).stdout
    before, inside = calls(tmp_path / "traced")
    assert len(inside) >= 2
    outcomes = set()
    for i, name in enumerate(inside):
        # The call happens and the process dies before it sees the answer; dying before the call is the one before.
        when = before.count(name) + inside[: i + 1].count(name)
        root = fresh(f"{i}")
        assert "acknowledged" not in run(root, operation, "-e", f"inject={name}:signal=KILL:when={when}").stdout
        mount = Mount(str(root))
        if operation == "symlink":
            outcomes.add(mount.readlink("cache/ns/a", "s") if "s" in mount.names("cache/ns/a") else None)
            continue
        folder, target = ("cache/other/a", "f") if "folder" in operation else ("cache/ns/a", "g" if operation == "create" else "f")
        try:
            outcomes.add(bytes(store.read(mount, folder, target)[0].payload))
        except FileNotFoundError:
            outcomes.add(None)
        except CorruptEntryError:
            assert operation == "create"  # immutable files may be met torn, and are always known as such
            outcomes.add("torn")
        assert bytes(store.read(mount, "cache/ns/a", "f")[0].payload) in (b"old", b"new" * 2000)
        left = [n for n in mount.names(folder) if n not in ("f", "g")]
        assert all(layout.is_temporary(n) for n in left) and len(left) <= 1
    assert outcomes <= {b"old", b"new" * 2000, None, "torn", "note"} and len(outcomes) > 1


@strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT", "ESTALE", "EACCES", "EROFS", "EMFILE"])
def test_each_system_call_fails(tmp_path, error):
    """Each call of a replacement answers with an error: the operation raises, or has done it all the same; nothing is half."""
    root = tmp_path / "traced"
    root.mkdir()
    store.write(Mount(str(root)), "cache/ns/a", "f", b"old", codec="")
    run(root, "replace")
    before, inside = calls(root)
    for i, name in enumerate(inside):
        if name not in ("openat", "write", "writev", "fsync", "rename", "renameat", "renameat2", "newfstatat", "fstat", "mkdirat", "unlinkat", "ioctl", "lseek"):
            continue  # not about the disk; and an injected close leaves the descriptor open, which is not what the kernel does
        when = before.count(name) + inside[: i + 1].count(name)
        root = tmp_path / f"{i}"
        root.mkdir()
        store.write(Mount(str(root)), "cache/ns/a", "f", b"old", codec="")
        result = run(root, "replace", "-e", f"inject={name}:error={error}:when={when}")
        mount = Mount(str(root))
        value = bytes(store.read(mount, "cache/ns/a", "f")[0].payload)
        if "acknowledged" in result.stdout:
            assert value == b"new" * 2000, (name, error)
        else:
            assert "Error" in result.stderr and str(root) in result.stderr.replace("\n", ""), (name, error, result.stderr)
            assert value in (b"old", b"new" * 2000)
            assert mount.names("cache/ns/a") == ["f"], (name, error)
