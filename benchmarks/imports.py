"""The cost of an import at a cold start.

Modules, exactly, and time beside other packages' imports.
"""

import json
import statistics
import subprocess
import sys

from benchmarks.measure import spread

STATEMENTS = {
    "an empty program": "pass",
    "`from efsstate import cached, checkpoint, "
    "model`": "from efsstate import cached, checkpoint, model",
    "`import filelock`": "import filelock",
    "`import cachetools`": "import cachetools",
    "`import cachelib`": "import cachelib",
    "`import diskcache`": "import diskcache",
    "`import dogpile.cache`": "import dogpile.cache",
    "`import joblib`": "import joblib",
}
_CODE = """
import sys, time
before, start = set(sys.modules), time.perf_counter()
{statement}
seconds = time.perf_counter() - start
loaded = sorted(set(sys.modules) - before)
import json
print(json.dumps([seconds, loaded]))
"""


def _once(statement):
    # -I and -S: no site, no .pth files; the path is given, as a function's package has it.
    path = f"import sys; sys.path[:] = {[p for p in sys.path if p]!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", path + _CODE.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def rows(rounds=7):
    """Each statement in turn, `rounds` times; `ratio` is to `import filelock` of the same round."""
    samples, modules = {name: [] for name in STATEMENTS}, {}
    for _ in range(rounds + 1):  # the first one writes and reads the compiled files
        for name, statement in STATEMENTS.items():
            seconds, modules[name] = _once(statement)
            samples[name].append(seconds)
    beside = samples["`import filelock`"]
    for name, all_of_it in samples.items():
        ratio = statistics.median(x / y for x, y in zip(all_of_it[1:], beside[1:], strict=False))
        yield {
            "row": "import",
            "subject": name,
            "place": "process",
            "time": spread(all_of_it[1:]),
            "ratio": ratio,
            "modules": len(modules[name]),
            "names": modules[name],
        }
