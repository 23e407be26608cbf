"""The cost of a sweep at 10,000 to 1,000,000 entries, beside `find -delete` and a look into each.

Time, memory and requests.

    python -m benchmarks.sweep --root PATH [--entries 10000,100000,1000000] [--json FILE]
    python -m benchmarks.sweep --lab [--delay 300us] [--entries ...] [--json FILE]

"live": all entries are younger than the shortest ttl. "half": every other one is older than the
longest, and goes. "tenth opened": every tenth lies between the two, and only its header can tell.
In the lab entries are made on the server, and the clients' caches are dropped before each row.
"""

import argparse
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time

from benchmarks import measure

SIZES = (10_000, 100_000, 1_000_000)
HOUR = 3600.0
SERVER = "/run/disk/export"  # the lab's: where the server has what the clients mount
COMPARED = (
    100_000  # beyond it a look into each file takes an hour in the lab, and tells nothing new
)


def plant(root, path, count, what):
    """Make `count` entries in one namespace below `root`, at `path`: on the server, or locally."""
    import msgpack

    from efsstate.format import entry, layout
    from efsstate.mount.root import resolve

    os.makedirs(root)
    told = {
        "name": "bench",
        "shortest": HOUR,
        "longest": 24 * HOUR,
        "max_bytes": None,
        "max_entries": None,
    }
    resolve(root).write_entry("cache/bench", layout.POLICY, msgpack.packb(told), codec="msgpack")
    now = time.time()
    ages = {"live": [60.0], "half": [60.0, 48 * HOUR], "tenth opened": [60.0] * 9 + [2 * HOUR]}[
        what
    ]
    for digit in "0123456789abcdef":
        os.makedirs(f"{path}/cache/bench/{digit}", exist_ok=True)
    body = b"".join(entry.encode(b"x" * 100, place="", codec="msgpack", created=now, ttl=4 * HOUR))
    for i in range(count):
        name = hashlib.blake2b(b"%d" % i, digest_size=24).hexdigest()
        at, age = f"{path}/cache/bench/{name[0]}/{name}", ages[i % len(ages)]
        if what == "live":
            os.mknod(
                at, 0o600 | stat.S_IFREG
            )  # never opened: what is in it costs nothing but time to make
        else:
            with open(at, "wb") as file:
                file.write(body)
        if age > 60:
            os.utime(at, (now - age, now - age))


# Each runs in a process of its own, and prints what it did.


def ours(root):
    """Our sweep."""
    from efsstate import sweep

    report = sweep(root=root)
    return {
        "kept": report.kept,
        "removed": report.removed,
        "opened": report.opened,
        "errors": report.errors,
    }


def find(root):
    """`find -mtime -delete`, which knows of no ttl."""
    subprocess.run(
        ["find", f"{root}/cache", "-type", "f", "-mmin", f"+{24 * 60}", "-delete"], check=True
    )
    return {}


def checked(root):
    """A look into each file, and a removal: what a script does where each entry has its own ttl."""
    from efsstate.format import entry

    now, removed = time.time(), 0
    for where, _, names in os.walk(f"{root}/cache"):
        for name in names:
            if len(name) != 48:
                continue
            with open(f"{where}/{name}", "rb") as file:
                found = os.fstat(file.fileno())
                entry.peek(file.read(entry.HEADER), found.st_size, name)
            if now - found.st_mtime > 24 * HOUR:
                os.unlink(f"{where}/{name}")
                removed += 1
    return {"removed": removed}


SUBJECTS = {"efsstate sweep": ours, "find -mmin -delete": find, "a look into each file": checked}


def worker(subject, root):
    """One subject's run, in this process."""
    began = time.monotonic()
    told = SUBJECTS[subject](root)
    seconds = time.monotonic() - began
    with open("/proc/self/status") as file:
        high = next((int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0)
    print(json.dumps({**told, "seconds": seconds, "memory_mib": high / 1024}))


def run(folder, requests, count, what, subject):
    """One row: plant, run, count."""
    root = f"{folder}/{os.urandom(4).hex()}"
    path = root
    if requests.counted and os.path.isdir(SERVER):
        path = SERVER + root.removeprefix(requests.point)
    plant(root, path, count, what)
    try:
        if path != root:
            subprocess.run(["sync"], check=True)
            with open("/proc/sys/vm/drop_caches", "w") as file:
                file.write("3")
        before = requests.settled()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.sweep", "--worker", subject, "--root", root],
            capture_output=True,
            text=True,
            check=True,
        )
        after = requests.settled()
        told = json.loads(done.stdout)
        sent = {op: after[op] - before.get(op, 0) for op in after if after[op] != before.get(op, 0)}
        left = sum(len(names) for _, _, names in os.walk(f"{path}/cache"))
        assert left >= (count if what != "half" else count // 2), f"{subject} removed what is live"
        row = {"row": "sweep", "what": what, "subject": subject, "entries": count, **told}
        row |= {"each_us": 1e6 * told["seconds"] / count}
        if requests.counted:
            row |= {"requests": sent, "requests_total": sum(sent.values())}
            if what == "live":
                row["requests_each"] = sum(sent.values()) / count
        return row
    finally:
        shutil.rmtree(path, ignore_errors=True)


def figures(folder, requests, sizes=None):
    """Every row, on `folder`."""
    for count in sizes or (SIZES if not requests.counted else SIZES[:2]):
        yield run(folder, requests, count, "live", "efsstate sweep")
        if count <= COMPARED or not requests.counted:
            yield run(folder, requests, count, "half", "efsstate sweep")
        if count <= COMPARED:
            yield run(folder, requests, count, "tenth opened", "efsstate sweep")
            yield run(folder, requests, count, "half", "find -mmin -delete")
            if count < COMPARED or not requests.counted:
                yield run(folder, requests, count, "half", "a look into each file")


def line(row):
    """One row as text."""
    sent = (
        f"{row['requests_total']:>9,} {row['requests_total'] / row['entries']:>8.4f}"
        if "requests_total" in row
        else " " * 18
    )
    return (
        f"{row['entries']:>9,} {row['what']:<13} {row['subject']:<22} {row['seconds']:>8.2f} s"
        f" {row['each_us']:>8.1f} us {row['memory_mib']:>6.0f} MiB {sent}"
    )


def in_lab(options):
    """This command in the lab, on an ext4 image with room for so many files."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as disk, tempfile.TemporaryDirectory() as folder:
        image = f"{disk}/image"
        with open(image, "wb") as file:
            file.truncate(6 << 30)
        subprocess.run(
            [
                "/sbin/mkfs.ext4",
                "-q",
                "-b",
                "1024",
                "-N",
                "1300000",
                "-O",
                "^has_journal",
                "-E",
                "lazy_itable_init=1",
                image,
            ],
            check=True,
        )
        lab = [
            sys.executable,
            "-m",
            "tests.nfs.lab",
            "--delay",
            options.delay,
            "--writable",
            folder,
            "--disk",
            image,
            "--timeout",
            "7200",
            "--",
        ]
        ours = [
            sys.executable,
            "-m",
            "benchmarks.sweep",
            "--root",
            "/mnt/a",
            "--entries",
            options.entries,
            "--json",
            f"{folder}/rows.json",
        ]
        code = subprocess.run([*lab, *ours]).returncode
        if code == 0 and options.json:
            shutil.copy(f"{folder}/rows.json", options.json)
        return code


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--root", help="a folder on any file system")
    parser.add_argument("--lab", action="store_true", help="in the NFS lab")
    parser.add_argument("--delay", default="300us")
    parser.add_argument("--entries", default=",".join(map(str, SIZES)))
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--worker", choices=list(SUBJECTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.root)
        return 0
    if options.lab:
        return in_lab(options)
    if not options.root:
        parser.error("--root PATH or --lab")
    folder = tempfile.mkdtemp(dir=options.root)
    rows = []
    try:
        for row in figures(
            folder, measure.Requests(folder), [int(one) for one in options.entries.split(",")]
        ):
            print(line(row), flush=True)
            rows.append(row)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(
                {
                    "schema": "efsstate.benchmark.sweep",
                    "version": 1,
                    "date": time.strftime("%Y-%m-%d"),
                    "rows": rows,
                },
                file,
                indent=1,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
