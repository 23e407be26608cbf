"""Share one run of the tests among processes, and mark the long ones.

`pytest --share=DIR` in several processes at once, with one new folder: each collects all tests, and
claims a module by creating a file there. So they end together, however long a module takes.

Tests of more than half a second are marked `long`, for `make check` to leave out. They are listed
in long.txt, which `python -m tests.sharing LOG …` writes from logs of `pytest --durations=0`.
"""

import collections
import os
import re
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
LONG = os.path.join(HERE, "long.txt")
SECONDS = 0.5
# Modules that take longest come first: the last to be claimed should be a short one.
FIRST = (
    "test_model.py", "test_cache.py", "test_memory.py", "test_short.py", "test_turns.py",
    "test_new.py", "test_history.py", "test_dogpile.py", "test_datasets.py", "test_checkpoints.py",
    "test_models.py", "test_short_lab.py", "test_plugin.py", "test_resuming.py",
    "test_time_limits.py", "test_template.py", "test_power.py",
)  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--share", metavar="DIR", help="run only modules that no other process took")
    parser.addoption("--failed", metavar="FILE", help="write the failed tests, a line each")


def long_tests():
    """Return the listed tests: names as `cache/test_keys.py::test_name`."""
    with open(LONG) as file:
        return {line.strip() for line in file if line.strip()}


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    listed = long_tests()
    for item in items:
        if item.nodeid.partition("[")[0].removeprefix("tests/") in listed:
            item.add_marker(pytest.mark.long)


def _claimed(session, folder):
    """Yield the items of the modules that this process claims, in order."""
    modules = {}
    for item in session.items:
        modules.setdefault(item.path, []).append(item)
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    for path in sorted(modules, key=lambda path: ranks.get(path.name, len(FIRST))):
        name = str(path.relative_to(session.config.rootpath)).replace(os.sep, "-")
        try:
            os.close(os.open(os.path.join(folder, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            continue
        yield from modules[path]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    folder = session.config.option.share
    if not folder or session.testsfailed or session.config.option.collectonly:
        return None
    items = _claimed(session, folder)
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def pytest_sessionfinish(session):
    """Write the file even if nothing failed: it says that this process came to its end."""
    path = session.config.option.failed
    if path:
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        reports = reporter.getreports("failed") + reporter.getreports("error")
        with open(path, "w") as file:
            file.writelines(f"{name}\n" for name in sorted({each.nodeid for each in reports}))


def durations(text):
    """Return {test: seconds} of a log, set-up and all its parameters included."""
    seconds = collections.Counter()
    for taken, name in re.findall(r"(?m)^([\d.]+)s (?:call|setup|teardown) +tests/(\S+)", text):
        seconds[name.partition("[")[0]] += float(taken)
    return seconds


def main(*logs):
    """Write long.txt."""
    seconds = collections.Counter()
    for log in logs:
        with open(log) as file:
            seconds.update(durations(file.read()))
    with open(LONG, "w") as file:
        file.writelines(f"{name}\n" for name in sorted(seconds) if seconds[name] >= SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
