"""Lambda's errors for a mount that fails, with their causes in order of likelihood."""

from __future__ import annotations

from typing import NamedTuple

from efsstate.deploy.aws_facts import quote


class Cause(NamedTuple):
    """A cause, how to check for it, and the code that finds it."""

    what: str
    check: str
    code: str


class Explained(NamedTuple):
    """An error of Lambda with its meaning and causes."""

    name: str
    says: str
    """A part of AWS's text of the error that no other has, in lower case."""
    means: str
    causes: tuple[Cause, ...]


EXCEPTIONS = (
    Explained(
        "EFSMountConnectivityException",
        "make a network connection to the configured file system",
        "The function could not open a TCP connection to port 2049 of the mount target. It is an "
        "error of the invocation, not a silence: the handler did not run.",
        (
            Cause(
                "the mount target's security group does not let the function's group in on TCP "
                "2049",
                "its inbound rules name the function's group and port 2049",
                "EFS001",
            ),
            Cause(
                "the mount target of one of the function's zones was lost (it then fails at times)",
                "each of the function's subnets has a mount target in its zone",
                "EFS004",
            ),
            Cause(
                "the function's group has outbound rules, and none for TCP 2049",
                "its outbound rules: all traffic, or 2049 to the mount target's group",
                "EFS003",
            ),
            Cause(
                "a network ACL of a subnet denies 2049, or the answer to a port from 1024 up",
                "the ACLs of both subnets, both directions",
                "EFS010",
            ),
            Cause(
                "the mount target is being made or deleted",
                "`aws efs describe-mount-targets`: LifeCycleState is available",
                "EFS203",
            ),
            Cause(
                "the file system is in another VPC without a route or peering",
                "the VPC of the function's subnets and of the mount targets",
                "EFS004",
            ),
        ),
    ),
    Explained(
        "EFSMountTimeoutException",
        "made a network connection to the configured file system",
        "The connection was made, but the mount did not finish in time. Lambda tries again at the "
        "next invocation.",
        (
            Cause(
                "many environments start at once and the file system is busy with them",
                "PercentIOLimit and ClientConnections in that minute; lower the concurrency, or "
                "raise it in steps",
                "EFS206",
            ),
            Cause(
                "a bursting file system has no credits left",
                "BurstCreditBalance near 0; choose Elastic throughput",
                "EFS205",
            ),
            Cause(
                "the throughput in use is at what is permitted",
                "MeteredIOBytes / 60 against PermittedThroughput",
                "EFS207",
            ),
            Cause(
                "the answer is lost on its way back: a network ACL lets 2049 in and not the high "
                "ports out",
                "the ACL's outbound rule for TCP 1024 to 65535",
                "EFS010",
            ),
        ),
    ),
    Explained(
        "EFSMountFailureException",
        "mount the configured file system",
        "The mount target answered, and refused: a permission or a setting is wrong.",
        (
            Cause(
                "the role has elasticfilesystem:ClientMount on the access point's ARN instead of "
                "the file system's, and the file system has a policy",
                "the role's policies: Resource is the file system",
                "EFS020",
            ),
            Cause(
                "the role has no such permission, and the file system has a policy",
                "the role's policies and `aws efs describe-file-system-policy`",
                "EFS022",
            ),
            Cause(
                "a policy denies it: another access point, another principal, no TLS",
                "the Deny statements of the file system's policy and of the role",
                "EFS032",
            ),
            Cause(
                "the access point or the file system was deleted or is being made",
                "`aws efs describe-access-points`: LifeCycleState is available",
                "EFS204",
            ),
            Cause(
                "the access point's directory does not exist, and it has no CreationInfo",
                "RootDirectory of the access point",
                "EFS028",
            ),
            Cause(
                "the function waits for nothing and was made before the mount targets",
                "DependsOn in the template",
                "EFS007",
            ),
        ),
    ),
    Explained(
        "EFSIOException",
        "reading from or writing to a connected file system",
        "A read or write failed while the handler ran.",
        (
            Cause(
                "the connection was lost for longer than the client waits: a security group, ACL "
                "or mount target was changed or deleted under a running function",
                "CloudTrail for changes at that time",
                "EFS105",
            ),
            Cause(
                "the file system was deleted, or its key disabled",
                "`aws efs describe-file-systems`; the state of the KMS key",
                "EFS204",
            ),
            Cause(
                f"over {quote('locks-file')} locks on one file",
                "what the code locks",
                "EFS110",
            ),
            Cause(
                f"{quote('locks-connection')} open files or locks of one client (`Disk quota "
                "exceeded`)",
                "what the code opens and locks",
                "EFS119",
            ),
        ),
    ),
    Explained(
        "S3FilesMountConnectivityException",
        "make a network connection to the configured s3 files",
        "The function could not connect to the mount target of S3 Files. The handler did not run.",
        (
            Cause(
                "the mount target's security group does not let the function's group in on TCP "
                "2049",
                "its inbound rules name the function's group and port 2049",
                "EFS001",
            ),
            Cause(
                "a zone of the function has no mount target of the S3 file system",
                "the mount targets and the function's subnets",
                "EFS004",
            ),
        ),
    ),
    Explained(
        "S3FilesMountFailureException",
        "mount the configured s3 files",
        "S3 Files answered, and refused the mount.",
        (
            Cause(
                "the role lacks s3files:ClientMount, or s3files:ClientWrite to write",
                "the role's policies: they name s3files actions, not elasticfilesystem",
                "EFS037",
            ),
            Cause(
                "the access point or the S3 file system was deleted or is being made",
                "the access point of the function's configuration",
                "EFS204",
            ),
        ),
    ),
    Explained(
        "S3FilesMountTimeoutException",
        "made a network connection to the configured s3 files",
        "The connection to S3 Files was made, but the mount did not finish in time. Lambda tries "
        "again at the next invocation.",
        (
            Cause(
                "many environments start at once",
                "the concurrency in that minute; raise it in steps",
                "EFS206",
            ),
            Cause(
                "the answer is lost on its way back: a network ACL lets 2049 in and not the high "
                "ports out",
                "the ACL's outbound rule for TCP 1024 to 65535",
                "EFS010",
            ),
        ),
    ),
)


def explain(text: str) -> Explained | None:
    """Return the error that a message or a name is about.

    Lambda's state reason codes, such as EFSMountFailure and EFSIOError, are known too, and so is
    AWS's text of an error without its name.
    """
    low = text.lower()
    for error in EXCEPTIONS:
        stem = error.name.removesuffix("Exception").lower()
        if stem in low or (stem == "efsio" and "efsioerror" in low):
            return error
    return next((error for error in EXCEPTIONS if error.says in low), None)
