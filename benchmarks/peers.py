"""The peers, old and of today, in the form that a careful user of each would write.

A peer that is not installed fails at its turn, and the table says so.
"""

import importlib
import os
import pickle
from typing import ClassVar

from benchmarks.kinds import Function, Store, value


class Recipe(Store):
    """What a careful user writes by hand: read; else lock, look again, compute, and os.replace."""

    name, package, claims = "`filelock` + pickle + `os.replace`", "filelock", True

    def open(self):
        from filelock import FileLock

        self.lock = FileLock
        os.makedirs(self.folder, exist_ok=True)

    def get(self, key):
        try:
            with open(f"{self.folder}/{key}", "rb") as file:
                return pickle.load(file)
        except FileNotFoundError:
            return None

    def put(self, key, data=None):
        path = f"{self.folder}/{key}"
        with open(f"{path}.{os.getpid()}", "wb") as file:
            pickle.dump(data or value(key), file)
        os.replace(f"{path}.{os.getpid()}", path)

    def add_one(self):
        with self.lock(f"{self.folder}/total.lock"):
            self.put("total", (self.get("total") or 0) + 1)

    def total(self):
        return self.get("total")

    def miss(self, key):
        found = self.get(key)
        if found is None:
            with self.lock(f"{self.folder}/{key}.lock"):
                found = super().miss(key)
        return found


class Joblib(Function):
    name, package = "joblib `Memory`", "joblib"

    def decorate(self, work):
        from joblib import Memory

        return Memory(self.folder, verbose=0).cache(work)


class DiskcacheMemoize(Function):
    name, package = "diskcache `memoize`", "diskcache"

    def decorate(self, work):
        from diskcache import Cache

        return Cache(self.folder).memoize(name="bench")(work)


class DiskcacheCache(Store):
    name, package = "diskcache `Cache`", "diskcache"
    module = "diskcache"

    def open(self):
        self.cache = importlib.import_module(self.module).Cache(self.folder)
        self.get = self.cache.get

    def put(self, key, data=None):
        self.cache.set(key, data or value(key))

    def add_one(self):
        self.cache.incr("total", default=0)

    def total(self):
        return self.get("total")


class Cachelib(Store):
    name, package = "cachelib `FileSystemCache`", "cachelib"

    def open(self):
        from cachelib import FileSystemCache

        self.cache = FileSystemCache(self.folder, threshold=0, default_timeout=0)
        self.get = self.cache.get

    def put(self, key, data=None):
        self.cache.set(key, data or value(key))

    def add_one(self):
        self.cache.inc("total")

    def total(self):
        return self.get("total")


class Django(Store):
    name, package = "Django file cache", "django"

    def open(self):
        from django.conf import settings
        from django.core.cache.backends.filebased import FileBasedCache

        if not settings.configured:
            settings.configure()
        self.cache = FileBasedCache(
            self.folder, {"TIMEOUT": None, "OPTIONS": {"MAX_ENTRIES": 10**6}}
        )
        self.get = self.cache.get

    def put(self, key, data=None):
        self.cache.set(key, data or value(key))


class Dogpile(Function):
    name, package, claims = "dogpile.cache dbm", "dogpile.cache", True

    def decorate(self, work):
        from dogpile.cache import make_region

        os.makedirs(self.folder, exist_ok=True)
        region = make_region().configure(
            "dogpile.cache.dbm", arguments={"filename": f"{self.folder}/bench.dbm"}
        )
        return region.cache_on_arguments()(work)


class SciqlopMemoize(Function):
    name, package = "pysciqlop-cache `memoize`", "pysciqlop-cache"

    def decorate(self, work):
        from pysciqlop_cache import Cache

        return Cache(self.folder).memoize()(work)


class SciqlopCache(DiskcacheCache):
    name, package = "pysciqlop-cache `Cache`", "pysciqlop-cache"
    module = "pysciqlop_cache"


class DiskcacheRs(Store):
    """Its `set` returns False where it failed, so that is no acknowledgement."""

    name, package, locking = "diskcache-rs `Cache`", "diskcache-rs", False

    def open(self):
        from diskcache_rs import Cache

        self.cache = Cache(self.folder, use_file_locking=self.locking)
        self.get = self.cache.get

    def put(self, key, data=None):
        if not self.cache.set(key, data or value(key)):
            raise OSError("set returned False")

    def add_one(self):
        self.cache.incr("total", default=0)

    def total(self):
        return self.get("total")


class DiskcacheRsNfs(DiskcacheRs):
    """Its own advice for network file systems."""

    name, locking = "diskcache-rs `Cache(use_file_locking=True)`", True


class Cachau(Function):
    """cachau digests captured variables: this function captures none, and asks the last subject."""

    name, package, claims = 'cachau `cache(coalesce="processes")`', "cachau", True
    last = None

    def decorate(self, work):
        from cachau import cache

        def ask(*arguments):
            return Cachau.last(*arguments)

        Cachau.last = staticmethod(work)
        os.makedirs(self.folder, exist_ok=True)
        return cache(persist=self.folder, namespace="bench", coalesce="processes")(ask)


class Lmdb(Store):
    """What a user writes by hand: one environment a process and folder, a transaction each."""

    name, package = "lmdb by hand", "lmdb"
    environments: ClassVar = {}

    def open(self):
        import lmdb

        place = os.getpid(), self.folder
        if place not in self.environments:
            os.makedirs(self.folder, exist_ok=True)
            self.environments[place] = lmdb.open(self.folder, map_size=1 << 28)
        self.env = self.environments[place]

    def close(self):
        self.environments.pop((os.getpid(), self.folder)).close()

    def get(self, key):
        with self.env.begin(buffers=False) as transaction:
            return transaction.get(key.encode())

    def put(self, key, data=None):
        with self.env.begin(write=True) as transaction:
            transaction.put(key.encode(), data or value(key))

    def add_one(self):
        with self.env.begin(write=True) as transaction:
            total = int(transaction.get(b"total", b"0")) + 1
            transaction.put(b"total", b"%d" % total)

    def total(self):
        return int(self.get("total") or 0)


PEERS = [
    Recipe,
    Joblib,
    DiskcacheMemoize,
    DiskcacheCache,
    Cachelib,
    Django,
    Dogpile,
    SciqlopMemoize,
    SciqlopCache,
    DiskcacheRs,
    DiskcacheRsNfs,
    Cachau,
    Lmdb,
]
