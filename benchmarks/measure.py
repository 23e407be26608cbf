"""How things are measured: requests to the server, system calls, times with their spread; each subject in a process of its own."""

import gc
import os
import pickle
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

LEASE = "SEQUENCE"  # the client renews its lease by the clock, whatever runs
ALLOCATOR = {"mmap", "munmap", "brk", "madvise", "mremap", "mprotect"}  # the allocator's mood, not the subject's work


def reason(error):
    """An error in one short line, without the machine's paths."""
    text = f"{type(error).__name__}: {error}".split("\n")[0]
    return " ".join(word for word in text.split() if "/" not in word).rstrip(" :")[:120]


class Requests:
    """The requests that this host sends for one NFS mount; `counted` is false where `path` is not on one."""

    def __init__(self, path):
        path, points = (
            os.path.realpath(path),
            {line.split(" ")[4] for line in self._lines() if " with fstype nfs" in line},
        )
        above = [point for point in points if path == point or path.startswith(point.rstrip("/") + "/")]
        self.point = max(above, key=len, default=None)
        self.counted = self.point is not None

    @staticmethod
    def _lines():
        try:
            with open("/proc/self/mountstats") as file:
                return file.read().splitlines()
        except FileNotFoundError:  # not Linux
            return []

    def read(self):
        """By operation, since the mount."""
        counts, ours, table = {}, False, False
        for line in self._lines():
            if line.startswith("device "):
                ours, table = line.split(" ")[4] == self.point, False
            elif ours and line.strip() == "per-op statistics":
                table = True
            elif ours and table and ":" in line:
                name, numbers = line.split(":")
                name = name.strip().removesuffix("_NOATTR")
                if name != LEASE:
                    counts[name] = counts.get(name, 0) + int(numbers.split()[0])
        return counts

    def settled(self):
        """read(), once nothing is under way: the kernel sends some requests after the call has returned."""
        if not self.counted:
            return {}
        before = self.read()
        for _ in range(100):
            time.sleep(0.03)
            after = self.read()
            if after == before:
                break
            before = after
        return before


def spread(samples):
    """Median and quartiles, in the samples' unit."""
    if len(samples) < 2:
        samples = samples * 2
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high, "samples": len(samples)}


def run(operation, arguments, *, requests=None, batch=1, beside=None, check=None):
    """Call `operation(argument)` for each argument; a figure: seconds an operation, requests an operation, the ratio to `beside`.

    `batch`: so many operations a sample. `beside(argument)`: another operation, sampled in turn with the first, so that
    the ratio holds whatever else the machine does. `check(argument, result)` afterwards: "wrong", "missed" or None.
    """
    before = requests.settled() if requests else {}
    samples, ratios, faults = [], [], []
    gc.collect()
    gc.disable()
    try:
        for i in range(0, len(arguments), batch):
            some = arguments[i : i + batch]
            seconds, results = _time(operation, some)
            samples.append(seconds / len(some))
            if check:
                faults += [fault for argument, result in zip(some, results) if (fault := check(argument, result))]
            del results
            if beside:
                ratios.append(seconds / _time(beside, some)[0])
    finally:
        gc.enable()
    figure = {"time": spread(samples), "operations": len(arguments)}
    if ratios:
        figure["ratio"] = statistics.median(ratios)
    if requests and requests.counted:
        after = requests.settled()
        counts = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
        figure["requests"] = sum(counts.values()) / len(arguments)
        figure["by_operation"] = counts
    for fault in set(faults):
        figure[fault] = faults.count(fault)
    return figure


def merged(figures):
    """Figures of one operation each, as one figure."""
    found = {"time": spread([figure["time"]["median"] for figure in figures]), "operations": len(figures)}
    if "requests" in figures[0]:
        found["requests"] = sum(figure["requests"] for figure in figures) / len(figures)
        found["by_operation"] = {}
        for name, n in ((name, n) for figure in figures for name, n in figure["by_operation"].items()):
            found["by_operation"][name] = found["by_operation"].get(name, 0) + n
    for fault in ("wrong", "missed"):
        if wrong := sum(figure.get(fault, 0) for figure in figures):
            found[fault] = wrong
    return found


def _time(operation, arguments):
    start = time.perf_counter()
    results = [operation(argument) for argument in arguments]
    return time.perf_counter() - start, results


def isolated(function, *arguments, timeout=180):
    """What the generator `function(*arguments)` yields in a process of its own; then, if it failed or hung, that as its last."""
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # a fork beside a library's idle threads: the child uses none
        pid = os.fork()
    if not pid:
        os.close(receiving)
        with os.fdopen(sending, "wb") as out:
            code = 0
            try:
                for item in function(*arguments):
                    pickle.dump(item, out)
                    out.flush()
            except BaseException as error:
                pickle.dump({"failed": reason(error)}, out)
                code = 1
        sys.stdout.flush()
        os._exit(code)
    os.close(sending)
    data, end = b"", time.monotonic() + timeout
    while select.select([receiving], [], [], max(0, end - time.monotonic()))[0] and (
        more := os.read(receiving, 1 << 16)
    ):
        data += more
    os.close(receiving)
    hung = time.monotonic() >= end
    if hung:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    items = list(_unpickled(data))
    if hung:
        items.append({"failed": f"hangs: no answer within {timeout} s"})
    elif status not in (0, 1):
        items.append(
            {"failed": f"the process dies: {signal.Signals(-status).name if status < 0 else f'exit code {status}'}"}
        )
    return items


def _unpickled(data):
    import io

    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        try:
            yield pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):
            return


def mark(name):
    """Leave a mark in the trace: a look for a name that does not exist."""
    try:
        os.stat(f"/benchmark-mark/{name}")
    except OSError:
        pass


def system_calls(*arguments):
    """System calls by name between the marks `begin-X` and `end-X` that `python -m benchmarks.traced ARGUMENTS` leaves: {X: {call: count}}."""
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/log"
        command = ["strace", "-f", "-qq", "-o", log, sys.executable, "-m", "benchmarks.traced", *arguments]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(
                done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
            )
        counts, current = {}, None
        with open(log, errors="replace") as lines:
            for line in lines:
                text = line.split(maxsplit=1)[1]  # after the process id
                call = text.partition("(")[0]
                if "/benchmark-mark/" in line:
                    which, _, name = line.split("/benchmark-mark/")[1].partition('"')[0].partition("-")
                    current = counts.setdefault(name, {}) if which == "begin" else None
                elif current is not None and call.isidentifier() and call not in ALLOCATOR:
                    current[call] = current.get(call, 0) + 1
    return counts
