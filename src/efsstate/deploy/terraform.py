"""Reads Terraform files into a Stack: each resource in CloudFormation's words, by a table."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable
from typing import Any

import hcl2

from efsstate.deploy.expressions import Scope
from efsstate.deploy.stack import Resource, Stack
from efsstate.deploy.tree import TemplateError, load
from efsstate.deploy.values import Ref, Unknown, items, known

MAX_BYTES = 1 << 20  # a file; the parser takes some 3 s for it


class _Block(dict[str, Any]):
    """A nested value with its line, which rules may ask for."""

    line = 0
    lines: dict[str, int]


def read(path: str) -> Stack:
    """The stack of a .tf or .tf.json file, or of a folder of them (a module)."""
    if os.path.isdir(path):
        files = sorted(
            glob.glob(os.path.join(glob.escape(path), "*.tf")) + glob.glob(os.path.join(glob.escape(path), "*.tf.json"))
        )
        if not files:
            raise TemplateError(
                f"{path}: no Terraform files in this folder: name a template, or a folder with .tf files"
            )
    else:
        files = [path]
    scope, blocks, partial = Scope(), [], False
    scope.document = lambda body: _document(scope, body)
    for file in files:
        text = load(file)
        tree = _parse(text, file)
        lines = text.splitlines()
        for variable in items(tree.get("variable")):
            for name, body in _named(variable):
                scope.variables[name] = body.get("default")
        for one in items(tree.get("locals")):
            scope.locals.update({key: value for key, value in one.items() if not key.startswith("__")})
        for kind, name, body in _typed(tree.get("data")):
            scope.data[f"{kind}.{name}"] = body
        partial = partial or bool(tree.get("module"))
        for kind, name, body in _typed(tree.get("resource")):
            scope.resources.add(f"{kind}.{name}")
            blocks.append((kind, name, body, file, lines))
    if not blocks and not partial:
        raise TemplateError(f"{path}: no Terraform resources in it")
    found = [made for block in blocks for made in _convert(scope, *block)]
    stack = Stack(found, partial=partial, form="terraform")
    _attach(stack)
    return stack


def _parse(text: str, path: str) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise TemplateError(f"{path}: over {MAX_BYTES >> 20} MiB: larger than any Terraform file")
    try:
        if path.endswith(".json"):
            tree = json.loads(text)
            return {key: _quoted(value) for key, value in tree.items()} if isinstance(tree, dict) else {}
        tree = hcl2.loads(text if text.endswith("\n") else text + "\n")
        return dict(tree)
    except json.JSONDecodeError as error:
        raise TemplateError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise TemplateError(f"{path}: nested too deeply") from error
    except Exception as error:  # lark has a family of its own, and the transformer raises what it likes
        line = getattr(error, "line", None)
        where = f"{path}:{line}" if isinstance(line, int) and line > 0 else path
        raise TemplateError(f"{where}: not Terraform: {str(error).splitlines()[0][:200]}") from error


def _quoted(value: Any) -> Any:
    """Terraform's JSON in the form of the HCL parser: text in quotes."""
    if isinstance(value, dict):
        return {key: _quoted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_quoted(one) for one in value]
    return '"' + value.replace('"', '\\"') + '"' if isinstance(value, str) else value


def _named(block: Any) -> list[tuple[str, dict[str, Any]]]:
    return [
        (name.strip('"'), body[0] if isinstance(body, list) and body else body)
        for name, body in (block.items() if isinstance(block, dict) else ())
        if isinstance(body, dict) or (isinstance(body, list) and body and isinstance(body[0], dict))
    ]


def _typed(blocks: Any) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (kind, name, body) for block in items(blocks) for kind, inner in _named(block) for name, body in _named(inner)
    ]


# ---- from Terraform's names to CloudFormation's ----

_PLAIN = {
    "aws_vpc": ("AWS::EC2::VPC", {}),
    "aws_subnet": ("AWS::EC2::Subnet", {"vpc_id": "VpcId", "cidr_block": "CidrBlock", "availability_zone": "AvailabilityZone", "availability_zone_id": "AvailabilityZoneId"}),
    "aws_nat_gateway": ("AWS::EC2::NatGateway", {}),
    "aws_vpc_endpoint": ("AWS::EC2::VPCEndpoint", {"service_name": "ServiceName", "vpc_id": "VpcId"}),
    "aws_efs_mount_target": ("AWS::EFS::MountTarget", {"file_system_id": "FileSystemId", "subnet_id": "SubnetId", "security_groups": "SecurityGroups"}),
    "aws_backup_selection": ("AWS::Backup::BackupSelection", {}),
    "aws_s3files_access_point": ("AWS::S3Files::AccessPoint", {}),
}  # fmt: skip


class _Body:
    """A block, with its values followed."""

    def __init__(self, scope: Scope, raw: dict[str, Any], lines: list[str], line: int = 0, end: int = 0) -> None:
        self.scope, self.raw, self.text, self.line, self.end = scope, raw, lines, line, end

    def __getitem__(self, name: str) -> Any:
        return self.scope.value(self.raw.get(name))

    def blocks(self, name: str) -> list[_Body]:
        """The nested blocks of a name (or objects, where it is written as an attribute)."""
        found = [one for one in items(self.raw.get(name)) if isinstance(one, dict)]
        lines = self.places(name)
        ends = [*lines[1:], self.end]
        return [
            _Body(
                self.scope,
                one,
                self.text,
                *((lines[index], ends[index]) if index < len(lines) else (self.line, self.end)),
            )
            for index, one in enumerate(found)
        ]

    def dynamic(self, name: str) -> bool:
        """Whether a `dynamic` block makes them."""
        return any(
            name in (key.strip('"') for key in one) for one in items(self.raw.get("dynamic")) if isinstance(one, dict)
        )

    def places(self, name: str) -> list[int]:
        """The lines on which a name of this block stands; the parser keeps none."""
        pattern = re.compile(rf"[\s{{,]*\"?{re.escape(name)}\"?\s*[:={{]")
        last = min(self.end, len(self.text))
        return [number for number in range(max(self.line, 1), last + 1) if pattern.match(self.text[number - 1])]

    def at(self, name: str) -> int:
        """The line of an attribute."""
        return next(iter(self.places(name)), self.line)

    def pick(self, names: dict[str, str]) -> _Block:
        """The attributes of a table, under their other names."""
        made = _Block({new: value for old, new in names.items() if (value := self[old]) is not None})
        made.line, made.lines = self.line, {new: self.at(old) for old, new in names.items() if old in self.raw}
        return made


def _convert(scope: Scope, kind: str, name: str, raw: dict[str, Any], file: str, lines: list[str]) -> list[Resource]:
    many = "count" in raw or "for_each" in raw
    if "count" in raw and scope.value(raw["count"]) == "0":
        return []  # not made with the variables' defaults
    each = scope.value(raw.get("for_each"))
    if isinstance(each, list | dict) and not each:
        return []
    scope.each = each if isinstance(each, Ref) else None
    own = f"{kind}.{name}"
    body = _Body(scope, {**raw, "__name__": own}, lines, *_span(lines, kind, name))
    names: dict[str, str] = {}
    maker = _MAKERS.get(kind)
    if kind in _PLAIN:
        cfn, names = _PLAIN[kind]
        properties: dict[str, Any] = body.pick(names)
    elif maker is not None:
        cfn, properties, names = maker(body)
    else:
        cfn, properties = kind, {}
    located = {new: body.at(old) for old, new in names.items()}
    if "depends_on" in raw:
        located["DependsOn"] = body.at("depends_on")
    made = Resource(own, cfn, properties, body.line, file, located, scope.mentions(raw) - {own}, many)
    scope.each = None
    return [made]


def _span(lines: list[str], kind: str, name: str) -> tuple[int, int]:
    """The first and last line of a resource, as it is usually written; (0, 0) where it is not."""
    head = re.compile(rf'\s*(resource\s+)?"{re.escape(kind)}"\s+"{re.escape(name)}"\s*{{')
    start = next((number for number, line in enumerate(lines, 1) if head.match(line)), 0)
    if not start:
        return 0, 0
    end = next(
        (number for number in range(start + 1, len(lines) + 1) if re.match(r"\w", lines[number - 1])), len(lines) + 1
    )
    return start, end - 1


def _function(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    names = {"timeout": "Timeout", "role": "Role"}
    made: dict[str, Any] = body.pick(names)
    for one in body.blocks("vpc_config")[:1]:
        made["VpcConfig"] = one.pick({"subnet_ids": "SubnetIds", "security_group_ids": "SecurityGroupIds"})
    mounts = [
        one.pick({"arn": "Arn", "local_mount_path": "LocalMountPath"}) for one in body.blocks("file_system_config")
    ]
    for key, old in (("VpcConfig", "vpc_config"), ("FileSystemConfigs", "file_system_config")):
        if body.dynamic(old):
            made[key] = Unknown(f"dynamic {old}")
    if mounts:
        made["FileSystemConfigs"] = mounts
    for one in body.blocks("snap_start")[:1]:
        made["SnapStart"] = one.pick({"apply_on": "ApplyOn"})
    for one in body.blocks("environment")[:1]:
        made["Environment"] = {"Variables": one["variables"]}
    more = {
        "vpc_config": "VpcConfig",
        "file_system_config": "FileSystemConfigs",
        "snap_start": "SnapStart",
        "environment": "Environment",
    }
    return "AWS::Lambda::Function", made, {**names, **more}


def _file_system(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    names = {
        "encrypted": "Encrypted",
        "performance_mode": "PerformanceMode",
        "throughput_mode": "ThroughputMode",
        "provisioned_throughput_in_mibps": "ProvisionedThroughputInMibps",
        "availability_zone_name": "AvailabilityZoneName",
        "lifecycle_policy": "LifecyclePolicies",
    }
    made = body.pick({old: new for old, new in names.items() if new != "LifecyclePolicies"})
    policies: list[Any] = list(body.blocks("lifecycle_policy")) or (
        ["dynamic"] if body.dynamic("lifecycle_policy") else []
    )
    made["LifecyclePolicies"] = policies
    return "AWS::EFS::FileSystem", made, names


def _access_point(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    made = body.pick({"file_system_id": "FileSystemId"})
    for one in body.blocks("posix_user")[:1]:
        made["PosixUser"] = one.pick({"uid": "Uid", "gid": "Gid"})
    for one in body.blocks("root_directory")[:1]:
        root = one.pick({"path": "Path"})
        for info in one.blocks("creation_info")[:1]:
            root["CreationInfo"] = info.pick(
                {"owner_uid": "OwnerUid", "owner_gid": "OwnerGid", "permissions": "Permissions"}
            )
        made["RootDirectory"] = root
    for key, old in (("PosixUser", "posix_user"), ("RootDirectory", "root_directory")):
        if body.dynamic(old):
            made[key] = Unknown(f"dynamic {old}")
    return "AWS::EFS::AccessPoint", made, {"posix_user": "PosixUser", "root_directory": "RootDirectory"}


def _openings(body: _Body, own: str | None = None) -> list[_Block]:
    """A rule of Terraform names several peers; each becomes a rule."""
    base = {"IpProtocol": body["protocol"] or "-1", "FromPort": body["from_port"], "ToPort": body["to_port"]}
    found: list[_Block] = []
    for old, new in (
        ("cidr_blocks", "CidrIp"),
        ("ipv6_cidr_blocks", "CidrIpv6"),
        ("security_groups", "SourceSecurityGroupId"),
        ("source_security_group_id", "SourceSecurityGroupId"),
        ("prefix_list_ids", "SourcePrefixListId"),
    ):
        found.extend(_Block({**base, new: peer}) for peer in items(body[old]))
    if body["self"] == "true":
        found.append(_Block({**base, "SourceSecurityGroupId": own or Unknown("self")}))
    for one in found:
        one.line = body.line
    return found


def _group(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    made: dict[str, Any] = {}
    own = Ref(body.raw.get("__name__", ""))
    for way in ("ingress", "egress"):
        key = f"SecurityGroup{way.capitalize()}"
        raw = body.raw.get(way)
        if body.dynamic(way) or (isinstance(raw, str) and isinstance(body[way], Unknown)):
            made[key] = Unknown(f"dynamic {way}")
        else:
            # Terraform takes away the default egress of a group that names none.
            made[key] = [rule for one in body.blocks(way) for rule in _openings(one, own)]
    return "AWS::EC2::SecurityGroup", made, {"ingress": "SecurityGroupIngress", "egress": "SecurityGroupEgress"}


def _group_rule(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    way = "Egress" if body["type"] == "egress" else "Ingress"
    group = body["security_group_id"]
    rules = _openings(body, group) or [_Block()]
    # Of several address ranges in one rule the widest decides what the rules ask.
    widest = next((one for one in rules if one.get("CidrIp") == "0.0.0.0/0"), rules[0])
    return f"AWS::EC2::SecurityGroup{way}", {**widest, "GroupId": group}, {}


def _apart(way: str) -> Callable[[_Body], tuple[str, dict[str, Any], dict[str, str]]]:
    def made(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
        names = {
            "security_group_id": "GroupId",
            "ip_protocol": "IpProtocol",
            "from_port": "FromPort",
            "to_port": "ToPort",
            "cidr_ipv4": "CidrIp",
            "cidr_ipv6": "CidrIpv6",
            "referenced_security_group_id": "SourceSecurityGroupId",
            "prefix_list_id": "SourcePrefixListId",
        }
        return f"AWS::EC2::SecurityGroup{way}", body.pick(names), names

    return made


def _json(value: Any) -> Any:
    """A policy given as text, as the document that it is."""
    if isinstance(value, str) and not isinstance(value, Ref | Unknown) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return Unknown(value[:200])
    return value


def _document(scope: Scope, raw: dict[str, Any]) -> Any:
    """The policy of an aws_iam_policy_document."""
    body = _Body(scope, raw, [])
    if body.dynamic("statement") or raw.get("source_policy_documents") or raw.get("override_policy_documents"):
        return Unknown("aws_iam_policy_document")
    statements = []
    for one in body.blocks("statement"):
        conditions: dict[str, Any] = {}
        for test in one.blocks("condition"):
            conditions.setdefault(str(test["test"]), {})[str(test["variable"])] = test["values"]
        made = _Block(
            {
                "Effect": one["effect"] or "Allow",
                "Action": one["actions"],
                "Resource": one["resources"],
                "Condition": conditions,
            }
        )
        made.line = one.line
        statements.append(made)
    return {"Statement": statements}


def _role(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    inline = [{"PolicyDocument": _json(one["policy"])} for one in body.blocks("inline_policy")]
    names = {"managed_policy_arns": "ManagedPolicyArns", "inline_policy": "Policies"}
    return "AWS::IAM::Role", {"ManagedPolicyArns": items(body["managed_policy_arns"]), "Policies": inline}, names


def _policy(kind: str) -> Callable[[_Body], tuple[str, dict[str, Any], dict[str, str]]]:
    def made(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
        return (
            kind,
            {"PolicyDocument": _json(body["policy"]), "Roles": items(body["role"])},
            {"policy": "PolicyDocument"},
        )

    return made


def _attachment(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    return "attachment", {"Roles": items(body["role"]) + items(body["roles"]), "Arn": body["policy_arn"]}, {}


def _attach(stack: Stack) -> None:
    """Attachments become what the roles have."""
    for one in stack.of("attachment"):
        for role in (stack.find(value, "AWS::IAM::Role") for value in one.properties["Roles"]):
            if role is not None:
                role.properties["ManagedPolicyArns"] = [*items(role.get("ManagedPolicyArns")), one.properties["Arn"]]


def _efs_policy(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    return "AWS::EFS::FileSystemPolicy", {"FileSystemId": body["file_system_id"], "Policy": _json(body["policy"])}, {}


def _backup(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    status = next((one["status"] for one in body.blocks("backup_policy")), None)
    return "AWS::EFS::BackupPolicy", {"FileSystemId": body["file_system_id"], "BackupPolicy": {"Status": status}}, {}


def _alarm(body: _Body) -> tuple[str, dict[str, Any], dict[str, str]]:
    names = {"namespace": "Namespace", "metric_name": "MetricName"}
    made: dict[str, Any] = body.pick(names)
    made["Metrics"] = [
        {"MetricStat": {"Metric": metric.pick(names)}}
        for query in body.blocks("metric_query")
        for metric in query.blocks("metric")
    ]
    if isinstance(made.get("MetricName"), str) and not known(made["MetricName"]):
        made.pop("MetricName")
    return "AWS::CloudWatch::Alarm", made, names


_MAKERS: dict[str, Callable[[_Body], tuple[str, dict[str, Any], dict[str, str]]]] = {
    "aws_lambda_function": _function,
    "aws_efs_file_system": _file_system,
    "aws_efs_access_point": _access_point,
    "aws_efs_file_system_policy": _efs_policy,
    "aws_efs_backup_policy": _backup,
    "aws_security_group": _group,
    "aws_security_group_rule": _group_rule,
    "aws_vpc_security_group_ingress_rule": _apart("Ingress"),
    "aws_vpc_security_group_egress_rule": _apart("Egress"),
    "aws_iam_role": _role,
    "aws_iam_role_policy": _policy("AWS::IAM::Policy"),
    "aws_iam_policy": _policy("AWS::IAM::ManagedPolicy"),
    "aws_iam_role_policy_attachment": _attachment,
    "aws_iam_policy_attachment": _attachment,
    "aws_cloudwatch_metric_alarm": _alarm,
}
