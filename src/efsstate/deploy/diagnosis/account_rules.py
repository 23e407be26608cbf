"""Rules that only an account shows, and the template's rules that do not apply there."""

from __future__ import annotations

from efsstate.deploy.aws_facts import quote
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

# The order of creation, the deletion of a stack, alarms and endpoints cannot be seen from one
# function.
SKIPPED = frozenset({"EFS007", "EFS011", "EFS054", "EFS055", "EFS057"})

# The regions where Lambda cannot mount EFS: Taipei, Malaysia, Auckland, Thailand and Calgary.
NO_EFS = {"ap-east-2", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7", "ca-west-1"}

METRICS = (
    ("BurstCreditBalance", "AWS/EFS", "FileSystemId", "Minimum"),
    ("PercentIOLimit", "AWS/EFS", "FileSystemId", "Maximum"),
    ("MeteredIOBytes", "AWS/EFS", "FileSystemId", "Sum"),
    ("DataWriteIOBytes", "AWS/EFS", "FileSystemId", "Sum"),
    ("PermittedThroughput", "AWS/EFS", "FileSystemId", "Minimum"),
    ("ClientConnections", "AWS/EFS", "FileSystemId", "Sum"),
    ("Errors", "AWS/Lambda", "FunctionName", "Sum"),
)

RULES = (
    Rule(
        "EFS201",
        "error",
        "function",
        "The function mounts no file system",
        "Its configuration has no FileSystemConfigs: writes below /mnt are lost, or fail.",
        "Add the access point's ARN and a path such as /mnt/efs to the function.",
    ),
    Rule(
        "EFS202",
        "error",
        "function",
        "Lambda could not bring the function up",
        "Creating or updating the function failed, and its state says why.",
        "Remove the reason named; then update the function's configuration once more.",
    ),
    Rule(
        "EFS203",
        "error",
        "mount target",
        "A mount target is not available",
        "While it is being made, changed or deleted, mounts in its zone fail.",
        "Wait until LifeCycleState is available; create it again if it is deleted or in error.",
    ),
    Rule(
        "EFS204",
        "error",
        "access point",
        "The access point or the file system is missing or not available",
        "The function names one that was deleted, or is being made or deleted. The mount ends "
        "with EFSMountFailureException. One of another account cannot be looked at from here.",
        "Give the function the ARN of an access point that exists.",
    ),
    Rule(
        "EFS205",
        "warning",
        "metrics",
        "The burst credits are nearly used up",
        f"In bursting mode without credits the file system gives {quote('baseline')} for each GiB "
        "in Standard storage, three times that for reads, to all clients together.",
        f"Switch to Elastic throughput, which took {quote('elastic-switch')} on AWS, without a new "
        "mount. "
        "`efsstate plan --file-system ID` tells from the last days when the credits end, and what "
        "each mode costs.",
    ),
    Rule(
        "EFS206",
        "warning",
        "metrics",
        "The file system is at its limit of operations",
        "PercentIOLimit near 100 means that each operation waits.",
        "Fewer, larger files; a memory cache in front; fewer environments at once; split over two "
        "file systems. `efsstate plan --file-system ID` compares the modes' limits.",
    ),
    Rule(
        "EFS207",
        "warning",
        "metrics",
        "The permitted throughput is nearly used",
        "Over 80 % of PermittedThroughput in a minute: requests are about to wait, or do. Reads "
        "count a third. In elastic mode it is the limit of writes, which alone are compared.",
        "Elastic throughput, more provisioned throughput, or less to read: a model that is kept "
        "in memory, `stage`. `efsstate plan --file-system ID` tells how much would hold, and its "
        "cost.",
    ),
    Rule(
        "EFS208",
        "warning",
        "metrics",
        "Nearly all connections are used",
        f"A file system takes {quote('connections')} connections; each execution environment has "
        "at least one. The next ones cannot mount.",
        "Limit the functions' concurrency, or split over file systems.",
    ),
    Rule(
        "EFS210",
        "note",
        "metrics",
        "The function has failed in the last hour",
        "The function's log has the errors; `efsstate doctor --error` explains those about the "
        "mount.",
        "Look into its log group.",
    ),
    Rule(
        "EFS211",
        "warning",
        "subnet",
        "A subnet is nearly out of addresses",
        "Each combination of subnet and security group needs addresses for Lambda's network "
        "interfaces; without them functions do not start.",
        "Use larger subnets, or more of them.",
    ),
    Rule(
        "EFS212",
        "error",
        "file system",
        "The file system is the destination of a replication",
        "It is read-only until the replication is deleted, and behind its source: AWS's objective "
        f"is {quote('replication')}. It is not a copy of one moment: after a failover acknowledged "
        "saves may be missing, and a pointer may name a file that has not arrived.",
        "Mount the source, or delete the replication to fail over, and check the state first: "
        "`efsstate checkpoint rebase --all` fences what ran before.",
    ),
    Rule(
        "EFS213",
        "warning",
        "function",
        "The function is inactive",
        f"A function in a VPC that is idle for {quote('inactive')} loses its network interface. "
        "The next invocation fails while Lambda creates another, and later ones succeed.",
        "Invoke the function, and again after a minute; a schedule keeps a rarely used one active.",
    ),
    Rule(
        "EFS214",
        "error",
        "policy",
        "A boundary or an organization's policy does not allow the mount",
        "A permissions boundary limits what a role's policies can allow, and so does a service "
        "control policy of the organization.",
        "Allow elasticfilesystem:ClientMount and elasticfilesystem:ClientWrite there too.",
    ),
)
