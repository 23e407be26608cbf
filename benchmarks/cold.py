"""The cold start: the first of each operation in a new environment, on Lambda's runtime client.

Each is made in an environment of its own by `efsstate.testing`, with the bytecode of the package
beside its source, and without, as unpacked wheels are on a disk that nothing can write to.
"""

import compileall
import importlib.util
import os
import shutil
import statistics
import tempfile

from benchmarks.measure import spread

ROUNDS = 5
PACKAGES = ("efsstate", "filelock", "cachetools", "msgpack")
IMPORT = "from efsstate import cached, checkpoint, model"
# The handler makes the folder's contents with "prepare", and performs one operation otherwise.
HANDLER = '''
import os
import resource
import sys
import time

ROOT = os.environ["COLD_ROOT"]


def _measured(function):
    modules, faults = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    start = time.perf_counter()
    kept = function()
    seconds = time.perf_counter() - start
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    new = sorted(set(sys.modules) - modules)
    return {"seconds": seconds, "modules": new, "page_faults": faults}, kept


def _names():
    from efsstate import cached, checkpoint, model

    return cached, checkpoint, model


def _cached():
    from efsstate import cached

    @cached(name="cold", root=ROOT, memory=0)
    def square(number):
        return number * number

    return square


def _put():
    _cached()(3)


def _claim(name="claimed"):
    from efsstate import checkpoint

    job = checkpoint(name, root=ROOT)
    job.__enter__()
    return job


def _load():
    from efsstate import checkpoint

    assert checkpoint("saved", root=ROOT).load() == {"rows": 3}


def _model():
    from efsstate import model

    assert len(model("cold", load=lambda files: files.read(), root=ROOT)()) == 1024


def _bare():
    fd = os.open(ROOT + "/bare", os.O_RDONLY)
    data = os.read(fd, 65536)
    os.close(fd)
    return data


def _recipe():
    import filelock

    lock = filelock.FileLock(ROOT + "/recipe.lock")
    lock.acquire()
    return lock


def _diskcache():
    from diskcache import Cache

    @Cache(ROOT + "/diskcache").memoize(name="cold")
    def square(number):
        return number * number

    return square(3)


def _joblib():
    from joblib import Memory

    def square(number):
        return number * number

    return Memory(ROOT + "/joblib", verbose=0).cache(square)(3)


def _cachau():
    from cachau import cache

    @cache(persist=ROOT + "/cachau", namespace="cold")
    def square(number):
        return number * number

    return square(3)


def _sciqlop():
    from pysciqlop_cache import Cache

    @Cache(ROOT + "/sciqlop").memoize()
    def square(number):
        return number * number

    return square(3)


def _diskcache_rs():
    from diskcache_rs import Cache

    cache = Cache(ROOT + "/rs")
    if cache.get("three") is None:
        cache.set("three", 9)
    return cache.get("three")


PEERS = {
    "diskcache `memoize`": _diskcache,
    "joblib `Memory`": _joblib,
    "cachau `cache`": _cachau,
    "pysciqlop-cache `memoize`": _sciqlop,
    "diskcache-rs `Cache`": _diskcache_rs,
}


def prepare(peers):
    from efsstate import checkpoint, publish

    _put()
    with checkpoint("saved", root=ROOT) as job:
        job.save({"rows": 3})
    with open(ROOT + "/bare", "wb") as file:
        file.write(b"x" * 1024)
    publish("cold", ROOT + "/bare", root=ROOT)
    failed = {}
    for name in peers:
        try:
            PEERS[name]()
        except Exception as error:
            failed[name] = type(error).__name__ + ": " + str(error)
    return failed


def _saving():
    job = _claim()
    return lambda: job.save({"rows": 3})


def _hitting():
    _names()
    square = _cached()
    return lambda: square(3)


def _missing():
    _names()
    square = _cached()
    return lambda: square(int(time.time() * 1000))


def _after(function):
    def ready():
        _names()
        return function

    return ready


def lean():
    """Time hits and bare reads in turn, ten at a time, once all of it is warm."""
    square, seconds, others, paged = _cached(), [], [], 0
    for turn in range(400):
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        start = time.perf_counter()
        for _i in range(10):
            square(3)
        middle = time.perf_counter()
        paged += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        for _i in range(10):
            _bare()
        if turn >= 20:
            seconds.append((middle - start) / 10)
            others.append((time.perf_counter() - middle) / 10)
    return {"seconds": seconds, "others": others, "page_faults": paged / 4000}


def handler(event, context):
    """Prepare the first operation of a process, then measure it."""
    operation = event["operation"]
    if operation == "prepare":
        return prepare(event["peers"])
    if operation == "lean":
        return lean()
    ready = {
        "import": lambda: _names,
        "hit": _hitting,
        "miss": _missing,
        "claim": _after(_claim),
        "save": _saving,
        "load": _after(_load),
        "model": _after(_model),
        "bare": lambda: _bare,
        "recipe": lambda: _recipe,
    }
    if operation in ready:
        first = ready[operation]()
    else:
        first = PEERS[operation]
    figure, _kept = _measured(first)
    if "efsstate" in sys.modules:
        figure["from"] = os.path.dirname(os.path.dirname(sys.modules["efsstate"].__file__))
    return figure
'''
OURS = {
    "import": f"`{IMPORT}`",
    "hit": "efsstate: first hit",
    "miss": "efsstate: first miss",
    "claim": "efsstate: first claim of a checkpoint",
    "save": "efsstate: first save in a claim",
    "load": "efsstate: first load of a checkpoint",
    "model": "efsstate: first load of a model",
}
FLOOR = {"bare": "bare open-read-close"}
OTHERS = {"recipe": "`filelock`: import and first lock"} | {
    name: f"{name}: import and first hit"
    for name in (
        "diskcache `memoize`",
        "joblib `Memory`",
        "cachau `cache`",
        "pysciqlop-cache `memoize`",
        "diskcache-rs `Cache`",
    )
}


def task_root(folder, *, bytecode):
    """Make a function's package in `folder`: handler, efsstate and its dependencies, as source."""
    os.makedirs(folder)
    for name in PACKAGES:
        source = importlib.util.find_spec(name).submodule_search_locations[0]
        without = None if bytecode else shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, f"{folder}/{name}", ignore=without)
    with open(f"{folder}/cold_handler.py", "w") as file:
        file.write(HANDLER)
    if bytecode:
        compileall.compile_dir(folder, quiet=2)  # what is not compiled yet
    return folder


def function(folder, root):
    """Return the function whose package lies in `folder`."""
    from efsstate.testing import Function

    variables = {"COLD_ROOT": root, "PYTHONDONTWRITEBYTECODE": "1"}
    return Function(
        "cold_handler.handler", path=folder, environment=variables, timeout=60, memory=512
    )


def first(one, operation, **more):
    """Perform an operation in a new environment of a function, and return its figure."""
    environment = one.environment()
    try:
        result = environment.invoke({"operation": operation, **more})
    finally:
        environment.close()
    if result.error is not None:
        raise RuntimeError(f"{operation}: {result.error['errorMessage']}")
    return result.value


def rows(folder, *, rounds=ROUNDS, peers=True, ours=tuple(OURS)):
    """Yield each operation's first time with and without bytecode, in turn, `rounds` times.

    `seconds` is the smallest, `ratio` the median of the ratios to the lock of `filelock` of the
    same round and package. The peers are installed, so their bytecode is always there. `ours`:
    the operations of ours that are measured.
    """
    os.makedirs(folder)
    functions = {
        name: function(task_root(f"{folder}/{name}", bytecode=name == "with"), folder)
        for name in ("with", "without")
    }
    others = OTHERS if peers else {"recipe": OTHERS["recipe"]}
    failed = first(functions["with"], "prepare", peers=[*others][1:])  # all but the recipe
    subjects = {name: OURS[name] for name in ours} | FLOOR | others
    columns = [(operation, "with") for operation in subjects if operation not in failed]
    columns += [(operation, "without") for operation in [*ours, "recipe"]]
    samples = {column: [] for column in columns}
    for _ in range(rounds):
        for operation, name in columns:
            samples[operation, name].append(first(functions[name], operation))
    for operation, reason in failed.items():
        yield {"row": "cold", "subject": subjects[operation], "failed": reason}
    for (operation, name), some in samples.items():
        place = some[-1].get("from", f"{folder}/{name}")
        assert place == f"{folder}/{name}", f"{operation}: measured the package in {place}"
        figure = _figure(some, samples["recipe", name])
        yield {"row": "cold", "subject": subjects[operation], "bytecode": name, **figure}
    warm = first(functions["with"], "lean")
    yield {
        "row": "lean",
        "subject": "efsstate `cached`, on Lambda's runtime client",
        "time": spread(warm["seconds"]),
        "operations": 10 * len(warm["seconds"]),
        "ratio": min(warm["seconds"]) / min(warm["others"]),
        "page_faults": warm["page_faults"],
    }


def _figure(some, beside):
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(some, beside, strict=True)]
    return {
        "time": spread([figure["seconds"] for figure in some]),
        "seconds": min(figure["seconds"] for figure in some),
        "ratio": statistics.median(ratios),
        "modules": max(len(figure["modules"]) for figure in some),
        "names": some[-1]["modules"],
        "page_faults": statistics.median(figure["page_faults"] for figure in some),
    }


def main():
    """Print the times with a folder of its own, without the report."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for figure in rows(f"{folder}/cold"):
            kind, seconds = figure.get("bytecode", ""), figure.get("seconds", 0)
            text = f"{seconds * 1e3:.2f} ms, {figure.get('modules')} modules"
            print(figure["subject"], kind, figure.get("failed", text), sep=" | ")


if __name__ == "__main__":
    main()
