"""Clients whose clocks are hours apart, and one whose clock jumps by days: the allowed effects.

The clients are processes under libfaketime; the server's clock is the kernel's, which stamps the
files of the root. What may happen is in docs/guarantees.md; what is checked here:

- Who has written (a put, a claim, a sweep) judges by the server's clock: a result lives its ttl, 2
  s more or less.
- Who has only read judges by a clock of its own: it may miss a result that counts, or serve one for
  as much longer as its clock is behind; never another value.
- Saves, claims, updates and epochs don't depend on any clock. A sweep and a prune judge by the
  server's, whoever calls.
"""

import glob
import json
import os
import random
import subprocess
import sys
import tempfile
import time

from tests.torture import Skip

OFFSETS = ["+3h", "-3h", "+26h", "-26h"]
JUMPS = ["+0", "+1d", "-1d", "+40d", "-40d"]


def library():
    """Where libfaketime is."""
    found = sorted(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")) + glob.glob(
        "/usr/lib/faketime/libfaketime.so.1"
    )
    if not found:
        raise Skip("libfaketime is not installed: apt-get install libfaketime")
    return found[0]


class Client:
    """A process with a clock of its own: `client("get", key)`.

    `jump` sets a clock made to be set.
    """

    def __init__(self, root, offset=None, folder=None):
        self._clock = None
        set_by = {} if offset is None else {"FAKETIME": offset}
        if offset is None and folder is not None:
            self._clock = f"{folder}/clock"
            self.jump("+0")
            set_by = {"FAKETIME_TIMESTAMP_FILE": self._clock, "FAKETIME_NO_CACHE": "1"}
        if set_by:
            # The stamps of files are the server's, and waits are by the monotonic clock, as on a
            # machine whose date is set.
            set_by |= {
                "LD_PRELOAD": library(),
                "NO_FAKE_STAT": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("EFSSTATE")
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.clocks", root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | set_by,
        )

    def __call__(self, *request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(f"the client died at {request}")
        return json.loads(answer)

    def jump(self, offset):
        with open(f"{self._clock}.new", "w") as file:
            file.write(offset + "\n")
        os.rename(f"{self._clock}.new", self._clock)

    def end(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def serve(root):
    """A client: a request a line, an answer a line."""
    import logging
    import select
    import warnings

    # libfaketime 0.9.10 gives EINVAL to the call that Python sleeps with, if the monotonic clock is
    # left as it is.
    time.sleep = lambda seconds: select.select([], [], [], seconds) and None
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    import efsstate
    from efsstate import Cache, checkpoint

    caches = {}

    def cache(name, ttl):
        return caches.setdefault((name, ttl), Cache(name, ttl=ttl, root=root))

    def update(name):
        job = checkpoint(name, wait=30, root=root)
        with job:
            job.save((job.state or 0) + 1)
            return [job.state, job.epoch]

    does = {
        "time": time.time,
        "set": lambda name, key, value, ttl: cache(name, ttl).set(key, value),
        "get": lambda name, key, ttl: cache(name, ttl).get(key),
        "fresh": lambda name, key, ttl: cache(name, ttl).get(key, fresh=True),
        "clear": lambda name: cache(name, None).clear(),
        "update": update,
        "load": lambda name: checkpoint(name, root=root).load(),
        "sweep": lambda budget=None: efsstate.sweep(budget=budget, root=root).removed,
        "publish": lambda source, version: efsstate.publish(
            "m", source, version=version, root=root
        ),
        "activate": lambda version: efsstate.activate("m", version, root=root),
        "prune": lambda: efsstate.prune("m", keep=1, grace="24h", root=root),
    }
    for line in sys.stdin:
        name, *given = json.loads(line)
        try:
            answer = does[name](*given)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


def _lives(clients, wrong):
    """A result with a ttl of 6 s is there after 2 s and gone after 9, for all who have written."""
    for n, client in enumerate(clients):
        client("set", "own", n, n, None)  # so that each knows the server's clock
    for n, client in enumerate(clients):
        client("set", "brief", n, f"value {n}", 6)
    made = time.monotonic()
    time.sleep(2)
    for n in range(len(clients)):
        for m, client in enumerate(clients):
            value = client("fresh", "brief", n, 6)
            if time.monotonic() - made < 3.5 and value != f"value {n}":
                wrong.append(
                    f"client {m} gave {value!r} for what client {n} put "
                    f"{time.monotonic() - made:.1f} s ago with a ttl of 6 s"
                )
    time.sleep(max(0.0, made + 9 - time.monotonic()))
    for n in range(len(clients)):
        for m, client in enumerate(clients):
            for how in ("fresh", "get"):
                value = client(how, "brief", n, 6)
                if value is not None:
                    wrong.append(f"client {m} gave {value!r} 3 s after its end ({how})")


def _cleans(root, clients, folder, wrong):
    """Whoever sweeps or prunes: what is expired by the server's clock goes, and nothing else."""
    clients[0]("set", "kept", "k", "kept", None)
    clients[0]("set", "hour", "k", "hour", 3600)
    with open(f"{folder}/source", "w") as file:
        file.write("x")
    for version in ("v1", "v2"):
        with open(f"{folder}/source", "w") as file:
            file.write(version)
        clients[0]("publish", f"{folder}/source", version)
    clients[0]("update", "unfinished")
    young = f"{root}/cache/kept/a/.tmp-2a2a2a2a2a2a2a2a2a2a2a2a"
    os.makedirs(os.path.dirname(young), exist_ok=True)
    open(young, "w").close()
    for n, client in enumerate(clients):
        client("set", "gone", n, "x", 0.001)
        time.sleep(0.05)
        answer = client("sweep")
        if not isinstance(answer, int):
            wrong.append(f"a sweep by client {n}: {answer}")
        gone = client("prune")
        if gone != []:
            wrong.append(f"a prune by client {n} took {gone}, inactive for seconds")
        if not os.path.exists(young):
            wrong.append(f"a sweep by client {n} took a temporary that is seconds old")
            open(young, "w").close()
        for name in ("kept", "hour"):
            if (value := clients[0]("fresh", name, "k", None)) != name:
                wrong.append(f"after a sweep by client {n}: {name} is {value!r}")
        if clients[0]("load", "unfinished") is None:
            wrong.append(f"a sweep by client {n} took an unfinished checkpoint")


def run(seconds, seed):
    library()
    chance, wrong = random.Random(seed), []
    figures = {"clients": len(OFFSETS) + 2, "operations": 0, "jumps": 0, "updates": 0}
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as folder:
        root = f"{folder}/root"
        os.makedirs(root, 0o700)
        clients = [
            Client(root),
            *[Client(root, offset) for offset in OFFSETS],
            Client(root, folder=folder),
        ]
        jumper = clients[-1]
        try:
            times = [client("time") - time.time() for client in clients]
            if [round(one / 3600) for one in times] != [0, 3, -3, 26, -26, 0]:
                raise Skip(f"libfaketime does not work here: {times}")
            _lives(clients[:-1], wrong)
            _cleans(root, clients, folder, wrong)
            values, count, epochs = {}, 0, [0]
            while time.monotonic() < until:
                client = chance.choice(clients)
                if chance.random() < 0.2:
                    jumper.jump(chance.choice(JUMPS))
                    figures["jumps"] += 1
                    client = jumper
                what, key = chance.randrange(8), chance.randrange(6)
                figures["operations"] += 1
                if what == 0:
                    values[key] = figures["operations"]
                    client("set", "v", key, values[key], None)
                elif what in (1, 2):
                    value = client("fresh", "v", key, None)
                    if value != values.get(key):
                        wrong.append(f"{value!r} for {key}, which is {values.get(key)!r}")
                elif what == 3:
                    # With a ttl and a clock that jumps: nothing, or what was put; never another.
                    value = client("get", "t", key, 50)
                    if value not in (None, key):
                        wrong.append(f"{value!r} for {key}")
                    client("set", "t", key, key, 50)
                elif what in (4, 5):
                    answer = client("update", "counter")
                    count += 1
                    figures["updates"] += 1
                    if (
                        not isinstance(answer, list)
                        or answer[0] != count
                        or answer[1] <= epochs[-1]
                    ):
                        wrong.append(f"update {count} gave {answer!r} after epoch {epochs[-1]}")
                        break
                    epochs.append(answer[1])
                elif what == 6 and chance.random() < 0.2:
                    answer = client("sweep")
                    if not isinstance(answer, int):
                        wrong.append(f"a sweep: {answer}")
                elif what == 7 and chance.random() < 0.2:
                    client("clear", "v")
                    values = {}
                    # Elsewhere a clear shows within 60 s, or at a look that is fresh.
                    wrong += [
                        f"after a clear there is {key}"
                        for other in clients
                        for key in range(6)
                        if other("fresh", "v", key, None) is not None
                    ]
        finally:
            for client in clients:
                client.end()
    for text in wrong:
        print(f"VIOLATION seed {seed}: {text}", flush=True)
    return figures | {"violations": len(wrong)}


if __name__ == "__main__":
    serve(sys.argv[1])
