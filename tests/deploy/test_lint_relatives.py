"""The linter on relatives of its known cases: other ways to write what is right, and what is not.

Each is a change of a template without findings. The codes in front of a name are all the errors and
warnings that it must give; none means that a finding would be false.
"""

from __future__ import annotations

import pytest
from tests.deploy.test_lint_cases import (
    ALLOWED,
    BASE,
    INGRESS,
    STATEMENT,
    THIRD_SUBNET,
    changed,
    findings,
)
from tests.deploy.test_lint_cases import UNKNOWN_CONDITION as UNKNOWN
from tests.deploy.test_lint_cases import alarms as codes
from tests.deploy.test_lint_terraform import ROLE_POLICY, T, alarms, write
from tests.deploy.test_lint_terraform import changed as terraform

IN = ("Resources:", UNKNOWN)
DEPENDS = "    DependsOn: [MtA, MtB]\n"
FUNCTION_GROUP = "{GroupDescription: fn, VpcId: !Ref Vpc}"
SUBNETS = "VpcConfig: {SubnetIds: [!Ref SubA, !Ref SubB], SecurityGroupIds: [!Ref FnSg]}"
TARGETS = BASE[BASE.index("  MtA:\n") : BASE.index("  Ap:\n")]
HTTPS_ONLY = (
    FUNCTION_GROUP,
    FUNCTION_GROUP[:-1] + ", SecurityGroupEgress: [{IpProtocol: tcp, FromPort: 443, ToPort: 443, "
    "CidrIp: 0.0.0.0/0}]}",
)
NFS = "IpProtocol: tcp, FromPort: 2049, ToPort: 2049"


def parameter(line):
    """Return the change that adds a parameter."""
    return "Resources:", f"Parameters:\n  {line}\nResources:"


def rule(text):
    """Return the good template with another inbound rule at the mount targets."""
    return changed((INGRESS, f"        - {text}\n"))


def attached(kind, roles):
    """Return the good template with its permission in a resource of its own."""
    statement = STATEMENT.replace("              -", "          -")
    statement = statement.replace("                ", "            ")
    resource = f"""  Pol:
    Type: AWS::IAM::{kind}
    Properties:
      PolicyName: mount
      {roles}
      PolicyDocument:
        Statement:
{statement}"""
    return changed((STATEMENT, "              []\n"), ("  Fn:\n", resource + "  Fn:\n"))


def sam(*pairs, globals_=""):
    """Return the good template as one of SAM."""
    return changed(
        ("Resources:", f"Transform: AWS::Serverless-2016-10-31\n{globals_}Resources:"),
        ("AWS::Lambda::Function", "AWS::Serverless::Function"),
        ('Code: {ZipFile: "def handler(e, c): return 1"}', "InlineCode: x"),
        *pairs,
    )


ROLE = "      Role: !GetAtt Role.Arn\n"
SUB = 'Resource: !Sub "arn:${AWS::Partition}:elasticfilesystem:*:${AWS::AccountId}:file-system/'
BY_STAGE = "Mappings: {M: {dev: {T: 2}, prod: {T: 60}}}\nResources:"
STAGED = ("Timeout: 60", "Timeout: !FindInMap [M, !Ref Stage, T]")
TEMPLATES = {
    # the permission
    ": a resource behind a condition": changed(
        IN, ("Resource: !GetAtt Fs.Arn", 'Resource: !If [C, !GetAtt Fs.Arn, "*"]')
    ),
    ": an ARN put together": changed(("Resource: !GetAtt Fs.Arn", SUB + '${Fs}"')),
    ": a condition by ArnLike": changed(("{StringEquals: {", "{ArnLike: {")),
    ": actions in other cases": changed(
        (ALLOWED, 'Action: ["ElasticFileSystem:clientmount", "elasticfilesystem:CLIENTWRITE"]')
    ),
    "EFS021: a star behind Client": changed((ALLOWED, 'Action: "elasticfilesystem:Client*"')),
    ": a denial behind a condition": changed(
        IN,
        (
            'Version: "2012-10-17"\n        Statement:\n',
            (
                "Statement:\n          - !If [C, {Effect: Deny, Principal: '*', Action: "
                "'elasticfilesystem:ClientMount'}, !Ref AWS::NoValue]\n"
            ),
        ),
    ),
    ": a boundary from elsewhere": changed(
        (
            "      ManagedPolicyArns",
            "      PermissionsBoundary: !ImportValue b\n      ManagedPolicyArns",
        )
    ),
    ": a role from elsewhere": changed((ROLE, "      Role: !ImportValue role\n")),
    ": a policy of its own": attached("Policy", "Roles: [!Ref Role]"),
    ": a policy of the role": attached("RolePolicy", "RoleName: !Ref Role"),
    ": a managed policy with roles": attached("ManagedPolicy", "Roles: [!Ref Role]"),
    # security groups
    ": every protocol": rule("{IpProtocol: -1, SourceSecurityGroupId: !Ref FnSg}"),
    ": a protocol by number": rule(
        '{IpProtocol: "6", FromPort: 2000, ToPort: 3000, SourceSecurityGroupId: !Ref FnSg}'
    ),
    "EFS001: another protocol": rule(
        "{IpProtocol: udp, FromPort: 2049, ToPort: 2049, SourceSecurityGroupId: !Ref FnSg}"
    ),
    "EFS001 EFS002: the other internet": rule(f"{{{NFS}, CidrIpv6: '::/0'}}"),
    ": a prefix list": rule(f"{{{NFS}, SourcePrefixListId: pl-0123}}"),
    ": a rule behind a condition": changed(
        IN,
        (
            INGRESS,
            f"        - !If [C, {{{NFS}, SourceSecurityGroupId: !Ref FnSg}}, !Ref AWS::NoValue]\n",
        ),
    ),
    "EFS003: HTTPS out alone": changed(HTTPS_ONLY),
    ": HTTPS out, and NFS in a resource of its own": changed(
        HTTPS_ONLY,
        (
            "  Fs:\n",
            (
                "  Out: {Type: AWS::EC2::SecurityGroupEgress, Properties: {GroupId: !Ref FnSg, "
                f"{NFS}, DestinationSecurityGroupId: !Ref MtSg}}}}\n  Fs:\n"
            ),
        ),
    ),
    ": the second of two groups": changed(
        ("SecurityGroupIds: [!Ref FnSg]", "SecurityGroupIds: [!Ref Other, !Ref FnSg]"),
        (
            "  Fs:\n",
            f"  Other: {{Type: AWS::EC2::SecurityGroup, Properties: {FUNCTION_GROUP}}}\n  Fs:\n",
        ),
    ),
    ": groups from a parameter": changed(
        parameter("G: {Type: 'List<AWS::EC2::SecurityGroup::Id>'}"),
        ("SecurityGroups: [!Ref MtSg]", "SecurityGroups: !Ref G"),
        ("SecurityGroups: [!Ref MtSg]", "SecurityGroups: !Ref G"),
    ),
    # subnets and mount targets
    "EFS004: one mount target": changed(
        ("[MtA, MtB]", "[MtA]"), (TARGETS[TARGETS.index("  MtB:") :], "")
    ),
    ": a mount target in a third subnet of the zone": changed(
        ("  FnSg:", THIRD_SUBNET[: THIRD_SUBNET.index("  Acl:")] + "  FnSg:"),
        ("SubnetId: !Ref SubA", "SubnetId: !Ref SubC"),
    ),
    ": a zone from a parameter": changed(
        parameter("Z: {Type: 'AWS::EC2::AvailabilityZone::Name'}"),
        ('AvailabilityZone: !Select [0, !GetAZs ""]', "AvailabilityZone: !Ref Z"),
    ),
    ": waiting through the role": changed((DEPENDS, ""), ("  Role:\n", "  Role:\n" + DEPENDS)),
    "EFS007: waiting for one of two": changed(("[MtA, MtB]", "MtA")),
    ": mount targets in a nested stack": changed(
        (DEPENDS, ""),
        (TARGETS, "  Net: {Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: x}}\n"),
    ),
    # the function
    "EFS040: a path whose beginning is wrong": changed(
        ("LocalMountPath: /mnt/efs", 'LocalMountPath: !Sub "/efs/${AWS::StackName}"')
    ),
    "EFS040: a path whose middle is wrong": changed(
        ("LocalMountPath: /mnt/efs", 'LocalMountPath: !Sub "/mnt/efs/${AWS::StackName}"')
    ),
    ": a path whose end is unknown": changed(
        ("LocalMountPath: /mnt/efs", 'LocalMountPath: !Sub "/mnt/${AWS::StackName}"')
    ),
    "EFS041: a timeout from a mapping": changed(
        parameter("Stage: {Type: String, Default: dev}"), ("Resources:", BY_STAGE), STAGED
    ),
    ": a timeout from a mapping by an unknown key": changed(
        parameter("Stage: {Type: String}"), ("Resources:", BY_STAGE), STAGED
    ),
    ": SnapStart that is off": changed(
        ("Timeout: 60", "Timeout: 60\n      SnapStart: {ApplyOn: None}")
    ),
    ": Managed Instances, whose VPC is elsewhere": changed(
        (SUBNETS, "CapacityProviderConfig: {LambdaManagedInstancesCapacityProviderConfig: {}}")
    ),
    # the storage
    ": three transitions in three objects": changed(
        (
            "[{TransitionToIA: AFTER_30_DAYS}]",
            (
                "[{TransitionToIA: AFTER_30_DAYS}, {TransitionToArchive: AFTER_90_DAYS}, "
                "{TransitionToPrimaryStorageClass: AFTER_1_ACCESS}]"
            ),
        )
    ),
    ": a path of four levels": changed(("Path: /app", "Path: /a/b/c/d")),
    "EFS029: a directory that its owner may not write": changed(('"0750"', '"0550"')),
    # SAM
    ": a policy template of SAM": sam(
        (
            ROLE,
            (
                "      Policies:\n        - AWSLambdaVPCAccessExecutionRole\n"
                "        - EFSWriteAccessPolicy: {FileSystem: !Ref Fs, AccessPoint: !Ref Ap}\n"
            ),
        )
    ),
    "EFS022: SAM's own role, without policies": sam((ROLE, "")),
    "EFS023: a policy by its short name": sam(
        (ROLE, "      Policies: [AmazonElasticFileSystemClientReadWriteAccess]\n")
    ),
    "EFS041: a timeout of Globals": sam(
        ("      Timeout: 60\n", ""), globals_="Globals: {Function: {Timeout: 3}}\n"
    ),
    ": a VPC of Globals": sam(
        (f"      {SUBNETS}\n", ""), globals_=f"Globals: {{Function: {{{SUBNETS}}}}}\n"
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template(name, tmp_path):
    expected, _, _ = name.partition(":")
    assert codes(findings(tmp_path, TEMPLATES[name])) == set(expected.split())


MOUNTED = T[T.index("  ingress {\n    from_port       = 2049") : T.index('resource "aws_efs_file_')]
ALL_TARGETS = T[
    T.index('resource "aws_efs_mount_target" "a"') : T.index('resource "aws_efs_access')
]
ONE_EACH = """resource "aws_efs_mount_target" "all" {
  for_each        = { a = aws_subnet.a.id, b = aws_subnet.b.id }
  file_system_id  = aws_efs_file_system.this.id
  subnet_id       = each.value
  security_groups = [aws_security_group.mount.id]
}
"""
RULE = """}
resource "aws_vpc_security_group_ingress_rule" "nfs" {
  for_each          = toset([%s])
  security_group_id = aws_security_group.mount.id
  ip_protocol       = "tcp"
  from_port         = 2049
  to_port           = 2049
  cidr_ipv4         = each.value
}
"""
OBJECTS = """}
resource "aws_security_group_rule" "nfs" {
  for_each                 = { nfs = { port = 2049, group = aws_security_group.function.id } }
  type                     = "ingress"
  security_group_id        = aws_security_group.mount.id
  protocol                 = "tcp"
  from_port                = each.value.port
  to_port                  = each.value["port"]
  source_security_group_id = each.value.group
}
"""
ATTACHED = """resource "aws_iam_role_policy_attachment" "each" {
  for_each   = toset(["arn:aws:iam::aws:policy/AmazonElasticFileSystemClientReadWriteAccess"])
  role       = aws_iam_role.function.name
  policy_arn = each.key
}
"""
SECONDS = "timeout       = 60"
MAP = 'variable "stage" {\n  default = "dev"\n}\nlocals {\n  t = { dev = 3, prod = 60 }\n}\n'
SWITCH = 'variable "on" {\n  default = %s\n}\n'
POINT = """resource "aws_efs_access_point" "more" {
  count          = %s
  file_system_id = aws_efs_file_system.this.id
}
"""
MODULES = {
    ": rules of both subnets by for_each": terraform(
        (MOUNTED, RULE % '"10.0.1.0/24", "10.0.2.0/24"')
    ),
    "EFS001: rules by for_each without one subnet": terraform(
        (MOUNTED, RULE % '"10.0.1.0/24", "10.9.2.0/24"')
    ),
    ": rules by for_each of a variable": terraform(
        (MOUNTED, (RULE % "").replace("[]", "var.ranges") + 'variable "ranges" {}\n')
    ),
    ": a rule by for_each over objects": terraform((MOUNTED, OBJECTS)),
    ": mount targets by for_each": terraform(
        (ALL_TARGETS, ONE_EACH),
        ("aws_efs_mount_target.a, aws_efs_mount_target.b", "aws_efs_mount_target.all"),
    ),
    "EFS023: attachments by for_each": terraform((ROLE_POLICY, ATTACHED)),
    ": an access point by one()": terraform(
        ("= aws_efs_access_point.app.arn", "= one(aws_efs_access_point.app[*].arn)")
    ),
    ": a timeout by a comparison": terraform((SECONDS, "timeout = var.n >= 2 ? 60 : 3"))
    + 'variable "n" {\n  default = 3\n}\n',
    "EFS041: a timeout from a map": terraform((SECONDS, "timeout = local.t[var.stage]")) + MAP,
    "EFS041: a timeout by lookup": terraform((SECONDS, 'timeout = lookup(local.t, "dev", 60)'))
    + MAP,
    "EFS040: a path whose beginning is wrong": terraform(
        ('local_mount_path = "/mnt/efs"', 'local_mount_path = "/data/${var.stage}"')
    )
    + 'variable "stage" {}\n',
    ": an access point that is off": T + SWITCH % "false" + POINT % "var.on && true ? 1 : 0",
    "EFS025 EFS027: one that is on": T + SWITCH % "true" + POINT % "!var.on ? 0 : 1",
    ": one for a list that is empty": T + SWITCH % "[]" + POINT % "length(var.on) > 0 ? 1 : 0",
    ": a role of another state": terraform(
        ("= aws_iam_role.function.arn", "= data.aws_iam_role.function.arn")
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module(name, tmp_path):
    expected, _, _ = name.partition(":")
    assert alarms(write(tmp_path, main_tf=MODULES[name])) == set(expected.split())


def test_a_module_for_others_is_not_judged_by_its_defaults(tmp_path):
    """It asks for values and returns some; who calls it decides. A provider makes it a root."""
    text = T.replace("[aws_security_group.function.id]\n  }\n  file", "var.groups\n  }\n  file")
    text = text.replace(SECONDS, "timeout = var.seconds")
    variables = 'variable "groups" {\n  default = []\n}\nvariable "seconds" {\n  default = 3\n}\n'
    text += (
        variables + 'variable "name" {}\noutput "arn" {\n  value = aws_lambda_function.app.arn\n}\n'
    )
    assert alarms(write(tmp_path, main_tf=text)) == set()
    write(tmp_path, providers_tf='provider "aws" {\n  region = "eu-west-1"\n}\n')
    assert alarms(tmp_path) == {"EFS041", "EFS047"}


SERVICE = """service: s
provider:
  name: aws
  runtime: python3.13
  vpc: {securityGroupIds: [!GetAtt FnSg.GroupId], subnetIds: [!Ref SubA, !Ref SubB]}
functions:
  app:
    handler: a.b
    timeout: 30
    dependsOn: [MtA, MtB]
    fileSystemConfig:
      localMountPath: /mnt/efs
      arn: !GetAtt Ap.Arn
resources:
"""
SERVICE += "".join(
    f"  {line}\n"
    for line in (BASE[: BASE.index("  Role:\n")] + BASE[BASE.index("  Alarm:") :]).splitlines()[1:]
)


@pytest.mark.parametrize(
    ("old", "new", "more"),
    [
        ("/mnt/efs", "/mnt/${self:provider.stage}", set()),
        ("/mnt/efs", "/efs", {"EFS040"}),
        ("    timeout: 30\n", "", {"EFS041"}),
        ("    dependsOn: [MtA, MtB]\n", "", {"EFS007"}),
        ("SourceSecurityGroupId: !Ref FnSg", "CidrIp: 10.9.0.0/16", {"EFS001"}),
    ],
)
def test_a_service(old, new, more, tmp_path):
    """The Serverless Framework itself allows the mount on the access point, which is EFS020."""
    assert old in SERVICE
    text = SERVICE.replace(old, new, 1)
    assert codes(findings(tmp_path, text, "serverless.yml")) == {"EFS020"} | more
