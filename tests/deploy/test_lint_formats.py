"""What the linter reads beside templates, and what it prints for other programs."""

from __future__ import annotations

import json
import os
import pathlib

import pytest
from tests.deploy.run import run

from efsstate.deploy.linting.lint import check
from efsstate.errors import TemplateError

BASE = pathlib.Path(os.path.dirname(__file__), "corpus", "cases", "base.yaml").read_text()
SLOW = BASE.replace("Timeout: 60", "Timeout: 3")
RESOURCES = BASE[BASE.index("  Vpc:") :]
SERVICE = """service: images
custom:
  mount: /mnt/efs
provider:
  name: aws
  runtime: python3.13
  vpc:
    securityGroupIds: [!Ref FnSg]
    subnetIds: [!Ref SubA, !Ref SubB]
functions:
  one-task:
    handler: app.handler
    timeout: 60
    dependsOn: [MtA, MtB]
    fileSystemConfig:
      localMountPath: ${self:custom.mount}
      arn: !GetAtt Ap.Arn
resources:
  Resources:
"""


def service():
    """Return a serverless.yml with the network and the file system of the good template."""
    resources = RESOURCES[: RESOURCES.index("  Role:\n")]
    return SERVICE + "".join(f"  {line}\n" for line in resources.splitlines())


def alarms(path, **options):
    """Return (severity, code) of the errors and warnings."""
    findings = check(str(path), **options).findings
    return {(each.severity, each.code) for each in findings if each.severity != "note"}


def test_a_serverless_service_is_read(tmp_path):
    """The Framework's own statement is on the access point, so the policed file system refuses."""
    path = tmp_path / "serverless.yml"
    path.write_text(service())
    assert check(str(path)).functions == 1
    assert alarms(path) == {("error", "EFS020")}
    assert alarms(tmp_path) == alarms(path)


def test_a_serverless_service_without_a_policy(tmp_path):
    """Without a file-system policy the same statement is a warning; it mounts."""
    text = service()
    start, end = text.index("        FileSystemPolicy:"), text.index("    MtA:")
    path = tmp_path / "serverless.yml"
    path.write_text(text[:start] + text[end:])
    assert alarms(path) == {("warning", "EFS020")}


def test_faults_in_a_serverless_service(tmp_path):
    """The Framework's default timeout of 6 s, and a path through a variable, are judged."""
    path = tmp_path / "serverless.yml"
    path.write_text(service().replace("    timeout: 60\n", ""))
    assert ("warning", "EFS041") in alarms(path)
    path.write_text(service().replace("mount: /mnt/efs", "mount: /efs"))
    assert ("error", "EFS040") in alarms(path)
    path.write_text(service().replace("mount: /mnt/efs", "mount: ${env:PLACE}"))
    assert alarms(path) == {("error", "EFS020")}


def test_a_service_in_other_files_names_the_package(tmp_path):
    """What the Framework joins from files is in the template that it packages."""
    path = tmp_path / "serverless.yml"
    path.write_text("service: x\nprovider: {name: aws}\nfunctions: ${file(f.yml)}\n")
    with pytest.raises(TemplateError, match="serverless package"):
        check(str(path))


def test_a_folder_of_templates(tmp_path):
    """Every template below cdk.out is checked; its other JSON files are passed over."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads CloudFormation's tags."""

    def build(loader, suffix, node):
        if isinstance(node, yaml.ScalarNode):
            value = loader.construct_scalar(node)
        else:
            value = loader.construct_sequence(node, deep=True)
        if suffix == "GetAtt":
            value = value.split(".")
        return {"Ref" if suffix == "Ref" else f"Fn::{suffix}": value}

    Loader.add_multi_constructor("!", build)
    good = json.dumps(yaml.load(BASE, Loader), default=str)
    bad = json.dumps(yaml.load(SLOW, Loader), default=str)
    inner = tmp_path / "assembly-Stage"
    inner.mkdir()
    (tmp_path / "One.template.json").write_text(good)
    (inner / "Two.template.json").write_text(bad)
    (tmp_path / "manifest.json").write_text('{"version": "1"}')
    report = check(str(tmp_path))
    assert report.functions == 2
    assert [(each.code, os.path.basename(each.file)) for each in report.findings] == [
        ("EFS041", "Two.template.json")
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cdk.json", '{"app": "python app.py", "context": {}}', "cdk synth"),
        ("Pulumi.yaml", "name: x\nruntime: yaml\nresources: {}\n", "doctor --aws"),
        ("terragrunt.hcl", 'include "root" {}\n', "terraform show -json"),
    ],
)
def test_other_formats_are_named(name, text, message, tmp_path):
    """A file or folder of another tool gets a word on what to check instead."""
    (tmp_path / name).write_text(text)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(TemplateError, match=message) as error:
            check(str(path))
        assert "\n" not in str(error.value)


def test_a_state_of_terraform_is_named(tmp_path):
    path = tmp_path / "terraform.tfstate"
    path.write_text('{"version": 4, "terraform_version": "1.9.0", "resources": []}')
    with pytest.raises(TemplateError, match="terraform show -json"):
        check(str(path))


@pytest.fixture
def slow(tmp_path):
    path = tmp_path / "a b,%.yaml"
    path.write_text(SLOW)
    return path


def test_github_annotations(slow):
    """One command a finding, with the characters escaped that a command gives a meaning to."""
    done = run("lint", slow, "--format", "github")
    assert done.code == 1
    (line,) = done.out.splitlines()
    assert line.startswith("::warning file=")
    assert "a b%2C%25.yaml,line=" in line
    assert "title=EFS041 " in line
    assert "::Fn: Timeout is 3 s%0Afix: " in line


def test_sarif(slow):
    """The log names its rules and places, and is empty where nothing is found."""
    done = run("lint", slow, "--format", "sarif")
    log = json.loads(done.out)
    (result,) = log["runs"][0]["results"]
    assert log["version"] == "2.1.0"
    assert (result["ruleId"], result["level"]) == ("EFS041", "warning")
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("a%20b%2C%25.yaml")
    assert place["region"]["startLine"] > 1
    rules = log["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["EFS041"]
    slow.write_text(BASE)
    assert json.loads(run("lint", slow, "--format", "sarif").out)["runs"][0]["results"] == []


def test_the_summary_says_how_much_was_looked_at(slow, tmp_path):
    """Nothing found is not the same as nothing looked at."""
    slow.write_text(BASE)
    assert run("lint", slow).out == "nothing found; functions with a file system looked at: 1\n"
    other = tmp_path / "other.yaml"
    other.write_text("Resources:\n  Net: {Type: AWS::CloudFormation::Stack}\n")
    out = run("lint", other).out
    assert out == (
        "nothing found; functions with a file system looked at: 0; not followed: nested stack Net\n"
    )
    off = BASE.replace("  Fn:\n", "  Fn:\n    Condition: Off\n", 1)
    other.write_text("Conditions: {Off: !Equals [a, b]}\n" + off)
    assert "looked at: 0; resources not created with these parameters: 1" in run("lint", other).out
    other.write_text("Resources:\n  Net: {Type: AWS::CloudFormation::Stack}\n")
    document = json.loads(run("lint", other, "--json").out)
    assert (document["functions"], document["not_followed"]) == (0, ["nested stack Net"])


def test_parameters_from_the_command_line_and_from_files(slow, tmp_path):
    """A value, CloudFormation's list, a mapping, and a tfvars file."""
    text = BASE.replace("Timeout: 60", "Timeout: !Ref Seconds")
    slow.write_text("Parameters:\n  Seconds: {Type: Number, Default: 60}\n" + text)
    files = {
        "list.json": '[{"ParameterKey": "Seconds", "ParameterValue": "3"}]',
        "map.json": '{"Seconds": "3"}',
        "wrapped.json": '{"Parameters": {"Seconds": "3"}}',
        "x.tfvars": "Seconds = 3\n",
    }
    assert run("lint", slow).code == 0
    assert run("lint", slow, "--parameters", "Seconds=3").code == 1
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        assert run("lint", slow, "--parameters", tmp_path / name).code == 1, name
    assert run("lint", slow, "--parameters", tmp_path / "none.json").code == 3


def test_a_value_for_a_parameter_that_is_not_there_is_refused(slow, tmp_path):
    """As Terraform and CloudFormation do it; a file may have values for other templates."""
    slow.write_text("Parameters:\n  Seconds: {Type: Number, Default: 60}\n" + BASE)
    done = run("lint", slow, "--parameters", "seconds=3")
    assert done.code == 2 and "--parameters seconds: the templates have no parameter" in done.err
    assert "those that they have: Seconds" in done.err
    (tmp_path / "more.json").write_text('{"Seconds": "3", "Others": "4"}')
    assert run("lint", slow, "--parameters", tmp_path / "more.json").code == 0
    other = tmp_path / "other.yaml"
    other.write_text("Parameters: {Others: {Type: String}}\n" + BASE)
    assert run("lint", slow, other, "--parameters", "Others=x").code == 0
    module = tmp_path / "module"
    module.mkdir()
    (module / "main.tf").write_text('resource "aws_lambda_function" "f" {}\nvariable "size" {}\n')
    assert run("lint", module, "--parameters", "size=3").code in (0, 1)
    assert run("lint", module, "--parameters", "sise=3").code == 2
    assert run("lint", module / "main.tf", "--parameters", "sise=3").code in (0, 1)


def test_ignored_codes(slow):
    """An ignored code is counted as silenced; one that does not exist is a usage error."""
    done = run("lint", slow, "--ignore", "efs041")
    assert done.code == 0
    assert "silenced: 1" in done.out
    assert run("lint", slow, "--ignore", "EFS999").code == 2
