"""The infrastructure as the rules see it, whichever language or API it was read from."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.security_groups import Opening, opening
from efsstate.deploy.linting.values import Joined, Unknown, is_known, items, target, text
from efsstate.errors import TemplateError

MAX_RESOURCES = 2000


class Stack:
    """All resources of a template or an account, with the questions that the rules ask."""

    def __init__(
        self,
        resources: Iterable[Resource],
        *,
        unseen: Iterable[str] = (),
        skipped: Iterable[str] = (),
        form: str = "cloudformation",
        implies: Callable[[str, str], bool] = lambda one_name, other_name: one_name == other_name,
        may_coexist: Callable[[str, str], bool] = lambda _one_name, _other_name: True,
        duplicates: Iterable[tuple[str, int]] = (),
        parameters: Iterable[str] | None = None,
    ) -> None:
        """Hold `resources`.

        `unseen` names the modules, macros and nested stacks that create resources out of view: if
        it is not empty, a missing resource proves nothing. `skipped` names the resources that are
        not created with the parameters at hand. `implies` and `may_coexist` compare two undecided
        conditions. `duplicates` are the keys, with lines, that stand twice in one mapping.
        `parameters` are the names that may be given values; None if they are not known.
        """
        self.resources = {resource.name: resource for resource in resources}
        if len(self.resources) > MAX_RESOURCES:
            raise TemplateError(f"over {MAX_RESOURCES:,} resources: CloudFormation takes 500")
        self._openings: dict[tuple[str, str], list[Opening] | None] = {}
        self.unseen = list(dict.fromkeys(unseen))
        self.skipped = list(skipped)
        self.form = form
        self.duplicates = list(duplicates)
        self.parameters = None if parameters is None else set(parameters)
        self._implies = functools.cache(implies)
        self._may_coexist = functools.cache(may_coexist)

    @property
    def is_partial(self) -> bool:
        """True if some resources are created out of view."""
        return bool(self.unseen)

    def of(self, *types: str) -> list[Resource]:
        """Return the resources of these types."""
        return [resource for resource in self.resources.values() if resource.type in types]

    def find(self, value: Any, *types: str) -> Resource | None:
        """Return the resource that a value leads to, if it is in view and has one of the types."""
        name = target(value) or (str(value) if is_known(value) else None)
        resource = self.resources.get(name) if name else None
        if resource is None or (types and resource.type not in types):
            return None
        return resource

    def is_created_with(self, resource: Resource, other: Resource) -> bool:
        """Return True if `resource` exists in every deployment in which `other` does."""
        if not resource.condition:
            return True
        return bool(other.condition) and self._implies(other.condition, resource.condition)

    def may_coexist(self, resource: Resource, other: Resource) -> bool:
        """Return False if no deployment has both resources: their conditions exclude each other."""
        if not resource.condition or not other.condition:
            return True
        return self._may_coexist(resource.condition, other.condition)

    # ---- the way from a function to the files ----

    def functions(self) -> list[Resource]:
        """Return the Lambda functions."""
        return self.of("AWS::Lambda::Function")

    def mounts(self, function: Resource) -> list[dict[str, Any]]:
        """Return the file systems that a function names, as written."""
        configs = items(function.get("FileSystemConfigs"))
        return [config for config in configs if isinstance(config, dict)]

    def mounted(self) -> Iterator[tuple[Resource, dict[str, Any]]]:
        """Yield each function with each of its mounts."""
        for function in self.functions():
            for mount in self.mounts(function):
                yield function, mount

    def is_s3_files(self, mount: dict[str, Any]) -> bool:
        """Return True if a mount is an S3 Files access point."""
        arn = mount.get("Arn")
        by_type = self.find(arn, "AWS::S3Files::AccessPoint") is not None
        return by_type or "s3files" in str(arn).lower()

    def access_point(self, mount: dict[str, Any]) -> Resource | None:
        """Return the EFS access point of a mount, if it is in view."""
        return self.find(mount.get("Arn"), "AWS::EFS::AccessPoint")

    def file_system(self, resource: Resource | None) -> Resource | None:
        """Return the file system of an access point or a mount target, if it is in view."""
        if resource is None:
            return None
        return self.find(resource.get("FileSystemId"), "AWS::EFS::FileSystem")

    def mount_targets(self, file_system: Resource) -> list[Resource]:
        """Return the mount targets of a file system."""
        targets = self.of("AWS::EFS::MountTarget")
        return [each for each in targets if self.file_system(each) is file_system]

    def served(self) -> Iterator[tuple[Resource, Resource, list[Resource]]]:
        """Yield each function with a file system it mounts and its mount targets, all in view.

        Mount targets that no deployment has beside the function are left out.
        """
        for function, mount in self.mounted():
            file_system = self.file_system(self.access_point(mount))
            if file_system is not None:
                targets = self.mount_targets(file_system)
                beside = [each for each in targets if self.may_coexist(each, function)]
                yield function, file_system, beside

    def used(self) -> list[Resource]:
        """Return the file systems that a function of the stack mounts."""
        systems = {file_system.name: file_system for _, file_system, _ in self.served()}
        return list(systems.values())

    def used_access_points(self) -> list[Resource]:
        """Return the access points that a function mounts, or all if no function is in view."""
        points = (self.access_point(mount) for _, mount in self.mounted())
        used = {point.name: point for point in points if point is not None}
        return list(used.values()) if used else self.of("AWS::EFS::AccessPoint")

    # ---- network ----

    def openings(self, group: Resource, way: str) -> list[Opening] | None:
        """Return a group's rules, `Ingress` or `Egress`.

        Return None if they are not known, or if the default applies, which lets everything out.
        """
        key = (group.name, way)
        if key not in self._openings:
            self._openings[key] = self._read_openings(group, way)
        return self._openings[key]

    def _read_openings(self, group: Resource, way: str) -> list[Opening] | None:
        inline = group.get(f"SecurityGroup{way}")
        if isinstance(inline, str) and inline:
            return None
        line = group.at(f"SecurityGroup{way}")
        rules = [opening(rule, group, line) for rule in items(inline) if isinstance(rule, dict)]
        if len(rules) != len(items(inline)):
            return None
        apart = self.of(f"AWS::EC2::SecurityGroup{way}")
        if any(isinstance(rule.get("GroupId"), Unknown) for rule in apart):
            return None
        if self.is_partial and not inline:
            return None  # its rules may be made out of view
        for resource in apart:
            if self.find(resource.get("GroupId")) is group:
                # One Terraform rule may name several peers.
                written = items(resource.get("Rules")) or [resource.properties]
                rules += [opening(rule, resource, resource.line) for rule in written]
        # CloudFormation keeps the default, which lets everything out, unless a rule is given.
        is_kept = inline is None or (not inline and self.form in ("sam", "cloudformation"))
        return None if way == "Egress" and is_kept else rules

    def groups(self, values: Any) -> list[Resource] | None:
        """Return the security groups that a property lists; None if one is out of view."""
        if isinstance(values, str):
            return None
        groups = [self.find(value, "AWS::EC2::SecurityGroup") for value in items(values)]
        if not groups or None in groups:
            return None
        return [group for group in groups if group is not None]

    def subnet(self, value: Any) -> Resource | None:
        """Return the subnet that a value leads to, if it is in view."""
        return self.find(value, "AWS::EC2::Subnet")

    def zone(self, subnet: Any) -> str | None:
        """Return the availability zone of a subnet as it is written, if it can be compared."""
        resource = self.subnet(subnet)
        if resource is None or resource.is_many:
            return None
        value = resource.get("AvailabilityZone") or resource.get("AvailabilityZoneId")
        return str(value) if is_known(value) or isinstance(value, Joined) else None

    def range(self, subnet: Any) -> str | None:
        """Return the addresses of a subnet, if they are known."""
        resource = self.subnet(subnet)
        return None if resource is None else text(resource.get("CidrBlock"))

    def vpc(self, subnet: Any) -> str | None:
        """Return the VPC of a subnet, if it is in view."""
        resource = self.subnet(subnet)
        value = None if resource is None else resource.get("VpcId")
        return None if value is None or isinstance(value, Unknown) else str(value)

    def routes(self) -> list[dict[str, Any]]:
        """Return the routes, those written in route tables and those that are their own."""
        routes = [route.properties for route in self.of("AWS::EC2::Route")]
        for route_table in self.of("AWS::EC2::RouteTable"):
            routes += [r for r in items(route_table.get("Routes")) if isinstance(r, dict)]
        return routes

    # ---- order ----

    def created_before(self, resource: Resource) -> set[str]:
        """Return every resource that is created before this one, directly or through others."""
        seen: set[str] = set()
        pending = list(resource.depends)
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                if name in self.resources:
                    pending.extend(self.resources[name].depends)
        return seen


def are_other_zones(one_zone: str | None, other_zone: str | None) -> bool:
    """Return True if two zones certainly differ.

    A zone's name, its id, and its place in a list of zones cannot be compared.
    """
    if one_zone is None or other_zone is None or one_zone == other_zone:
        return False
    return _style(one_zone) == _style(other_zone)


def _style(zone: str) -> str:
    """Return how a zone is named; two names of one style are the same zone only if equal."""
    if re.fullmatch(r"zone \d+ of the region", zone):
        return "place"
    if re.search(r"-az\d+$", zone):
        return "id"
    # Of unknown text only one letter behind the same expression can be compared.
    return "name" if "${" not in zone else zone[:-1] if zone[-2:-1] == "}" else zone
