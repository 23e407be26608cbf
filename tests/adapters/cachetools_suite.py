"""cachetools' own tests on our `Cache` and `cached`; the working directory is its source's.

`cachetools.cached` takes any mutable mapping, so one that stands on a `Cache` runs the tests that
its `dict` runs, and those of its caches that are about a mapping. `cached` runs those of its
`lru_cache`. What does not apply is left out, each with its reason.
"""

import itertools
import sys
import tempfile
import unittest
from collections.abc import MutableMapping

sys.path.insert(0, ".")
from tests import CacheTestMixin, test_cached, test_func

import efsstate

ROOT = tempfile.mkdtemp(dir=sys.argv[1])
_names = (f"suite-{number}" for number in itertools.count())
_nothing = object()

EVICTION = "a limit is kept by trimming, at most once a minute, and not at the very next set"
SIZES = "sizes are bytes on the mount; there is no getsizeof"
SHARED = "it is one map for all hosts: a copy is the same map, and another process names it again"
FOLDER = "its order is that of a folder, not of the sets"
NUMBERS = "1 and 1.0 are two keys, because their results may differ"
CLASSES = "a key that has a class in it counts, but `keys` cannot give it back"
ARGUMENTS = "instances of a class without a stable form are refused, never known by their hash"
LEFT_OUT = {
    "CacheTests": {
        "defaults": SIZES,
        "maxsize_negative": EVICTION,
        "maxsize_zero": EVICTION,
        "insert": EVICTION,
        "clear": EVICTION,
        "missing": EVICTION,
        "missing_getsizeof": SIZES,
        "getsizeof_param": SIZES,
        "getsizeof_replace_grow": SIZES,
        "getsizeof_replace_same_size": SIZES,
        "getsizeof_replace_shrink": SIZES,
        "getsizeof_negative": SIZES,
        "getsizeof_subclass": SIZES,
        "clear_getsizeof": SIZES,
        "copy": SHARED,
        "copy_attributes": SHARED,
        "copy_getsizeof": SHARED,
        "copy_maxsize": SHARED,
        "deepcopy": SHARED,
        "deepcopy_maxsize": SHARED,
        "pickle": SHARED,
        "pickle_maxsize": SHARED,
        "iter_update": FOLDER,
    },
    "CachedTests": {"decorator": NUMBERS, "decorator_typed": CLASSES},
    "FuncTests": {
        "decorator": NUMBERS,
        "decorator_user_function": NUMBERS,
        "decorator_unbound": NUMBERS,
        "decorator_nocache": EVICTION,
        "decorator_needs_rlock": ARGUMENTS,
        "decorator_method": ARGUMENTS,
    },
}


class Shared(MutableMapping):
    """A mutable mapping on a `Cache`, as `cachetools.cached` takes it."""

    def __init__(self, maxsize=None):
        self.maxsize = maxsize
        self.shared = efsstate.Cache(next(_names), root=ROOT)

    def __getitem__(self, key):
        value = self.shared.get(key, _nothing)
        if value is _nothing:
            raise KeyError(key)
        return value

    def __setitem__(self, key, value):
        self.shared.set(key, value)

    def __delitem__(self, key):
        if not self.shared.delete(key):
            raise KeyError(key)

    def __contains__(self, key):
        return key in self.shared

    def __iter__(self):
        return self.shared.keys()

    def __len__(self):
        return len(list(iter(self)))

    def clear(self):
        self.shared.clear()

    @property
    def currsize(self):
        return len(self)


class CacheTests(unittest.TestCase, CacheTestMixin):
    Cache = Shared


class CachedTests(unittest.TestCase, test_cached.DecoratorTestMixin):
    """Its decorator on our mapping."""

    def cache(self, minsize):
        return Shared(minsize)


class FuncTests(unittest.TestCase, test_func.DecoratorTestMixin):
    """Our decorator in the place of its `lru_cache`."""

    @staticmethod
    def DECORATOR(maxsize=128, typed=False):  # noqa: N802 - their name
        if callable(maxsize):
            return FuncTests.DECORATOR()(maxsize)

        def decorate(function):
            options = {"name": next(_names), "root": ROOT, "max_entries": maxsize or None}
            cached = efsstate.cached(**options)(function)
            counters = cached.cache_info

            def cache_info():
                info, kept = counters(), sum(is_kept(cached, value) for value in (1, 1.0))
                return info.hits, info.misses, maxsize, kept

            cached.cache_info = cache_info
            cached.cache_parameters = lambda: {"maxsize": maxsize, "typed": typed}
            return cached

        return decorate


def is_kept(cached, argument):
    try:
        cached.peek(argument)
    except KeyError:
        return False
    return True


if __name__ == "__main__":
    for suite, tests in LEFT_OUT.items():
        for test in tests:
            setattr(globals()[suite], f"test_{test}", None)
    unittest.main(argv=["suite"], verbosity=1)
