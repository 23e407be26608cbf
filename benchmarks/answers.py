"""The hard answers of each cache.

Cold callers of one key, a flipped bit, arguments that look alike.
"""

import contextlib
import os
import random
import signal
import time

from benchmarks import subjects
from benchmarks.processes import fork, reason
from benchmarks.subjects import value

CALLERS, SECONDS, FLIPS = 8, 0.5, 32


def stampede(subject, a, b, counted):
    """Count computations when eight processes, half on each client, ask for one missing key.

    The computation takes half a second.

    `counted`: a folder on this host, in which each computation leaves a file.
    """
    prepared = subject(
        a
    )  # the folder is there, and the modules are imported: what is cold is the key
    prepared.put("warm")
    prepared.close()
    start, callers = time.time() + 1, []
    for i in range(CALLERS):
        pid = fork()
        if not pid:
            code = 1
            try:
                one = subject((a, b)[i % 2])

                def work(key):
                    open(f"{counted}/{os.getpid()}", "w").close()
                    time.sleep(SECONDS)
                    return value(key)

                one.work = work
                time.sleep(max(0, start - time.time()))
                code = 0 if one.miss("stampede") == value("stampede") else 3
            except Exception as error:
                with open(f"{counted}/error-{os.getpid()}", "w") as file:
                    file.write(reason(error))
            os._exit(code)
        callers.append(pid)
    end, codes = time.time() + 30, []
    for pid in callers:
        while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.time() < end:
            time.sleep(0.02)
        if not ended[0]:
            os.kill(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
        codes.append(os.waitstatus_to_exitcode(ended[1]))
    names = os.listdir(counted)
    found = {
        "row": "stampede",
        "computations": sum(not name.startswith("error") for name in names),
        "callers": CALLERS,
    }
    for name in names:
        if name.startswith("error"):
            with open(f"{counted}/{name}") as file:
                found["error"] = file.read()
    found |= {
        "errors": codes.count(1),
        "wrong": codes.count(3),
        "hung": sum(code < 0 for code in codes),
    }
    yield found


def flipped(subject, folder):
    """Flip one bit of the stored value, and ask for it from a new environment.

    32 bits, 32 entries.
    """
    found = {"row": "flipped", "flips": FLIPS, "wrong": 0, "recomputed": 0, "raised": 0, "right": 0}
    choose = random.Random(1)
    for flip in range(FLIPS):
        place = f"{folder}/{flip}"
        writer = subject(place)
        writer.put("key")
        writer.close()
        del writer
        if not _flip(place, value("key"), choose.randrange(subjects.SIZE * 8)):
            found["not found on disk"] = found.get("not found on disk", 0) + 1
            continue
        reader = subject(place)
        try:
            got = reader.hit("key")
        except Exception as error:
            found["raised"] += 1
            found["error"] = reason(error)
        else:
            missed = reader.computed or got is None
            found["recomputed" if missed else "right" if got == value("key") else "wrong"] += 1
    yield found


def _flip(folder, stored, bit):
    """Flip one bit of `stored` in the file below `folder` that holds it.

    It is known by the bytes before it or after it: a database spreads a value over its pages.
    """
    index, length = bit // 8, 12
    starts = [at for at in (index, index - length + 1) if 0 <= at <= len(stored) - length]
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError), open(f"{where}/{name}", "r+b") as file:
                data = file.read()  # a database removes its log when it is closed
                for start in starts:
                    if (place := data.rfind(stored[start : start + length])) >= 0:
                        file.seek(place + index - start)
                        file.write(bytes([stored[index] ^ 1 << bit % 8]))
                        return True
    return False


def alike():
    """Groups of arguments that are not the same, and what to call them."""
    import numpy as np

    one, two = np.zeros(100_000), np.zeros(100_000)
    two[50_000] = 1.0
    return {
        "`1`, `True`, `1.0`": [(1,), (True,), (1.0,)],
        '`("a b", "c")`, `("a", "b c")`': [("a b", "c"), ("a", "b c")],
        "arrays that differ in the middle": [(one,), (two,)],
    }


def exactly(*arguments):
    """What the confused function should return for `arguments`: it tells all of them apart."""
    return repr([(type(a).__name__, float(a.sum()) if hasattr(a, "sum") else a) for a in arguments])


def confusion(subject, folder):
    """Count the answers that belong to other arguments which look alike."""
    found = {"row": "confusion", "wrong": {}, "errors": {}}

    def work(first, second=None):
        return exactly(first, second)

    call = subject(folder).decorate(work)
    for name, group in alike().items():
        try:
            got = [call(*arguments) for arguments in group]
        except Exception as error:
            found["errors"][name] = reason(error)
        else:
            found["wrong"][name] = sum(
                g != exactly(*(*arguments, None)[:2])
                for g, arguments in zip(got, group, strict=False)
            )
    if not found["errors"]:
        del found["errors"]
    yield found
