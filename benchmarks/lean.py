"""Hits in a lean process, as a function's is: bare Python that imported nothing but the cache.

What another import did to the memory allocator would hide what a hit asks of it. So page faults and
the allocator's calls are counted here, beside the time.
"""

import ast
import os
import shutil
import subprocess
import sys

from benchmarks import measure, processes

COUNT = 100  # entries
ROUNDS = 40  # of all entries
# Each defines `hit(key)`, and `put(key)` unless a hit puts what it does not find.
CODE = {
    "bare system calls": "hit, put = bare, put_bare",
    "efsstate `cached`": """
from efsstate import cached
@cached(name="bench", root=folder, memory=0)
def hit(key):
    return value(key)
""",
    "efsstate `Cache`": """
from efsstate import Cache
cache = Cache("bench", root=folder, memory=0)
hit, put = cache.get, lambda key: cache.set(key, value(key))
""",
    "joblib `Memory`": """
from joblib import Memory
def work(key):
    return value(key)
hit = Memory(folder, verbose=0).cache(work)
""",
    "diskcache `memoize`": """
from diskcache import Cache
@Cache(folder).memoize(name="bench")
def hit(key):
    return value(key)
""",
    "cachelib `FileSystemCache`": """
from cachelib import FileSystemCache
cache = FileSystemCache(folder, threshold=0, default_timeout=0)
hit, put = cache.get, lambda key: cache.set(key, value(key))
""",
    "pysciqlop-cache `memoize`": """
from pysciqlop_cache import Cache
@Cache(folder).memoize()
def hit(key):
    return value(key)
""",
    "pysciqlop-cache `Cache`": """
from pysciqlop_cache import Cache
cache = Cache(folder)
hit, put = cache.get, lambda key: cache.set(key, value(key))
""",
    "diskcache-rs `Cache`": """
from diskcache_rs import Cache
cache = Cache(folder)
hit, put = cache.get, lambda key: cache.set(key, value(key))
""",
    "diskcache-rs `Cache(use_file_locking=True)`": """
from diskcache_rs import Cache
cache = Cache(folder, use_file_locking=True)
hit, put = cache.get, lambda key: cache.set(key, value(key))
""",
    'cachau `cache(coalesce="processes")`': """
from cachau import cache
@cache(persist=folder, namespace="bench", coalesce="processes")
def hit(key):
    return value(key)
""",
    "lmdb by hand": """
import lmdb
env = lmdb.open(folder, map_size=1 << 28)
def hit(key):
    with env.begin() as transaction:
        return transaction.get(key.encode())
def put(key):
    with env.begin(write=True) as transaction:
        transaction.put(key.encode(), value(key))
""",
}
_BEGIN = """
import sys
sys.path[:] = {path!r}
mode, folder = sys.argv[1:]
computed = []
def value(key):
    computed.append(key)
    return (key.encode() * 1024)[:1024]
import os
os.makedirs(folder, exist_ok=True)
place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
def bare(key):
    fd = os.open("bare-" + key, os.O_RDONLY, dir_fd=place)
    data = os.read(fd, 65536)
    os.close(fd)
    return data
def put_bare(key):
    fd = os.open("bare-" + key, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=place)
    os.write(fd, value(key))
    os.close(fd)
put = None
before = len(sys.modules)
"""
_END = """
modules = len(sys.modules) - before
keys = ["key-%d" % number for number in range({count})]
if mode == "write":
    for key in keys:
        put_bare(key), (put or hit)(key)
else:
    expected = dict((key, value(key)) for key in keys)
    del computed[:]
    for _ in range(3):
        for key in keys:
            assert hit(key) == expected[key] == bare(key), key
    if mode == "trace":
        def mark(name):
            try:
                os.stat("/benchmark-mark/" + name)
            except OSError:
                pass
        mark("begin-hit")
        for key in keys:
            hit(key)
        mark("end-hit")
    else:
        import time, resource
        faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds, others, paged = [], [], 0
        some = [keys[at : at + 10] for at in range(0, len(keys), 10)]
        for keys in some * {rounds}:
            paged -= faults()
            start = time.perf_counter()
            for key in keys:
                hit(key)
            middle = time.perf_counter()
            paged += faults()
            for key in keys:
                bare(key)
            end = time.perf_counter()
            seconds.append((middle - start) / 10)
            others.append((end - middle) / 10)
        print([modules, paged / (10 * len(seconds)), seconds, others])
    assert not computed, "computed again: " + computed[0]
"""


def program(name, rounds=ROUNDS):
    """Return the Python code that writes, reads or traces one subject's entries."""
    begin = _BEGIN.format(path=[os.path.abspath(path) for path in sys.path if path])
    return begin + CODE[name] + _END.format(count=COUNT, rounds=rounds)


def one(name, folder, *, rounds=ROUNDS):
    """Yield a subject's figure: entries written by one lean process, and hit by two more."""
    os.makedirs(folder)
    script = f"{folder}/program.py"
    with open(script, "w") as file:
        file.write(program(name, rounds))
    # -I and -S: no site, no .pth files; the path is given, as a function's package has it.
    command = [sys.executable, "-I", "-S", script]

    def run(mode):
        done = subprocess.run(
            [*command, mode, f"{folder}/data"], capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return done.stdout

    run("write")
    modules, paged, seconds, others = ast.literal_eval(run("read"))
    figure = {
        "row": "lean",
        "time": measure.spread(seconds),
        "operations": 10 * len(seconds),
        "ratio": min(seconds) / min(others),
        "page_faults": paged,
        "modules": modules,
    }
    if shutil.which("strace"):
        calls = processes.traced([*command, "trace", f"{folder}/data"])["hit"]
        figure["calls"] = sum(processes.own(calls).values()) / COUNT
        figure["allocator"] = processes.of_allocator(calls) / COUNT
    yield figure
