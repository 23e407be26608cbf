"""Power loss of the server and of a client, at random moments under load.

What was acknowledged must be there.

Three kinds, the last beside the others, in a process and a lab of its own:

- `server`: kill -9 of the server's kernel; all that its disk was not told to keep is lost or torn
  (volatile.py); the machine is booted again from that disk.
- `images`: the disk as a power cut at a moment before that would have left it, its journal replayed
  by e2fsck on the host, is looked at while the machine boots.
- `clients`: kill -9 of the kernels of two clients in machines of their own, in turn; the server
  goes on.

Acknowledgements are lines that have reached the host before the cut. `python -m tests.torture.power
clients SECONDS SEED` is one kind alone.
"""

import contextlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from tests.nfs.guest import LabError
from tests.nfs.lab import Lab, missing
from tests.torture import Skip, workload
from tests.torture.volatile import VolatileCache

WORKERS = "aabb"  # each letter a process on that client
MARGIN = 0.02  # seconds by which the clocks of two guests may differ


class Loaded:
    """Workers in guests, and all that they have told. `offsets`.

    Each guest's clock to the host's.
    """

    def __init__(self, mix, seed, *, plant=""):
        self.mix, self.seed, self.plant = mix, seed, plant
        self.told, self._workers, self._started = [], [], 0

    def start(self, guest, root, client, tag="", seconds=1e9):
        """A worker on `client`: its process."""
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

    def drop(self, guest):
        """This machine goes: take what its workers told, those that ended too."""
        self.take()
        self._workers = [one for one in self._workers if one[1] is not guest]

    def take(self):
        """All that has arrived."""
        for process, guest in self._workers:
            for line in process.lines():
                one = json.loads(line)
                offset = getattr(guest, "clock", 0.0)
                one["t0"], one["t1"] = one.get("t0", 0.0) + offset, one.get("t1", 0.0) + offset
                self.told.append(one)
            if process.exit_code not in (None, 0, -9):
                raise AssertionError(
                    f"a worker ended with {process.exit_code}:\n{process.stderr[-3000:]}"
                )
        return self.told


class Judge:
    """A process on the host that looks at what is left; see aftermath.py."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.aftermath"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=os.getcwd(),
        )

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
    """Copy the folder `inside` of a disk image, its journal replayed.

    Return True if e2fsck could.
    """
    code = subprocess.run(["e2fsck", "-fy", image], capture_output=True, check=False).returncode
    if code > 2:
        return False
    os.mkdir(target)
    subprocess.run(
        ["debugfs", "-R", f"rdump {inside} {target}", image], capture_output=True, check=True
    )
    return True


class Crew:
    """The process of crew.py in a guest, and what its workers told.

    `offset`: of the guest's clock to the one that counts.
    """

    def __init__(self, guest):
        self.guest, self.offset, self._told, self._answers = guest, 0.0, {}, []
        self._process = guest.spawn([sys.executable, "-u", "-m", "tests.torture.crew"])

    def _order(self, **order):
        self._process.write(json.dumps(order) + "\n")

    def take(self):
        """Have all that has arrived."""
        for line in self._process.lines():
            one = json.loads(line)
            if "tag" in one:
                one["t0"], one["t1"] = (
                    one.get("t0", 0.0) + self.offset,
                    one.get("t1", 0.0) + self.offset,
                )
                self._told.setdefault(one.pop("tag"), []).append(one)
            else:
                self._answers.append(one)
        if self._process.exit_code is not None:
            raise AssertionError(
                f"a crew ended with {self._process.exit_code}:\n{self._process.stderr[-3000:]}"
            )

    def told(self, tag):
        """The operations of a tag so far."""
        self.take()
        return self._told.get(tag, [])

    def so_far(self, tag):
        """The same, of a crew whose machine is gone."""
        return self._told.get(tag, [])

    def forget(self, tag):
        self._told.pop(tag, None)

    def _answer(self, timeout=300):
        until = time.monotonic() + timeout
        while not self._answers:
            self.take()
            if time.monotonic() > until:
                raise LabError(f"no answer from a guest's crew within {timeout} s")
            time.sleep(0.001)
        return self._answers.pop(0)

    def work(self, root, who, seed, tag):
        """Start a worker."""
        self._order(work=[root, who, seed, workload.DURABLE, tag])

    def stop(self, tag):
        """Kill the workers of a tag."""
        self._order(stop=tag)
        while "stopped" not in self._answer():
            pass

    def judge(self, root, tag, told, *, margin=0.0, remove=""):
        """(how many violations, some of them as texts): what somebody sees who comes new."""
        handle, path = tempfile.mkstemp()  # a new name: the guest may remember an old one's content
        with open(handle, "w") as file:
            json.dump(told, file)
        self._order(
            judge={"root": root, "tag": tag, "history": path, "margin": margin}, remove=remove
        )
        answer = self._answer()
        os.unlink(path)
        return answer["violations"], answer["some"]

    def clock(self):
        """This guest's clock minus the host's, from the quickest of some answers."""
        best = None
        for attempt in range(40):
            if attempt > 3 and best[0] < MARGIN:
                break
            before = time.monotonic()
            self._order(clock=0)
            there = self._answer()["clock"]
            after = time.monotonic()
            if best is None or after - before < best[0]:
                best = (after - before, there - (before + after) / 2)
        return best[1]


class Figures(dict):
    """Counts, and the violations, each printed as it is found."""

    def __init__(self, seed, **counts):
        super().__init__(violations=0, **counts)
        self._seed = seed

    def judge(self, bad, where):
        for one in bad[:5]:
            print(
                f"power: VIOLATION: {where}, seed {self._seed}: "
                f"{json.dumps(one, default=str)[:800]}",
                flush=True,
            )
        self["violations"] += len(bad)

    def count(self, number, some, where):
        self.judge(some, where)
        self["violations"] += number - min(5, len(some)) if number > len(some) else 0


ACKNOWLEDGED = ("set", "add", "append", "publish", "activate", "shard")


def count(told):
    return sum(
        one["op"] in ACKNOWLEDGED and one.get("kept", one.get("finished", True)) for one in told
    )


def export_async(lab):
    """The bug on purpose: a server that acknowledges what is not on its disk."""
    lab.spawn(
        [
            "exportfs",
            "-i",
            "-o",
            "rw,async,no_root_squash,no_subtree_check,fsid=0,insecure",
            "*:/run/disk/export",
        ]
    ).output()


def fast_folder():
    """Where images are made and thrown away: in memory, where there is plenty."""
    found = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None
    room = found and found.f_bavail * found.f_frsize > 6 << 30
    return tempfile.mkdtemp(prefix="efsstate-power-", dir="/dev/shm" if room else None)


def look_at_image(judge, folder, path, cut, tag, told):
    """The violations on an image of the server's disk."""
    out = tempfile.mkdtemp(dir=folder) + "/out"  # a new name: the judge knows the old ones
    if not extract(path, f"/export/cut{cut}", out):
        return [("the file system is damaged", cut)]
    bad = judge.ask(f"{out}/cut{cut}", tag, told)
    shutil.rmtree(out)
    return bad


def image(disk, judge, folder, cut, tag, told, rng):
    """The same, if power went now."""
    told = list(told)  # what is acknowledged before the cut, and no more
    disk.snapshot(f"{folder}/image", rng)
    return look_at_image(judge, folder, f"{folder}/image", cut, tag, told)


def server(seconds, seed, *, break_it=None, most=10**6):
    """Figures of loads, images and cuts of the server, until the time is over."""
    figures = Figures(
        seed, server_kills=0, images=0, acknowledged_server=0, sectors_lost=0, flushes=0
    )
    until, rng = time.monotonic() + seconds, random.Random(f"server {seed}")
    folder = fast_folder()
    judge, lab, cut = Judge(), Lab(f"{folder}/disk", mem="1G").boot(), 0
    try:
        crew = Crew(lab.server)
        with ThreadPoolExecutor(1) as aside:
            while not cut or (time.monotonic() < until and cut < most):
                tag = f"-{cut}"
                if break_it:
                    break_it(lab)
                disk = VolatileCache(lab.server, lab.disk)
                for n, client in enumerate(WORKERS):
                    crew.work(f"/mnt/{client}/cut{cut}", f"{client}{n}", f"{seed}-{cut}", tag)
                wait_for(lambda: len(crew.told(tag)) >= 5, 30)
                listen([crew], rng.uniform(0.1, 0.8))
                before = list(crew.told(tag))
                disk.snapshot(f"{folder}/image", rng)
                listen([crew], rng.uniform(0.05, 1.0))
                told = list(crew.told(tag))
                disk.power_off(lab.kill, rng)
                looked = aside.submit(
                    look_at_image, judge, folder, f"{folder}/image", cut, tag, before
                )
                figures["server_kills"] += 1
                figures["images"] += 1
                figures["sectors_lost"] += disk.lost
                figures["flushes"] += disk.flushes
                figures["acknowledged_server"] += count(told)
                lab.boot()
                crew = Crew(lab.server)
                found = crew.judge(
                    f"/mnt/b/cut{cut}", tag, told, remove=f"/run/disk/export/cut{cut}"
                )
                figures.count(*found, f"the server's cut {cut}")
                figures.judge(looked.result(), f"an image, cut {cut}")
                cut += 1
    finally:
        judge.close()
        lab.close()
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def wait_for(done, timeout):
    until = time.monotonic() + timeout
    while not done() and time.monotonic() < until:
        time.sleep(0.01)


def listen(crews, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for crew in crews:
            crew.take()
        time.sleep(0.01)


class Machine:
    """Run a client in a machine of its own, workers under one tag after the other, and one more.

    That one is on the server's machine.
    """

    def __init__(self, lab, name, beside, base, seed):
        self._lab, self.name, self._beside, self._base, self._seed = lab, name, beside, base, seed
        self.cut = 0

    def boot(self):
        self.cut += 1
        self.tag, self.folder = f"-{self.name}{self.cut}", f"{self.name}{self.cut}"
        self._guest = self._lab.client(self.name)
        self.crew = Crew(self._guest)
        self.crew.offset = self._base - self.crew.clock()
        for n in range(3):
            self.crew.work(
                f"/mnt/{self.name}/{self.folder}",
                f"{self.name}{n}",
                f"{self._seed}-{self.cut}",
                self.tag,
            )
        self._beside.work(f"/mnt/a/{self.folder}", "a", f"{self._seed}-{self.cut}", self.tag)

    def kill(self):
        """Everything that was told until now."""
        self.crew.take()
        self._guest.kill()
        self._beside.stop(self.tag)
        told = self.crew.so_far(self.tag) + self._beside.told(self.tag)
        self._beside.forget(self.tag)
        return told


def clients(seconds, seed, *, most=10**6):
    """Figures of cuts of two clients in machines of their own, until the time is over."""
    figures = Figures(seed, client_kills=0, acknowledged_clients=0)
    until, rng = time.monotonic() + seconds, random.Random(f"client {seed}")
    lab, cut = (
        Lab(alone=("c", "d"), mem="2G").boot(),
        0,
    )  # its disk is in there, and every cut takes new blocks
    try:
        beside = Crew(lab.server)
        base = beside.clock()
        machines = [Machine(lab, name, beside, base, seed) for name in "cd"]
        for machine in machines:
            machine.boot()
        while not cut or (time.monotonic() < until and cut < most):
            machine = machines[cut % 2]
            wait_for(lambda: len(machine.crew.told(machine.tag)) >= 5, 30)
            listen([beside, *[one.crew for one in machines]], rng.uniform(0, 0.6))
            tag, root = machine.tag, machine.folder
            told = machine.kill()
            figures["client_kills"] += 1
            figures["acknowledged_clients"] += count(told)
            away = not rng.randrange(
                12
            )  # now and then it stays away, and the others wait for its lease to end
            if not away:
                machine.boot()
            found = beside.judge(
                f"/mnt/b/{root}", tag, told, margin=MARGIN, remove=f"/run/disk/export/{root}"
            )
            figures.count(*found, f"the client's cut {machine.name} {tag}")
            if away:
                machine.boot()
            cut += 1
    finally:
        lab.close()
    return figures


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


def align(lab, *guests):
    """Learn each guest's monotonic offset to the server's: they run at one rate, the host's."""
    lab.server.clock = 0.0
    base = clock(lab.server)
    for guest in guests:
        guest.clock = base - clock(guest)


def clock(guest):
    """Return the guest's monotonic clock minus the host's, to about 1 ms: the quickest answer's."""
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
    began = time.monotonic()
    words = [
        sys.executable,
        "-u",
        "-m",
        "tests.torture.power",
        "clients",
        str(max(1, seconds - 15)),
        str(seed),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as beside:
        try:
            # A server that acknowledges too early: unless that is seen, nothing below tells
            # anything.
            early, attempt = 0, 0
            while not early and attempt < 3:
                with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                    early = server(1, seed + attempt, break_it=export_async, most=1)["violations"]
                attempt += 1
            figures = server(max(1, seconds - 10 - (time.monotonic() - began)), seed)
        except BaseException:
            beside.kill()
            raise
        *said, last = beside.communicate(timeout=600)[0].splitlines()
        print("\n".join(said), end="\n" if said else "")
        if beside.returncode:
            raise AssertionError(f"the cuts of clients ended with {beside.returncode}")
    more = json.loads(last)
    found = figures["violations"] + more["violations"] + (not early)
    if not early:
        print("power: VIOLATION: a server that acknowledges too early was not noticed", flush=True)
    figures = figures | more
    kills = figures["server_kills"] + figures["client_kills"]
    return {
        "violations": found,
        "kernels_killed": kills,
        "acknowledged": figures["acknowledged_server"] + figures["acknowledged_clients"],
        **{name: number for name, number in figures.items() if name != "violations"},
        "seconds_per_kill": round((time.monotonic() - began) / kills, 1),
        "planted_early_acknowledgement_found": early,
    }


if __name__ == "__main__":
    print(
        json.dumps(
            {"server": server, "clients": clients}[sys.argv[1]](
                float(sys.argv[2]), int(sys.argv[3])
            )
        )
    )
