"""What only an account shows, and which of the template's rules do not apply there."""

from __future__ import annotations

from efsstate.deploy.findings import Rule

# The way from the function to the files, in order.
LINKS = (
    "function",
    "subnet",
    "network ACL",
    "security group",
    "mount target",
    "access point",
    "policy",
    "file system",
    "metrics",
)

# Order of creation, the stack's deletion, alarms and endpoints elsewhere in the account: not to be seen from one function.
SKIPPED = frozenset({"EFS007", "EFS011", "EFS054", "EFS055", "EFS057"})

METRICS = (
    ("BurstCreditBalance", "AWS/EFS", "FileSystemId", "Minimum"),
    ("PercentIOLimit", "AWS/EFS", "FileSystemId", "Maximum"),
    ("MeteredIOBytes", "AWS/EFS", "FileSystemId", "Sum"),
    ("PermittedThroughput", "AWS/EFS", "FileSystemId", "Minimum"),
    ("ClientConnections", "AWS/EFS", "FileSystemId", "Sum"),
    ("Errors", "AWS/Lambda", "FunctionName", "Sum"),
)

RULES = (
    Rule(
        "EFS201", "error", "function", "The function mounts no file system",
        "Its configuration has no FileSystemConfigs: what it writes below /mnt goes nowhere, or fails.",
        "Add the access point's ARN and a path such as /mnt/efs to the function.",
    ),
    Rule(
        "EFS202", "error", "function", "Lambda could not bring the function up",
        "Creating or updating the function failed, and Lambda says why in its state.",
        "Take the reason named; after the cause is gone, update the function's configuration once more.",
    ),
    Rule(
        "EFS203", "error", "mount target", "A mount target is not available",
        "While it is being made, changed or deleted, mounts in its zone fail.",
        "Wait until LifeCycleState is available; make it anew where it is deleted or in error.",
    ),
    Rule(
        "EFS204", "error", "access point", "The access point or the file system is missing or not available",
        "The function names one that was deleted, or is being made or deleted. The mount ends with EFSMountFailureException.",
        "Give the function the ARN of an access point that exists.",
    ),
    Rule(
        "EFS205", "warning", "metrics", "The burst credits are nearly used up",
        "In bursting mode without credits the file system gives 50 KiB/s for each GiB stored, three times that for reads, to all clients together.",
        "Switch to Elastic throughput: it takes effect within minutes, without downtime.",
    ),
    Rule(
        "EFS206", "warning", "metrics", "The file system is at its limit of operations",
        "PercentIOLimit near 100 means that each operation waits.",
        "Fewer, larger files; a memory cache in front; fewer environments at once; split over two file systems.",
    ),
    Rule(
        "EFS207", "warning", "metrics", "The permitted throughput is nearly used",
        "Over 80 % of PermittedThroughput in a minute: requests are about to wait, or do.",
        "Elastic throughput, more provisioned throughput, or less to read: a model that is kept in memory, `stage`.",
    ),
    Rule(
        "EFS208", "warning", "metrics", "Nearly all connections are used",
        "A file system takes 25,000 connections; each execution environment has at least one. The next ones cannot mount.",
        "Limit the functions' concurrency, or split over file systems.",
    ),
    Rule(
        "EFS210", "note", "metrics", "The function has failed in the last hour",
        "The log of the function says how; `efsstate doctor --error` explains the errors that are about the mount.",
        "Look into its log group.",
    ),
    Rule(
        "EFS211", "warning", "subnet", "A subnet is nearly out of addresses",
        "Each combination of subnet and security group needs addresses for Lambda's network interfaces; without them functions do not start.",
        "Use larger subnets, or more of them.",
    ),
)  # fmt: skip
