"""Run pytest in a child of a process that has imported what all tests need.

To import it again would take longer than most of the tests. The package itself is not among it:
each child imports the one it is given.
"""

import multiprocessing
import os
import sys

NEEDED = ["pytest", "hypothesis", "numpy", "msgpack", "filelock", "cachetools"]


def server():
    """Return the context of multiprocessing whose processes are such children."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(NEEDED)
    return context


def run_pytest(folder, said, arguments):
    """Run pytest on the package in `folder`, in a session of its own; end with its exit code.

    What it says goes to the file `said`.
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
    os._exit(code)
