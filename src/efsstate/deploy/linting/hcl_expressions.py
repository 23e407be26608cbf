"""Terraform's expressions, resolved as far as variables, locals, outputs and resources go."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from typing import Any

from efsstate.deploy.linting.hcl_text import (
    PIECE,
    RESOURCE,
    parse_literal,
    split_arguments,
    split_once,
)
from efsstate.deploy.linting.located_yaml import load
from efsstate.deploy.linting.values import (
    Joined,
    Ref,
    Unknown,
    all_of,
    any_of,
    is_known,
    negated,
)
from efsstate.errors import TemplateError

_STEP = re.compile(r"\.([\w-]+)|\[(\d+)\]|\[\"([^\"]+)\"\]")
_INDEX = re.compile(r"\[([^\]\"\d*][^\]]*)\]")
_DIRECTIVE = re.compile(r"(?<!%)%\{")  # %{ if … } and %{ for … } in quoted text
_SIGNS = ("||", "&&", "==", "!=")
_ATTRIBUTES = {"arn": "Arn", "id": ""}
MAX_DEPTH = 40
MAX_RESOLVED = 200_000  # expressions; the largest public module has 7,000


class Scope:
    """The names of one Terraform module: variables, locals, data sources, resources, modules."""

    def __init__(self, folder: str = "", prefix: str = "", parent: Scope | None = None) -> None:
        """Know nothing yet: the reader fills it. `prefix` is "module.NAME." in a child module."""
        self.folder, self.prefix, self.parent = folder, prefix, parent
        self.declared: set[str] = set()
        self.defaults: dict[str, Any] = {}
        self.not_nullable: set[str] = set()
        """The variables that take their default in place of a null."""
        self.arguments: dict[str, Any] = {}
        self.has_unknown_caller = False
        self.locals: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.data: dict[str, dict[str, Any]] = {}
        self.resources: set[str] = set()
        self.instances: dict[str, dict[str, str]] = {}
        """In a plan: of a resource with count or for_each, each instance by its index."""
        self.is_plan = False
        self.modules: dict[str, Scope] = {}
        self.depends: set[str] = set()
        self.read_document: Callable[[dict[str, Any]], Any] = lambda _: None
        self.each: Any = None
        self.each_key: Any = None
        self.iterators: dict[str, tuple[Any, Any]] = {}
        """The key and the value of each `dynamic` block around, by the name of its iterator."""
        self.depth = 0
        self.work: list[int] = [0] if parent is None else parent.work
        """How many expressions were resolved, one number for all modules."""

    def inside(self, iterator: str, key: Any, value: Any) -> Scope:
        """Return this scope within one of the blocks that a `dynamic` block makes."""
        inner = copy.copy(self)
        inner.iterators = {**self.iterators, iterator: (key, value)}
        return inner

    # ---- values ----

    def value(self, raw: Any) -> Any:
        """Resolve a value of the parser, to text, Ref, Unknown, None, or a list or dict of them."""
        if isinstance(raw, list):
            values = [self.value(part) for part in raw]
            if not self.is_plan:
                return values
            # A plan names the references in a list, of which one may stand for several.
            return [
                each for value in values for each in (value if isinstance(value, list) else [value])
            ]
        if isinstance(raw, dict):
            pairs = ((key, part) for key, part in raw.items() if not key.startswith("__"))
            return {key.strip('"'): self.value(part) for key, part in pairs}
        if isinstance(raw, bool):
            return str(raw).lower()
        if raw is None or isinstance(raw, int | float):
            return None if raw is None else str(raw)
        text = str(raw)
        if text.startswith("${") and text.endswith("}"):
            return self.expression(text[2:-1])
        if text.startswith('"') and text.endswith('"') and len(text) > 1:
            return self.template(text[1:-1])
        return self.expression(text)

    def template(self, text: str) -> Any:
        """Resolve quoted text, with each `${…}` in it."""
        if text.startswith("<<"):  # a heredoc: its marks are the first and the last line
            text = "\n".join(text.splitlines()[1:-1])
        if _DIRECTIVE.search(text):
            return Unknown(text[:200])
        if "${" not in text:
            return text.replace('\\"', '"')
        refs: list[Ref] = []
        names: list[str] = []
        has_unknown = False

        def replace(match: re.Match[str]) -> str:
            nonlocal has_unknown
            value = self.expression(match[1])
            if isinstance(value, Ref):
                refs.append(value)
                names.append(str(value))
                return "${" + str(value) + "}"
            if isinstance(value, Joined):
                names.extend(value.refs)
                has_unknown |= not value.refs
                return str(value)
            if is_known(value):
                return str(value)
            has_unknown = True
            return "${" + match[1].strip() + "}"

        joined = PIECE.sub(replace, text).replace('\\"', '"')
        if len(refs) == 1 and joined == "${" + str(refs[0]) + "}":
            return refs[0]
        return Joined(joined, tuple(names)) if names or has_unknown else joined

    def expression(self, text: str) -> Any:
        """Resolve an expression outside quotes."""
        self.depth += 1
        self.work[0] += 1
        if self.work[0] > MAX_RESOLVED:
            limit = f"over {MAX_RESOLVED:,} expressions"
            raise TemplateError(f"its references unfold to {limit}; no module does")
        try:
            if self.depth > MAX_DEPTH:
                return Unknown(text[:200])
            return self._expression(text.strip())
        finally:
            self.depth -= 1

    def _expression(self, text: str) -> Any:
        if text == "null":
            return None
        if text in ("true", "false") or re.fullmatch(r"-?\d+(\.\d+)?", text):
            return text
        inner = text[1:-1]
        if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in inner.replace('\\"', ""):
            return self.template(inner)
        question = split_once(text, "?")
        if question:
            return self._choose(*question, text)
        if any(split_once(text, sign) for sign in _SIGNS) or text.startswith("!"):
            verdict = self.truth(text)
            return Unknown(text[:200]) if verdict is None else str(verdict).lower()
        if text.startswith("(") and text.endswith(")"):
            return self.expression(inner)
        call = re.fullmatch(r"(\w+)\((.*)\)", text, re.DOTALL)
        if call:
            return self._call(call[1], call[2].strip(), text)
        return self._literal(text) if text[:1] in "[{" else self._name(text)

    def _choose(self, question: str, answers: str, text: str) -> Any:
        branches = split_once(answers, ":")
        verdict = self.truth(question)
        if not branches:
            return Unknown(text[:200])
        if verdict is not None:
            return self.expression(branches[0] if verdict else branches[1])
        either, other = (self.expression(branch) for branch in branches)
        return either if either == other else Unknown(text[:200])

    def _call(self, function: str, arguments: str, text: str) -> Any:
        """Resolve a call, if the result is plain from the arguments."""
        unknown = Unknown(text[:200])
        if function in ("jsonencode", "toset", "tolist", "tostring", "tonumber", "tobool"):
            return self.expression(arguments)
        if function == "file":
            return self._file(self.expression(arguments), unknown)
        values = [self.expression(part) for part in split_arguments(arguments)]
        if function in _OF_LISTS and isinstance(values[0], list):
            return _OF_LISTS[function](values[0], unknown)
        if function == "length" and (isinstance(values[0], list | dict) or is_known(values[0])):
            return str(len(values[0]))
        if function == "concat" and all(isinstance(value, list) for value in values):
            return [part for value in values for part in value]
        if function == "lookup" and isinstance(values[0], dict) and is_known(values[1]):
            return values[0].get(values[1], values[2] if len(values) > 2 else unknown)
        if function == "coalesce":
            first = next((value for value in values if value not in (None, "")), None)
            return unknown if isinstance(first, Unknown) else first
        return unknown

    def _file(self, path: Any, unknown: Unknown) -> Any:
        """Return a policy kept in a file of the module's own folder."""
        if not is_known(path) or not self.folder:
            return unknown
        folder = os.path.realpath(self.folder)
        full = os.path.realpath(os.path.join(folder, path))
        if not full.startswith(folder + os.sep) or not full.endswith(".json"):
            return unknown
        try:
            return load(full)
        except TemplateError:
            return unknown

    def _literal(self, text: str) -> Any:
        """Resolve a list or an object in an expression."""
        if re.match(r"[\[{]\s*for\s", text):
            return Unknown(text[:200])
        try:
            return self.value(parse_literal(text))
        except TemplateError:
            raise
        except Exception:  # the parser raises errors of several families
            return Unknown(text[:200])

    # ---- names ----

    def _name(self, text: str) -> Any:
        """Resolve a dotted name."""
        unknown = Unknown(text[:200])
        first, _, rest = text.partition(".")
        key = re.split(r"[.\[]", rest)[0]
        path = _INDEX.sub(self._resolve_index, rest[len(key) :])
        if first == "path" and rest in ("module", "root"):
            return "."
        if first == "var" and key in self.declared | set(self.arguments):
            return _follow(self._variable(key, unknown), path, unknown)
        if first == "local" and key in self.locals:
            return _follow(self.value(self.locals[key]), path, unknown)
        if first == "module" and key.split("[")[0] in self.modules:
            return self._output(self.modules[key], path, unknown)
        if first in self.iterators and key in ("key", "value"):
            return _follow(self.iterators[first][key == "value"], path, unknown)
        if first == "each" and self.each is not None:
            return _follow(self.each_key if key == "key" else self.each, path, unknown)
        if first == "data":
            return self._data(rest, unknown)
        resource = RESOURCE.fullmatch(text)
        if resource is None or "*" in resource[3]:
            return unknown
        name = f"{resource[1]}.{resource[2]}"
        if name not in self.resources:
            return unknown
        attribute = resource[3].rpartition(".")[2].partition("[")[0]
        attribute = _ATTRIBUTES.get(attribute, attribute)
        if name in self.instances:
            return self._instance(name, resource[3], attribute)
        return Ref(self.prefix + name, attribute)

    def _resolve_index(self, index: re.Match[str]) -> str:
        """Return `[expression]` with its value in place of the expression, if that is known."""
        value = self.expression(index[1])
        if not is_known(value):
            return index[0]
        return f"[{value}]" if value.isdigit() else f'["{value}"]'

    def _instance(self, name: str, path: str, attribute: str) -> Any:
        """Resolve an instance of a plan's resource; all of them if no index is given."""
        instances = self.instances[name]
        index = re.match(r"\[([^\]]*)\]", path)
        if index is not None:
            address = instances.get(index[1].strip('"'))
            return Unknown(name + path) if address is None else Ref(address, attribute)
        refs = [Ref(address, attribute) for address in instances.values()]
        return refs[0] if len(refs) == 1 else refs

    def _variable(self, key: str, unknown: Unknown) -> Any:
        if self.has_unknown_caller:
            return unknown
        if key in self.arguments:
            value = (self.parent or self).value(self.arguments[key])
            if value is not None or key not in self.not_nullable:
                return value
        return self.value(self.defaults[key]) if key in self.defaults else unknown

    def _output(self, module: Scope, path: str, unknown: Unknown) -> Any:
        step = re.match(r"(?:\[[^\]]*\])?\.([\w-]+)", path)
        if step is None or step[1] not in module.outputs:
            return unknown
        return _follow(module.value(module.outputs[step[1]]), path[step.end() :], unknown)

    def _data(self, rest: str, unknown: Unknown) -> Any:
        kind, _, name = rest.partition(".")
        key = re.split(r"[.\[]", name)[0]
        body = self.data.get(f"{kind}.{key}")
        if body is None:
            return unknown
        if kind == "aws_iam_policy_document":
            return self.read_document(body)
        if kind == "aws_iam_policy":
            return self._managed_policy(body, unknown)
        if kind == "aws_availability_zones":
            index = re.search(r"\[(\d+)\]$", rest)
            return f"zone {index[1]} of the region" if index else unknown
        return unknown

    def _managed_policy(self, body: dict[str, Any], unknown: Unknown) -> Any:
        arn = self.value(body.get("arn"))
        if is_known(arn):
            return arn
        name = self.value(body.get("name"))
        return f"arn:aws:iam::aws:policy/{name}" if is_known(name) else unknown

    # ---- truth ----

    def truth(self, text: str) -> bool | None:
        """Return whether a condition holds, or None if that is not known."""
        text = text.strip()
        for sign in _SIGNS:
            sides = split_once(text, sign)
            if sides and sign in ("||", "&&"):
                return (any_of if sign == "||" else all_of)(map(self.truth, sides))
            if sides:
                verdict = self._equal(*sides)
                return verdict if sign == "==" else negated(verdict)
        for sign in (">", "<"):
            sides = split_once(text, sign)
            if sides:
                return self._compare(*(sides if sign == "<" else sides[::-1]))
        if text.startswith("!"):
            return negated(self.truth(text[1:]))
        value = self.expression(text)
        return {"true": True, "false": False}.get(value) if isinstance(value, str) else None

    def _equal(self, first: str, second: str) -> bool | None:
        values = [self.expression(first), self.expression(second)]
        if any(isinstance(value, Unknown | Joined | Ref) for value in values):
            # A resource's attribute is never null.
            return False if None in values and isinstance(values[0] or values[1], Ref) else None
        return bool(values[0] == values[1])

    def _compare(self, low: str, high: str) -> bool | None:
        try:
            return float(self.expression(low)) < float(self.expression(high))
        except (TypeError, ValueError):
            return None


def _follow(value: Any, path: str, unknown: Unknown) -> Any:
    """Resolve `.name` and `[index]` behind a variable, a local or an output."""
    index = 0
    while index < len(path):
        step = _STEP.match(path, index)
        if step is None:
            return unknown
        index = step.end()
        try:
            if isinstance(value, Ref):
                attribute = step[1] or value.attribute
                value = Ref(value, _ATTRIBUTES.get(attribute, attribute))
            elif isinstance(value, list) and step[2]:
                value = value[int(step[2])]
            elif isinstance(value, dict):
                value = value[step[1] or step[3]]
            else:
                return unknown
        except (KeyError, IndexError):
            return unknown
    return value


def _sort(values: list[Any], _: Unknown) -> list[Any]:
    return sorted(values) if all(map(is_known, values)) else values


def _distinct(values: list[Any], _: Unknown) -> list[Any]:
    return [value for index, value in enumerate(values) if value not in values[:index]]


def _compact(values: list[Any], unknown: Unknown) -> Any:
    """Return the values that are neither null nor empty; unknown if any of them is unknown."""
    if any(isinstance(value, Unknown) for value in values):
        return unknown
    return [value for value in values if value not in (None, "")]


_OF_LISTS: dict[str, Callable[[list[Any], Unknown], Any]] = {
    "sort": _sort,
    "distinct": _distinct,
    "compact": _compact,
}
