"""Power loss: the server, and a client, cut off at random moments under load; what was acknowledged must be there.

Three kinds, which take turns:

- `images`: the server's disk as a power cut at this moment would leave it, all that it was not told to keep lost or torn
  (volatile.py), its journal replayed by e2fsck on the host. Cheap, so there are many.
- `server`: kill -9 of the server's kernel, the same done to its disk, and the machine booted again from it.
- `client`: kill -9 of the kernel of a client in a machine of its own; the server goes on.

Acknowledgements are lines that have reached the host before the cut.
"""

import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time

from tests.nfs.lab import Lab, missing
from tests.torture import Skip, workload
from tests.torture.volatile import VolatileCache

WORKERS = "aabb"  # each letter a process on that client


class Loaded:
    """Workers in guests, and all that they have told so far. `offsets`: of each guest's clock to the host's."""

    def __init__(self, mix, seed, *, plant=""):
        self.mix, self.seed, self.plant = mix, seed, plant
        self.told, self._workers, self._started = [], [], 0

    def start(self, guest, root, client, tag="", seconds=1e9):
        """A worker on `client`; it is what `drop` takes."""
        self._started += 1
        return self.run(
            guest,
            "tests.torture.workload",
            root,
            f"{client}{self._started}",
            self.seed,
            self.mix,
            seconds,
            tag,
            self.plant,
        )

    def run(self, guest, module, *arguments):
        """A process that tells operations."""
        process = guest.spawn([sys.executable, "-u", "-m", module, *map(str, arguments)])
        self._workers.append((process, guest))
        return process

    def drop(self, processes):
        """Their machine is gone."""
        self.take()
        self._workers = [one for one in self._workers if one[0] not in processes]

    def take(self):
        """All that has arrived."""
        for process, guest in self._workers:
            for line in process.lines():
                one = json.loads(line)
                offset = getattr(guest, "clock", 0.0)
                one["t0"], one["t1"] = one.get("t0", 0.0) + offset, one.get("t1", 0.0) + offset
                self.told.append(one)
            if process.exit_code not in (None, 0, -9):
                raise AssertionError(f"a worker ended with {process.exit_code}:\n{process.stderr[-3000:]}")
        return self.told


class Judge:
    """A process on the host that looks at what is left; see aftermath.py."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.aftermath"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, cwd=os.getcwd(),
        )  # fmt: skip

    def ask(self, root, tag, told):
        self._process.stdin.write(json.dumps({"root": root, "tag": tag, "history": told}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def judge_in_guest(lab, folder, root, tag, told, number, margin=0.0):
    """The same through a client, in the guest."""
    path = f"{folder}/history{number}"  # a new name: the guest may remember an old one's content
    with open(path, "w") as file:
        json.dump(told, file)
    process = lab.spawn([sys.executable, "-m", "tests.torture.aftermath"])
    process.write(json.dumps({"root": root, "tag": tag, "history": path, "margin": margin}) + "\n")
    process.close_stdin()
    answer = process.output(300)
    os.unlink(path)
    return json.loads(answer)


def extract(image, inside, target):
    """The folder `inside` of a disk image, its journal replayed, as files on the host; whether e2fsck could."""
    code = subprocess.run(["e2fsck", "-fy", image], capture_output=True, check=False).returncode
    if code > 2:
        return False
    os.mkdir(target)
    subprocess.run(["debugfs", "-R", f"rdump {inside} {target}", image], capture_output=True, check=True)
    return True


class Figures(dict):
    """Counts, and the violations, each printed as it is found."""

    def __init__(self, seed):
        super().__init__(
            violations=0, images=0, server_cuts=0, client_cuts=0, acknowledged=0, sectors_lost=0, flushes=0
        )
        self._seed = seed

    def judge(self, bad, where):
        for what, about in bad[:5]:
            print(
                f"power: VIOLATION: {what}, {where}, seed {self._seed}: {json.dumps(about, default=str)[:800]}",
                flush=True,
            )
        self["violations"] += len(bad)


ACKNOWLEDGED = ("set", "add", "append", "publish", "activate", "shard")


def count(told):
    return sum(one["op"] in ACKNOWLEDGED and one.get("kept", one.get("finished", True)) for one in told)


def export_async(lab):
    """The bug on purpose: a server that acknowledges what is not on its disk."""
    lab.spawn(
        ["exportfs", "-i", "-o", "rw,async,no_root_squash,no_subtree_check,fsid=0,insecure", "*:/run/disk/export"]
    ).output()


def at_work(lab, cut, seed):
    """Workers, in a folder and under names of this cut's own."""
    lab.spawn(["sh", "-c", f"mkdir -p /run/disk/export/cut{cut} && sync"]).output()
    load = Loaded(workload.DURABLE, f"{seed}-{cut}")
    for client in WORKERS:
        load.start(lab, f"/mnt/{client}/cut{cut}", client, f"-{cut}")
    run_until(load, 5)
    return load


def image(disk, judge, folder, cut, load, rng):
    """The violations on the server's disk, if power went now."""
    told = list(load.take())
    disk.snapshot(f"{folder}/image", rng)
    out = tempfile.mkdtemp(dir=folder) + "/out"  # a new name: the judge knows the old ones
    if not extract(f"{folder}/image", f"/export/cut{cut}", out):
        return [("the file system is damaged", cut)]
    bad = judge.ask(f"{out}/cut{cut}", f"-{cut}", told)
    shutil.rmtree(out)
    return bad


def server(seconds, seed, figures, *, break_it=None, images=10, most=10**6):
    """Loads, images, and cuts of the server, until the time is over."""
    until, rng = time.monotonic() + seconds, random.Random(f"server {seed}")
    folder = tempfile.mkdtemp(prefix="efsstate-power-")
    judge, lab, cut = Judge(), None, 0
    try:
        while not cut or (time.monotonic() < until and cut < most):
            if cut % 25 == 0:  # the disk fills up
                if lab:
                    lab.close()
                shutil.rmtree(folder)
                os.mkdir(folder)
                lab = Lab(f"{folder}/disk").boot()
            if break_it:
                break_it(lab)
            disk = VolatileCache(lab.server, lab.disk)
            load = at_work(lab, cut, seed)
            for _ in range(images):
                run_for(load, rng.uniform(0.2, 0.9))
                figures.judge(image(disk, judge, folder, cut, load, rng), f"an image, cut {cut}")
                figures["images"] += 1
            run_for(load, rng.uniform(0.2, 1.5))
            told = list(load.take())
            disk.power_off(lab.kill, rng)
            figures["sectors_lost"] += disk.lost
            figures["flushes"] += disk.flushes
            figures["acknowledged"] += count(told)
            figures["server_cuts"] += 1
            lab.boot()
            figures.judge(
                judge_in_guest(lab, folder, f"/mnt/b/cut{cut}", f"-{cut}", told, cut), f"the server's cut {cut}"
            )
            cut += 1
    finally:
        judge.close()
        if lab:
            lab.close()
        shutil.rmtree(folder, ignore_errors=True)


def run_until(load, told, timeout=30):
    """Until so much is told: the workers are at work."""
    until = time.monotonic() + timeout
    while len(load.take()) < told and time.monotonic() < until:
        time.sleep(0.02)


def run_for(load, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        load.take()
        time.sleep(0.02)


def client(seconds, seed, figures, *, most=10**6):
    """Cuts of a client in a machine of its own, until the time is over."""
    until, rng = time.monotonic() + seconds, random.Random(f"client {seed}")
    folder = tempfile.mkdtemp(prefix="efsstate-power-")
    lab = Lab(alone=("c",)).boot()
    try:
        cut, guest = 0, lab.client("c")
        while not cut or (time.monotonic() < until and cut < most):
            tag = f"-c{cut}"
            lab.spawn(["mkdir", "-p", f"/run/disk/export/cut{cut}"]).output()
            load = Loaded(workload.DURABLE, f"{seed}-c{cut}")
            dying = [load.start(guest, f"/mnt/c/cut{cut}", "c", tag) for _ in range(3)]
            staying = load.start(lab, f"/mnt/a/cut{cut}", "a", tag)
            align(lab, guest)
            run_until(load, 5)
            run_for(load, rng.uniform(0.5, 3))
            load.drop(dying)
            guest.kill()
            figures["client_cuts"] += 1
            if cut % 4:  # now and then it stays away, and the others wait for its lease to end
                guest = lab.client("c")
            staying.kill()
            staying.wait()
            told = list(load.take())
            figures["acknowledged"] += count(told)
            figures.judge(judge_in_guest(lab, folder, f"/mnt/b/cut{cut}", tag, told, cut), f"the client's cut {cut}")
            if not cut % 4:
                guest = lab.client("c")
            cut += 1
    finally:
        lab.close()
        shutil.rmtree(folder, ignore_errors=True)


def align(lab, *guests):
    """Learn what each guest's monotonic clock lacks to the server's: they run at one rate, the host's."""
    lab.server.clock = 0.0
    base = clock(lab.server)
    for guest in guests:
        guest.clock = base - clock(guest)


def clock(guest):
    """The guest's monotonic clock minus the host's, to about a millisecond: from the quickest of some answers."""
    process = guest.python("import sys, time\nfor _ in sys.stdin: print(time.monotonic())")
    best = None
    for attempt in range(60):
        if attempt > 10 and best[0] < 0.01:
            break
        before = time.monotonic()
        process.write("\n")
        there = float(process.readline())
        after = time.monotonic()
        if best is None or after - before < best[0]:
            best = (after - before, there - (before + after) / 2)
    process.close_stdin()
    process.wait()
    return best[1]


def run(seconds, seed):
    """Power cuts for about so long: {figure: number}; `violations` must be 0."""
    if reason := missing():
        raise Skip(reason)
    if platform.machine() != "x86_64":
        raise Skip("the disk that forgets is written for x86-64")
    figures = Figures(seed)
    broken = Figures(seed)  # a server that acknowledges too early: unless that is seen, nothing above tells anything
    server(seconds * 0.65, seed, figures)
    client(seconds * 0.3, seed, figures)
    broken.judge = lambda bad, _where: broken.update(violations=broken["violations"] + len(bad))
    server(seconds * 0.05, seed, broken, break_it=export_async, most=1)
    figures["planted_early_acknowledgement_found"] = broken["violations"]
    if not broken["violations"]:
        figures.judge([("a server that acknowledges too early was not noticed", "")], "the bug on purpose")
    return dict(figures)
