"""One worker of a mixed load, in a process of its own: it tells each operation as JSON.

python -m tests.torture.workload ROOT WHO SEED MIX [SECONDS [TAG [BUG]]]

`MIX` is a comma list of operation names with weights, such as "set:3,get:5"; `TAG` goes into every
name, so that a later run on the same root has names of its own; `BUG` is one of planted.py. What is
told is what history.py checks.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time

from efsstate import (
    Cache,
    ClaimedError,
    ClaimLost,
    ModelNotFound,
    activate,
    checkpoint,
    model,
    on_event,
    publish,
    sweep,
)
from tests.torture import history, planted

EVERYTHING = (
    "set:12,get:24,fresh:6,add:4,compute:8,delete:1,clear:0.1,append:6,hold:0.7,load:6,shards:2,"
    "publish:0.3,serve:6,sweep:0.2"
)
DURABLE = "set:10,get:3,add:5,compute:2,append:6,hold:2,load:2,shards:2,publish:1,serve:1"
SHARDS, ITEMS = 4, 5


def tell_line(operation):
    os.write(1, (json.dumps(operation, separators=(",", ":")) + "\n").encode())


class Worker:
    """Does operations and tells them."""

    def __init__(self, root, who, seed, *, tag="", tell=tell_line, memory=None, slot=15):
        self.root, self.who, self.tag, self.tell = root, who, tag, tell
        self.slot = slot  # seconds for which there is one job of shards
        self.rng = random.Random(f"{seed} {who}")
        self.n = 0
        self.cache = Cache(f"values{tag}", root=root, memory=memory)
        self.flights = Cache(f"flights{tag}", root=root, memory=memory)
        self.model = model(f"model{tag}", load=load_model, check_every="1s", root=root)
        self.failures = 0
        self.began = 0.0
        on_event(self._note)

    def _note(self, event):
        if event["event"] == "error" and "ModelNotFound" not in str(
            event["error"]
        ):  # which `serve` tells
            self.failures += 1
            now = round(time.monotonic(), 4)
            self.tell(
                {
                    "op": "failure",
                    "name": event["name"],
                    "who": self.who,
                    "t0": now,
                    "t1": now,
                    "error": " ".join(map(str, event.values()))[:300],
                }
            )

    def run(self, mix, until):
        """Operations by the weights in `mix`, until the monotonic time `until`."""
        pairs = [one.partition(":") for one in mix.split(",")]
        names, weights = [p[0] for p in pairs], [float(p[2] or 1) for p in pairs]
        while time.monotonic() < until:
            self.once(self.rng.choices(names, weights)[0])

    def once(self, name):
        self.began = time.monotonic()
        try:
            getattr(self, name)()
        except ClaimedError:
            self.done("refused", name)
        except ClaimLost:
            self.done("lost", name)
        except Exception as error:
            self.done("error", name, error=f"{type(error).__name__}: {error}"[:300])

    def done(self, op, name, **more):
        now = time.monotonic()
        self.tell(
            {
                "op": op,
                "name": name,
                "who": self.who,
                "t0": round(self.began, 4),
                "t1": round(now, 4),
                **more,
            }
        )
        self.began = now

    def next(self):
        self.n += 1
        return self.n

    # Cache

    def key(self):
        return f"k{self.rng.randrange(8)}"

    def set(self):
        key, n, failures = self.key(), self.next(), self.failures
        self.cache.set(key, history.value(key, self.who, n))
        self.done("set", self.cache.name, key=key, n=n, kept=self.failures == failures)

    def get(self, **options):
        key = self.key()
        got = self.cache.get(key, **options)
        self.done(
            "get",
            self.cache.name,
            key=key,
            got=got and (history.sound(key, got) or "bad"),
            **options,
        )

    def fresh(self):
        self.get(fresh=True)

    def delete(self):
        key, failures = self.key(), self.failures
        self.cache.delete(key)
        self.done("delete", self.cache.name, key=key, kept=self.failures == failures)

    def clear(self):
        failures = self.failures
        self.cache.clear()
        self.done("clear", self.cache.name, kept=self.failures == failures)

    def add(self):
        key, n, failures = f"a{int(time.time() * 2)}", self.next(), self.failures
        kept = self.flights.add(key, history.value(key, self.who, n))
        self.done("add", self.flights.name, key=key, n=n, kept=kept and self.failures == failures)

    def compute(self):
        key, n, made = f"g{int(time.time() * 2)}", self.next(), []

        def function():
            made.append(n)
            time.sleep(0.03)
            return history.value(key, self.who, n)

        got = self.flights.get_or_compute(key, function)
        self.done(
            "compute",
            self.flights.name,
            key=key,
            computed=bool(made),
            got=history.sound(key, got) or "bad",
        )

    # Checkpoints

    def log(self, **options):
        return checkpoint(
            f"log{self.tag}-{int(time.time() // 300)}-{self.rng.randrange(3)}",
            root=self.root,
            **options,
        )

    def append(self, saves=1, pause=0.0):
        with self.log(wait=self.rng.choice((0, 2, 20))) as job:
            self.done("claim", job.name, epoch=job.epoch)
            for _ in range(saves):
                n = self.next()
                self.began = time.monotonic()
                job.save(history.append(job.state, self.who, n))
                self.done("append", job.name, n=n, place=history.place(job.state))
                time.sleep(pause)

    def hold(self):
        self.append(self.rng.randrange(2, 12), self.rng.random())

    def load(self):
        job = self.log()
        state = job.load()
        self.done("load", job.name, place=history.place(state), unsettled=job.unsettled)

    def shards(self):
        name, mine = f"shards{self.tag}-{int(time.time() // self.slot)}", []
        try:
            with checkpoint(name, root=self.root).shards(SHARDS) as shards:
                for shard in shards:
                    mine.append(shard)
                    work(shard, 0.02)
                    if self.rng.random() < 0.4:
                        break
        finally:
            for shard in mine:
                self.done("shard", name, index=shard.index, finished=shard.finished)

    # Models

    def publish(self):
        version, name = f"{self.who}-{self.next()}", f"model{self.tag}"
        folder = tempfile.mkdtemp()
        try:
            for part in range(3):
                with open(f"{folder}/part{part}", "wb") as file:
                    file.write(history.body(part, version, 0))
            publish(name, folder, version=version, activate=False, root=self.root)
            self.done("publish", name, version=version)
            activate(name, version, root=self.root)
            self.done("activate", name, version=version, kept=True)
        except Exception:
            self.done("activate", name, version=version, kept=False)  # it may have been, or not
            raise
        finally:
            shutil.rmtree(folder)

    def serve(self):
        try:
            got = self.model()
        except ModelNotFound:
            got = None
        self.done("model", self.model.name, got=got)

    def sweep(self):
        report = sweep(root=self.root, budget="2s", older_than=self.rng.choice((None, "30s")))
        self.done("sweep", "sweep", errors=report.errors, texts=report.error_texts[:3])


def work(shard, pause):
    """Do the rest of a shard: its state is the list of its items that are done."""
    for item in shard.resume(range(ITEMS), every=2):
        shard.state = [*(shard.state or []), item]
        time.sleep(pause)


def load_model(files):
    """The version, if all of its files say the same; "bad" if not."""
    for part in range(3):
        if bytes(files.read(f"part{part}")) != history.body(part, files.version, 0):
            return "bad"
    return files.version


def main(root, who, seed, mix, seconds="1e9", tag="", plant=""):
    if plant:
        getattr(planted, plant)()
    Worker(root, who, seed, tag=tag).run(mix, time.monotonic() + float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
