"""The batch job: read every image in a folder, by as many workers and calls as it takes."""

import os

from app import text_of

from efsstate import checkpoint, workers


def read(job):
    """Go through the shards that no other worker has, until all images are read.

    `job` is {"job": its name, "folder": the images' folder, "shards": their number, 32 without}.
    """
    folder = job["folder"]
    names = sorted(os.listdir(folder))
    with checkpoint(f"texts/{job['job']}").shards(job.get("shards", 32)) as shards:
        for shard in shards:
            mine = names[shard.index :: len(shards)]
            for name in shard.resume(mine, every=1, position=lambda name: name):
                with open(os.path.join(folder, name), "rb") as file:
                    lines = text_of(file.read())
                shard.state = {**(shard.state or {}), name: lines}
            if shard.complete:
                shard.finish(shard.state or {})
    return shards


def texts(job):
    """Return all images' texts, once every shard is finished."""
    results = checkpoint(f"texts/{job['job']}").shards().results()
    return {name: lines for result in results for name, lines in result.items()}


# The state machine of `efsstate template --workers` calls it while `finished` is false.
handler = workers.handler(read, collect=texts)
