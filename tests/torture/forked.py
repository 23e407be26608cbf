"""Run pytest in a child of a process that has imported pytest, Hypothesis, NumPy and others.

To import these again would take longer than most of the tests. That process has not imported
efsstate: each child imports the copy of efsstate that it is given.
"""

import atexit
import multiprocessing
import os
import sys

NEEDED = ["pytest", "hypothesis", "numpy", "msgpack", "filelock", "cachetools"]


def server():
    """Return a context of multiprocessing: its processes are children of that process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(NEEDED)
    return context


def run_pytest(folder, said, arguments):
    """Run pytest on the package in `folder`, in a session of its own; exit with pytest's code.

    The output goes to the file `said`.
    """
    os.setsid()
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    imported = sorted(name for name in sys.modules if name.partition(".")[0] == "efsstate")
    if imported:
        raise RuntimeError(f"the package was imported before the test's own: {imported[:3]}")
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = folder
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins take long to import

    import pytest

    code = int(pytest.main(arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)
