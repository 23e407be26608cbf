"""The resources that a Terraform expression mentions, through locals, data, modules and outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from efsstate.deploy.linting.hcl_expressions import Scope
from efsstate.deploy.linting.hcl_text import MENTION, VARIABLE
from efsstate.deploy.linting.values import walk


def has_undeclared(scope: Scope, raw: Any) -> bool:
    """Return True if a value names something undeclared: the files are a part of a module."""
    texts = [part for part in walk(raw) if isinstance(part, str)]
    names = {name for text in texts for name in MENTION.findall(text)}
    declared = {
        *scope.resources,
        *(f"local.{name}" for name in scope.locals),
        *(f"data.{name}" for name in scope.data),
    }
    variables = {name for text in texts for name in VARIABLE.findall(text)}
    names = {name for name in names if not name.startswith("module.")}
    return bool(names - declared or variables - scope.declared)


def mentions(scope: Scope, raw: Any) -> set[str]:
    """Return the resources that a value mentions, through locals, data and outputs too."""
    return set(_walk_mentions(scope, raw, set()))


def all_resources(scope: Scope) -> Iterator[str]:
    """Yield every resource of a module and of the modules in it."""
    for name in scope.resources:
        yield from scope.instances.get(name, {"": scope.prefix + name}).values()
    for module in scope.modules.values():
        yield from all_resources(module)


def _walk_mentions(scope: Scope, raw: Any, seen: set[str]) -> Iterator[str]:
    for part in walk(raw):
        if not isinstance(part, str):
            continue
        for match in MENTION.finditer(part):
            name = scope.prefix + match[1]
            if name not in seen:
                seen.add(name)
                yield from _resolve(scope, match[1], part[match.end() :], seen)
        for key in VARIABLE.findall(part):
            name = f"{scope.prefix}var.{key}"
            if key in scope.arguments and scope.parent and name not in seen:
                seen.add(name)
                yield from _walk_mentions(scope.parent, scope.arguments[key], seen)


def _resolve(scope: Scope, name: str, rest: str, seen: set[str]) -> Iterator[str]:
    """Yield the resources behind a name; `rest` is the text that follows it."""
    if name.startswith("local."):
        yield from _walk_mentions(scope, scope.locals.get(name[6:]), seen)
    elif name.startswith("data."):
        yield from _walk_mentions(scope, scope.data.get(name[5:]), seen)
    elif name.startswith("module.") and name[7:] in scope.modules:
        seen.discard(scope.prefix + name)  # another output of it may follow
        yield from _resolve_output(scope.modules[name[7:]], rest, seen)
    elif name in scope.instances:
        yield from scope.instances[name].values()
    elif name.startswith("module.") or name in scope.resources:
        yield scope.prefix + name


def _resolve_output(module: Scope, rest: str, seen: set[str]) -> Iterator[str]:
    output = re.match(r"(?:\[[^\]]*\])?\.([\w-]+)", rest)
    if output is None:
        yield from all_resources(module)
    elif f"{module.prefix}output.{output[1]}" not in seen:
        seen.add(f"{module.prefix}output.{output[1]}")
        yield from _walk_mentions(module, module.outputs.get(output[1]), seen)
