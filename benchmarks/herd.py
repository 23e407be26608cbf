"""A herd of cold starts over one link, in the NFS lab: `python -m benchmarks.herd`.

Sixteen environments each need a model within 10 s, are killed then, and start again, as Lambda does
it. Each has a /tmp of its own; they share one link, which the lab's kernel limits so that all of
them need 28 s. The guest has one processor, so the model is small, and the link slow in proportion.
"""

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENTS, TIMEOUT, FAIR = 16, 10.0, 28.0  # seconds
SIZE = int(os.environ.get("HERD_MIB", "16")) << 20
LIMIT = int(ENVIRONMENTS * SIZE / FAIR)  # bytes a second
LONGEST = 60.0  # seconds of a round in which no load ends


class _Context:
    """An invocation that ends in so many seconds."""

    def __init__(self, seconds):
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self):
        return int(1000 * (self._end - time.monotonic()))


def plain(root):
    """Read the whole file, without a word of the deadline: nothing is kept of an attempt."""
    from efsstate import model

    return len(model("herd", lambda files: files.read(), root=root)())


def read(root):
    """Read as a handler does below `@invocation`."""
    from efsstate import invocation

    with invocation(_Context(TIMEOUT)):
        return plain(root)


def stage(root):
    """Stage as a handler does below `@invocation`."""
    from efsstate import invocation, model

    with invocation(_Context(TIMEOUT)):
        path = model("herd", lambda files: files.stage(), root=root)()
        return os.stat(path).st_size


WAYS = {"read(), nothing kept": plain, "read()": read, "stage()": stage}


def attempt(way, root, folder):
    """One invocation, in a process of its own."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ["TMPDIR"] = folder
        code = 0 if way(root) == SIZE else 2
    except Exception:  # cut off: the next attempt follows
        code = 1
    finally:
        os._exit(code)


def herd(way, root, folder, *, kill=True, apart=0.0):
    """Return when each environment had its model, in seconds from the start.

    They start `apart` seconds from each other.
    """
    started, ends = time.monotonic(), {}
    running = {}
    for number in range(ENVIRONMENTS):
        time.sleep(apart)
        place = f"{folder}/{number}"
        os.mkdir(place)
        running[attempt(way, root, place)] = (number, time.monotonic())
    while running and time.monotonic() < started + LONGEST:
        pid, status = os.waitpid(-1, os.WNOHANG)
        now = time.monotonic()
        if pid:
            number, _ = running.pop(pid)
            if os.waitstatus_to_exitcode(status) == 0:
                ends[number] = now - started
            else:
                running[attempt(way, root, f"{folder}/{number}")] = (number, now)
            continue
        for pid, (_, since) in running.items():
            if kill and now > since + TIMEOUT:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return sorted(ends.values())


def limit(rate):
    """Limit the link of client b to `rate` bytes a second; None: as fast as the lab is."""
    more = [] if rate is None else ["rate", f"{rate * 8}bit"]
    # Removed first: what is there keeps its rate when it is replaced by one without.
    subprocess.run(["tc", "qdisc", "del", "dev", "vb", "root"], stderr=subprocess.DEVNULL)
    command = ["tc", "qdisc", "add", "dev", "vb", "root", "netem", "delay", "1ms"]
    subprocess.run([*command, "limit", "100000", *more], check=True)


def received():
    """Return the bytes that client b's link has carried to it."""
    with open("/sys/class/net/vb/statistics/tx_bytes") as file:
        return int(file.read())


def wait_for_silence():
    """Wait until the link carries nothing: what killed readers have asked for is still sent."""
    before = -(1 << 20)
    while received() - before > 64 << 10:
        before = received()
        time.sleep(1)


def rate_of(root):
    """Return the bytes a second of one reader alone."""
    started = time.monotonic()
    pid = attempt(plain, root, tempfile.gettempdir())
    os.waitpid(pid, 0)
    return SIZE / (time.monotonic() - started)


def measure(root, other):
    """Print the table; `root` and `other` are the export on clients a and b."""
    for name in ("failures", "loading", "model_files", "staging", "swapping"):
        importlib.import_module(f"efsstate.modelstore.{name}")
    from efsstate import publish

    folder = tempfile.mkdtemp(dir="/dev/shm")
    source = f"{folder}/weights"
    with open(source, "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(SIZE >> 20))
    publish("herd", source, root=root)
    os.unlink(source)
    print(f"{ENVIRONMENTS} environments, {SIZE >> 20} MiB each, killed after {TIMEOUT:.0f} s")
    print("| link | way | loads | loads a minute | of the link's | last served | × fair | sent |")
    print("|---|---|---|---|---|---|---|---|")
    for name, bytes_a_second in ((f"{LIMIT / 1e6:.1f} MB/s", LIMIT), ("ample", None)):
        limit(bytes_a_second)
        rate = rate_of(other)
        fair = ENVIRONMENTS * SIZE / rate
        for title, way in WAYS.items():
            places = tempfile.mkdtemp(dir=folder)
            wait_for_silence()
            before, started = received(), time.monotonic()
            ends = herd(way, other, places)
            seconds = ends[-1] if len(ends) == ENVIRONMENTS else time.monotonic() - started
            minute = len(ends) * 60 / seconds
            last = f"{ends[-1]:.1f} s" if len(ends) == ENVIRONMENTS else "never"
            times = f"{ends[-1] / fair:.2f}" if len(ends) == ENVIRONMENTS else "-"
            sent = (received() - before) / 1e9
            cells = [name, title, len(ends), f"{minute:.1f}", f"{minute * SIZE / 60 / rate:.2f}"]
            print(
                "|", *[f"{cell} |" for cell in (*cells, last, times, f"{sent:.2f} GB")], flush=True
            )
            shutil.rmtree(places)
        print(f"  ({name}: one reader alone {rate / 1e6:.0f} MB/s, fair time {fair:.1f} s)")
    shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.herd", description=__doc__)
    parser.add_argument("--inside", nargs=2, metavar="MOUNT", help=argparse.SUPPRESS)
    parser.add_argument("--mib", type=int, default=16, help="the size of the model")
    options = parser.parse_args()
    if options.inside:
        measure(*options.inside)
        return
    os.environ["HERD_MIB"] = str(options.mib)
    inside = [sys.executable, "-m", "benchmarks.herd", "--inside", "/mnt/a", "/mnt/b"]
    lab = [sys.executable, "-m", "tests.nfs.lab", "--delay", "1ms", "--mem", "6G", "--"]
    sys.exit(subprocess.run([*lab, *inside], cwd=os.path.dirname(HERE)).returncode)


if __name__ == "__main__":
    main()
