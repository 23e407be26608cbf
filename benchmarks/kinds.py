"""The kinds of caches that are measured: a decorator, a store, and bare system calls.

Each has `put`, `hit` and `miss`. Some count: `add_one` and `total`.
"""

import fcntl
import functools
import hashlib
import os

SIZE = 1024


@functools.cache
def value(key):
    """What the cached function returns for `key`: 1 KiB that no compressor shrinks."""
    return hashlib.shake_128(key.encode()).digest(SIZE)


class Subject:
    """One cache in one folder; a new object is a new environment. `computed` counts its misses."""

    name = package = ""
    claims = False  # whether it promises one computation a key
    add_one = total = None  # for those that count: raise a number by one, and read it

    def __init__(self, folder):
        self.folder, self.computed = folder, 0
        self.open()

    def work(self, key):
        self.computed += 1
        return value(key)

    def close(self):
        """Release what two environments of one process could not hold at once, such as locks."""


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
