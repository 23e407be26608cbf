"""The job: count Python's keywords in every file of a folder. It knows nothing of any engine."""

import keyword
import os
import re
from collections import Counter

from efsstate import checkpoint

WORD = re.compile(rb"\b(" + "|".join(keyword.kwlist).encode() + rb")\b")


def files_of(folder):
    """Return the folder's Python files, in one order on every host."""
    return sorted(
        os.path.join(path, name)
        for path, _, names in os.walk(folder)
        for name in names
        if name.endswith(".py")
    )


def count(job):
    """One worker's part, whatever keeps it alive: go through the shards that no other worker has.

    `job` is {"run": its name, "folder": the files' folder, "shards": their number}.
    """
    files = files_of(job["folder"])
    with checkpoint(f"keywords/{job['run']}").shards(job["shards"]) as shards:
        for shard in shards:
            mine = files[shard.index :: len(shards)]
            for path in shard.resume(mine, position=lambda path: path):
                with open(path, "rb") as file:
                    words = Counter(word.decode() for word in WORD.findall(file.read()))
                shard.state = dict(words + Counter(shard.state or {}))
            if shard.complete:
                shard.finish({"files": len(mine), "words": shard.state or {}})
    return shards


def totals(job):
    """The fan-in, once all shards are finished: how many files, and how often each keyword."""
    files, words = 0, Counter()
    for result in checkpoint(f"keywords/{job['run']}").shards().results():
        files += result["files"]
        words.update(result["words"])
    return {"files": files, "words": dict(words.most_common())}
