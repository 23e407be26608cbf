"""The doctor's policy link: relatives of the policies that deny a mount, and of those that do not.

The account is a table of answers, so that each policy costs milliseconds; `test_account.py` asks
moto the same questions through the real API.
"""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest

from efsstate.deploy.diagnosis.account import examine

ACCOUNT = "123456789012"
EFS = f"arn:aws:elasticfilesystem:eu-west-1:{ACCOUNT}"
FILE_SYSTEM = f"{EFS}:file-system/fs-0123456789abcdef0"
POINT = f"{EFS}:access-point/fsap-0123456789abcdef0"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/service-role/app"
MOUNT, WRITE = "elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"
BOTH = [MOUNT, WRITE]
POINT_KEY = "elasticfilesystem:AccessPointArn"
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
INTERFACES = {"Effect": "Allow", "Action": "ec2:*NetworkInterface*", "Resource": "*"}
MAY_MOUNT = {
    "Effect": "Allow",
    "Action": BOTH,
    "Resource": FILE_SYSTEM,
    "Condition": {"StringEquals": {POINT_KEY: POINT}},
}
TLS = {
    "Effect": "Deny",
    "Principal": {"AWS": "*"},
    "Action": "*",
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
ANOTHER = f"arn:aws:iam::{ACCOUNT}:role/another"
VPC = {"StringNotEquals": {"aws:SourceVpc": "vpc-0123"}}
SIMULATE = "simulate_principal_policy"


def document(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def deny(**fields):
    """Return a statement of a file-system policy that denies the mount."""
    return {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "elasticfilesystem:*", **fields}


def refusal(operation, code):
    error = {"Error": {"Code": code, "Message": "no"}}
    return botocore.exceptions.ClientError(error, operation)


class Service:
    """A client of any service, which answers each operation from a table."""

    def __init__(self, answers):
        self.answers = answers

    def __getattr__(self, operation):
        def call(**arguments):
            answer = self.answers.get(operation, {})
            if callable(answer):
                return answer(**arguments)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def look(role=(), own=None, boundary=None, attached=(), without=(), simulated=None, missing=()):
    """Examine a function and return (state of the policy link, codes of errors, unseen).

    `role` are statements of its role, beside those for the mount and the interfaces; `own` and
    `boundary` the file system's and the boundary's; `attached` names AWS's managed policies.
    `without` are the operations that are not allowed. `simulated` are the simulator's decisions on
    ClientMount and ClientWrite, `missing` the keys that it asks for.
    """
    inline = document(INTERFACES, *(role or [MAY_MOUNT]))
    answers: dict[str, Any] = {
        "get_function_configuration": {
            "FunctionName": "app",
            "FunctionArn": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:app",
            "State": "Active",
            "Timeout": 60,
            "Role": ROLE,
            "VpcConfig": {"SubnetIds": ["subnet-a"], "SecurityGroupIds": ["sg-a"]},
            "FileSystemConfigs": [{"Arn": POINT, "LocalMountPath": "/mnt/efs"}],
        },
        "describe_access_points": {
            "AccessPoints": [
                {
                    "FileSystemId": FILE_SYSTEM.rpartition("/")[2],
                    "PosixUser": {"Uid": 1001, "Gid": 1001},
                    "RootDirectory": {"Path": "/app", "CreationInfo": {"OwnerUid": 1001}},
                }
            ]
        },
        "describe_file_systems": {
            "FileSystems": [
                {"FileSystemId": FILE_SYSTEM.rpartition("/")[2], "ThroughputMode": "elastic"}
            ]
        },
        "describe_file_system_policy": {"Policy": json.dumps(document(*own))}
        if own is not None
        else refusal("DescribeFileSystemPolicy", "PolicyNotFound"),
        "describe_mount_targets": {
            "MountTargets": [{"MountTargetId": "fsmt-0", "SubnetId": "subnet-a"}]
        },
        "describe_mount_target_security_groups": {"SecurityGroups": ["sg-b"]},
        "list_role_policies": {"PolicyNames": ["inline"]},
        "get_role_policy": {"PolicyDocument": inline},
        "list_attached_role_policies": {
            "AttachedPolicies": [
                {"PolicyArn": f"arn:aws:iam::aws:policy/{name}"} for name in attached
            ]
        },
        "get_role": {"Role": {"PermissionsBoundary": {"PermissionsBoundaryArn": "arn:b"}}}
        if boundary
        else {"Role": {}},
        "get_policy": {"Policy": {"DefaultVersionId": "v1"}},
        "get_policy_version": {"PolicyVersion": {"Document": document(*(boundary or ()))}},
        SIMULATE: refusal("SimulatePrincipalPolicy", "AccessDenied"),
    }
    if simulated:
        parts = [{"EvalResourceName": FILE_SYSTEM, "MissingContextValues": list(missing)}]
        decisions = zip(BOTH, simulated, strict=True)
        answers[SIMULATE] = {
            "EvaluationResults": [
                {
                    "EvalActionName": action,
                    "EvalDecision": decision,
                    "ResourceSpecificResults": parts,
                }
                for action, decision in decisions
            ]
        }
    answers |= {name: refusal(name, "AccessDeniedException") for name in without}
    result = examine("app", "eu-west-1", lambda _: Service(answers))
    codes = {each.code for each in result.findings if each.severity == "error"}
    return result.way["policy"], codes, result.unseen


def test_a_right_policy_is_ok():
    assert look()[:2] == (
        "ok (by the policies read, without those of the organization): app",
        set(),
    )
    assert look(own=[TLS])[0].startswith("ok")


DENIED = {
    "EFS214: a boundary that denies": {
        "boundary": [EVERYTHING, {**EVERYTHING, "Effect": "Deny", "Action": BOTH}]
    },
    "EFS214: a boundary by NotAction": {
        "own": [TLS],
        "boundary": [{"Effect": "Allow", "NotAction": "elasticfilesystem:*", "Resource": "*"}],
    },
    "EFS032: AWS's policy that denies all": {"attached": ["AWSDenyAll"]},
    "EFS032: a denial by NotAction": {
        "role": [MAY_MOUNT, {"Effect": "Deny", "NotAction": ["ec2:*", "logs:*"], "Resource": "*"}]
    },
    "EFS032: a denial of other access points": {
        "role": [
            MAY_MOUNT,
            {
                "Effect": "Deny",
                "Action": BOTH,
                "Resource": "*",
                "Condition": {"ArnNotEquals": {POINT_KEY: f"{POINT}f"}},
            },
        ]
    },
    "EFS022: a wildcard by StringEquals": {
        "own": [TLS],
        "role": [
            {**MAY_MOUNT, "Condition": {"StringEquals": {POINT_KEY: f"{EFS}:access-point/*"}}}
        ],
    },
    "EFS022: the id of the access point": {
        "own": [TLS],
        "role": [
            {**MAY_MOUNT, "Condition": {"StringEquals": {POINT_KEY: POINT.rpartition("/")[2]}}}
        ],
    },
    "EFS022: the file system in another region": {
        "own": [TLS],
        "role": [{**MAY_MOUNT, "Resource": FILE_SYSTEM.replace("eu-west-1", "us-east-1")}],
    },
    "EFS022: another account's file systems": {
        "own": [TLS],
        "role": [{**MAY_MOUNT, "Resource": FILE_SYSTEM.replace(ACCOUNT, "210987654321")}],
    },
    "EFS032: all principals but another": {
        "own": [TLS, {"Effect": "Deny", "NotPrincipal": {"AWS": ANOTHER}, "Action": BOTH}]
    },
    "EFS032: the account": {"own": [TLS, deny(Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"})]},
    "EFS032: the account's number": {"own": [TLS, deny(Principal={"AWS": ACCOUNT})]},
    "EFS032: every access point": {"own": [TLS, deny(Condition={"Null": {POINT_KEY: "false"}})]},
    "EFS032: other accounts' principals": {
        "own": [TLS, deny(Condition={"StringNotEquals": {"aws:PrincipalAccount": "210987654321"}})]
    },
    "EFS022: the service in place of the role": {
        "role": [INTERFACES],
        "own": [TLS, {**deny(Principal={"Service": "lambda.amazonaws.com"}), "Effect": "Allow"}],
    },
}


@pytest.mark.parametrize("name", DENIED)
def test_a_policy_that_denies_the_mount_is_broken(name):
    state, codes, _ = look(**DENIED[name])
    assert state.startswith("BROKEN"), state
    assert name.partition(":")[0] in codes


UNDECIDED = {
    "a denial by the VPC": {
        "role": [
            MAY_MOUNT,
            {"Effect": "Deny", "Action": BOTH, "Resource": "*", "Condition": VPC},
        ]
    },
    "a denial by a tag": {
        "role": [
            MAY_MOUNT,
            {
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:PrincipalTag/team": "data"}},
            },
        ]
    },
    "a denial by NotResource": {
        "role": [
            MAY_MOUNT,
            {"Effect": "Deny", "Action": "*", "NotResource": "arn:aws:elasticfilesystem:*:1:*"},
        ]
    },
    "an allowance by a tag": {
        "own": [TLS],
        "role": [{**MAY_MOUNT, "Condition": {"StringEquals": {"aws:ResourceTag/app": "x"}}}],
    },
    "a boundary with a condition": {
        "own": [TLS],
        "boundary": [{**EVERYTHING, "Condition": VPC}],
    },
    "the file system's denial by the VPC": {"own": [TLS, deny(Condition=VPC)]},
    "the same, beside the simulator": {
        "own": [TLS, deny(Condition=VPC)],
        "simulated": ["allowed", "allowed"],
    },
    "a denial of a session": {
        "own": [TLS, deny(Principal={"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/app/app"})]
    },
    "all principals but the role, whose session has another ARN": {
        "own": [TLS, {"Effect": "Deny", "NotPrincipal": {"AWS": ROLE}, "Action": BOTH}]
    },
    "a policy that may not be read": {"own": [deny()], "without": ["describe_file_system_policy"]},
    "the same, beside the simulator too": {
        "own": [deny()],
        "without": ["describe_file_system_policy"],
        "simulated": ["allowed", "allowed"],
    },
    "a boundary that may not be read": {
        "boundary": [EVERYTHING],
        "own": [TLS],
        "without": ["get_policy_version"],
    },
    "a key that the simulator lacks": {
        "role": [
            MAY_MOUNT,
            {"Effect": "Deny", "Action": BOTH, "Resource": "*", "Condition": VPC},
        ],
        "simulated": ["allowed", "allowed"],
        "missing": ["aws:SourceVpc"],
    },
    "a key that the simulator lacks, and a role that may not be read": {
        "simulated": ["implicitDeny", "implicitDeny"],
        "missing": ["aws:ResourceTag/app"],
        "own": [TLS],
        "without": ["list_role_policies"],
    },
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_may_deny_the_mount_is_not_evaluated(name):
    state, codes, _ = look(**UNDECIDED[name])
    assert state.startswith("not evaluated"), state
    assert codes == set()
    for key in UNDECIDED[name].get("missing", ()):
        assert key in state


SPARED = {
    "TLS is there": {"own": [TLS, deny(Condition={"Null": {"aws:SecureTransport": "true"}})]},
    "an access point is there": {"own": [TLS, deny(Condition={"Null": {POINT_KEY: "true"}})]},
    "through a mount target": {
        "own": [
            TLS,
            deny(Condition={"BoolIfExists": {"elasticfilesystem:AccessedViaMountTarget": "false"}}),
        ]
    },
    "of this account": {
        "own": [TLS, deny(Condition={"StringNotEquals": {"aws:PrincipalAccount": [ACCOUNT]}})]
    },
    "another account is denied": {
        "own": [TLS, deny(Principal={"AWS": "arn:aws:iam::210987654321:root"})]
    },
    "a service is denied": {"own": [TLS, deny(Principal={"Service": "ecs.amazonaws.com"})]},
    "a wildcard by ArnEquals": {
        "own": [TLS],
        "role": [{**MAY_MOUNT, "Condition": {"ArnEquals": {POINT_KEY: f"{EFS}:access-point/*"}}}],
    },
    "a pattern of the file system": {
        "own": [TLS],
        "role": [{**MAY_MOUNT, "Resource": "arn:aws:elasticfilesystem:*:*:file-system/*"}],
    },
    "a boundary that allows all": {"own": [TLS], "boundary": [EVERYTHING]},
    "a key that the simulator lacks, of another statement": {
        "own": [TLS],
        "simulated": ["allowed", "allowed"],
        "missing": ["aws:RequestTag/app"],
    },
}


@pytest.mark.parametrize("name", SPARED)
def test_what_spares_the_function_is_ok(name):
    state, codes, _ = look(**SPARED[name])
    assert state.startswith("ok"), state
    assert codes == set()


def test_a_role_that_may_not_write_reads():
    denial = {"Effect": "Deny", "Action": WRITE, "Resource": FILE_SYSTEM}
    assert look(role=[MAY_MOUNT, denial])[0].startswith("read-only")
    assert look(own=[TLS, deny(Action=WRITE)])[0].startswith("read-only")


def test_a_denial_by_the_simulator_counts_without_a_policy():
    """A file system without a policy admits everybody but those whom an explicit Deny meets."""
    state, _, _ = look(simulated=["explicitDeny", "explicitDeny"], without=["list_role_policies"])
    assert state == "BROKEN (no permission to mount, by the policy simulator)"


def test_a_policy_that_may_not_be_read_is_named():
    _, _, unseen = look(own=[deny()], without=["describe_file_system_policy"])
    assert any("describe_file_system_policy" in text for text in unseen)
