"""What the doctor says of a mount, code by code."""

from __future__ import annotations

from efsstate.deploy.findings import Rule

RULES = (
    Rule(
        "EFS100", "note", "mount", "What the doctor saw and measured",
        "The numbers to compare with: EFS answers a small read in about 1 ms and a small write in about 3, and one stream reads some 70 to 110 MiB/s "
        "(several streams at once read more; that is what `model` does).",
        "Nothing, where they are as expected.",
    ),
    Rule(
        "EFS101", "error", "mount", "There is no root to look at",
        "Nothing names the folder of efsstate, or it does not exist or cannot be read.",
        "Set EFSSTATE_ROOT to a folder on the mount, such as /mnt/efs, and see that the function's FileSystemConfigs has that path.",
    ),
    Rule(
        "EFS102", "warning", "mount", "The root is not on NFS",
        "What is kept there is on this machine's own disk: no other environment sees it, and on Lambda it goes with the environment.",
        "Point EFSSTATE_ROOT at the mount path of the function's file system.",
    ),
    Rule(
        "EFS103", "warning", "mount", "The mount is not NFS 4.1",
        "EFS speaks 4.0 and 4.1; Lambda mounts 4.1. In 4.0 a lock that is waited for may come tens of seconds late.",
        "Mount with nfsvers=4.1 (Lambda and efs-utils do).",
    ),
    Rule(
        "EFS104", "warning", "mount", "The mount's options take away what efsstate relies on",
        "`soft` lets a slow server look like a failed write; `nolock` and `local_lock` keep locks from other hosts; `nocto` shows old files; `noac` and "
        "small rsize or wsize multiply the requests.",
        "Mount with hard, timeo=600, retrans=2, noresvport, rsize=1048576, wsize=1048576, and without the options named (Lambda does).",
    ),
    Rule(
        "EFS105", "error", "mount", "A call on the mount does not return",
        "NFS mounts are hard: when the server is out of reach, calls wait for ever; they do not fail. The path to TCP 2049 was cut after the mount, or the "
        "mount target is gone.",
        "Look at the security groups, the network ACLs and the mount target (`efsstate doctor --aws --function NAME`). `io_timeout=` of `cached` keeps requests "
        "from hanging with it.",
    ),
    Rule(
        "EFS106", "error", "access point", "This process may not write to the root",
        "The user that counts is the access point's; it needs write and search permission on the folder. CreationInfo counts only when EFS makes the directory: "
        "it changes nothing on one that is there.",
        "Give the folder to the access point's user (chown, or an access point with a new path and CreationInfo); and see that the role has "
        "elasticfilesystem:ClientWrite.",
    ),
    Rule(
        "EFS107", "error", "policy", "The mount is read-only",
        "Without elasticfilesystem:ClientWrite EFS mounts read-only, and every write ends with `Read-only file system`.",
        "Allow elasticfilesystem:ClientWrite to the function's role, on the file system, with the access point's condition.",
    ),
    Rule(
        "EFS108", "error", "file system", "No space",
        "EFS itself grows without a limit that you meet; another NFS server, a quota or a small disk does not.",
        "Run `efsstate sweep`, or make room.",
    ),
    Rule(
        "EFS109", "error", "file system", "A basic operation does not do what it must",
        "Checkpoints, models and cached results rest on rename, fsync and exclusive create doing what POSIX and NFS 4.1 say.",
        "Do not keep state on this file system. On EFS this should not happen: see the exact error.",
    ),
    Rule(
        "EFS110", "error", "file system", "Locks do not work",
        "One computation for the whole fleet, and one owner of a checkpoint, rest on flock held by the server.",
        "Use NFS 4.1 without nolock and local_lock; the lock service of the server must be up. EFS allows 512 locks on one file.",
    ),
    Rule(
        "EFS111", "error", "file system", "A new file is not seen",
        "A process must at least see its own files.",
        "Mount without nocto and lookupcache settings of your own.",
    ),
    Rule(
        "EFS112", "warning", "file system", "Small operations are slow",
        "EFS answers in a few milliseconds. Much more means throttling (PercentIOLimit, burst credits), a path through another zone or region, or a CPU share too "
        "small to run the client: Lambda gives CPU by memory.",
        "Look at PercentIOLimit and BurstCreditBalance; mount in the same zone; try 1,769 MiB of memory.",
    ),
    Rule(
        "EFS113", "warning", "file system", "Reading is slow",
        "One stream should read some 70 MiB/s and more. In bursting mode without credits a file system of 100 GiB reads 15 MiB/s, shared by all.",
        "Look at BurstCreditBalance and at MeteredIOBytes against PermittedThroughput; choose Elastic throughput; give the function more memory.",
    ),
    Rule(
        "EFS114", "warning", "mount", "The clocks differ",
        "A ttl is judged by the server's clock where it matters, but `on_event` times and logs are ours.",
        "Set the machine's clock (chrony, NTP). On Lambda it is AWS's to keep.",
    ),
    Rule(
        "EFS115", "warning", "access point", "Everyone may write to the root",
        "Whoever may write there may replace cached results, checkpoints and models.",
        "chmod 0750 on the folder, with the access point's user as its owner.",
    ),
    Rule(
        "EFS116", "warning", "access point", "Files are made as root",
        "The access point has user 0, or there is none and the client is root. No permission protects other applications then.",
        "Give the access point a PosixUser above 0. On a machine that administers the mount this is as expected.",
    ),
    Rule(
        "EFS117", "note", "function", "The execution environment is of a special kind",
        "SnapStart does not go with EFS. Managed Instances run several processes in an environment: each has its own memory cache and its own copy of a model.",
        "Without SnapStart nothing is needed; with Managed Instances, give the model's memory times the number of processes.",
    ),
    Rule(
        "EFS118", "warning", "function", "Little memory or temporary space",
        "Lambda gives CPU by memory: below 256 MiB even small files are slow. `stage=True` copies models to /tmp.",
        "Raise MemorySize, or EphemeralStorage.",
    ),
    Rule(
        "EFS120", "warning", "function", "Nearly all descriptors are open",
        "Lambda allows 1,024 for an environment; the next open ends with `Too many open files`.",
        "Close files and connections; look for a leak.",
    ),
)  # fmt: skip
