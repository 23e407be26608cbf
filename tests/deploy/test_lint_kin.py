"""The linter on further relatives of its known cases, each judged by hand before it was run.

As in `test_lint_relatives.py`, the codes in front of a name are all the errors and warnings that
the change must give; none means that a finding would be false.
"""

from __future__ import annotations

import json

import pytest
from tests.deploy.test_lint_cases import (
    ALLOWED,
    BASE,
    INGRESS,
    MANAGED,
    NAT_ROLE,
    POLICY,
    STATEMENT,
    changed,
    findings,
)
from tests.deploy.test_lint_cases import UNKNOWN_CONDITION as UNKNOWN
from tests.deploy.test_lint_cases import alarms as codes
from tests.deploy.test_lint_relatives import (
    ALL_TARGETS,
    MOUNTED,
    NFS,
    ROLE,
    SECONDS,
    SERVICE,
    parameter,
    rule,
    sam,
)
from tests.deploy.test_lint_terraform import ROLE_POLICY, T, alarms, write
from tests.deploy.test_lint_terraform import changed as terraform

from efsstate.deploy.linting.lint import check
from efsstate.errors import TemplateError

IN = ("Resources:", UNKNOWN)
SECOND_VPC = (
    (
        (
            "  FnSg:\n    Type: AWS::EC2::SecurityGroup\n"
            "    Properties: {GroupDescription: fn, VpcId: !Ref Vpc}\n"
        ),
        """  Vpc2: {Type: AWS::EC2::VPC, Properties: {CidrBlock: 10.1.0.0/16}}
  FarA:
    Type: AWS::EC2::Subnet
    Properties:
      {VpcId: !Ref Vpc2, CidrBlock: 10.1.1.0/24, AvailabilityZone: !Select [0, !GetAZs ""]}
  FarB:
    Type: AWS::EC2::Subnet
    Properties:
      {VpcId: !Ref Vpc2, CidrBlock: 10.1.2.0/24, AvailabilityZone: !Select [1, !GetAZs ""]}
  FnSg:
    Type: AWS::EC2::SecurityGroup
    Properties: {GroupDescription: fn, VpcId: !Ref Vpc2}
""",
    ),
    ("SubnetIds: [!Ref SubA, !Ref SubB]", "SubnetIds: [!Ref FarA, !Ref FarB]"),
)
TABLE = "  Rt: {Type: AWS::EC2::RouteTable, Properties: {VpcId: !Ref Vpc2}}\n"
ROUTE = """  Way:
    Type: AWS::EC2::Route
    Properties: {RouteTableId: !Ref Rt, DestinationCidrBlock: 10.0.0.0/16, %s}
"""
NO_NETWORK = MANAGED.replace("service-role/AWSLambdaVPCAccessExecutionRole", "%s")
CREATE_ONLY = """        - PolicyName: network
          PolicyDocument:
            Statement: [{Effect: Allow, Action: "ec2:CreateNetworkInterface", Resource: "*"}]
"""
S3_ENDPOINT = """  Endpoint:
    Type: AWS::EC2::VPCEndpoint
    Properties: {VpcId: !Ref Vpc, ServiceName: !Sub "com.amazonaws.${AWS::Region}.%s"}
"""
PUT_TOGETHER = '{Arn: !Sub "arn:aws:elasticfilesystem:${AWS::Region}:${AWS::AccountId}:'
POINT_HEAD = "  Ap:\n    Type: AWS::EFS::AccessPoint\n    Properties:\n"
OWN_STATEMENT = POLICY[POLICY.index("          - {Effect: Deny") :]


def own(statement):
    """Return the change that adds a statement to the file system's policy."""
    return OWN_STATEMENT, f"{OWN_STATEMENT}          - {statement}\n"


PEER = "VpcPeeringConnectionId: !Ref Peer"
SAM_POLICIES = "      Policies:\n        - AWSLambdaVPCAccessExecutionRole\n"
SAM_MOUNT = "        - EFSWriteAccessPolicy: {FileSystem: !Ref Fs, AccessPoint: !Ref Ap}\n"
GROUP = "{GroupDescription: fn, VpcId: !Ref Vpc}"
INCLUDE = "Fn::Transform: {Name: AWS::Include, Parameters: {Location: s3://b/x}}"
NETWORK = "VpcConfig: {SubnetIds: [!Ref SubA, !Ref SubB], SecurityGroupIds: [!Ref FnSg]}"
TEMPLATES = {
    # the permission, in forms that are not known
    ": actions from a split parameter": changed(
        parameter("Acts: {Type: String}"), (ALLOWED, 'Action: !Split [",", !Ref Acts]')
    ),
    ": managed policies from a list parameter": changed(
        parameter("Arns: {Type: CommaDelimitedList}"),
        (MANAGED, "!Ref Arns"),
        (STATEMENT, "              []\n"),
    ),
    ": managed policies behind a condition": changed(
        IN,
        (STATEMENT, "              []\n"),
        (
            MANAGED,
            (
                '!If [C, ["arn:aws:iam::aws:policy/AmazonElasticFileSystemClientFullAccess"], '
                f"{MANAGED}]"
            ),
        ),
    ),
    ": inline policies behind a condition": changed(
        IN, ("      Policies:\n", "      Policies: !If\n        - C\n        - []\n        -\n")
    )
    .replace("        - PolicyName: mount", "          - PolicyName: mount")
    .replace(
        "          PolicyDocument:\n            V", "            PolicyDocument:\n              V"
    )
    .replace(
        "            Statement:\n              - Effect",
        "              Statement:\n              - Effect",
    ),
    # a wildcard, and an address, that match nothing
    "EFS022: a wildcard by StringEquals": changed(
        (
            '{"elasticfilesystem:AccessPointArn": !GetAtt Ap.Arn}',
            '{"elasticfilesystem:AccessPointArn": "arn:aws:elasticfilesystem:*"}',
        )
    ),
    "EFS032: AWS's policy that denies all": changed(
        (MANAGED, MANAGED[:-1] + ', "arn:aws:iam::aws:policy/AWSDenyAll"]')
    ),
    "EFS058: archived before it is infrequent": changed(
        (
            "[{TransitionToIA: AFTER_30_DAYS}]",
            "[{TransitionToIA: AFTER_90_DAYS}, {TransitionToArchive: AFTER_30_DAYS}]",
        ),
    ),
    "EFS058: archived on the day it is infrequent": changed(
        (
            "[{TransitionToIA: AFTER_30_DAYS}]",
            "[{TransitionToArchive: AFTER_1_DAY}, {TransitionToIA: AFTER_1_DAY}]",
        ),
    ),
    "EFS029 EFS034: a user by name": changed(('Uid: "1001"', "Uid: app")),
    "EFS034: a group below 0": changed(('Gid: "1001"}', 'Gid: "1001", SecondaryGids: ["-1"]}')),
    "EFS034: an owner of more than 32 bits": changed(('OwnerGid: "1001"', "OwnerGid: 4294967296")),
    "EFS032: a denial of encrypted connections, in a list": changed(
        own(
            "{Effect: Deny, Principal: '*', Action: '*', "
            "Condition: {Bool: {'aws:SecureTransport': ['true']}}}"
        )
    ),
    "EFS022: a condition key that EFS does not have": changed(
        (
            '{"elasticfilesystem:AccessPointArn": !GetAtt Ap.Arn}',
            '{"elasticfilesystem:AccessPoint": !GetAtt Ap.Arn}',
        )
    ),
    **{
        f": a key that EFS does not have, by {operator}": changed(
            (
                '{StringEquals: {"elasticfilesystem:AccessPointArn": !GetAtt Ap.Arn}}',
                f'{{"{operator}": {{"elasticfilesystem:Other": x}}}}',
            )
        )
        for operator in ("ForAllValues:StringEquals", "StringNotEquals", "StringEqualsIfExists")
    },
    "EFS022: a key that EFS does not have, and any value": changed(
        (
            '{StringEquals: {"elasticfilesystem:AccessPointArn": !GetAtt Ap.Arn}}',
            '{"ForAnyValue:StringNotEquals": {"elasticfilesystem:Other": x}}',
        )
    ),
    "EFS033: the id of the access point, by its attribute": changed(
        (
            '{"elasticfilesystem:AccessPointArn": !GetAtt Ap.Arn}',
            '{"elasticfilesystem:AccessPointArn": !GetAtt Ap.AccessPointId}',
        )
    ),
    "EFS032: a denial of every access point": changed(
        own(
            "{Effect: Deny, Principal: '*', Action: '*', "
            "Condition: {'Null': {'elasticfilesystem:AccessPointArn': 'false'}}}"
        )
    ),
    ": a denial of mounts without TLS, by its absence": changed(
        own(
            "{Effect: Deny, Principal: '*', Action: '*', "
            "Condition: {'Null': {'aws:SecureTransport': 'true'}}}"
        )
    ),
    "EFS032: a denial to all but another role": changed(
        own(
            "{Effect: Deny, NotPrincipal: {AWS: 'arn:aws:iam::1:role/ops'}, "
            "Action: 'elasticfilesystem:*'}"
        ),
        (
            "  Role:\n    Type: AWS::IAM::Role\n    Properties:\n",
            "  Role:\n    Type: AWS::IAM::Role\n    Properties:\n      RoleName: app\n",
        ),
    ),
    "EFS036: a list of one star as the principal": changed(
        own("{Effect: Allow, Principal: {AWS: ['*']}, Action: 'elasticfilesystem:*'}")
    ),
    "EFS021 EFS023: root on every file system": changed(
        (ALLOWED, 'Action: "elasticfilesystem:Client*"'),
        (
            (
                "Resource: !GetAtt Fs.Arn\n                Condition: {StringEquals: "
                '{"elasticfilesystem:AccessPointArn": !GetAtt Ap.Arn}}'
            ),
            'Resource: "arn:aws:elasticfilesystem:*:*:file-system/*"',
        ),
    ),
    # the ARN
    "EFS024: the file system's ARN, put together": changed(
        (
            "{Arn: !GetAtt Ap.Arn",
            PUT_TOGETHER + 'file-system/${Fs}"',
        )
    ),
    ": the access point's ARN, put together": changed(
        (
            "{Arn: !GetAtt Ap.Arn",
            PUT_TOGETHER + 'access-point/${Ap}"',
        )
    ),
    # network interfaces
    "EFS035: one of three calls": changed(
        (MANAGED, "[]"), ("      Policies:\n", "      Policies:\n" + CREATE_ONLY)
    ),
    ": the policy for interfaces alone": changed(
        (MANAGED, NO_NETWORK % "service-role/AWSLambdaENIManagementAccess")
    ),
    # the network
    ": a rule for each of two ranges": rule(f"{{{NFS}, CidrIp: 10.0.1.0/24}}").replace(
        "CidrIp: 10.0.1.0/24}\n",
        f"CidrIp: 10.0.1.0/24}}\n        - {{{NFS}, CidrIp: 10.0.2.0/24}}\n",
    ),
    ": one group that admits itself": changed(
        (INGRESS, ""),
        ("      SecurityGroupIngress:\n", ""),
        ("SecurityGroupIds: [!Ref FnSg]", "SecurityGroupIds: [!Ref MtSg]"),
        (
            "  Fs:\n",
            (
                "  Self: {Type: AWS::EC2::SecurityGroupIngress, Properties: {GroupId: !Ref MtSg, "
                f"{NFS}, SourceSecurityGroupId: !GetAtt MtSg.GroupId}}}}\n  Fs:\n"
            ),
        ),
    ),
    "EFS001: one group that admits nobody": changed(
        (INGRESS, ""),
        ("      SecurityGroupIngress:\n", ""),
        ("SecurityGroupIds: [!Ref FnSg]", "SecurityGroupIds: [!Ref MtSg]"),
    ),
    ": a peering by its route alone": changed(
        *SECOND_VPC,
        parameter("Peer: {Type: String}"),
        ("  Fs:\n", TABLE + ROUTE % PEER + "  Fs:\n"),
    ),
    ": a transit gateway by its route alone": changed(
        *SECOND_VPC,
        parameter("Tgw: {Type: String}"),
        ("  Fs:\n", TABLE + ROUTE % "TransitGatewayId: !Ref Tgw" + "  Fs:\n"),
    ),
    "EFS004: a second VPC with a route to the internet": changed(
        *SECOND_VPC,
        parameter("Igw: {Type: String}"),
        ("  Fs:\n", TABLE + ROUTE % "GatewayId: !Ref Igw" + "  Fs:\n"),
    ),
    ": a mount target's subnet behind a condition": changed(
        IN, ("SubnetId: !Ref SubB", "SubnetId: !If [C, !Ref SubA, !Ref SubB]")
    ),
    ": waiting through a variable": changed(
        ("    DependsOn: [MtA, MtB]", "    DependsOn: MtA"),
        (
            "      Timeout: 60\n",
            "      Timeout: 60\n      Environment: {Variables: {X: !Ref MtB}}\n",
        ),
    ),
    # services
    "EFS011: an endpoint of S3 Express": changed(
        ("      Policies:\n", "      Policies:\n" + NAT_ROLE),
        ("  Fs:\n", S3_ENDPOINT % "s3express" + "  Fs:\n"),
    ),
    ": an endpoint of S3": changed(
        ("      Policies:\n", "      Policies:\n" + NAT_ROLE),
        ("  Fs:\n", S3_ENDPOINT % "s3" + "  Fs:\n"),
    ),
    ": a NAT gateway of another stack": changed(
        ("      Policies:\n", "      Policies:\n" + NAT_ROLE),
        (
            "  Fs:\n",
            "  Rt: {Type: AWS::EC2::RouteTable, Properties: {VpcId: !Ref Vpc}}\n"
            + (ROUTE % "NatGatewayId: !ImportValue nat").replace("10.0.0.0/16", "0.0.0.0/0")
            + "  Fs:\n",
        ),
    ),
    # the storage
    "EFS025 EFS029: no directory, and a user": changed(
        (
            (
                "      RootDirectory: {Path: /app, "
                'CreationInfo: {OwnerUid: "1001", OwnerGid: "1001", Permissions: "0750"}}\n'
            ),
            "",
        )
    ),
    "EFS028: an existing or a new file system": changed(
        (
            "Resources:",
            UNKNOWN.replace(
                "  P: {Type: String}", "  P: {Type: String}\n  Existing: {Type: String}"
            ),
        ),
        (
            POINT_HEAD + "      FileSystemId: !Ref Fs\n",
            (POINT_HEAD + "      FileSystemId: !If [C, !Ref Fs, !Ref Existing]\n"),
        ),
        (', CreationInfo: {OwnerUid: "1001", OwnerGid: "1001", Permissions: "0750"}', ""),
    ),
    ": permissions as a plain number": changed(('Permissions: "0750"', "Permissions: 750")),
    "EFS034: a path that ends with a slash": changed(("Path: /app,", "Path: /app/,")),
    "EFS058: archive by the default mode": changed(
        ("      ThroughputMode: elastic\n", ""),
        ("[{TransitionToIA: AFTER_30_DAYS}]", "[{TransitionToArchive: AFTER_90_DAYS}]"),
    ),
    # SAM
    ": a file system of Globals alone": sam(
        ("      FileSystemConfigs: [{Arn: !GetAtt Ap.Arn, LocalMountPath: /mnt/efs}]\n", ""),
        globals_=(
            "Globals: {Function: {FileSystemConfigs: "
            "[{Arn: !GetAtt Ap.Arn, LocalMountPath: /mnt/efs}]}}\n"
        ),
    ),
    ": a boundary of Globals": sam(
        (ROLE, SAM_POLICIES),
        globals_="Globals: {Function: {PermissionsBoundary: 'arn:aws:iam::1:policy/b'}}\n",
    ),
    "EFS011: a table's policy of SAM": sam(
        (ROLE, SAM_POLICIES + SAM_MOUNT + "        - DynamoDBCrudPolicy: {TableName: t}\n")
    ),
    ": a queue's policy of SAM, for Lambda's own poller": sam(
        (ROLE, SAM_POLICIES + SAM_MOUNT + "        - SQSPollerPolicy: {QueueName: q}\n")
    ),
    # a part that a macro makes is unknown, not absent
    ": the rules of a group from a file": changed(
        ("      SecurityGroupIngress:\n" + INGRESS, f"      {INCLUDE}\n")
    ),
    ": the network of a function from a file": changed((NETWORK + "\n", INCLUDE + "\n")),
    ": a function's group from a file": changed(
        ("SecurityGroupIds: [!Ref FnSg]}", "Fn::Transform: {Name: AWS::Include}}")
    ),
    ": all of a function from a file": changed(
        (NETWORK + "\n", INCLUDE + "\n"),
        ("FileSystemConfigs: [{Arn: !GetAtt Ap.Arn, LocalMountPath: /mnt/efs}]", "MemorySize: 512"),
        ("Timeout: 60", "SnapStart: {ApplyOn: PublishedVersions}"),
    ),
    ": policies of a role from a file": changed((f"ManagedPolicyArns: {MANAGED}", INCLUDE)),
    ": an owner of a directory from a file": changed(
        ("/app, CreationInfo: {OwnerUid", "/app, Fn::Transform: {Name: M, Parameters: {OwnerUid"),
        ('Permissions: "0750"}}', 'Permissions: "0750"}}}'),
    ),
    ": a zone of a maxIO file system from a file": changed(
        ("ThroughputMode: elastic", f"PerformanceMode: maxIO\n      {INCLUDE}")
    ),
    ": properties that are all from a file": changed(
        (NETWORK + "\n", "VpcConfig: {Fn::Transform: {Name: AWS::Include}}\n")
    ),
    ": a property by Fn::ForEach": changed(
        (NETWORK + "\n", "Fn::ForEach::Nets: [N, [A], {'${N}': x}]\n")
    ),
    ": resources by a macro at the root": changed(
        ("Resources:", "Fn::Transform: {Name: AWS::Include}\nResources:"),
        (
            "      SecurityGroupIngress:\n" + INGRESS,
            "",
        ),
    ),
    # the default egress rule stays until another one is given
    ": an empty list of egress rules": changed((GROUP, f"{GROUP[:-1]}, SecurityGroupEgress: []}}")),
    ": an egress rule that is not made": changed(
        IN,
        ("{Type: String}", "{Type: String, Default: y}"),
        (
            GROUP,
            f"{GROUP[:-1]}, SecurityGroupEgress: [!If [C, {{{NFS}}}, !Ref AWS::NoValue]]}}",
        ),
    ),
    "EFS003: an egress rule elsewhere": changed(
        (
            GROUP,
            f"{GROUP[:-1]}, SecurityGroupEgress: [{{{NFS}, CidrIp: 10.9.0.0/16}}]}}",
        ),
    ),
    ": permissions that are text by a tag": changed(('"0750"', "!!str 0750")),
    "EFS034: permissions that are a digit of another kind": changed(('"0750"', '"²"')),
    "EFS034: permissions of many digits": changed(('"0750"', f'"{"9" * 5000}"')),
    "EFS034: permissions of many octal digits": changed(('"0750"', "0" + "7" * 6000)),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template(name, tmp_path):
    expected, _, _ = name.partition(":")
    results = findings(tmp_path, TEMPLATES[name])
    assert codes(results) == set(expected.split())


BOTH = "    Type: AWS::Lambda::Function\n"
UNDER = "    Condition: %s\n"
DENIAL = """  Pol:
    Type: AWS::IAM::Policy
    Condition: C
    Properties:
      Roles: [!Ref Role]
      PolicyDocument:
        Statement: [{Effect: Deny, Action: "elasticfilesystem:*", Resource: "*"}]
"""
CLOSED = """  SubC:
    Type: AWS::EC2::Subnet
    Properties:
      {VpcId: !Ref Vpc, CidrBlock: 10.0.3.0/24, AvailabilityZone: !Select [1, !GetAZs ""]}
  Acl:
    Type: AWS::EC2::NetworkAcl
    Condition: C
    Properties: {VpcId: !Ref Vpc, SubnetIds: [!Ref SubC]}
"""
OWN_POLICY_APART = (
    (POLICY, ""),
    (
        "  MtA:\n",
        "  FsPolicy:\n    Type: AWS::EFS::FileSystemPolicy\n    Condition: C\n"
        "    Properties:\n      FileSystemId: !Ref Fs\n"
        + POLICY.replace("FileSystemPolicy:", "Policy:")
        + "  MtA:\n",
    ),
)
CONDITIONS = {
    # (condition of the function): the findings of severity error and warning
    "a denial": (
        {"": "warning EFS032", "C": "error EFS032", "D": ""},
        ("  Fn:\n", DENIAL + "  Fn:\n"),
    ),
    "a network ACL": (
        {"": "warning EFS010", "C": "error EFS010", "D": ""},
        ("  Fn:\n", CLOSED + "  Fn:\n"),
        ("[!Ref SubA, !Ref SubB], Sec", "[!Ref SubA, !Ref SubC], Sec"),
    ),
    "a mount target": (
        {"": "", "C": "", "D": "error EFS004"},
        ("  MtB:\n", "  MtB:\n" + UNDER % "C"),
    ),
    "a mount target that is not waited for": (
        {"": "", "C": "error EFS007", "D": "error EFS004"},
        ("  MtB:\n", "  MtB:\n" + UNDER % "C"),
        ("DependsOn: [MtA, MtB]", "DependsOn: [MtA]"),
    ),
    "a policy of the file system": (
        {"": "warning EFS022", "C": "error EFS022"},
        (ALLOWED, 'Action: ["logs:PutLogEvents"]'),
        *OWN_POLICY_APART,
    ),
    "a policy of the file system, beside one on the access point": (
        {"": "warning EFS020", "C": "error EFS020"},
        (STATEMENT, STATEMENT.replace("!GetAtt Fs.Arn", "!GetAtt Ap.Arn")),
        *OWN_POLICY_APART,
    ),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_beside_the_function_s(name, tmp_path):
    """An error is certain only if both exist together; what excludes the function is no fault."""
    expected, *changes = CONDITIONS[name]
    for condition, finding in expected.items():
        own = BOTH + (UNDER % condition if condition else "")
        given = findings(tmp_path, changed(IN, *changes, (BOTH, own)))
        alarming = [f"{severity} {code}" for severity, code in given if severity != "note"]
        assert alarming == ([finding] if finding else []), condition


def test_a_deletion_policy_that_is_not_known_gives_no_note(tmp_path):
    text = changed(IN, ("DeletionPolicy: Retain", "DeletionPolicy: !If [C, Retain, Delete]"))
    assert findings(tmp_path, text) == set()


def test_a_directory_of_a_file_system_that_may_exist_is_a_warning(tmp_path):
    results = findings(tmp_path, TEMPLATES["EFS028: an existing or a new file system"])
    assert ("warning", "EFS028") in results


SWITCHED_VPC = """dynamic "vpc_config" {
    for_each = var.in_vpc ? [1] : []
    content {
      subnet_ids         = [aws_subnet.a.id, aws_subnet.b.id]
      security_group_ids = [aws_security_group.function.id]
    }
  }
"""
VPC_CONFIG = T[T.index("  vpc_config {") : T.index("  file_system_config {")]
RANGES = """  dynamic "ingress" {
    for_each = ["10.0.1.0/24", "%s"]
    content {
      from_port   = 2049
      to_port     = 2049
      protocol    = "tcp"
      cidr_blocks = [ingress.value]
    }
  }
"""
AS_LIST = """  ingress = [{
    description      = ""
    from_port        = 2049
    to_port          = 2049
    protocol         = "tcp"
    cidr_blocks      = []
    ipv6_cidr_blocks = []
    prefix_list_ids  = []
    security_groups  = [aws_security_group.function.id]
    self             = false
  }]
"""
BLOCK = MOUNTED[: MOUNTED.index("}\n", MOUNTED.index("security_groups")) + 2]
STATEMENTS = ROLE_POLICY[ROLE_POLICY.index("    Statement = [{") : ROLE_POLICY.index("  })")]
INLINE = (
    'assume_role_policy = jsonencode({\n    Version   = "2012-10-17"',
    'inline_policy {\n    name = "mount"\n    policy = jsonencode({\n'
    + STATEMENTS
    + "    })\n  }\n"
    '  assume_role_policy = jsonencode({\n    Version   = "2012-10-17"',
)
FULL = """data "aws_iam_policy" "full" {
  name = "AmazonElasticFileSystemClientFullAccess"
}
resource "aws_iam_role_policy_attachment" "full" {
  role       = aws_iam_role.function.name
  policy_arn = data.aws_iam_policy.full.arn
}
"""
DOCUMENTS = """data "aws_iam_policy_document" "mount" {
  source_policy_documents = [data.aws_iam_policy_document.base.json]
}
data "aws_iam_policy_document" "base" {
  statement {
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    resources = [aws_efs_file_system.this.arn]
    condition {
      test     = "StringEquals"
      variable = "elasticfilesystem:AccessPointArn"
      values   = [aws_efs_access_point.app.arn]
    }
  }
}
resource "aws_iam_role_policy" "mount" {
  role   = aws_iam_role.function.id
  policy = data.aws_iam_policy_document.mount.json
}
"""
ACTIONS = '["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]'
PEERED = """resource "aws_vpc" "far" {
  cidr_block = "10.1.0.0/16"
}
resource "aws_subnet" "far" {
  vpc_id            = aws_vpc.far.id
  cidr_block        = "10.1.1.0/24"
  availability_zone = "eu-west-1a"
}
resource "aws_security_group" "far" {
  vpc_id = aws_vpc.far.id
  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}
"""
FAR = (
    ("subnet_ids         = [aws_subnet.a.id, aws_subnet.b.id]", "subnet_ids = [aws_subnet.far.id]"),
    (
        "security_group_ids = [aws_security_group.function.id]",
        "security_group_ids = [aws_security_group.far.id]",
    ),
    ("security_groups = [aws_security_group.function.id]", 'cidr_blocks = ["10.1.0.0/16"]'),
)
PEERING = """resource "aws_route" "way" {
  route_table_id            = "rtb-0123"
  destination_cidr_block    = "10.0.0.0/16"
  vpc_peering_connection_id = var.peering
}
variable "peering" {}
"""
ONE_ZONE = (
    "  encrypted       = true\n",
    '  encrypted       = true\n  availability_zone_name = "eu-west-1a"\n',
)
EGRESS = T[T.index("  egress {") : T.index('}\n\nresource "aws_security_group" "mount"')]
OWN_POLICY = T[T.index("policy = jsonencode({", T.index('_system_policy" "this"')) :]
OWN_POLICY = OWN_POLICY[: OWN_POLICY.index("})\n") + 3]
NOBODY = ('"elasticfilesystem:ClientMount"', '"logs:PutLogEvents"')
DOCUMENT = """data "aws_iam_policy_document" "own" {
  statement {
    effect  = "%s"
    actions = ["elasticfilesystem:Client*"]
    %s {
      type        = "%s"
      identifiers = ["%s"]
    }
  }
}
"""


def test_one_rule_that_is_closed_in_each_zone_is_one_finding(tmp_path):
    text = terraform(
        ("security_groups = [aws_security_group.function.id]", 'ipv6_cidr_blocks = ["::/0"]')
    )
    found = check(str(write(tmp_path, main_tf=text))).findings
    assert [each.code for each in found if each.severity == "error"] == ["EFS001"]


SWITCH = 'variable "on" { type = bool }\n'
IF, IF_NOT = "count = var.on ? 1 : 0\n", "count = var.on ? 0 : 1\n"
TARGET = 'resource "aws_efs_mount_target" "a" {\n'
SAME_PLACE = T[T.index(TARGET) : T.index('resource "aws_efs_mount_target" "b"')].replace(
    '"a"', '"c"'
)
DENIED = """resource "aws_iam_role_policy" "denial" {
  COUNT
  role   = aws_iam_role.function.id
  policy = jsonencode({Statement = [{Effect = "Deny", Action = "*", Resource = "*"}]})
}
"""
FUNCTION_HEAD = T[T.index('resource "aws_lambda_function"') :].split("\n")[0] + "\n"
MODULES = {
    "EFS003: no egress rule": terraform((EGRESS, "  egress = []\n")),
    ": a policy for all but another role": terraform(
        (OWN_POLICY, "policy = data.aws_iam_policy_document.own.json\n"), NOBODY
    )
    + DOCUMENT % ("Allow", "not_principals", "AWS", "arn:aws:iam::123456789012:role/other"),
    "EFS032: a denial for all but a service": terraform(
        (OWN_POLICY, "policy = data.aws_iam_policy_document.own.json\n")
    )
    + DOCUMENT % ("Deny", "not_principals", "Service", "backup.amazonaws.com"),
    ": a denial for a service": terraform(
        (OWN_POLICY, "policy = data.aws_iam_policy_document.own.json\n")
    )
    + DOCUMENT % ("Deny", "principals", "Service", "backup.amazonaws.com"),
    "EFS032: a denial for all": terraform(
        (OWN_POLICY, "policy = data.aws_iam_policy_document.own.json\n")
    )
    + DOCUMENT % ("Deny", "principals", "*", "*"),
    ": a VPC behind a variable": terraform((VPC_CONFIG, "  " + SWITCHED_VPC))
    + 'variable "in_vpc" {}\n',
    "EFS008: a VPC that is off": terraform((VPC_CONFIG, "  " + SWITCHED_VPC))
    + 'variable "in_vpc" {\n  default = false\n}\n',
    ": rules by a dynamic block": terraform((BLOCK, RANGES % "10.0.2.0/24")),
    "EFS001: rules by a dynamic block, one of them elsewhere": terraform(
        (BLOCK, RANGES % "10.9.2.0/24")
    ),
    ": rules as an attribute": terraform((BLOCK, AS_LIST)),
    "EFS001: rules as an attribute, for another port": terraform(
        (BLOCK, AS_LIST.replace("2049", "2094"))
    ),
    ": an inline policy of the role": terraform(INLINE, (ROLE_POLICY, "")),
    ": actions joined with a variable": terraform(
        (ROLE_POLICY, ROLE_POLICY.replace(ACTIONS, "concat([], var.actions)"))
    )
    + 'variable "actions" {}\n',
    "EFS022: no action at all": terraform(
        (ROLE_POLICY, ROLE_POLICY.replace(ACTIONS, "concat([], [])"))
    ),
    "EFS021 EFS023: AWS's policy by its name": terraform((ROLE_POLICY, FULL)),
    ": a document from a document": terraform((ROLE_POLICY, DOCUMENTS)),
    "EFS024: the id of the access point": terraform(
        ("arn              = aws_efs_access_point.app.arn", "arn = aws_efs_access_point.app.id")
    ),
    "EFS024: the access point's file system": terraform(
        (
            "arn              = aws_efs_access_point.app.arn",
            "arn = aws_efs_access_point.app.file_system_arn",
        )
    ),
    "EFS035: the basic role": terraform(("AWSLambdaVPCAccess", "AWSLambdaBasic")),
    "EFS047: no group": terraform(
        ("security_group_ids = [aws_security_group.function.id]", "security_group_ids = []")
    ),
    "EFS046: a timeout of nothing": terraform((SECONDS, "timeout = 0")),
    ": the longest timeout": terraform((SECONDS, "timeout = 1800")),
    "EFS050: a mode with a capital": terraform(('"elastic"', '"Elastic"')),
    "EFS034: a path without a slash": terraform(('"/app"', '"export/app"')),
    ": permissions that lost their zero": terraform(('"0750"', "0750")),
    "EFS004: a second VPC": terraform(*FAR) + PEERED,
    ": a peering by its route alone": terraform(*FAR) + PEERED + PEERING,
    "EFS009: two mount targets of one zone's storage": terraform(
        ONE_ZONE, ('"eu-west-1b"', '"eu-west-1a"')
    ),
    ": subnets by count of a variable": terraform(
        (
            ALL_TARGETS,
            (
                'resource "aws_efs_mount_target" "all" {\n  count = 2\n'
                "  file_system_id = aws_efs_file_system.this.id\n"
                "  subnet_id = element(var.subnets, count.index)\n"
                "  security_groups = [aws_security_group.mount.id]\n}\n"
                'variable "subnets" {}\n'
            ),
        ),
        ("aws_efs_mount_target.a, aws_efs_mount_target.b", "aws_efs_mount_target.all"),
    ),
    "EFS032: a denial of the file system, without a condition": terraform(
        ('      Condition = { Bool = { "aws:SecureTransport" = "false" } }\n', "")
    ),
    "EFS048: an invocation that does not wait for the rule": terraform((BLOCK, ""))
    + """resource "aws_vpc_security_group_ingress_rule" "nfs" {
  security_group_id            = aws_security_group.mount.id
  referenced_security_group_id = aws_security_group.function.id
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
}
resource "aws_lambda_invocation" "migrate" {
  function_name = aws_lambda_function.app.function_name
  input         = "{}"
}
""",
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module(name, tmp_path):
    expected, _, _ = name.partition(":")
    assert alarms(write(tmp_path, main_tf=MODULES[name])) == set(expected.split())


FUNCTION = "    handler: a.b\n"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((IF, IF_NOT), set()),
        ((IF, "count = !var.on ? 1 : 0\n"), set()),
        ((IF, IF), {"EFS009"}),
        (("", ""), {"EFS009"}),
        ((IF, 'for_each = var.on ? toset([]) : toset(["x"])\n'), set()),
    ],
)
def test_two_mount_targets_under_conditions(counts, expected, tmp_path):
    """An undecided count was taken as a resource that is always created."""
    one, other = counts
    text = terraform(
        (TARGET, TARGET + one),
        ("= [aws_efs_mount_target.a", "= [aws_efs_mount_target.c, aws_efs_mount_target.a"),
    )
    text += SAME_PLACE.replace('"c" {\n', '"c" {\n' + other) + SWITCH
    assert alarms(write(tmp_path, main_tf=text)) == expected


@pytest.mark.parametrize(
    ("count", "own", "severity"),
    [
        ("", "", ["error"]),
        (IF, "", ["warning"]),
        (IF, IF, ["error"]),
        (IF, IF_NOT, []),
        (IF, "count = var.on ? 2 : 1\n", ["warning"]),
    ],
)
def test_a_denial_under_a_condition_of_terraform(count, own, severity, tmp_path):
    text = terraform((FUNCTION_HEAD, FUNCTION_HEAD + own)) + DENIED.replace("COUNT", count) + SWITCH
    found = check(str(write(tmp_path, main_tf=text))).findings
    assert [each.severity for each in found if each.code == "EFS032"] == severity


def test_a_module_under_a_condition(tmp_path):
    """What a conditional module creates is as conditional as the module."""
    call = f'module "own" {{\n  source = "./own"\n  role = aws_iam_role.function.id\n  {IF}}}\n'
    own = DENIED.replace("COUNT", "").replace("aws_iam_role.function.id", "var.role")
    write(tmp_path, main_tf=T + SWITCH + call, own__main_tf='variable "role" {}\n' + own)
    found = check(str(tmp_path)).findings
    assert [each.severity for each in found if each.code == "EFS032"] == ["warning"]


VPC = "  vpc: {securityGroupIds: [!GetAtt FnSg.GroupId], subnetIds: [!Ref SubA, !Ref SubB]}\n"
CUSTOM = """custom:
  name: efs
  mnt: {dev: /mnt/efs}
  vpc: {dev: {securityGroupIds: [!GetAtt FnSg.GroupId], subnetIds: [!Ref SubA, !Ref SubB]}}
"""
SERVICES = {
    "EFS020 EFS045: a root elsewhere": (
        FUNCTION,
        FUNCTION + "    environment: {EFSSTATE_ROOT: /tmp/state}\n",
    ),
    "EFS020 EFS045: a root elsewhere, of the provider": (
        "  runtime: python3.13\n",
        "  runtime: python3.13\n  environment: {EFSSTATE_ROOT: /tmp/state}\n",
    ),
    "EFS020: a root below the mount": (
        FUNCTION,
        FUNCTION + "    environment: {EFSSTATE_ROOT: /mnt/efs/shop}\n",
    ),
    "EFS020 EFS042: SnapStart": (FUNCTION, FUNCTION + "    snapStart: true\n"),
    "EFS020: SnapStart that is off": (FUNCTION, FUNCTION + "    snapStart: false\n"),
    ": a role of another stack": (FUNCTION, FUNCTION + "    role: !ImportValue role\n"),
    "EFS020 EFS008: a function without the provider's VPC": (FUNCTION, FUNCTION + "    vpc: {}\n"),
    "EFS020: a timeout by a variable's default": ("timeout: 30", "timeout: ${opt:seconds, 30}"),
    "EFS020 EFS041: a number as an option's default": ("timeout: 30", "timeout: ${opt:seconds, 3}"),
    "EFS020: a variable within a variable": (
        "/mnt/efs\n",
        "${self:custom.mnt.${opt:stage, 'dev'}}\n",
    ),
    "EFS020: a variable within a variable's default": (
        "/mnt/efs\n",
        "/mnt/${self:custom.none.${opt:stage, 'dev'}, ${self:custom.name}}\n",
    ),
    ": the default of a value from outside": ("!GetAtt Ap.Arn\n", "${ssm:/ap, ''}\n"),
    ": the default of the environment": ("!GetAtt Ap.Arn\n", "${env:AP, 'arn'}\n"),
    "EFS020: a VPC by a variable": (
        VPC,
        "  vpc: ${self:custom.vpc.${opt:stage, 'dev'}}\n",
    ),
    "EFS020: a VPC from outside": (
        VPC,
        "  vpc: ${file(vpc.yml)}\n",
    ),
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service(name, tmp_path):
    """The Serverless Framework itself allows the mount on the access point, which is EFS020."""
    expected, _, _ = name.partition(":")
    old, new = SERVICES[name]
    assert old in SERVICE
    text = CUSTOM + SERVICE.replace(old, new, 1)
    assert codes(findings(tmp_path, text, "serverless.yml")) == set(expected.split())


def test_variables_that_unfold_without_end(tmp_path):
    """Ten levels of ten references each would be ten billion values."""
    path = tmp_path / "serverless.yml"
    many = ", ".join(["'${self:custom.all}'"] * 10)
    path.write_text(
        f"custom: {{all: [{many}]}}\n" + SERVICE.replace(VPC, "  vpc: ${self:custom}\n")
    )
    with pytest.raises(TemplateError, match=r"serverless.yml: its variables unfold to over"):
        check(str(path))


def test_json_with_a_key_twice(tmp_path):
    text = '{"Resources": {"Q": {"Type": "AWS::SQS::Queue", "Type": "AWS::SNS::Topic"}}}'
    assert codes(findings(tmp_path, text, "template.json")) == {"EFS060"}


def test_an_assembly_of_cdk_with_a_nested_stack(tmp_path):
    """Each template of cdk.out is read, also that of a nested stack; assets and trees are not."""
    out = tmp_path / "cdk.out"
    out.mkdir()
    (out / "manifest.json").write_text(json.dumps({"version": "48.0.0", "artifacts": {}}))
    (out / "tree.json").write_text(json.dumps({"version": "tree-0.1", "tree": {}}))
    slow = BASE.replace("Timeout: 60", "Timeout: 3")
    (out / "App.nested.template.json").write_text(slow)
    (out / "App.template.json").write_text(json.dumps({"Resources": {}}))
    assert alarms(out) == {"EFS041"}
