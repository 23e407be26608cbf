"""Many workers on two NFS clients: requests a shard, nothing lost or done twice, idle workers."""

import os
import time

import pytest

from efsstate import checkpoint, worker

pytestmark = pytest.mark.nfs


def finish_shards(root, shards):
    """Finish each shard that this worker can claim, with a token that it notes afterwards."""
    tokens = {}
    with checkpoint("scale", root=root).shards(shards) as claimed:
        for shard in claimed:
            token = os.urandom(8).hex()
            shard.finish(token)
            tokens[shard.index] = token
            print(shard.index, token)
    return tokens


def write_shards(root, first, step, shards):
    """Write a file a shard without any coordination: the floor."""
    for index in range(first, shards, step):
        path = f"{root}/{index}"
        with open(f"{path}.new", "wb") as file:
            file.write(os.urandom(64))
        os.rename(f"{path}.new", path)


def finish_two_and_hang(root, shards):
    """Finish two shards, and hang with the claim of a third."""
    with checkpoint("scale", root=root).shards(shards) as claimed:
        for number, shard in enumerate(claimed):
            if number == 2:
                print("hangs", flush=True)
                time.sleep(3000)
            token = os.urandom(8).hex()
            shard.finish(token)
            print(shard.index, token, flush=True)


def run_fleet(lab, workers, shards, kills):
    """Run workers on both clients, kill some that hold a claim, and return what all noted."""
    sides = ["ab"[number % 2] for number in range(workers)]
    victims = [
        lab.start(side, finish_two_and_hang, lab.path(side), shards) for side in sides[:kills]
    ]
    noted = {}
    for victim in victims:
        while (words := victim.readline(60).split()) != ["hangs"]:
            noted[int(words[0])] = words[1]
    fleet = [lab.start(side, finish_shards, lab.path(side), shards) for side in sides[kills:]]
    for victim in victims:
        victim.kill()
    fleet += [lab.start(side, finish_shards, lab.path(side), shards) for side in sides[:kills]]
    for member in fleet:
        for index, token in member.result(3000).items():
            assert index not in noted, "it was finished twice"
            noted[index] = token
    return noted


def check(lab, shards, noted):
    """Each shard has the result that exactly one worker noted."""
    assert sorted(noted) == list(range(shards))
    results = checkpoint("scale", root=lab.a).shards(shards).results()
    assert results == [noted[index] for index in range(shards)]


def test_workers_that_die_lose_no_shard_and_finish_none_twice(lab):
    noted = run_fleet(lab, workers=4, shards=48, kills=2)
    noted.update(finish_shards(lab.a, 48))  # those of the dead, if all others had gone past them
    check(lab, 48, noted)


def test_a_shard_costs_at_most_23_requests(lab):
    """Its claim, its result, its mark and its release."""
    finish_shards(lab.a, 40)
    with lab.count("a") as sent, checkpoint("more", root=lab.a).shards(40) as shards:
        for shard in shards:
            shard.finish(1)
    assert sent.total <= 23 * 40, sent.ops


def test_shards_that_others_finish_meanwhile_cost_no_lookup_each(lab):
    """One lookup finds a shard finished; a listing then tells of all others."""
    with checkpoint("scale", root=lab.b).shards(100) as shards:
        loop = iter(shards)
        next(loop).finish("own")
        assert len(lab.run("a", finish_shards, lab.a, 100)) == 99
        with lab.count("b") as sent:
            assert list(loop) == []
    assert sent.total <= 40, sent.ops


def test_an_idle_worker_sends_under_one_request_a_second(lab):
    """What it does between two looks, and between two tries, divided by their times."""
    with checkpoint("scale", root=lab.a).shards(8) as shards:
        claims = [shards.shard(index) for index in range(8)]
        for claim in claims:
            claim.__enter__()
        with checkpoint("scale", root=lab.b).shards(8) as others:
            assert list(others) == []
            with lab.count("b") as tries:
                assert list(others) == []
            with lab.count("b") as looks:
                assert others.unfinished() == 8
        for claim in claims:
            claim.__exit__(None, None, None)
    seconds = worker.idle_seconds(8)
    assert looks.total <= 2, looks.ops
    assert tries.total + looks.total * (1 + seconds / worker.LOOK) < seconds, tries.ops


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "shards"), [(32, 10_000)])
def test_ten_thousand_shards_by_32_workers(lab, workers, shards):
    """Print the requests a shard and the time, beside those without coordination."""
    os.mkdir(f"{lab.a}/floor")
    started = time.monotonic()
    with lab.count("a") as a, lab.count("b") as b:
        members = [
            lab.start(side, write_shards, f"{lab.path(side)}/floor", number, workers, shards)
            for number, side in enumerate("ab" * (workers // 2))
        ]
        for member in members:
            member.result(3000)
    floor = time.monotonic() - started
    print(f"\nfloor: {(a.total + b.total) / shards:.2f} requests a shard, {floor:.1f} s")
    started = time.monotonic()
    with lab.count("a") as a, lab.count("b") as b:
        noted = run_fleet(lab, workers, shards, kills=4)
        noted.update(finish_shards(lab.a, shards))
    seconds = time.monotonic() - started
    check(lab, shards, noted)
    ours = (a.total + b.total) / shards
    report = f"shards: {ours:.2f} requests a shard, {seconds:.1f} s; ratio {seconds / floor:.1f}"
    print(report)
    assert ours <= 32, report
