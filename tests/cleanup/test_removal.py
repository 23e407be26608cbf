"""Removal by the grammar of the format: a name that it does not define stays, wherever it lies."""

import os
import time

import pytest
from tests.cleanup.conftest import DAY

from efsstate import Cache, checkpoint
from efsstate.cache import disk
from efsstate.errors import ForeignFilesError
from efsstate.eviction import removal
from efsstate.format import grammar, layout
from efsstate.mount.files import Mount

TEMPORARY = ".tmp-" + 24 * "a"
DIGEST = 48 * "a"


def finish(tree, name, **options):
    with checkpoint(name, root=tree.path, ttl=0, **options) as job:
        job.finish(1)
    time.sleep(0.01)


@pytest.mark.parametrize(
    "name",
    [
        ".tmp-report.csv",
        "cache/.tmp-notes",
        "cache/f/.tmp-notes",
        "cache/f/3/.tmp-" + 23 * "a",
        "cache/f/3/.tmp-" + 24 * "A",
        "models/.tmp-download.pth",
        "checkpoints/.tmp-report.csv",
        "checkpoints/.tmp-x/part.csv",
        TEMPORARY,  # in the root ours are empty, and this is not
    ],
)
def test_an_old_file_of_a_users_own_stays(tree, name):
    """The sweep knows its own temporaries by their whole name (I9)."""
    tree.file(name, age=900 * DAY)
    os.utime(os.path.dirname(tree.full(name)), (1, 1))
    assert tree.sweep().removed == 0
    assert tree.there(name)


@pytest.mark.parametrize("folder", ["mine", 16 * "a", None])
def test_a_users_file_among_the_marks_of_sweeps_stays(tree, folder):
    """In a folder of its own, in that of another kind of sweep, and in that of this one."""
    tree.sweep(older_than="900d")
    (kind,) = os.listdir(tree.full(layout.SWEEPS))
    name = tree.file(f"{layout.SWEEPS}/{folder or kind}/notes.txt", age=900 * DAY)
    assert not tree.sweep(older_than="900d").errors
    assert tree.there(name)


def test_a_users_folder_in_a_finished_checkpoint_stays(tree):
    """The checkpoint stays whole around it, and the report names what is in the way (I9)."""
    finish(tree, "job")
    output = tree.file("checkpoints/job/output/part.csv")
    for dry_run in (True, False):
        report = tree.sweep(dry_run=dry_run)
        assert report.removed == 0 and report.foreign == 1 and not report.errors
        assert report.foreign_paths == [tree.full("checkpoints/job/output")]
    assert tree.there(output)
    assert checkpoint("job", root=tree.path).status()["finished"]
    os.remove(tree.full(output))
    os.rmdir(os.path.dirname(tree.full(output)))
    assert tree.sweep().reasons == {"checkpoint": 1}
    assert os.listdir(tree.full("checkpoints")) == []


def test_a_users_file_in_a_finished_sharded_checkpoint_stays(tree):
    with checkpoint("job", root=tree.path, ttl=0).shards(2) as shards:
        for shard in shards:
            shard.finish(1)
    time.sleep(0.01)
    notes = tree.file("checkpoints/job/s1/notes.txt")
    report = tree.sweep()
    assert report.removed == 0 and report.foreign_paths == [tree.full(notes)]
    assert tree.there(notes)


def test_what_is_foreign_in_a_rest_stays(tree):
    """A killed sweep's rest goes but for what a user put there since."""
    mine = tree.file(f"checkpoints/{TEMPORARY}/1-1")
    tree.file(f"checkpoints/{TEMPORARY}/REMOVED")
    other = tree.file(f"checkpoints/{TEMPORARY}/output/part.csv")
    os.utime(tree.full(f"checkpoints/{TEMPORARY}"), (1, 1))
    report = tree.sweep()
    assert not tree.there(mine) and tree.there(other)
    assert report.foreign_paths == [tree.full(f"checkpoints/{TEMPORARY}/output")]


def test_a_killed_removal_brings_no_cleared_value_back(tree, monkeypatch):
    """A process that starts later sees the clear for as long as it sees an entry."""
    real, removed = Mount.remove, []

    def remove(mount, folder, name, **options):
        read = [Cache("f", root=tree.path, memory=0).get(key) for key in range(9)]
        assert read == [None] * 9, removed
        disk._tiers.clear()
        removed.append(name)
        return real(mount, folder, name, **options)

    cache = Cache("f", root=tree.path, memory=0)
    for key in range(9):
        cache.set(key, key, tags=["t"] if key % 2 else [])
    cache.clear()
    for key in range(1, 9, 2):
        cache.set(key, key, tags=["t"])
    cache.invalidate_tag("t")
    tree.file("cache/f/LOCK", body=b"")
    names = [name for _, _, names in os.walk(tree.full("cache/f")) for name in names]
    monkeypatch.setattr(layout, "removal_order", with_first("CLEARED", layout.removal_order))
    monkeypatch.setattr(Mount, "remove", remove)
    removal.remove_tree(tree.mount, "cache/f", grammar.namespace)
    assert sorted(removed) == sorted(names) and removed[-2:] == ["POLICY", "LOCK"]
    assert not tree.there("cache/f")


def with_first(start, order):
    """Return `order`, called with the names that begin with `start` first, as a listing may."""
    return lambda names: order(sorted(names, key=lambda name: not name.startswith(start)))


class Elsewhere:
    """A stat of something on another file system."""

    def __init__(self, status):
        self._status = status

    def __getattr__(self, name):
        return self._status.st_dev + 1 if name == "st_dev" else getattr(self._status, name)


@pytest.mark.parametrize("mounted", ["a", f"a/{DIGEST}"])
def test_another_file_system_is_not_entered(tree, monkeypatch, mounted):
    tree.file(f"cache/f/a/{DIGEST}")
    real = tree.mount.stat

    def stat(folder, name):
        is_there = f"{folder}/{name}".startswith(f"cache/f/{mounted}")
        return Elsewhere(real(folder, name)) if is_there else real(folder, name)

    monkeypatch.setattr(tree.mount, "stat", stat)
    result = removal.remove_tree(tree.mount, "cache/f", grammar.namespace)
    assert result.foreign == [tree.full(f"cache/f/{mounted}")] and result.removed == 0
    assert tree.there(f"cache/f/a/{DIGEST}")


def test_a_mounted_folder_itself_is_not_removed(tree, monkeypatch):
    tree.file(f"cache/f/a/{DIGEST}")
    real = tree.mount.stat
    monkeypatch.setattr(
        tree.mount,
        "stat",
        lambda folder, name: Elsewhere(real(folder, name)) if name == "f" else real(folder, name),
    )
    result = removal.remove_tree(tree.mount, "cache/f", grammar.namespace)
    assert result.foreign == [tree.full("cache/f")] and tree.there(f"cache/f/a/{DIGEST}")


def test_a_removal_says_what_it_did(tree):
    for digit in "ab":
        tree.file(f"cache/f/{digit}/{48 * digit}", body=b"12345")
    tree.file("cache/f/abc/notes", body=b"1")
    result = removal.remove_tree(tree.mount, "cache/f", grammar.namespace)
    assert (result.removed, result.size) == (2, 10)
    assert result.foreign == [tree.full("cache/f/abc")]
    assert os.listdir(tree.full("cache/f")) == ["abc"]
    os.rename(tree.full("cache/f/abc"), tree.full("abc"))
    assert removal.remove_tree(tree.mount, "cache/f", grammar.namespace).foreign == []
    assert not tree.there("cache/f")
    assert removal.remove_tree(tree.mount, "cache/f", grammar.namespace).removed == 0


def test_a_removal_ends_when_the_time_is_up(tree, monkeypatch):
    monkeypatch.setattr(removal, "EVERY", 2)
    for digit in "abcd":
        tree.file(f"cache/f/{digit}/{48 * digit}")
    result = removal.remove_tree(tree.mount, "cache/f", grammar.namespace, is_over=lambda: True)
    assert not result.is_complete and result.removed == 1


def test_a_deep_tree_is_walked_without_recursion(tree):
    folder = tree.full("deep")
    os.makedirs(folder)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("x", dir_fd=here)
        here, before = os.open("x", os.O_RDONLY, dir_fd=here), here
        os.close(before)
    os.close(here)
    result = removal.remove_tree(tree.mount, "deep", grammar.anything)
    assert not result.foreign and not tree.there("deep")


def test_a_folder_with_foreign_files_is_refused_by_name(tree):
    tree.file("checkpoints/job/e1")
    for name in "abcde":
        tree.file(f"checkpoints/job/{name}.csv")
    with pytest.raises(ForeignFilesError, match=r"job: it holds .*a\.csv.* and 2 more; move"):
        removal.require_ours(tree.mount, "checkpoints/job", grammar.checkpoint)


@pytest.mark.parametrize(
    ("level", "name", "is_folder", "is_ours"),
    [
        (grammar.namespace, "POLICY", False, True),
        (grammar.namespace, "POLICY", True, False),
        (grammar.namespace, "LOCK", False, True),
        (grammar.namespace, f"CLEARED.5.{32 * 'a'}", False, True),
        (grammar.namespace, "CLEARED.5", False, False),
        (grammar.namespace, "a", True, True),
        (grammar.namespace, "abc", True, False),
        (grammar.namespace, "g", True, False),
        (grammar.entries, DIGEST, False, True),
        (grammar.entries, DIGEST, True, False),
        (grammar.entries, layout.TEMPORARY + DIGEST + 16 * "a", False, True),
        (grammar.checkpoint, "SHARDS", False, True),
        (grammar.checkpoint, "s12", True, True),
        (grammar.checkpoint, "s012", True, False),
        (grammar.checkpoint, "s1x", True, False),
        (grammar.checkpoint, "s1.csv", True, False),
        (grammar.checkpoint, f"d3.{32 * 'b'}", False, True),
        (grammar.checkpoint, "d3.csv", False, False),
        (grammar.checkpoint, "d3", False, False),
        (grammar.checkpoint, "e7", False, True),
        (grammar.checkpoint, "e07", False, False),
        (grammar.checkpoint, "3-1", False, True),
        (grammar.checkpoint, "2026-11", False, True),  # the one name that a user may have, too
        (grammar.checkpoint, "2026-11-29", False, False),
        (grammar.shard, "s1", True, False),
        (grammar.staging, "parts", True, True),
        (grammar.staging, "other", True, False),
    ],
)
def test_the_grammar_knows_exact_names(level, name, is_folder, is_ours):
    assert (level(name, is_folder) is not None) == is_ours


def test_a_listed_level_holds_these_files_and_no_others():
    level = grammar.listed(["a", "sub/b"])
    assert level("a", False) and not level("a", True) and not level("c", False)
    inside = level("sub", True)
    assert inside and inside("b", False) and not inside("a", False) and not level("sub", False)


@pytest.mark.parametrize("names", [[layout.MANIFEST, "w"], ["w", layout.MANIFEST]])
def test_the_manifest_of_a_version_goes_after_its_files(names):
    """Without it, a prune that goes on later could not tell them from a user's."""
    assert layout.removal_order(names) == ["w", layout.MANIFEST]
