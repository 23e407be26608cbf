"""A large result: an array of 100 MB, read back by each way to keep one; and files of middle size.

Each is read in a process of its own. The smallest time of each counts, and the ratios are of those:

    python -m benchmarks --only large --root /dev/shm
"""

import os
import pickle
import time

from benchmarks import measure, models, processes, ways
from benchmarks.kinds import Floor

SIZE = 100_000_000  # bytes
SIZES = (256 << 10, 1 << 20, 4 << 20)
BASE = "`np.load`"


def array(size=SIZE):
    """Return an array of so many bytes, the same ones in each process."""
    import numpy as np

    return np.random.default_rng(7).integers(0, 1 << 62, size // 8)


class Cached:
    """The decorator, without the memory tier."""

    name = "efsstate `cached`"

    def __init__(self, folder):
        from efsstate import cached

        self.call = cached(name="large", root=folder, memory=0)(array)

    def put(self):
        self.call()

    def get(self):
        return self.call()


class NpLoad:
    name = BASE

    def __init__(self, folder):
        self.path = f"{folder}/array.npy"

    def put(self):
        import numpy as np

        np.save(self.path, array())

    def get(self):
        import numpy as np

        return np.load(self.path)


class ByHand(NpLoad):
    """The file of `np.save` in one long range into one buffer: all that the link gives."""

    name = "`preadv` by hand"

    def get(self):
        import numpy as np

        return np.frombuffer(ways.by_hand(1, 128 << 20)(self.path).kept, "u1")


class Pickle:
    name = "pickle"

    def __init__(self, folder):
        self.path = f"{folder}/array.pickle"

    def put(self):
        with open(self.path, "wb") as file:
            pickle.dump(array(), file, protocol=5)

    def get(self):
        with open(self.path, "rb") as file:
            return pickle.load(file)


class Joblib:
    name = "joblib `Memory`"

    def __init__(self, folder):
        from joblib import Memory

        self.call = Memory(folder, verbose=0).cache(array)

    def put(self):
        self.call()

    def get(self):
        return self.call()


class Diskcache:
    name = "diskcache `Cache`"

    def __init__(self, folder):
        from diskcache import Cache

        self.cache = Cache(f"{folder}/diskcache")

    def put(self):
        self.cache.set("array", array())

    def get(self):
        return self.cache.get("array")


class Sciqlop:
    """Its own advice for arrays: they are mapped, so no byte is read before it is used."""

    name = "pysciqlop-cache, `PickleOOBSerializer`"

    def __init__(self, folder):
        from pysciqlop_cache import Cache, PickleOOBSerializer

        self.cache = Cache(f"{folder}/sciqlop", serializer=PickleOOBSerializer())

    def put(self):
        self.cache.set("array", array())

    def get(self):
        return self.cache.get("array")


class DiskcacheRs:
    name = "diskcache-rs `Cache`"

    def __init__(self, folder):
        from diskcache_rs import Cache

        self.cache = Cache(f"{folder}/rs")

    def put(self):
        self.cache.set("array", array())

    def get(self):
        return self.cache.get("array")


class Cachau:
    name = "cachau `cache`"

    def __init__(self, folder):
        from cachau import cache

        self.call = cache(persist=f"{folder}/cachau", namespace="large")(array)

    def put(self):
        self.call()

    def get(self):
        return self.call()


WAYS = [NpLoad, Cached, Pickle, Joblib, Diskcache, Sciqlop, DiskcacheRs, Cachau]
TAKING_PART = ("numpy", "joblib", "diskcache", "pysciqlop_cache", "diskcache_rs", "cachau")


def _put(way, folder):
    os.makedirs(folder, exist_ok=True)
    way(folder).put()
    yield {}


def _get(way, folder):
    """Yield one read: when it returned, when every page was touched, and what it cost."""
    one = way(folder)
    before, memory = measure.page_faults(), measure.resident()
    start = time.perf_counter()
    got = one.get()
    returned = time.perf_counter() - start
    total = int(got.view("u1")[-SIZE::4096].sum())
    touched = time.perf_counter() - start
    yield {
        "seconds": returned,
        "touched": touched,
        "page_faults": measure.page_faults() - before,
        "memory": measure.resident() - memory,
        "total": total,
        "writable": bool(got.flags.writeable),
    }


def arrays(places, *, rounds, some):
    """Yield each way's figure: put by client a, read by client b in `rounds` rounds, in turn."""
    models.import_all(TAKING_PART)
    right = int(array().view("u1")[::4096].sum())
    folders, samples, failed = {}, {}, {}
    for way in some:
        folders[way] = places.new()
        last = processes.isolated(_put, way, folders[way][0], timeout=models.LONGEST)[-1]
        if "failed" in last:
            failed[way] = last["failed"]
    for _ in range(rounds):
        for way in some:
            if way not in failed:
                if places.name == "nfs":
                    models.cold(folders[way][1])
                last = processes.isolated(_get, way, folders[way][1], timeout=models.LONGEST)[-1]
                if "failed" in last or last["total"] != right:
                    failed[way] = last.get("failed", "other bytes than were stored")
                samples.setdefault(way, []).append(last)
    base = min((s["touched"] for s in samples.get(NpLoad, ())), default=None)
    for way in some:
        if way in failed:
            yield {"row": "large", "subject": way.name, "failed": failed[way]}
            continue
        best = min(s["touched"] for s in samples[way])
        yield {
            "row": "large",
            "subject": way.name,
            "size": SIZE,
            "time": measure.spread([s["touched"] for s in samples[way]]),
            "seconds": best,
            "returned": min(s["seconds"] for s in samples[way]),
            "ratio": best / base if base else None,
            "page_faults": min(s["page_faults"] for s in samples[way]),
            "memory": max(s["memory"] for s in samples[way]),
            "writable": samples[way][0]["writable"],
        }


def _first_hits(size, a, b, requests):
    """Yield the requests of a client's first hit of one entry, ours and the bare calls'."""
    from efsstate import Cache

    data = os.urandom(size)
    floor = Floor(f"{a}/floor")
    floor.put("entry", data)
    os.makedirs(f"{a}/ours")
    writer = Cache("large", root=f"{a}/ours", memory=0)
    known = [f"small-{number}" for number in range(64)]
    for key in known:
        writer.set(key, b"small")
    writer.set("entry", data)
    fd = os.open(f"{b}/floor", os.O_RDONLY | os.O_DIRECTORY)

    def bare(_):
        one = os.open("entry", os.O_RDONLY, dir_fd=fd)
        read = os.read(one, size)
        os.close(one)
        return read

    reader = Cache("large", root=f"{b}/ours", memory=0)
    for key in known:  # so this client knows each of the cache's folders
        reader.get(key)
    check = lambda _, got: None if got == data else "wrong"  # noqa: E731
    for name, get in (
        ("bare system calls, one read", bare),
        ("efsstate `Cache`", lambda _: reader.get("entry")),
    ):
        figure = measure.run(get, [None], requests=requests, check=check)
        yield {"row": "middle", "subject": name, "size": size, **figure}


def middle(places):
    """Yield the first hits of files of middle size, in folders that the client knows."""
    for size in SIZES:
        a, b = places.new()
        os.makedirs(a)
        yield from processes.isolated(_first_hits, size, a, b, places.requests["b"])


def rows(places):
    """Every row on `places`: arrays everywhere, and first hits of files of middle size on NFS."""
    nfs = places.name == "nfs"
    some = [way for way in WAYS if way is NpLoad or places.takes(way.name)]
    if nfs:  # over the slow link, fewer of the peers: each read takes seconds there
        yield from middle(places)
        some = [ByHand, *[way for way in some if way in (NpLoad, Cached, Pickle, Joblib)]]
    yield from arrays(places, rounds=3 if nfs else 7, some=some)
