"""The infrastructure as the rules see it, whichever language or API it was read from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from efsstate.deploy.linting.iam import MANAGED, Statement, statements_of
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.security_groups import Opening, opening
from efsstate.deploy.linting.values import Unknown, items, known, target, text
from efsstate.errors import TemplateError

MAX_RESOURCES = 2000


class Stack:
    """All resources of a template or an account, by type and name, with the questions that the rules ask."""

    def __init__(
        self, resources: Iterable[Resource], *, partial: bool = False, form: str = "cloudformation"
    ) -> None:
        """`partial`: some resources are made where we cannot see (modules, macros, nested stacks), so absence proves nothing."""
        self.resources = {one.name: one for one in resources}
        if len(self.resources) > MAX_RESOURCES:
            raise TemplateError(f"over {MAX_RESOURCES:,} resources: CloudFormation takes 500")
        self._openings: dict[tuple[str, str], list[Opening] | None] = {}
        self.partial = partial
        self.form = form

    def of(self, *types: str) -> list[Resource]:
        """The resources of these types."""
        return [one for one in self.resources.values() if one.type in types]

    def find(self, value: Any, *types: str) -> Resource | None:
        """The resource that a value leads to, if it has one of the types."""
        name = target(value) or (str(value) if known(value) else None)
        one = self.resources.get(name) if name else None
        return one if one is not None and (not types or one.type in types) else None

    # ---- the way from a function to the files ----

    def functions(self) -> list[Resource]:
        """The functions."""
        return self.of("AWS::Lambda::Function")

    def mounts(self, function: Resource) -> list[dict[str, Any]]:
        """The file systems that a function names, as written."""
        return [one for one in items(function.get("FileSystemConfigs")) if isinstance(one, dict)]

    def mounted(self) -> Iterator[tuple[Resource, dict[str, Any]]]:
        """Each function with each of its mounts."""
        for function in self.functions():
            for mount in self.mounts(function):
                yield function, mount

    def access_point(self, mount: dict[str, Any]) -> Resource | None:
        """The access point of a mount."""
        return self.find(mount.get("Arn"), "AWS::EFS::AccessPoint")

    def file_system(self, one: Resource | None) -> Resource | None:
        """The file system of an access point or a mount target."""
        return None if one is None else self.find(one.get("FileSystemId"), "AWS::EFS::FileSystem")

    def mount_targets(self, file_system: Resource) -> list[Resource]:
        """The mount targets of a file system."""
        return [
            one for one in self.of("AWS::EFS::MountTarget") if self.file_system(one) is file_system
        ]

    def served(self) -> Iterator[tuple[Resource, Resource, list[Resource]]]:
        """Each function with a file system that it mounts and its mount targets, where all of it is in view."""
        for function, mount in self.mounted():
            file_system = self.file_system(self.access_point(mount))
            if file_system is not None:
                yield function, file_system, self.mount_targets(file_system)

    def used(self) -> list[Resource]:
        """The file systems that a function of the stack mounts."""
        found: dict[str, Resource] = {one.name: one for _, one, _ in self.served()}
        return list(found.values())

    # ---- network ----

    def openings(self, group: Resource, way: str) -> list[Opening] | None:
        """The rules of a group, `Ingress` or `Egress`; None where that cannot be known, or is the default of everything."""
        key = (group.name, way)
        if key not in self._openings:
            self._openings[key] = self._opening(group, way)
        return self._openings[key]

    def _opening(self, group: Resource, way: str) -> list[Opening] | None:
        inline = group.get(f"SecurityGroup{way}")
        if isinstance(inline, str) and inline:
            return None
        found = [
            opening(rule, group, group.at(f"SecurityGroup{way}"))
            for rule in items(inline)
            if isinstance(rule, dict)
        ]
        if len(found) != len(items(inline)):
            return None
        apart = self.of(f"AWS::EC2::SecurityGroup{way}")
        own = [one for one in apart if self.find(one.get("GroupId")) is group]
        if any(isinstance(one.get("GroupId"), Unknown) for one in apart):
            return None
        if self.partial and not inline:
            return None  # its rules may stand where we cannot see
        found += [opening(one.properties, one, one.line) for one in own]
        if way == "Egress" and inline is None:
            return None
        return found

    def groups(self, values: Any) -> list[Resource] | None:
        """The security groups that a property lists; None where one of them is out of view."""
        if isinstance(values, str):
            return None
        found = [self.find(value, "AWS::EC2::SecurityGroup") for value in items(values)]
        return None if None in found or not found else [one for one in found if one is not None]

    def zone(self, subnet: Any) -> str | None:
        """The availability zone of a subnet, where it is known."""
        one = self.find(subnet, "AWS::EC2::Subnet")
        return (
            None
            if one is None
            else text(one.get("AvailabilityZone") or one.get("AvailabilityZoneId"))
        )

    def range(self, subnet: Any) -> str | None:
        """The addresses of a subnet, where they are known."""
        one = self.find(subnet, "AWS::EC2::Subnet")
        return None if one is None else text(one.get("CidrBlock"))

    def vpc(self, subnet: Any) -> str | None:
        """The VPC of a subnet, where it is in view."""
        one = self.find(subnet, "AWS::EC2::Subnet")
        value = None if one is None else one.get("VpcId")
        return None if value is None or isinstance(value, Unknown) else str(value)

    # ---- order ----

    def before(self, one: Resource) -> set[str]:
        """Every resource that is made before this one, directly or through others."""
        seen: set[str] = set()
        todo = list(one.depends)
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                if name in self.resources:
                    todo.extend(self.resources[name].depends)
        return seen

    # ---- permissions ----

    def statements(self, function: Resource) -> tuple[list[Statement], bool]:
        """What the function's role is allowed, and whether that is all of it (False: there is more than we can see)."""
        role = self.find(function.get("Role"), "AWS::IAM::Role")
        if role is None:
            return [], False
        found, whole = self._of_policies(items(role.get("Policies")), role, "Policies")
        for value in items(role.get("ManagedPolicyArns")):
            own = self.find(value, "AWS::IAM::ManagedPolicy")
            name = str(value).rpartition("/")[2]
            if own is not None:
                found += statements_of(own.get("PolicyDocument"), own, own.at("PolicyDocument"))
            elif name in MANAGED and ":aws:policy/" in str(value):
                actions = MANAGED[name]
                if actions:
                    line = role.at("ManagedPolicyArns")
                    found.append(Statement(True, actions, ["*"], {}, role, line, managed=name))
            else:
                whole = False
        for policy in self.of(
            "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"
        ):
            roles = items(policy.get("Roles")) + items(policy.get("RoleName"))
            if any(self.find(one) is role for one in roles):
                if isinstance(policy.get("PolicyDocument"), Unknown):
                    whole = False
                found += statements_of(
                    policy.get("PolicyDocument"), policy, policy.at("PolicyDocument")
                )
            elif any(isinstance(one, Unknown) for one in roles):
                whole = False
        return found, whole and not self.partial

    def _of_policies(
        self, policies: list[Any], role: Resource, name: str
    ) -> tuple[list[Statement], bool]:
        found: list[Statement] = []
        whole = True
        for policy in policies:
            if isinstance(policy, dict) and isinstance(policy.get("PolicyDocument"), dict):
                found += statements_of(policy["PolicyDocument"], role, role.at(name))
            else:
                whole = False
        return found, whole
