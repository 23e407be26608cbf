"""Count the acknowledged updates that survive on two NFS clients: the usual recipe's, and ours.

The recipe is a lock file and `os.replace`.

    python -m tests.nfs.lab -- python benchmarks/lost_updates.py python benchmarks/lost_updates.py
    /mnt/one /mnt/two            any two clients' mounts of one export

Two workers, one on each client, add 1 to one counter; readers on both keep what they read open for
a while, as a backup, an indexer or a dashboard does. Every update that was acknowledged (the call
returned) is counted; then what is left is read.
"""

import argparse
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "src"))


def usual_update(folder):
    import filelock

    path = f"{folder}/state.json"
    with filelock.FileLock(f"{folder}/state.lock"):
        with open(path) as file:
            state = json.load(file)
        state["n"] += 1
        temporary = f"{path}.{os.getpid()}.tmp"
        with open(temporary, "w") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def our_update(folder):
    from efsstate import checkpoint

    checkpoint("count", root=folder, wait=60).update(lambda n: n + 1, default=0)


UPDATES = {"filelock + os.replace": usual_update, "efsstate.checkpoint": our_update}


def work(name, folder, times):
    """A worker: prints how many updates were acknowledged. One that raises is not."""
    done = 0
    for _ in range(times):
        try:
            UPDATES[name](folder)
            done += 1
        except OSError as error:  # the client may believe that the file is missing
            print(f"{name}: {error}", file=sys.stderr)
        time.sleep(int.from_bytes(os.urandom(1), "little") / 255 * 0.02)
    print(done)


def read(name, folder):
    """A reader: opens what the counter is in, keeps it open for a second, until it is killed."""
    held = []
    below = f"{folder}/checkpoints/count"
    while True:
        try:
            # By its name, where it has one: a listing would make this client ask the server, and
            # hide what is shown here.
            paths = (
                [f"{folder}/state.json"]
                if "filelock" in name
                else [f"{below}/{item}" for item in os.listdir(below) if item[0].isdigit()]
            )
            for path in paths:
                held.append(open(path))  # noqa: SIM115 - keeping it open is the point
                held[-1].buffer.read()
        except OSError:
            pass
        time.sleep(0.05)
        while len(held) > 20:
            held.pop(0).close()


def final(name, folder):
    if "filelock" in name:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))  # asks the server
        with open(f"{folder}/state.json") as file:
            return json.load(file)["n"]
    from efsstate import checkpoint

    return checkpoint("count", root=folder).load(0)


def run(name, mounts, times, readers):
    """(acknowledged, kept) of one recipe."""
    folder = f"lost-updates-{os.getpid()}-{list(UPDATES).index(name)}-{readers}"
    places = [os.path.join(mount, folder) for mount in mounts]
    os.mkdir(places[0])
    if "filelock" in name:
        with open(f"{places[0]}/state.json", "w") as file:
            json.dump({"n": 0}, file)
    os.listdir(os.path.dirname(places[1]))

    def start(what, place, *more):
        return subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), f"--{what}", name, place, *more],
            stdout=subprocess.PIPE,
            text=True,
        )

    watching = [start("read", place) for place in places] if readers else []
    workers = [start("work", place, str(times)) for place in places]
    acknowledged = sum(int(worker.communicate()[0]) for worker in workers)
    for process in watching:
        process.kill()
        process.communicate()
    return acknowledged, final(name, places[1])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "mounts", nargs="*", default=["/mnt/a", "/mnt/b"], help="two clients' mounts of one export"
    )
    parser.add_argument(
        "--times", type=int, default=100, help="updates of each worker (default 100)"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.work:
        return work(options.work[0], options.work[1], int(options.work[2]))
    if options.read:
        return read(*options.read)
    if len(options.mounts) != 2 or not all(map(os.path.isdir, options.mounts)):
        parser.error("two mounts are needed: run it in the lab, or name them")
    rows = []
    for name in UPDATES:
        for readers in (False, True):
            acknowledged, kept = run(name, options.mounts, options.times, readers)
            rows.append(
                {"recipe": name, "readers": readers, "acknowledged": acknowledged, "kept": kept}
            )
            if not options.json:
                print(
                    f"{name:24} {'with readers' if readers else 'alone':14} kept {kept} of "
                    f"{acknowledged} acknowledged",
                    flush=True,
                )
    if options.json:
        print(json.dumps({"benchmark": "lost_updates", "rows": rows}))
    ours = [row for row in rows if row["recipe"] == "efsstate.checkpoint"]
    return int(any(row["kept"] != row["acknowledged"] for row in ours))


if __name__ == "__main__":
    sys.exit(main())
