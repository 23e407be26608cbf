"""The cache rows.

First hits of a fresh environment, hits of another client's entries, puts, misses.
"""

from benchmarks import measure, subjects
from benchmarks.subjects import Floor, value

FRESH, WARM = 256, 64


def checked(key, found):
    """A figure's fault, if the subject did not give back what was stored."""
    return None if found == value(key) else "missed" if found is None else "wrong"


def hits(subject, a, b, requests, *, count=WARM):
    """Measure the first 256 different hits of an environment on b that has just started.

    Then `count` more.

    Client a put all of them.
    """
    writer = subject(a)
    keys = [f"key-{i}" for i in range(FRESH + count)]
    for key in keys:
        writer.put(key)
    opened = requests.settled()
    reader = subject(b)
    found = measure.run(reader.hit, keys[:FRESH], requests=requests, check=checked)
    if requests.counted:  # what opening it costs is part of a fresh environment's price
        found["requests"] = (sum(requests.settled().values()) - sum(opened.values())) / FRESH
    yield {"row": "first", **found, "recomputed": reader.computed}
    before = reader.computed
    found = measure.run(reader.hit, keys[FRESH:], requests=requests, check=checked)
    yield {"row": "hit", **found, "recomputed": reader.computed - before}


def writes(subject, a, requests, *, count=WARM):
    """Measure `put` of new keys, and `miss`: look, claim, compute, put, release.

    The folders exist and are known.
    """
    writer = subject(a)
    for i in range(FRESH // 2):
        writer.put(f"warm-{i}")
    writer.miss("warm")
    if not isinstance(writer, subjects.Function):
        yield {
            "row": "put",
            **measure.run(writer.put, [f"put-{i}" for i in range(count)], requests=requests),
        }
    yield {
        "row": "miss",
        **measure.run(
            writer.miss, [f"miss-{i}" for i in range(count)], requests=requests, check=checked
        ),
    }


def local(subject, folder, *, rounds=200):
    """Measure on a file system in memory, where the code itself counts.

    Beside the bare system calls.
    """
    ours, floor = subject(f"{folder}/subject"), Floor(f"{folder}/floor")
    keys = [f"key-{i}" for i in range(100)]
    for key in [*keys, *(f"{kind}-{i}" for kind in ("put", "miss") for i in range(rounds))]:
        value(key)  # made before the clock starts
    for key in keys:
        ours.put(key)
        floor.put(key)
        ours.hit(key)
    before = ours.computed
    found = measure.run(ours.hit, keys * (rounds // 10), batch=10, beside=floor.hit, check=checked)
    yield {"row": "hit", **found, "recomputed": ours.computed - before}
    if not isinstance(ours, subjects.Function):
        yield {
            "row": "put",
            **measure.run(ours.put, [f"put-{i}" for i in range(rounds)], batch=4, beside=floor.put),
        }
    ours.miss("warm"), floor.miss("warm")
    yield {
        "row": "miss",
        **measure.run(ours.miss, [f"miss-{i}" for i in range(rounds)], batch=4, beside=floor.miss),
    }
