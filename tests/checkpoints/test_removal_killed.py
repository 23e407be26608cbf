"""Removals of checkpoints that are killed, or frozen for longer than a lock's lease."""

import contextlib
import fcntl
import os
import pathlib
import time

import pytest

from efsstate import checkpoint, process, sweep
from efsstate.checkpoints import fenced_removal
from efsstate.checkpoints.protocol import CheckpointFolder
from efsstate.errors import ClaimedError, ShardsError
from efsstate.eviction import removal
from efsstate.mount import lock
from efsstate.mount.files import Mount

JOB = "checkpoints/job"


class Killed(BaseException):
    """The end of a process."""


def killed_removal(root, monkeypatch, removals):
    """Remove the job in another process, which is killed after so many names; True if it was."""
    count, real = 0, Mount.remove

    def remove(mount, folder, name, **options):
        nonlocal count
        count += 1
        if count > removals:
            raise Killed
        return real(mount, folder, name, **options)

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(Mount, "remove", remove)
        fenced_removal.remove(Mount(root), JOB)
    return count > removals


def lose_locks():
    """Have the server give all locks back, as after the lease of a frozen machine."""
    for each in list(lock._locks):
        if each._file.is_open:
            with each._file as fd:
                fcntl.flock(fd, fcntl.LOCK_UN)


def cold_load(root):
    """What another process loads."""
    process.reset()
    return checkpoint("job", root=root).load("nothing")


def save_three(root):
    with checkpoint("job", root=root) as job:
        for number in range(3):
            job.save(f"save {number}")


def test_a_warm_load_does_not_follow_a_removal(root, monkeypatch):
    """Its folder is open, and was renamed away with all that is still in it."""
    for removals in range(20):
        save_three(root)
        is_killed = killed_removal(root, monkeypatch, removals)
        assert checkpoint("job", root=root).load("nothing") == "nothing", removals
        if not is_killed:
            break
    assert removals > 4


def test_a_warm_claim_does_not_follow_a_removal(root, monkeypatch):
    """Else it owns a folder that nobody finds, beside another owner, and that a sweep removes."""
    for removals in range(20):
        save_three(root)
        is_killed = killed_removal(root, monkeypatch, removals)
        with checkpoint("job", root=root) as job:
            assert job.state is None, removals
            job.save("new")
        assert cold_load(root) == "new"
        killed_removal(root, monkeypatch, 1000)
        if not is_killed:
            break
    assert removals > 4


def test_a_warm_claim_leaves_another_removal_alone(root, monkeypatch):
    """Of the folder that has the name by now: it holds the lock of the one that was removed."""
    save_three(root)
    killed_removal(root, monkeypatch, 3)
    other = CheckpointFolder(Mount(root), JOB)
    other_lock = lock.acquire(other.mount, JOB, "LOCK", until=0.0)
    other.claim("another process")
    other_lock.release()
    real = fenced_removal._remove_fenced

    def remove(*arguments):
        with pytest.raises(ClaimedError), checkpoint("job", root=root):
            pass
        return real(*arguments)

    monkeypatch.setattr(fenced_removal, "_remove_fenced", remove)
    assert fenced_removal.remove(Mount(root), JOB).removed
    assert cold_load(root) == "nothing"


@pytest.mark.parametrize("begun", [2, 1])
def test_a_frozen_removal_sees_claims_of_shards(root, monkeypatch, begun):
    """It had fenced them, and lost the lock of the job; the workers went on, and began others."""
    with checkpoint("job", root=root).shards(2) as shards:
        for shard in shards:
            shard.save("first")
            if shard.index + 1 == begun:
                break
    real = fenced_removal._fence_shards

    def fence_and_freeze(*arguments):
        is_fenced = real(*arguments)
        lose_locks()
        with checkpoint("job", root=root).shards(2) as shards:
            for shard in shards:
                shard.save("second")
        return is_fenced

    monkeypatch.setattr(fenced_removal, "_fence_shards", fence_and_freeze)
    with pytest.raises(ClaimedError, match="and not removed"):
        fenced_removal.remove(Mount(root), JOB)
    process.reset()
    with checkpoint("job", root=root).shards() as shards:
        assert [shards.shard(index).load() for index in (0, 1)] == ["second"] * 2


def test_a_warm_worker_does_not_follow_a_removal(root, monkeypatch):
    """Else it begins a shard in the folder that was renamed away."""
    with checkpoint("job", root=root).shards(3) as shards:
        next(iter(shards)).save("first")
    assert killed_removal(root, monkeypatch, 0)
    shards = checkpoint("job", root=root).shards()
    with shards, pytest.raises(ShardsError, match="it was removed"):
        next(iter(shards))
    with checkpoint("job", root=root).shards(3) as shards:
        for shard in shards:
            shard.save("new")
    process.reset()
    assert checkpoint("job", root=root).shards().shard(0).load() == "new"


def test_a_frozen_removal_in_place_sees_a_later_claim(root, monkeypatch):
    """A user's file prevents the rename, so the removal looks for claims before it begins."""
    save_three(root)
    with open(f"{root}/{JOB}/notes.txt", "w") as file:
        file.write("mine")
    real = fenced_removal._remove_fenced

    def freeze_and_remove(*arguments):
        lose_locks()
        with checkpoint("job", root=root) as job:
            job.save("later")
        return real(*arguments)

    monkeypatch.setattr(fenced_removal, "_remove_fenced", freeze_and_remove)
    with pytest.raises(ClaimedError, match="and not removed"):
        fenced_removal.remove(Mount(root), JOB)
    assert cold_load(root) == "later"


def test_a_job_is_removed_after_a_killed_removal(root, monkeypatch):
    """One that had said so, and had not renamed it: nobody else takes that back."""
    with checkpoint("job", root=root).shards(2) as shards:
        for shard in shards:
            shard.save("first")

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(fenced_removal, "_remove_fenced", die)
        fenced_removal.remove(Mount(root), JOB)
    assert fenced_removal.remove(Mount(root), JOB).removed
    assert os.listdir(f"{root}/checkpoints") == []


def test_a_killed_removal_beside_a_users_file_does_no_harm(root, monkeypatch):
    """It is done in place. Whatever is left, the newest save counts, or none does."""
    for removals in range(20):
        save_three(root)
        with open(f"{root}/{JOB}/notes.txt", "w") as file:
            file.write("mine")
        is_killed = killed_removal(root, monkeypatch, removals)
        assert cold_load(root) in ("save 2", "nothing"), removals
        with checkpoint("job", root=root) as job:
            assert job.state in ("save 2", None)
        assert os.path.exists(f"{root}/{JOB}/notes.txt")
        killed_removal(root, monkeypatch, 1000)
        if not is_killed:
            break
    assert removals > 4


@pytest.mark.parametrize("kind", ["job", "plain", "plain, a file"])
def test_a_removal_beside_a_users_file_in_a_shard_comes_to_its_end(root, kind):
    """Each call removes what is ours, and the next one does not take it for a claim."""
    if kind.startswith("plain"):
        with checkpoint("job", root=root) as job:
            job.save(1)
    else:
        with checkpoint("job", root=root).shards(3) as shards:
            for shard in shards:
                shard.save(1)
    shard = pathlib.Path(root, JOB, "s0")
    if kind == "plain, a file":
        mine = shard
    else:
        shard.mkdir(exist_ok=True)
        mine = shard / "notes.txt"
    mine.write_text("mine")
    mount = Mount(root)
    for _ in range(3):
        removed = fenced_removal.remove(mount, JOB)
        assert removed.foreign == [str(mine)] and mine.read_text() == "mine"
    assert [path for path in pathlib.Path(root, JOB).rglob("*") if path.is_file()] == [mine]
    mine.unlink()
    fenced_removal.remove(mount, JOB)
    assert not os.path.exists(f"{root}/{JOB}")


def test_a_sweep_keeps_saves_that_may_count(root):
    """A remover that met a later claim was killed before it could take its rename back."""
    save_three(root)
    away = f"{root}/checkpoints/{removal.layout.TEMPORARY}{'0' * 24}"
    os.rename(f"{root}/{JOB}", away)
    day_ago = time.time() - 90_000
    os.utime(away, (day_ago, day_ago))
    report = sweep(root=root)
    assert away in report.foreign_paths
    os.rename(away, f"{root}/{JOB}")
    assert cold_load(root) == "save 2"
