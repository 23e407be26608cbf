"""How things are measured: requests to the server, times with their spread."""

import gc
import os
import resource
import statistics
import time

LEASE = "SEQUENCE"  # the client renews its lease by the clock, whatever runs


class Requests:
    """Count this host's requests for one NFS mount; `counted` is False if `path` is not on one."""

    def __init__(self, path):
        path, points = (
            os.path.realpath(path),
            {line.split(" ")[4] for line in self._lines() if " with fstype nfs" in line},
        )
        above = [
            point for point in points if path == point or path.startswith(point.rstrip("/") + "/")
        ]
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

    def volume(self):
        """Return the bytes since the mount.

        Those of data that READ and WRITE moved, and all that was sent and received, with headers.
        """
        volume, ours, table = (
            dict.fromkeys(("read", "written", "sent", "received"), 0),
            False,
            False,
        )
        for line in self._lines():
            if line.startswith("device "):
                ours, table = line.split(" ")[4] == self.point, False
            elif ours and line.strip().startswith("bytes:"):
                volume["read"], volume["written"] = map(int, line.split()[5:7])
            elif ours and line.strip() == "per-op statistics":
                table = True
            elif ours and table and ":" in line:
                name, numbers = line.split(":")
                if name.strip() != LEASE:
                    sent, received = map(int, numbers.split()[3:5])
                    volume["sent"] += sent
                    volume["received"] += received
        return volume

    def settled(self):
        """Return `read()` once nothing is under way.

        The kernel sends some requests after the call.
        """
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
    """Median, quartiles and the smallest, in the samples' unit."""
    if len(samples) < 2:
        samples = samples * 2
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {
        "median": middle,
        "low": low,
        "high": high,
        "best": min(samples),
        "samples": len(samples),
    }


def run(operation, arguments, *, requests=None, batch=1, beside=None, check=None):
    """Measure `operation(argument)` for each argument.

    Seconds, page faults, requests, and the ratio to `beside`: of the smallest samples of both,
    because other work on this machine makes some longer, and none shorter.

    `batch`: so many operations a sample. `beside(argument)`: another operation, sampled in turn
    with the first, so that the ratio holds whatever else the machine does. `check(argument,
    result)` afterwards: "wrong", "missed" or None.
    """
    before = requests.settled() if requests else {}
    samples, others, faults, paged = [], [], [], 0
    gc.collect()
    gc.disable()
    try:
        for i in range(0, len(arguments), batch):
            some = arguments[i : i + batch]
            paged -= page_faults()
            seconds, results = _time(operation, some)
            paged += page_faults()
            samples.append(seconds / len(some))
            if check:
                faults += [
                    fault
                    for argument, result in zip(some, results, strict=False)
                    if (fault := check(argument, result))
                ]
            del results
            if beside:
                others.append(_time(beside, some)[0] / len(some))
    finally:
        gc.enable()
    figure = {
        "time": spread(samples),
        "operations": len(arguments),
        "page_faults": paged / len(arguments),
    }
    if others:
        figure["ratio"] = min(samples) / min(others)
    if requests and requests.counted:
        after = requests.settled()
        counts = {
            name: after[name] - before.get(name, 0)
            for name in after
            if after[name] != before.get(name, 0)
        }
        figure["requests"] = sum(counts.values()) / len(arguments)
        figure["by_operation"] = counts
    for fault in set(faults):
        figure[fault] = faults.count(fault)
    return figure


def merged(figures):
    """Figures of one operation each, as one figure."""
    found = {
        "time": spread([figure["time"]["median"] for figure in figures]),
        "operations": len(figures),
    }
    if "requests" in figures[0]:
        found["requests"] = sum(figure["requests"] for figure in figures) / len(figures)
        found["by_operation"] = {}
        for name, n in (
            (name, n) for figure in figures for name, n in figure["by_operation"].items()
        ):
            found["by_operation"][name] = found["by_operation"].get(name, 0) + n
    for fault in ("wrong", "missed"):
        if wrong := sum(figure.get(fault, 0) for figure in figures):
            found[fault] = wrong
    return found


def page_faults():
    """Return the pages that the kernel gave to this process up to now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident():
    """Return the bytes of memory that this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _time(operation, arguments):
    start = time.perf_counter()
    results = [operation(argument) for argument in arguments]
    return time.perf_counter() - start, results
