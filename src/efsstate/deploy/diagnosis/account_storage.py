"""The storage of a function in an account: access point, file system, mount targets."""

from __future__ import annotations

from typing import Any

from efsstate.deploy.diagnosis.account_facts import document, strings, text
from efsstate.deploy.diagnosis.account_network import read_groups
from efsstate.deploy.diagnosis.account_reader import Reader
from efsstate.deploy.linting.values import Unknown


def read_storage(reader: Reader, arn: str, account: str) -> list[dict[str, Any]]:
    """Add the access point of a mount with its file system; return the mount targets.

    `account` is the function's: an access point of another one cannot be looked at.
    """
    name = arn.rpartition("/")[2]
    if ":s3files:" in arn:
        reader.unseen.append(f"{name}: S3 Files: its network and permissions were not looked at")
        return []
    if ":access-point/" not in arn:
        return []
    owner = arn.split(":")[4] if arn.count(":") > 4 else account
    if account and owner != account:
        reader.unseen.append(f"{name}: it belongs to account {owner}, and was not looked at")
        return []
    noted = len(reader.unseen)
    answer = reader.ask("efs", "describe_access_points", "AccessPointNotFound", AccessPointId=name)
    if answer is None:
        if len(reader.unseen) == noted:
            reader.report("EFS204", name, "there is no such access point")
        return []
    point = answer["AccessPoints"][0]
    _add_access_point(reader, arn, point)
    file_system = point["FileSystemId"]
    noted = len(reader.unseen)
    answer = reader.ask(
        "efs", "describe_file_systems", "FileSystemNotFound", FileSystemId=file_system
    )
    if answer is None or not answer["FileSystems"]:
        if len(reader.unseen) == noted:
            reader.report("EFS204", file_system, "there is no such file system")
        return []
    _add_file_system(reader, answer["FileSystems"][0])
    return _read_mount_targets(reader, file_system)


def _add_access_point(reader: Reader, arn: str, point: dict[str, Any]) -> None:
    name = arn.rpartition("/")[2]
    reader.add(
        arn,
        "AWS::EFS::AccessPoint",
        FileSystemId=point["FileSystemId"],
        PosixUser=strings(point.get("PosixUser")),
        RootDirectory=strings(point.get("RootDirectory")),
    )
    path = point.get("RootDirectory", {}).get("Path", "/")
    reader.seen["access point"].append(f"{name} {path}")
    _check_state(reader, name, point)


def _check_state(reader: Reader, name: str, answer: dict[str, Any], code: str = "EFS204") -> None:
    state = answer.get("LifeCycleState", "available")
    if state != "available":
        reader.report(code, name, f"LifeCycleState is {state}")


def _add_file_system(reader: Reader, answer: dict[str, Any]) -> None:
    name = answer["FileSystemId"]
    no_policy = ("PolicyNotFound", "FileSystemPolicyNotFound")
    noted = len(reader.unseen)
    policy = reader.ask("efs", "describe_file_system_policy", *no_policy, FileSystemId=name)
    written = document(policy.get("Policy")) if policy else None
    if len(reader.unseen) > noted:
        written = Unknown("a policy that was not read")
    lifecycle = reader.ask("efs", "describe_lifecycle_configuration", FileSystemId=name)
    backup = reader.ask("efs", "describe_backup_policy", "PolicyNotFound", FileSystemId=name)
    status = (backup or {}).get("BackupPolicy", {}).get("Status", "DISABLED")
    reader.add(
        name,
        "AWS::EFS::FileSystem",
        Encrypted=str(answer.get("Encrypted", False)).lower(),
        PerformanceMode=answer.get("PerformanceMode"),
        ThroughputMode=answer.get("ThroughputMode"),
        ProvisionedThroughputInMibps=text(answer.get("ProvisionedThroughputInMibps")),
        AvailabilityZoneName=answer.get("AvailabilityZoneName"),
        LifecyclePolicies=lifecycle.get("LifecyclePolicies") if lifecycle else ["unknown"],
        BackupPolicy={"Status": status.replace("ENABLING", "ENABLED")},
        FileSystemPolicy=written,
    )
    reader.seen["file system"].append(f"{name}, {answer.get('ThroughputMode')}")
    _check_state(reader, name, answer)
    protection = answer.get("FileSystemProtection", {}).get("ReplicationOverwriteProtection")
    if protection == "REPLICATING":
        reader.report("EFS212", name, "ReplicationOverwriteProtection is REPLICATING")


def _read_mount_targets(reader: Reader, file_system: str) -> list[dict[str, Any]]:
    answer = reader.ask("efs", "describe_mount_targets", FileSystemId=file_system)
    targets = list((answer or {}).get("MountTargets", []))
    for target in targets:
        name = target["MountTargetId"]
        noted = len(reader.unseen)
        groups = reader.ask("efs", "describe_mount_target_security_groups", MountTargetId=name)
        reader.mark_partial("security group", noted)
        listed = groups["SecurityGroups"] if groups else Unknown(f"groups of {name}")
        reader.add(
            name,
            "AWS::EFS::MountTarget",
            FileSystemId=file_system,
            SubnetId=target["SubnetId"],
            SecurityGroups=listed,
        )
        zone = target.get("AvailabilityZoneName", target["SubnetId"])
        reader.seen["mount target"].append(f"{name} in {zone}")
        _check_state(reader, name, target, "EFS203")
        read_groups(reader, list(listed) if isinstance(listed, list) else [])
    return targets
