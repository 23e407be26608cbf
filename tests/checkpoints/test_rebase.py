"""A replica or a backup, taken while owners went on: what a rebase fences, keeps and tells."""

import os
import shutil

import pytest

from efsstate import ClaimLost, CorruptEntryError, checkpoint
from efsstate.checkpoints import rebasing
from efsstate.format import layout
from efsstate.mount.root import resolve


@pytest.fixture
def site(tmp_path):
    """A root, and `fail_over()`, which puts the copy that `replicate()` took in its place."""
    return Site(tmp_path)


class Site:
    """The root of a source, and its replica."""

    def __init__(self, top):
        self.root, self._copy = str(top / "root"), str(top / "copy")
        os.mkdir(self.root)
        self.other = str(top / "other")  # another host's path to the same files
        os.symlink(self.root, self.other)

    def replicate(self):
        shutil.copytree(self.root, self._copy, symlinks=True)

    def fail_over(self):
        """Put the replica's files in the place of the source's, in the same folders."""
        for name in os.listdir(f"{self.root}/checkpoints"):
            here = f"{self.root}/checkpoints/{name}"
            for entry in os.listdir(here):
                path = f"{here}/{entry}"
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
            shutil.copytree(
                f"{self._copy}/checkpoints/{name}", here, symlinks=True, dirs_exist_ok=True
            )

    def rebase(self, name, **options):
        return list(rebasing.rebase(resolve(self.root), layout.checkpoint_folder(name), **options))


def change(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    os.chmod(path, 0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("is_rebased", [True, False])
def test_an_owner_from_before_cannot_save_after_a_rebase(site, is_rebased):
    """Without a rebase the next claim is of the owner's own epoch, and both saves count."""
    with checkpoint("job", root=site.root) as job:
        job.save(1)
    site.replicate()
    with checkpoint("job", root=site.root) as old:
        old.save(2)
        site.fail_over()
        if is_rebased:
            (result,) = site.rebase("job")
            assert result.before < old.epoch < result.epoch and result.save.saves == 1
        with checkpoint("job", root=site.other) as new:
            assert new.state == 1
            new.save("new")
            if not is_rebased:
                assert new.epoch == old.epoch
                old.save("old")
                assert checkpoint("job", root=site.root).load() == "old"
                return
            assert new.epoch > old.epoch
            with pytest.raises(ClaimLost):
                old.save("old")
            new.save("newer")
    assert checkpoint("job", root=site.root).load() == "newer"


def test_a_folder_with_a_lock_alone_gets_an_epoch_of_now(site):
    """Its first epoch would be the lock file's time, which the source gave away already."""
    os.makedirs(f"{site.root}/checkpoints/job")
    lock = f"{site.root}/checkpoints/job/LOCK"
    open(lock, "w").close()
    os.utime(lock, (1_000_000_000, 1_000_000_000))
    (result,) = site.rebase("job")
    assert result.before == 0 and result.epoch > 1_500_000_000 * 10**6 and result.save is None
    with checkpoint("job", root=site.root) as job:
        assert job.epoch == result.epoch + 1 and job.state is None


def test_an_epoch_beyond_the_clock_is_exceeded_too(site):
    """The source's clock may have been ahead of the replica's."""
    mount, folder = resolve(site.root), layout.checkpoint_folder("job")
    with checkpoint("job", root=site.root) as job:
        job.save(1)
    ahead = 9 * 10**15
    rebasing.CheckpointFolder(mount, folder).claim("{}", least=ahead)
    (result,) = site.rebase("job")
    assert result.before == ahead and result.epoch > ahead


def test_a_dry_run_changes_nothing(site):
    with checkpoint("job", root=site.root) as job:
        job.save(1)
    before = sorted(os.walk(site.root))
    (result,) = site.rebase("job", dry_run=True)
    assert result.epoch == result.before == job.epoch and result.save.saves == 1
    assert sorted(os.walk(site.root)) == before


def test_a_damaged_newest_state_is_fenced_and_left_to_the_claim(site, folder):
    with checkpoint("job", root=site.root) as job:
        job.save(1)
        job.save(2)
    path = f"{site.root}/checkpoints/job/{layout.generation_name(job.epoch, 2)}"
    change(type(folder("job").path)(path))
    (result,) = site.rebase("job")
    assert result.damage and result.save.saves == 1 and result.epoch > job.epoch + 1000
    with pytest.raises(CorruptEntryError), checkpoint("job", root=site.root):
        pass
    (result,) = site.rebase("job", accept_older=True)
    assert result.damage and not result.is_finished
    with checkpoint("job", root=site.root) as job:
        assert job.state == 1


def test_a_save_without_its_claim_is_told(site):
    """A replica is not of one moment: the save came, and the claim's link did not."""
    with checkpoint("job", root=site.root) as job:
        job.save(1)
    with checkpoint("job", root=site.root) as job:
        job.save(2)
    for name in (layout.epoch_name(job.epoch), layout.base_name(job.epoch)):
        os.unlink(f"{site.root}/checkpoints/job/{name}")
    (result,) = site.rebase("job")
    assert result.strays == [(job.epoch, 1)] and result.save.saves == 1
    assert checkpoint("job", root=site.root).load() == 1, "it does not come to count by the rebase"


def test_a_finished_checkpoint_stays_finished(site):
    with checkpoint("job", root=site.root) as job:
        job.finish("all")
    (result,) = site.rebase("job")
    assert result.is_finished and not result.damage
    loaded = checkpoint("job", root=site.root)
    loaded.load()
    assert loaded.finished and loaded.result == "all"


def test_a_marked_shard_without_its_last_save_is_done_again(site):
    """A mark that came before the save would make workers skip the shard, and lose its result."""
    job = checkpoint("job", root=site.root)
    with job.shards(3) as shards:
        for shard in shards:
            shard.save("half")
            shard.finish(shard.index)
            epoch = shard.epoch if shard.index == 1 else 0
            if epoch:
                last = f"{site.root}/checkpoints/job/s1/{layout.generation_name(epoch, 2)}"
    os.unlink(last)
    shutil.rmtree(f"{site.root}/checkpoints/job/s2")
    assert [r.is_mark_wrong for r in site.rebase("job", dry_run=True)] == [False, True, True]
    assert job.shards().progress().done == 3, "a dry run leaves the marks"
    assert [r.is_mark_wrong for r in site.rebase("job")] == [False, True, True]
    with job.shards() as shards:
        again = {}
        for shard in shards:
            again[shard.index] = shard.state
            shard.finish(shard.index)
    assert again == {1: "half", 2: None} and job.shards().results() == [0, 1, 2]


def test_shards_without_their_number_are_rebased_and_told(site):
    with checkpoint("job", root=site.root).shards(2) as shards:
        for shard in shards:
            shard.save(shard.index)
    os.unlink(f"{site.root}/checkpoints/job/SHARDS")
    job, first, second = site.rebase("job")
    assert "has no shards" in job.damage and job.is_count_missing
    assert [first.save.saves, second.save.saves] == [1, 1] and first.epoch > first.before


def fail_once(job):
    with job:
        assert job.attempts < 10
        for _ in job.resume(range(5), attempts=3):
            raise ValueError("it fails")


def test_a_rebase_is_no_crash_of_an_item(site):
    """The gap in the epochs is not a count of claims, or a healthy item would be skipped."""
    job = checkpoint("job", root=site.root)
    with job:
        for item in job.resume(range(5), finish=False):
            job.state = item
            if item == 1:
                break
    site.rebase("job")
    assert checkpoint("job", root=site.root).status()["attempts"] == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="it fails"):
            fail_once(job)
    assert job.skipped == [], "it failed twice, and may fail three times"
    with job:
        for item in job.resume(range(5), attempts=4):
            job.state = item
    assert job.finished and job.skipped == [] and job.items == 5


def test_a_long_name_is_kept(site):
    name = "x" * 300
    with checkpoint(name, root=site.root) as job:
        job.save(1)
    site.rebase(name)
    from efsstate.cli import jobs

    assert jobs.whole_name(resolve(site.root), layout.checkpoint_folder(name)) == name
