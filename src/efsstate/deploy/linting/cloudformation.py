"""CloudFormation and SAM templates, read into a Stack with references and conditions resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from efsstate.deploy.linting import sam
from efsstate.deploy.linting.intrinsics import Intrinsics, PartialMap
from efsstate.deploy.linting.located_yaml import Map, Seq
from efsstate.deploy.linting.resource import Resource, references
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.values import is_known, items
from efsstate.errors import TemplateError

PULUMI = (
    "Pulumi programs are not read; "
    "check the stack that a program deploys with `efsstate doctor --aws`"
)

MAX_EXPANDED = 500  # resources that one Fn::ForEach may unfold to


def read(tree: Any, path: str, parameters: Mapping[str, str] | None = None) -> Stack:
    """Return the stack of a template's tree, with `parameters` in place of their defaults.

    Raise TemplateError if the tree is not a template.
    """
    if not isinstance(tree, Map):
        raise TemplateError(f"{path}: not a template: its top is not a mapping")
    resources = tree.get("Resources")
    if not isinstance(resources, Map) or not resources:
        raise TemplateError(f"{path}: not a CloudFormation or SAM template: {_hint(tree)}")
    return _Reader(tree, resources, path, parameters or {}).stack()


def _hint(tree: Map) -> str:
    if "resource" in tree:
        return "a Terraform file ends in .tf or .tf.json"
    if "app" in tree and "context" in tree:
        return "this is cdk.json; run `cdk synth` and check the folder cdk.out"
    if "terraform_version" in tree and "resources" in tree:
        return "this is Terraform's state; check `terraform show -json > state.json`"
    if "runtime" in tree and "name" in tree:
        return PULUMI
    return "it has no Resources"


class _Reader:
    """One template being read."""

    def __init__(self, tree: Map, resources: Map, path: str, parameters: Mapping[str, str]) -> None:
        self.tree, self.raw, self.path = tree, resources, path
        self.unseen: list[str] = []
        self.values = Intrinsics(tree, Map(), path, parameters)
        self.raw = self._expand_loops(resources)
        self.values.raw = self.raw
        transforms = [str(name) for name in items(tree.get("Transform"))]
        self.is_sam = any("Serverless" in name for name in transforms)
        known = ("AWS::Serverless", "AWS::LanguageExtensions")
        transforms += [name for name in tree if name.startswith("Fn::")]
        self.unseen += [f"macro {name}" for name in transforms if not name.startswith(known)]

    def stack(self) -> Stack:
        resources: list[Resource] = []
        skipped: list[str] = []
        for name, body in self.raw.items():
            if not self._is_resource(name, body):
                continue
            condition = body.get("Condition")
            verdict = self.values.conditions.decide(condition) if condition else True
            if verdict is False:
                skipped.append(name)
            else:
                undecided = str(condition) if verdict is None else ""
                resources += self._convert(name, body, undecided)
        return Stack(
            resources,
            unseen=self.unseen,
            skipped=skipped,
            form="sam" if self.is_sam else "cloudformation",
            implies=self.values.conditions.implies,
            may_coexist=self.values.conditions.may_coexist,
            duplicates=self.tree.duplicates,
            parameters=self.values.parameters,
        )

    def _is_resource(self, name: str, body: Any) -> bool:
        """Return True if a resource can be read; note it if it is made out of view."""
        if name.startswith("Fn::"):
            self.unseen.append(name)
            return False
        if isinstance(body, Map) and isinstance(body.get("Type"), Map):
            self.unseen.append(f"module {name}")  # Type: !Rain::Module …
            return False
        if not isinstance(body, Map) or not isinstance(body.get("Type"), str):
            line = self.raw.lines.get(name, 0)
            raise TemplateError(f"{self.path}:{line}: {name}: not a resource: it has no Type")
        kind = body["Type"]
        if kind in ("AWS::CloudFormation::Stack", "AWS::Serverless::Application"):
            self.unseen.append(f"nested stack {name}")
        elif kind.endswith("::MODULE"):
            self.unseen.append(f"module {name}")
        return True

    def _convert(self, name: str, body: Map, condition: str) -> list[Resource]:
        kind = str(body["Type"])
        raw = body.get("Properties")
        raw = raw if isinstance(raw, Map) else Map()
        is_sam_function = kind == "AWS::Serverless::Function"
        if is_sam_function:
            raw = sam.with_globals(raw, self.tree.get("Globals"), body.get("IgnoreGlobals"))
        value = self.values.resolve(raw)
        properties = value if isinstance(value, dict) else PartialMap(raw.line)
        line = self.raw.lines.get(name, body.line)
        resource = Resource(name, kind, properties, line, self.path, dict(raw.lines))
        resource.condition = condition
        resource.depends = references(properties)
        resource.depends |= {str(other) for other in items(body.get("DependsOn"))}
        resource.depends |= {other for other in self.values.mentions(raw) if other in self.raw}
        resource.depends.discard(name)
        if "DependsOn" in body.lines:
            resource.lines["DependsOn"] = body.lines["DependsOn"]
        resource.ignored = frozenset(_ignored(body.get("Metadata")))
        for key in ("DeletionPolicy", "UpdateReplacePolicy"):
            resource.properties[key] = self.values.resolve(body.get(key))
        return sam.unfold(resource) if is_sam_function else [resource]

    # ---- Fn::ForEach ----

    def _expand_loops(self, raw: Map) -> Map:
        """Unfold each Fn::ForEach over a known collection; leave the others as they are."""
        expanded = Map(raw.line)
        expanded.lines.update(raw.lines)
        for name, body in raw.items():
            copies = list(self._copies(name, body)) if name.startswith("Fn::ForEach::") else []
            if not copies:
                expanded[name] = body
            for copy, content in copies:
                expanded[copy] = content
                expanded.lines[copy] = raw.lines.get(name, raw.line)
        return expanded

    def _copies(self, name: str, body: Any) -> Iterator[tuple[str, Any]]:
        if not isinstance(body, list) or len(body) != 3 or not isinstance(body[2], Map):
            return
        variable, choices, content = body[0], self.values.resolve(body[1]), body[2]
        if not isinstance(choices, list) or not all(map(is_known, choices)):
            return
        if len(choices) * len(content) > MAX_EXPANDED:
            raise TemplateError(f"{self.path}: {name} unfolds to over {MAX_EXPANDED} resources")
        for choice in choices:
            for key, value in content.items():
                inner = _replaced(value, str(variable), str(choice))
                copy = _replaced(key, str(variable), str(choice))
                if copy.startswith("Fn::ForEach::"):
                    yield from self._copies(copy, inner)
                else:
                    yield copy, inner


def _ignored(metadata: Any) -> list[str]:
    """Return the codes that a resource's Metadata, {efsstate: {ignore: [CODE]}}, keeps quiet."""
    inner = metadata.get("efsstate") if isinstance(metadata, Map) else None
    codes = inner.get("ignore") if isinstance(inner, Map) else None
    return [str(code) for code in items(codes)]


def _replaced(value: Any, variable: str, choice: str) -> Any:
    """Return a copy of a loop's body in which its variable is replaced."""
    if isinstance(value, str):
        return value.replace("${" + variable + "}", choice).replace("&{" + variable + "}", choice)
    if isinstance(value, Map):
        if len(value) == 1 and value.get("Ref") == variable:
            return choice
        mapping = Map(value.line)
        mapping.lines = value.lines
        for key, part in value.items():
            mapping[_replaced(key, variable, choice)] = _replaced(part, variable, choice)
        return mapping
    if isinstance(value, Seq):
        sequence = Seq(value.line)
        sequence.extend(_replaced(part, variable, choice) for part in value)
        return sequence
    return value
