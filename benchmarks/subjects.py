"""The caches that are measured: ours, bare system calls as the floor, and the peers.

Each has `put`, `hit` and `miss`.
"""

import fcntl
import functools
import hashlib
import importlib.metadata
import os
import pickle

SIZE = 1024


@functools.cache
def value(key):
    """What the cached function returns for `key`: 1 KiB that no compressor shrinks."""
    return hashlib.shake_128(key.encode()).digest(SIZE)


class Subject:
    """One cache in one folder; a new object is a new environment. `computed` counts its misses."""

    name = package = ""
    claims = False  # whether it promises one computation a key

    def __init__(self, folder):
        self.folder, self.computed = folder, 0
        self.open()

    def work(self, key):
        self.computed += 1
        return value(key)

    @classmethod
    def version(cls):
        return importlib.metadata.version(cls.package) if cls.package else ""


class Function(Subject):
    """A decorator: `self.call` is the decorated function, and storing is calling."""

    def open(self):
        def work(key):
            return self.work(key)

        self.call = self.decorate(work)

    def hit(self, key):
        return self.call(key)

    put = miss = hit


class Store(Subject):
    """A store with `get` (None: absent) and `put`.

    A miss is a look, the work and a put, unclaimed.
    """

    def hit(self, key):
        return self.get(key)

    def miss(self, key):
        found = self.get(key)
        if found is None:
            self.put(key, found := self.work(key))
        return found


class Floor(Store):
    """The bare system calls for the same bytes, in one folder; a claim is an flock.

    Open, read, close; create, write, close, rename.
    """

    name, claims = "bare system calls", True

    def open(self):
        os.makedirs(self.folder, exist_ok=True)
        self.fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)

    def get(self, key):
        try:
            fd = os.open(key, os.O_RDONLY, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        data = os.read(fd, 65536)
        os.close(fd)
        return data

    def put(self, key, data=None):
        fd = os.open(key + ".tmp", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600, dir_fd=self.fd)
        os.write(fd, data or value(key))
        os.close(fd)
        os.rename(key + ".tmp", key, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def miss(self, key):
        found = self.get(key)
        if found is None:
            lock = os.open(key + ".lock", os.O_CREAT | os.O_RDWR, 0o600, dir_fd=self.fd)
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.put(key, found := self.work(key))
            os.close(lock)
        return found


class Cached(Function):
    name, package, claims = "efsstate `cached`", "efsstate", True

    def decorate(self, work):
        from efsstate import cached

        os.makedirs(self.folder, exist_ok=True)
        return cached(name="bench", root=self.folder, memory=0)(work)


class OurCache(Store):
    name, package, claims = "efsstate `Cache`", "efsstate", True

    def open(self):
        from efsstate import Cache

        os.makedirs(self.folder, exist_ok=True)
        self.cache = Cache("bench", root=self.folder, memory=0)
        self.get = self.cache.get

    def put(self, key, data=None):
        self.cache.set(key, data or value(key))

    def miss(self, key):
        return self.cache.get_or_compute(key, lambda: self.work(key))


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

    def open(self):
        from diskcache import Cache

        self.cache = Cache(self.folder)
        self.get = self.cache.get

    def put(self, key, data=None):
        self.cache.set(key, data or value(key))


class Cachelib(Store):
    name, package = "cachelib `FileSystemCache`", "cachelib"

    def open(self):
        from cachelib import FileSystemCache

        self.cache = FileSystemCache(self.folder, threshold=0, default_timeout=0)
        self.get = self.cache.get

    def put(self, key, data=None):
        self.cache.set(key, data or value(key))


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


OURS = [Cached, OurCache]
PEERS = [Recipe, Joblib, DiskcacheMemoize, DiskcacheCache, Cachelib, Django, Dogpile]
ALL = [Floor, *OURS, *PEERS]
BY_NAME = {subject.__name__: subject for subject in ALL}
