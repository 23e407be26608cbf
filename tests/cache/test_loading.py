"""A first use that cannot load a module, without descriptors or at shutdown, still computes."""

import os
import subprocess
import sys

import pytest

FULL = """
import asyncio, decimal, os, resource
from efsstate import Cache, cached
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

def fill():
    numbers = []
    try:
        while True:
            numbers.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return numbers

def empty(numbers):
    for number in numbers:
        os.close(number)
"""

PLAIN = """
f = cached(name="f")(lambda x, y=None: x + 1)
number = decimal.Decimal(1)
numbers = fill()
values = [int(f(number)), int(f.refresh(number)), f.map([number]) == [2], f.invalidate(number)]
values += [f(1), f(x=1), f.refresh(1), f.map([1, 2]), f.invalidate(1)]
try:
    values.append(f.peek(1))
except KeyError:
    values.append(f.explain(1)[-7:])
empty(numbers)
print(values, f(2), f(2), f.cache_info().hits)
"""

AWAITED = """
async def g(x):
    return x + 1

g = cached(name="g")(g)

async def main():
    numbers = fill()
    values = [int(await g(decimal.Decimal(1))), await g(1), await g.refresh(1)]
    empty(numbers)
    print(values, await g(2), await g(2))

asyncio.run(main())
"""

CACHE = """
cache = Cache("c")
numbers = fill()
values = [cache.get_or_compute("k", lambda: 2), cache.get("k"), cache.set("k", 1)]
empty(numbers)
print(values, cache.get_or_compute("k", lambda: 3))
"""

SHUTDOWN = """
import builtins, os
from efsstate import cached
f = cached(name="f")(lambda x: x + 1)

class Last:
    def __del__(self):
        try:
            os.write(1, f"{f(1)} {f.invalidate(1)}".encode())
        except BaseException as error:
            os.write(1, repr(error).encode())

builtins.last = Last()
"""

ENDING = """
import asyncio, os, threading
from efsstate import AsyncCache, cached

async def count(data):
    return len(data)

async def main():
    threading.main_thread().join()
    values = [await count(bytes(2**21)), await count(b"")]
    values += [await box.get("k"), await box.get_many([1])]
    os.write(1, repr(values).encode())

count = cached(name="count")(count)
box = AsyncCache("box")
threading.Thread(target=lambda: asyncio.run(main())).start()
"""

FORK = """
import os, signal, sys, threading, time
from importlib.machinery import PathFinder
from efsstate import cached

sleep = time.sleep

def note(seconds):
    waiting.set()
    sleep(seconds)

class Slow:
    # Not in here: while a finder looks, Python itself lets no other thread fork.
    def find_spec(self, name, path, target=None):
        if name != "efsstate.cache.looking":
            return None
        spec = PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            inside.set()
            while not waiting.is_set() and not forked.is_set():
                sleep(0.01)
            execute(module)

        spec.loader.exec_module = exec_module
        return spec

inside, waiting, forked = threading.Event(), threading.Event(), threading.Event()
sys.meta_path.insert(0, Slow())
f = cached(name="f")(lambda x: x)
f(1)
threading.Thread(target=f.explain, args=(2,)).start()
inside.wait()
time.sleep = note  # by which the fork waits
child = os.fork()
if not child:
    signal.alarm(10)
    os._exit(not f.explain(3).startswith("miss"))
forked.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (FULL + PLAIN, "[2, 2, True, False, 2, 2, 2, [2, 3], False, 'the log'] 3 3 1"),
        (FULL + AWAITED, "[2, 2, 2] 3 3"),
        (FULL + CACHE, "[2, None, None] 3"),
        (SHUTDOWN, "2 False"),
        (ENDING, "[2097152, 0, None, {}]"),
    ],
    ids=["plain", "awaited", "Cache", "shutdown", "ending"],
)
def test_what_cannot_be_loaded_costs_a_computation(code, output):
    assert run(code) == output


def test_a_child_of_a_fork_beside_an_import_can_import():
    """The import's lock would stay taken in the child, whose first use of the module would hang."""
    assert run(FORK) == "0"


def test_a_users_own_import_error_travels():
    code = """
from efsstate import cached

def fail(x):
    raise ImportError("the function's own")

for call in (cached(name="a")(fail), cached(name="b", key=fail)(abs)):
    try:
        call(1)
    except ImportError as error:
        print(error, error.__context__)
"""
    assert run(code) == "the function's own None\nthe function's own None"
    assert os.environ["EFSSTATE_ROOT"]
