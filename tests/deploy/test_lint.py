"""The linter: each code on its broken templates, nothing on good ones, one line on bad input."""

from __future__ import annotations

import glob
import json
import os
import re

import pytest
from tests.deploy import faults
from tests.deploy.run import run

from efsstate.deploy.findings import SEVERITIES
from efsstate.deploy.linting.lint import lint, read
from efsstate.deploy.linting.permissions import permissions_of, role_of
from efsstate.deploy.rules import RULES
from efsstate.deploy.template import FORMATS, render
from efsstate.errors import TemplateError

CORPUS = os.path.join(os.path.dirname(__file__), "corpus")
GOOD = sorted(glob.glob(f"{CORPUS}/good/*"))
TEMPLATE_CODES = {code for code, rule in RULES.items() if rule.check is not None}


@pytest.fixture(scope="session")
def broken(tmp_path_factory):
    """The broken templates' paths, by name."""
    return faults.write_all(tmp_path_factory.mktemp("broken"))


@pytest.mark.parametrize("name", sorted(faults.BROKEN))
def test_a_broken_template_gives_its_codes_and_no_other(name, broken):
    path = broken[name]
    found = lint(path)
    assert {one.code for one in found} == faults.EXPECTED[name]
    for one in found:
        assert one.severity in SEVERITIES
        assert one.file == path
        assert one.line > 0
        assert one.evidence
        assert one.fix
        assert one.page == f"lint/{one.code}.md"


@pytest.mark.parametrize("path", GOOD, ids=os.path.basename)
def test_a_good_template_gives_no_error_or_warning(path):
    """AWS's own examples leave the timeout at 3 s, and one allows every file system."""
    expected = {
        "cdk-documentation.json": {"EFS041"},
        "sam-documentation.yaml": {"EFS023", "EFS041"},
    }
    serious = {finding.code for finding in lint(path) if finding.severity == "warning"}
    assert serious == expected.get(os.path.basename(path), set())
    assert "error" not in {finding.severity for finding in lint(path)}


@pytest.mark.parametrize("path", [one for one in GOOD if "base" in one], ids=os.path.basename)
def test_the_base_of_the_broken_ones_gives_nothing_at_all(path):
    """So that a broken one differs by its fault alone; and the rules did see the whole way."""
    assert lint(path) == []
    (function,) = read(path).functions()
    ((_, _, targets),) = read(path).served()
    assert len(targets) == 2
    role = role_of(read(path), function)
    assert permissions_of(read(path), role).is_complete


def test_every_rule_has_a_broken_template():
    assert set.union(*faults.EXPECTED.values()) >= TEMPLATE_CODES


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "variant", [{}, {"image": True}, {"layer": "layer.zip"}], ids=["zip", "image", "layer"]
)
def test_our_own_templates_give_nothing(form, variant, tmp_path):
    path = tmp_path / ("main.tf" if form == "terraform" else "template.yaml")
    path.write_text(render(form, **variant))
    assert lint(str(path)) == []
    served = list(read(str(path)).served())
    assert len(served) == (
        1 if form == "terraform" else 5
    )  # with the default parameters there is no publisher
    for _, _, targets in served:
        assert len(targets) == (1 if form == "terraform" else 2)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (
            (
                "      FromPort: 2049\n      ToPort: 2049\n      SourceSecurityGroupId",
                "      FromPort: 20\n      ToPort: 20\n      SourceSecurityGroupId",
            ),
            "EFS001",
        ),
        (
            ("[!Ref MountTargetA, !Ref MountTargetB, ", "[!Ref MountTargetA, "),
            "EFS007",
        ),
        (
            (
                "Resource: !If [NewFileSystem, !GetAtt FileSystem.Arn",
                "Resource: !If [NewFileSystem, !GetAtt AccessPoint.Arn",
            ),
            "EFS020",
        ),
        (('Permissions: "0750"', 'Permissions: "0777"'), "EFS026"),
    ],
)
def test_a_fault_put_into_our_own_template_is_found(fault, code, tmp_path):
    text = render("sam")
    assert fault[0] in text
    path = tmp_path / "template.yaml"
    path.write_text(text.replace(*fault))
    assert code in {one.code for one in lint(str(path))}


def test_json_and_yaml_of_one_template_give_the_same(tmp_path, broken):
    """The JSON a tool makes of a YAML template has the same findings."""
    from cfnlint.decode.cfn_yaml import load

    for path in (broken["EFS001-port.yaml"], broken["EFS020-arn.yaml"]):
        other = tmp_path / "template.json"
        other.write_text(json.dumps(load(path), default=str, indent="\t"))
        assert {(one.code, one.resource) for one in lint(str(other))} == {
            (one.code, one.resource) for one in lint(path)
        }


def test_terraform_json_and_folders(tmp_path):
    (tmp_path / "a.tf").write_text(
        'resource "aws_efs_file_system" "fs" {\n  encrypted = false\n}\n'
    )
    (tmp_path / "b.tf.json").write_text(
        json.dumps(
            {
                "resource": {
                    "aws_efs_access_point": {
                        "ap": {
                            "file_system_id": "${aws_efs_file_system.fs.id}",
                            "root_directory": {"path": "/"},
                        }
                    }
                }
            }
        )
    )
    found = {(one.code, one.resource, os.path.basename(one.file)) for one in lint(str(tmp_path))}
    assert ("EFS030", "aws_efs_file_system.fs", "a.tf") in found
    assert ("EFS025", "aws_efs_access_point.ap", "b.tf.json") in found


# ---- bad input: one line, no traceback, exit code 3 ----

UNREADABLE = {
    "empty.yaml": "",
    "text.yaml": "hello\n",
    "list.yaml": "- a\n- b\n",
    "nothing.yaml": "Resources: {}\n",
    "no-type.yaml": "Resources:\n  A:\n    Properties: {}\n",
    "broken.yaml": "Resources:\n  A: [\n",
    "indent.yaml": "Resources:\n   A:\n  B:\n\tC: 1\n",
    "broken.json": '{"Resources": {"A": }',
    "two.yaml": "Resources: {A: {Type: X}}\n---\nResources: {}\n",
    "binary.yaml": "\x00\x01\x02",
    "compose.yaml": "services:\n  web:\n    image: nginx\n",
    "deep.yaml": "Resources: " + "[" * 5000 + "]" * 5000,
    "deep.json": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "dashes.yaml": "Resources:\n  " + "- " * 20_000 + "x\n",
    "wide.yaml": "Resources:\n"
    + "".join(f"  R{i}: {{Type: 'AWS::SNS::Topic'}}\n" for i in range(30_000)),
    "many.yaml": "Resources:\n"
    + "".join(f"  R{i}: {{Type: 'AWS::SNS::Topic'}}\n" for i in range(3_000)),
    "laughs.yaml": "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
    ),
    "self.yaml": "Resources: &a\n  A: *a\n",
    "empty.tf": "",
    "broken.tf": 'resource "aws_vpc" "a" {\n',
    "deep.tf": "locals {\n  a = " + "[" * 3000 + "]" * 3000 + "\n}\n",
    "broken.tf.json": "{",
    "list.tf.json": "[]",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_checked_is_said_in_one_line(name, tmp_path):
    path = tmp_path / name
    path.write_text(UNREADABLE[name])
    with pytest.raises(TemplateError) as error:
        lint(str(path))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    done = run("lint", path)
    assert (done.code, done.out) == (3, "")
    assert len(done.err.strip().splitlines()) == 1


def test_huge_missing_and_unreadable_files(tmp_path):
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"a: b\n" * 1_200_000)
    with pytest.raises(TemplateError, match="over 4 MiB"):
        lint(str(huge))
    with pytest.raises(TemplateError, match="No such file"):
        lint(str(tmp_path / "none.yaml"))
    with pytest.raises(TemplateError, match="no template in this folder"):
        lint(str(tmp_path))
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"Resources: \xff\xfe")
    with pytest.raises(TemplateError, match="not text"):
        lint(str(latin))


def test_unknown_intrinsics_and_odd_arguments_are_passed_over(tmp_path):
    """An unknown function, or one with odd arguments, is an unknown value: no crash, no guess."""
    path = tmp_path / "template.yaml"
    path.write_text(
        """
Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]
Conditions:
  A: !Not [!Condition B]
  B: !Not [!Condition A]
  C: !Equals [1]
  D: !Frobnicate x
Resources:
  Fn::ForEach::Many: [x, [a, b], {}]
  FileSystem:
    Type: AWS::EFS::FileSystem
    Condition: A
    Properties:
      Encrypted: !Frobnicate [1, 2]
      ThroughputMode: !If [C, a, b]
      ProvisionedThroughputInMibps: !Select [x, y, z]
      LifecyclePolicies: !FindInMap [a, b]
      FileSystemPolicy: !Transform {Name: x}
  AccessPoint:
    Type: AWS::EFS::AccessPoint
    Properties:
      FileSystemId: !Sub ["${x}", {x: !Ref FileSystem}]
      PosixUser: !GetAtt Custom.User
      RootDirectory: !GetAtt [Custom]
  Function:
    Type: AWS::Serverless::Function
    Properties:
      Timeout: !Sub [1]
      Role: !Join x
      Policies: !If [D, [], !Ref AWS::NoValue]
      VpcConfig: !Ref VpcConfig
      FileSystemConfigs: !Split [",", !Base64 x]
"""
    )
    assert [one for one in lint(str(path)) if one.severity == "error"] == []


def test_defaults_of_parameters_decide(tmp_path):
    """!Ref of a parameter is its default; a branch that the defaults do not take is not judged."""
    with open(f"{CORPUS}/good/base.yaml", encoding="utf-8") as file:
        base = file.read()
    path = tmp_path / "template.yaml"
    parameters = "Parameters:\n  Seconds: {Type: Number, Default: 3}\nResources:"
    path.write_text(
        base.replace("Resources:", parameters, 1).replace("Timeout: 60", "Timeout: !Ref Seconds")
    )
    assert [one.code for one in lint(str(path))] == ["EFS041"]
    either = (
        "Parameters:\n  Stage: {Type: String, Default: prod}\n"
        "Conditions:\n  Dev: !Equals [!Ref Stage, dev]\nResources:"
    )
    path.write_text(
        base.replace("Resources:", either, 1).replace("Timeout: 60", "Timeout: !If [Dev, 3, 60]")
    )
    assert lint(str(path)) == []
    path.write_text(
        base.replace("Resources:", either, 1).replace("Timeout: 60", "Timeout: !If [Dev, 60, 3]")
    )
    assert [one.code for one in lint(str(path))] == ["EFS041"]


# ---- the command ----


def test_exit_codes_and_output(broken):
    fine = run("lint", f"{CORPUS}/good/base.yaml")
    assert (fine.code, fine.out.split(";")[0]) == (0, "nothing found")
    bad = run("lint", broken["EFS001-port.yaml"])
    assert bad.code == 1
    assert re.search(r"EFS001-port\.yaml:\d+: .*error EFS001", bad.out)
    assert "fix: " in bad.out
    advice = broken["EFS052-none.yaml"]
    assert run("lint", advice).code == 0
    assert "EFS052" not in run("lint", advice).out
    assert "EFS052" in run("lint", "--notes", advice).out
    assert run("lint", "--strict", advice).code == 1
    assert run("lint").code == 2
    assert run("lint", "--explain", "EFS999").code == 2
    assert run("lint", f"{CORPUS}/good/base.yaml", f"{CORPUS}/none.yaml").code == 3


def test_a_hostile_name_does_not_reach_the_terminal(tmp_path):
    path = tmp_path / "template.yaml"
    path.write_text(
        'Resources: {"Fs\\e[31m": {Type: "AWS::EFS::FileSystem", Properties: {Encrypted: "false"}}}'
    )
    done = run("lint", path)
    assert done.code == 1
    assert "Fs" in done.out
    assert "\x1b" not in done.out


def test_json_is_one_document_with_schema_and_version(tmp_path, broken):
    done = run("lint", "--json", broken["EFS040-path.yaml"], tmp_path / "none.yaml")
    told = json.loads(done.out)
    assert (told["schema"], told["version"]) == ("efsstate.lint", 1)
    assert [one["code"] for one in told["findings"]] == ["EFS040", "EFS045"]
    assert set(told["findings"][0]) == {
        "code",
        "severity",
        "what",
        "resource",
        "evidence",
        "fix",
        "page",
        "file",
        "line",
    }
    assert len(told["failed"]) == 1
    assert done.code == 3


@pytest.mark.parametrize("code", RULES)
def test_explain_prints_the_page(code):
    done = run("lint", "--explain", code.lower())
    assert done.code == 0
    assert done.out.startswith(f"# {code}: {RULES[code].title}")
    assert "## What to do" in done.out
    assert json.loads(run("lint", "--explain", code, "--json").out)["code"] == code
