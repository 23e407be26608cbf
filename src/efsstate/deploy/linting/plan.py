"""A plan of Terraform or OpenTofu, as `terraform show -json` prints it, read into a Stack.

Every value that is known before the apply is in it, modules, variables and counts included. A value
that is known only after the apply is followed through the plan's configuration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from efsstate.deploy.linting.hcl_blocks import Body
from efsstate.deploy.linting.hcl_expressions import Scope
from efsstate.deploy.linting.hcl_mentions import mentions
from efsstate.deploy.linting.hcl_text import quoted
from efsstate.deploy.linting.located_yaml import load
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.terraform_types import attach_policies, convert, document
from efsstate.errors import TemplateError

HINT = "check a plan: `terraform plan -out plan && terraform show -json plan > plan.json`"
MAX_BYTES = 64 << 20
MAX_RESOURCES = 20_000
_LISTS = {
    "subnet_ids",
    "security_group_ids",
    "security_groups",
    "vpc_security_group_ids",
    "managed_policy_arns",
    "resources",
    "values",
    "identifiers",
    "roles",
}
_KEPT = re.compile(r"awsc?c?_")


def is_plan(path: str) -> bool:
    """Return True if a JSON file is a plan. Raise TemplateError if it is the log of planning."""
    try:
        text = load(path, MAX_BYTES)
    except TemplateError:
        return False
    if text.lstrip().startswith('{"@level"'):
        raise TemplateError(f"{path}: this is the log that `terraform plan -json` prints; {HINT}")
    return '"format_version"' in text and '"Resources"' not in text


def read(path: str) -> Stack:
    """Return the stack that a plan leads to. Raise TemplateError if it is not a readable plan."""
    try:
        plan = json.loads(load(path, MAX_BYTES))
    except (ValueError, RecursionError) as error:  # ValueError: also of over 4,300 digits
        raise TemplateError(f"{path}: not JSON: {error}") from error
    version = str(plan.get("format_version", "")) if isinstance(plan, dict) else ""
    if not version.startswith(("0.", "1.")):
        raise TemplateError(f"{path}: format {version or '?'} of a plan; 0 and 1 are known")
    root = (plan.get("planned_values") or plan.get("values") or {}).get("root_module")
    if not isinstance(root, dict):
        raise TemplateError(f"{path}: a plan without planned values; {HINT}")
    try:
        return _Plan(plan, path).stack(root)
    except (AttributeError, TypeError, KeyError) as error:
        raise TemplateError(f"{path}: not a plan as Terraform writes it: {error!r}") from error


class _Plan:
    """One plan being read."""

    def __init__(self, plan: dict[str, Any], path: str) -> None:
        self.path = path
        configuration = (plan.get("configuration") or {}).get("root_module") or {}
        self.scope = self._scope("", None, configuration)
        self.unknown = {
            change.get("address"): (change.get("change") or {}).get("after_unknown") or {}
            for change in plan.get("resource_changes") or ()
        }
        self.expressions: dict[str, Any] = {}
        self._collect(configuration, "")
        self.unseen = [] if configuration else ["references, which a state does not have"]
        if plan.get("errored"):
            self.unseen.append("the rest of a plan that ended with an error")

    def stack(self, root: dict[str, Any]) -> Stack:
        written = list(_resources(root))
        if len(written) > MAX_RESOURCES:
            raise TemplateError(f"{self.path}: over {MAX_RESOURCES:,} resources")
        for resource in written:
            self._declare(resource)
        resources = [
            self._convert(resource)
            for resource in written
            if resource.get("mode") != "data" and _KEPT.match(str(resource.get("type")))
        ]
        relevant = [each for each in resources if not _KEPT.match(each.type)]
        stack = Stack(relevant, unseen=self.unseen, form="terraform", parameters=())
        attach_policies(stack)
        return stack

    # ---- configuration ----

    def _scope(self, prefix: str, parent: Scope | None, module: dict[str, Any]) -> Scope:
        scope = Scope("", prefix, parent)
        scope.is_plan = True
        scope.read_document = lambda body: document(scope, body)
        scope.declared = set(module.get("variables") or {})
        for name, output in (module.get("outputs") or {}).items():
            scope.outputs[name] = _expression(name, output.get("expression"))
        for name, call in (module.get("module_calls") or {}).items():
            child = self._scope(f"{prefix}module.{name}.", scope, call.get("module") or {})
            child.arguments = {
                key: _expression(key, value)
                for key, value in (call.get("expressions") or {}).items()
            }
            scope.modules[name] = child
        return scope

    def _collect(self, module: dict[str, Any], prefix: str) -> None:
        for resource in module.get("resources") or ():
            self.expressions[prefix + resource["address"]] = resource
        for name, call in (module.get("module_calls") or {}).items():
            self._collect(call.get("module") or {}, f"{prefix}module.{name}.")

    def _scope_of(self, address: str) -> Scope:
        scope = self.scope
        for name in re.findall(r"(?:^|\.)module\.([\w-]+)", address):
            scope = scope.modules.get(name, scope)
        return scope

    # ---- resources ----

    def _declare(self, resource: dict[str, Any]) -> None:
        address = str(resource["address"])
        scope = self._scope_of(address)
        name = f"{resource['type']}.{resource['name']}"
        if resource.get("mode") == "data":
            scope.data[name] = self._raw(resource)
        else:
            scope.resources.add(name)
            index = resource.get("index")
            if index is not None:
                scope.instances.setdefault(name, {})[str(index)] = address

    def _raw(self, resource: dict[str, Any]) -> dict[str, Any]:
        address = str(resource["address"])
        plain = re.sub(r"\[[^\]]*\]", "", address)
        written = self.expressions.get(plain, {})
        unknown = self.unknown.get(address, {})
        merge = _Merge(resource.get("index"))
        merged = merge.join(
            resource.get("values") or {}, unknown, written.get("expressions") or {}, ""
        )
        return merged if isinstance(merged, dict) else {}

    def _convert(self, resource: dict[str, Any]) -> Resource:
        address = str(resource["address"])
        plain = re.sub(r"\[[^\]]*\]", "", address)
        scope = self._scope_of(address)
        raw = self._raw(resource)
        name = plain if resource.get("index") is None else address
        body = Body(scope, {**raw, "__name__": name}, [])
        converted = convert(str(resource["type"]), name, body, self.path)
        mentioned = self.expressions.get(plain, {})
        references = list(_references(mentioned.get("expressions")))
        references += mentioned.get("depends_on") or []
        converted.depends = mentions(scope, [f"${{{each}}}" for each in references])
        return converted


def _resources(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from module.get("resources") or ()
    for child in module.get("child_modules") or ():
        yield from _resources(child)


def _references(expressions: Any) -> Iterator[str]:
    if isinstance(expressions, dict):
        yield from expressions.get("references") or ()
        for value in expressions.values():
            yield from _references(value)
    elif isinstance(expressions, list):
        for value in expressions:
            yield from _references(value)


def _expression(name: str, written: Any) -> Any:
    """Return a part of the configuration as the HCL parser would give it."""
    if isinstance(written, list):
        return [_expression(name, part) for part in written]
    if not isinstance(written, dict):
        return None
    if "constant_value" in written:
        return quoted(written["constant_value"])
    if "references" not in written:
        return {key: _expression(key, part) for key, part in written.items()}
    names = _longest(written["references"])
    if name in _LISTS or len(names) != 1:
        return [f"${{{reference}}}" for reference in names]
    return f"${{{names[0]}}}"


def _longest(references: list[str]) -> list[str]:
    """Return references without those that are only the beginning of another."""
    return [
        reference
        for reference in references
        if not reference.startswith(("count.", "each.", "path."))
        and not any(other.startswith((f"{reference}.", f"{reference}[")) for other in references)
    ]


class _Merge:
    """Joins the planned values of one instance with the expressions of its unknown values."""

    def __init__(self, index: Any) -> None:
        self.index = index

    def join(self, values: Any, unknown: Any, written: Any, name: str) -> Any:
        """Return the values; one that is unknown until the apply is an expression."""
        if unknown is True:
            return self._expression(name, written)
        if isinstance(values, dict):
            return self._join_mappings(values, unknown, written)
        if not isinstance(values, list):
            return quoted(values)
        if isinstance(unknown, list) and any(part is True for part in unknown):
            return self._expression(name, written) if isinstance(written, dict) else None
        parts = _padded(unknown, len(values), filler=False)
        blocks = written if isinstance(written, list) else [written] * len(values)
        blocks = _padded(blocks, len(values), filler=None)
        return [
            self.join(value, part, block, name)
            for value, part, block in zip(values, parts, blocks, strict=True)
        ]

    def _join_mappings(self, values: dict[str, Any], unknown: Any, written: Any) -> Any:
        unknown = unknown if isinstance(unknown, dict) else {}
        written = written if isinstance(written, dict) else {}
        return {
            key: self.join(values.get(key), unknown.get(key, False), written.get(key), key)
            for key in {**values, **unknown}
        }

    def _expression(self, name: str, written: Any) -> Any:
        references = written.get("references") if isinstance(written, dict) else None
        own = any(str(each).startswith(("count.", "each.")) for each in references or ())
        if not own or self.index is None:
            return _expression(name, written)
        names = _longest(references or [])
        instance = [
            f"{each}[{json.dumps(self.index)}]" if each.count(".") == 1 else each for each in names
        ]
        return _expression(name, {"references": instance})


def _padded(values: Any, length: int, *, filler: Any) -> list[Any]:
    known = values if isinstance(values, list) else []
    return [*known, *[filler] * (length - len(known))][:length]
