"""The doctor's rules for a mount, code by code."""

from __future__ import annotations

from efsstate.deploy.aws_facts import quote
from efsstate.deploy.findings import Rule

RULES = (
    Rule(
        "EFS100",
        "note",
        "mount",
        "What the doctor saw and measured",
        f"An environment of Lambda in a VPC has a network of {quote('network')}, which bounds each "
        "read; AWS publishes no figure for a single stream. On the lab's NFS server a small read "
        "takes about 1 ms, a small write about 3, and one stream reads 70 to 110 MiB/s.",
        "Nothing, if the numbers are as expected.",
    ),
    Rule(
        "EFS101",
        "error",
        "mount",
        "There is no root to look at",
        "Nothing names the folder of efsstate, or it does not exist or cannot be read.",
        "Set EFSSTATE_ROOT to a folder on the mount, such as /mnt/efs, and see that the "
        "function's FileSystemConfigs has that path.",
    ),
    Rule(
        "EFS102",
        "warning",
        "mount",
        "The root is not on NFS",
        "Files there are on this machine's own disk: no other environment sees them, and on "
        "Lambda they are lost with the environment.",
        "Point EFSSTATE_ROOT at the mount path of the function's file system.",
    ),
    Rule(
        "EFS103",
        "warning",
        "mount",
        "The mount is not NFS 4.1",
        "EFS speaks 4.0 and 4.1, and S3 Files 4.1 and 4.2. In 4.0 a process that waits for a "
        "lock may get it tens of seconds late: 22 s in the lab.",
        "Mount with nfsvers=4.1, as efs-utils does.",
    ),
    Rule(
        "EFS104",
        "warning",
        "mount",
        "The mount's options take away a guarantee that efsstate relies on",
        "`soft` lets a slow server look like a failed write; `nolock` and `local_lock` keep locks "
        "from other hosts; `nocto` shows old files; `noac` and small rsize or wsize multiply the "
        "requests.",
        "Mount with hard, timeo=600, retrans=2, noresvport, rsize=1048576, wsize=1048576, and "
        "without the options named.",
    ),
    Rule(
        "EFS105",
        "error",
        "mount",
        "A call on the mount does not return",
        "NFS mounts are hard: if the server is out of reach, calls do not fail but wait for ever. "
        "The path to the server was cut after the mount, or the mount target was deleted. With "
        "TLS the client talks to a local proxy, whose port answers even then.",
        "Look at the security groups, the network ACLs and the mount target (`efsstate doctor "
        "--aws --function NAME`). `io_timeout=` of `cached` keeps requests from hanging with it.",
    ),
    Rule(
        "EFS106",
        "error",
        "access point",
        "This process may not write to the root",
        "The access point's user needs write and search permission on the folder. CreationInfo "
        "applies only when EFS creates the directory, and changes nothing on one that exists.",
        "Give the folder to the access point's user (chown, or an access point with a new path "
        "and CreationInfo); and see that the role has elasticfilesystem:ClientWrite.",
    ),
    Rule(
        "EFS107",
        "error",
        "policy",
        "The mount is read-only",
        "If the file system has a policy, a role without elasticfilesystem:ClientWrite mounts it "
        "read-only, and every write ends with `Read-only file system`. So does a write to the "
        "destination of a replication.",
        "Allow elasticfilesystem:ClientWrite to the function's role, on the file system, with the "
        "access point's condition.",
    ),
    Rule(
        "EFS108",
        "error",
        "file system",
        "No space",
        "EFS itself grows without a limit that one meets; another NFS server, or a small disk, "
        "does not.",
        "Run `efsstate gc`, or make room.",
    ),
    Rule(
        "EFS109",
        "error",
        "file system",
        "A basic operation does not do what it must",
        "Checkpoints, models and cached results rely on rename, fsync and exclusive create as "
        "POSIX and NFS 4.1 define them.",
        "Do not keep state on this file system. On EFS this should not happen: see the exact "
        "error.",
    ),
    Rule(
        "EFS110",
        "error",
        "file system",
        "Locks do not work",
        "One computation for the whole fleet, and one owner of a checkpoint, rely on flock held "
        "by the server.",
        "Use NFS 4.1 without nolock and local_lock; the server's lock service must run. EFS allows "
        f"{quote('locks-file')} locks on one file.",
    ),
    Rule(
        "EFS111",
        "error",
        "file system",
        "A new file is not seen",
        "A process must at least see the files that it creates itself.",
        "Mount without nocto and without a lookupcache setting of your own.",
    ),
    Rule(
        "EFS112",
        "warning",
        "file system",
        "Small operations are slow",
        "An operation should take a few milliseconds: 1 to 3 in the lab. Much more means "
        "throttling (PercentIOLimit, burst credits), a path through another zone or region, or a "
        "CPU share too small to run the client: Lambda gives CPU by memory.",
        "Look at PercentIOLimit and BurstCreditBalance; mount in the same zone; try "
        f"{quote('vcpu')} of memory, which is one vCPU.",
    ),
    Rule(
        "EFS113",
        "warning",
        "file system",
        "Reading is slow",
        f"An environment in a VPC can read {quote('network')}. A bursting file system of 100 GiB "
        "without credits gives 15 MiB/s to all its readers together.",
        "Look at BurstCreditBalance and at MeteredIOBytes against PermittedThroughput; choose "
        "Elastic throughput; give the function more memory. `efsstate plan` tells how many "
        "environments can load a model in time in each mode.",
    ),
    Rule(
        "EFS114",
        "warning",
        "mount",
        "The clocks differ",
        "A ttl is judged by the server's clock where it matters, but the times of `on_event` and "
        "of logs are this machine's.",
        "Set the machine's clock (chrony, NTP). On Lambda it is AWS's to keep.",
    ),
    Rule(
        "EFS115",
        "warning",
        "access point",
        "Everyone may write to the root",
        "Any user who may write there may replace cached results, checkpoints and models.",
        "chmod 0750 on the folder, with the access point's user as its owner.",
    ),
    Rule(
        "EFS116",
        "warning",
        "access point",
        "Files are made as root",
        "The access point has user 0, or there is none and the client is root. No permission "
        "protects other applications then.",
        "Give the access point a PosixUser above 0. On a machine that administers the mount this "
        "is as expected.",
    ),
    Rule(
        "EFS117",
        "note",
        "function",
        "The execution environment is of a special kind",
        "SnapStart does not work with EFS. Managed Instances run several processes in an "
        "environment, each with a memory cache and a copy of a model of its own; a timeout there "
        "ends the call and not the code, so a claim is held until the handler returns. AWS does "
        "not document whether they can mount EFS.",
        "Without SnapStart nothing is needed; with Managed Instances, give the model's memory "
        "times the number of processes.",
    ),
    Rule(
        "EFS118",
        "warning",
        "function",
        "Little memory or temporary space",
        f"Lambda gives CPU by memory, and {quote('vcpu')} is one vCPU: below 256 MB it is under a "
        "sixth. `stage=True` copies models to /tmp.",
        "Raise MemorySize, or EphemeralStorage.",
    ),
    Rule(
        "EFS119",
        "error",
        "file system",
        "Too many files or locks are open",
        f"EFS answers `Disk quota exceeded` when a client has {quote('locks-connection')} open "
        "files, or a connection as many locks. It has no quotas of space, and removing files does "
        "not help.",
        "Close files and release locks; look for a leak, or for many processes on one host.",
    ),
    Rule(
        "EFS120",
        "warning",
        "function",
        "Nearly all descriptors are open",
        f"Lambda allows {quote('descriptors')} for an environment; the next open ends with `Too "
        "many open files`.",
        "Close files and connections; look for a leak.",
    ),
)
