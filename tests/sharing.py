"""Share one run of the tests among processes, and mark the long ones.

`pytest --share=DIR` in several processes at once, with one new folder: each collects all tests, and
claims a module by creating a file there. So they end together, however long a module takes.
"""

import os

import pytest

# Modules that take longest come first: the last to be claimed should be a short one.
FIRST = ("test_model.py", "test_short.py", "test_history.py", "test_contracts.py", "test_cache.py")


def pytest_addoption(parser):
    parser.addoption("--share", metavar="DIR", help="run only modules that no other process took")


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
