"""The template's state machine, run by moto's interpreter; its tasks run under the runtime client.

The interpreter's own client calls Lambda on loopback, where the harness answers.
"""

import json
import os
import threading
import time
import uuid

import pytest
from tests.engines.loopback import LambdaEndpoint

from efsstate import checkpoint
from efsstate.deploy.template import definition
from efsstate.testing import Function

HERE = os.path.dirname(os.path.abspath(__file__))
SHARDS, ITEMS, WORKERS = 6, 5, 3
ARN = "arn:aws:lambda:us-east-1:123456789012:function:batch"

pytestmark = [pytest.mark.runtime, pytest.mark.filterwarnings("ignore")]


class Machine:
    """A state machine in moto, and the function that its tasks call."""

    def __init__(self, folder, endpoint, function):
        import boto3

        self.endpoint, self.function = endpoint, function
        self.notes = str(folder / "notes")
        os.mkdir(self.notes)
        self.client = boto3.client("stepfunctions", region_name="us-east-1")
        text = definition(
            Partition="aws", Function=ARN, Workers=str(WORKERS), Rounds="2", Pause="1"
        )
        # moto's grammar wants a fraction here, which the States Language does not.
        text = text.replace(
            '"ToleratedFailurePercentage": 50', '"ToleratedFailurePercentage": 50.0'
        )
        role = "arn:aws:iam::123456789012:role/workers"
        answer = self.client.create_state_machine(name="workers", definition=text, roleArn=role)
        self.arn = answer["stateMachineArn"]

    def start(self, **job):
        given = {"notes": self.notes, "shards": SHARDS, "items": ITEMS, "pause": 0.02, **job}
        answer = self.client.start_execution(
            stateMachineArn=self.arn, name=uuid.uuid4().hex, input=json.dumps(given)
        )
        return answer["executionArn"]

    def wait(self, execution):
        """Return its description once it has ended."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            answer = self.client.describe_execution(executionArn=execution)
            if answer["status"] != "RUNNING":
                return answer
            time.sleep(0.05)
        raise AssertionError("the execution runs on")

    def done(self):
        lines = []
        for name in os.listdir(self.notes):
            with open(os.path.join(self.notes, name), encoding="utf-8") as file:
                lines += file.read().split()
        return sorted(lines)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    from moto import mock_aws

    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    settings = {"EFSSTATE_ROOT": str(tmp_path / "root")}
    os.mkdir(tmp_path / "root")
    with Function("handlers.handler", path=HERE, environment=settings, timeout=20) as function:
        endpoint = LambdaEndpoint({"batch": function})
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", endpoint.url)
        with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
            yield Machine(tmp_path, endpoint, function)
        endpoint.close()


ALL = sorted(f"{shard}:{item}" for shard in range(SHARDS) for item in range(ITEMS))
TOTAL = {"total": SHARDS * sum(range(ITEMS))}


def test_workers_finish_the_job_and_its_results_come_out(machine):
    answer = machine.wait(machine.start())
    assert (answer["status"], json.loads(answer["output"])) == ("SUCCEEDED", TOTAL)
    assert machine.done() == ALL
    workers = {call["worker"] for call in machine.endpoint.calls if call["step"] == "work"}
    assert workers == set(range(1, WORKERS + 1))
    assert [call["step"] for call in machine.endpoint.calls].count("collect") == 1


def test_a_killed_worker_is_called_again(machine):
    """Its environment dies without a signal that Python sees, and nothing is lost."""
    execution = machine.start(pause=0.3)
    killed = threading.Event()

    def kill():
        end = time.monotonic() + 120
        while len(machine.done()) < 6 and time.monotonic() < end:
            time.sleep(0.01)
        machine.function.environments[0].kill()
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    answer = machine.wait(execution)
    thread.join()
    assert (answer["status"], json.loads(answer["output"])) == ("SUCCEEDED", TOTAL)
    assert killed.is_set()
    assert sorted(set(machine.done())) == ALL
    assert len(machine.done()) <= len(ALL) + 1, "only the item under way may be done again"
    assert len([call for call in machine.endpoint.calls if call["step"] == "work"]) > WORKERS


def test_it_calls_again_while_finished_is_false(machine):
    """A round that ends at its deadline is followed by another, of the same worker."""
    execution = machine.start(shards=1, items=8, most=3)
    answer = machine.wait(execution)
    assert answer["status"] == "SUCCEEDED"
    calls = [call["worker"] for call in machine.endpoint.calls if call["step"] == "work"]
    assert len(calls) > WORKERS


def test_services_that_fail_for_a_moment_are_called_again(machine):
    machine.endpoint.failures += ["EFSMountTimeoutException", "TooManyRequestsException"]
    answer = machine.wait(machine.start())
    assert (answer["status"], json.loads(answer["output"])) == ("SUCCEEDED", TOTAL)


def test_an_error_of_the_job_is_not_retried(machine):
    """Each worker was called once; moto lets the map go on, and Step Functions ends it there."""
    answer = machine.wait(machine.start(fails="ValueError"))
    assert (answer["status"], answer["error"]) == ("FAILED", "ValueError")
    calls = [(call["step"], call["worker"]) for call in machine.endpoint.calls]
    assert sorted(calls) == [("collect", 0), *(("work", n + 1) for n in range(WORKERS))]


def test_it_gives_up_after_its_rounds_and_can_start_again(machine, tmp_path):
    """A claim that is held elsewhere, as by a worker that hangs, is waited for twice here."""
    with checkpoint("job", root=str(tmp_path / "root")).shards(SHARDS) as shards:
        held = shards.shard(2)
        with held:
            answer = machine.wait(machine.start())
            assert (answer["status"], answer["error"]) == ("FAILED", "Unfinished")
            assert "2 rounds" in answer["cause"]
        assert [call["step"] for call in machine.endpoint.calls].count("collect") == 2
    answer = machine.wait(machine.start())
    assert (answer["status"], json.loads(answer["output"])) == ("SUCCEEDED", TOTAL)
    assert machine.done() == ALL
