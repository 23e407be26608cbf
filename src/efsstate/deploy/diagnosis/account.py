"""Reads a function's configuration from AWS into a Stack, and walks its way to the file system."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import boto3  # type: ignore[import-untyped]
import botocore.config  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]

from efsstate.deploy.diagnosis.account_facts import (
    decides,
    document,
    judge,
    openings,
    reason,
    strings,
    text,
)
from efsstate.deploy.diagnosis.account_rules import LINKS, METRICS, SKIPPED
from efsstate.deploy.diagnosis.lambda_errors import explain
from efsstate.deploy.findings import SEVERITIES, Finding, Hit, run
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.security_groups import NFS
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import Unknown
from efsstate.deploy.rules import RULES as TABLE
from efsstate.errors import AccountError
from efsstate.mount.environment import variable

_CONFIG = botocore.config.Config(
    connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 4}
)


class Result(NamedTuple):
    """What `examine` found: the findings, each link of the way with its state, and what could not be looked at."""

    findings: list[Finding]
    way: dict[str, str]
    unseen: list[str]


def examine(
    function: str, region: str | None = None, client: Callable[[str], Any] | None = None
) -> Result:
    """The way of a function (name or ARN) to its file system, as it is in the account.

    It only reads. AccountError where the function cannot be read at all (no credentials, no permission, no such function);
    what else may not be read is in `unseen`. `client` makes the clients, by service; by default boto3.
    """
    if client is None:
        try:
            session = boto3.Session(region_name=region or variable("AWS_REGION"))
            if session.region_name is None:
                raise AccountError("no region: give --region, or set AWS_REGION")
            client = lambda service: session.client(service, config=_CONFIG)  # noqa: E731
        except botocore.exceptions.BotoCoreError as error:
            raise AccountError(f"{function}: {error}") from error
    return _Walk(function, client).result()


class _Walk:
    """One look at one function."""

    def __init__(self, name: str, client: Callable[[str], Any]) -> None:
        self.name = name
        self.make = client
        self.clients: dict[str, Any] = {}
        self.resources: list[Resource] = []
        self.hits: list[tuple[str, Hit]] = []
        self.unseen: list[str] = []
        self.seen: dict[str, list[str]] = {link: [] for link in LINKS}
        self.zones: dict[str, tuple[str, str]] = {}

    def result(self) -> Result:
        try:
            self.walk()
        except AccountError:
            raise
        except botocore.exceptions.NoCredentialsError as error:
            raise AccountError(
                f"{self.name}: no AWS credentials: log in, or set AWS_PROFILE"
            ) from error
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise AccountError(f"{self.name}: {reason(error)}") from error
        stack = Stack(self.resources, unseen=self.unseen, form="account")
        found = list(run((rule for rule in TABLE.values() if rule.code not in SKIPPED), stack))
        found += [TABLE[code].finding(hit) for code, hit in self.hits]
        found = sorted(
            dict.fromkeys(found), key=lambda one: (SEVERITIES.index(one.severity), one.code)
        )
        way = {}
        for link in LINKS:
            broken = [
                one.code
                for one in found
                if one.severity == "error" and TABLE[one.code].link == link
            ]
            state = (
                f"BROKEN ({', '.join(dict.fromkeys(broken))})"
                if broken
                else "ok"
                if self.seen[link]
                else "not looked at"
            )
            way[link] = f"{state}{': ' if self.seen[link] else ''}{', '.join(self.seen[link])}"
        return Result(found, way, self.unseen)

    def client(self, service: str) -> Any:
        if service not in self.clients:
            self.clients[service] = self.make(service)
        return self.clients[service]

    def ask(
        self, service: str, operation: str, *missing: str, **arguments: Any
    ) -> dict[str, Any] | None:
        """A call; None where it is not allowed (noted) or answers one of the error codes in `missing` (not noted)."""
        try:
            return dict(getattr(self.client(service), operation)(**arguments))
        except botocore.exceptions.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in missing:
                return None
            self.unseen.append(f"{service} {operation}: {reason(error)}")
            return None
        except botocore.exceptions.NoCredentialsError:
            raise
        except botocore.exceptions.BotoCoreError as error:
            self.unseen.append(f"{service} {operation}: {reason(error)}")
            return None

    def add(self, name: str, kind: str, **properties: Any) -> None:
        self.resources.append(
            Resource(
                name, kind, {key: value for key, value in properties.items() if value is not None}
            )
        )

    # ---- the walk ----

    def walk(self) -> None:
        found = dict(self.client("lambda").get_function_configuration(FunctionName=self.name))
        vpc = found.get("VpcConfig") or {}
        mounts = found.get("FileSystemConfigs") or []
        name = found.get("FunctionName", self.name)
        made = Resource(
            name,
            "AWS::Lambda::Function",
            {
                "Timeout": str(found.get("Timeout", "")),
                "Role": found.get("Role"),
                "SnapStart": found.get("SnapStart") or {},
                "Environment": found.get("Environment") or {},
                "FileSystemConfigs": mounts,
                **({"VpcConfig": vpc} if vpc.get("SubnetIds") else {}),
            },
        )
        self.resources.append(made)
        self.seen["function"].append(f"{name} is {found.get('State', 'there')}")
        for status, why in (
            ("State", "StateReasonCode"),
            ("LastUpdateStatus", "LastUpdateStatusReasonCode"),
        ):
            if found.get(status) == "Failed":
                code = str(found.get(why))
                known = explain(code)
                more = f" (see efsstate doctor --error {known.name})" if known else ""
                self.hits.append(
                    (
                        "EFS202",
                        Hit(
                            name,
                            f"{status} Failed: {code}: {found.get(why.replace('Code', ''), '')}{more}",
                        ),
                    )
                )
        if not mounts:
            self.hits.append(("EFS201", Hit(name, "FileSystemConfigs is empty")))
            return
        self.seen["function"].append(", ".join(str(one.get("LocalMountPath")) for one in mounts))
        targets = [target for mount in mounts for target in self.storage(str(mount.get("Arn", "")))]
        made.depends = {one["MountTargetId"] for one in targets}
        mine = list(vpc.get("SubnetIds") or [])
        self.subnets([*mine, *(one["SubnetId"] for one in targets)])
        self.groups(list(vpc.get("SecurityGroupIds") or []))
        self.acls(mine, [one["SubnetId"] for one in targets])
        self.role(str(found.get("Role", "")))
        self.metrics(
            name, [one.name for one in self.resources if one.type == "AWS::EFS::FileSystem"]
        )

    def storage(self, arn: str) -> list[dict[str, Any]]:
        """The access point, the file system and its mount targets."""
        identity = arn.rpartition("/")[2]
        if ":access-point/" not in arn or ":s3files:" in arn:
            return []
        answer = self.ask(
            "efs", "describe_access_points", "AccessPointNotFound", AccessPointId=identity
        )
        if answer is None:
            if not self.unseen:
                self.hits.append(("EFS204", Hit(identity, "there is no such access point")))
            return []
        point = answer["AccessPoints"][0]
        self.add(
            arn,
            "AWS::EFS::AccessPoint",
            FileSystemId=point["FileSystemId"],
            PosixUser=strings(point.get("PosixUser")),
            RootDirectory=strings(point.get("RootDirectory")),
        )
        self.seen["access point"].append(
            f"{identity} {point.get('RootDirectory', {}).get('Path', '/')}"
        )
        self.available(identity, point)
        file_system = point["FileSystemId"]
        answer = self.ask(
            "efs", "describe_file_systems", "FileSystemNotFound", FileSystemId=file_system
        )
        if answer is None or not answer["FileSystems"]:
            if answer is not None or not self.unseen:
                self.hits.append(("EFS204", Hit(file_system, "there is no such file system")))
            return []
        self.file_system(answer["FileSystems"][0])
        return self.mount_targets(file_system)

    def available(self, name: str, one: dict[str, Any], code: str = "EFS204") -> None:
        state = one.get("LifeCycleState", "available")
        if state != "available":
            self.hits.append((code, Hit(name, f"LifeCycleState is {state}")))

    def file_system(self, one: dict[str, Any]) -> None:
        name = one["FileSystemId"]
        policy = self.ask(
            "efs",
            "describe_file_system_policy",
            "PolicyNotFound",
            "FileSystemPolicyNotFound",
            FileSystemId=name,
        )
        lifecycle = self.ask("efs", "describe_lifecycle_configuration", FileSystemId=name)
        backup = self.ask("efs", "describe_backup_policy", "PolicyNotFound", FileSystemId=name)
        self.add(
            name,
            "AWS::EFS::FileSystem",
            Encrypted=str(one.get("Encrypted", False)).lower(),
            PerformanceMode=one.get("PerformanceMode"),
            ThroughputMode=one.get("ThroughputMode"),
            ProvisionedThroughputInMibps=text(one.get("ProvisionedThroughputInMibps")),
            AvailabilityZoneName=one.get("AvailabilityZoneName"),
            LifecyclePolicies=lifecycle.get("LifecyclePolicies") if lifecycle else ["unknown"],
            BackupPolicy={
                "Status": (backup or {})
                .get("BackupPolicy", {})
                .get("Status", "DISABLED")
                .replace("ENABLING", "ENABLED")
            },
            FileSystemPolicy=document(policy.get("Policy")) if policy else None,
        )
        self.seen["file system"].append(f"{name}, {one.get('ThroughputMode')}")
        self.available(name, one)

    def mount_targets(self, file_system: str) -> list[dict[str, Any]]:
        answer = self.ask("efs", "describe_mount_targets", FileSystemId=file_system)
        found = list((answer or {}).get("MountTargets", []))
        for one in found:
            name = one["MountTargetId"]
            groups = self.ask("efs", "describe_mount_target_security_groups", MountTargetId=name)
            listed = groups["SecurityGroups"] if groups else Unknown("groups of " + name)
            self.add(
                name,
                "AWS::EFS::MountTarget",
                FileSystemId=file_system,
                SubnetId=one["SubnetId"],
                SecurityGroups=listed,
            )
            self.seen["mount target"].append(
                f"{name} in {one.get('AvailabilityZoneName', one['SubnetId'])}"
            )
            self.available(name, one, "EFS203")
            self.groups(list(listed) if isinstance(listed, list) else [])
        return found

    def subnets(self, names: list[str]) -> None:
        answer = (
            self.ask("ec2", "describe_subnets", SubnetIds=sorted(set(names))) if names else None
        )
        for one in (answer or {}).get("Subnets", []):
            zone = one.get("AvailabilityZone", "")
            self.zones[one["SubnetId"]] = (zone, one.get("CidrBlock", ""))
            self.add(
                one["SubnetId"],
                "AWS::EC2::Subnet",
                VpcId=one.get("VpcId"),
                AvailabilityZone=zone,
                CidrBlock=one.get("CidrBlock"),
            )
            self.seen["subnet"].append(f"{one['SubnetId']} in {zone}")
            if one.get("AvailableIpAddressCount", 99) < 8:
                evidence = f"{one['AvailableIpAddressCount']} free addresses"
                self.hits.append(("EFS211", Hit(one["SubnetId"], evidence)))

    def groups(self, names: list[str]) -> None:
        wanted = sorted(set(names) - {one.name for one in self.resources})
        answer = self.ask("ec2", "describe_security_groups", GroupIds=wanted) if wanted else None
        for one in (answer or {}).get("SecurityGroups", []):
            ways = {
                f"SecurityGroup{way}": [
                    rule for given in one.get(key, []) for rule in openings(given)
                ]
                for way, key in (("Ingress", "IpPermissions"), ("Egress", "IpPermissionsEgress"))
            }
            self.add(one["GroupId"], "AWS::EC2::SecurityGroup", **ways)
            self.seen["security group"].append(one["GroupId"])

    def acls(self, mine: list[str], theirs: list[str]) -> None:
        """Both ways between each of the function's subnets and the mount target's of its zone; within a subnet no ACL applies."""
        names = sorted({*mine, *theirs} & set(self.zones))
        if not names:
            return
        answer = self.ask(
            "ec2",
            "describe_network_acls",
            Filters=[{"Name": "association.subnet-id", "Values": names}],
        )
        if answer is None:
            return
        entries: dict[str, tuple[str, list[dict[str, Any]]]] = {}
        for acl in answer.get("NetworkAcls", []):
            for one in acl.get("Associations", []):
                entries[one.get("SubnetId", "")] = (acl["NetworkAclId"], acl.get("Entries", []))
            self.seen["network ACL"].append(acl["NetworkAclId"])
        for subnet in mine:
            for other in theirs:
                zone, place = self.zones.get(subnet, ("", ""))
                far, there = self.zones.get(other, ("?", ""))
                if subnet == other or zone != far:
                    continue
                for where, outward, ports, peer in (
                    (subnet, True, (NFS, NFS), there),
                    (other, False, (NFS, NFS), place),
                    (other, True, (1024, 65535), place),
                    (subnet, False, (1024, 65535), there),
                ):
                    name, rules = entries.get(where, ("", []))
                    rule = decides(rules, outward=outward, ports=ports, peer=peer) if name else None
                    if rule is not None and rule.get("RuleAction") == "deny":
                        number = "*" if rule.get("RuleNumber") == 32767 else rule.get("RuleNumber")
                        way = "outbound to" if outward else "inbound from"
                        span = (
                            f"{ports[0]}" if ports[0] == ports[1] else f"{ports[0]} to {ports[1]}"
                        )
                        self.hits.append(
                            (
                                "EFS010",
                                Hit(
                                    name,
                                    f"of {where}: rule {number} denies tcp {span} {way} {peer}",
                                ),
                            )
                        )

    def role(self, arn: str) -> None:
        """The role's policies, its own and the attached."""
        name = arn.rpartition("/")[2]
        before = len(self.unseen)
        inline, managed = [], []
        for one in self.pages("list_role_policies", "PolicyNames", RoleName=name):
            policy = self.ask("iam", "get_role_policy", RoleName=name, PolicyName=one)
            inline.append(
                {"PolicyDocument": policy["PolicyDocument"] if policy else Unknown(str(one))}
            )
        for one in self.pages("list_attached_role_policies", "AttachedPolicies", RoleName=name):
            if ":aws:policy/" in one["PolicyArn"]:
                managed.append(one["PolicyArn"])
                continue
            policy = self.ask("iam", "get_policy", PolicyArn=one["PolicyArn"])
            version = policy and self.ask(
                "iam",
                "get_policy_version",
                PolicyArn=one["PolicyArn"],
                VersionId=policy["Policy"]["DefaultVersionId"],
            )
            inline.append(
                {
                    "PolicyDocument": version["PolicyVersion"]["Document"]
                    if version
                    else Unknown(one["PolicyArn"])
                }
            )
        if len(self.unseen) > before:
            return  # half a role says nothing
        self.add(arn, "AWS::IAM::Role", Policies=inline, ManagedPolicyArns=managed)
        self.seen["policy"].append(name)

    def pages(self, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        while True:
            answer = self.ask("iam", operation, **arguments)
            yield from (answer or {}).get(key, [])
            if not answer or not answer.get("IsTruncated"):
                return
            arguments["Marker"] = answer["Marker"]

    def metrics(self, function: str, file_systems: list[str]) -> None:
        """The last hour, by the minute."""
        now = dt.datetime.now(dt.UTC)
        queries, about = [], {}
        for number, (name, namespace, dimension, stat) in enumerate(METRICS):
            for which, value in enumerate(
                file_systems if dimension == "FileSystemId" else [function]
            ):
                identity = f"m{number}x{which}"
                about[identity] = (name, value)
                metric = {
                    "Namespace": namespace,
                    "MetricName": name,
                    "Dimensions": [{"Name": dimension, "Value": value}],
                }
                queries.append(
                    {"Id": identity, "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}}
                )
        hour = dt.timedelta(hours=1)
        answer = self.ask(
            "cloudwatch",
            "get_metric_data",
            MetricDataQueries=queries,
            StartTime=now - hour,
            EndTime=now,
        )
        if answer is None:
            return
        values: dict[str, dict[str, list[float]]] = {}
        for one in answer.get("MetricDataResults", []):
            if one.get("Id") in about and one.get("Values"):
                name, value = about[one["Id"]]
                values.setdefault(value, {})[name] = list(one["Values"])
        self.seen["metrics"].append("the last hour" if values else "none in the last hour")
        for name, given in values.items():
            self.hits += list(judge(name, given))
