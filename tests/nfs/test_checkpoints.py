"""Checkpoints between two NFS clients: requests, and a client that dies, hangs or is cut off."""

import os
import time

import pytest
from tests.checkpoints import history

from efsstate import ClaimedError, ClaimLost, checkpoint
from efsstate.checkpoints import newest

pytestmark = pytest.mark.nfs
STATE = b"x" * 1000  # with its header a 1 KiB save


def save_there(root, name, *states, **options):
    """Run on a client: claim, save each, leave."""
    with checkpoint(name, root=root, **options) as job:
        for state in states:
            job.save(state)
    return job.epoch


def load_there(root, name):
    return checkpoint(name, root=root).load()


def test_a_save_of_1_kib_costs_5_requests_and_removal_1_more(lab):
    with checkpoint("job", root=lab.a, keep=3) as job:
        job.save(STATE)
        with lab.count("a") as sent:
            job.save(STATE)
        assert sent.total <= 5, sent.ops
        job.save(STATE)
        with lab.count("a") as sent:
            job.save(STATE)
        assert sent.total <= 6 and sent.ops.get("REMOVE") == 1, sent.ops


def test_a_load_costs_3_requests_and_6_after_anothers_save(lab):
    with checkpoint("job", root=lab.a) as job:
        job.save(STATE)
        mine = checkpoint("job", root=lab.b)
        assert mine.load() == STATE
        with lab.count("b") as sent:
            assert mine.load() == STATE
        assert sent.total <= 3, sent.ops
        job.save(STATE + b"2")
        with lab.count("b") as sent:
            assert mine.load() == STATE + b"2"
        assert sent.total <= 6, sent.ops
    with checkpoint("job", root=lab.a) as job:
        job.save(STATE + b"3")
    with lab.count("b") as sent:
        assert mine.load() == STATE + b"3"
    assert sent.total <= 6, sent.ops


def load_counted(root, name):
    """Load twice in a process that did not look at this mount yet; return the requests of each."""
    from benchmarks.measure import Requests

    requests, counts = Requests(root), []
    for _ in range(2):
        before = sum(requests.settled().values())
        checkpoint(name, root=root).load()
        counts.append(sum(requests.settled().values()) - before)
    return counts


def test_a_load_costs_3_requests_whatever_keep_is(lab):
    """A process's first load is no dearer either, with the folders that it opens on the way.

    After another host's save, a folder too long for one reply is looked at once more.
    """
    counts = {}
    for keep in (3, 100):
        with checkpoint(f"job-{keep}", root=lab.a, keep=keep) as job:
            for number in range(keep):
                job.save(STATE + b"%d" % number)
        lab.run("b", load_there, lab.b, f"job-{keep}")
        counts[keep] = lab.run("b", load_counted, lab.b, f"job-{keep}")
    assert counts[100] == counts[3], counts
    assert counts[3][0] <= 6 and counts[3][1] <= 3, counts
    assert checkpoint("job-100", root=lab.b).load() == STATE + b"99"
    newest._settled.clear()  # as in a process that did not load it yet
    for _ in range(2):
        with lab.count("b") as sent:
            assert checkpoint("job-100", root=lab.b).load() == STATE + b"99"
        assert sent.total <= 3, sent.ops
    with checkpoint("job-100", root=lab.a, keep=100) as job:
        job.save(STATE)
        job.save(STATE + b"new")
    with lab.count("b") as sent:
        assert checkpoint("job-100", root=lab.b).load() == STATE + b"new"
    assert sent.total <= 7, sent.ops


def test_a_claim_and_its_release_cost_14_requests(lab):
    save_there(lab.a, "job", STATE)
    lab.run("b", load_there, lab.b, "job")
    with lab.count("b") as sent, checkpoint("job", root=lab.b) as job:
        assert job.state == STATE
    assert sent.total <= 14, sent.ops
    job.__enter__()
    job.save(STATE)
    job.__exit__(None, None, None)
    with lab.count("b") as sent, checkpoint("job", root=lab.b) as job:
        pass
    assert sent.total <= 14, sent.ops


def test_what_one_client_saved_the_other_loads_at_once(lab):
    """30 times: no look of the second client is served from what it remembers."""
    theirs = checkpoint("job", root=lab.b)
    assert theirs.load() is None
    with checkpoint("job", root=lab.a) as job:
        for number in range(30):
            job.save(number)
            assert theirs.load() == number


def hold(root, name, state):
    with checkpoint(name, root=root) as job:
        job.save(state)
        print("held", flush=True)
        time.sleep(600)


def test_a_killed_processs_job_is_taken_over_in_under_a_second(lab):
    worker = lab.start("a", hold, lab.a, "job", "theirs")
    assert worker.readline() == "held\n"
    with pytest.raises(ClaimedError) as refused, checkpoint("job", root=lab.b):
        pass
    assert refused.value.owner["pid"] == worker.pid
    worker.kill()
    started = time.monotonic()
    with checkpoint("job", root=lab.b, wait=10) as job:
        assert job.state == "theirs"
    assert time.monotonic() - started < 5  # no lease of 10 s was waited for; it takes 0.1 s


def outlive(root, name):
    """Hold a claim through a cut: what is saved after it must not be acknowledged."""
    with checkpoint(name, root=root) as job:
        job.save("before")
        print("held", flush=True)
        input_ready = time.monotonic() + 300
        while time.monotonic() < input_ready:
            time.sleep(0.2)
            try:
                job.save("still here")
            except ClaimLost:
                return "lost"
    return "never noticed"


def test_a_cut_off_machines_job_is_taken_over_within_the_lease(lab):
    """Within the lease and 2 s; and the machine that was cut off notices."""
    worker = lab.start("a", outlive, lab.a, "job")
    assert worker.readline() == "held\n"
    lab.cut("a")
    started = time.monotonic()
    with checkpoint("job", root=lab.b, wait=40) as job:
        taken = time.monotonic() - started
        assert job.state in ("before", "still here")
        job.save("mine")
        lab.heal("a")
        assert worker.result(90) == "lost"
        job.save("mine too")
    assert checkpoint("job", root=lab.b).load() == "mine too"
    # The lab's lease of 10 s and 2 s, what the client may have renewed just before the cut, and the
    # pauses of a busy machine.
    assert taken < 12 + 8


def test_break_claim_fences_a_holder_on_another_host(lab):
    """And others get the claim at once."""
    worker = lab.start("a", outlive, lab.a, "job")
    assert worker.readline() == "held\n"
    told = checkpoint("job", root=lab.b).break_claim()
    assert told["pid"] == worker.pid
    with checkpoint("job", root=lab.b) as job:
        job.save("mine")
        assert worker.result(30) == "lost"
    assert checkpoint("job", root=lab.b).load() == "mine"


def add(root, name, times):
    for _ in range(times):
        checkpoint(name, root=root, wait="60s").update(lambda count: count + 1, default=0)


def test_updates_from_two_clients_are_all_kept(lab):
    workers = [
        lab.start(where, add, lab.path(where), "count", 25) for where in ("a", "b", "a", "b")
    ]
    for worker in workers:
        worker.result(120)
    assert checkpoint("count", root=lab.a).load() == 100 == checkpoint("count", root=lab.b).load()


def shards_there(root, n):
    done = []
    with checkpoint("parts", root=root).shards(n) as shards:
        for shard in shards:
            for item in shard.resume(range(3), every=1):
                shard.state = (shard.state or 0) + item
            done.append(shard.index)
    return done


def test_shards_are_shared_out_among_workers_of_both_clients(lab):
    workers = [lab.start(where, shards_there, lab.path(where), 12) for where in ("a", "b")]
    done = [index for worker in workers for index in worker.result(120)]
    assert sorted(done) == list(range(12))
    progress = checkpoint("parts", root=lab.b).shards(12).progress()
    assert (progress.done, progress.claimed, progress.free) == (12, 0, 0)


def test_a_finished_shard_is_found_with_one_look(lab):
    shards_there(lab.a, 8)
    with lab.count("b") as sent:
        assert shards_there(lab.b, 8) == []
    # LOOKUP and ACCESS of the folders on the way, the note of how many there are, and one listing
    # for all
    assert sent.ops.get("READDIR", 0) <= 2 and sent.total <= 14, sent.ops


# Histories: the whole protocol under faults, every operation recorded, the record checked


def play(lab, tmp_path, seconds, faults, **options):
    seed = int.from_bytes(os.urandom(4), "little")
    down = []

    def cut(where):
        def act():
            if not down:
                down.append(where)
                lab.cut(where)
                time.sleep(13)  # longer than the lease of 10 s
                lab.heal(down.pop())

        return act

    special = {"cut a": cut("a"), "cut b": cut("b"), "restart": lab.restart_server}
    roots = {"a": lab.a, "b": lab.b}
    running = history.Play(
        lab.start, roots, tmp_path, seconds, seed, faults=faults, special=special, **options
    )
    counts, violations = running.run()
    report = (
        f"seed {seed}: faults {dict(running.done)}, operations {dict(counts)},"
        f" violations {violations[:3]}"
    )
    print(report)
    return running, counts, violations, report


def test_no_violation_among_kills_freezes_cuts_and_restarts(lab, tmp_path):
    faults = ("kill", "freeze", "break") * 12 + ("cut a", "cut b", "restart")
    _running, counts, violations, report = play(lab, tmp_path, 25, faults)
    assert not violations, report
    assert counts["save ok"] > 10 and counts["load ok"] > 10, report


def play_map(lab, tmp_path, seconds):
    faults = ("kill", "freeze", "break") * 8 + ("cut a", "cut b", "restart")
    running, counts, violations, report = play(lab, tmp_path, seconds, faults, by_map=True)
    assert not violations, report
    last = str(tmp_path / "last.jsonl")
    assert history.finish_maps(lab.b, last), report
    counts, violations = history.check_maps(history.lines([*running.paths, last]))
    assert not violations, (report, violations[:3])
    assert counts["item ok"] > history.ITEMS and counts["load ok"] > 10, report


def test_a_map_skips_no_item_among_kills_and_cuts(lab, tmp_path):
    """Every item at least once, none skipped, and finished only when all are done."""
    play_map(lab, tmp_path, 15)


@pytest.mark.slow
@pytest.mark.parametrize("run", range(2))
def test_a_map_skips_no_item_in_a_long_history(lab, tmp_path, run):
    play_map(lab, tmp_path, 120)


@pytest.mark.slow
@pytest.mark.parametrize("run", range(4))
def test_no_violation_in_a_long_history(lab, tmp_path, run):
    faults = ("kill", "freeze", "break") * 10 + ("cut a", "cut b", "restart")
    running, _counts, violations, report = play(lab, tmp_path, 120, faults)
    assert not violations, report
    # A cut takes 13 s, in which there is no other fault.
    cuts = running.done["cut a"] + running.done["cut b"]
    assert sum(running.done.values()) + 30 * cuts > 50, report
