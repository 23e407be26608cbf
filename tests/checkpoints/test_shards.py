"""Shards: shared out among workers, none finished twice, none left, and what operators see."""

import collections
import os
import shutil
import subprocess
import sys
import threading

import pytest
from tests.checkpoints.test_checkpoint import Context

from efsstate import ClaimedError, ClaimLost, EfsStateError, ShardsError, checkpoint
from efsstate.checkpoints.protocol import CheckpointFolder
from efsstate.checkpoints.shards import ShardFolder
from efsstate.format import layout
from efsstate.mount.files import Mount


def run(root, n=5, items=3, context=None):
    done = []
    with checkpoint("job", root=root, context=context).shards(n) as shards:
        for shard in shards:
            for item in shard.resume(range(items)):
                shard.state = (shard.state or 0) + item
            done.append(shard.index)
    return done


def test_one_worker_does_them_all_once(root):
    assert sorted(run(root)) == [0, 1, 2, 3, 4]
    assert run(root) == []
    progress = checkpoint("job", root=root).shards(5).progress()
    assert (progress.done, progress.claimed, progress.free, progress.finished) == (5, 0, 0, True)
    assert checkpoint("job", root=root).shards(5).shard(3).load() == 3


def test_workers_start_apart_and_share_without_a_shard_done(root):
    """Workers start apart and share without a shard done twice."""
    program = f"""
from efsstate import checkpoint
with checkpoint("job", root={root!r}).shards(40) as shards:
    for shard in shards:
        for item in shard.resume(range(5), every=1):
            shard.state = (shard.state or 0) + 1
        print(shard.index, flush=True)
"""
    workers = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    done = [int(line) for worker in workers for line in worker.communicate()[0].split()]
    assert sorted(done) == list(range(40))


def test_a_dead_workers_shard_is_taken_over_where_it_stood(root):
    program = f"""
from efsstate import checkpoint
with checkpoint("job", root={root!r}).shards(1) as shards:
    for shard in shards:
        for item in shard.resume(range(10), every=1):
            if item == 6:
                print("here", flush=True)
                import time; time.sleep(60)
"""
    worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "here\n"
    parts = checkpoint("job", root=root).shards(1)
    progress = parts.progress()
    assert (progress.done, progress.claimed, progress.free) == (0, 1, 0)
    assert progress.positions == {0: "6"} and progress.owners[0]["pid"] == worker.pid
    assert run(root, 1, 10) == []
    worker.kill()
    worker.wait()
    worker.stdout.close()
    assert parts.progress().free == 1
    seen = []
    with parts as shards:
        for shard in shards:
            seen += shard.resume(range(10))
    assert seen == [6, 7, 8, 9] and parts.progress().finished


def test_another_number_of_shards_is_an_error(root):
    run(root, 3)
    with (
        pytest.raises(ValueError, match="3 shards, not 4") as error,
        checkpoint("job", root=root).shards(4),
    ):
        pass
    assert isinstance(error.value, EfsStateError)
    for bad in (0, -1, True, 2.0, "3"):
        with pytest.raises(ValueError, match="shards"):
            checkpoint("job", root=root).shards(bad)


def test_leaving_gives_back_whatever_happened_and_keeps_what(root):
    """Leaving gives back whatever happened and keeps what was done."""
    job = checkpoint("job", root=root)
    with pytest.raises(ZeroDivisionError), job.shards(3) as shards:  # noqa: PT012
        for shard in shards:
            for item in shard.resume(range(10)):
                shard.state = item
                if item == 5:
                    raise ZeroDivisionError
    assert shard.position == 5
    with pytest.raises(ClaimLost):
        shard.save(1)
    progress = checkpoint("job", root=root).shards(3).progress()
    assert (progress.done, progress.claimed, progress.free) == (0, 0, 3) and progress.positions == {
        shard.index: "5"
    }
    assert sorted(run(root, 3, 10)) == [0, 1, 2]


def test_breaking_out_gives_back(root):
    with checkpoint("job", root=root).shards(3) as shards:
        for shard in shards:  # noqa: B007
            break
    with shard:
        pass


def test_near_the_deadline_no_further_shard_is_begun(root):
    assert run(root, 3, context=Context(1)) == []
    assert len(run(root, 3, context=Context(30))) == 3


def test_a_finished_shard_costs_no_look_of_its_own(root, monkeypatch):
    run(root, 30)
    asked = collections.Counter()
    for name in ("names", "open", "read", "symlink", "stat", "readlink"):
        method = getattr(Mount, name)
        monkeypatch.setattr(
            Mount,
            name,
            lambda self, *a, _m=method, _n=name, **k: (asked.update([_n]), _m(self, *a, **k))[1],
        )
    assert run(root, 30) == []
    assert sum(asked.values()) <= 3  # the note of how many there are, and one listing


def test_a_forged_mark_finishes_nothing(root, tmp_path):
    (tmp_path / "checkpoints" / "job").mkdir(parents=True)
    for index in range(3):
        (tmp_path / "checkpoints" / "job" / f"d{index}.{'0' * 32}").symlink_to("finished")
    assert sorted(run(root, 3)) == [0, 1, 2]


def test_ten_thousand_shards(root):
    """Begun, found and told apart; a worker that comes later finds what is left."""
    folder = ShardFolder(CheckpointFolder(Mount(root), layout.checkpoint_folder("job")), 10_000)
    for index in range(10_000):
        if index % 10:
            folder.mark(index)
    left = []
    with checkpoint("job", root=root).shards(10_000) as shards:
        for shard in shards:
            shard.finish()
            left.append(shard.index)
    assert sorted(left) == list(range(0, 10_000, 10))
    progress = checkpoint("job", root=root).shards(10_000).progress()
    assert progress.done == 10_000 and progress.finished


def test_results_are_there_when_all_are_finished(root):
    with checkpoint("job", root=root).shards(3) as shards:
        for count, shard in enumerate(shards):
            if count == 2:
                with pytest.raises(ShardsError, match="1 of 3 shards are not finished"):
                    shards.results()
            shard.finish(shard.index * 10)
    assert checkpoint("job", root=root).shards().results() == [0, 10, 20]


def test_a_job_never_shrinks_whoever_grows_it(root):
    """Of two that grow it one may know an old number: the shards beyond it would be lost."""
    with checkpoint("job", root=root).shards(2) as old:
        checkpoint("job", root=root).shards(2).grow(5)
        with pytest.raises(ShardsError, match="it has 5 shards and can't have 3"):
            old.grow(3)
        assert len(checkpoint("job", root=root).shards(5)) == 5
        old.grow(6)
    with pytest.raises(ShardsError, match="it has 6 shards, not 5"):
        checkpoint("job", root=root).shards(5).__enter__()


def test_of_many_who_grow_a_job_at_once_the_most_counts(root):
    with checkpoint("job", root=root).shards(1):
        pass
    children = []
    for number in range(2, 14):
        if not (child := os.fork()):
            try:
                checkpoint("job", root=root).shards().grow(number)
            except ShardsError:
                pass
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    with checkpoint("job", root=root).shards() as shards:
        assert len(shards) == 13


def test_a_removed_job_does_not_come_back_by_growing(root):
    with checkpoint("job", root=root).shards(2) as shards:
        shutil.rmtree(f"{root}/checkpoints")
        with pytest.raises(ShardsError, match="it has no shards"):
            shards.grow(4)
    assert not os.path.exists(f"{root}/checkpoints")


def test_results_are_of_all_shards_that_the_job_has_now(root):
    """A job that has grown since has more than those that this worker knows."""
    with checkpoint("job", root=root).shards(2) as shards:
        for shard in shards:
            shard.finish(shard.index)
        assert shards.results() == [0, 1]
        checkpoint("job", root=root).shards(2).grow(3)
        with pytest.raises(ShardsError, match="1 of 3 shards are not finished"):
            shards.results()


def test_a_job_can_grow(root):
    """The shards that are there stay finished, and the new ones are given out."""
    assert sorted(run(root, 3)) == [0, 1, 2]
    shards = checkpoint("job", root=root).shards()
    assert len(shards) == 3
    with pytest.raises(ShardsError, match="only be added"):
        shards.grow(2)
    shards.grow(5)
    assert "5" in repr(shards)
    with pytest.raises(ShardsError, match="5 shards, not 3"):
        run(root, 3)
    assert sorted(run(root, 5)) == [3, 4]


def test_threads_share_too(root):
    done = []
    threads = [threading.Thread(target=lambda: done.extend(run(root, 20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(20))


def test_a_shard_knows_its_index_and_its_token_is_its_own(root):
    tokens = set()
    with checkpoint("job", root=root).shards(3) as shards:
        for shard in shards:
            for _ in shard.resume("ab"):
                tokens.add(shard.token)
    assert len(tokens) == 6 and ("job[2]", 1) in tokens


def test_a_reset_shard_is_done_again_by_workers_of_before(root):
    with checkpoint("job", root=root).shards(3) as shards:
        for shard in shards:
            shard.finish("first")
        assert shards.results() == ["first"] * 3
        checkpoint("job", root=root).reset()
        with pytest.raises(ShardsError, match="3 of 3 shards are not finished"):
            shards.results()
        assert shards.progress().done == 0
        for shard in shards:
            shard.finish("second")
        assert shards.results() == ["second"] * 3


@pytest.mark.parametrize("by_loop", [True, False])
def test_a_reset_beside_a_mark_is_not_undone(root, monkeypatch, by_loop):
    """The reset finds the shard claimed until it is marked, so no mark outlives the reset."""
    mark, refused = ShardFolder.mark, []

    def reset_before(folder, index):
        try:
            checkpoint("job", root=root).reset()
        except ClaimedError as error:
            refused.append(error)
        mark(folder, index)

    monkeypatch.setattr(ShardFolder, "mark", reset_before)
    with checkpoint("job", root=root).shards(1) as shards:
        for shard in shards:
            if by_loop:
                list(shard.resume("ab"))
            else:
                shard.finish("done")
    assert len(refused) == 1
    assert checkpoint("job", root=root).shards(1).progress().finished
    assert checkpoint("job", root=root).shards(1).shard(0).status()["finished"]


def test_a_mark_without_a_finished_shard_gives_no_result(root):
    with checkpoint("job", root=root).shards(1) as shards:
        shards.shard(0).update(lambda state: 1)
        ShardFolder(CheckpointFolder(Mount(root), layout.checkpoint_folder("job")), 1).mark(0)
        with pytest.raises(ShardsError, match="shard 0 was reset"):
            shards.results()
