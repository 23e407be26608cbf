"""The caches that are measured: bare system calls as the floor, ours, and the peers."""

import os

from benchmarks.kinds import SIZE, Floor, Function, Store, value
from benchmarks.peers import PEERS

__all__ = ["ALL", "BY_NAME", "OURS", "PEERS", "SIZE", "Floor", "Function", "Store", "value"]


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

    def add_one(self):
        self.cache.incr("total")

    def total(self):
        return self.cache.get("total", fresh=True)

    def miss(self, key):
        return self.cache.get_or_compute(key, lambda: self.work(key))


OURS = [Cached, OurCache]
ALL = [Floor, *OURS, *PEERS]
BY_NAME = {subject.__name__: subject for subject in ALL}
