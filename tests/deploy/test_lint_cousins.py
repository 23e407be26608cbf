"""The linter on cousins of its known cases: zones, groups, roles and truth in other spellings.

As in `test_lint_kin.py`, the codes in front of a name are all the errors and warnings that the
change must give; none means that a finding would be false.
"""

from __future__ import annotations

import pytest
from tests.deploy.test_lint_cases import BASE, changed, findings
from tests.deploy.test_lint_cases import alarms as codes
from tests.deploy.test_lint_formats import service
from tests.deploy.test_lint_relatives import attached, sam
from tests.deploy.test_lint_terraform import T, alarms, write
from tests.deploy.test_lint_terraform import changed as terraform

from efsstate.deploy.linting.lint import check

FIRST = 'AvailabilityZone: !Select [0, !GetAZs ""]'
SECOND = 'AvailabilityZone: !Select [1, !GetAZs ""]'
SUBNETS = "SubnetIds: [!Ref SubA, !Ref SubB]"
NETWORK = f"      VpcConfig: {{{SUBNETS}, SecurityGroupIds: [!Ref FnSg]}}\n"
FAR_TARGET = BASE[BASE.index("  MtB:\n") : BASE.index("  Ap:\n")]
ONE_TARGET = ((FAR_TARGET, ""), ("DependsOn: [MtA, MtB]", "DependsOn: MtA"))
SUB_C = """  SubC:
    Type: AWS::EC2::Subnet
    Properties: {VpcId: !Ref Vpc, CidrBlock: 10.0.3.0/24, %s}
  FnSg:
"""
ONE_ZONE = (
    "      Encrypted: true\n",
    "      AvailabilityZoneName: us-east-1a\n      Encrypted: true\n",
)
USER = 'PosixUser: {Uid: "1001", Gid: "1001"}'
OWNER = 'OwnerUid: "1001", OwnerGid: "1001", Permissions: "0750"'
OF_A_GROUP = (OWNER, 'OwnerUid: "0", OwnerGid: "2000", Permissions: "0770"')
ROLE_HEAD = "  Role:\n    Type: AWS::IAM::Role\n    Properties:\n"
NAMED_ROLE = (ROLE_HEAD, f"{ROLE_HEAD}      RoleName: shop\n")
SWITCHED = """Parameters:
  P: {Type: String, Default: %s}
Conditions:
  C: !Equals [!Ref P, %s]
Resources:"""
TARGET_HEAD = "  MtB:\n    Type: AWS::EFS::MountTarget\n"
IF_ON = (TARGET_HEAD, f"{TARGET_HEAD}    Condition: C\n")
SAM_HEAD = "    Type: AWS::Serverless::Function\n"
STAGES = "Mappings: {M: {dev: {T: 20}}}\nResources:"


def between(letter):
    """Return a change to zones that are written as a region and a letter."""
    return (
        (FIRST, 'AvailabilityZone: !Sub "${AWS::Region}a"'),
        (SECOND, f'AvailabilityZone: !Join ["", [!Ref AWS::Region, {letter}]]'),
    )


TEMPLATES = {
    # zones
    ": a zone's name beside places in a list": changed(
        ("  FnSg:\n", SUB_C % "AvailabilityZone: us-east-1a"),
        (SUBNETS, "SubnetIds: [!Ref SubC, !Ref SubB]"),
    ),
    ": a zone's id beside names": changed(
        (FIRST, "AvailabilityZone: us-east-1a"),
        (SECOND, "AvailabilityZone: us-east-1b"),
        ("  FnSg:\n", SUB_C % "AvailabilityZoneId: use1-az1"),
        (SUBNETS, "SubnetIds: [!Ref SubC, !Ref SubB]"),
    ),
    ": letters behind the region": changed(*between("b")),
    "EFS004: letters behind the region, one target": changed(*between("b"), *ONE_TARGET),
    "EFS009: one letter behind the region": changed(*between("a")),
    ": One Zone by its name, a subnet by place": changed(
        ONE_ZONE, *ONE_TARGET, (SUBNETS, "SubnetIds: [!Ref SubA]")
    ),
    "EFS056: One Zone by its name, subnets by place": changed(ONE_ZONE, *ONE_TARGET),
    # access points
    ": a directory of a secondary group": changed(
        (USER, f'{USER[:-1]}, SecondaryGids: ["5", "2000"]}}'), OF_A_GROUP
    ),
    ": secondary groups that are not known": changed(
        ("Resources:", "Parameters: {G: {Type: CommaDelimitedList}}\nResources:"),
        (USER, f"{USER[:-1]}, SecondaryGids: !Ref G}}"),
        OF_A_GROUP,
    ),
    "EFS029: a directory of another group": changed(
        (USER, f'{USER[:-1]}, SecondaryGids: ["2001"]}}'), OF_A_GROUP
    ),
    # roles
    ": a policy for the role's name": attached("Policy", "Roles: [shop]").replace(*NAMED_ROLE),
    "EFS022: a policy for another role's name": attached("Policy", "Roles: [other]").replace(
        *NAMED_ROLE
    ),
    # plain words that are truth values
    ": a condition with a capital": changed(("Resources:", SWITCHED % ('"true"', "True")), IF_ON),
    ": a default with a capital": changed(("Resources:", SWITCHED % ("TRUE", '"true"')), IF_ON),
    "EFS004: a condition that is off": changed(("Resources:", SWITCHED % ('"true"', "no")), IF_ON),
    "EFS030: encryption that is off": changed(("Encrypted: true", "Encrypted: no")),
    "EFS041: a default of FindInMap": changed(
        ("Resources:", f"Transform: AWS::LanguageExtensions\n{STAGES}"),
        ("Timeout: 60", "Timeout: !FindInMap [M, prod, T, {DefaultValue: 2}]"),
    ),
    # SAM
    "EFS041: a timeout of Globals that is ignored": sam(
        (SAM_HEAD, f"{SAM_HEAD}    IgnoreGlobals: [Timeout]\n"),
        ("      Timeout: 60\n", ""),
        globals_="Globals: {Function: {Timeout: 60}}\n",
    ),
    "EFS008: Globals that are all ignored": sam(
        (SAM_HEAD, f'{SAM_HEAD}    IgnoreGlobals: "*"\n'),
        (NETWORK, ""),
        globals_=f"Globals: {{Function: {{{NETWORK.strip()}}}}}\n",
    ),
    ": a list of merge keys": BASE.replace("{FileSystemId: !Ref Fs, SubnetId: !Ref SubA", "&a {\\g")
    .replace("\\g", "FileSystemId: !Ref Fs, SubnetId: !Ref SubA")
    .replace("{FileSystemId: !Ref Fs, SubnetId: !Ref SubB", "{<<: [*a, {}], SubnetId: !Ref SubB"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template(name, tmp_path):
    expected, _, _ = name.partition(":")
    assert codes(findings(tmp_path, TEMPLATES[name])) == set(expected.split())


EXTRA = """resource "aws_efs_access_point" "extra" {
  count          = %s
  file_system_id = aws_efs_file_system.this.id
}
variable "extra" {
  default = %s
}
"""
ATTACHMENT = T[T.index('resource "aws_iam_role_policy_attachment" "vpc"') :].split("\n}\n")[0]
EXCLUSIVE = """resource "aws_iam_role_policy_attachments_exclusive" "all" {
  role_name   = aws_iam_role.function.name
  policy_arns = ["arn:aws:iam::aws:policy/service-role/%s"]"""
THIRD_SUBNET = """resource "aws_subnet" "c" {
  vpc_id            = aws_vpc.main.id
  cidr_block        = "10.0.3.0/24"
  availability_zone = "${var.region}c"
}
variable "region" {}
"""
MODULES = {
    ": a path with a directive": terraform(
        ('path = "/mnt/efs"', 'path = "/mnt/%{ if var.on }efs%{ else }more%{ endif }"')
    )
    + 'variable "on" {}\n',
    ": a count of what is not empty": T + EXTRA % ("length(compact([var.extra]))", '""'),
    ": a count that may be of nothing": T
    + EXTRA.partition("variable")[0] % "length(compact([var.extra])) > 0 ? 0 : 0",
    ": a count of a map": T + EXTRA % ("length(var.extra)", "{}"),
    ": a count of a text": T + EXTRA % ("length(var.extra) > 0 ? 1 : 0", '""'),
    ": a count of what is distinct": T
    + EXTRA % ("length(distinct(var.extra)) == 1 ? 0 : 1", '["a", "a"]'),
    "EFS025 EFS027: a count of one": T + EXTRA % ("length(compact([var.extra]))", '"on"'),
    "EFS041: the first in order": terraform(
        ("timeout       = 60", "timeout       = local.seconds[0]")
    )
    + 'locals {\n  seconds = sort(["60", "3"])\n}\n',
    ": all attachments of a role": terraform(
        (ATTACHMENT, EXCLUSIVE % "AWSLambdaVPCAccessExecutionRole")
    ),
    "EFS035: all attachments, none for the network": terraform(
        (ATTACHMENT, EXCLUSIVE % "AWSLambdaBasicExecutionRole")
    ),
    ": a directory of a secondary group": terraform(
        ("    gid = 1001\n", "    gid = 1001\n    secondary_gids = [2000]\n"),
        ("owner_uid   = 1001", "owner_uid   = 0"),
        ("owner_gid   = 1001", "owner_gid   = 2000"),
        ('"0750"', '"0770"'),
    ),
    "EFS004: letters behind the region": terraform(
        ('availability_zone = "eu-west-1a"', 'availability_zone = "${var.region}a"'),
        ('availability_zone = "eu-west-1b"', 'availability_zone = "${var.region}b"'),
        ("subnet_id       = aws_subnet.b.id", "subnet_id       = aws_subnet.c.id"),
    )
    + THIRD_SUBNET,
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module(name, tmp_path):
    expected, _, _ = name.partition(":")
    assert alarms(write(tmp_path, main_tf=MODULES[name])) == set(expected.split())


CALLED = T.replace("timeout       = 60", "timeout       = var.seconds")
CALLS = {
    ": for an empty map": ("  for_each = {}\n  seconds = 3", ""),
    ": for an empty set": ("  for_each = toset([])\n  seconds = 3", ""),
    "EFS041: for a set": ('  for_each = toset(["a"])\n  seconds = 3', ""),
    ": null for the default": ("  seconds = null", "default = 60\n  nullable = false"),
    "EFS041: null in place of the default": ("  seconds = null", "default = 60"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_module_that_is_called(name, tmp_path):
    expected, _, _ = name.partition(":")
    call, variable = CALLS[name]
    child = CALLED + f'variable "seconds" {{\n  {variable}\n}}\n'
    root = f'module "m" {{\n  source = "./m"\n{call}\n}}\nresource "aws_vpc" "more" {{}}\n'
    assert alarms(write(tmp_path, main_tf=root, m__main_tf=child)) == set(expected.split())


@pytest.mark.parametrize("off", ["count = 0", "for_each = var.items"])
def test_a_folder_whose_modules_are_all_off(off, tmp_path):
    """A wrapper of a module makes nothing by default; it is a module all the same."""
    root = (
        f'module "m" {{\n  source = "./m"\n  {off}\n}}\nvariable "items" {{\n  default = {{}}\n}}\n'
    )
    report = check(str(write(tmp_path, main_tf=root, m__main_tf=T)))
    assert (report.findings, report.functions, report.skipped) == ([], 0, 1)


def test_policies_of_one_function_of_a_service(tmp_path):
    """serverless-iam-roles-per-function makes a role of its own, without the EFS statement."""
    statements = "    iamRoleStatements:\n      - {Effect: Allow, Action: '*', Resource: '*'}\n"
    text = service().replace("    timeout: 60\n", f"    timeout: 60\n{statements}")
    assert codes(findings(tmp_path, text, "serverless.yml")) == set()


@pytest.mark.parametrize("functions", ["\n  - ${file(a.yml)}", "\n  a: ${file(a.yml)}", ""])
def test_a_service_without_resources_is_a_service(functions, tmp_path):
    path = tmp_path / "serverless.yml"
    path.write_text(f"service: s\nprovider: {{name: aws}}\nfunctions:{functions}\n")
    report = check(str(path))
    assert (report.findings, report.functions, bool(report.unseen)) == ([], 0, bool(functions))
