"""One job on Lithops, on Ray and in a container: killed, resumed, and moved between them.

Lithops runs on its executor for this machine, Ray on a cluster of this machine.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from efsstate import checkpoint

HERE = pathlib.Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples" / "engines"
SHARDS, ITEMS = 8, 8
ALL = sorted(f"{shard}:{item}" for shard in range(SHARDS) for item in range(ITEMS))

pytestmark = pytest.mark.heavy


class Job:
    """A job, started on any engine in a session of its own."""

    def __init__(self, folder):
        self.root, self.notes = folder / "root", folder / "notes"
        self.notes.mkdir()
        self.sessions, self.dead = [], set()

    def start(self, engine, function="jobs:work", **job):
        given = {"notes": str(self.notes), "shards": SHARDS, "items": ITEMS, "pause": 0.1, **job}
        runner = {
            "lithops": [str(EXAMPLES / "on_lithops.py")],
            "ray": [str(EXAMPLES / "on_ray.py")],
            "container": ["-m", "efsstate.worker"],
        }[engine]
        command = [sys.executable, *runner, function, "--input", json.dumps(given)]
        path = os.pathsep.join([str(HERE), str(EXAMPLES), *filter(None, sys.path)])
        environment = {**os.environ, "EFSSTATE_ROOT": str(self.root), "PYTHONPATH": path}
        with open(self.notes.parent / f"{len(self.sessions)}.log", "wb") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.sessions.append(process)

    def log(self):
        """Return the output of the engine that was started last."""
        return (self.notes.parent / f"{len(self.sessions) - 1}.log").read_text(errors="replace")

    def poll(self):
        """Return the exit code of the engine that was started last; None while it runs."""
        return self.sessions[-1].poll()

    def finish(self):
        """Wait until the engine that was started last has finished the job."""
        end = time.monotonic() + 300
        while (code := self.poll()) is None:
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)
        assert code == 0, self.log()

    def done(self):
        """Return the items that were done, each as often as it was."""
        return sorted(item for path in self.notes.iterdir() for item in path.read_text().split())

    def workers(self):
        """Return the ids of the processes that did items, from the names of their notes."""
        return [int(path.name) for path in self.notes.iterdir()]

    def await_items(self, count):
        end = time.monotonic() + 300
        while len(self.done()) < count:
            assert self.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.02)

    def kill(self):
        """Kill all of the engine that was started last at once, as a lost machine does."""
        process = self.sessions[-1]
        for pid in set(self.workers()) - self.dead:  # a dead one's number may be another's by now
            self.dead.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self):
        for process in self.sessions:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def results(self):
        return checkpoint("job", root=str(self.root)).shards().results()


def free_ports(count):
    """Return ports that nothing uses now, beyond those that Ray gives to its workers."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def kill_all(process):
    """Kill a process and all that it started, in whatever session they are."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a Ray cluster on this machine.

    With ports of its own it does not wait 15 s for its agents to tell theirs, which a busy machine
    may not manage; and it may be started again.
    """
    folder = tmp_path_factory.mktemp("cluster")
    path = os.pathsep.join([str(HERE), str(EXAMPLES), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled"}
    kinds = ["", "dashboard-agent-grpc-", "dashboard-agent-listen-", "runtime-env-agent-"]
    kinds += ["metrics-export-", "node-manager-", "object-manager-"]
    for number in range(5):
        ports = free_ports(len(kinds))
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += [f"--{kind}port={port}" for kind, port in zip(kinds, ports, strict=True)]
        command += ["--include-dashboard=false", "--disable-usage-stats", "--num-cpus=2"]
        command += ["--object-store-memory=100000000", "--node-ip-address=127.0.0.1"]
        output = folder / f"{number}.log"
        with open(output, "wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            if "Ray runtime started" in output.read_text(errors="replace"):
                yield f"127.0.0.1:{ports[0]}"
                kill_all(process)
                return
            time.sleep(0.1)
        kill_all(process)
    raise AssertionError(output.read_text(errors="replace"))


@pytest.fixture
def job(tmp_path, cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    job = Job(tmp_path)
    yield job
    job.close()


def check(job, killed):
    """Require that all is done; a killed worker's item under way may have been done again."""
    assert sorted(set(job.done())) == ALL
    assert len(job.done()) <= len(ALL) + killed
    assert job.results() == [sum(range(ITEMS))] * SHARDS


@pytest.mark.parametrize("engine", ["lithops", "ray"])
def test_a_job_that_is_killed_goes_on_where_it_stood(job, engine):
    job.start(engine)
    job.await_items(12)
    killed = len(job.workers())
    job.kill()
    assert len(job.done()) < len(ALL)
    job.start(engine)
    job.finish()
    check(job, killed)


def test_ray_starts_a_worker_that_dies_again(job):
    job.start("ray")
    job.await_items(12)
    os.kill(job.workers()[0], signal.SIGKILL)
    job.finish()
    check(job, 1)


def test_a_job_moves_from_engine_to_engine(job):
    """It begins on Lithops, goes on on Ray, and ends in a container: one checkpoint."""
    job.start("lithops")
    job.await_items(12)
    job.kill()
    after_lithops = len(job.workers())
    job.start("ray")
    job.await_items(len(job.done()) + 12)
    job.kill()
    killed = len(job.workers())
    assert killed > after_lithops, "Ray has done a part"
    before = len(job.done())
    assert before < len(ALL)
    job.start("container")
    job.finish()
    assert len(job.done()) > before, "and so has the container"
    check(job, killed)


@pytest.mark.parametrize("engine", ["lithops", "ray"])
def test_the_examples_job_gives_the_same_on_each_engine(job, engine):
    """The keywords of the asyncio package, counted here without any of it."""
    import asyncio
    import importlib.util
    from collections import Counter

    folder = os.path.dirname(asyncio.__file__)
    spec = importlib.util.spec_from_file_location("example_job", EXAMPLES / "job.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    words = Counter()
    files = example.files_of(folder)
    for path in files:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        words.update(example.WORD.findall(text.encode()))
    counts = {word.decode(): count for word, count in words.items()}
    job.start(engine, "job:count", run="a", folder=folder)
    job.finish()
    shards = checkpoint("keywords/a", root=str(job.root)).shards()
    total = sum((Counter(result["words"]) for result in shards.results()), Counter())
    assert dict(total) == counts
    assert sum(result["files"] for result in shards.results()) == len(files)
