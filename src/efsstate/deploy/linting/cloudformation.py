"""Reads a CloudFormation or SAM template into a Stack: parameters at their defaults, references followed, SAM unfolded."""

from __future__ import annotations

from typing import Any

from efsstate.deploy.linting.intrinsics import Intrinsics
from efsstate.deploy.linting.located_yaml import Map, Seq
from efsstate.deploy.linting.resource import Resource, references
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import Ref, Unknown, items, known
from efsstate.errors import TemplateError


def read(tree: Any, path: str) -> Stack:
    """The stack of a template's tree; TemplateError where it is no template."""
    if not isinstance(tree, Map):
        raise TemplateError(f"{path}: not a template: its top is not a mapping")
    resources = tree.get("Resources")
    if not isinstance(resources, Map) or not resources:
        hint = (
            "a Terraform file ends in .tf or .tf.json"
            if "resource" in tree
            else "it has no Resources"
        )
        raise TemplateError(f"{path}: not a CloudFormation or SAM template: {hint}")
    return _Reader(tree, resources, path).stack()


class _Reader:
    """One template on its way."""

    def __init__(self, tree: Map, resources: Map, path: str) -> None:
        self.tree, self.raw, self.path = tree, resources, path
        self.values = Intrinsics(tree, resources, path)
        transforms = [str(one) for one in items(tree.get("Transform"))]
        self.sam = any("Serverless" in one for one in transforms)
        # A macro, a loop or a nested stack makes resources that we cannot see.
        self.partial = any("Serverless" not in one for one in transforms)

    def stack(self) -> Stack:
        found: list[Resource] = []
        for name, body in self.raw.items():
            if not isinstance(body, Map) or not isinstance(body.get("Type"), str):
                if name.startswith("Fn::"):
                    self.partial = True
                    continue
                raise TemplateError(
                    f"{self.path}:{self.raw.lines.get(name, 0)}: {name}: not a resource: it has no Type"
                )
            condition = body.get("Condition")
            if isinstance(condition, str) and self.values.decide(condition) is False:
                continue  # not made with the parameters' defaults
            found += self.resource(name, body)
        return Stack(found, partial=self.partial, form="sam" if self.sam else "cloudformation")

    def resource(self, name: str, body: Map) -> list[Resource]:
        kind = str(body["Type"])
        raw = body.get("Properties")
        raw = raw if isinstance(raw, Map) else Map()
        if kind in ("AWS::CloudFormation::Stack", "AWS::Serverless::Application") or kind.endswith(
            "::MODULE"
        ):
            self.partial = True
        if kind == "AWS::Serverless::Function":
            raw = self.with_globals(raw)
        value = self.values.resolve(raw)
        properties = value if isinstance(value, dict) else {}
        made = Resource(
            name,
            kind,
            properties,
            self.raw.lines.get(name, body.line),
            self.path,
            dict(raw.lines),
        )
        made.depends = references(properties) | {str(one) for one in items(body.get("DependsOn"))}
        made.depends |= {one for one in self.values.mentions(raw) if one in self.raw}
        made.depends.discard(name)
        if "DependsOn" in body.lines:
            made.lines["DependsOn"] = body.lines["DependsOn"]
        for key in ("DeletionPolicy", "UpdateReplacePolicy"):
            if key in body:
                made.properties[key] = body[key]
        return self.unfold(made) if kind == "AWS::Serverless::Function" else [made]

    # ---- SAM ----

    def with_globals(self, raw: Map) -> Map:
        common = self.tree.get("Globals")
        common = common.get("Function") if isinstance(common, dict) else None
        if not isinstance(common, Map):
            return raw
        merged = Map(raw.line)
        for source in (common, raw):
            for key, value in source.items():
                old = merged.get(key)
                if (
                    isinstance(old, Map)
                    and isinstance(value, Map)
                    and not any(k.startswith("Fn::") for k in [*old, *value])
                ):
                    both = Map(value.line)
                    both.update({**old, **value})
                    value = both  # noqa: PLW2901 - SAM joins the maps of Globals with the function's
                merged[key] = value
                merged.lines[key] = source.lines.get(key, source.line)
        return merged

    def unfold(self, made: Resource) -> list[Resource]:
        """The function, and the role that SAM makes for it."""
        made.type = "AWS::Lambda::Function"
        if made.get("Role") is not None:
            return [made]
        name = f"{made.name}Role"
        policies, managed = Seq(), Seq()
        for one in items(made.get("Policies")):
            if isinstance(one, Unknown) or (
                isinstance(one, dict) and "Statement" not in one and not _sam_policy(one)
            ):
                managed.append(Unknown("a policy template"))
            elif isinstance(one, dict):
                policies.append({"PolicyDocument": one if "Statement" in one else _sam_policy(one)})
            elif known(one) and not one.startswith("arn:"):
                managed.append(f"arn:aws:iam::aws:policy/{one}")
            else:
                managed.append(one)
        role = Resource(
            name,
            "AWS::IAM::Role",
            {"Policies": policies, "ManagedPolicyArns": managed},
            made.at("Policies"),
            made.file,
            {"Policies": made.at("Policies"), "ManagedPolicyArns": made.at("Policies")},
        )
        role.depends = references(policies) | references(managed)
        made.properties["Role"] = Ref(name)
        made.depends.add(name)
        return [made, role]


def _sam_policy(one: dict[str, Any]) -> dict[str, Any] | None:
    """The statements of SAM's own policy template for EFS."""
    given = one.get("EFSWriteAccessPolicy")
    if not isinstance(given, dict):
        return None
    condition = {"StringEquals": {"elasticfilesystem:AccessPointArn": given.get("AccessPoint")}}
    actions = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    return {
        "Statement": [
            {
                "Effect": "Allow",
                "Action": actions,
                "Resource": given.get("FileSystem"),
                "Condition": condition,
            }
        ]
    }
