"""A root with a cache in it, made by the store as the cache makes it, with ages of one's choice."""

import hashlib
import os
import time

import msgpack
import pytest

from efsstate import sweep
from efsstate.format import layout
from efsstate.mount import links
from efsstate.mount import root as roots
from efsstate.mount.root import resolve

HOUR, DAY = 3600.0, 86400.0


class Tree:
    """`path` is the root; `entry` makes one of the given age (seconds) and time of last use."""

    def __init__(self, path):
        self.path = str(path)
        self.mount = resolve(self.path)

    def policy(self, namespace, **told):
        body = {
            "name": namespace,
            "shortest": 0.0,
            "longest": None,
            "max_bytes": None,
            "max_entries": None,
        } | told
        self.mount.write_entry(
            f"cache/{namespace}", layout.POLICY, msgpack.packb(body), codec="msgpack"
        )

    def entry(self, namespace, key, *, age=0.0, ttl=None, unused=None, size=100):
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:48]
        folder = layout.entry_folder(namespace, digest)
        self.mount.replace(
            folder,
            digest,
            lambda created: self._bytes(f"{folder}/{digest}", created - age, ttl, size),
        )
        return self.age(f"{folder}/{digest}", age, unused)

    def _bytes(self, place, created, ttl, size):
        from efsstate.format import entry

        return entry.encode(
            b"x" * size, place=place, codec="msgpack", created=created, ttl=ttl, key=self.mount.key
        )

    def cleared(self, namespace, *, age=0.0):
        folder = f"{layout.CACHE}/{namespace}"
        name = links.mark(self.mount, folder, layout.cleared_mark(1000))
        self.mount.symlink(folder, name, "cleared")
        return self.age(f"{folder}/{name}", age)

    def file(self, name, *, age=0.0, body=b"?"):
        path = self.full(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(body)
        return self.age(name, age)

    def age(self, name, age, unused=None):
        now = time.time()
        os.utime(
            self.full(name),
            (now - (age if unused is None else unused), now - age),
            follow_symlinks=False,
        )
        return name

    def full(self, name):
        return f"{self.path}/{name}"

    def there(self, *names):
        return [name for name in names if os.path.lexists(self.full(name))]

    def entries(self, namespace):
        return sum(
            layout.is_digest(name)
            for _, _, names in os.walk(self.full(f"cache/{namespace}"))
            for name in names
        )

    def sweep(self, **options):
        return sweep(root=self.path, **options)


@pytest.fixture(autouse=True)
def closed():
    """Close the folders that the roots of a test hold open: a suite has more than a function."""
    yield
    roots._known.clear()


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)
