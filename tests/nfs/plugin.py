"""Run tests marked `nfs` in the guest, one boot for all; their reports are the host's own."""

import json
import os
import sys
import tempfile

import pytest
from tests.nfs.clients import Clients, NoFaults
from tests.nfs.guest import memory_folder
from tests.nfs.lab import Lab, LabError, missing


def pytest_addoption(parser):
    group = parser.getgroup("nfs", "two NFS clients")
    group.addoption(
        "--mount-a",
        metavar="PATH",
        help="run the nfs tests here, on this mount and --mount-b's, not in the lab",
    )
    group.addoption("--mount-b", metavar="PATH", help="a second client's mount of the same export")
    group.addoption(
        "--lab-delay",
        default="300us",
        metavar="TIME",
        help="the lab's delay, one way, server to client (default 300us)",
    )
    group.addoption(
        "--lab-timeout",
        default=300,
        type=float,
        metavar="SECONDS",
        help="a test in the lab fails when silent for so long (default 300)",
    )


def pytest_configure(config):
    if bool(config.option.mount_a) != bool(config.option.mount_b):
        raise pytest.UsageError(
            "--mount-a and --mount-b go together: two clients' mounts of one export"
        )


def _inside(config):
    return next(
        (p for p in config.pluginmanager.get_plugins() if type(p).__name__ == "Inside"), None
    )


def _on_host(item):
    """Whether a test marked `nfs` runs on the host: given mounts, or booting guests of its own."""
    return bool(item.config.option.mount_a) or "boot" in item.fixturenames


def _remote(item):
    return (
        item.get_closest_marker("nfs")
        and not _inside(item.config)
        and not _on_host(item)
        and not missing()
    )


def pytest_runtest_setup(item):
    marked = item.get_closest_marker("nfs")
    if (
        marked
        and not _inside(item.config)
        and not (item.config.option.mount_a and "boot" not in item.fixturenames)
        and (reason := missing())
    ):
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"{reason} (CI is true: a skip is a failure)", pytrace=False)
        pytest.skip(reason)


class Session:
    """The pytest session in the guest, seen from the host's."""

    def __init__(self, config, items):
        self.lab = Lab(delay=config.option.lab_delay).boot()
        option = config.option
        arguments = [
            "-p",
            "no:cacheprovider",
            "-m",
            # the host has chosen; the project's own choice in addopts would take the slow ones out
            # again
            "",
            f"--lab-delay={option.lab_delay}",
            f"--rootdir={config.rootpath}",
            f"--tb={option.tbstyle}",
        ]
        arguments += (
            ["-l"] * bool(option.showlocals)
            + ["-s"] * (option.capture == "no")
            + ["-v"] * max(0, option.verbose)
        )
        arguments += [a for a in config.invocation_params.args if str(a).startswith("--hypothesis")]
        arguments += [word for plugin in option.plugins for word in ("-p", plugin)]
        if config.inipath:
            arguments += ["-c", str(config.inipath)]
        files = dict.fromkeys(str(item.path) for item in items)
        path = os.pathsep.join([str(config.rootpath), *(p for p in sys.path if p)])
        self.process = self.lab.spawn(
            [sys.executable, "-m", "tests.nfs.inside", *arguments, *files],
            cwd=config.rootpath,
            env={"PYTHONPATH": path},
        )
        try:
            self._event(120)
        except LabError:
            self.lab.kill()
            raise

    def _event(self, timeout):
        line = self.process.readline(timeout)
        if not line:
            raise LabError(
                "pytest in the guest ended with "
                f"{self.process.exit_code}:\n{self.process.stderr[-8000:]}"
            )
        event = json.loads(line)
        if "broken" in event:
            raise LabError(f"pytest in the guest:\n{event['broken']}")
        return event

    def run(self, item, following):
        """The item's reports, one by one, as they come."""
        self.process.write(json.dumps({"run": item.nodeid, "next": following}) + "\n")
        while "done" not in (event := self._event(item.config.option.lab_timeout)):
            if "lost" in event:
                raise LabError(
                    f"the guest collects no {item.nodeid}: its parameters must not change from "
                    "one collection to the next"
                )
            data = event["report"]
            if isinstance(
                data["longrepr"], list
            ):  # a skip's place and reason: JSON has no tuples, the terminal wants one
                data["longrepr"] = tuple(data["longrepr"])
            yield item.config.hook.pytest_report_from_serializable(config=item.config, data=data)


_session = pytest.StashKey[Session]()
_dead = pytest.StashKey[bool]()
_queue = pytest.StashKey[dict]()  # the items for the guest, in order


def _close(config):
    if session := config.stash.get(_session, None):
        del config.stash[_session]
        session.lab.kill()


def pytest_collection_finish(session):
    items = [item for item in session.items if _remote(item)]
    session.config.stash[_queue] = dict.fromkeys(items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    queue = item.config.stash[_queue]
    if item not in queue:
        return None
    following = nextitem if nextitem in queue else None
    hook, failed, phases = item.ihook, None, set()
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    try:
        if _session not in item.config.stash:
            if item.config.stash.get(_dead, False):
                text = "the guest did not come up; see the first failure"
                raise LabError(text)  # noqa: TRY301 - it is reported below, as the others are
            # Until it has come up: not a minute's wait for each test.
            item.config.stash[_dead] = True
            item.config.stash[_session] = Session(item.config, queue)
            item.config.stash[_dead] = False
        for report in item.config.stash[_session].run(item, following and following.nodeid):
            phases.add(report.when)
            hook.pytest_runtest_logreport(report=report)
    except (LabError, pytest.fail.Exception) as error:  # the latter from pytest-timeout's alarm
        failed = str(error)
    except KeyboardInterrupt:
        _close(item.config)
        raise
    if failed:
        # The next test gets a new guest.
        _close(item.config)
        when = "setup" if "setup" not in phases else "call" if "call" not in phases else "teardown"
        for phase, outcome, text in ((when, "failed", failed), ("teardown", "passed", None)):
            if phase != when or text:
                keywords = dict.fromkeys(item.keywords, 1)
                hook.pytest_runtest_logreport(
                    report=pytest.TestReport(
                        item.nodeid, item.location, keywords, outcome, text, phase
                    )
                )
    elif nextitem is None:
        _close(item.config)
    # What the host had set up for the test before (its module, its folder) was kept for this one,
    # which set up nothing.
    item.session._setupstate.teardown_exact(nextitem)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_unconfigure(config):
    _close(config)


@pytest.fixture
def lab(request):
    """The two clients, in folders of this test's own.

    `lab.a`, `lab.b`, costs and faults (clients.py).
    """
    inside = _inside(request.config)
    if inside is None:
        a, b = request.config.option.mount_a, request.config.option.mount_b
        if not a:
            pytest.fail("the fixture `lab` is for tests marked `nfs`", pytrace=False)
        clients = Clients(a, b, request.node.name, faults=NoFaults())
    else:
        clients = Clients(*inside.folders, request.node.name, delay=request.config.option.lab_delay)
    yield clients
    clients.close()


@pytest.fixture
def boot():
    """Boot labs from a test on the host, for power cuts: `boot(disk=True, alone=("c",))`.

    The images of their disks are in memory. On a disk of the host that others write to, such as an
    installer, a sync may take a minute.
    """
    labs = []

    def start(*, disk=True, **options):
        labs.append(Lab(f"{folder}/disk{len(labs)}" if disk else None, **options))
        return labs[-1].boot()

    with tempfile.TemporaryDirectory(dir=memory_folder("1g")) as folder:
        yield start
        for one in labs:
            one.close()
