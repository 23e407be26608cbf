"""The batch job: read every image in a folder, by as many workers and calls as it takes.

A shard's checkpoint has the name of the last image that is done, and nothing else: a save costs as
much for the millionth image as for the first. The texts are parts of a dataset, each under the name
of its image, so that an image that is read again after a kill still has one text.
"""

import json
import os
import re
import zlib
from functools import partial

from app import text_of

from efsstate import checkpoint, dataset, workers

SNAPSHOT = "all"


def read(job):
    """Go through the shards that no other worker has, until all images are read.

    `job` is {"job": its name, "folder": the images' folder, "shards": their number, 32 without}.
    """
    folder, texts = job["folder"], texts_of(job)
    names = sorted(os.listdir(folder))
    with checkpoint(f"texts/{job['job']}").shards(job.get("shards", 32)) as shards:
        for shard in shards:
            mine = partial(names_after, names, shard.index, len(shards))
            for name in shard.resume(mine, every=1, position=str):
                with open(os.path.join(folder, name), "rb") as file:
                    lines = text_of(file.read())
                text = json.dumps({"image": name, "lines": lines})
                texts.add(text.encode(), ".json", key=name)
    return shards


def names_after(names, shard, shards, last):
    """Return the names of a shard that come after `last`; a new image moves no other one."""
    mine = [name for name in names if zlib.crc32(name.encode()) % shards == shard]
    return [name for name in mine if last is None or name > last]


def texts_of(job, root=None):
    """Return the dataset with the texts of a job."""
    name = re.sub(r"[^\w.-]", "-", job["job"], flags=re.ASCII)
    return dataset(f"texts/{name}", root=root)


def read_texts(job, root=None):
    """Return the lines of each image that was read so far, by its name."""
    lines = {}
    for part in texts_of(job, root).parts():
        with open(part.path, "rb") as file:
            text = json.load(file)
        lines[text["image"]] = text["lines"]
    return lines


def collect(job):
    """Freeze the texts once every shard is finished; return where they are, and how many."""
    texts = texts_of(job)
    return {"dataset": texts.name, "snapshot": SNAPSHOT, "texts": len(texts.freeze(SNAPSHOT))}


# The state machine of `efsstate template --workers` calls it while `finished` is false.
handler = workers.handler(read, collect=collect)
