"""Look at a root after a power cut, through the product, and judge it by the history.

`python -m tests.torture.aftermath` reads {"root", "tag", "history"} as lines of JSON, and answers
each with its violations.
"""

import json
import sys
import time

from efsstate import Cache, ModelNotFound, checkpoint, on_event, verify, versions
from tests.torture import history
from tests.torture.workload import SHARDS, work

WAIT = 40  # seconds for a claim: longer than the lease of a machine that lost power


def look(root, tag, told):
    """Return the operations of a late comer, the final logs and shards, and what is damaged."""
    seen, bad = [], []
    end_listening = on_event(
        lambda e: bad.append(("failure", e)) if e["event"] == "error" else None
    )

    def done(op, name, **more):
        seen.append({"op": op, "name": name, "who": "after", "t0": 1e12, "t1": 1e12, **more})

    def names(op):
        return sorted({one["name"] for one in told if one["op"] == op})

    try:
        whole = all(one["op"] not in ("clear", "sweep") for one in told)
        gone = {one["key"] for one in told if one["op"] == "delete"} if whole else None
        for name in {f"values{tag}", f"flights{tag}"}:
            cache = Cache(name, root=root)
            there = set(cache.keys())
            for key in there:
                got = cache.get(key, fresh=True)
                done("get", name, key=key, got=history.sound(key, got) or "bad", fresh=True)
            bad += [
                ("lost", operation)
                for operation in (told if gone is not None else ())
                if operation["op"] in ("set", "add")
                and operation["name"] == name
                and operation["kept"]
                and operation["key"] not in there | gone
            ]
        logs = {}
        for name in {*names("append"), *names("claim"), *names("load")}:
            job = checkpoint(name, root=root)
            state = job.load()
            done("load", name, place=history.place(state), unsettled=job.unsettled)
            with checkpoint(name, root=root, wait=WAIT) as job:
                done("claim", name, epoch=job.epoch)
                job.save(history.append(job.state, "after", 1))
                logs[name] = job.state
            if checkpoint(name, root=root).load() != logs[name]:
                bad.append(("not what was saved last", {"name": name}))
        shards = {name: finish_shards(root, name, done) for name in names("shard")}
        for name in {*names("publish"), *names("activate")}:
            bad += look_at_model(root, name, told, done)
    finally:
        end_listening()
    return seen, logs, shards, bad


def finish_shards(root, name, done):
    """Finish a sharded job, waiting for its holders; return {index: (finished, items)}."""
    until = time.monotonic() + WAIT
    while True:
        mine = []
        with checkpoint(name, root=root).shards(SHARDS) as shards:
            for shard in shards:
                mine.append(shard)
                work(shard, 0)
            for shard in mine:
                done("shard", name, index=shard.index, finished=shard.finished)
            if shards.progress().finished or time.monotonic() > until:
                break
        time.sleep(0.3)
    found = {}
    for index in range(SHARDS):
        shard = checkpoint(name, root=root).shards(SHARDS).shard(index)
        state = shard.load()
        found[index] = (shard.finished, state)
    return found


def look_at_model(root, name, told, done):
    try:
        there = versions(name, root=root)
        broken = verify(name, root=root)
    except ModelNotFound:
        there, broken = [], []
    # Between a publication and its activation there is none; whether there should be is asked
    # below.
    broken = [text for text in broken if "no version is active" not in text]
    if broken:
        yield "a version is damaged", {"name": name, "what": broken}
    ids, active = {one.id for one in there}, [one.id for one in there if one.active]
    for one in told:
        if one["name"] == name and one["op"] == "publish" and one["version"] not in ids:
            yield "lost", one
    acknowledged = [
        one for one in told if one["name"] == name and one["op"] == "activate" and one["kept"]
    ]
    if acknowledged and not active:
        yield "no version is active", {"name": name}
    for version in active:
        mine = [one for one in acknowledged if one["version"] == version]
        if mine and any(one["t0"] > mine[0]["t1"] for one in acknowledged):
            yield "an older version is active", {"name": name, "version": version}


def judge(root, tag, told, margin=0.0):
    """Every violation, as (what, about what)."""
    seen, logs, shards, bad = look(root, tag, told)
    everything = told + seen
    bad += history.check_cache(everything, margin)
    bad += history.check_logs(everything, logs, margin)
    bad += history.check_epochs(everything, margin)
    bad += history.check_shards(everything, shards)
    bad += history.check_models(everything, margin)
    return bad


def main():
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order["history"], str):
            with open(order["history"]) as file:
                order["history"] = json.load(file)
        try:
            bad = judge(order["root"], order["tag"], order["history"], order.get("margin", 0.0))
        except Exception as error:
            bad = [("an error where there must be none", f"{type(error).__name__}: {error}")]
        print(json.dumps(bad, default=str), flush=True)


if __name__ == "__main__":
    main()
