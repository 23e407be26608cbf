"""`efsstate template --workers`: the same state machine in three formats, linted, least rights."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import hcl2
import pytest
from tests.deploy.run import run

from efsstate.deploy.template import FORMATS, definition, render

ACTIONS = {
    "lambda:InvokeFunction",
    "states:StartExecution",
    "states:DescribeExecution",
    "states:StopExecution",
}


def write(folder, form):
    path = folder / f"{form}.{'tf' if form == 'terraform' else 'yaml'}"
    path.write_text(render(form, workers=32, containers="batch:read"))
    return str(path)


def loaded(form):
    from samtranslator.yaml_helper import yaml_parse

    return yaml_parse(render(form, workers=32))


def asl(form):
    """Return the definition in a template, with each format's own words replaced."""
    if form == "terraform":
        text = re.search(r"<<-JSON\n(.*?)\n  JSON\n", render(form, workers=32), re.DOTALL)[1]
        for old, new in (
            ("${var.workers}", "32"),
            ("${data.aws_partition.here.partition}", "aws"),
            ('${aws_lambda_function.this["batch"].arn}', "ARN"),
        ):
            text = text.replace(old, new)
    else:
        machine = loaded(form)["Resources"]["WorkersMachine"]
        text = machine["Properties"]["DefinitionString"]["Fn::Sub"]
        for old, new in (("Workers", "32"), ("AWS::Partition", "aws"), ("Batch.Arn", "ARN")):
            text = text.replace("${" + old + "}", new)
    assert "${" not in text
    return json.loads(text)


def test_all_formats_have_the_same_state_machine():
    wanted = json.loads(definition(Partition="aws", Function="ARN", Workers="32"))
    for form in FORMATS:
        assert asl(form) == wanted, form
    assert wanted["States"]["Work"]["MaxConcurrency"] == 32


def cfn_lint(*files):
    command = [sys.executable, "-c", "from cfnlint.runner.cli import main; main()", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("form", ["cloudformation", pytest.param("sam", marks=pytest.mark.slow)])
def test_cfn_lint_finds_nothing(tmp_path, form):
    """It reads the definition only as an object, so that is written out beside the stack."""
    role = "arn:aws:iam::123456789012:role/workers"
    written = json.loads(json.dumps(asl(form)).replace("ARN", role))
    properties = {"RoleArn": role, "Definition": written}
    machine = {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}
    path = tmp_path / "machine.json"
    path.write_text(json.dumps({"Resources": {"Machine": machine}}))
    assert cfn_lint(str(path), write(tmp_path, form)) == (0, "")


def test_our_own_lint_finds_nothing(tmp_path):
    for form in FORMATS:
        found = run("lint", write(tmp_path, form))
        assert (found.code, "nothing found" in found.out) == (0, True), found.out


def test_terraform_reads_it_and_would_not_reformat_it(tmp_path):
    path = write(tmp_path, "terraform")
    with open(path, encoding="utf-8") as file:
        tree = hcl2.load(file)
    kinds = {kind.strip('"') for block in tree["resource"] for kind in block}
    assert {"aws_sfn_state_machine", "aws_iam_role_policy"} <= kinds
    if shutil.which("terraform") is None:
        pytest.skip("no terraform here: only the HCL parser was asked")
    command = ["terraform", "fmt", "-check", "-diff", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_machines_role_may_call_the_batch_and_itself():
    for form in ("sam", "cloudformation"):
        resources = loaded(form)["Resources"]
        (policy,) = resources["WorkersRole"]["Properties"]["Policies"]
        statements = policy["PolicyDocument"]["Statement"]
        actions = {
            action
            for statement in statements
            for action in (
                [statement["Action"]]
                if isinstance(statement["Action"], str)
                else statement["Action"]
            )
        }
        assert actions == ACTIONS
        assert "*" not in [statement["Resource"] for statement in statements]
        assert statements[0]["Resource"] == {"Fn::GetAtt": ["Batch", "Arn"]}
        name = resources["WorkersMachine"]["Properties"]["StateMachineName"]["Fn::Sub"]
        for statement, tail in zip(statements[1:], ("", ":*"), strict=True):
            assert statement["Resource"]["Fn::Sub"].endswith(f":{name}{tail}")
    text = re.search(
        r'data "aws_iam_policy_document" "workers" {(.*?)\n}',
        render("terraform", workers=2),
        re.DOTALL,
    )[1]
    assert set(re.findall(r'"(\w+:\w+)"', text)) == ACTIONS


def test_without_the_option_there_is_no_state_machine():
    for form in FORMATS:
        assert "states:" not in render(form)
        assert "orkers" not in render(form)


def test_the_command_takes_a_number_of_workers():
    assert run("template", "sam", "--workers", "32").out == render("sam", workers=32)
    refused = run("template", "sam", "--workers", "1001")
    assert (refused.code, "1 to 1,000" in refused.err) == (2, True)
