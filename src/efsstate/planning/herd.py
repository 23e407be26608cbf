"""Simulate a herd of cold starts: environments that start at once and each read the same model.

All readers share the file system's throughput equally, and none is faster than its own network. So
every reader has received the same number of bytes since it started, and they finish in the order in
which they began: it is enough to follow one number, the bytes that a reader has had since the
beginning.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

MOST = 100_000  # readers; a simulation of them takes a second or two


class Herd(NamedTuple):
    """When the readers have their model: seconds after their own start.

    `last` is when the last one has it, after the first start; `late` how many need longer than
    their timeout; `slowest` bytes a second of the slowest reader.
    """

    first: float
    median: float
    last: float
    late: int
    slowest: float


def simulate(
    count: int,
    size: float,
    *,
    throughput: float,
    network: float,
    starts: float,
    timeout: float,
    balance: float = 0.0,
    burst: float = 0.0,
    baseline: float = 0.0,
) -> Herd:
    """Return when `count` environments have read `size` bytes each.

    `throughput` is the bytes a second that all readers share; `network` an environment's own;
    `starts` environments begin each second. With `burst` (bytes a second that readers see while
    there is a `balance` of credits, metered bytes), `throughput` holds once that is gone;
    `baseline` is the rate at which credits come back, as metered. Raise ValueError for over
    100,000 environments.
    """
    if count > MOST:
        most = f"at most {MOST:,} environments that start at once can be simulated"
        raise ValueError(f"environments, herd: {count:,}: {most}")
    if count <= 0 or size <= 0:
        return Herd(0.0, 0.0, 0.0, 0, network)
    now, had = 0.0, 0.0  # `had`: bytes that a reader has received since time 0
    readers: deque[tuple[float, float]] = deque()  # (start, `had` at which it is done)
    begun, last = 0, 0.0
    times: list[float] = []
    while len(times) < count:
        shared = burst if balance > 0 and burst > throughput else throughput
        rate = min(network, shared / len(readers)) if readers else 0.0
        until_start = begun / starts - now if begun < count else float("inf")
        until_done = (readers[0][1] - had) / rate if readers else float("inf")
        until_dry = float("inf")
        drain = rate * len(readers) / 3 - baseline
        if balance > 0 and burst > throughput and drain > 0:
            until_dry = balance / drain
        step = max(0.0, min(until_start, until_done, until_dry))
        now, had = now + step, had + rate * step
        balance = 0.0 if step == until_dry else max(0.0, balance - drain * step)
        if step == until_start:
            readers.append((now, had + size))
            begun += 1
        while readers and readers[0][1] - had <= 1e-6 * size:
            start, _ = readers.popleft()
            times.append(now - start)
            last = now
    times.sort()
    late = sum(seconds > timeout for seconds in times)
    return Herd(times[0], times[len(times) // 2], last, late, size / times[-1])
