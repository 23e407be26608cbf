"""One job's function under each signal and limit of a container, and its exit codes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from efsstate import ShardsError, checkpoint, worker, workers

HERE = os.path.dirname(os.path.abspath(__file__))
SHARDS, ITEMS = 4, 6


class Job:
    """The job of `jobs.py` on a root of its own, and what its workers noted."""

    def __init__(self, folder):
        self.root, self.notes = str(folder / "root"), str(folder / "notes")
        self.processes = []
        os.mkdir(self.notes)

    def start(self, function="jobs:work", *options, **job):
        given = {"notes": self.notes, "shards": SHARDS, "items": ITEMS, "pause": 0.01, **job}
        command = [sys.executable, "-m", "efsstate.worker", function, "--input", json.dumps(given)]
        path = os.pathsep.join([HERE, *filter(None, sys.path)])
        environment = {**os.environ, "EFSSTATE_ROOT": self.root, "PYTHONPATH": path}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([*command, *options], cwd=HERE, env=environment, **pipes)
        self.processes.append(process)
        return process

    def close(self):
        """End what a failed test may have left, and close the pipes."""
        for process in self.processes:
            process.kill()
            process.communicate()

    def run(self, *arguments, **job):
        process = self.start(*arguments, **job)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def done(self):
        """Return the items that were done, each as often as it was."""
        lines = []
        for name in os.listdir(self.notes):
            with open(os.path.join(self.notes, name), encoding="utf-8") as file:
                lines += file.read().split()
        return sorted(lines)

    def await_items(self, count):
        """Wait until so many items are done."""
        end = time.monotonic() + 120
        while len(self.done()) < count:
            assert time.monotonic() < end
            time.sleep(0.01)

    def results(self):
        return checkpoint("job", root=self.root).shards().results()


@pytest.fixture
def job(tmp_path):
    job = Job(tmp_path)
    yield job
    job.close()


ALL = sorted(f"{shard}:{item}" for shard in range(SHARDS) for item in range(ITEMS))


def test_a_finished_job_ends_with_0(job):
    code, out, _ = job.run()
    assert (code, json.loads(out)["finished"]) == (worker.FINISHED, True)
    assert job.done() == ALL
    assert job.results() == [sum(range(ITEMS))] * SHARDS


def test_sigterm_ends_it_in_order_with_75(job):
    """The current item is saved, so that no item is done twice when the job is run again."""
    process = job.start(pause=0.2)
    job.await_items(8)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == worker.AGAIN
    assert 8 <= len(job.done()) < len(ALL)
    assert job.run()[0] == worker.FINISHED
    assert job.done() == ALL, "none is done twice, and none is left out"


def test_after_sigkill_another_worker_goes_on(job):
    """With a save after each item only the one under way is done again."""
    process = job.start(pause=0.05)
    job.await_items(8)
    process.kill()
    process.wait()
    before = len(job.done())
    assert job.run()[0] == worker.FINISHED
    assert sorted(set(job.done())) == ALL
    assert len(job.done()) <= len(ALL) + 1, before
    assert job.results() == [sum(range(ITEMS))] * SHARDS


def test_a_spot_interruption_is_sigterm_and_then_sigkill(job):
    """An item that outlasts the notice is cut off and done again, all others once."""
    process = job.start(pause=0.02, slow="3:4")
    job.await_items(4)
    end = time.monotonic() + 120
    while not os.path.exists(os.path.join(job.notes, "slow")):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "Batch sees 137"
    assert job.run()[0] == worker.FINISHED
    assert job.done() == ALL


def test_a_time_limit_ends_it_in_order_with_75(job):
    code, out, _ = job.run("jobs:work", "--limit", "4s", pause=0.4)
    assert (code, json.loads(out)["finished"]) == (worker.AGAIN, False)
    assert 0 < len(job.done()) < len(ALL)
    assert job.run()[0] == worker.FINISHED
    assert job.done() == ALL


@pytest.mark.parametrize(
    ("fails", "code"),
    [
        ("ValueError", worker.FAILED),
        ("FileNotFoundError", worker.FAILED),
        ("OSError", worker.AGAIN),
        ("TimeoutError", worker.AGAIN),
    ],
)
def test_errors_of_the_job_and_of_the_mount_differ(job, fails, code):
    """An error of the job comes again if it is run again; one of the mount may not."""
    status, _, err = job.run(fails=fails)
    assert (status, fails in err) == (code, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs"],
        ["jobs:nothing"],
        ["nothing:work"],
        ["jobs:ITEMS"],
        ["jobs:work", "--limit", "3 parsecs"],
        ["jobs:work", "--input", "{"],
    ],
)
def test_bad_usage_ends_with_2(job, arguments):
    assert job.run(*arguments)[0] == worker.USAGE


def test_an_idle_worker_leaves_with_0_when_asked_to(job):
    """Another holds the only shard: this one has nothing to do, and may end."""
    with checkpoint("job", root=job.root).shards(1) as shards:
        for _ in shards:
            code, out, _ = job.run("jobs:work", "--idle", "0s", shards=1)
            answer = {"finished": False, "idle": True}
            assert (code, answer.items() <= json.loads(out).items()) == (0, True)
            break


def test_an_idle_worker_notices_sigterm(job):
    with checkpoint("job", root=job.root).shards(1) as shards:
        for _ in shards:
            process = job.start("jobs:work", shards=1)
            end = time.monotonic() + 120
            while not os.listdir(job.notes):
                assert time.monotonic() < end
                time.sleep(0.01)
            time.sleep(0.5)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == worker.AGAIN
            break


def test_the_fan_in_comes_once_all_is_finished(job):
    with pytest.raises(ShardsError):
        job.results()
    assert job.run("jobs:collect", "--collect")[0] == worker.AGAIN
    assert job.run()[0] == worker.FINISHED
    code, out, _ = job.run("jobs:collect", "--collect")
    assert (code, json.loads(out)) == (0, sum(range(ITEMS)) * SHARDS)


# ---- The handler for Step Functions ----


def test_the_handler_takes_the_state_machines_events(tmp_path, capsys):
    seen = []

    def work(value):
        seen.append(value)
        with checkpoint("job", root=str(tmp_path)).shards(2) as shards:
            for shard in shards:
                for _ in shard.resume(range(3)):
                    pass
        return shards

    handle = workers.handler(work, collect=lambda value: {"total": value["n"] * 2})
    order = {"step": "work", "worker": 7, "input": {"n": 4}}
    assert handle(order, None) == {"finished": True, "idle": False}
    assert json.loads(capsys.readouterr().out) == {
        "event": "work",
        "worker": 7,
        "finished": True,
        "idle": False,
    }
    answer = handle({**order, "step": "collect"}, None)
    assert answer == {"finished": True, "idle": False, "result": {"total": 8}}
    assert handle({"n": 5}, None)["finished"] is True
    assert seen == [{"n": 4}, {"n": 4}, {"n": 5}], "another event is the input itself"
    with pytest.raises(ValueError, match="not a step"):
        handle({**order, "step": "sleep"}, None)


def test_the_fan_in_of_an_unfinished_job_asks_for_more(tmp_path):
    """It is one more round of work, and collects nothing."""
    collected = []
    handle = workers.handler(lambda _: {"finished": False}, collect=collected.append)
    answer = handle({"step": "collect", "worker": 0, "input": {}}, None)
    assert (answer, collected) == ({"finished": False, "idle": False}, [])


def test_a_claimed_checkpoint_makes_an_idle_round(tmp_path):
    def work(_):
        with checkpoint("single", root=str(tmp_path)) as job:
            for _ in job.resume(range(3)):
                pass
        return job

    handle = workers.handler(work)
    with checkpoint("single", root=str(tmp_path)):
        import threading

        answers = []
        thread = threading.Thread(target=lambda: answers.append(handle({}, None)))
        thread.start()
        thread.join()
    assert answers == [{"finished": False, "idle": True}]
    assert handle({}, None) == {"finished": True, "idle": False}


@pytest.mark.parametrize("value", [None, 3, {}, {"finished": 1}, object()])
def test_an_answer_that_does_not_say_is_refused(value):
    with pytest.raises(TypeError, match=r"return the checkpoint, its shards"):
        workers.handler(lambda _: value)({}, None)
