"""Reads Terraform files into a Stack: each resource in CloudFormation's words, by a table."""

from __future__ import annotations

import glob
import json
import os
import re
from typing import Any

import hcl2

from efsstate.deploy.linting.hcl_blocks import Body
from efsstate.deploy.linting.hcl_expressions import Scope
from efsstate.deploy.linting.located_yaml import load
from efsstate.deploy.linting.resource import Resource
from efsstate.deploy.linting.stack import Stack
from efsstate.deploy.linting.terraform_types import MAKERS, PLAIN, document
from efsstate.deploy.linting.values import Ref, items
from efsstate.errors import TemplateError

MAX_BYTES = 1 << 20  # a file; the parser takes some 3 s for it


def read(path: str) -> Stack:
    """The stack of a .tf or .tf.json file, or of a folder of them (a module)."""
    if os.path.isdir(path):
        files = sorted(
            glob.glob(os.path.join(glob.escape(path), "*.tf"))
            + glob.glob(os.path.join(glob.escape(path), "*.tf.json"))
        )
        if not files:
            raise TemplateError(
                f"{path}: no Terraform files in this folder: name a template, or a folder with .tf files"
            )
    else:
        files = [path]
    scope, blocks, partial = Scope(), [], False
    scope.document = lambda body: document(scope, body)
    for file in files:
        text = load(file)
        tree = _parse(text, file)
        lines = text.splitlines()
        for variable in items(tree.get("variable")):
            for name, body in _named(variable):
                scope.variables[name] = body.get("default")
        for one in items(tree.get("locals")):
            scope.locals.update(
                {key: value for key, value in one.items() if not key.startswith("__")}
            )
        for kind, name, body in _typed(tree.get("data")):
            scope.data[f"{kind}.{name}"] = body
        partial = partial or bool(tree.get("module"))
        for kind, name, body in _typed(tree.get("resource")):
            scope.resources.add(f"{kind}.{name}")
            blocks.append((kind, name, body, file, lines))
    if not blocks and not partial:
        raise TemplateError(f"{path}: no Terraform resources in it")
    # One file of several: what is missing in it may stand in another.
    partial = partial or scope.undeclared([body for _, _, body, _, _ in blocks])
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
            return (
                {key: _quoted(value) for key, value in tree.items()}
                if isinstance(tree, dict)
                else {}
            )
        tree = hcl2.loads(text if text.endswith("\n") else text + "\n")
        return dict(tree)
    except json.JSONDecodeError as error:
        raise TemplateError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise TemplateError(f"{path}: nested too deeply") from error
    except (
        Exception
    ) as error:  # lark has a family of its own, and the transformer raises what it likes
        line = getattr(error, "line", None)
        where = f"{path}:{line}" if isinstance(line, int) and line > 0 else path
        raise TemplateError(
            f"{where}: not Terraform: {str(error).splitlines()[0][:200]}"
        ) from error


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
        (kind, name, body)
        for block in items(blocks)
        for kind, inner in _named(block)
        for name, body in _named(inner)
    ]


def _convert(
    scope: Scope, kind: str, name: str, raw: dict[str, Any], file: str, lines: list[str]
) -> list[Resource]:
    many = "count" in raw or "for_each" in raw
    if "count" in raw and scope.value(raw["count"]) == "0":
        return []  # not made with the variables' defaults
    each = scope.value(raw.get("for_each"))
    if isinstance(each, list | dict) and not each:
        return []
    scope.each = each if isinstance(each, Ref) else None
    own = f"{kind}.{name}"
    body = Body(scope, {**raw, "__name__": own}, lines, *_span(lines, kind, name))
    names: dict[str, str] = {}
    maker = MAKERS.get(kind)
    if kind in PLAIN:
        cfn, names = PLAIN[kind]
        properties: dict[str, Any] = body.pick(names)
    elif maker is not None:
        cfn, properties, names = maker(body)
    else:
        cfn, properties = kind, {}
    located = {new: body.at(old) for old, new in names.items()}
    if "depends_on" in raw:
        located["DependsOn"] = body.at("depends_on")
    made = Resource(
        own, cfn, properties, body.line, file, located, scope.mentions(raw) - {own}, many
    )
    scope.each = None
    return [made]


def _span(lines: list[str], kind: str, name: str) -> tuple[int, int]:
    """The first and last line of a resource, as it is usually written; (0, 0) where it is not."""
    head = re.compile(rf'\s*(resource\s+)?"{re.escape(kind)}"\s+"{re.escape(name)}"\s*{{')
    start = next((number for number, line in enumerate(lines, 1) if head.match(line)), 0)
    if not start:
        return 0, 0
    end = next(
        (
            number
            for number in range(start + 1, len(lines) + 1)
            if re.match(r"\w", lines[number - 1])
        ),
        len(lines) + 1,
    )
    return start, end - 1


def _attach(stack: Stack) -> None:
    """Attachments become what the roles have."""
    for one in stack.of("attachment"):
        for role in (stack.find(value, "AWS::IAM::Role") for value in one.properties["Roles"]):
            if role is not None:
                role.properties["ManagedPolicyArns"] = [
                    *items(role.get("ManagedPolicyArns")),
                    one.properties["Arn"],
                ]
