"""The job that the workers of these tests run: each item is noted when it is done."""

import builtins
import os
import time

from efsstate import checkpoint, current

ITEMS = 6


def work(job):
    if job.get("fails"):
        raise getattr(builtins, job["fails"])("planned")
    notes = os.path.join(job["notes"], str(os.getpid()))
    with open(notes, "a", encoding="utf-8"):
        pass  # the sign that a round has begun
    done = 0
    with checkpoint("job", margin=0.1).shards(job["shards"]) as shards:
        for shard in shards:
            for item in shard.resume(range(job["items"]), every=1):
                name = f"{shard.index}:{item}"
                slow = os.path.join(job["notes"], "slow")
                if name == job.get("slow") and not os.path.exists(slow):
                    with open(slow, "w", encoding="utf-8"):
                        pass
                    time.sleep(60)
                time.sleep(job["pause"])
                shard.state = (shard.state or 0) + item
                with open(notes, "a", encoding="utf-8") as file:
                    file.write(f"{name}\n")
                done += 1
                if done == job.get("most"):  # a round that is too short for more
                    current().end_soon()
            if shard.complete:
                shard.finish(shard.state)
    return shards


def collect(job):
    return sum(checkpoint("job").shards().results())
