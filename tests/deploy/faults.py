"""The broken templates of the corpus: a good one with one fault each.

`python -m tests.deploy.faults FOLDER` writes them out.
"""

from __future__ import annotations

import os
import sys

GOOD = os.path.join(os.path.dirname(__file__), "corpus", "good")


def _read(name):
    with open(os.path.join(GOOD, name), encoding="utf-8") as file:
        return file.read()


Y, T = _read("base.yaml"), _read("base.tf")


def y(*changes, also=()):
    """A fault of the SAM template: pairs of old and new text; `also`: what else is then found."""
    return "yaml", Y, changes, also


def t(*changes, also=()):
    """A fault of the Terraform file."""
    return "tf", T, changes, also


def cut(text, start, end):
    """The text from `start` to before `end`."""
    begin = text.index(start)
    return text[begin : text.index(end, begin + 1)]


ING = cut(Y, "      SecurityGroupIngress:", "  FileSystem:")
# By code: the name of the fault, and how to make it.
FAULTS = {
    "EFS001": [
        (
            "range",
            y(
                (
                    "          SourceSecurityGroupId: !Ref FunctionGroup",
                    "          CidrIp: 192.168.0.0/16",
                )
            ),
        ),
        (
            "port",
            y(("FromPort: 2049\n          ToPort: 2049", "FromPort: 2094\n          ToPort: 2094")),
        ),
        (
            "pair",
            y(
                (
                    "          SourceSecurityGroupId: !Ref FunctionGroup",
                    "          SourceSecurityGroupId: !Ref OtherGroup",
                ),
                (
                    "  FunctionGroup:\n    Type",
                    (
                        "  OtherGroup:\n    Type: AWS::EC2::SecurityGroup\n"
                        "    Properties:\n      GroupDescription: other functions\n"
                        "      VpcId: !Ref Vpc\n  FunctionGroup:\n"
                        "    Type"
                    ),
                ),
            ),
        ),
        ("none", y((ING, ""))),
        (
            "port",
            t(
                (
                    "from_port       = 2049\n    to_port         = 2049",
                    "from_port       = 111\n    to_port         = 111",
                )
            ),
        ),
        ("udp", t(('    protocol        = "tcp"\n', '    protocol        = "udp"\n'))),
    ],
    "EFS002": [
        (
            "world",
            y(
                (
                    "          SourceSecurityGroupId: !Ref FunctionGroup",
                    "          CidrIp: 0.0.0.0/0",
                )
            ),
        ),
        (
            "world",
            t(
                (
                    "    security_groups = [aws_security_group.function.id]\n",
                    '    cidr_blocks     = ["0.0.0.0/0"]\n',
                )
            ),
        ),
    ],
    "EFS003": [
        (
            "egress",
            y(
                (
                    "      GroupDescription: functions\n      VpcId: !Ref Vpc\n",
                    (
                        "      GroupDescription: functions\n      VpcId: !Ref Vpc\n"
                        "      SecurityGroupEgress:\n        - IpProtocol: tcp\n"
                        "          FromPort: 443\n          ToPort: 443\n"
                        "          CidrIp: 0.0.0.0/0\n"
                    ),
                )
            ),
        ),
        ("default", t((cut(T, "  egress {", '}\n\nresource "aws_security_group" "mount"'), ""))),
    ],
    "EFS004": [
        (
            "zone",
            y(
                (
                    (
                        "    Properties:\n      FileSystemId: !Ref FileSystem\n"
                        "      SubnetId: !Ref SubnetB"
                    ),
                    (
                        "    Properties:\n      FileSystemId: !Ref FileSystem\n"
                        "      SubnetId: !Ref SubnetC"
                    ),
                ),
                (
                    "  FunctionGroup:\n    Type",
                    (
                        "  SubnetC:\n    Type: AWS::EC2::Subnet\n"
                        "    Properties:\n      VpcId: !Ref Vpc\n"
                        "      CidrBlock: 10.0.3.0/24\n      AvailabilityZone: !Select [2, !GetAZs "
                        '""]\n  FunctionGroup:\n    Type'
                    ),
                ),
            ),
        ),
        (
            "zone",
            t(
                (
                    cut(
                        T, 'resource "aws_efs_mount_target" "b"', 'resource "aws_efs_access_point"'
                    ),
                    "",
                ),
                (
                    "depends_on = [aws_efs_mount_target.a, aws_efs_mount_target.b]",
                    "depends_on = [aws_efs_mount_target.a]",
                ),
            ),
        ),
    ],
    "EFS005": [
        ("zone", y(("SubnetIds: [!Ref SubnetA, !Ref SubnetB]", "SubnetIds: [!Ref SubnetA]")))
    ],
    "EFS006": [
        (
            "none",
            y(
                (cut(Y, "  MountTargetA:", "  AccessPoint:"), ""),
                ("    DependsOn: [MountTargetA, MountTargetB]\n", ""),
            ),
        ),
        (
            "none",
            t(
                (
                    cut(
                        T, 'resource "aws_efs_mount_target" "a"', 'resource "aws_efs_access_point"'
                    ),
                    "",
                ),
                ("  depends_on = [aws_efs_mount_target.a, aws_efs_mount_target.b]\n", ""),
            ),
        ),
    ],
    "EFS007": [
        ("none", y(("    DependsOn: [MountTargetA, MountTargetB]\n", ""))),
        (
            "one",
            y(("    DependsOn: [MountTargetA, MountTargetB]\n", "    DependsOn: MountTargetA\n")),
        ),
        ("none", t(("  depends_on = [aws_efs_mount_target.a, aws_efs_mount_target.b]\n", ""))),
    ],
    "EFS008": [
        ("vpc", y((cut(Y, "      VpcConfig:", "      FileSystemConfigs:"), ""))),
        ("vpc", t((cut(T, "  vpc_config {", "  file_system_config {"), ""))),
    ],
    "EFS009": [
        (
            "zone",
            y(
                (
                    '      CidrBlock: 10.0.2.0/24\n      AvailabilityZone: !Select [1, !GetAZs ""]',
                    '      CidrBlock: 10.0.2.0/24\n      AvailabilityZone: !Select [0, !GetAZs ""]',
                ),
                also=("EFS005",),
            ),
        )
    ],
    "EFS010": [
        (
            "acl",
            y(
                (
                    "  FunctionGroup:\n    Type",
                    """  Acl:
    Type: AWS::EC2::NetworkAcl
    Properties:
      VpcId: !Ref Vpc
  NoNfs:
    Type: AWS::EC2::NetworkAclEntry
    Properties:
      NetworkAclId: !Ref Acl
      RuleNumber: 90
      Protocol: 6
      RuleAction: deny
      CidrBlock: 0.0.0.0/0
      PortRange: {From: 2000, To: 3000}
  SubnetC:
    Type: AWS::EC2::Subnet
    Properties:
      VpcId: !Ref Vpc
      CidrBlock: 10.0.3.0/24
      AvailabilityZone: !Select [0, !GetAZs ""]
  Guarded:
    Type: AWS::EC2::SubnetNetworkAclAssociation
    Properties:
      NetworkAclId: !Ref Acl
      SubnetId: !Ref SubnetC
  Rest:
    Type: AWS::EC2::NetworkAclEntry
    Properties:
      NetworkAclId: !Ref Acl
      RuleNumber: 100
      Protocol: -1
      RuleAction: allow
      CidrBlock: 0.0.0.0/0
  FunctionGroup:
    Type""",
                ),
                (
                    "SubnetIds: [!Ref SubnetA, !Ref SubnetB]",
                    "SubnetIds: [!Ref SubnetC, !Ref SubnetB]",
                ),
            ),
        )
    ],
    "EFS011": [
        (
            "s3",
            y(
                (
                    "        - PolicyName: mount\n",
                    """        - PolicyName: models
          PolicyDocument:
            Version: "2012-10-17"
            Statement:
              - Effect: Allow
                Action: s3:GetObject
                Resource: arn:aws:s3:::models/*
        - PolicyName: mount
""",
                )
            ),
        )
    ],
    "EFS020": [
        (
            "arn",
            y(
                (
                    (
                        "                Resource: !GetAtt FileSystem.Arn\n"
                        "                Condition:\n                  StringEquals:\n"
                        "                    elasticfilesystem:AccessPointArn: !GetAtt "
                        "AccessPoint.Arn\n"
                    ),
                    "                Resource: !GetAtt AccessPoint.Arn\n",
                )
            ),
        ),
        (
            "text",
            y(
                (
                    "                Resource: !GetAtt FileSystem.Arn\n",
                    (
                        "                Resource: arn:aws:elasticfilesystem:us-east-1:"
                        "123456789012:access-point/fsap-12345678\n"
                    ),
                )
            ),
        ),
        (
            "arn",
            t(
                (
                    "      Resource  = aws_efs_file_system.this.arn\n",
                    "      Resource  = aws_efs_access_point.app.arn\n",
                )
            ),
        ),
    ],
    "EFS021": [
        (
            "root",
            y(
                (
                    "                  - elasticfilesystem:ClientWrite\n",
                    (
                        "                  - elasticfilesystem:ClientWrite\n"
                        "                  - elasticfilesystem:ClientRootAccess\n"
                        ""
                    ),
                )
            ),
        ),
        (
            "star",
            t(
                (
                    '"elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"',
                    '"elasticfilesystem:Client*"',
                )
            ),
        ),
    ],
    "EFS022": [
        ("none", y((cut(Y, "      Policies:", "  Function:"), ""))),
        (
            "none",
            t(
                (
                    cut(
                        T,
                        'resource "aws_iam_role_policy" "mount"',
                        'resource "aws_lambda_function"',
                    ),
                    "",
                )
            ),
        ),
    ],
    "EFS023": [
        (
            "star",
            y(
                (
                    (
                        "                Resource: !GetAtt FileSystem.Arn\n"
                        "                Condition:\n                  StringEquals:\n"
                        "                    elasticfilesystem:AccessPointArn: !GetAtt "
                        "AccessPoint.Arn\n"
                    ),
                    '                Resource: "*"\n',
                )
            ),
        ),
        (
            "star",
            t(
                (
                    (
                        "      Resource  = aws_efs_file_system.this.arn\n"
                        '      Condition = { StringEquals = { "elasticfilesystem:AccessPointArn" = '
                        "aws_efs_access_point.app.arn } }\n"
                    ),
                    '      Resource  = "*"\n',
                )
            ),
        ),
    ],
    "EFS024": [
        (
            "fs",
            y(("        - Arn: !GetAtt AccessPoint.Arn", "        - Arn: !GetAtt FileSystem.Arn")),
        ),
        (
            "fs",
            t(
                (
                    "    arn              = aws_efs_access_point.app.arn",
                    "    arn              = aws_efs_file_system.this.arn",
                )
            ),
        ),
    ],
    "EFS025": [
        ("root", y(("        Path: /app\n", "        Path: /\n"), also=["EFS029"])),
        (
            "root",
            t((cut(T, "  root_directory {", '}\n\nresource "aws_iam_role"'), ""), also=["EFS029"]),
        ),
    ],
    "EFS026": [
        ("mode", y(('Permissions: "0750"', 'Permissions: "0777"'))),
        ("mode", t(('permissions = "0750"', 'permissions = "777"'))),
    ],
    "EFS027": [
        ("none", y((cut(Y, "      PosixUser:", "      RootDirectory:"), ""))),
        ("zero", t(("    uid = 1001\n    gid = 1001", "    uid = 0\n    gid = 0"))),
    ],
    "EFS028": [
        ("info", y((cut(Y, "        CreationInfo:", "  Role:"), ""))),
        ("info", t((cut(T, "    creation_info {", '  }\n}\n\nresource "aws_iam_role"'), ""))),
    ],
    "EFS029": [
        (
            "owner",
            y(
                (
                    '          OwnerUid: "1001"\n          OwnerGid: "1001"',
                    '          OwnerUid: "0"\n          OwnerGid: "0"',
                )
            ),
        ),
        ("mode", t(('permissions = "0750"', 'permissions = "0550"'))),
    ],
    "EFS030": [
        ("off", y(("      Encrypted: true", "      Encrypted: false"))),
        ("off", t(("  encrypted       = true", "  encrypted       = false"))),
    ],
    "EFS031": [("none", y((cut(Y, "      FileSystemPolicy:", "  MountTargetA:"), "")))],
    "EFS032": [
        (
            "other",
            y(
                (
                    """            Condition:
              Bool:
                aws:SecureTransport: "false"
""",
                    """            Condition:
              Bool:
                aws:SecureTransport: "false"
          - Effect: Deny
            Principal: "*"
            Action: elasticfilesystem:ClientMount
            Resource: "*"
            Condition:
              StringNotEquals:
                elasticfilesystem:AccessPointArn: >-
                  arn:aws:elasticfilesystem:eu-west-1:123456789012:access-point/fsap-0123456789abc
""",
                )
            ),
        ),
        (
            "other",
            t(
                (
                    """    Statement = [{
      Effect    = "Deny"
""",
                    """    Statement = [{
      Effect    = "Deny"
      Principal = "*"
      Action    = "elasticfilesystem:Client*"
      Resource  = "*"
      Condition = { StringNotEquals = {
        "elasticfilesystem:AccessPointArn" = aws_efs_access_point.other.arn
      } }
      }, {
      Effect    = "Deny"
""",
                ),
                (
                    """resource "aws_iam_role" "function" {""",
                    """resource "aws_efs_access_point" "other" {
  file_system_id = aws_efs_file_system.this.id
  posix_user {
    uid = 1002
    gid = 1002
  }
  root_directory {
    path = "/other"
    creation_info {
      owner_uid   = 1002
      owner_gid   = 1002
      permissions = "0750"
    }
  }
}

resource "aws_iam_role" "function" {""",
                ),
            ),
        ),
    ],
    "EFS040": [
        ("path", y(("LocalMountPath: /mnt/efs", "LocalMountPath: /efs"), also=("EFS045",))),
        (
            "deep",
            t(
                ('local_mount_path = "/mnt/efs"', 'local_mount_path = "/mnt/efs/models"'),
                also=("EFS045",),
            ),
        ),
    ],
    "EFS041": [
        ("short", y(("      Timeout: 60", "      Timeout: 3"))),
        ("short", t(("timeout       = 60", "timeout       = 5"))),
    ],
    "EFS042": [
        (
            "snap",
            y(
                (
                    "      Timeout: 60",
                    (
                        "      Timeout: 60\n      AutoPublishAlias: live\n"
                        "      SnapStart:\n        ApplyOn: PublishedVersions"
                    ),
                )
            ),
        ),
        (
            "snap",
            t(
                (
                    "  environment {",
                    '  snap_start {\n    apply_on = "PublishedVersions"\n  }\n  environment {',
                )
            ),
        ),
    ],
    "EFS043": [
        (
            "both",
            y(
                (
                    "          LocalMountPath: /mnt/efs\n",
                    (
                        "          LocalMountPath: /mnt/efs\n"
                        "        - Arn: "
                        "arn:aws:s3files:eu-west-1:123456789012:file-system/fs-0123456789abcdef0"
                        "/access-point/fsap-0123456789abcdef0\n"
                        "          LocalMountPath: /mnt/s3\n"
                    ),
                ),
                also=("EFS044",),
            ),
        )
    ],
    "EFS044": [
        (
            "two",
            y(
                (
                    "          LocalMountPath: /mnt/efs\n",
                    (
                        "          LocalMountPath: /mnt/efs\n"
                        "        - Arn: !GetAtt AccessPoint.Arn\n"
                        "          LocalMountPath: /mnt/other\n"
                        ""
                    ),
                )
            ),
        )
    ],
    "EFS045": [
        ("root", y(("EFSSTATE_ROOT: /mnt/efs", "EFSSTATE_ROOT: /mnt/state"))),
        ("root", t(('EFSSTATE_ROOT = "/mnt/efs"', 'EFSSTATE_ROOT = "/tmp/state"'))),
    ],
    "EFS050": [
        ("amount", y(("ThroughputMode: elastic", "ThroughputMode: provisioned"))),
        (
            "max",
            y(
                (
                    "      ThroughputMode: elastic",
                    "      ThroughputMode: elastic\n      PerformanceMode: maxIO",
                )
            ),
        ),
        (
            "amount",
            t(
                (
                    '  throughput_mode = "elastic"\n',
                    '  throughput_mode = "elastic"\n\n  provisioned_throughput_in_mibps = 100\n',
                )
            ),
        ),
    ],
    "EFS051": [("mode", y(("ThroughputMode: elastic", "ThroughputMode: bursting")))],
    "EFS052": [("none", y((cut(Y, "      LifecyclePolicies:", "      FileSystemPolicy:"), "")))],
    "EFS053": [
        ("none", y((cut(Y, "      BackupPolicy:", "      LifecyclePolicies:"), ""))),
        (
            "none",
            t(
                (
                    cut(
                        T,
                        'resource "aws_efs_backup_policy"',
                        'resource "aws_efs_file_system_policy"',
                    ),
                    "",
                )
            ),
        ),
    ],
    "EFS054": [("none", y((Y[Y.index("  Alarm:") :], "")))],
    "EFS055": [
        ("metric", y(("MetricName: PercentIOLimit", "MetricName: StoredThroughputCapacity"))),
        ("metric", t(('"PercentIOLimit"', '"StoredThroughputCapacity"'))),
    ],
    "EFS056": [
        (
            "zone",
            y(
                (
                    "      ThroughputMode: elastic",
                    "      ThroughputMode: elastic\n      AvailabilityZoneName: eu-west-1a",
                ),
                (
                    '      AvailabilityZone: !Select [0, !GetAZs ""]',
                    "      AvailabilityZone: eu-west-1a",
                ),
                (
                    '      AvailabilityZone: !Select [1, !GetAZs ""]',
                    "      AvailabilityZone: eu-west-1b",
                ),
            ),
        )
    ],
    "EFS057": [
        ("delete", y(("    DeletionPolicy: Retain\n    UpdateReplacePolicy: Retain\n", "")))
    ],
    "EFS033": [
        (
            "condition",
            y(("AccessPointArn: !GetAtt AccessPoint.Arn", "AccessPointArn: !Ref AccessPoint")),
        ),
        ("resource", t(("aws_efs_file_system.this.arn", "aws_efs_file_system.this.id"))),
    ],
    "EFS034": [
        ("path", y(("Path: /app", "Path: app"))),
        ("octal", y(('Permissions: "0750"', "Permissions: 0750"))),
    ],
    "EFS035": [("role", y(("AWSLambdaVPCAccessExecutionRole", "AWSLambdaBasicExecutionRole")))],
    "EFS036": [
        (
            "public",
            y(
                (
                    '          - Effect: Deny\n            Principal: "*"\n            Action: "*"',
                    (
                        '          - Effect: Allow\n            Principal: "*"\n'
                        "            Action: elasticfilesystem:Client*"
                    ),
                )
            ),
        )
    ],
    "EFS037": [
        (
            "actions",
            y(
                (
                    "        - Arn: !GetAtt AccessPoint.Arn\n",
                    (
                        "        - Arn: arn:aws:s3files:eu-west-1:123456789012:file-system/fs-0/"
                        "access-point/fsap-0\n"
                    ),
                )
            ),
        )
    ],
    "EFS046": [("timeout", y(("Timeout: 60", "Timeout: 2000")))],
    "EFS047": [("group", y(("SecurityGroupIds: [!Ref FunctionGroup]", "SecurityGroupIds: []")))],
    "EFS048": [
        (
            "early",
            y(
                (
                    "  FunctionGroup:\n    Type",
                    (
                        "  Call:\n    Type: Custom::Setup\n    Properties:\n"
                        "      ServiceToken: !GetAtt Function.Arn\n"
                        "  Nfs:\n    Type: AWS::EC2::SecurityGroupIngress\n    Properties:\n"
                        "      GroupId: !Ref MountGroup\n      IpProtocol: tcp\n"
                        "      FromPort: 2049\n      ToPort: 2049\n"
                        "      SourceSecurityGroupId: !Ref FunctionGroup\n"
                        "  FunctionGroup:\n    Type"
                    ),
                ),
            ),
        )
    ],
    "EFS058": [
        (
            "two",
            y(
                (
                    "        - TransitionToIA: AFTER_30_DAYS\n",
                    (
                        "        - TransitionToIA: AFTER_30_DAYS\n"
                        "          TransitionToPrimaryStorageClass: AFTER_1_ACCESS\n"
                    ),
                )
            ),
        )
    ],
    "EFS059": [
        (
            "provisioned",
            y(
                (
                    "      ThroughputMode: elastic\n",
                    "      ThroughputMode: provisioned\n      ProvisionedThroughputInMibps: 256\n",
                )
            ),
        )
    ],
    "EFS060": [("twice", y(("      Timeout: 60\n", "      Timeout: 3\n      Timeout: 60\n")))],
}

ELSEWHERE = """\
resource "aws_lambda_function" "this" {
  function_name = "app"
  role          = aws_iam_role.this.arn
  file_system_config {
    arn              = aws_efs_file_system.elsewhere.arn
    local_mount_path = "/mnt/efs"
  }
  vpc_config {
    subnet_ids         = [aws_subnet.a.id]
    security_group_ids = [aws_security_group.a.id]
  }
}
"""


def _make():
    for code, cases in FAULTS.items():
        for name, (kind, text, changes, also) in cases:
            broken = text
            for old, new in changes:
                assert broken.count(old) == 1, (code, name, old)
                broken = broken.replace(old, new)
            yield f"{code}-{name}.{kind}", broken, {code, *also}
    yield "EFS024-elsewhere.tf", ELSEWHERE, {"EFS024", "EFS041"}


BROKEN = {name: text for name, text, _ in _make()}
EXPECTED = {name: codes for name, _, codes in _make()}


def write_all(folder):
    """Each as a file of its name; the paths, by name."""
    paths = {name: os.path.join(folder, name) for name in sorted(BROKEN)}
    for name, path in paths.items():
        with open(path, "w", encoding="utf-8") as file:
            file.write(BROKEN[name])
    return paths


if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    write_all(sys.argv[1])
