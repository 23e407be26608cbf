"""Faults and false alarms of the linter, each as a small change of one good template."""

from __future__ import annotations

import os
import pathlib

import pytest

from efsstate.deploy.linting.lint import check

HERE = os.path.dirname(__file__)
BASE = pathlib.Path(HERE, "corpus", "cases", "base.yaml").read_text(encoding="utf-8")
ALLOWED = 'Action: ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]'
POLICY = BASE[BASE.index("      FileSystemPolicy:") : BASE.index("  MtA:")]
CONDITION = BASE[BASE.index("                Condition: {StringEquals") : BASE.index("  Fn:\n")]
UNKNOWN_CONDITION = """Parameters:
  P: {Type: String}
Conditions:
  C: !Equals [!Ref P, x]
  D: !Not [!Condition C]
Resources:"""
STATEMENT = BASE[BASE.index("              - Effect: Allow\n") : BASE.index("  Fn:\n")]
INGRESS = (
    "        - {IpProtocol: tcp, FromPort: 2049, ToPort: 2049, SourceSecurityGroupId: !Ref FnSg}\n"
)
ROOT = "RootDirectory: {Path: /app, CreationInfo:"
NAT_ROLE = """        - PolicyName: files
          PolicyDocument: {Statement: [{Effect: Allow, Action: "s3:GetObject", Resource: "*"}]}
"""
MANAGED = '["arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"]'
THIRD_SUBNET = """  SubC:
    Type: AWS::EC2::Subnet
    Properties:
      VpcId: !Ref Vpc
      CidrBlock: 10.0.3.0/24
      AvailabilityZone: !Select [0, !GetAZs ""]
  Acl: {Type: AWS::EC2::NetworkAcl, Properties: {VpcId: !Ref Vpc}}
  Assoc:
    Type: AWS::EC2::SubnetNetworkAclAssociation
    Properties: {SubnetId: !Ref SubC, NetworkAclId: !Ref Acl}
"""


def acl_rule(name, number, action, cidr, low, high, *, outward="false"):
    """Return a rule of the network ACL."""
    return f"""  {name}:
    Type: AWS::EC2::NetworkAclEntry
    Properties:
      NetworkAclId: !Ref Acl
      RuleNumber: {number}
      Egress: {outward}
      Protocol: 6
      RuleAction: {action}
      CidrBlock: {cidr}
      PortRange: {{From: {low}, To: {high}}}
"""


def changed(*pairs):
    """Return the good template with each old text replaced by the new one."""
    text = BASE
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def findings(tmp_path, text, name="template.yaml", **options):
    """Return the set of (severity, code) that a template gives."""
    path = tmp_path / name
    path.write_text(text)
    return {(each.severity, each.code) for each in check(str(path), **options).findings}


def alarms(given):
    """Return the codes of the errors and warnings."""
    return {code for severity, code in given if severity != "note"}


def test_the_base_gives_nothing(tmp_path):
    """Each case differs from a template without findings by its fault alone."""
    path = tmp_path / "template.yaml"
    path.write_text(BASE)
    report = check(str(path))
    assert report.findings == []
    assert report.functions == 1


VPC2 = """  Vpc2:
    Type: AWS::EC2::VPC
    Properties: {CidrBlock: 10.1.0.0/16}
  FarA:
    Type: AWS::EC2::Subnet
    Properties:
      VpcId: !Ref Vpc2
      CidrBlock: 10.1.1.0/24
      AvailabilityZone: !Select [0, !GetAZs ""]
  Peer:
    Type: AWS::EC2::VPCPeeringConnection
    Properties: {VpcId: !Ref Vpc2, PeerVpcId: !Ref Vpc}
"""
FUNCTION_SUBNETS = "VpcConfig: {SubnetIds: [!Ref SubA, !Ref SubB], SecurityGroupIds"
ATTACHED = (MANAGED, MANAGED[:-1] + ", !Ref Extra]"), (STATEMENT, "              []\n")

# A good template, or one whose fault cannot be known: no error and no warning may be reported.
FALSE_ALARMS = {
    "a statement behind a condition": changed(
        ("Resources:", UNKNOWN_CONDITION),
        (
            STATEMENT,
            "              - !If [C, {Effect: Allow, " + ALLOWED + "}, !Ref AWS::NoValue]\n",
        ),
    ),
    "all statements behind a condition": changed(
        ("Resources:", UNKNOWN_CONDITION),
        (
            "Statement:\n" + STATEMENT,
            "Statement: !If [C, [{Effect: Allow, " + ALLOWED + "}], []]\n",
        ),
    ),
    "actions behind a condition": changed(
        ("Resources:", UNKNOWN_CONDITION),
        (ALLOWED, 'Action: !If [C, ["elasticfilesystem:ClientMount"], ["iam:PassRole"]]'),
    ),
    "actions from a list parameter": changed(
        ("Resources:", "Parameters:\n  Acts: {Type: CommaDelimitedList}\nResources:"),
        (ALLOWED, "Action: !Ref Acts"),
    ),
    "a document that a macro includes": changed(
        *ATTACHED,
        (
            "  Fn:\n",
            (
                "  Extra:\n    Type: AWS::IAM::ManagedPolicy\n    Properties:\n"
                "      PolicyDocument:\n        Fn::Transform: {Name: AWS::Include}\n  Fn:\n"
            ),
        ),
    ),
    "a policy whose name is a parameter": changed(
        ("Resources:", "Parameters:\n  Extra: {Type: String}\nResources:"), *ATTACHED
    ),
    "a peered VPC": changed(
        ("  FnSg:", VPC2 + "  FnSg:"),
        (FUNCTION_SUBNETS, "VpcConfig: {SubnetIds: [!Ref FarA], SecurityGroupIds"),
    ),
    "a VPC behind a transit gateway": changed(
        (
            "  FnSg:",
            VPC2.replace("AWS::EC2::VPCPeeringConnection", "AWS::EC2::TransitGatewayAttachment")
            + "  FnSg:",
        ),
        (FUNCTION_SUBNETS, "VpcConfig: {SubnetIds: [!Ref FarA], SecurityGroupIds"),
    ),
    "mount targets of which one is created": changed(
        ("Resources:", UNKNOWN_CONDITION),
        ("  MtB:\n", "  MtB:\n    Condition: C\n"),
        (
            "  Ap:\n",
            (
                "  MtB2:\n    Condition: D\n    Type: AWS::EFS::MountTarget\n    Properties: "
                "{FileSystemId: !Ref Fs, SubnetId: !Ref SubB, SecurityGroups: [!Ref MtSg]}\n  Ap:\n"
            ),
        ),
    ),
    "an ACL of another subnet": changed(
        ("  FnSg:", THIRD_SUBNET + acl_rule("R", 50, "deny", "0.0.0.0/0", 2049, 2049) + "  FnSg:")
    ),
    "a NAT instance": changed(
        ("          PolicyDocument:\n", "          PolicyDocument:\n"),
        ("  Fn:\n", "  Fn:\n"),
        ("      Policies:\n", "      Policies:\n" + NAT_ROLE),
        (
            "  FnSg:",
            (
                "  Nat: {Type: AWS::EC2::Instance, Properties: {SourceDestCheck: false}}\n  Way:\n"
                "    Type: AWS::EC2::Route\n    Properties: {DestinationCidrBlock: 0.0.0.0/0, "
                "InstanceId: !Ref Nat}\n  FnSg:"
            ),
        ),
    ),
    "an alarm on TotalIOBytes": changed(("PercentIOLimit", "TotalIOBytes")),
    "the longest timeout": changed(("Timeout: 60", "Timeout: 1800")),
    "a Deny of another action": changed(
        (
            "Bool: {",
            'StringNotEquals: {"elasticfilesystem:AccessPointArn": !GetAtt Ap.Arn}, Bool: {',
        ),
    ),
    "a role that may mount and another statement that may not": changed(
        (
            "              - Effect: Allow\n",
            (
                '              - {Effect: Allow, Action: "s3:GetObject", '
                'Resource: "*"}\n              - Effect: Allow\n'
            ),
        ),
        (
            "  FnSg:",
            (
                "  Gate:\n    Type: AWS::EC2::VPCEndpoint\n    Properties: {VpcId: !Ref Vpc, "
                "ServiceName: !Sub 'com.amazonaws.${AWS::Region}.s3'}\n  FnSg:"
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", FALSE_ALARMS)
def test_nothing_false_is_reported(name, tmp_path):
    assert alarms(findings(tmp_path, FALSE_ALARMS[name])) == set()


def test_everything_but_some_actions_is_root_access(tmp_path):
    """NotAction allows the mount, and root access with it."""
    assert alarms(findings(tmp_path, changed((ALLOWED, 'NotAction: ["iam:*"]')))) == {"EFS021"}


def test_sam_joins_the_lists_of_globals(tmp_path):
    """A function is in the groups of Globals and in its own."""
    text = changed(
        (
            "Resources:",
            (
                "Transform: AWS::Serverless-2016-10-31\nGlobals:\n  Function:\n    VpcConfig: "
                "{SecurityGroupIds: [!Ref FnSg], SubnetIds: [!Ref SubA, !Ref SubB]}\nResources:\n"
                "  Extra:\n    Type: AWS::EC2::SecurityGroup\n    Properties: {GroupDescription: x,"
                " VpcId: !Ref Vpc}"
            ),
        ),
        ("AWS::Lambda::Function", "AWS::Serverless::Function"),
        ("Code: {ZipFile: ", "InlineCode: "),
        ('return 1"}', 'return 1"'),
        (FUNCTION_SUBNETS + ": [!Ref FnSg]}", "VpcConfig: {SecurityGroupIds: [!Ref Extra]}"),
    )
    assert alarms(findings(tmp_path, text)) == set()


def test_sam_joins_file_systems_to_two(tmp_path):
    """A file system in Globals and one in the function are two, which Lambda refuses."""
    text = changed(
        (
            "Resources:",
            (
                "Transform: AWS::Serverless-2016-10-31\nGlobals:\n  Function:\n"
                "    FileSystemConfigs: [{Arn: !GetAtt Ap.Arn, LocalMountPath: /mnt/a}]\nResources:"
            ),
        ),
        ("AWS::Lambda::Function", "AWS::Serverless::Function"),
    )
    assert ("error", "EFS044") in findings(tmp_path, text)


def test_an_access_point_as_resource_without_a_policy(tmp_path):
    """Without a file-system policy the mount works all the same, until one is added."""
    text = changed(
        (POLICY, ""), ("Resource: !GetAtt Fs.Arn\n" + CONDITION, "Resource: !GetAtt Ap.Arn\n")
    )
    given = findings(tmp_path, text)
    assert ("warning", "EFS020") in given
    assert not {code for severity, code in given if severity == "error"}
    policed = changed(("Resource: !GetAtt Fs.Arn\n" + CONDITION, "Resource: !GetAtt Ap.Arn\n"))
    assert ("error", "EFS020") in findings(tmp_path, policed)


def test_a_directory_may_exist_on_an_older_file_system(tmp_path):
    """Without CreationInfo an imported file system is a warning, a new one an error."""
    point = BASE[BASE.index("      RootDirectory:") : BASE.index("  Role:")]
    bare = changed((point, "      RootDirectory: {Path: /app}\n"))
    assert ("error", "EFS028") in findings(tmp_path, bare)
    start = bare.index("  Ap:\n")
    imported = bare[:start] + bare[start:].replace("!Ref Fs", "!ImportValue shared-fs", 1)
    given = findings(tmp_path, imported)
    assert ("warning", "EFS028") in given
    assert not {code for severity, code in given if severity == "error"}


def test_s3_files_need_no_permission_for_efs(tmp_path):
    """A function that mounts S3 Files is not asked for elasticfilesystem:ClientMount."""
    start, end = BASE.index("  Ap:\n"), BASE.index("  Role:\n")
    text = BASE.replace(BASE[start:end], "  Ap: {Type: AWS::S3Files::AccessPoint}\n")
    text = text.replace("!GetAtt Ap.Arn", "!GetAtt Ap.AccessPointArn")
    assert alarms(findings(tmp_path, text)) == {"EFS037"}
    text = text.replace("elasticfilesystem:", "s3files:")
    assert alarms(findings(tmp_path, text)) == set()


def test_the_root_has_no_permissions_of_its_own(tmp_path):
    """CreationInfo has no effect on `/`: its mode is not judged, its owner is."""
    given = findings(tmp_path, changed(("Path: /app", "Path: /"), ('"0750"', '"0777"')))
    assert ("warning", "EFS026") not in given
    assert {("warning", "EFS025"), ("error", "EFS029")} <= given


def with_acl(*rules):
    """Return the good template with the function in a subnet of its own, behind an ACL."""
    return changed(
        ("  FnSg:", THIRD_SUBNET + "".join(rules) + "  FnSg:"),
        (FUNCTION_SUBNETS, "VpcConfig: {SubnetIds: [!Ref SubC, !Ref SubB], SecurityGroupIds"),
    )


OUT = acl_rule("Out", 10, "allow", "0.0.0.0/0", 2049, 2049, outward="true")
BACK = acl_rule("Back", 10, "allow", "0.0.0.0/0", 1024, 65535)
ONE_ZONE = (
    "      Encrypted: true",
    "      AvailabilityZoneName: eu-west-1c\n      Encrypted: true",
)
MISSES = {
    "EFS033 a role's name for its ARN": changed(("Role: !GetAtt Role.Arn", "Role: !Ref Role")),
    "EFS056 two mount targets of one zone's storage": changed(ONE_ZONE),
    "EFS024 an id inside a text": changed(("{Arn: !GetAtt Ap.Arn", '{Arn: !Sub "${Ap}"')),
    "EFS024 an id for an ARN": changed(("{Arn: !GetAtt Ap.Arn", "{Arn: !Ref Ap")),
    "EFS033 an id in a condition": changed(
        ('AccessPointArn": !GetAtt Ap.Arn', 'AccessPointArn": !Ref Ap')
    ),
    "EFS033 an id as a resource": changed(("Resource: !GetAtt Fs.Arn", "Resource: !Ref Fs")),
    "EFS035 no network interfaces": changed(("AWSLambdaVPCAccess", "AWSLambdaBasic")),
    "EFS029 the root of a new file system": changed(
        (ROOT + BASE.split(ROOT)[1].split("\n")[0], "RootDirectory: {Path: /}")
    ),
    "EFS021 every action on everything": changed(
        (ALLOWED, 'Action: "*"'), ("Resource: !GetAtt Fs.Arn\n" + CONDITION, 'Resource: "*"\n')
    ),
    "EFS023 every action of EFS on everything": changed(
        (ALLOWED, 'Action: "elasticfilesystem:*"'),
        ("Resource: !GetAtt Fs.Arn\n" + CONDITION, 'Resource: "*"\n'),
    ),
    "EFS036 a policy for everybody": changed(
        (
            '- {Effect: Deny, Principal: "*", Action: "*"',
            '- {Effect: Allow, Principal: "*", Action: "elasticfilesystem:Client*"',
        )
    ),
    "EFS032 a denial without condition": changed(
        (
            ('Version: "2012-10-17"\n        Statement:\n          - {'),
            (
                'Statement:\n          - {Effect: Deny, Principal: "*", Action: '
                '"elasticfilesystem:ClientMount"}\n          - {'
            ),
        )
    ),
    "EFS032 a denial by principal": changed(
        (
            ('Version: "2012-10-17"\n        Statement:\n          - {'),
            (
                'Statement:\n          - {Effect: Deny, Principal: "*", Action: "*", '
                'Condition: {ArnNotEquals: {"aws:PrincipalArn": !GetAtt Other.Arn}}}\n'
                "          - {"
            ),
        ),
        ("  Fn:\n", ("  Other: {Type: AWS::IAM::Role}\n  Fn:\n")),
    ),
    "EFS022 a policy for managing": changed(
        (MANAGED, MANAGED[:-1] + ", arn:aws:iam::aws:policy/AmazonElasticFileSystemFullAccess]"),
        (
            'Action: ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]',
            'Action: "iam:PassRole"',
        ),
    ),
    "EFS022 a policy of another service": changed(
        (MANAGED, MANAGED[:-1] + ", arn:aws:iam::aws:policy/AmazonSSMReadOnlyAccess]"),
        (
            'Action: ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]',
            'Action: "iam:PassRole"',
        ),
    ),
    "EFS022 another file system": changed(
        ("Resource: !GetAtt Fs.Arn", "Resource: !GetAtt Fs2.Arn"),
        (
            "  MtA:",
            (
                "  Fs2: {Type: AWS::EFS::FileSystem, DeletionPolicy: Retain, Properties: "
                "{Encrypted: true}}\n  MtA:"
            ),
        ),
    ),
    "EFS022 another access point": changed(
        ('AccessPointArn": !GetAtt Ap.Arn', 'AccessPointArn": !GetAtt Ap2.Arn'),
        (
            "  Role:",
            (
                "  Ap2:\n    Type: AWS::EFS::AccessPoint\n"
                "    Properties: {FileSystemId: !Ref Fs, PosixUser: {Uid: 5, Gid: 5}, "
                "RootDirectory: {Path: /b, CreationInfo: {OwnerUid: 5, OwnerGid: 5, "
                'Permissions: "0750"}}}\n  Role:'
            ),
        ),
    ),
    "EFS058 two transitions": changed(
        (
            "[{TransitionToIA: AFTER_30_DAYS}]",
            ("[{TransitionToIA: AFTER_30_DAYS, TransitionToPrimaryStorageClass: AFTER_1_ACCESS}]"),
        )
    ),
    "EFS058 archive without elastic": changed(
        ("TransitionToIA: AFTER_30_DAYS", "TransitionToArchive: AFTER_90_DAYS"),
        ("ThroughputMode: elastic", "ThroughputMode: bursting"),
    ),
    "EFS010 an ACL without rules": with_acl(),
    "EFS010 a denial of the VPC's range": with_acl(
        acl_rule("No", 5, "deny", "10.0.0.0/16", 2049, 2049, outward="true"), OUT, BACK
    ),
    "EFS010 no way back": with_acl(OUT, acl_rule("Back", 10, "allow", "0.0.0.0/0", 443, 443)),
    "EFS034 a path without a slash": changed(("Path: /app", "Path: export/app")),
    "EFS034 a path of five levels": changed(("Path: /app", "Path: /a/b/c/d/e")),
    "EFS034 an unquoted octal number": changed(('Permissions: "0750"', "Permissions: 0750")),
    "EFS029 an unquoted octal number": changed(('Permissions: "0750"', "Permissions: 0777")),
    "EFS001 the range of one of two subnets": changed(
        ("SourceSecurityGroupId: !Ref FnSg", "CidrIp: 10.0.1.0/24")
    ),
    "EFS056 a mount target elsewhere": changed(
        (
            "      Encrypted: true",
            ("      AvailabilityZoneName: eu-west-1c\n      Encrypted: true"),
        ),
        ('AvailabilityZone: !Select [0, !GetAZs ""]', "AvailabilityZone: eu-west-1a"),
    ),
    "EFS011 no way to the parameter store": changed(
        (
            "      Policies:\n",
            "      Policies:\n" + NAT_ROLE.replace("s3:GetObject", "ssm:GetParameter"),
        )
    ),
    "EFS011 an endpoint of another VPC": changed(
        ("      Policies:\n", "      Policies:\n" + NAT_ROLE),
        (
            "  FnSg:",
            (
                "  Vpc2: {Type: AWS::EC2::VPC, Properties: {CidrBlock: 10.1.0.0/16}}\n"
                "  Gate: {Type: AWS::EC2::VPCEndpoint, Properties: {VpcId: !Ref Vpc2, "
                "ServiceName: com.amazonaws.eu-west-1.s3}}\n"
                "  FnSg:"
            ),
        ),
    ),
    "EFS011 an endpoint of another service": changed(
        ("      Policies:\n", "      Policies:\n" + NAT_ROLE),
        (
            "  FnSg:",
            (
                "  Gate: {Type: AWS::EC2::VPCEndpoint, Properties: {VpcId: !Ref Vpc, "
                "ServiceName: com.amazonaws.eu-west-1.s3-outposts}}\n"
                "  FnSg:"
            ),
        ),
    ),
    "EFS047 subnets without a group": changed(
        ("SecurityGroupIds: [!Ref FnSg]", "SecurityGroupIds: []")
    ),
    "EFS050 a mode with a capital": changed(("ThroughputMode: elastic", "ThroughputMode: Elastic")),
    "EFS050 an amount of nothing": changed(
        (
            "ThroughputMode: elastic",
            "ThroughputMode: provisioned\n      ProvisionedThroughputInMibps: 0",
        )
    ),
    "EFS046 a timeout beyond the limit": changed(("Timeout: 60", "Timeout: 2000")),
    "EFS041 the default timeout": changed(("      Timeout: 60\n", "")),
    "EFS060 a key twice": changed(
        ("      Timeout: 60\n", ("      Timeout: 60\n      Timeout: 61\n"))
    ),
    "EFS004 a VPC without peering": changed(
        ("  FnSg:", VPC2[: VPC2.index("  Peer:")] + "  FnSg:"),
        (FUNCTION_SUBNETS, "VpcConfig: {SubnetIds: [!Ref FarA], SecurityGroupIds"),
    ),
}


@pytest.mark.parametrize("name", MISSES)
def test_a_fault_is_found(name, tmp_path):
    assert name[:6] in alarms(findings(tmp_path, MISSES[name]))


def test_an_acl_does_not_apply_within_a_subnet(tmp_path):
    """Where the function and the mount target share their subnet, a denial is a note."""
    closed = THIRD_SUBNET.replace("SubnetId: !Ref SubC", "SubnetId: !Ref SubA")
    given = findings(tmp_path, changed(("  FnSg:", closed + "  FnSg:")))
    assert given == {("note", "EFS010")}


def test_an_open_acl_is_no_finding(tmp_path):
    """The ACL lets NFS and its answers through: what makes its relatives faults is missing."""
    assert alarms(findings(tmp_path, with_acl(OUT, BACK))) == set()


def test_a_group_for_a_range_of_all_subnets(tmp_path):
    """A rule for the VPC's range lets every subnet in."""
    text = changed(("SourceSecurityGroupId: !Ref FnSg", "CidrIp: 10.0.0.0/16"))
    assert findings(tmp_path, text) == set()


def test_root_access_through_any_mount_target_is_a_note(tmp_path):
    """CDK writes this policy by default; AWS does not call it public."""
    allow = (
        'Statement:\n          - {Effect: Allow, Principal: {AWS: "*"}, Action: '
        '["elasticfilesystem:ClientWrite", "elasticfilesystem:ClientRootAccess"], Condition: '
        '{Bool: {"elasticfilesystem:AccessedViaMountTarget": "true"}}}\n          - {'
    )
    old = 'Version: "2012-10-17"\n        Statement:\n          - {'
    assert findings(tmp_path, changed((old, allow))) == {("note", "EFS036")}


def test_provisioned_throughput_has_a_price(tmp_path):
    """The note names what the setting costs."""
    text = changed(
        (
            "ThroughputMode: elastic",
            "ThroughputMode: provisioned\n      ProvisionedThroughputInMibps: 20",
        )
    )
    assert ("note", "EFS059") in findings(tmp_path, text)


def test_parameters_replace_the_defaults(tmp_path):
    """A feature that is off by default can be looked at."""
    text = changed(
        ("Resources:", "Parameters:\n  Seconds: {Type: Number, Default: 60}\nResources:"),
        ("Timeout: 60", "Timeout: !Ref Seconds"),
    )
    assert findings(tmp_path, text) == set()
    given = findings(tmp_path, text, parameters={"Seconds": "3"})
    assert ("warning", "EFS041") in given


def test_loops_are_unfolded(tmp_path):
    """A function inside Fn::ForEach is looked at."""
    start, end = BASE.index("  Fn:\n"), BASE.index("  Alarm:\n")
    body = BASE[start:end].replace("  Fn:\n", "").replace("Timeout: 60", "Timeout: 3")
    indented = "".join(f"      {line}\n" for line in body.splitlines())
    loop = f"  Fn::ForEach::All:\n    - Name\n    - [One, Two]\n    - Fn${{Name}}:\n{indented}"
    path = tmp_path / "template.yaml"
    path.write_text(BASE.replace(BASE[start:end], loop))
    report = check(str(path))
    assert report.functions == 2
    assert {each.resource for each in report.findings if each.code == "EFS041"} == {
        "FnOne",
        "FnTwo",
    }


def test_a_module_type_is_out_of_view(tmp_path):
    """A resource whose type is a tag is passed over, and said."""
    path = tmp_path / "template.yaml"
    path.write_text(BASE + "  Net: {Type: !Rain::Module ./net.yaml}\n")
    report = check(str(path))
    assert [each for each in report.findings if each.severity == "error"] == []
    assert report.unseen == ["module Net"]


@pytest.mark.parametrize("comment", ["# efsstate: ignore EFS041", "# efsstate: ignore"])
def test_a_comment_keeps_a_finding_quiet(comment, tmp_path):
    """On the line of the finding, or as a line of its own above it."""
    for text in (f"Timeout: 3  {comment}", f"{comment}\n      Timeout: 3"):
        path = tmp_path / "template.yaml"
        path.write_text(changed(("Timeout: 60", text)))
        report = check(str(path))
        assert report.findings == []
        assert report.silenced == 1
    assert ("warning", "EFS041") in findings(
        tmp_path, changed(("Timeout: 60", "Timeout: 3  # efsstate: ignore EFS001"))
    )


def test_metadata_and_an_option_keep_a_finding_quiet(tmp_path):
    """Metadata serves JSON, which has no comments."""
    text = changed(
        ("Timeout: 60", "Timeout: 3"),
        ("  Fn:\n", "  Fn:\n    Metadata: {efsstate: {ignore: [EFS041]}}\n"),
    )
    assert findings(tmp_path, text) == set()
    bare = changed(("Timeout: 60", "Timeout: 3"))
    assert findings(tmp_path, bare, ignore={"EFS041"}) == set()
