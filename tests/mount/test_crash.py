"""A writer killed at any of its system calls leaves the old content or the new one, whole."""

import pytest
from tests import faults

from efsstate.errors import CorruptEntryError
from efsstate.format import entry, layout
from efsstate.mount.files import Mount

NEW = b"new" * 2000


def an_entry(created):
    return entry.encode(NEW, place="cache/ns/a/g", codec="", created=created, ttl=None)


OPERATIONS = {
    "replace": lambda mount: mount.write_entry("cache/ns/a", "f", NEW, codec="", durable=True),
    "replace in a new folder": lambda mount: mount.write_entry(
        "cache/other/a", "f", NEW, codec="", durable=True
    ),
    "create": lambda mount: mount.create("cache/ns/a", "g", an_entry),
    "symlink": lambda mount: mount.symlink("cache/ns/a", "s", "note"),
}

strace = pytest.mark.skipif(faults.MISSING is not None, reason=str(faults.MISSING))


@pytest.fixture
def fresh(tmp_path):
    """Make roots with an old content, and the operation of `faults` to be done there."""
    made = 0

    def make(operation):
        nonlocal made
        made += 1
        root = tmp_path / str(made)
        root.mkdir()
        Mount(str(root)).write_entry("cache/ns/a", "f", b"old", codec="")

        def act():
            mount = Mount(str(root))
            mount.read_entry("cache/ns/a", "f")
            yield
            OPERATIONS[operation](mount)
            yield "acknowledged"

        return str(root), act

    return make


@strace
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_each_system_call(fresh, operation):
    calls = faults.calls(fresh(operation)[1])
    assert len(calls) >= 2
    outcomes = set()
    for call in calls:
        # The call happens, and the process dies before it sees the answer. To die before the call
        # is to die after the one before.
        root, act = fresh(operation)
        assert faults.run(act, kill=call).how == "killed", call
        mount = Mount(root)
        if operation == "symlink":
            outcomes.add(
                mount.readlink("cache/ns/a", "s") if "s" in mount.names("cache/ns/a") else None
            )
            continue
        folder, target = (
            ("cache/other/a", "f")
            if "folder" in operation
            else ("cache/ns/a", "g" if operation == "create" else "f")
        )
        try:
            outcomes.add(bytes(mount.read_entry(folder, target).payload))
        except FileNotFoundError:
            outcomes.add(None)
        except CorruptEntryError:
            assert (
                operation == "create"
            )  # immutable files may be met torn, and are always known as such
            outcomes.add("torn")
        assert bytes(mount.read_entry("cache/ns/a", "f").payload) in (b"old", NEW)
        left = [n for n in mount.names(folder) if n not in ("f", "g")]
        assert all(layout.is_temporary(n) for n in left) and len(left) <= 1
    assert outcomes <= {b"old", NEW, None, "torn", "note"} and len(outcomes) > 1


@strace
@pytest.mark.parametrize(
    "error", ["EIO", "ENOSPC", "EDQUOT", "ESTALE", "EACCES", "EROFS", "EMFILE"]
)
def test_each_system_call_fails(fresh, error):
    """Each call of a replacement fails once: it raises, or is done all the same, never by half."""
    for call in faults.calls(fresh("replace")[1]):
        if call[0] not in faults.DISK:
            continue
        root, act = fresh("replace")
        outcome = faults.run(act, call=call, error=error)
        mount = Mount(root)
        value = bytes(mount.read_entry("cache/ns/a", "f").payload)
        if outcome.how == "returned":
            assert value == NEW, call
        else:
            assert outcome.how == "raised" and "Error" in outcome.kind and root in outcome.error, (
                call,
                outcome,
            )
            assert value in (b"old", NEW)
            assert mount.names("cache/ns/a") == ["f"], call
        assert outcome.descriptors <= 0, (call, outcome)


@strace
def test_a_reader_without_a_free_descriptor_names_its_folder(tmp_path):
    mount = Mount(str(tmp_path))
    mount.write_entry("cache/ns/a", "f", b"old", codec="")

    def read():
        yield
        yield mount.watch("cache/ns/a").names()

    faults.warm(read)
    calls = [call for call in faults.calls(read) if call[0] == "fcntl"]
    assert calls
    outcome = faults.run(read, call=calls[0], error="EMFILE")
    assert outcome.how == "raised" and f"{tmp_path}/cache/ns/a" in outcome.error, outcome
