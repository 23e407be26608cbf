"""A service of the Serverless Framework, read as the CloudFormation template that it packages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from efsstate.deploy.linting import cloudformation
from efsstate.deploy.linting.iam import MOUNT, WRITE
from efsstate.deploy.linting.located_yaml import Map, Seq
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import items
from efsstate.errors import TemplateError

_VARIABLE = re.compile(r"\$\{([^{}]+)\}")  # the innermost one
_QUOTED = re.compile(r"""(['"])([^'"]*)\1""")
_PLAIN = re.compile(r"\d+(\.\d+)?|true|false")
# The deployer gives these, as the parameters of a template; a fallback is their default.
_OPTIONS = ("opt", "param", "self")
MAX_RESOLVED = 100_000  # values, with those that variables lead to
_UNKNOWN = "Fn::Serverless"  # the key of an expression that stays unknown
_ROLE = "IamRoleLambdaExecution"
_NETWORK = "arn:aws:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
_BASIC = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
_TIMEOUT = "6"  # seconds: the Framework's default
_HINT = "check .serverless/cloudformation-template-update-stack.json after `serverless package`"


def is_service(tree: Any) -> bool:
    """Return True if a document is a serverless.yml."""
    return isinstance(tree, Map) and "provider" in tree and "service" in tree


def read(tree: Map, path: str, parameters: Mapping[str, str] | None = None) -> Stack:
    """Return the stack of a service. Raise TemplateError if its parts are in other files."""
    functions = _mapping(tree.get("functions"))
    resources = tree.get("resources")
    if isinstance(functions, str) or isinstance(resources, str):
        raise TemplateError(f"{path}: its functions or resources are in other files; {_HINT}")
    service = _Service(tree, parameters or {})
    if isinstance(written := tree.get("functions"), list):
        service.unseen += [f"functions in {part}" for part in written if isinstance(part, str)]
    template = service.template(functions)
    if not template["Resources"]:
        return Stack([], unseen=service.unseen)
    stack = cloudformation.read(template, path, parameters)
    stack.unseen += service.unseen
    stack.parameters = None  # ${param:…} needs no declaration
    return stack


def _mapping(value: Any) -> Any:
    """Return a mapping; a list of them is joined, as the Framework does."""
    if not isinstance(value, list):
        return value or Map()
    joined = Map(getattr(value, "line", 0))
    for part in value:
        if isinstance(part, Map):
            joined.update(part)
            joined.lines.update(part.lines)
    return joined


class _Service:
    """One serverless.yml being read."""

    def __init__(self, tree: Map, parameters: Mapping[str, str]) -> None:
        self.tree, self.parameters, self.work = tree, parameters, 0
        provider = self._resolved(tree["provider"])
        self.provider = provider if isinstance(provider, Map) else Map()
        self.unseen: list[str] = []

    def template(self, functions: Any) -> Map:
        """Return the CloudFormation template, with a Lambda function and a role in it."""
        resources = self.tree.get("resources")
        parts = list(resources) if isinstance(resources, list) else [resources]
        self.unseen += [f"resources in {part}" for part in parts if isinstance(part, str) and part]
        template, all_resources = Map(self.tree.line), Map(self.tree.line)
        for part in parts:
            inner = _mapping(part.get("Resources")) if isinstance(part, Map) else Map()
            all_resources.update(inner)
            all_resources.lines.update(inner.lines)
            for name in ("Parameters", "Conditions", "Mappings"):
                if isinstance(part, Map) and name in part:
                    template[name] = part[name]
        mounts: list[Any] = []
        is_default_role_used = False
        for name, written in functions.items():
            body = self._resolved(written)
            if isinstance(body, Map) and not _is_intrinsic(body):
                resource = self._function(name, body)
                if self._role_of(body) is None:
                    is_default_role_used = True
                    mounts += items(resource["Properties"].get("FileSystemConfigs"))
                all_resources[resource["LogicalId"]] = resource
                all_resources.lines[resource["LogicalId"]] = functions.lines.get(name, body.line)
            else:
                self.unseen.append(f"function {name}")
        if is_default_role_used and _ROLE not in all_resources:
            all_resources[_ROLE] = self._role(mounts)
            all_resources.lines[_ROLE] = self.provider.line
        template["Resources"] = all_resources
        resolved: Map = self._resolved(template)
        return resolved

    def _function(self, name: str, body: Map) -> Map:
        own, properties = Map(body.line), Map(body.line)
        properties.lines = {
            "FileSystemConfigs": body.lines.get("fileSystemConfig", body.line),
            "Timeout": body.lines.get("timeout", body.line),
            "VpcConfig": body.lines.get("vpc", body.line),
        }
        properties["Timeout"] = body.get("timeout", self.provider.get("timeout", _TIMEOUT))
        network = body.get("vpc", self.provider.get("vpc"))
        if _is_intrinsic(network):
            properties["VpcConfig"] = network
        elif isinstance(network, Map):
            properties["VpcConfig"] = _renamed(
                network, {"subnetIds": "SubnetIds", "securityGroupIds": "SecurityGroupIds"}
            )
        mount = body.get("fileSystemConfig")
        if _is_intrinsic(mount):
            properties["FileSystemConfigs"] = mount
        elif isinstance(mount, Map):
            configs = Seq(mount.line)
            configs.append(_renamed(mount, {"arn": "Arn", "localMountPath": "LocalMountPath"}))
            properties["FileSystemConfigs"] = configs
        environment = self._environment(body)
        if environment:
            properties["Environment"] = Map(body.line)
            properties["Environment"]["Variables"] = environment
            properties.lines["Environment"] = body.lines.get("environment", body.line)
        if str(body.get("snapStart")).lower() == "true":
            properties["SnapStart"] = Map(body.line)
            properties["SnapStart"]["ApplyOn"] = "PublishedVersions"
            properties.lines["SnapStart"] = body.lines.get("snapStart", body.line)
        role = self._role_of(body)
        properties["Role"] = _get_att(_ROLE) if role is None else role
        own["Type"] = "AWS::Lambda::Function"
        own["Properties"] = properties
        own["DependsOn"] = body.get("dependsOn", Seq())
        own["LogicalId"] = _logical_id(name)
        return own

    def _environment(self, body: Map) -> Map:
        """Return a function's variables; they replace the provider's."""
        variables = Map(body.line)
        for written in (self.provider.get("environment"), body.get("environment")):
            if isinstance(written, Map):
                variables.update(written)
        return variables

    def _role_of(self, body: Map) -> Any:
        """Return the role that a function names, or None if it has the Framework's own."""
        if "role" not in body and ("iamRoleStatements" in body or "iam" in body):
            return _unknown("a role of this function alone")
        return body.get("role", self._provider_role())

    def _provider_role(self) -> Any:
        iam = self.provider.get("iam")
        role = iam.get("role") if isinstance(iam, Map) else None
        return role if isinstance(role, str) or _is_intrinsic(role) else self.provider.get("role")

    def _role(self, mounts: list[Any]) -> Map:
        """Return the role that the Framework creates, with the statement that it adds for EFS."""
        iam = self.provider.get("iam")
        written = iam.get("role") if isinstance(iam, Map) else None
        written = written if isinstance(written, Map) else Map()
        statements = Seq(written.line)
        own = written.get("statements", self.provider.get("iamRoleStatements"))
        statements.extend(own if isinstance(own, list) else [own] if own else [])
        if mounts:
            added = Map(self.provider.line)
            added["Effect"], added["Action"] = "Allow", _sequence([MOUNT, WRITE])
            added["Resource"] = _sequence([mount["Arn"] for mount in mounts if "Arn" in mount])
            statements.append(added)
        managed = _sequence([_NETWORK, _BASIC])
        managed.extend(written.get("managedPolicies") or ())
        document, policy, role, properties = Map(), Map(), Map(self.provider.line), Map()
        document["Statement"] = statements
        policy["PolicyDocument"] = document
        properties["Policies"] = _sequence([policy])
        properties["ManagedPolicyArns"] = managed
        role["Type"], role["Properties"] = "AWS::IAM::Role", properties
        return role

    # ---- variables ----

    def _resolved(self, value: Any, depth: int = 0) -> Any:
        """Replace the variables whose values this file gives; the values of others are unknown."""
        self.work += 1
        if self.work > MAX_RESOLVED:
            raise TemplateError(f"its variables unfold to over {MAX_RESOLVED:,} values")
        if isinstance(value, Seq):
            sequence = Seq(value.line)
            sequence.extend(self._resolved(part, depth) for part in value)
            return sequence
        if isinstance(value, Map):
            mapping = Map(value.line)
            mapping.lines = value.lines
            for key, part in value.items():
                # Fn::Sub has variables of its own, with the same signs; unknown text keeps its own.
                is_kept = key in ("Fn::Sub", _UNKNOWN)
                mapping[key] = part if is_kept else self._resolved(part, depth)
            return mapping
        return self._text(value, depth) if isinstance(value, str) and "${" in value else value

    def _text(self, text: str, depth: int) -> Any:
        """Return a text with its variables replaced, the inner ones first."""
        whole = text.strip()
        while match := _VARIABLE.search(whole):
            value = self._named(match[1]) if depth < 10 else None
            value = None if value is None else self._resolved(value, depth + 1)
            if match[0] == whole:
                return _unknown(text) if value is None else value
            if not isinstance(value, str):
                return _unknown(text)
            before, after = whole[: match.start()], whole[match.end() :]
            is_fallback = before.rstrip().endswith(",") and "${" in before
            whole = before + (f"'{value}'" if is_fallback else value) + after
        return _unknown(text) if "${" in whole else whole

    def _named(self, expression: str) -> Any:
        """Return the value of a variable, or of its fallback; None if it is not known."""
        first, _, fallback = (part.strip() for part in expression.partition(","))
        if quoted := _QUOTED.fullmatch(first):
            return quoted[2]
        if _PLAIN.fullmatch(first):
            return first
        source, _, path = first.partition(":")
        if source == "param" and path in self.parameters:
            return self.parameters[path]
        if source == "self":
            value: Any = self.tree
            for key in path.split("."):
                value = value.get(key) if isinstance(value, Map) else None
            if value is not None:
                return value
        is_given_elsewhere = source == "param" and "params" in self.tree
        is_default = source in _OPTIONS and not is_given_elsewhere
        return self._named(fallback) if fallback and is_default else None


def _is_intrinsic(value: Any) -> bool:
    return isinstance(value, Map) and any(key == "Ref" or key.startswith("Fn::") for key in value)


def _unknown(text: str) -> Map:
    """Return an expression that stays unknown."""
    unknown = Map()
    unknown[_UNKNOWN] = text
    return unknown


def _get_att(name: str) -> Map:
    reference = Map()
    reference["Fn::GetAtt"] = _sequence([name, "Arn"])
    return reference


def _sequence(values: list[Any]) -> Seq:
    sequence = Seq()
    sequence.extend(values)
    return sequence


def _renamed(mapping: Map, names: dict[str, str]) -> Map:
    renamed = Map(mapping.line)
    for old, new in names.items():
        if old in mapping:
            renamed[new] = mapping[old]
            renamed.lines[new] = mapping.lines.get(old, mapping.line)
    return renamed


def _logical_id(name: str) -> str:
    """Return the logical id of a function, as the Framework makes it."""
    plain = name.replace("-", "Dash").replace("_", "Underscore")
    return f"{plain[:1].upper()}{plain[1:]}LambdaFunction"
