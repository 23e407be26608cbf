"""`efsstate template --containers`: Batch and ECS on the same access point, retried rightly."""

import fnmatch
import json
import os
import re
import subprocess
import sys

import pytest
from tests.deploy.run import run

from efsstate import worker
from efsstate.deploy.template import FORMATS, render

HERE = os.path.dirname(os.path.abspath(__file__))


def resources(form):
    from samtranslator.yaml_helper import yaml_parse

    return yaml_parse(render(form, containers="jobs:work"))["Resources"]


def rules(form):
    """Return the conditions of the job's retry strategy as (field, pattern, action), in order."""
    if form == "terraform":
        text = re.search(r"retry_strategy {(.*?)\n  }\n", render(form, containers="a:b"), re.DOTALL)
        return [
            ("On" + "".join(word.title() for word in field.split("_")), pattern, action)
            for action, field, pattern in re.findall(
                r'action\s+= "(\w+)"\s+on_(\w+)\s+= "([^"]*)"', text[1]
            )
        ]
    strategy = resources(form)["ContainerJob"]["Properties"]["RetryStrategy"]
    assert strategy["Attempts"] == 10
    found = []
    for rule in strategy["EvaluateOnExit"]:
        (field,) = set(rule) - {"Action"}
        found.append((field, rule[field], rule["Action"]))
    return found


def decide(conditions, **attempt):
    """Decide as Batch does: the first condition that matches; a retry if there is none."""
    for field, pattern, action in conditions:
        if fnmatch.fnmatchcase(attempt.get(field, ""), pattern):
            return action
    return "RETRY"


@pytest.mark.parametrize("form", FORMATS)
def test_batch_runs_again_what_is_worth_it(form):
    """The worker's own exit codes, Spot's status reasons, and a kill without notice."""
    conditions = rules(form)
    assert len(conditions) == 5, "Batch takes no more"
    for code, action in (
        (worker.AGAIN, "RETRY"),
        (137, "RETRY"),
        (worker.FAILED, "EXIT"),
        (worker.USAGE, "EXIT"),
    ):
        reason = "Essential container in task exited"
        attempt = {"OnExitCode": str(code), "OnStatusReason": reason}
        assert decide(conditions, **attempt) == action, code
    for reason in ("Host EC2 (instance i-0) terminated.", "Your Spot Task was interrupted."):
        assert decide(conditions, OnStatusReason=reason) == "RETRY"


@pytest.mark.parametrize("form", ["sam", "cloudformation"])
def test_job_and_task_mount_the_functions_access_point(form):
    found = resources(form)
    job = found["ContainerJob"]["Properties"]["ContainerProperties"]
    task = found["ContainerTask"]["Properties"]
    first = job["Volumes"][0]["EfsVolumeConfiguration"]
    second = task["Volumes"][0]["EFSVolumeConfiguration"]
    assert first["TransitEncryption"] == second["TransitEncryption"] == "ENABLED"
    assert first["AuthorizationConfig"]["Iam"] == second["AuthorizationConfig"]["IAM"] == "ENABLED"
    points = [volume["AuthorizationConfig"]["AccessPointId"] for volume in (first, second)]
    assert points[0] == points[1]
    assert points[0]["Fn::If"][:2] == ["NewAccessPoint", {"Ref": "AccessPoint"}]
    container = task["ContainerDefinitions"][0]
    for environment in (job["Environment"], container["Environment"]):
        assert environment == [{"Name": "EFSSTATE_ROOT", "Value": "/mnt/efs"}]
    role = found["ContainerRole"]["Properties"]
    assert role["ManagedPolicyArns"] == [{"Ref": "MountPolicy"}] and "Policies" not in role
    assert job["JobRoleArn"] == task["TaskRoleArn"] == {"Fn::GetAtt": ["ContainerRole", "Arn"]}


def test_terraforms_job_and_task_mount_the_same_access_point():
    text = render("terraform", containers="jobs:work")
    assert text.count("local.access_point_id") == 2
    assert '"python", "-m", "efsstate.worker", "jobs:work"' in text


def test_the_jobs_command_runs(tmp_path):
    """With its parameters put in, as Batch does."""
    job = resources("cloudformation")["ContainerJob"]["Properties"]
    given = {"notes": str(tmp_path), "shards": 2, "items": 2, "pause": 0}
    parameters = {**job["Parameters"], "input": json.dumps(given)}
    command = [
        re.sub(r"^Ref::(\w+)$", lambda match: parameters[match[1]], word)
        for word in job["ContainerProperties"]["Command"]
    ]
    path = os.pathsep.join([HERE, *filter(None, sys.path)])
    environment = {**os.environ, "EFSSTATE_ROOT": str(tmp_path / "root"), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *command[1:]], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seconds = job["Timeout"]["AttemptDurationSeconds"]
    from efsstate.units import seconds as parsed

    assert parsed(parameters["limit"]) < seconds, "Batch does not retry what its timeout ends"


def test_containers_in_a_new_vpc_need_a_way_out():
    from samtranslator.yaml_helper import yaml_parse

    rule = yaml_parse(render("sam", containers="a:b"))["Rules"]["ContainerImages"]
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "VpcId"}, ""]}
    assert "InternetAccess" in rule["Assertions"][0]["AssertDescription"]
    assert "in a new VPC they need internet_access" in render("terraform", containers="a:b")


def test_another_form_is_refused():
    for wrong in ("batch", "batch:", "batch.read", "batch:read; rm -rf /", '"x":y'):
        refused = run("template", "sam", "--containers", wrong)
        assert (refused.code, "module:function" in refused.err) == (2, True)
    for form in FORMATS:
        assert "ontainer" not in render(form).replace("container image", "").replace(
            "The container image", ""
        )
