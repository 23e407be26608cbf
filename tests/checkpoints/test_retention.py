"""What the sweep removes of checkpoints, and what it never does."""

import threading
import time

import pytest

from efsstate import ClaimedError, ClaimLost, checkpoint, sweep
from efsstate.checkpoints import retention
from efsstate.checkpoints.protocol import CheckpointFolder
from efsstate.checkpoints.shards import ShardFolder
from efsstate.format import layout
from efsstate.mount.files import Mount

LATER = time.time() + 3600


def swept(root, name="job", *, now=LATER, dry_run=False):
    swept = retention.sweep(Mount(root), layout.checkpoint_folder(name), now, dry_run=dry_run)
    return [reason for reason, _ in swept]


def test_a_finished_one_goes_after_its_ttl_and_not_before(root, folder):
    with checkpoint("job", root=root, ttl="30m") as job:
        job.state = 1
        job.finish()
    assert swept(root, now=time.time()) == [] and checkpoint("job", root=root).load() == 1
    assert swept(root, dry_run=True) == ["checkpoint"] and checkpoint("job", root=root).load() == 1
    assert swept(root) == ["checkpoint"]
    assert checkpoint("job", root=root).load() is None and not folder("job").path.exists()
    with checkpoint("job", root=root) as again:
        again.save(2)
    assert again.epoch > job.epoch


@pytest.mark.parametrize("finish", [False, True])
def test_one_that_is_unfinished_or_has_no_ttl_never_goes(root, finish):
    with checkpoint("job", root=root, ttl=None if finish else 1) as job:
        job.save(1)
        if finish:
            job.finish()
    assert swept(root) == [] and checkpoint("job", root=root).load() == 1


def test_one_that_is_held_stays(root):
    with checkpoint("job", root=root, ttl=1) as job:
        job.finish()
    with checkpoint("job", root=root):
        assert swept(root) == []
    assert swept(root) == ["checkpoint"]


def test_a_holder_that_slept_through_the_sweep_is_fenced(root):
    with checkpoint("job", root=root) as sleeper:
        sleeper.save(1)
        checkpoint("job", root=root).break_claim()

        def others():
            with checkpoint("job", root=root, ttl=1) as job:
                job.finish()

        thread = threading.Thread(target=others)
        thread.start()
        thread.join()
        assert swept(root) == ["checkpoint"]
        with pytest.raises(ClaimLost):
            sleeper.save(2)
        assert checkpoint("job", root=root).load() is None


def finish_shards(root, n=3):
    with checkpoint("job", root=root, ttl=0).shards(n) as shards:
        for shard in shards:
            shard.state = "old"
            shard.finish()


@pytest.mark.parametrize("kind", ["job", "shard"])
def test_no_save_is_acknowledged_in_a_folder_that_goes(root, monkeypatch, kind):
    """A worker resets and saves at the last moment: while the folder is renamed away."""
    if kind == "shard":
        finish_shards(root)
    else:
        with checkpoint("job", root=root, ttl=0) as job:
            job.finish()
    target = checkpoint("job", root=root)
    target = target.shards(3).shard(1) if kind == "shard" else target
    acknowledged, rename = [], Mount.rename

    def work():
        try:
            target.reset()
            with target as claimed:
                claimed.save("new")
            acknowledged.append("new")
        except (ClaimedError, ClaimLost):
            pass

    def interrupted(self, folder, name, *more, **options):
        if name == "job" and not acknowledged:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(20)
        return rename(self, folder, name, *more, **options)

    monkeypatch.setattr(Mount, "rename", interrupted)
    swept(root)
    loaded = checkpoint("job", root=root)
    loaded = loaded.shards(3).shard(1) if kind == "shard" else loaded
    assert loaded.load() == (acknowledged[0] if acknowledged else None)


@pytest.mark.parametrize("kind", ["job", "shard"])
def test_a_claim_that_ignores_the_lock_stops_the_removal(root, monkeypatch, kind):
    """A remover that is frozen for longer than a lease loses its lock without notice."""
    from efsstate.mount import lock

    if kind == "shard":
        finish_shards(root)
    else:
        with checkpoint("job", root=root, ttl=0) as job:
            job.finish()
    target = checkpoint("job", root=root)
    target = target.shards(3).shard(1) if kind == "shard" else target
    acknowledged, rename = [], Mount.rename

    def work():
        monkeypatch.setattr(lock.Lock, "take", lambda self: True)
        monkeypatch.setattr(lock.Lock, "is_current", lambda self: True)
        target.reset()
        with target as claimed:
            claimed.save("new")
        acknowledged.append("new")

    def interrupted(self, folder, name, *more, **options):
        if name == "job" and not acknowledged:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(20)
        return rename(self, folder, name, *more, **options)

    monkeypatch.setattr(Mount, "rename", interrupted)
    assert swept(root) == []
    loaded = checkpoint("job", root=root)
    loaded = loaded.shards(3).shard(1) if kind == "shard" else loaded
    assert acknowledged and loaded.load() == "new"


def test_a_dead_removers_mark_is_taken_back_by_the_next_claim(root, folder, monkeypatch):
    """It died between its mark and the rename."""
    finish_shards(root)
    monkeypatch.setattr(Mount, "rename", lambda *_: (_ for _ in ()).throw(OSError(5, "died")))
    with pytest.raises(OSError, match="died"):
        swept(root)
    monkeypatch.undo()
    assert (folder("job").path / "s1" / "REMOVED").is_symlink()
    shard = checkpoint("job", root=root).shards(3).shard(1)
    shard.reset()
    with shard:
        shard.save("again")
    assert swept(root) == []
    assert shard.load() == "again"
    assert not (folder("job").path / "s1" / "REMOVED").is_symlink()


def test_a_sweep_with_one_unfinished_shard_leaves_no_mark(root, folder):
    finish_shards(root)
    checkpoint("job", root=root).shards(3).shard(1).reset()
    done = ShardFolder(CheckpointFolder(Mount(root), layout.checkpoint_folder("job")), 3)
    done.mark(1)  # as a worker that was frozen since may do
    assert swept(root) == []
    assert not list(folder("job").path.rglob("REMOVED"))


def test_saves_that_an_owner_left_behind_go_and_the_kept_stay(root, folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(
            "efsstate.checkpoints.protocol.CheckpointFolder.prune", lambda *_: None
        )  # it died before
        with checkpoint("job", root=root, keep=2) as job:
            for number in range(6):
                job.save(number)
    assert len(folder("job").saves()) == 6
    assert swept(root, dry_run=True) == ["generation"] * 4 and len(folder("job").saves()) == 6
    assert swept(root) == ["generation"] * 4 and len(folder("job").saves()) == 2
    assert checkpoint("job", root=root).load() == 5 and swept(root) == []


def test_nothing_is_swept_while_the_newest_epoch_has_no_base(root, folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("efsstate.checkpoints.protocol.CheckpointFolder.prune", lambda *_: None)
        with checkpoint("job", root=root, keep=1) as job:
            job.save(1)
            job.save(2)
    here = CheckpointFolder(Mount(root), layout.checkpoint_folder("job"))
    here.make_link(f"e{job.epoch + 1}", "{}")
    assert swept(root) == [] and len(folder("job").saves()) == 2


def test_shards_go_when_all_are_finished_and_past_their_ttl(root, folder):
    def work(stop):
        with checkpoint("job", root=root, ttl=1).shards(4) as shards:
            for done, shard in enumerate(shards):
                if done == stop:
                    break
                shard.finish()

    work(2)
    assert swept(root) == [] and checkpoint("job", root=root).shards(4).progress().done == 2
    work(4)
    assert swept(root, now=time.time() - 10) == [] and swept(root) == ["checkpoint"]
    assert not folder("job").path.exists()


def test_the_sweep_itself_does_this(root, folder):
    with checkpoint("job", root=root, ttl=0) as job:
        job.finish()
    with checkpoint("other", root=root) as job:
        job.save(1)
    time.sleep(0.1)
    sweep(root=root)
    assert not folder("job").path.exists() and checkpoint("other", root=root).load() == 1
