"""Reads a CloudFormation or SAM template into a Stack: parameters at their defaults, references followed, SAM unfolded."""

from __future__ import annotations

import json
import re
from typing import Any

from efsstate.deploy.stack import Resource, Stack, references
from efsstate.deploy.tree import Map, Seq, TemplateError
from efsstate.deploy.values import Joined, Ref, Unknown, items, known

_GONE = Unknown("AWS::NoValue")
_SUB = re.compile(r"\$\{([^!][^}]*)\}")
MAX_RESOLVED = 500_000


def read(tree: Any, path: str) -> Stack:
    """The stack of a template's tree; TemplateError where it is no template."""
    if not isinstance(tree, Map):
        raise TemplateError(f"{path}: not a template: its top is not a mapping")
    resources = tree.get("Resources")
    if not isinstance(resources, Map) or not resources:
        hint = "a Terraform file ends in .tf or .tf.json" if "resource" in tree else "it has no Resources"
        raise TemplateError(f"{path}: not a CloudFormation or SAM template: {hint}")
    return _Reader(tree, resources, path).stack()


class _Reader:
    """One template on its way."""

    def __init__(self, tree: Map, resources: Map, path: str) -> None:
        self.tree, self.raw, self.path = tree, resources, path
        self.parameters, self.mappings, self.conditions = (
            part if isinstance(part := tree.get(name), Map) else Map()
            for name in ("Parameters", "Mappings", "Conditions")
        )
        self.deciding: set[str] = set()
        self.work = 0
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
            if isinstance(condition, str) and self.decide(condition) is False:
                continue  # not made with the parameters' defaults
            found += self.resource(name, body)
        return Stack(found, partial=self.partial, form="sam" if self.sam else "cloudformation")

    def resource(self, name: str, body: Map) -> list[Resource]:
        kind = str(body["Type"])
        raw = body.get("Properties")
        raw = raw if isinstance(raw, Map) else Map()
        if kind in ("AWS::CloudFormation::Stack", "AWS::Serverless::Application") or kind.endswith("::MODULE"):
            self.partial = True
        if kind == "AWS::Serverless::Function":
            raw = self.with_globals(raw)
        value = self.resolve(raw)
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
        made.depends |= {one for one in self.mentions(raw) if one in self.raw}
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
            if isinstance(one, Unknown) or (isinstance(one, dict) and "Statement" not in one and not _sam_policy(one)):
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

    # ---- values ----

    def mentions(self, raw: Any) -> set[str]:
        """Names in Ref and GetAtt, branches not taken included: they hold the order of creation all the same."""
        found: set[str] = set()
        todo = [raw]
        while todo:
            one = todo.pop()
            if isinstance(one, dict):
                for key, value in one.items():
                    if key == "Ref" and isinstance(value, str):
                        found.add(value)
                    elif key == "Fn::GetAtt":
                        found.add(str(value[0] if isinstance(value, list) and value else value).split(".")[0])
                    elif key == "Fn::Sub":
                        found.update(
                            m.split(".")[0]
                            for m in _SUB.findall(str(value[0] if isinstance(value, list) and value else value))
                        )
                        todo.append(value)
                    else:
                        todo.append(value)
            elif isinstance(one, list):
                todo.extend(one)
        return found

    def resolve(self, raw: Any) -> Any:
        self.work += 1
        if self.work > MAX_RESOLVED:
            raise TemplateError(
                f"{self.path}: its references unfold to over {MAX_RESOLVED:,} values: larger than any template"
            )
        if isinstance(raw, Seq):
            made = Seq(raw.line)
            made.extend(value for value in map(self.resolve, raw) if value is not _GONE)
            return made
        if not isinstance(raw, Map):
            return raw
        if len(raw) == 1:
            ((name, argument),) = raw.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self.intrinsic(name, argument, raw)
        whole = Map(raw.line)
        whole.lines = raw.lines
        for key, value in raw.items():
            resolved = self.resolve(value)
            if resolved is not _GONE:
                whole[key] = resolved
        return whole

    def intrinsic(self, name: str, argument: Any, raw: Map) -> Any:
        simple = {
            "Ref": self.ref,
            "Fn::GetAtt": self.get_att,
            "Fn::Sub": self.sub,
            "Fn::Join": self.join,
            "Fn::If": self.choose,
            "Fn::Select": self.select,
            "Fn::Split": self.split,
            "Fn::FindInMap": self.find_in_map,
        }.get(name)
        try:
            value = simple(argument) if simple else None
        except (TypeError, ValueError, IndexError, KeyError, AttributeError):
            value = None  # an intrinsic with arguments that it does not take: cfn-lint's business
        return Unknown(json.dumps(raw, default=str)[:500]) if value is None else value

    def ref(self, name: Any) -> Any:
        if not isinstance(name, str):
            return None
        if name == "AWS::NoValue":
            return _GONE
        if name in self.raw:
            return Ref(name)
        parameter = self.parameters.get(name)
        if isinstance(parameter, dict) and isinstance(parameter.get("Default"), str):
            default, kind = parameter["Default"], str(parameter.get("Type", ""))
            if default and not kind.startswith("AWS::SSM"):
                return [one.strip() for one in default.split(",")] if "List" in kind else default
            if not default and kind == "String":
                return default
        return Unknown("${" + name + "}")

    def get_att(self, argument: Any) -> Any:
        name, _, attribute = (
            str(argument).partition(".") if isinstance(argument, str) else (str(argument[0]), "", str(argument[1]))
        )
        nested = attribute.startswith("Outputs.") or name not in self.raw
        return Unknown("${" + name + "." + attribute + "}") if nested else Ref(name)

    def sub(self, argument: Any) -> Any:
        text, own = (argument, {}) if isinstance(argument, str) else (argument[0], argument[1])
        refs: list[str] = []
        open_ended = False

        def one(match: re.Match[str]) -> str:
            nonlocal open_ended
            name = match[1].strip()
            value = self.resolve(own[name]) if name in own else self.get_att(name) if "." in name else self.ref(name)
            if isinstance(value, Ref):
                refs.append(str(value))
                return "${" + str(value) + "}"
            if isinstance(value, Joined):
                refs.extend(value.refs)
            if isinstance(value, str) and not isinstance(value, Unknown):
                return str(value)
            open_ended = True
            return "${" + name + "}"

        made = _SUB.sub(one, text).replace("${!", "${")
        if len(refs) == 1 and made == "${" + refs[0] + "}":
            return Ref(refs[0])
        return Joined(made, tuple(refs)) if refs or open_ended else made

    def join(self, argument: Any) -> Any:
        between, parts = argument
        values = self.resolve(parts)
        if not isinstance(values, list):
            return None
        refs: list[str] = []
        pieces, open_ended = [], False
        for value in values:
            if isinstance(value, Ref):
                refs.append(str(value))
                pieces.append("${" + str(value) + "}")
            elif isinstance(value, str):
                refs.extend(value.refs if isinstance(value, Joined) else ())
                open_ended |= isinstance(value, Unknown | Joined)
                pieces.append(str(value))
            else:
                return None
        made = str(between).join(pieces)
        return Joined(made, tuple(refs)) if refs or open_ended else made

    def choose(self, argument: Any) -> Any:
        name, yes, no = argument
        taken = self.decide(name)
        if taken is None:
            left, right = self.resolve(yes), self.resolve(no)
            return left if left == right else None
        return self.resolve(yes if taken else no)

    def select(self, argument: Any) -> Any:
        index, of = argument
        if isinstance(of, dict) and "Fn::GetAZs" in of:
            return f"zone {self.resolve(index)} of the region"  # another index is another zone
        values = self.resolve(of)
        return values[int(self.resolve(index))] if isinstance(values, list) else None

    def split(self, argument: Any) -> Any:
        between, text = argument[0], self.resolve(argument[1])
        return str(text).split(between) if known(text) else None

    def find_in_map(self, argument: Any) -> Any:
        keys = [self.resolve(one) for one in argument[:3]]
        value: Any = self.mappings
        for key in keys:
            if not known(key):
                return None
            value = value[key]
        return self.resolve(value)

    # ---- conditions, with the parameters at their defaults ----

    def decide(self, condition: Any) -> bool | None:
        if isinstance(condition, str):
            if condition in self.deciding or condition not in self.conditions or len(self.deciding) > 50:
                return None
            self.deciding.add(condition)
            try:
                return self.decide(self.conditions[condition])
            finally:
                self.deciding.discard(condition)
        if not isinstance(condition, dict) or len(condition) != 1:
            return None
        ((name, argument),) = condition.items()
        self.work += 1
        if self.work > MAX_RESOLVED:
            raise TemplateError(
                f"{self.path}: its conditions unfold to over {MAX_RESOLVED:,} steps: larger than any template"
            )
        if name == "Condition":
            return self.decide(str(argument))
        if not isinstance(argument, list):
            return None
        if name == "Fn::Equals" and len(argument) == 2:
            left, right = (self.resolve(one) for one in argument)
            if isinstance(left, str) and isinstance(right, str) and known(left) and known(right):
                return left == right
            return None
        parts = [self.decide(one) for one in argument]
        if name == "Fn::Not" and len(parts) == 1:
            return None if parts[0] is None else not parts[0]
        if name == "Fn::And":
            return False if False in parts else None if None in parts else True
        if name == "Fn::Or":
            return True if True in parts else None if None in parts else False
        return None


def _sam_policy(one: dict[str, Any]) -> dict[str, Any] | None:
    """The statements of SAM's own policy template for EFS."""
    given = one.get("EFSWriteAccessPolicy")
    if not isinstance(given, dict):
        return None
    condition = {"StringEquals": {"elasticfilesystem:AccessPointArn": given.get("AccessPoint")}}
    actions = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    return {
        "Statement": [
            {"Effect": "Allow", "Action": actions, "Resource": given.get("FileSystem"), "Condition": condition}
        ]
    }
